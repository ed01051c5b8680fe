"""From the hub's change feed to one receiving system: read what has changed, show it there, commit the place."""

from __future__ import annotations

import heapq
import random
import threading
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_airis.catalog import BY_STEM
from airflow_provider_airis.errors import AirisError, PermanentError, RetryableError
from airflow_provider_airis.operators.deliver import TIMEOUT_S, AirisToOperator, notification_failed
from airflow_provider_airis.records import Alert, AlertChange, Notification, iso
from airflow_provider_airis.settings import option, options

if TYPE_CHECKING:
    from airflow.sdk.definitions.context import Context

    from airflow_provider_airis.hooks.airis import AirisHook

# Alerts delivered side by side, changes read at once, and alerts known to wait before no further are read.
DELIVERIES = 4
PAGE = 500
MOST_WAITING = 1_000
# Seconds: that one look at the feed takes at most, and between two commits.
LOOK_S = 5.0
COMMIT_S = 1.0
# Seconds: the first and the longest pause before what failed is tried again, and the one after a refusal.
SHORTEST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
REFUSED_PAUSE_S = 30.0
# Seconds that a receiver is silent before the hub is told.
OUTAGE_S = 60.0
# How often an alert may fail while the receiver takes others, before the fault is taken to be the alert's.
MOST_FAILURES = 10
# Seconds in which a run that was declared dead, and is not, ends what it is sending.
GRACE_S = 2 * TIMEOUT_S


class AirisDispatchOperator(BaseOperator):
    """Delivers the alerts that have changed since the committed place to one receiving system.

    Each alert of the system's ``severities``, or that it was shown before, is shown in the state that it then has, by
    the system's ``AirisTo<System>Operator``. What changes meanwhile is taken in at once. The place is committed up to
    the first change that is not shown yet, so that whatever a crash leaves is read again; the ledger says what was
    shown, and an alert that a run may have sent and not written down is looked for.

    A receiver that does not answer, or refuses whatever it is sent, is tried with one alert at a time, after a pause
    that grows; all other alerts wait, none is marked, the hub is told once, and the task fails when its time is over:
    the next run goes on. An alert that is refused for its own sake is marked ``failed`` in the ledger and reported to
    the hub, the others are delivered, and the task fails at its end.

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
        """Deliver; returns ``{sequence, sent}``: the committed place, and how many states were sent."""
        from airflow_provider_airis.hooks.airis import AirisHook

        if self.system not in BY_STEM or BY_STEM[self.system].flow != "outbound":
            raise AirflowFailException(f"{self.system!r} is no system that alerts are delivered to")
        with AirisHook(self.airis_conn_id, retries=0, system=self.system) as hub:
            self._run = _Run(self, hub)
            try:
                return self._run.go()
            except PermanentError as error:
                raise AirflowFailException(str(error)) from error
            finally:
                self._run.close()

    def on_kill(self) -> None:
        """Begin nothing more."""
        if self._run:
            self._run.stopped.set()


@dataclass(eq=False)
class _Waiting:
    """An alert of which a state is not shown yet.

    :param first: sequence of the first change that is not shown, and ``at``: its time, Unix ms.
    :param again: an earlier try may have sent it.
    :param sent: what was sent and is not in the ledger yet.
    :param newer: sequence and time of the first change that came while it was being delivered.
    :param tries: how often it was tried, ``failures`` of them while the receiver took others, whose number then was
        ``taken``; ``due`` is when it may be tried again.
    """

    alert_id: str
    first: int
    at: int
    again: bool
    sent: list[Notification] = field(default_factory=list)
    newer: tuple[int, int] | None = None
    tries: int = 0
    failures: int = 0
    taken: int = -1
    due: float = 0.0


class _Outcome(NamedTuple):
    """What became of a delivery: ``sent`` states, or an error that is the ``hub``'s or the ``receiver``'s."""

    sent: int = 0
    error: AirisError | None = None
    whose: Literal["hub", "receiver"] = "receiver"


class _NotTakenError(Exception):
    """The receiver did not take an alert, for this reason."""

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


class _Run:
    """One execution. All of its state is the main thread's; the others read the feed and deliver."""

    def __init__(self, operator: AirisDispatchOperator, hub: AirisHook) -> None:
        self.system = operator.system
        self.row = BY_STEM[self.system]
        self.target = option(self.system, "target")
        self.severities = frozenset(options(self.system, "severities"))
        self.operator = operator
        self.log = operator.log
        self.hub = hub
        self.stopped = threading.Event()
        self.end = monotonic() + operator.max_run_s
        self.linger_s = float(option(self.system, "linger_s")) if operator.linger_s is None else operator.linger_s
        self.outage_s = min(OUTAGE_S, operator.max_run_s / 2)
        self.quiet = monotonic() + self.linger_s
        self.waiting: dict[str, _Waiting] = {}
        self.queue: list[tuple[int, int, str]] = []
        self.flying: dict[Future[_Outcome], _Waiting] = {}
        self.reader: Future[tuple[list[AlertChange], int]] | None = None
        # Sequences: read up to, committed, and up to which a run before this one may have sent.
        self.read: int | None = None
        self.committed = 0
        self.tried = 0
        # When it began to send, by the hub's clock. Another run's time there means that this one was given up for dead.
        self.at_work = f"{hub.consumer}-at-work"
        self.turn: int | None = None
        self.given_up = False
        self.commit_due = 0.0
        self.hub_pause, self.pause = _Pause(), _Pause()
        self.told = False
        self.sent = 0
        self.failed: list[str] = []
        self._senders: dict[str, AirisToOperator] = {}
        self._lock = threading.Lock()

    def go(self) -> dict[str, int]:
        with ThreadPoolExecutor(DELIVERIES + 1, "dispatch") as pool:
            while True:
                now = monotonic()
                more = now < self.end and not self.stopped.is_set()
                if more:
                    self._start(pool, now)
                if not self.flying and self.reader is None and not (more and (self.waiting or now < self.quiet)):
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
        for sender in self._senders.values():
            sender.close()

    # What the main thread does

    def _start(self, pool: ThreadPoolExecutor, now: float) -> None:
        if now < self.hub_pause.until:
            return
        if self.reader is None and len(self.waiting) < MOST_WAITING and (self.waiting or now < self.quiet):
            # No longer at a time: whoever is stopped, or has been superseded, waits for the answer.
            until = min(now + LOOK_S, self.end, self.quiet if now < self.quiet else self.end)
            self.reader = pool.submit(self._changes, max(0.0, until - now))
        most = 1 if self.pause.error or self.hub_pause.error else DELIVERIES
        while now >= self.pause.until and self.queue and len(self.flying) < most:
            item = self.waiting[self.queue[0][2]]
            if item.due > now:
                return
            heapq.heappop(self.queue)
            refused = isinstance(self.pause.error, PermanentError)
            self.flying[pool.submit(self._deliver, item, refused)] = item

    def _idle(self, now: float) -> float:
        """Seconds until there may be something to do even if nothing happens."""
        times = [self.end, now + LOOK_S]
        times += [pause.until for pause in (self.pause, self.hub_pause) if pause.until > now]
        if self.queue and (due := self.waiting[self.queue[0][2]].due) > now:
            times.append(due)
        if not self.waiting and self.quiet > now:
            times.append(self.quiet)
        if self.read != self.committed and self.commit_due > now:
            times.append(self.commit_due)
        return max(0.01, min(times) - now)

    def _take(self, reader: Future[tuple[list[AlertChange], int]]) -> None:
        self.reader = None
        try:
            changes, self.read = reader.result()
        except RetryableError as error:
            if not self.hub_pause.error:
                self.log.warning("%s; waiting for it", error)
            self.hub_pause.failed(error)
            return
        self.hub_pause.worked()
        if changes:
            self.quiet = monotonic() + self.linger_s
        for change in changes:
            alert = change.alert
            if item := self.waiting.get(alert.id):
                # Unless it is being delivered, the state that is shown will be the newest anyway.
                if item.newer is None and any(item is flying for flying in self.flying.values()):
                    item.newer = change.sequence, change.at
            elif change.change != "fired" or alert.severity in self.severities:
                item = _Waiting(alert.id, change.sequence, change.at, again=change.sequence <= self.tried)
                self.waiting[alert.id] = item
                self._queue(item)

    def _queue(self, item: _Waiting) -> None:
        heapq.heappush(self.queue, (item.tries, item.first, item.alert_id))

    def _done(self, item: _Waiting, outcome: _Outcome) -> None:
        self.sent += outcome.sent
        if outcome.sent:
            self.pause.worked()
            self.told = False
        error = outcome.error
        if error is None:
            self.hub_pause.worked()
            del self.waiting[item.alert_id]
            if item.newer:
                sequence, at = item.newer
                self.waiting[item.alert_id] = item = _Waiting(item.alert_id, sequence, at, again=False)
                self._queue(item)
            return
        if outcome.whose == "hub":
            self.hub_pause.failed(error)
        else:
            if not self.pause.error:
                self.log.warning("%s; its deliveries wait", error)
            item.tries += 1
            if isinstance(error, RetryableError) and error.retry_after is None:
                item.again = True
                item.failures += 0 <= item.taken < self.sent
                item.due = monotonic() + min(SHORTEST_PAUSE_S * 2 ** (item.tries - 1), LONGEST_PAUSE_S)
            item.taken = self.sent
            self.pause.failed(error)
        self._queue(item)

    def _down(self) -> bool:
        """Whether the receiver is not just slow."""
        pause = self.pause
        return isinstance(pause.error, PermanentError) or (
            pause.error is not None and monotonic() >= pause.since + self.outage_s
        )

    def _tell(self) -> None:
        """Tell the hub of an outage, once."""
        error = self.pause.error
        if error is None or self.told or self.flying:
            return
        if not self._down():
            return
        first = min((item for item in self.waiting.values() if item.tries), key=lambda item: item.first, default=None)
        if first is None:
            return
        data = {"target": self.target, "waiting_since": iso(first.at), "sequence": first.first, "error": str(error)}
        key = f"{self.system}/{self.target}/{first.first}"
        try:
            self.hub.event(notification_failed(self.system, key, first.at, data))
            self.told = True
        except RetryableError as unreported:
            self.hub_pause.failed(unreported)
        except PermanentError as unreported:
            self.log.warning("The hub does not know that %s is told nothing: %s", self.row.title, unreported)
            self.told = True

    def _commit(self, now: float, *, over: bool = False) -> None:
        if self.read is None or (now < self.commit_due and not over):
            return
        place = min((item.first - 1 for item in self.waiting.values()), default=self.read)
        if place <= self.committed:
            return
        try:
            self.hub.commit(self.hub.consumer, place)
        except RetryableError as error:
            self.hub_pause.failed(error)
        else:
            self.committed = place
        self.commit_due = now + COMMIT_S

    def _ended(self) -> dict[str, int]:
        if self.given_up:
            raise AirflowFailException("Another run has taken over: Airflow had given this one up for dead")
        self._commit(monotonic(), over=True)
        self._tell()
        if self.turn is not None:
            with suppress(RetryableError):
                self.hub.commit(self.at_work, 0, force=True)
        if self.waiting:
            since = iso(min(item.at for item in self.waiting.values()))
            if error := self.pause.error if self._down() else self.hub_pause.error:
                raise AirflowFailException(
                    f"{len(self.waiting)} alerts wait for {self.row.title} ({self.target}) since {since}; "
                    f"the next run goes on. {error}"
                )
            self.log.info("%d alerts wait since %s; the next run goes on", len(self.waiting), since)
        if self.failed:
            raise AirflowFailException(
                f"{len(self.failed)} deliveries failed for good, {self.sent} did not: {'; '.join(self.failed[:10])}"
            )
        return {"sequence": self.committed, "sent": self.sent}

    # What the other threads do

    def _changes(self, seconds: float) -> tuple[list[AlertChange], int]:
        """The next changes. That they may have been sent is written down before any of them is."""
        tried = f"{self.hub.consumer}-tried"
        after = self.read
        if after is None:
            after = self.committed = self.hub.committed()
        changes, sequence = self.hub.changes(after=after, limit=PAGE, wait=seconds)
        if changes and self.turn is None:
            turn = self._take_over()
            after = self.committed = self.hub.committed()
            self.tried = self.hub.committed(tried)
            changes, sequence = self.hub.changes(after=after, limit=PAGE)
            self.turn = turn
        if changes and sequence > self.tried:
            self.hub.commit(tried, sequence)
        return changes, sequence

    def _take_over(self) -> int:
        """Let a run that still lives send nothing more; a consumer of its own says since when one is at work (1)."""
        before = self.hub.place(self.at_work)
        turn = self.hub.commit(self.at_work, 1, force=True).updated_at
        if before.sequence:
            self.log.info("The run before has not ended: what it is sending may still arrive")
            self.stopped.wait(GRACE_S)
        return turn

    def _deliver(self, item: _Waiting, refused: bool) -> _Outcome:
        """Show what an alert is now to whom it concerns.

        :param refused: the receiver has refused everything: see first whether it has been mended.
        """
        sent = 0
        try:
            if refused:
                self._check()
            for unwritten in [*item.sent]:
                self._record(item, unwritten)
            if self.hub.place(self.at_work).updated_at != self.turn:
                self.given_up = True
                self.stopped.set()
                return _Outcome(error=RetryableError("Another run has taken over"), whose="hub")
            alert = self.hub.alert(item.alert_id)
            for target in self._targets(alert):
                if entry := self._show(item, alert, target):
                    sent += 1
                    item.sent.append(entry)
                    self._record(item, entry)
        except _NotTakenError as error:
            return _Outcome(sent, error.error)
        except RetryableError as error:
            return _Outcome(sent, error, "hub")
        except PermanentError as error:
            if error.status != 404:
                raise
            self.log.info("The hub knows alert %s no more", item.alert_id)
        return _Outcome(sent)

    def _check(self) -> None:
        """Ask a receiver that has refused everything, with its connection looked up anew."""
        self.close()
        try:
            self._sender(self.target).hook.check()
        except Exception as error:
            raise _NotTakenError(error) from error

    def _show(self, item: _Waiting, alert: Alert, target: str) -> Notification | None:
        """Send; an alert that is refused for its own sake is given up.

        :raises _NotTakenError: it, or everything, is to wait.
        """
        sender = self._sender(target)
        try:
            return sender.show(alert, url=self.hub.dashboard_url(alert.id), again=item.again)
        except RetryableError as error:
            if item.failures < MOST_FAILURES:
                raise _NotTakenError(error) from error
            self._give_up(sender, alert, error)
        except Exception as error:
            refusal = _permanent(error)
            if target == self.target and sender.refuses_all(refusal):
                raise _NotTakenError(refusal) from error
            self._give_up(sender, alert, refusal)
        return None

    def _targets(self, alert: Alert) -> list[str]:
        """Whom to show an alert within the system: by its severity, and who was shown it before.

        The latter so that an incident is resolved too whose alert has come down to a severity that triggers none.
        """
        routed = [self.target] if alert.severity in self.severities else []
        return list(dict.fromkeys([*routed, *(n.target for n in alert.notifications if n.channel == self.system)]))

    def _sender(self, target: str) -> AirisToOperator:
        with self._lock:
            if target not in self._senders:
                module, _, name = str(self.row.operator_class).rpartition(".")
                sender: AirisToOperator = getattr(import_module(module), name)(
                    task_id=self.operator.task_id, alert_id="", target=target
                )
                sender.hook_retries = 0
                self._senders[target] = sender
            with suppress(Exception):
                self._senders[target].hook  # noqa: B018  made here, so that the threads share one
            return self._senders[target]

    def _record(self, item: _Waiting, entry: Notification) -> None:
        self.hub.record_notification(item.alert_id, entry)
        item.sent.remove(entry)

    def _give_up(self, sender: AirisToOperator, alert: Alert, error: AirisError) -> None:
        self.log.error("Alert %s is not delivered: %s", alert.id, error)
        try:
            sender.report(self.hub, alert, error)
        except PermanentError as unreported:
            self.log.warning("The hub does not know that this delivery has failed: %s", unreported)
        self.failed.append(f"alert {alert.id}: {error}")
