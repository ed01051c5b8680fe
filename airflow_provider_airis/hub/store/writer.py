"""One thread writes: works queue up, are done in order, and share a commit, so that a disk flush serves many."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DatabaseError, DataError, DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from airflow_provider_airis.hub.problems import Problem, StoreUnavailable
from airflow_provider_airis.hub.store.engine import is_damage
from airflow_provider_airis.hub.store.feeds import RULES, Turn
from airflow_provider_airis.hub.store.wakeups import notify

if TYPE_CHECKING:
    from airflow_provider_airis.hub.alerting.evaluation import Evaluator
    from airflow_provider_airis.hub.store.series import Cached, SeriesCache

T = TypeVar("T")
log = logging.getLogger(__name__)

Work = Callable[["Transaction"], Any]


class _Queued(NamedTuple):
    work: Work
    future: Future[Any]
    size: int
    turn: Turn


# What a commit may take together: enough to share its flush, little enough to answer soon.
_GROUP_WORKS = 64
_GROUP_BYTES = 4 << 20
# What another process has made impossible this time: serialization failure, deadlock, a partition that was dropped.
_AGAIN = frozenset({"40001", "40P01", "23514"})
_ATTEMPTS = 5


class Transaction:
    """What a work is done in.

    :ivar now: Unix ms.
    :ivar changed: feed → its last sequence, for those that this transaction adds to.
    :ivar arrived: series id → timestamps of its points that rules want to see.
    :ivar made: the ids of series that it has made or changed, and ``cached``: what the caches know of that.
    :ivar held: names of what this transaction has locked.
    :ivar rules: the version of the rules, once it may not change any more.
    :ivar evaluator: the rules in force.
    :ivar series: the ids of series that were seen lately.
    :ivar partitions: those of points that are known to be there, by their week.
    """

    def __init__(self, connection: Connection, evaluator: Evaluator, series: SeriesCache, partitions: set[int]) -> None:
        self.connection = connection
        self.evaluator = evaluator
        self.series = series
        self.partitions = partitions
        self.now = time.time_ns() // 1_000_000
        self.changed: dict[str, int] = {}
        self.arrived: dict[int, set[int]] = {}
        self.made: set[int] = set()
        self.cached: list[Cached] = []
        self.held: set[str] = set()
        self.rules: int | None = None

    @contextmanager
    def part(self) -> Iterator[None]:
        """What is done within is undone together, with the locks that it took, if it fails."""
        before = self.changed.copy(), self.held.copy(), self.rules
        cached = len(self.cached)
        try:
            with self.connection.begin_nested():
                yield
        except BaseException:
            self.undo(cached, before[0])
            self.changed, self.held, self.rules = before
            raise

    def undo(self, cached: int, changed: dict[str, int]) -> None:
        """The caches forget what was done since, and nothing of what others have cached.

        :param cached: how much of :attr:`cached` stays, and ``changed`` as it was then.
        """
        undone = self.cached[cached:]
        del self.cached[cached:]
        self.made = {entry.series_id for entry in self.cached}
        self.series.undo(undone)
        for entry in undone:
            if entry.new:
                self.evaluator.discard(entry.series_id)
        if self.changed.get(RULES) != changed.get(RULES):
            self.evaluator.forget()


class Writer:
    """Does works in a thread of its own.

    Rules are evaluated after a transaction's works; if that fails, it undoes only its own doing. When works were
    undone, so is what they have cached, and nothing else.

    :param after_commit: called once the transaction is durable.
    """

    def __init__(
        self,
        engine: Engine,
        evaluator: Evaluator,
        series: SeriesCache,
        *,
        after_commit: Callable[[Transaction], None],
    ) -> None:
        self._engine = engine.execution_options(writes=True)
        self._evaluator = evaluator
        self._series = series
        self._partitions: set[int] = set()
        self._after_commit = after_commit
        self._works: deque[_Queued] = deque()
        self._ready = threading.Condition()
        self._ending = False
        # Seconds until the store is tried again for what nobody waits for.
        self._pause = 0.0
        # Why the database file has to be replaced, once that was seen.
        self.damage = ""
        self._thread = threading.Thread(target=self._run, name="hub-writer", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[Transaction], T], *, size: int = 0, turn: Turn = Turn.ANY) -> Future[T]:
        """Queue a work; the future is done when its effect is durable.

        :param work: what is done, more than once if other processes are in the way.
        :param size: bytes that it brings, of which a commit takes only so many together.
        """
        future: Future[T] = Future()
        with self._ready:
            if self._ending:
                raise StoreUnavailable("the hub is shutting down")
            self._works.append(_Queued(work, future, size, turn))
            self._ready.notify()
        return future

    def close(self) -> None:
        """Finish what is queued and end the thread."""
        with self._ready:
            self._ending = True
            self._ready.notify()
        self._thread.join()

    def _run(self) -> None:
        while group := self._next():
            self._write([queued for queued in group if queued.future.set_running_or_notify_cancel()])

    def _next(self) -> list[_Queued]:
        with self._ready:
            while not self._works and not self._ending:
                due = self._evaluator.due
                wait = None if due is None else max(due / 1000 - time.time(), self._pause)
                self._pause = 0.0
                if not self._ready.wait(wait) and wait is not None:
                    return [_Queued(_nothing, Future(), 0, Turn.ANY)]
            group: list[_Queued] = []
            taken = 0
            while self._works and len(group) < _GROUP_WORKS and taken < _GROUP_BYTES:
                group.append(self._works.popleft())
                taken += group[-1].size
            return sorted(group, key=attrgetter("turn"))

    def _write(self, group: list[_Queued]) -> None:
        outcomes: list[tuple[Any, Exception | None]]
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                outcomes, transaction = self._commit(group)
            except Exception as error:  # noqa: BLE001 (handed to whoever waits for the works)
                self._partitions.clear()
                if attempt < _ATTEMPTS and _state(error) in _AGAIN:
                    time.sleep(random.uniform(0, 0.02 * attempt))  # noqa: S311
                    continue
                if isinstance(error, SQLAlchemyError):
                    log.error("the store is not reachable: %s", _reason(error))
                    self._pause = 1.0
                    if is_damage(error):
                        self.damage = _reason(error)
                    error = StoreUnavailable(_reason(error))
                outcomes = [(None, error)] * len(group)
            else:
                self._after_commit(transaction)
            break
        for queued, (result, failure) in zip(group, outcomes, strict=True):
            if failure is None:
                queued.future.set_result(result)
            else:
                queued.future.set_exception(failure)

    def _commit(self, group: list[_Queued]) -> tuple[list[tuple[Any, Exception | None]], Transaction]:
        transaction = None
        try:
            with self._engine.begin() as connection:
                transaction = Transaction(connection, self._evaluator, self._series, self._partitions)
                outcomes = [self._attempt(transaction, queued.work) for queued in group]
                _, failure = self._attempt(transaction, self._evaluator.evaluate)
                if failure is not None:
                    log.error("rules could not be evaluated", exc_info=failure)
                if transaction.changed and connection.dialect.name == "postgresql":
                    notify(connection)
        except BaseException:
            if transaction:
                transaction.undo(0, {})
            raise
        return outcomes, transaction

    def _attempt(self, transaction: Transaction, work: Work) -> tuple[Any, Exception | None]:
        """Do a work so that its failure undoes only its own doing; an outage fails the whole transaction."""
        try:
            with transaction.part():
                return work(transaction), None
        except Exception as error:
            if _is_outage(error) or _state(error) in _AGAIN:
                raise
            if isinstance(error, (DataError, OverflowError)):
                error = Problem(400, f"a value is out of bounds: {_reason(error)}")
            return None, error


def _nothing(_transaction: Transaction) -> None:
    """What is done for the evaluation that follows it."""


def _is_outage(error: Exception) -> bool:
    """Whether the store is at fault, not what was asked of it. SQLite has the plain class for a file that is broken."""
    return isinstance(error, (OperationalError, InterfaceError, PoolTimeout)) or (
        isinstance(error, DBAPIError) and (error.connection_invalidated or type(error) is DatabaseError)
    )


def _state(error: Exception) -> str | None:
    """PostgreSQL's code of an error, https://www.postgresql.org/docs/current/errcodes-appendix.html."""
    return getattr(error.orig, "sqlstate", None) if isinstance(error, DBAPIError) else None


def _reason(error: Exception) -> str:
    return str(error.orig) if isinstance(error, DBAPIError) else str(error)
