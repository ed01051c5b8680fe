"""One execution of the dispatch: read, plan, send, commit."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowFailException
from msgspec.structs import replace

from airflow_provider_airis.catalog import BY_STEM
from airflow_provider_airis.channels.base import open_channel
from airflow_provider_airis.dispatch import limits
from airflow_provider_airis.dispatch.outages import Outages
from airflow_provider_airis.dispatch.queue import Item, Pause, Queue, TargetQueue
from airflow_provider_airis.dispatch.sending import Outcome, Sender
from airflow_provider_airis.dispatch.state import Read, Reader, State
from airflow_provider_airis.errors import LeaseLostError, PermanentError, RetryableError
from airflow_provider_airis.records import Alert, LogEntry, iso
from airflow_provider_airis.routes import Group, LogKey, Routes, Sent, Silence, plan
from airflow_provider_airis.routes.groups import AHEAD_MS, RESOLVED
from airflow_provider_airis.settings import ChannelOptions

if TYPE_CHECKING:
    from airflow_provider_airis.dispatch.lease import RunLease
    from airflow_provider_airis.hooks.airis import AirisHook


class Run:
    """All of its state is the main thread's; the others read the feed, deliver, and renew the lease.

    :param hub: with the system; asks once, and never again by itself.
    :param lease: taken.
    :param linger_s: seconds without a change after which it ends, and ``max_run_s``: in any case.
    :param nobody: why the routes may lead to none of the system's targets.
    :param at_once: try targets that refused everything now, whatever was said of when.
    """

    def __init__(
        self,
        hub: AirisHook,
        lease: RunLease,
        routes: Routes,
        system: str,
        *,
        linger_s: float,
        max_run_s: float,
        nobody: str = "",
        at_once: bool = False,
    ) -> None:
        self.hub = hub
        self.log = hub.log
        self.lease = lease
        self.clock = lease.clock
        self.stopped = lease.stopped
        self.routes = routes
        self.row = BY_STEM[system]
        self.nobody = nobody
        self.at_once = at_once
        self.end = monotonic() + max_run_s
        self.linger_s = linger_s
        self.quiet = monotonic() + max(linger_s, limits.SHORT_LOOK_S)  # it looks at least once
        self.reading = Reading(Reader(hub, routes, system))
        self.queue = Queue()
        self.sender: Sender | None = None
        outage_s = min(limits.OUTAGE_S, max_run_s / 2)
        self.outages = Outages(hub, lease, system, self.row.title, outage_s=outage_s)
        self.hub_pause = Pause()
        # What is known, by the alert's id and by the group and its target.
        self.alerts: dict[str, Alert] = {}
        self.entries: dict[LogKey, LogEntry] = {}
        # When to plan again, by the monotonic clock, and when something is due though nothing changes, by the hub's.
        self.plan_at: float | None = None
        self.planned_until = 0.0
        self.steps = self.clock.steps
        self.next: int | None = None
        self.offset = Offset()
        self.sent = 0
        self.failed: dict[LogKey, str] = {}

    def go(self) -> dict[str, int]:
        """Until there is nothing more to do; returns ``{sequence, sent}``."""
        with ThreadPoolExecutor(limits.MOST_DELIVERIES + 1, "dispatch") as pool:
            while True:
                self.lease.turn()
                now = monotonic()
                more = now < self.end and not self.stopped.is_set()
                if more:
                    self._plan(now)
                    self._start(pool, now)
                if not self.queue.flying and self.reading.future is None and not (more and self._stays(now)):
                    break
                futures: set[Future[Any]] = {*self.queue.flying, *self.reading.futures}
                if futures:
                    wait(futures, self._idle(now), FIRST_COMPLETED)
                else:
                    self.stopped.wait(self._idle(now))
                self._take()
                for future in [future for future in self.queue.flying if future.done()]:
                    self._done(self.queue.flying.pop(future), future.result())
                self._report()
                self._commit(now)
        return self._ended()

    def close(self) -> None:
        """End the sessions with the receivers."""
        for target in self.queue.targets.values():
            target.channel.close()

    def _stays(self, now: float) -> bool:
        waits = bool(self.queue.items) and self._blocked(now) is None
        return waits or self.plan_at is not None or self._soon() or now < self.quiet

    def _soon(self) -> bool:
        return self.next is not None and self.next <= self.clock.now() + limits.STAY_S * 1000

    def _blocked(self, now: float) -> list[TargetQueue] | None:
        """The targets that refuse all that waits, if the next run may try them; None if this one goes on."""
        if self.sender is None or not self.sender.keeps_log:
            return None  # what has ended meanwhile would be known from the feed alone
        return self.queue.blocked(now)

    def _plan(self, now: float) -> None:
        """Ask the routes what is to be sent, if something has changed or has become due."""
        if self.sender is None:
            return
        stepped, self.steps = self.clock.steps != self.steps, self.clock.steps
        if stepped or (self.next is not None and self.next <= self.clock.now()):
            self.plan_at = self.plan_at or now
        if self.plan_at is None or now < max(self.plan_at, self.planned_until):
            return
        self.plan_at = self.next = None
        at = self.clock.now()
        self._set_back(at)
        log = {key: Sent(entry.at, entry.alerts, entry.reference) for key, entry in self.entries.items()}
        wanted = set()
        silences = self.reading.silences
        for flush in plan(self.routes, self.alerts.values(), log, now=at, silences=silences, channel=self.row.stem):
            if flush.sent is None:
                self._due(flush.next)
                continue
            wanted.add(flush.group.key)
            self.queue.want(flush, self._target(flush.group.key.target))
        self.queue.keep(wanted)
        shown = {i for entry in self.entries.values() for i, one in entry.alerts.items() if one.status != RESOLVED}
        shown |= {alert.id for item in self.queue.items.values() for alert in item.flush.alerts}
        self.alerts = {i: alert for i, alert in self.alerts.items() if alert.status != RESOLVED or i in shown}
        # However many alerts there are, most of the time is left for sending.
        self.planned_until = monotonic() + 4 * (monotonic() - now)

    def _due(self, *times: int | None) -> None:
        self.next = min((at for at in (*times, self.next) if at is not None), default=None)

    def _set_back(self, at: int) -> None:
        """What was sent later than now was sent before the hub's clock was set back: its intervals begin now."""
        ahead = {key: replace(entry, at=at) for key, entry in self.entries.items() if entry.at > at + AHEAD_MS}
        if ahead and self.sender:
            self.log.warning("The hub's clock was set back: the intervals of %d groups begin anew", len(ahead))
            self.entries |= ahead
            if self.sender.keeps_log:
                with suppress(RetryableError):
                    self.hub.log_notifications(ahead.values())

    def _start(self, pool: ThreadPoolExecutor, now: float) -> None:
        if now < self.hub_pause.until:
            return
        wanted = now >= self.reading.look_at and (self.queue.items or self._soon() or now < self.quiet)
        if self.reading.future is None and wanted:
            self.reading.start(pool, now, max(0.0, self._look(now) - now))
        if self.sender is None:
            return
        most = 1 if self.hub_pause.error else limits.DELIVERIES
        while len(self.queue.flying) < limits.MOST_DELIVERIES and (found := self.queue.next(now, most=most)):
            target, item = found
            item.began = now
            target.flying += 1
            known = self._known(item.flush.group)
            self.queue.flying[pool.submit(self.sender.deliver, item, target, known, target.pause.refused)] = item

    def _known(self, group: Group) -> LogEntry | None:
        """What the log says of a group."""
        known = self.entries.get(group.key)
        return self.entries.get(group.moved_from) if known is None and group.moved_from else known

    def _look(self, now: float) -> float:
        """Until when the feed is waited for: not for long, as who is stopped or superseded waits for the answer."""
        until = [now + limits.LOOK_S, self.end]
        if now < self.quiet:
            until.append(self.quiet)
        elif not any(target.pause.error for target in self.queue.targets.values()):
            until.append(now + limits.SHORT_LOOK_S)
        if self.next is not None:
            until.append(now + (self.next - self.clock.now()) / 1000)
        return min(until)

    def _idle(self, now: float) -> float:
        """Seconds until there may be something to do even if nothing happens."""
        times = [self.end, now + limits.LOOK_S, *self.queue.retries(now)]
        if self.hub_pause.until > now:
            times.append(self.hub_pause.until)
        if self.next is not None:
            times.append(now + (self.next - self.clock.now()) / 1000)
        if self.plan_at is not None:
            times.append(max(self.plan_at, self.planned_until))
        if not self.queue.items and self.quiet > now:
            times.append(self.quiet)
        if self.reading.future is None and self.reading.look_at > now:
            times.append(self.reading.look_at)
        if self.offset.is_behind and self.offset.due > now:
            times.append(self.offset.due)
        return max(0.01, min(times) - now)

    def _take(self) -> None:
        """Take in what was read."""
        try:
            read = self.reading.result()
            if read is None:
                return
            if read.state:
                self._begin(read.state)
        except RetryableError as error:
            self._hub_failed(error)
            return
        self.hub_pause.worked(self.reading.looked_at)
        self.reading.after, self.offset.read = read.sequence, read.sequence
        self.alerts |= {alert.id: alert for alert in read.alerts}
        if self.queue.items:
            self.reading.look_at = monotonic() + limits.BETWEEN_LOOKS_S
        if read.state or read.alerts:
            self.quiet = monotonic() + self.linger_s
        if read.state or read.alerts or read.silences != self.reading.silences:
            self.plan_at = self.plan_at or monotonic()
        self.reading.silences = read.silences

    def _begin(self, state: State) -> None:
        targets = {
            place.target
            for receiver in self.routes.receivers.values()
            for place in receiver.integrations
            if place.channel == self.row.stem
        }
        self.outages.load(targets)
        self.outages.configured()
        self.entries, self.alerts = state.entries, state.alerts
        self.offset.committed, self.offset.wake_at = state.committed, state.wake_at
        self.sender = Sender(self.hub, self.row, self.lease, keeps_log=state.keeps_log)
        self.targets = targets
        left = sum(alert.status != RESOLVED for alert in state.alerts.values())
        if not targets and left:
            self.log.warning("Nothing is sent to %s, and %d alerts are open: %s", self.row.title, left, self.nobody)

    def _hub_failed(self, error: RetryableError) -> None:
        if not self.hub_pause.error:
            self.log.warning("%s; waiting for it", error)
        self.hub_pause.failed(error)

    def _done(self, item: Item, outcome: Outcome) -> None:
        key = item.key
        target = self.queue.targets[key.target]
        target.flying -= 1
        if outcome.entry:
            self.entries[key] = outcome.entry
            if item.flush.group.moved_from:
                self.entries.pop(item.flush.group.moved_from, None)
            if all(shown.status == RESOLVED for shown in outcome.entry.alerts.values()):
                del self.entries[key]
        if outcome.failed:
            self.failed[key] = outcome.failed
            self.plan_at = self.plan_at or monotonic()  # it is due again
        if outcome.sent:
            self.sent += outcome.sent
            self.failed.pop(key, None)
            self._accepted(item, target, outcome.sent)
        if outcome.error is None:
            self.hub_pause.worked(item.began)
            del self.queue.items[key]
            self._due(item.flush.next)
        # What was sent before the log could be written may be past by now.
        past = outcome.entry and item.flush.sent and outcome.entry.alerts != item.flush.sent.alerts
        if item.stale or past:
            item.stale, self.plan_at = False, self.plan_at or monotonic()
        if outcome.error is not None:
            self._not_taken(item, target, outcome)

    def _accepted(self, item: Item, target: TargetQueue, count: int) -> None:
        refused = target.refused
        if not target.accepted(item, count):
            return
        # As long as what it has refused last waits, that is one outage.
        if refused is None or refused is item or self.queue.items.get(refused.key) is not refused:
            target.outage_reported, target.refused = False, None
            self.outages.recovered(target)

    def _not_taken(self, item: Item, target: TargetQueue, outcome: Outcome) -> None:
        error = outcome.error
        if outcome.whose == "hub" and isinstance(error, RetryableError):
            self._hub_failed(error)
            target.put(item)
        elif outcome.whose == "hub":
            target.put(item)  # another run has taken over
        elif outcome.whose == "group" and isinstance(error, PermanentError):
            target.suspected(item, error)
        elif error is not None:
            if not target.pause.error:
                self.log.warning("%s; its deliveries wait", error)
            target.failed(item, error)

    def _report(self) -> None:
        """Notify the hub of outages."""
        for target in self.queue.targets.values():
            try:
                self.outages.report(target, self.queue.waiting(target))
            except RetryableError as error:
                self._hub_failed(error)
            except LeaseLostError:
                self.lease.lose()

    def _commit(self, now: float, *, over: bool = False) -> None:
        """Once all that was read is shown, or waits for its time: write down how far that is, and that time."""
        if self.sender is None or self.lease.lost or self.plan_at is not None or (now < self.offset.due and not over):
            return
        blocked: Iterable[TargetQueue] = ()
        if self.queue.items:
            found = self._blocked(now)
            if found is None:
                return
            blocked = found
        due = [self.next, *(self.clock.now() + round(1000 * (target.pause.until - now)) for target in blocked)]
        if self.reading.silences:
            due.append(self.clock.now() + round(limits.SILENCED_S * 1000))
        wake_at = min((at for at in due if at is not None), default=None)
        try:
            self.offset.commit(self.hub, wake_at, over=over)
        except RetryableError as error:
            self._hub_failed(error)
        except LeaseLostError:
            self.lease.lose()
        self.offset.due = now + limits.COMMIT_S

    def _ended(self) -> dict[str, int]:
        if self.sender:
            self._commit(monotonic(), over=True)
            self._report()
        if self.lease.lost:
            raise AirflowFailException("Superseded by another run: this one did not renew its lease in time")
        if self.queue.items:
            self._fail_if_down()
        if self.hub_pause.error:
            raise AirflowFailException(f"The hub does not answer; the next run goes on. {self.hub_pause.error}")
        if self.failed:
            raise AirflowFailException(
                f"{len(self.failed)} deliveries failed, {self.sent} did not; they are tried again ever more rarely: "
                f"{'; '.join([*self.failed.values()][:10])}"
            )
        return {"sequence": self.offset.committed, "sent": self.sent}

    def _fail_if_down(self) -> None:
        items = self.queue.items.values()
        waiting = {alert.id: alert.updated_at for item in items for alert in item.flush.alerts}
        since = iso(min(waiting.values(), default=self.clock.now()))
        for target in self.queue.targets.values():
            if not self.queue.waiting(target) or not self.outages.is_down(target):
                continue
            text = f"{len(waiting)} alerts wait for {self.row.title} ({target.target}) since {since}"
            if target.asked:
                raise AirflowFailException(f"{text}; the next run goes on. {target.pause.error}")
            at = self.clock.now() + round(1000 * (target.pause.until - monotonic()))
            self.log.warning("%s; it is tried again at %s. %s", text, iso(at), target.pause.error)
        if self.hub_pause.error:
            text = f"{len(waiting)} alerts wait since {since}; the next run goes on."
            raise AirflowFailException(f"{text} {self.hub_pause.error}")
        self.log.info("%d alerts wait since %s; the next run goes on", len(waiting), since)

    def _target(self, name: str) -> TargetQueue:
        if name not in self.queue.targets:
            channel = open_channel(self.row, name, options=ChannelOptions(self.row), retries=0)
            target = self.queue.targets[name] = TargetQueue(name, channel, routed=name in self.targets)
            self.outages.resume(target, at_once=self.at_once)
        return self.queue.targets[name]


class Reading:
    """What is being read of the feed, from a thread."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.future: Future[Read] | None = None
        self.after: int | None = None
        self.looked_at = self.look_at = 0.0
        self.silences: list[Silence] = []

    @property
    def futures(self) -> list[Future[Read]]:
        """What is to be waited for."""
        return [self.future] if self.future else []

    def start(self, pool: ThreadPoolExecutor, now: float, seconds: float) -> None:
        """Look at the feed, for at most so many seconds."""
        self.looked_at = now
        self.future = pool.submit(self.reader.look, self.after, seconds)

    def result(self) -> Read | None:
        """What a look has brought that is over."""
        if self.future is None or not self.future.done():
            return None
        future, self.future = self.future, None
        return future.result()


class Offset:
    """How far the feed is read, and how far that is written down, with the time to wake the next run at."""

    def __init__(self) -> None:
        self.read = 0
        self.committed = 0
        self.wake_at: int | None = None
        self.due = 0.0

    @property
    def is_behind(self) -> bool:
        """Whether something was read that is not committed."""
        return self.read != self.committed

    def commit(self, hub: AirisHook, wake_at: int | None, *, over: bool) -> None:
        """Write it down, if anything is to be: the time alone only at the end."""
        if self.is_behind or (over and wake_at != self.wake_at):
            # It lies behind what was committed only if the hub was restored from a backup.
            hub.commit(hub.consumer, self.read, force=self.read < self.committed, wake_at=wake_at)
            self.committed, self.wake_at = self.read, wake_at
