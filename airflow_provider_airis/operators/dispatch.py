"""From the hub's change feed to deliveries: plan what is due, deliver each, commit the place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_airis.catalog import BY_STEM, SYSTEMS
from airflow_provider_airis.errors import PermanentError
from airflow_provider_airis.records import Alert
from airflow_provider_airis.settings import option, options

if TYPE_CHECKING:
    from airflow.sdk.definitions.context import Context

    from airflow_provider_airis.operators.deliver import AirisToOperator

SEQUENCE = "sequence"
# A run stops reading at the page that reaches this, whatever has piled up: Airflow maps 1,024 at once (max_map_length).
MOST_DELIVERIES = 500
PAGE = 50


def receivers(alert: Alert) -> list[tuple[str, str]]:
    """Who is to be shown an alert, as (channel, target): those of its severity, and those that were shown it before.

    The latter so that an incident is resolved too whose alert has come down to a severity that triggers none.
    """
    routed = [
        (system.stem, option(system.stem, "target"))
        for system in SYSTEMS
        if system.flow == "outbound" and alert.severity in options(system.stem, "severities")
    ]
    return list(dict.fromkeys([*routed, *((n.channel, n.target) for n in alert.notifications if n.channel in BY_STEM)]))


def deliveries(alerts: Iterable[Alert]) -> list[dict[str, str]]:
    """One delivery for each alert and receiver, in the alerts' order."""
    return [
        {"channel": channel, "target": target, "alert_id": alert.id}
        for alert in alerts
        for channel, target in receivers(alert)
    ]


class AirisPlanOperator(BaseOperator):
    """Reads the changes behind the committed place; returns the deliveries, ``[{channel, target, alert_id}]``.

    It reads all of them, or as many as make some 500 deliveries: the next run goes on from there. The sequence that it
    read up to is its XCom ``sequence``. An alert that changed several times is delivered once: a delivery shows the
    state that the alert then has.

    :param airis_conn_id: connection of the hub.
    """

    template_fields: Sequence[str] = ("airis_conn_id",)

    def __init__(self, *, airis_conn_id: str = "airis_default", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.airis_conn_id = airis_conn_id

    def execute(self, context: Context) -> list[dict[str, str]]:
        """Plan; commits nothing."""
        from airflow_provider_airis.hooks.airis import AirisHook

        latest: dict[str, Any] = {}
        with AirisHook(self.airis_conn_id) as hub:
            sequence = hub.committed(hub.consumer)
            while len(deliveries(change.alert for change in latest.values())) < MOST_DELIVERIES:
                changes, sequence = hub.changes(after=sequence, limit=PAGE)
                latest.update((change.alert.id, change) for change in changes)
                if not changes:
                    break
            # The snapshot of a later change may be older than what an earlier delivery wrote into the ledger.
            alerts = [c.alert if c.change == "fired" else hub.alert(c.alert.id) for c in latest.values()]
        planned = deliveries(alerts)
        context["ti"].xcom_push(SEQUENCE, sequence)
        self.log.info("%d alerts changed up to sequence %d: %d deliveries", len(alerts), sequence, len(planned))
        return planned


class AirisDeliverOperator(BaseOperator):
    """Delivers one alert to one receiver, with the operator of that system.

    :param channel: stem of an outbound system of the catalog.
    :param target: whom within it.
    :param alert_id: the alert's id at the hub.
    """

    template_fields: Sequence[str] = ("channel", "target", "alert_id", "airis_conn_id")

    def __init__(
        self, *, channel: str, target: str, alert_id: str, airis_conn_id: str = "airis_default", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.channel = channel
        self.target = target
        self.alert_id = alert_id
        self.airis_conn_id = airis_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Deliver; see :class:`~airflow_provider_airis.operators.deliver.AirisToOperator`."""
        path = BY_STEM[self.channel].operator_class
        if path is None or BY_STEM[self.channel].flow != "outbound":
            raise AirflowFailException(f"channel {self.channel!r} is no system that alerts are delivered to")
        module, _, name = path.rpartition(".")
        operator: AirisToOperator = getattr(import_module(module), name)(
            task_id=self.task_id, alert_id=self.alert_id, target=self.target, airis_conn_id=self.airis_conn_id
        )
        return operator.deliver(context)


class AirisCommitOperator(BaseOperator):
    """Commits the sequence that was planned, once every delivery has ended, well or for good.

    It then fails if deliveries did, so that the run is red. They stay as failed tasks: cleared, each delivers the
    state that its alert has by then.

    :param plan: task id of the :class:`AirisPlanOperator`, ``deliver`` of the mapped deliveries.
    """

    template_fields: Sequence[str] = ("airis_conn_id",)

    def __init__(self, *, plan: str, deliver: str, airis_conn_id: str = "airis_default", **kwargs: Any) -> None:
        super().__init__(trigger_rule="all_done", **kwargs)
        self.plan = plan
        self.deliver = deliver
        self.airis_conn_id = airis_conn_id

    def execute(self, context: Context) -> int:
        """Commit, and return the sequence."""
        from airflow_provider_airis.hooks.airis import AirisHook

        task = context["ti"]
        sequence = task.xcom_pull(task_ids=self.plan, key=SEQUENCE)
        if sequence is None:
            raise AirflowFailException(f"{self.plan} has not planned, so there is nothing to commit")
        planned = task.xcom_pull(task_ids=self.plan)
        # A list of one id, because of a bare id the only result of a mapped task comes without a list around it.
        delivered = [row for row in task.xcom_pull(task_ids=[self.deliver]) if row]
        try:
            with AirisHook(self.airis_conn_id) as hub:
                hub.commit(hub.consumer, sequence)
        except PermanentError as error:
            raise AirflowFailException(str(error)) from error
        if len(delivered) < len(planned):
            raise AirflowFailException(
                f"{len(planned) - len(delivered)} of {len(planned)} deliveries failed for good; the failed tasks "
                f"{self.deliver} say why. Clear them to deliver again"
            )
        return int(sequence)
