"""One execution of the dispatch: read, plan, send, commit."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_airis.catalog import BY_STEM
from airflow_provider_airis.channels.base import open_channel
from airflow_provider_airis.dispatch import limits
from airflow_provider_airis.dispatch.outages import Outages
from airflow_provider_airis.dispatch.planner import Planner
from airflow_provider_airis.dispatch.queue import Item, Pause, Queue, TargetQueue
from airflow_provider_airis.dispatch.reading import Offset, Reading
from airflow_provider_airis.dispatch.sending import Outcome, Sender
from airflow_provider_airis.dispatch.state import Reader, State
from airflow_provider_airis.errors import LeaseLostError, PermanentError, RetryableError
from airflow_provider_airis.records import iso
from airflow_provider_airis.routes import LogKey, Routes
from airflow_provider_airis.routes.groups import RESOLVED
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
        self.planner = Planner(routes, system, lease.clock)
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
        return waits or self.planner.waits or self.planner.soon() or now < self.quiet

    def _blocked(self, now: float) -> list[TargetQueue] | None:
        """The targets that refuse all that waits, if the next run may try them; None if this one goes on."""
        if self.sender is None or not self.sender.keeps_log:
            return None  # what has ended meanwhile would be known from the feed alone
        return self.queue.blocked(now)

    def _plan(self, now: float) -> None:
        """Ask the routes what is to be sent, if something has changed or has become due."""
        if self.sender is None or not self.planner.is_due(now):
            return
        if ahead := self.planner.set_back():
            self.log.warning("The hub's clock was set back: the intervals of %d groups begin anew", len(ahead))
            if self.sender.keeps_log:
                with suppress(RetryableError):
                    self.hub.log_notifications(ahead)
        wanted = self.planner.plan(self.reading.silences)
        for flush in wanted:
            self.queue.want(flush, self._target(flush.group.key.target))
        self.queue.keep({flush.group.key for flush in wanted})
        self.planner.keep(alert for item in self.queue.items.values() for alert in item.flush.alerts)

    def _start(self, pool: ThreadPoolExecutor, now: float) -> None:
        if now < self.hub_pause.until:
            return
        wanted = now >= self.reading.look_at and (self.queue.items or self.planner.soon() or now < self.quiet)
        if self.reading.future is None and wanted:
            self.reading.start(pool, now, max(0.0, self._look(now) - now))
        if self.sender is None:
            return
        most = 1 if self.hub_pause.error else limits.DELIVERIES
        while len(self.queue.flying) < limits.MOST_DELIVERIES and (found := self.queue.next(now, most=most)):
            target, item = found
            item.began = now
            target.flying += 1
            known = self.planner.known(item.flush.group)
            self.queue.flying[pool.submit(self.sender.deliver, item, target, known, target.pause.refused)] = item

    def _look(self, now: float) -> float:
        """Until when the feed is waited for: not for long, as who is stopped or superseded waits for the answer."""
        until = [now + limits.LOOK_S, self.end]
        if now < self.quiet:
            until.append(self.quiet)
        elif not any(target.pause.error for target in self.queue.targets.values()):
            until.append(now + limits.SHORT_LOOK_S)
        return min(until + self.planner.times(now))

    def _idle(self, now: float) -> float:
        """Seconds until there may be something to do even if nothing happens."""
        times = [self.end, now + limits.LOOK_S, *self.queue.retries(now), *self.planner.times(now)]
        if self.hub_pause.until > now:
            times.append(self.hub_pause.until)
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
        if self.queue.items:
            self.reading.look_at = monotonic() + limits.BETWEEN_LOOKS_S
        if read.state or read.alerts:
            self.quiet = monotonic() + self.linger_s
        if read.state or read.alerts or read.silences != self.reading.silences:
            self.planner.changed(read.alerts)
        self.reading.silences = read.silences

    def _begin(self, state: State) -> None:
        targets = self.planner.targets
        self.outages.load(targets)
        self.outages.configured()
        self.planner.begin(state)
        self.offset.committed, self.offset.wake_at = state.committed, state.wake_at
        self.sender = Sender(self.hub, self.row, self.lease, keeps_log=state.keeps_log)
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
            self.planner.written(item.flush.group, outcome.entry)
        if outcome.failed:
            self.failed[key] = outcome.failed
            self.planner.changed()  # it is due again
        if outcome.sent:
            self.sent += outcome.sent
            self.failed.pop(key, None)
            self._accepted(item, target, outcome.sent)
        if outcome.error is None:
            self.hub_pause.worked(item.began)
            del self.queue.items[key]
            self.planner.due(item.flush.next)
        # What was sent before the log could be written may be past by now.
        past = outcome.entry and item.flush.sent and outcome.entry.alerts != item.flush.sent.alerts
        if item.stale or past:
            item.stale = False
            self.planner.changed()
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
        if self.sender is None or self.lease.lost or self.planner.waits or (now < self.offset.due and not over):
            return
        blocked: Iterable[TargetQueue] = ()
        if self.queue.items:
            found = self._blocked(now)
            if found is None:
                return
            blocked = found
        due = [self.planner.next, *(self.clock.now() + round(1000 * (target.pause.until - now)) for target in blocked)]
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
            target = self.queue.targets[name] = TargetQueue(name, channel, routed=name in self.planner.targets)
            self.outages.resume(target, at_once=self.at_once)
        return self.queue.targets[name]
