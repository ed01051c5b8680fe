"""Waiting for the hub's alerts to change."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator
from airflow.sdk.exceptions import AirflowFailException
from airflow.triggers.base import StartTriggerArgs

from airflow_provider_airis.errors import PermanentError
from airflow_provider_airis.links import AirisAlertLink
from airflow_provider_airis.records import ChangeType
from airflow_provider_airis.settings import alerts_conn_id
from airflow_provider_airis.triggers.alerts import AirisAlertTrigger, AlertFeed

if TYPE_CHECKING:
    from airflow.sdk.definitions.context import Context


class AirisAlertSensor(BaseSensorOperator):
    """Waits for alerts to change, in the triggerer alone: waiting takes no worker, and waking takes no worker's start.

    With matchers it succeeds with the next change of an alert that fits, which its place in the feed is then moved
    behind: each such change ends the wait of one run, also if it came when none waited. The alert is its XCom,
    :class:`~airflow_provider_airis.records.Alert`'s fields. Two runs side by side would be told the same: give the Dag
    ``max_active_runs=1``. Airflow does not start mapped tasks in the triggerer: each waits in a worker, at a place that
    ends with its map index.

    Without matchers it succeeds once the feed holds anything behind the offset. Whoever runs after it reads the changes
    and commits the sequence; until then the sensor succeeds at once. With a system, whose dispatch runs after it, it
    succeeds at the time too that the run before has asked to be woken at; and of several runs that wait, one begins,
    and the others when that one has ended, or its lease lapses, since its worker has died.

    No parameter is templated, since no worker renders it.

    :param airis_conn_id: connection of the hub that has the alerts, ``[airis] alerts_conn_id`` unless given.
    :param consumer: whose place; if None the connection's ``consumer``, with matchers
        ``<connection's consumer>-<dag_id>.<task_id>``.
    :param system: stem of an outbound system, if it is the place of what is delivered there; not with matchers.
    :param matchers: Alertmanager's, ``severity=~"critical|high"``: all of them fit the alert as the change left it.
        An empty list fits every alert.
    :param changes: of these kinds: ``fired``, ``severity_changed``, ``acknowledged``, ``resolved``.
    :param catchup: whether the very first run begins with the first change that the hub has; else with the next.
    :raises ValueError: names the parameter that is wrong.
    """

    template_fields: Sequence[str] = ()
    ui_color = "#fff4e0"

    def __init__(
        self,
        *,
        airis_conn_id: str | None = None,
        consumer: str | None = None,
        system: str | None = None,
        matchers: str | Sequence[str] | None = None,
        changes: Sequence[ChangeType] = ("fired",),
        catchup: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if matchers is not None and system is not None:
            raise ValueError("system: the place of a dispatch is not moved by matchers; name a consumer")
        self.airis_conn_id = airis_conn_id or alerts_conn_id()
        self.consumer = consumer
        self.system = system
        self.matchers = matchers
        self.changes = changes
        self.catchup = catchup
        self.alert_id: str | None = None
        if matchers is not None:
            self.operator_extra_links = (AirisAlertLink(),)
        asked = AirisAlertTrigger(self.airis_conn_id, consumer, system, matchers, changes, catchup)
        trigger, arguments = asked.serialize()
        self.start_trigger_args = StartTriggerArgs(
            trigger_cls=trigger,
            trigger_kwargs=arguments,
            next_method="execute",
            next_kwargs=None,
            timeout=None if matchers is None else timedelta(seconds=self.timeout),
        )
        self.start_from_trigger = True

    def execute(self, context: Context) -> dict[str, Any] | None:
        """Wait without a triggerer, where a task is mapped, or run by hand: ``dag.test()``."""
        if self.matchers is not None:
            index = getattr(context.get("ti"), "map_index", -1)
            return asyncio.run(self._told(f"{self.dag_id}.{self.task_id}" + (f".{index}" if index >= 0 else "")))
        trigger = AirisAlertTrigger(self.airis_conn_id, self.consumer, self.system)
        try:
            asyncio.run(trigger.wait(str(context.get("run_id") or f"{self.dag_id} by hand")))
        except PermanentError as error:
            raise AirflowFailException(str(error)) from error
        return None

    async def _told(self, place: str) -> dict[str, Any]:
        system = None if self.consumer else place
        trigger = AirisAlertTrigger(
            self.airis_conn_id, self.consumer, system, self.matchers, self.changes, self.catchup
        )
        feed = AlertFeed(**trigger.serialize()[1])
        async for told, (sequence, _) in feed.open_stream():
            await feed.settle(sequence)
            if told is not None:
                self.alert_id = told.change.alert.id
                return told.alert
        raise AssertionError("the feed never ends")
