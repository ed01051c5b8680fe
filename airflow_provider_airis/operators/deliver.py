"""The engine under every ``AirisTo<System>Operator``: an alert's current state in, one message or incident out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException
from msgspec.structs import replace

from airflow_provider_airis.catalog import BY_STEM, System
from airflow_provider_airis.errors import AirisError, PermanentError
from airflow_provider_airis.links import AirisAlertLink
from airflow_provider_airis.records import Alert, Event, Notification

if TYPE_CHECKING:
    from airflow.sdk.definitions.context import Context

    from airflow_provider_airis.hooks.airis import AirisHook

FAILED = "failed"
# Seconds for a receiver to answer; one that does not is asked again later anyway.
TIMEOUT_S = 5
# Statuses by which a receiver may mean the one alert that it was sent. Any other refusal means all of them.
OF_THE_ALERT = frozenset({400, 413, 422})


class AirisToOperator(BaseOperator):
    """Makes one receiver show the state that an alert has now.

    It compares the alert with the hub's ledger and sends what is missing: nothing if the receiver was shown this
    state already, nothing either if the alert was resolved before the receiver heard of it. So a delivery can be
    repeated, cleared or overtaken by a later one, and the receiver still ends at the newest state, once.

    :param alert_id: the alert's id at the hub.
    :param target: whom within the system; part of the ledger's key.
    :param airis_conn_id: connection of the hub.

    A subclass names its ``system`` and implements :meth:`send`; :class:`AirisDispatchOperator` sends with it too, from
    several threads. An error that no retry mends fails the task at once. Either way, a delivery that failed for good is
    marked in the ledger and reported to the hub as an event ``notification_failed``.
    """

    system: ClassVar[str]
    # How often the hook sends again by itself.
    hook_retries: int = 1
    template_fields: Sequence[str] = ("alert_id", "target", "airis_conn_id")
    ui_color = "#fdecea"
    operator_extra_links = (AirisAlertLink(),)

    def __init__(self, *, alert_id: str, target: str, airis_conn_id: str = "airis_default", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.alert_id = alert_id
        self.target = target
        self.airis_conn_id = airis_conn_id

    @property
    def row(self) -> System:
        """The system's row in the catalog."""
        return BY_STEM[self.system]

    @property
    def receiver_conn_id(self) -> str:
        """The receiver's connection."""
        return self.row.default_conn_id

    @cached_property
    def hook(self) -> Any:
        """The receiver's hook, of which one session serves all that is sent."""
        module, _, name = self.row.hook_class.rpartition(".")
        return getattr(import_module(module), name)(self.receiver_conn_id, timeout=TIMEOUT_S, retries=self.hook_retries)

    def close(self) -> None:
        """End the session. The next use looks up the connection anew."""
        hook = self.__dict__.pop("hook", None)
        if hasattr(hook, "close"):
            hook.close()

    @abstractmethod
    def send(self, alert: Alert, reference: str | None, *, url: str, again: bool) -> str | None:
        """Send the alert's state and return the reference under which a later state updates it.

        :param reference: what an earlier state returned; None if the receiver was shown none.
        :param url: the alert's page on the hub.
        :param again: an earlier try may have sent it and died before it was written down; look before sending.
        :return: None if the alert is resolved and the receiver never heard of it, so that there is nothing to say.
        """

    def illustrate(self, hub: AirisHook, alert: Alert, reference: str, *, url: str) -> str | None:  # noqa: ARG002
        """Add what is not worth a delay, once the state is written down; returns the reference if it is another now."""
        return None

    def refuses_all(self, error: PermanentError) -> bool:
        """Whether it is the receiver that has to be mended, its token or its channel, and not this one alert."""
        if error.status is not None and error.status not in OF_THE_ALERT:
            return True
        try:
            self.hook.check()
        except Exception:  # noqa: BLE001  a missing connection, too
            return True
        return False

    def execute(self, context: Context) -> dict[str, Any]:
        """Deliver, and return ``{alert_id, target, status, reference}``; ``reference`` is None if nothing was sent."""
        from airflow_provider_airis.hooks.airis import AirisHook

        task = context.get("ti")
        again, last = (task.try_number > 1, task.try_number > task.max_tries) if task else (False, True)
        alert = None
        with AirisHook(self.airis_conn_id) as hub:
            try:
                alert = hub.alert(self.alert_id)
                entry = self.show(alert, url=hub.dashboard_url(alert.id), again=again)
                if entry:
                    hub.record_notification(alert.id, entry)
                    url = hub.dashboard_url(alert.id)
                    if entry.reference and (better := self.illustrate(hub, alert, entry.reference, url=url)):
                        entry = replace(entry, reference=better)
                        hub.record_notification(alert.id, entry)
            except AirisError as error:
                permanent = isinstance(error, PermanentError)
                if alert and (permanent or last):
                    try:
                        self.report(hub, alert, error)
                    except AirisError as unreported:
                        self.log.warning("The hub does not know that this delivery has failed: %s", unreported)
                if permanent:
                    raise AirflowFailException(str(error)) from error
                raise
            finally:
                self.close()
        shown = entry or self.shown(alert)
        reference = shown.reference or None if shown else None
        return {"alert_id": alert.id, "target": self.target, "status": alert.status, "reference": reference}

    def show(self, alert: Alert, *, url: str, again: bool) -> Notification | None:
        """Send what the receiver lacks; returns what the ledger is to say of it, None if nothing was sent."""
        shown = self.shown(alert)
        if shown and shown.status == alert.status and shown.at >= alert.updated_at:
            self.log.info("%s already shows alert %s as %s", self.row.title, alert.id, alert.status)
            return None
        reference = shown.reference or None if shown else None
        # A delivery that failed for good is in the ledger without a reference: it too may have been sent.
        again = again or (shown is not None and (not shown.reference or shown.status == FAILED))
        sent = None
        if reference or again or alert.status != "resolved":
            sent = self.send(alert, reference, url=url, again=again)
        if sent is None:
            self.log.info("Alert %s was resolved before %s heard of it: nothing to send", alert.id, self.row.title)
            return None
        self.log.info("%s (%s) shows alert %s as %s", self.row.title, self.target, alert.id, alert.status)
        return Notification(self.system, self.target, sent, alert.status, alert.updated_at)

    def report(self, hub: AirisHook, alert: Alert, error: AirisError) -> None:
        """Say at the hub that nobody was told."""
        shown = self.shown(alert)
        reference = shown.reference if shown else ""
        hub.record_notification(alert.id, Notification(self.system, self.target, reference, FAILED, alert.updated_at))
        data = {"alert_id": alert.id, "target": self.target, "status": alert.status, "error": str(error)}
        key = f"{alert.id}/{self.system}/{self.target}/{alert.updated_at}"
        hub.event(notification_failed(self.system, key, alert.updated_at, data))

    def shown(self, alert: Alert) -> Notification | None:
        """The ledger's entry of this receiver."""
        return next((n for n in alert.notifications if (n.channel, n.target) == (self.system, self.target)), None)


def notification_failed(system: str, key: str, at: int, data: dict[str, Any]) -> Event:
    """The event that says that a receiver was not told; the same key is the same event."""
    return Event(
        event_type="notification_failed",
        source=f"airflow-{system}",
        severity="error",
        timestamp=at,
        data=data,
        key=f"notification_failed/{key}",
    )


def cut(value: str, most: int) -> str:
    """At most so many characters, the last an ellipsis if there were more."""
    return value if len(value) <= most else value[: most - 1] + "…"
