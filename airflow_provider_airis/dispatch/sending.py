"""Sending one group to one target, and writing down before and after what it is shown."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Literal, NamedTuple

from msgspec.structs import replace

from airflow_provider_airis.catalog import System
from airflow_provider_airis.channels.base import Channel, notification_failed
from airflow_provider_airis.channels.view import AlertView
from airflow_provider_airis.dispatch import limits
from airflow_provider_airis.dispatch.queue import Item, TargetQueue
from airflow_provider_airis.errors import AirisError, LeaseLostError, PermanentError, RetryableError, SetupError
from airflow_provider_airis.records import Alert, LogEntry, Notification, Shown
from airflow_provider_airis.routes import Group, folded
from airflow_provider_airis.routes.groups import FAILED, RESOLVED, SENDING

if TYPE_CHECKING:
    from airflow_provider_airis.dispatch.lease import RunLease
    from airflow_provider_airis.hooks.airis import AirisHook


class Outcome(NamedTuple):
    """What became of a delivery: what the log now says, or an error and whose it is.

    :param whose: the hub's, the receiver's, which may be down or refuse everything, or maybe the group's own.
    :param failed: why the group was given up.
    """

    entry: LogEntry | None = None
    sent: int = 0
    error: AirisError | None = None
    whose: Literal["hub", "receiver", "group"] = "receiver"
    failed: str = ""


class Batch:
    """What is written into the log with one request."""

    def __init__(self) -> None:
        self.entries: list[LogEntry] = []
        self.done = False
        self.error: AirisError | None = None

    def write(self, hub: AirisHook) -> None:
        """Write."""
        try:
            hub.log_notifications(self.entries)
        except AirisError as error:
            self.error = error
        self.done = True


class NotTakenError(Exception):
    """The receiver did not take a group, for this reason.

    :param whose: fault it is: the ``receiver``'s, or maybe the ``group``'s own.
    """

    def __init__(self, error: AirisError, whose: Literal["receiver", "group"] = "receiver") -> None:
        self.error = error
        self.whose: Literal["receiver", "group"] = whose


def _left(group: Group, entry: LogEntry) -> list[LogEntry]:
    """The entry of the group that the alert has left, closed: what it has shown is gone on with."""
    if group.moved_from is None:
        return []
    alerts = {alert_id: Shown(RESOLVED, shown.at) for alert_id, shown in entry.alerts.items()}
    return [replace(entry, group=group.moved_from.group, receiver=group.moved_from.receiver, alerts=alerts)]


class Sender:
    """Sends for one run, from several threads.

    :param keeps_log: whether the hub has a notification log.
    """

    def __init__(self, hub: AirisHook, row: System, lease: RunLease, *, keeps_log: bool) -> None:
        self.hub = hub
        self.row = row
        self.lease = lease
        self.keeps_log = keeps_log
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._batch = Batch()

    def deliver(self, item: Item, target: TargetQueue, known: LogEntry | None, refused: bool) -> Outcome:
        """Show what a group is now.

        :param known: what the log says of it.
        :param refused: the target has refused everything: see first whether it has been mended.
        """
        try:
            if item.unwritten:
                entry = item.unwritten
                self._write(entry)
                item.unwritten = None
                return Outcome(entry, 1)
            if refused:
                self._check(target)
            if not self.lease.lasts():
                return Outcome(error=RetryableError("The lease of this run could not be renewed"), whose="hub")
            return self._deliver(item, target, known)
        except NotTakenError as error:
            return Outcome(error=error.error, whose=error.whose)
        except LeaseLostError as error:
            return Outcome(error=self.lease.refused(error), whose="hub")
        except RetryableError as error:
            return Outcome(error=error, whose="hub")

    def _deliver(self, item: Item, target: TargetQueue, known: LogEntry | None) -> Outcome:
        sent, group = item.flush.sent, item.flush.group
        assert sent is not None
        if known:
            known = replace(known, group=group.key.group, receiver=group.key.receiver)
        if not item.flush.alerts:
            assert known is not None
            entry = replace(known, alerts=sent.alerts)
            self._write(entry, *_left(group, entry))
            return Outcome(entry)
        changed = item.changed(known)
        if known and any(known.alerts[i].status == FAILED for i in changed if i in known.alerts):
            item.given_up = True
        alert, again = self._alert(item, known, changed)
        view = AlertView(alert, self.hub.dashboard_url(item.flush.alerts[0].id))
        entry = self._begin(item, known, alert, changed)
        if item.refusal:
            return self._give_up(entry, alert, changed, item.refusal)
        try:
            reference = self._send(item, target, view, entry.reference or None, again=again)
        except NotTakenError as error:
            return Outcome(entry, error=error.error, whose=error.whose)
        except AirisError as error:
            return self._give_up(entry, alert, changed, error)
        self.hub.log.info("%s (%s) shows %s as %s", self.row.title, target.target, alert.id, alert.status)
        item.unwritten = entry = replace(
            entry, reference=reference or "", at=self.lease.clock.now(), alerts=sent.alerts
        )
        self._write(entry)
        if reference and (better := target.channel.illustrate(self.hub, view, reference)):
            item.unwritten = entry = replace(entry, reference=better)
            self._write(entry)
        item.unwritten = None
        return Outcome(entry, 1 if reference is not None else 0)

    def _alert(self, item: Item, known: LogEntry | None, changed: dict[str, Shown]) -> tuple[Alert, bool]:
        """What the target is shown, and whether it may have been shown that before."""
        group, sent = item.flush.group, item.flush.sent
        assert sent is not None
        alert = folded(group, item.flush.alerts)
        if known and known.id:
            alert = replace(alert, id=known.id)
        again = item.again or not self.keeps_log
        if known and not changed:
            # A receiver is to take a repetition for new, but for the same one if a run dies before writing it down.
            every = group.route.repeat_interval
            alert = replace(alert, updated_at=min(sent.at, known.at + every * max(1, (sent.at - known.at) // every)))
            again = True
        elif known and alert.id != item.flush.alerts[0].id:
            # What was held back may be older than what was told: to a receiver it is new all the same.
            told = [shown.at for shown in known.alerts.values() if shown.status != SENDING]
            if told and alert.updated_at <= max(told):
                alert = replace(alert, updated_at=max(known.at, *told) + 1)
        if known:
            again |= not known.reference or any(shown.status == SENDING for shown in known.alerts.values())
        return alert, again

    def _send(
        self, item: Item, target: TargetQueue, view: AlertView, reference: str | None, *, again: bool
    ) -> str | None:
        """Send.

        :raises NotTakenError: it, or everything, is to wait.
        :raises AirisError: the group is given up.
        """
        try:
            return self._channel(target).send(view, reference, maybe_sent=again)
        except RetryableError as error:
            if item.failures < limits.MOST_FAILURES and not item.given_up:
                raise NotTakenError(error) from error
            raise
        except SetupError as error:
            raise NotTakenError(error) from error
        except PermanentError as error:
            self._judge(item, target, error)
            raise
        except Exception as error:
            fault = self._fault(target, error)
            maybe_passes = item.failures < limits.MOST_FAILURES and not item.given_up
            if isinstance(fault, PermanentError) or maybe_passes:
                raise NotTakenError(fault) from error
            raise fault from error

    def _fault(self, target: TargetQueue, error: Exception) -> AirisError:
        """What no receiver has said: never at once taken for an alert's fault."""
        if isinstance(error, ImportError):
            return PermanentError(f"{self.row.title}: {error}")
        self.hub.log.exception("%s (%s)", self.row.title, target.target)
        return RetryableError(f"{type(error).__name__}: {error}")

    def _judge(self, item: Item, target: TargetQueue, refusal: PermanentError) -> None:
        """Whether a refusal is, or may be, the receiver's fault.

        :raises NotTakenError: then.
        """
        if not target.routed or item.given_up:
            return
        everything = target.channel.refuses_all(refusal)
        most = limits.MOST_REFUSALS if everything else limits.MOST_REFUSALS_ALONE
        if item.refusals < most or item.taken >= target.sent:
            raise NotTakenError(refusal, "receiver" if everything else "group")

    def _begin(self, item: Item, known: LogEntry | None, alert: Alert, changed: dict[str, Shown]) -> LogEntry:
        """Write down what is about to be sent, so that who comes after a crash looks before sending it again."""
        key = item.flush.group.key
        entry = known or LogEntry(
            group=key.group,
            receiver=key.receiver,
            channel=key.channel,
            target=key.target,
            id=alert.id,
            reference="",
            at=self.lease.clock.now(),
            alerts={},
        )
        entry = replace(entry, alerts=entry.alerts | {i: Shown(SENDING, shown.at) for i, shown in changed.items()})
        left = _left(item.flush.group, entry)
        if known is None or left or entry.alerts != known.alerts:
            self._write(entry, *left)
        return entry

    def _write(self, entry: LogEntry, *left: LogEntry) -> None:
        """Write into the log, together with what others want to write while the hub is busy with what came before."""
        if self.keeps_log:
            with self._lock:
                batch = self._batch
                batch.entries += (entry, *left)
            with self._writing:
                if not batch.done:
                    with self._lock:
                        self._batch = Batch()
                    batch.write(self.hub)
            if batch.error:
                raise batch.error
            return
        for alert_id, shown in entry.alerts.items():
            if shown.status != SENDING:
                row = Notification(entry.channel, entry.target, entry.reference, shown.status, shown.at)
                self.hub.record_notification(alert_id, row)

    def _check(self, target: TargetQueue) -> None:
        """Ask a target that has refused everything, with its connection looked up anew."""
        target.channel.close()
        try:
            self._channel(target).check()
        except AirisError as error:
            raise NotTakenError(error) from error
        except Exception as error:
            raise NotTakenError(self._fault(target, error)) from error

    def _channel(self, target: TargetQueue) -> Channel:
        with self._lock, suppress(Exception):
            target.channel.hook  # noqa: B018  made here, so that the threads share one
        return target.channel

    def _give_up(self, entry: LogEntry, alert: Alert, changed: dict[str, Shown], error: AirisError) -> Outcome:
        """Write down that nobody was told, and say so at the hub."""
        self.hub.log.error("Alert %s is not delivered: %s", alert.id, error)
        failed = {alert_id: Shown(FAILED, shown.at) for alert_id, shown in changed.items()}
        entry = replace(entry, at=self.lease.clock.now(), alerts=entry.alerts | failed)
        data = {"alert_id": alert.id, "target": entry.target, "status": alert.status, "error": str(error)}
        key = f"{alert.id}/{self.row.stem}/{entry.target}/{alert.updated_at}"
        try:
            self._write(entry)
            self.hub.event(notification_failed(self.row.stem, key, alert.updated_at, data))
        except LeaseLostError:
            raise
        except PermanentError as unreported:
            self.hub.log.warning("The hub does not know that this delivery has failed: %s", unreported)
        return Outcome(entry, failed=f"alert {alert.id}: {error}")
