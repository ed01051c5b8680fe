"""Sending one group to one target, and writing down before and after what it is shown."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Literal, NamedTuple

from msgspec.structs import replace

from airflow_provider_airis.catalog import System
from airflow_provider_airis.channels.base import Channel, notification_failed
from airflow_provider_airis.channels.view import AlertView
from airflow_provider_airis.dispatch import limits
from airflow_provider_airis.dispatch.lanes import Item, Lane
from airflow_provider_airis.errors import AirisError, PermanentError, RetryableError, SetupError
from airflow_provider_airis.records import Alert, LogEntry, Notification, Shown
from airflow_provider_airis.routes import Group, folded
from airflow_provider_airis.routes.groups import FAILED, RESOLVED, SENDING

if TYPE_CHECKING:
    from airflow_provider_airis.dispatch.state import State
    from airflow_provider_airis.hooks.airis import AirisHook


class Outcome(NamedTuple):
    """What became of a delivery: what the log now says, or an error that is the ``hub``'s or the ``receiver``'s.

    :param failed: why the group was given up.
    """

    entry: LogEntry | None = None
    sent: int = 0
    error: AirisError | None = None
    whose: Literal["hub", "receiver"] = "receiver"
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
    """The receiver did not take a group, for this reason."""

    def __init__(self, error: Exception) -> None:
        self.error = error if isinstance(error, AirisError) else _permanent(error)


def _permanent(error: Exception) -> PermanentError:
    return error if isinstance(error, PermanentError) else PermanentError(f"{type(error).__name__}: {error}")


def _left(group: Group, entry: LogEntry) -> list[LogEntry]:
    """The entry of the group that the alert has left, closed: what it has shown is gone on with."""
    if group.moved_from is None:
        return []
    alerts = {alert_id: Shown(RESOLVED, shown.at) for alert_id, shown in entry.alerts.items()}
    return [replace(entry, group=group.moved_from.group, receiver=group.moved_from.receiver, alerts=alerts)]


class Sender:
    """Sends for one run, from several threads."""

    def __init__(self, hub: AirisHook, row: System, state: State, stopped: threading.Event) -> None:
        self.hub = hub
        self.row = row
        self.state = state
        self.stopped = stopped
        self.given_up = False
        self._asked = 0.0
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._batch = Batch()

    def superseded(self, *, within: float = 0.0) -> bool:
        """Whether another run has taken over: this one was given up for dead.

        :param within: seconds in which nobody asks the hub again.
        """
        now = monotonic()
        if now >= self._asked + within:
            if self.hub.place(f"{self.hub.consumer}-at-work").updated_at != self.state.turn:
                self.given_up = True
                self.stopped.set()
            self._asked = now
        return self.given_up

    def deliver(self, item: Item, lane: Lane, known: LogEntry | None, refused: bool) -> Outcome:
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
                self._check(lane)
            if self.superseded(within=limits.TURN_S):
                return Outcome(error=RetryableError("Another run has taken over"), whose="hub")
            return self._deliver(item, lane, known)
        except NotTakenError as error:
            return Outcome(error=error.error)
        except RetryableError as error:
            return Outcome(error=error, whose="hub")

    def _deliver(self, item: Item, lane: Lane, known: LogEntry | None) -> Outcome:
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
        alert, again = self._alert(item, known, changed)
        view = AlertView(alert, self.hub.dashboard_url(item.flush.alerts[0].id))
        entry = self._begin(item, known, alert, changed)
        try:
            reference = self._send(item, lane, view, entry.reference or None, again=again)
        except NotTakenError as error:
            return Outcome(entry, error=error.error)
        except AirisError as error:
            return self._give_up(entry, alert, changed, error)
        self.hub.log.info("%s (%s) shows %s as %s", self.row.title, lane.target, alert.id, alert.status)
        item.unwritten = entry = replace(entry, reference=reference or "", at=self._now(), alerts=sent.alerts)
        self._write(entry)
        if reference and (better := lane.channel.illustrate(self.hub, view, reference)):
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
        again = item.again or not self.state.keeps_log
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

    def _send(self, item: Item, lane: Lane, view: AlertView, reference: str | None, *, again: bool) -> str | None:
        """Send.

        :raises NotTakenError: it, or everything, is to wait.
        :raises AirisError: the group is given up.
        """
        try:
            return self._channel(lane).send(view, reference, maybe_sent=again)
        except RetryableError as error:
            if item.failures < limits.MOST_FAILURES:
                raise NotTakenError(error) from error
            raise
        except SetupError as error:
            raise NotTakenError(error) from error
        except Exception as error:
            refusal = _permanent(error)
            others = item.refusals >= limits.MOST_REFUSALS and item.taken < lane.sent
            if lane.routed and not others and lane.channel.refuses_all(refusal):
                raise NotTakenError(refusal) from error
            raise refusal from error

    def _now(self) -> int:
        return round(time.time() * 1000) + self.state.skew

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
            at=self._now(),
            alerts={},
        )
        entry = replace(entry, alerts=entry.alerts | {i: Shown(SENDING, shown.at) for i, shown in changed.items()})
        left = _left(item.flush.group, entry)
        if known is None or left or entry.alerts != known.alerts:
            self._write(entry, *left)
        return entry

    def _write(self, entry: LogEntry, *left: LogEntry) -> None:
        """Write into the log, together with what others want to write while the hub is busy with what came before."""
        if self.state.keeps_log:
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

    def _check(self, lane: Lane) -> None:
        """Ask a target that has refused everything, with its connection looked up anew."""
        lane.channel.close()
        try:
            self._channel(lane).check()
        except Exception as error:
            raise NotTakenError(error) from error

    def _channel(self, lane: Lane) -> Channel:
        with self._lock, suppress(Exception):
            lane.channel.hook  # noqa: B018  made here, so that the threads share one
        return lane.channel

    def _give_up(self, entry: LogEntry, alert: Alert, changed: dict[str, Shown], error: AirisError) -> Outcome:
        """Write down that nobody was told, and say so at the hub."""
        self.hub.log.error("Alert %s is not delivered: %s", alert.id, error)
        failed = {alert_id: Shown(FAILED, shown.at) for alert_id, shown in changed.items()}
        entry = replace(entry, at=self._now(), alerts=entry.alerts | failed)
        data = {"alert_id": alert.id, "target": entry.target, "status": alert.status, "error": str(error)}
        key = f"{alert.id}/{self.row.stem}/{entry.target}/{alert.updated_at}"
        try:
            self._write(entry)
            self.hub.event(notification_failed(self.row.stem, key, alert.updated_at, data))
        except PermanentError as unreported:
            self.hub.log.warning("The hub does not know that this delivery has failed: %s", unreported)
        return Outcome(entry, failed=f"alert {alert.id}: {error}")
