"""The engine under every ``AirisTo<System>Operator``: an alert's current state in, one message or incident out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from inspect import Parameter, Signature
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException
from msgspec.structs import replace

from airflow_provider_airis.catalog import BY_STEM, System
from airflow_provider_airis.channels.base import Channel, notification_failed, open_channel
from airflow_provider_airis.channels.view import AlertView
from airflow_provider_airis.errors import AirisError, PermanentError
from airflow_provider_airis.links import AirisAlertLink
from airflow_provider_airis.records import Alert, Notification
from airflow_provider_airis.routes.groups import FAILED
from airflow_provider_airis.settings import ChannelOptions, alerts_conn_id

if TYPE_CHECKING:
    from airflow.sdk.definitions.context import Context


class NotifyOperator(BaseOperator):
    """Makes one receiver show the state that an alert has now.

    It compares the alert with the hub's ledger and sends what is missing: nothing if the receiver was shown this
    state already, nothing either if the alert was resolved before the receiver heard of it. So a delivery can be
    repeated, cleared or overtaken by a later one, and the receiver still ends at the newest state, once.

    An error that no retry mends fails the task at once. Either way, a delivery that failed for good is marked in the
    ledger and reported to the hub as an event ``notification_failed``.

    :param alert_id: the alert's id at the hub.
    :param target: whom within the system; part of the ledger's key.
    :param airis_conn_id: connection of the hub that has the alerts, ``[airis] alerts_conn_id`` unless given.
    :param conn_id: the receiver's connection, where a target is none.
    :param options: the system's own options, by name; those of ``airflow.cfg`` unless given.

    A subclass names its ``system``. It then takes each of the options that the system's row declares as an argument of
    its own, and the connection as ``<name>_conn_id``, as the system's default connection is named.
    """

    system: ClassVar[str]
    template_fields: Sequence[str] = ("alert_id", "target", "airis_conn_id", "conn_id", "options")
    ui_color = "#fdecea"
    operator_extra_links = (AirisAlertLink(),)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "system" in cls.__dict__ and "__init__" not in cls.__dict__:
            _take_options(cls, BY_STEM[cls.system])

    def __init__(
        self,
        *,
        alert_id: str,
        target: str,
        airis_conn_id: str | None = None,
        conn_id: str | None = None,
        options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.alert_id = alert_id
        self.target = target
        self.airis_conn_id = airis_conn_id or alerts_conn_id()
        self.conn_id = conn_id
        self.options = options

    @property
    def row(self) -> System:
        """The system's row in the catalog."""
        return BY_STEM[self.system]

    @cached_property
    def channel(self) -> Channel:
        """What shows alerts to the target."""
        options = ChannelOptions(self.row, self.options)
        return open_channel(self.row, self.target, conn_id=self.conn_id or "", options=options)

    def execute(self, context: Context) -> dict[str, Any]:
        """Deliver, and return ``{alert_id, target, status, reference}``; ``reference`` is None if nothing was sent."""
        from airflow_provider_airis.hooks.airis import AirisHook

        task = context.get("ti")
        again, last = (task.try_number > 1, task.try_number > task.max_tries) if task else (False, True)
        alert = None
        with AirisHook(self.airis_conn_id) as hub:
            try:
                alert = hub.alert(self.alert_id)
                view = AlertView(alert, hub.dashboard_url(alert.id))
                entry = self.show(view, again=again)
                if entry:
                    hub.record_notification(alert.id, entry)
                    if entry.reference and (better := self.channel.illustrate(hub, view, entry.reference)):
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
                    raise AirflowFailException(str(error)) from None
                raise
            finally:
                self.channel.close()
        shown = entry or self.shown(alert)
        reference = shown.reference or None if shown else None
        return {"alert_id": alert.id, "target": self.target, "status": alert.status, "reference": reference}

    def show(self, view: AlertView, *, again: bool) -> Notification | None:
        """Send what the receiver lacks; returns what the ledger is to say of it, None if nothing was sent."""
        alert = view.alert
        shown = self.shown(alert)
        if shown and shown.status == alert.status and shown.at >= alert.updated_at:
            self.log.info("%s already shows alert %s as %s", self.row.title, alert.id, alert.status)
            return None
        reference = shown.reference or None if shown else None
        # A delivery that failed for good is in the ledger without a reference: it too may have been sent.
        again = again or (shown is not None and (not shown.reference or shown.status == FAILED))
        sent = None
        if reference or again or not view.over:
            sent = self.channel.send(view, reference, maybe_sent=again)
        if sent is None:
            self.log.info("Alert %s was resolved before %s heard of it: nothing to send", alert.id, self.row.title)
            return None
        self.log.info("%s (%s) shows alert %s as %s", self.row.title, self.target, alert.id, alert.status)
        return Notification(self.system, self.target, sent, alert.status, alert.updated_at)

    def report(self, hub: Any, alert: Alert, error: AirisError) -> None:
        """Say at the hub that the receiver was not shown the alert."""
        shown = self.shown(alert)
        reference = shown.reference if shown else ""
        hub.record_notification(alert.id, Notification(self.system, self.target, reference, FAILED, alert.updated_at))
        data = {"alert_id": alert.id, "target": self.target, "status": alert.status, "error": str(error)}
        key = f"{alert.id}/{self.system}/{self.target}/{alert.updated_at}"
        hub.event(notification_failed(self.system, key, alert.updated_at, data))

    def shown(self, alert: Alert) -> Notification | None:
        """The ledger's entry of this receiver."""
        return next((n for n in alert.notifications if (n.channel, n.target) == (self.system, self.target)), None)


def _take_options(cls: type[NotifyOperator], row: System) -> None:
    """Give an operator's class the arguments that its system's row declares, as Airflow and editors look for them."""
    conn = "" if row.target_is_connection else f"{row.default_conn_id.removesuffix('_default')}_conn_id"
    names = [option.name for option in row.channel.options] if row.channel else []

    def initialize(self: NotifyOperator, **kwargs: Any) -> None:
        given = {name: kwargs.pop(name) for name in names if kwargs.get(name) is not None}
        kwargs = {name: value for name, value in kwargs.items() if name not in names}
        if conn:
            kwargs["conn_id"] = kwargs.pop(conn, row.default_conn_id)
        if given:
            kwargs["options"] = {**(kwargs.get("options") or {}), **given}
        super(cls, self).__init__(**kwargs)

    taken = [Parameter(name, Parameter.KEYWORD_ONLY, default=None) for name in names]
    if conn:
        taken.insert(0, Parameter(conn, Parameter.KEYWORD_ONLY, default=row.default_conn_id))
    ends = Parameter("self", Parameter.POSITIONAL_OR_KEYWORD), Parameter("kwargs", Parameter.VAR_KEYWORD)
    initialize.__signature__ = Signature([ends[0], *taken, ends[1]])  # type: ignore[attr-defined]
    cls.__init__ = initialize  # type: ignore[method-assign]
