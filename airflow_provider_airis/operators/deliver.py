"""The engine under every ``AirisTo<System>Operator``: an alert's current state in, one message or incident out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_airis.catalog import BY_STEM, System
from airflow_provider_airis.errors import AirisError, PermanentError
from airflow_provider_airis.records import Alert, Event, Notification

if TYPE_CHECKING:
    from airflow.sdk.definitions.context import Context

    from airflow_provider_airis.hooks.airis import AirisHook

FAILED = "failed"
# Seconds for a receiver to answer: one that is down must not hold back the others, and the task is tried again anyway.
TIMEOUT_S = 5


class AirisToOperator(BaseOperator):
    """Makes one receiver show the state that an alert has now.

    It compares the alert with the hub's ledger and sends what is missing: nothing if the receiver was shown this
    state already, nothing either if the alert was resolved before the receiver heard of it. So a delivery can be
    repeated, cleared or overtaken by a later one, and the receiver still ends at the newest state, once.

    :param alert_id: the alert's id at the hub.
    :param target: whom within the system; part of the ledger's key.
    :param airis_conn_id: connection of the hub.

    A subclass names its ``system`` and implements :meth:`send`. An error that no retry mends fails the task at once.
    Either way, a delivery that failed for good is marked in the ledger and reported to the hub as an event
    ``notification_failed``.
    """

    system: ClassVar[str]
    template_fields: Sequence[str] = ("alert_id", "target", "airis_conn_id")
    ui_color = "#fdecea"

    def __init__(self, *, alert_id: str, target: str, airis_conn_id: str = "airis_default", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.alert_id = alert_id
        self.target = target
        self.airis_conn_id = airis_conn_id

    @property
    def row(self) -> System:
        """The system's row in the catalog."""
        return BY_STEM[self.system]

    @abstractmethod
    def send(self, alert: Alert, reference: str | None, *, url: str, again: bool) -> str | None:
        """Send the alert's state and return the reference under which a later state updates it.

        :param reference: what an earlier state returned; None if the receiver was shown none.
        :param url: the alert's page on the hub.
        :param again: an earlier try may have sent it and died before it was written down; look before sending.
        :return: None if the alert is resolved and the receiver never heard of it, so that there is nothing to say.
        """

    def execute(self, context: Context) -> dict[str, Any]:
        """Deliver, and return ``{alert_id, target, status, reference}``; ``reference`` is None if nothing was sent."""
        return self.deliver(context)

    def deliver(self, context: Context) -> dict[str, Any]:
        """What :meth:`execute` does, for another operator to call."""
        from airflow_provider_airis.hooks.airis import AirisHook

        task = context.get("ti")
        again, last = (task.try_number > 1, task.try_number > task.max_tries) if task else (False, True)
        alert = None
        with AirisHook(self.airis_conn_id) as hub:
            try:
                alert = hub.alert(self.alert_id)
                return self._deliver(hub, alert, again)
            except AirisError as error:
                permanent = isinstance(error, PermanentError)
                if alert and (permanent or last):
                    self._report(hub, alert, error)
                if permanent:
                    raise AirflowFailException(str(error)) from error
                raise

    def _deliver(self, hub: AirisHook, alert: Alert, again: bool) -> dict[str, Any]:
        shown = self._shown(alert)
        reference = shown.reference or None if shown else None
        result = {"alert_id": alert.id, "target": self.target, "status": alert.status, "reference": reference}
        if shown and shown.status == alert.status and shown.at >= alert.updated_at:
            self.log.info("%s already shows alert %s as %s", self.row.title, alert.id, alert.status)
            return result
        # A delivery that failed for good is in the ledger without a reference: it too may have been sent.
        again = again or shown is not None
        sent = None
        if reference or again or alert.status != "resolved":
            sent = self.send(alert, reference, url=hub.dashboard_url(alert.id), again=again)
        if sent is None:
            self.log.info("Alert %s was resolved before %s heard of it: nothing to send", alert.id, self.row.title)
            return result
        hub.record_notification(alert.id, Notification(self.system, self.target, sent, alert.status, alert.updated_at))
        self.log.info("%s (%s) shows alert %s as %s", self.row.title, self.target, alert.id, alert.status)
        return {**result, "reference": sent}

    def _report(self, hub: AirisHook, alert: Alert, error: AirisError) -> None:
        """Say at the hub that nobody was told. It must not hide the error itself."""
        shown = self._shown(alert)
        reference = shown.reference if shown else ""
        failed = Notification(self.system, self.target, reference, FAILED, alert.updated_at)
        event = Event(
            event_type="notification_failed",
            source=f"airflow-{self.system}",
            severity="error",
            timestamp=alert.updated_at,
            data={"alert_id": alert.id, "target": self.target, "status": alert.status, "error": str(error)},
            key=f"notification_failed/{alert.id}/{self.system}/{self.target}/{alert.updated_at}",
        )
        try:
            hub.record_notification(alert.id, failed)
            hub.event(event)
        except AirisError as unreported:
            self.log.warning("The hub does not know that this delivery has failed: %s", unreported)

    def _shown(self, alert: Alert) -> Notification | None:
        """The ledger's entry of this receiver."""
        return next((n for n in alert.notifications if (n.channel, n.target) == (self.system, self.target)), None)


def cut(value: str, most: int) -> str:
    """At most so many characters, the last an ellipsis if there were more."""
    return value if len(value) <= most else value[: most - 1] + "…"
