"""From the hub's alerts to one receiving system: what the routes want to be sent now is sent, and written down."""

from __future__ import annotations

import heapq
import random
import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from importlib import import_module
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import quote

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException
from msgspec.structs import replace

from airflow_provider_airis.catalog import BY_STEM, SYSTEMS
from airflow_provider_airis.errors import AirisError, PermanentError, RetryableError
from airflow_provider_airis.operators.deliver import TIMEOUT_S, AirisToOperator, notification_failed
from airflow_provider_airis.records import Alert, Event, LogEntry, Notification, Shown, iso
from airflow_provider_airis.routes import Flush, LogKey, Routes, RoutesError, Sent, Silence, folded, labels, plan
from airflow_provider_airis.routes.groups import FAILED, RESOLVED, SENDING
from airflow_provider_airis.routes.matching import quoted
from airflow_provider_airis.settings import option, options

if TYPE_CHECKING:
    from airflow.sdk.definitions.context import Context

    from airflow_provider_airis.hooks.airis import AirisHook

# Groups delivered side by side, and changes read at once.
DELIVERIES = 4
PAGE = 500
# Seconds: that one look at the feed takes at most, and while there is work to do; and between two commits.
LOOK_S = 5.0
SHORT_LOOK_S = 0.5
COMMIT_S = 1.0
# Seconds: the first and the longest pause before what failed is tried again, and the one after a refusal.
SHORTEST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
REFUSED_PAUSE_S = 30.0
# Seconds that a receiver is silent before the hub is told.
OUTAGE_S = 60.0
# How often a group may fail while the receiver takes others, before the fault is taken to be the group's.
MOST_FAILURES = 10
# Seconds in which a run that was declared dead, and is not, ends what it is sending.
GRACE_S = 2 * TIMEOUT_S
# Seconds for which a run stays if something is due then: a task's start takes longer than it is worth.
STAY_S = 60.0
# Seconds after which silenced alerts are looked at again, as a silence may end early.
SILENCED_S = 300.0


class AirisDispatchOperator(BaseOperator):
    """Sends to one receiving system what the routes want it to be told now, and follows the alerts as they change.

    The routes are those of ``[airis] routes_file``, else the hub's own, else the default: each alert by itself to the
    systems of its severity. Each group is shown in the state that it then has, by the system's
    ``AirisTo<System>Operator``. That a group may be sent is written into the hub's notification log before it is, and
    that it was thereafter; so a crash leaves a trace, and the receiver is looked at before it is told again. The place
    in the feed is committed once everything up to there is shown or waits for its time, which is kept at the hub too.

    A target that does not answer, or refuses whatever it is sent, is tried with one group at a time, after a pause
    that grows; its others wait, none is marked, the hub is told once, and the task fails when its time is over: the
    next run goes on. A group that is refused for its own sake is marked ``failed`` in the log and reported to the
    hub, the others are delivered, and the task fails at its end.

    :param system: stem of an outbound system of the catalog. Its place in the feed is ``<consumer>-<system>``.
    :param airis_conn_id: connection of the hub.
    :param linger_s: seconds without a change after which the task ends; until then the next one needs no task's start.
        The system's option unless given.
    :param max_run_s: seconds after which it ends in any case.
    """

    template_fields = ("system", "airis_conn_id")
    ui_color = "#fdecea"

    def __init__(
        self,
        *,
        system: str,
        airis_conn_id: str = "airis_default",
        linger_s: float | None = None,
        max_run_s: float = 600,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.system = system
        self.airis_conn_id = airis_conn_id
        self.linger_s = linger_s
        self.max_run_s = max_run_s
        self._run: _Run | None = None

    def execute(self, context: Context) -> dict[str, int]:  # noqa: ARG002
        """Deliver; returns ``{sequence, sent}``: the committed place, and how many messages were sent."""
        from airflow_provider_airis.hooks.airis import AirisHook

        if self.system not in BY_STEM or BY_STEM[self.system].flow != "outbound":
            raise AirflowFailException(f"{self.system!r} is no system that alerts are delivered to")
        with AirisHook(self.airis_conn_id, retries=0, system=self.system) as hub:
            try:
                self._run = _Run(self, hub, self._routes(hub))
                return self._run.go()
            except PermanentError as error:
                raise AirflowFailException(str(error)) from error
            finally:
                if self._run:
                    self._run.close()

    def _routes(self, hub: AirisHook) -> Routes:
        """The routes that hold now. A mistake in them is told to the hub, once."""
        path = option("airis", "routes_file")
        try:
            if path:
                return Routes.read(path)
            if own := hub.routes():
                return Routes.parse(own, "the hub's routes")
        except RoutesError as error:
            digest = blake2b(str(error).encode(), digest_size=8).hexdigest()
            now = round(time.time() * 1000)
            data = {"target": "", "error": f"nothing is sent, as the routes are wrong: {error}"}
            with suppress(AirisError):
                hub.event(notification_failed(self.system, f"{self.system}/routes/{digest}", now, data))
            threading.Event().wait(REFUSED_PAUSE_S)  # the next run follows at once, and finds the same
            raise AirflowFailException(str(error)) from error
        rows = (row.stem for row in SYSTEMS if row.flow == "outbound")
        return Routes.default({stem: (option(stem, "target"), options(stem, "severities")) for stem in rows})

    def on_kill(self) -> None:
        """Begin nothing more."""
        if self._run:
            self._run.stopped.set()


class _State(NamedTuple):
    """What a run begins with.

    :param turn: when it began to send, by the hub's clock.
    :param skew: by how much the hub's clock is ahead, ms.
    """

    turn: int
    skew: int
    entries: dict[LogKey, LogEntry]
    alerts: dict[str, Alert]
    committed: int


class _Read(NamedTuple):
    """What one look at the feed has brought; ``state`` if it was the first that did, until which there is a time."""

    state: _State | None
    alerts: list[Alert]
    sequence: int
    silences: list[Silence]
    due: int | None = None


@dataclass(eq=False)
class _Item:
    """A group of which a target is to be told something.

    :param again: an earlier try may have sent it.
    :param unwritten: what was sent and is not in the log yet.
    :param stale: something may have changed while it was being sent.
    :param tries: how often it was tried, ``failures`` of them while the target took others, whose number then was
        ``taken``; ``due`` is when it may be tried again.
    """

    flush: Flush
    again: bool = False
    unwritten: LogEntry | None = None
    stale: bool = False
    tries: int = 0
    failures: int = 0
    taken: int = -1
    due: float = 0.0

    def changed(self, entry: LogEntry | None) -> dict[str, Shown]:
        """The alerts of which the log says something else than is to be sent, as they are."""
        known = entry.alerts if entry else {}
        new = self.flush.sent.alerts if self.flush.sent else {}
        return {alert_id: shown for alert_id, shown in new.items() if known.get(alert_id) != shown}

    @property
    def since(self) -> int:
        """Since when it waits, Unix ms."""
        return min((alert.updated_at for alert in self.flush.alerts), default=0)


class _Outcome(NamedTuple):
    """What became of a delivery: what the log now says, or an error that is the ``hub``'s or the ``receiver``'s."""

    entry: LogEntry | None = None
    sent: int = 0
    error: AirisError | None = None
    whose: Literal["hub", "receiver"] = "receiver"


class _NotTakenError(Exception):
    """The receiver did not take a group, for this reason."""

    def __init__(self, error: Exception) -> None:
        self.error = error if isinstance(error, AirisError) else _permanent(error)


def _permanent(error: Exception) -> PermanentError:
    return error if isinstance(error, PermanentError) else PermanentError(f"{type(error).__name__}: {error}")


class _Pause:
    """How long to leave somebody alone who does not answer."""

    def __init__(self) -> None:
        self.error: AirisError | None = None
        self.since = 0.0
        self.until = 0.0
        self._length = 0.0

    def failed(self, error: AirisError) -> None:
        now = monotonic()
        if self.error is None:
            self.since = now
        elif now < self.until:
            return  # of those that were sent side by side, one counts
        self.error = error
        self._length = min(self._length * 2 or SHORTEST_PAUSE_S, LONGEST_PAUSE_S)
        pause = self._length * random.uniform(0.5, 1)  # noqa: S311
        if isinstance(error, PermanentError):
            pause = REFUSED_PAUSE_S
        elif isinstance(error, RetryableError) and error.retry_after is not None:
            pause = error.retry_after
        self.until = now + pause

    def worked(self) -> None:
        self.error, self.until, self._length = None, 0.0, 0.0


@dataclass(eq=False)
class _Lane:
    """What waits for one target.

    :param told: the hub knows that it is down; ``well``: that it is not.
    """

    target: str
    sender: AirisToOperator
    routed: bool
    pause: _Pause = field(default_factory=_Pause)
    queue: list[tuple[int, int, LogKey]] = field(default_factory=list)
    flying: int = 0
    sent: int = 0
    told: bool = False
    well: bool = False

    def put(self, item: _Item) -> None:
        heapq.heappush(self.queue, (item.tries, item.since, item.flush.group.key))


class _Run:
    """One execution. All of its state is the main thread's; the others read the feed and deliver."""

    def __init__(self, operator: AirisDispatchOperator, hub: AirisHook, routes: Routes) -> None:
        self.system = operator.system
        self.row = BY_STEM[self.system]
        self.operator = operator
        self.log = operator.log
        self.hub = hub
        self.routes = routes
        self.targets = {
            place.target
            for receiver in routes.receivers.values()
            for place in receiver.integrations
            if place.channel == self.system
        }
        self.stopped = threading.Event()
        self.end = monotonic() + operator.max_run_s
        self.linger_s = float(option(self.system, "linger_s")) if operator.linger_s is None else operator.linger_s
        self.outage_s = min(OUTAGE_S, operator.max_run_s / 2)
        self.quiet = monotonic() + self.linger_s
        # What is known, by the alert's id and by the group and its target; and what of it is to be sent.
        self.alerts: dict[str, Alert] = {}
        self.entries: dict[LogKey, LogEntry] = {}
        self.silences: list[Silence] = []
        self.items: dict[LogKey, _Item] = {}
        self.lanes: dict[str, _Lane] = {}
        self.flying: dict[Future[_Outcome], _Item] = {}
        self.reader: Future[_Read] | None = None
        # When to plan again, by the monotonic clock, and when something is due though nothing changes, by the hub's.
        self.plan_at: float | None = None
        self.planned_until = 0.0
        self.next: int | None = None
        self.read: int | None = None
        self.committed = 0
        self.due_written: int | None = None
        # Another run's time there means that this one was given up for dead.
        self.at_work = f"{hub.consumer}-at-work"
        self.turn: int | None = None
        self.skew = 0
        self.keeps_log = True
        self.given_up = False
        self.commit_due = 0.0
        self.hub_pause = _Pause()
        self.sent = 0
        self.failed: list[str] = []

    def go(self) -> dict[str, int]:
        with ThreadPoolExecutor(DELIVERIES + 1, "dispatch") as pool:
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
        for lane in self.lanes.values():
            lane.sender.close()

    # What the main thread does

    def _now(self) -> int:
        """Unix ms, by the hub's clock: the alerts' times are its."""
        return round(time.time() * 1000) + self.skew

    def _stays(self, now: float) -> bool:
        return bool(self.items) or self.plan_at is not None or self._soon() or now < self.quiet

    def _soon(self) -> bool:
        return self.next is not None and self.next <= self._now() + STAY_S * 1000

    def _plan(self, now: float) -> None:
        """Ask the routes what is to be sent, if something has changed or has become due."""
        if self.read is None:
            return
        if self.next is not None and self.next <= self._now():
            self.plan_at = self.plan_at or now
        if self.plan_at is None or now < max(self.plan_at, self.planned_until):
            return
        self.plan_at = self.next = None
        log = {key: Sent(entry.at, entry.alerts) for key, entry in self.entries.items()}
        alerts, at = self.alerts.values(), self._now()
        wanted = set()
        for flush in plan(self.routes, alerts, log, now=at, silences=self.silences, channel=self.system):
            key = flush.group.key
            if flush.sent is None:
                self.next = min((at for at in (flush.next, self.next) if at is not None), default=None)
                continue
            wanted.add(key)
            item = self.items.get(key)
            if item is None:
                self.items[key] = item = _Item(flush)
                self._lane(key.target).put(item)
            elif any(item is flying for flying in self.flying.values()):
                item.stale = True
            else:
                item.flush = flush
        for key, item in [*self.items.items()]:
            if key not in wanted and not item.unwritten and not any(item is one for one in self.flying.values()):
                del self.items[key]  # what it waited to say is no longer so
        told = {i for entry in self.entries.values() for i, shown in entry.alerts.items() if shown.status != RESOLVED}
        told |= {alert.id for item in self.items.values() for alert in item.flush.alerts}
        self.alerts = {i: alert for i, alert in self.alerts.items() if alert.status != RESOLVED or i in told}
        # However many alerts there are, most of the time is left for sending.
        self.planned_until = monotonic() + 4 * (monotonic() - now)

    def _start(self, pool: ThreadPoolExecutor, now: float) -> None:
        if now < self.hub_pause.until:
            return
        if self.reader is None and (self.items or self._soon() or now < self.quiet):
            self.reader = pool.submit(self._changes, max(0.0, self._look(now) - now))
        for lane in self.lanes.values():
            most = 1 if lane.pause.error or self.hub_pause.error else DELIVERIES
            while now >= lane.pause.until and lane.queue and lane.flying < most and len(self.flying) < DELIVERIES:
                item = self.items.get(lane.queue[0][2])
                if item is None or any(item is one for one in self.flying.values()):
                    heapq.heappop(lane.queue)
                    continue
                if item.due > now:
                    break
                heapq.heappop(lane.queue)
                lane.flying += 1
                refused = isinstance(lane.pause.error, PermanentError)
                known = self.entries.get(item.flush.group.key)
                self.flying[pool.submit(self._deliver, item, lane, known, refused)] = item

    def _look(self, now: float) -> float:
        """Until when the feed is waited for: not for long, as who is stopped or superseded waits for the answer."""
        until = [now + LOOK_S, self.end]
        if now < self.quiet:
            until.append(self.quiet)
        elif not any(lane.pause.error for lane in self.lanes.values()):
            until.append(now + SHORT_LOOK_S)
        if self.next is not None:
            until.append(now + (self.next - self._now()) / 1000)
        return min(until)

    def _idle(self, now: float) -> float:
        """Seconds until there may be something to do even if nothing happens."""
        times = [self.end, now + LOOK_S]
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
        if self.read != self.committed and self.commit_due > now:
            times.append(self.commit_due)
        return max(0.01, min(times) - now)

    def _take(self, reader: Future[_Read]) -> None:
        self.reader = None
        try:
            state, alerts, sequence, silences, due = reader.result()
        except RetryableError as error:
            if not self.hub_pause.error:
                self.log.warning("%s; waiting for it", error)
            self.hub_pause.failed(error)
            return
        self.hub_pause.worked()
        if state:
            self.turn, self.skew, self.entries, self.alerts, self.committed = state
        if self.turn is None:
            self.next = due
            return
        for alert in alerts:
            self.alerts[alert.id] = alert
        if state or alerts:
            self.quiet = monotonic() + self.linger_s
        if state or alerts or silences != self.silences:
            self.plan_at = self.plan_at or monotonic()
        self.silences, self.read = silences, sequence

    def _done(self, item: _Item, outcome: _Outcome) -> None:
        key = item.flush.group.key
        lane = self.lanes[key.target]
        lane.flying -= 1
        if outcome.entry:
            self.entries[key] = outcome.entry
            if all(shown.status == RESOLVED for shown in outcome.entry.alerts.values()):
                del self.entries[key]
        if outcome.sent:
            self.sent += outcome.sent
            lane.sent += outcome.sent
            lane.pause.worked()
            lane.told = False
            self._well(lane)
        error = outcome.error
        if error is None:
            self.hub_pause.worked()
            del self.items[key]
            # Also what is to be sent later is known only now.
            self.plan_at = self.plan_at or monotonic()
            return
        if item.stale:
            item.stale, self.plan_at = False, self.plan_at or monotonic()
        if outcome.whose == "hub":
            self.hub_pause.failed(error)
        else:
            if not lane.pause.error:
                self.log.warning("%s; its deliveries wait", error)
            item.tries += 1
            if isinstance(error, RetryableError) and error.retry_after is None:
                item.again = True
                item.failures += 0 <= item.taken < lane.sent
                item.due = monotonic() + min(SHORTEST_PAUSE_S * 2 ** (item.tries - 1), LONGEST_PAUSE_S)
            item.taken = lane.sent
            lane.pause.failed(error)
        lane.put(item)

    def _down(self, lane: _Lane) -> bool:
        """Whether a target is not just slow."""
        pause = lane.pause
        return isinstance(pause.error, PermanentError) or (
            pause.error is not None and monotonic() >= pause.since + self.outage_s
        )

    def _outage(self, lane: _Lane) -> str:
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

    def _well(self, lane: _Lane) -> None:
        """The next outage is another one."""
        if lane.well:
            return
        with suppress(AirisError):
            if self.hub.committed(self._outage(lane)):
                self.hub.commit(self._outage(lane), 0, force=True)
            lane.well = True

    def _commit(self, now: float, *, over: bool = False) -> None:
        """Once all that was read is shown, or waits for its time: write down the place, and that time."""
        if self.turn is None or self.read is None or self.items or self.plan_at is not None or self.given_up:
            return
        if now < self.commit_due and not over:
            return
        due = self.next
        if self.silences:
            due = min(due or 1 << 53, self._now() + round(SILENCED_S * 1000))
        try:
            if due != self.due_written and (over or self.read > self.committed):
                self.hub.commit(f"{self.hub.consumer}-due", due or 0, force=True)
                self.due_written = due
            if self.read > self.committed:
                self.hub.commit(self.hub.consumer, self.read)
                self.committed = self.read
        except RetryableError as error:
            self.hub_pause.failed(error)
        self.commit_due = now + COMMIT_S

    def _ended(self) -> dict[str, int]:
        if self.turn is not None and not self.given_up:
            with suppress(RetryableError):
                self.given_up = self.hub.place(self.at_work).updated_at != self.turn
        if self.given_up:
            raise AirflowFailException("Another run has taken over: Airflow had given this one up for dead")
        self._commit(monotonic(), over=True)
        self._tell()
        if self.turn is not None:
            with suppress(RetryableError):
                self.hub.commit(self.at_work, 0, force=True)
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

    def _lane(self, target: str) -> _Lane:
        if target not in self.lanes:
            module, _, name = str(self.row.operator_class).rpartition(".")
            sender: AirisToOperator = getattr(import_module(module), name)(
                task_id=self.operator.task_id, alert_id="", target=target
            )
            sender.hook_retries = 0
            self.lanes[target] = _Lane(target, sender, routed=target in self.targets)
        return self.lanes[target]

    # What the other threads do

    def _changes(self, seconds: float) -> _Read:
        """The next changes. With the first ones, or once something is due, this run takes over, and reads what is."""
        state = None
        after = self.read
        if after is None:
            after = self.hub.committed()
            due = self.hub.committed(f"{self.hub.consumer}-due")
            if not 0 < due <= self._now():
                left = (due - self._now()) / 1000 if due else seconds
                if not self.hub.changes(after=after, limit=1, wait=max(0.0, min(seconds, left)))[0]:
                    return _Read(None, [], after, [], due or None)
            state, after = self._load()
            return _Read(state, [], after, self._silences())
        changes, sequence = self.hub.changes(after=after, limit=PAGE, wait=seconds)
        return _Read(None, [change.alert for change in changes], sequence, self._silences())

    def _load(self) -> tuple[_State, int]:
        """What is open now, and what of it was shown, with the feed read to its end: nothing is sent that is past."""
        began = time.time() * 1000
        turn = self._take_over()
        skew = round(turn - began) if turn and turn - began > 0 else 0
        entries: dict[LogKey, LogEntry] = {}
        try:
            for entry in self.hub.notification_log(self.system):
                entries[LogKey(entry.group, entry.receiver, entry.channel, entry.target)] = entry
        except PermanentError as error:
            if error.status not in (404, 405):
                raise
            self.keeps_log = False
        told = {(alert_id, key.target) for key, entry in entries.items() for alert_id in entry.alerts}
        alerts: dict[str, Alert] = {}

        def take(alert: Alert) -> None:
            known = alerts.get(alert.id)
            if known and known.updated_at > alert.updated_at:
                return
            if alert.status == RESOLVED and not any(alert.id == told_id for told_id, _ in told):
                if not any(shown.channel == self.system for shown in alert.notifications):
                    alerts.pop(alert.id, None)
                    return
                alert = self.hub.alert(alert.id)  # the feed has the ledger as it was before this change
            for shown in alert.notifications:
                if shown.channel == self.system and (alert.id, shown.target) not in told:
                    self._adopt(entries, alert, shown)
                    told.add((alert.id, shown.target))
            if alert.status != RESOLVED or any(alert.id == told_id for told_id, _ in told):
                alerts[alert.id] = alert
            else:
                alerts.pop(alert.id, None)

        for alert in self.hub.alerts(status="firing", limit=5_000):
            take(alert)
        for alert in self.hub.alerts(status="acknowledged", limit=5_000):
            take(alert)
        committed = after = self.hub.committed()
        while True:
            changes, after = self.hub.changes(after=after, limit=PAGE)
            if not changes:
                return _State(turn, skew, entries, alerts, committed), after
            for change in changes:
                take(change.alert)

    def _adopt(self, entries: dict[LogKey, LogEntry], alert: Alert, shown: Notification) -> None:
        """Into the log what only the alert itself says: an operator of its own has shown it, or an earlier version."""
        its = labels(alert)
        places = (
            (route, place)
            for route in self.routes.match(its)
            for place in route.receiver.integrations
            if (place.channel, place.target) == (self.system, shown.target)
        )
        alone = (f"{self.routes.route.key}:{{alert_id={quoted(alert.id)}}}", self.system)
        group, receiver = next(((route.group_key(its), route.receiver.name) for route, _ in places), alone)
        key = LogKey(group, receiver, self.system, shown.target)
        entry = entries.get(key) or LogEntry(
            group=group,
            receiver=receiver,
            channel=self.system,
            target=shown.target,
            id=alert.id,
            reference=shown.reference,
            at=shown.at,
            alerts={},
        )
        entries[key] = replace(entry, alerts=entry.alerts | {alert.id: Shown(shown.status, shown.at)})

    def _silences(self) -> list[Silence]:
        try:
            return self.hub.silences()
        except PermanentError as error:
            if error.status not in (404, 405):
                raise
            return []

    def _take_over(self) -> int:
        """Let a run that still lives send nothing more; a consumer of its own says since when one is at work (1)."""
        before = self.hub.place(self.at_work)
        turn = self.hub.commit(self.at_work, 1, force=True).updated_at
        if before.sequence:
            self.log.info("The run before has not ended: what it is sending may still arrive")
            self.stopped.wait(GRACE_S)
        return turn

    def _deliver(self, item: _Item, lane: _Lane, known: LogEntry | None, refused: bool) -> _Outcome:
        """Show what a group is now.

        :param known: what the log says of it.
        :param refused: the target has refused everything: see first whether it has been mended.
        """
        entry = known
        try:
            if item.unwritten:
                self._write(item.unwritten)
                entry, item.unwritten = item.unwritten, None
                return _Outcome(entry, 1)
            if refused:
                self._check(lane)
            if self.hub.place(self.at_work).updated_at != self.turn:
                self.given_up = True
                self.stopped.set()
                return _Outcome(error=RetryableError("Another run has taken over"), whose="hub")
            flush = item.flush
            assert flush.sent is not None
            if not flush.alerts:
                assert known is not None
                entry = replace(known, alerts=flush.sent.alerts)
                self._write(entry)
                return _Outcome(entry)
            changed = item.changed(known)
            alert = folded(flush.group, flush.alerts)
            if known and known.id:
                alert = replace(alert, id=known.id)
            if not changed:
                alert = replace(alert, updated_at=flush.sent.at)  # a repetition, which a receiver is to take for new
            again = item.again or (known is not None and not known.reference) or not self.keeps_log
            again = again or any(shown.status == SENDING for shown in (known.alerts.values() if known else ()))
            entry = self._begin(item, known, alert, changed)
            url = self.hub.dashboard_url(flush.alerts[0].id)
            try:
                reference = self._sender(lane).send(alert, entry.reference or None, url=url, again=again)
            except RetryableError as error:
                if item.failures < MOST_FAILURES:
                    raise _NotTakenError(error) from error
                entry = self._give_up(entry, alert, changed, error)
                return _Outcome(entry)
            except Exception as error:
                refusal = _permanent(error)
                if lane.routed and lane.sender.refuses_all(refusal):
                    raise _NotTakenError(refusal) from error
                entry = self._give_up(entry, alert, changed, refusal)
                return _Outcome(entry)
            self.log.info("%s (%s) shows %s as %s", self.row.title, lane.target, alert.id, alert.status)
            entry = replace(entry, reference=reference or "", at=self._now(), alerts=flush.sent.alerts)
            item.unwritten = entry
            self._write(entry)
            item.unwritten = None
            return _Outcome(entry, 1 if reference is not None else 0)
        except _NotTakenError as error:
            return _Outcome(entry, error=error.error)
        except RetryableError as error:
            return _Outcome(entry, error=error, whose="hub")

    def _begin(self, item: _Item, known: LogEntry | None, alert: Alert, changed: dict[str, Shown]) -> LogEntry:
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
        sending = {alert_id: Shown(SENDING, shown.at) for alert_id, shown in changed.items()}
        entry = replace(entry, alerts=entry.alerts | sending)
        if known is None or entry.alerts != known.alerts:
            self._write(entry)
        return entry

    def _write(self, entry: LogEntry) -> None:
        if self.keeps_log:
            self.hub.log_notifications([entry])
            return
        for alert_id, shown in entry.alerts.items():
            if shown.status != SENDING:
                row = Notification(entry.channel, entry.target, entry.reference, shown.status, shown.at)
                self.hub.record_notification(alert_id, row)

    def _check(self, lane: _Lane) -> None:
        """Ask a target that has refused everything, with its connection looked up anew."""
        lane.sender.close()
        try:
            self._sender(lane).hook.check()
        except Exception as error:
            raise _NotTakenError(error) from error

    def _sender(self, lane: _Lane) -> AirisToOperator:
        with self._lock, suppress(Exception):
            lane.sender.hook  # noqa: B018  made here, so that the threads share one
        return lane.sender

    _lock = threading.Lock()

    def _give_up(self, entry: LogEntry, alert: Alert, changed: dict[str, Shown], error: AirisError) -> LogEntry:
        """Write down that nobody was told, and say so at the hub."""
        self.log.error("Alert %s is not delivered: %s", alert.id, error)
        self.failed.append(f"alert {alert.id}: {error}")
        failed = {alert_id: Shown(FAILED, shown.at) for alert_id, shown in changed.items()}
        entry = replace(entry, at=self._now(), alerts=entry.alerts | failed)
        try:
            self._write(entry)
            self.hub.event(self._failure(alert, entry.target, error))
        except PermanentError as unreported:
            self.log.warning("The hub does not know that this delivery has failed: %s", unreported)
        return entry

    def _failure(self, alert: Alert, target: str, error: AirisError) -> Event:
        data = {"alert_id": alert.id, "target": target, "status": alert.status, "error": str(error)}
        key = f"{alert.id}/{self.system}/{target}/{alert.updated_at}"
        return notification_failed(self.system, key, alert.updated_at, data)
