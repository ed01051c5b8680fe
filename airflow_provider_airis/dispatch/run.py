"""One execution of the dispatch: read, plan, send, commit."""

from __future__ import annotations

import heapq
import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_airis.catalog import BY_STEM
from airflow_provider_airis.channels.base import notification_failed, open_channel
from airflow_provider_airis.dispatch import limits
from airflow_provider_airis.dispatch.lanes import Item, Lane, Pause
from airflow_provider_airis.dispatch.sending import Outcome, Sender
from airflow_provider_airis.dispatch.state import Read, Reader, State
from airflow_provider_airis.errors import AirisError, PermanentError, RetryableError
from airflow_provider_airis.records import Alert, LogEntry, iso
from airflow_provider_airis.routes import Flush, Group, LogKey, Routes, Sent, Silence, plan
from airflow_provider_airis.routes.groups import RESOLVED
from airflow_provider_airis.settings import ChannelOptions

if TYPE_CHECKING:
    from airflow_provider_airis.hooks.airis import AirisHook


class Run:
    """All of its state is the main thread's; the others read the feed and deliver.

    :param hub: with the system; asks once, and never again by itself.
    :param linger_s: seconds without a change after which it ends, and ``max_run_s``: in any case.
    """

    def __init__(self, hub: AirisHook, routes: Routes, system: str, *, linger_s: float, max_run_s: float) -> None:
        self.system = system
        self.row = BY_STEM[system]
        self.log = hub.log
        self.hub = hub
        self.routes = routes
        self.targets = {
            place.target
            for receiver in routes.receivers.values()
            for place in receiver.integrations
            if place.channel == system
        }
        self.stopped = threading.Event()
        self.feed = Reader(hub, routes, system, self.stopped)
        self.sender: Sender | None = None
        self.end = monotonic() + max_run_s
        self.linger_s = linger_s
        self.outage_s = min(limits.OUTAGE_S, max_run_s / 2)
        self.quiet = monotonic() + max(linger_s, limits.SHORT_LOOK_S)  # it looks at least once
        # What is known, by the alert's id and by the group and its target; and what of it is to be sent.
        self.alerts: dict[str, Alert] = {}
        self.entries: dict[LogKey, LogEntry] = {}
        self.silences: list[Silence] = []
        self.items: dict[LogKey, Item] = {}
        self.lanes: dict[str, Lane] = {}
        self.flying: dict[Future[Outcome], Item] = {}
        self.reader: Future[Read] | None = None
        # When to plan again, by the monotonic clock, and when something is due though nothing changes, by the hub's.
        self.plan_at: float | None = None
        self.planned_until = 0.0
        self.looked_at = self.look_at = 0.0
        self.next: int | None = None
        self.read: int | None = None
        self.committed = 0
        self.due_written = 0
        self.skew = 0
        self.commit_due = 0.0
        self.hub_pause = Pause()
        self.sent = 0
        self.failed: list[str] = []

    def go(self) -> dict[str, int]:
        """Until there is nothing more to do; returns ``{sequence, sent}``."""
        with ThreadPoolExecutor(limits.MOST_DELIVERIES + 1, "dispatch") as pool:
            while True:
                now = monotonic()
                more = now < self.end and not self.stopped.is_set()
                if more:
                    self._plan(now)
                    self._start(pool, now)
                if not self.flying and self.reader is None and not (more and self._stays(now)):
                    break
                futures: set[Future[Any]] = {*self.flying, *([self.reader] if self.reader else [])}
                if futures:
                    wait(futures, self._idle(now), FIRST_COMPLETED)
                else:
                    self.stopped.wait(self._idle(now))
                if self.reader and self.reader.done():
                    self._take(self.reader)
                for future in [future for future in self.flying if future.done()]:
                    self._done(self.flying.pop(future), future.result())
                self._tell()
                self._commit(now)
        return self._ended()

    def close(self) -> None:
        """End the sessions with the receivers."""
        for lane in self.lanes.values():
            lane.channel.close()

    # What the main thread does

    def _now(self) -> int:
        """Unix ms, by the hub's clock: the alerts' times are its."""
        return round(time.time() * 1000) + self.skew

    def _stays(self, now: float) -> bool:
        return bool(self.items) or self.plan_at is not None or self._soon() or now < self.quiet

    def _soon(self) -> bool:
        return self.next is not None and self.next <= self._now() + limits.STAY_S * 1000

    def _plan(self, now: float) -> None:
        """Ask the routes what is to be sent, if something has changed or has become due."""
        if self.read is None:
            return
        if self.next is not None and self.next <= self._now():
            self.plan_at = self.plan_at or now
        if self.plan_at is None or now < max(self.plan_at, self.planned_until):
            return
        self.plan_at = self.next = None
        log = {key: Sent(entry.at, entry.alerts, entry.reference) for key, entry in self.entries.items()}
        alerts, at = self.alerts.values(), self._now()
        wanted = set()
        for flush in plan(self.routes, alerts, log, now=at, silences=self.silences, channel=self.system):
            if flush.sent is None:
                self.next = min((at for at in (flush.next, self.next) if at is not None), default=None)
                continue
            wanted.add(flush.group.key)
            self._want(flush)
        for key, item in [*self.items.items()]:
            if key not in wanted and not item.unwritten and not self._flies(item):
                del self.items[key]  # what it waited to say is no longer so
        told = {i for entry in self.entries.values() for i, shown in entry.alerts.items() if shown.status != RESOLVED}
        told |= {alert.id for item in self.items.values() for alert in item.flush.alerts}
        self.alerts = {i: alert for i, alert in self.alerts.items() if alert.status != RESOLVED or i in told}
        # However many alerts there are, most of the time is left for sending.
        self.planned_until = monotonic() + 4 * (monotonic() - now)

    def _want(self, flush: Flush) -> None:
        key, left = flush.group.key, flush.group.moved_from
        item, before = self.items.get(key), self.items.get(left) if left else None
        if before and (before.unwritten or self._flies(before)):
            before.stale = True
        elif item is None:
            self.items[key] = item = Item(flush)
            self._lane(key.target).put(item)
        elif self._flies(item):
            item.stale = True
        else:
            item.flush = flush

    def _start(self, pool: ThreadPoolExecutor, now: float) -> None:
        if now < self.hub_pause.until:
            return
        wanted = now >= self.look_at and (self.items or self._soon() or now < self.quiet)
        if self.reader is None and wanted:
            self.looked_at = now
            self.reader = pool.submit(self.feed.look, self.read, max(0.0, self._look(now) - now))
        while len(self.flying) < limits.MOST_DELIVERIES and (found := self._next(now)):
            lane, item = found
            item.began = now
            lane.flying += 1
            refused = isinstance(lane.pause.error, PermanentError)
            assert self.sender is not None
            self.flying[pool.submit(self.sender.deliver, item, lane, self._known(item.flush.group), refused)] = item

    def _known(self, group: Group) -> LogEntry | None:
        """What the log says of a group."""
        known = self.entries.get(group.key)
        return self.entries.get(group.moved_from) if known is None and group.moved_from else known

    def _next(self, now: float) -> tuple[Lane, Item] | None:
        """What is to be sent next: the lane where the least is under way comes first."""
        for lane in sorted(self.lanes.values(), key=lambda lane: lane.flying):
            most = 1 if lane.pause.error or self.hub_pause.error else limits.DELIVERIES
            if now >= lane.pause.until and lane.flying < most and (item := self._first(lane, now)):
                return lane, item
        return None

    def _first(self, lane: Lane, now: float) -> Item | None:
        """Take what is to be sent next from a lane, if anything is."""
        while lane.queue:
            item = self.items.get(lane.queue[0][2])
            if item is None or self._flies(item):
                heapq.heappop(lane.queue)  # it no longer waits
                continue
            if item.due > now:
                return None
            heapq.heappop(lane.queue)
            return item
        return None

    def _flies(self, item: Item) -> bool:
        return any(item is one for one in self.flying.values())

    def _look(self, now: float) -> float:
        """Until when the feed is waited for: not for long, as who is stopped or superseded waits for the answer."""
        until = [now + limits.LOOK_S, self.end]
        if now < self.quiet:
            until.append(self.quiet)
        elif not any(lane.pause.error for lane in self.lanes.values()):
            until.append(now + limits.SHORT_LOOK_S)
        if self.next is not None:
            until.append(now + (self.next - self._now()) / 1000)
        return min(until)

    def _idle(self, now: float) -> float:
        """Seconds until there may be something to do even if nothing happens."""
        times = [self.end, now + limits.LOOK_S]
        pauses = [self.hub_pause, *(lane.pause for lane in self.lanes.values() if lane.queue)]
        times += [pause.until for pause in pauses if pause.until > now]
        for lane in self.lanes.values():
            if lane.queue and (item := self.items.get(lane.queue[0][2])) and item.due > now:
                times.append(item.due)
        if self.next is not None:
            times.append(now + (self.next - self._now()) / 1000)
        if self.plan_at is not None:
            times.append(max(self.plan_at, self.planned_until))
        if not self.items and self.quiet > now:
            times.append(self.quiet)
        if self.reader is None and self.look_at > now:
            times.append(self.look_at)
        if self.read != self.committed and self.commit_due > now:
            times.append(self.commit_due)
        return max(0.01, min(times) - now)

    def _take(self, reader: Future[Read]) -> None:
        self.reader = None
        try:
            state, alerts, sequence, silences, due = reader.result()
        except RetryableError as error:
            if not self.hub_pause.error:
                self.log.warning("%s; waiting for it", error)
            self.hub_pause.failed(error)
            return
        self.hub_pause.worked(self.looked_at)
        if state:
            self._begin(state)
        if self.sender is None:
            self.next = due
            return
        for alert in alerts:
            self.alerts[alert.id] = alert
        if self.items:
            self.look_at = monotonic() + limits.BETWEEN_LOOKS_S
        if state or alerts:
            self.quiet = monotonic() + self.linger_s
        if state or alerts or silences != self.silences:
            self.plan_at = self.plan_at or monotonic()
        self.silences, self.read = silences, sequence

    def _begin(self, state: State) -> None:
        self.entries, self.alerts = state.entries, state.alerts
        self.skew, self.committed, self.due_written = state.skew, state.committed, state.due
        self.sender = Sender(self.hub, self.row, state, self.stopped)

    def _done(self, item: Item, outcome: Outcome) -> None:
        key = item.flush.group.key
        lane = self.lanes[key.target]
        lane.flying -= 1
        if outcome.entry:
            self.entries[key] = outcome.entry
            if item.flush.group.moved_from:
                self.entries.pop(item.flush.group.moved_from, None)
            if all(shown.status == RESOLVED for shown in outcome.entry.alerts.values()):
                del self.entries[key]
        if outcome.failed:
            self.failed.append(outcome.failed)
        if outcome.sent:
            self._worked(item, lane, outcome.sent)
        error = outcome.error
        if error is None:
            self.hub_pause.worked(item.began)
            del self.items[key]
            self.next = min((at for at in (item.flush.next, self.next) if at is not None), default=None)
        # What was sent before the log could be written may be past by now.
        past = outcome.entry and item.flush.sent and outcome.entry.alerts != item.flush.sent.alerts
        if item.stale or past:
            item.stale, self.plan_at = False, self.plan_at or monotonic()
        if error is not None:
            self._wait(item, lane, error, outcome.whose)

    def _wait(self, item: Item, lane: Lane, error: AirisError, whose: str) -> None:
        """Try it again later."""
        if whose == "hub":
            self.hub_pause.failed(error)
        else:
            if not lane.pause.error:
                self.log.warning("%s; its deliveries wait", error)
            item.tries += 1
            if isinstance(error, PermanentError):
                item.refusals += item.refusals == 0 or item.taken < lane.sent
                lane.refused = item
            elif isinstance(error, RetryableError) and error.retry_after is None:
                item.again = True
                item.failures += 0 <= item.taken < lane.sent
                item.due = monotonic() + min(limits.SHORTEST_PAUSE_S * 2 ** (item.tries - 1), limits.LONGEST_PAUSE_S)
            item.taken = lane.sent
            lane.pause.failed(error)
        lane.put(item)

    def _worked(self, item: Item, lane: Lane, sent: int) -> None:
        self.sent += sent
        if not lane.pause.worked(item.began):
            return
        lane.sent += sent
        refused = lane.refused
        if refused is None or refused is item or self.items.get(refused.flush.group.key) is not refused:
            lane.told, lane.refused = False, None
            self._well(lane)

    def _down(self, lane: Lane) -> bool:
        """Whether a target is not just slow."""
        pause = lane.pause
        return isinstance(pause.error, PermanentError) or (
            pause.error is not None and monotonic() >= pause.since + self.outage_s
        )

    def _outage(self, lane: Lane) -> str:
        """The consumer whose place is the time since which a target is down, Unix ms; 0 if it is not."""
        return f"{self.hub.consumer}-outage-{quote(lane.target, safe='')}"

    def _tell(self) -> None:
        """Tell the hub of an outage, once, however many runs it lasts."""
        for lane in self.lanes.values():
            error = lane.pause.error
            if error is None or lane.told or lane.flying or not self._down(lane):
                continue
            waiting = [item.since for key, item in self.items.items() if key.target == lane.target]
            if not waiting:
                continue
            try:
                name = self._outage(lane)
                since = self.hub.committed(name) or self.hub.commit(name, self._now(), force=True).sequence
                data = {"target": lane.target, "waiting_since": iso(min(waiting)), "error": str(error)}
                key = f"{self.system}/{lane.target}/{since}"
                self.hub.event(notification_failed(self.system, key, since, data))
                lane.told, lane.well = True, False
            except RetryableError as unreported:
                self.hub_pause.failed(unreported)
            except PermanentError as unreported:
                self.log.warning("The hub does not know that %s is told nothing: %s", self.row.title, unreported)
                lane.told = True

    def _well(self, lane: Lane) -> None:
        """The next outage is another one."""
        if lane.well:
            return
        with suppress(AirisError):
            if self.hub.committed(self._outage(lane)):
                self.hub.commit(self._outage(lane), 0, force=True)
            lane.well = True

    def _commit(self, now: float, *, over: bool = False) -> None:
        """Once all that was read is shown, or waits for its time: write down the place, and that time."""
        if self.sender is None or self.sender.given_up or self.items or self.plan_at is not None or self.read is None:
            return
        if now < self.commit_due and not over:
            return
        due = self.next
        if self.silences:
            due = min(due or 1 << 53, self._now() + round(limits.SILENCED_S * 1000))
        try:
            if (due or 0) != self.due_written and (over or self.read > self.committed):
                self.hub.commit(f"{self.hub.consumer}-due", due or 0, force=True)
                self.due_written = due or 0
            if self.read > self.committed:
                self.hub.commit(self.hub.consumer, self.read)
                self.committed = self.read
        except RetryableError as error:
            self.hub_pause.failed(error)
        self.commit_due = now + limits.COMMIT_S

    def _ended(self) -> dict[str, int]:
        if self.sender:
            with suppress(RetryableError):
                self.sender.superseded()
            if self.sender.given_up:
                raise AirflowFailException("Another run has taken over: Airflow had given this one up for dead")
            self._commit(monotonic(), over=True)
            self._tell()
            with suppress(RetryableError):
                self.hub.commit(f"{self.hub.consumer}-at-work", 0, force=True)
        if self.items:
            waiting = {alert.id: alert.updated_at for item in self.items.values() for alert in item.flush.alerts}
            since = iso(min(waiting.values(), default=self._now()))
            for lane in self.lanes.values():
                if lane.pause.error and self._down(lane):
                    raise AirflowFailException(
                        f"{len(waiting)} alerts wait for {self.row.title} ({lane.target}) since {since}; "
                        f"the next run goes on. {lane.pause.error}"
                    )
            if self.hub_pause.error:
                raise AirflowFailException(
                    f"{len(waiting)} alerts wait since {since}; the next run goes on. {self.hub_pause.error}"
                )
            self.log.info("%d alerts wait since %s; the next run goes on", len(waiting), since)
        if self.failed:
            raise AirflowFailException(
                f"{len(self.failed)} deliveries failed for good, {self.sent} did not: {'; '.join(self.failed[:10])}"
            )
        return {"sequence": self.committed, "sent": self.sent}

    def _lane(self, target: str) -> Lane:
        if target not in self.lanes:
            channel = open_channel(self.row, target, options=ChannelOptions(self.row), retries=0)
            self.lanes[target] = Lane(target, channel, routed=target in self.targets)
        return self.lanes[target]
