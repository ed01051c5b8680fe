"""What the hub keeps. Reads answer at once and may run in any thread; writes are queued and answer futures."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import URL, Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from airflow_provider_airis.hub.alerting import rulebook
from airflow_provider_airis.hub.alerting.evaluation import Evaluator
from airflow_provider_airis.hub.problems import Problem, StoreUnavailable
from airflow_provider_airis.hub.store import feeds, sql, users, wakeups
from airflow_provider_airis.hub.store import tables as db
from airflow_provider_airis.hub.store.engine import claim, connect, limited, verify
from airflow_provider_airis.hub.store.feeds import Turn
from airflow_provider_airis.hub.store.migrations import migrate
from airflow_provider_airis.hub.store.retention import Retention, plan
from airflow_provider_airis.hub.store.series import SeriesCache
from airflow_provider_airis.hub.store.writer import Transaction, Writer

T = TypeVar("T")
P = ParamSpec("P")

KEEP = Retention()
SCAN_S = 30


class Store:
    """The hub's store, on a SQLite file that is this process' alone, or on a PostgreSQL that several share.

    :param url: SQLAlchemy's, e.g. ``sqlite:////var/lib/airis/hub.db`` or ``postgresql://airis@db.example/airis``.
    :param retention: how long what is kept.
    :raises StoreUnavailable: it cannot be opened.
    """

    def __init__(self, url: str | URL, *, retention: Retention = KEEP, busy_timeout: float = 2) -> None:
        self.retention = retention
        self._engine = connect(url, busy_timeout=busy_timeout)
        # What is read together is of one moment, as it is on SQLite.
        self._reader = self._engine
        if self._engine.dialect.name == "postgresql":
            self._reader = self._engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        self._opened = self.now()
        # When something was committed last, of the monotonic clock.
        self.committed = float("-inf")
        self._listeners: list[Callable[[], None]] = []
        self._growing = threading.Lock()
        self._claim = claim(self._engine)
        with _outages():
            migrate(self._engine)
            with self._engine.connect() as connection:
                self.last = feeds.ends(connection)
        self._writer = Writer(self._engine, Evaluator(), SeriesCache(), after_commit=self._committed)
        self._others = None if self._claim else wakeups.Listener(self._engine, self._grown)

    def close(self) -> None:
        """Finish what is queued, then let go of the database."""
        self._writer.close()
        if self._others:
            self._others.close()
        self._engine.dispose()
        if self._claim:
            self._claim.close()

    def listen(self, listener: Callable[[], None]) -> None:
        """Call a function, in a thread of the store's, when feeds have grown; ``last`` says how far."""
        self._listeners.append(listener)

    def _committed(self, transaction: Transaction) -> None:
        self.committed = time.monotonic()
        if transaction.changed:
            self._grown(transaction.changed)

    def _grown(self, ends: dict[str, int]) -> None:
        with self._growing:
            grown = {feed: end for feed, end in ends.items() if end > self.last.get(feed, -1)}
            self.last |= grown
        if grown:
            for listener in self._listeners:
                listener()

    def submit(self, work: Callable[[Transaction], T], *, size: int = 0, turn: Turn = Turn.ANY) -> Future[T]:
        """Do something in the next transaction; the future is done when it is durable.

        :param work: what is done, again if other processes of the hub were in the way.
        :param size: bytes that it brings.
        :param turn: what it locks.
        """
        return self._writer.submit(work, size=size, turn=turn)

    def read(self, what: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Read something: a function of the modules beside this one, with its arguments behind the connection.

        :raises StoreUnavailable: that failed.
        """
        with _outages(), self._reader.connect() as connection:
            return what(connection, *args, **kwargs)

    def scan(self, what: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The same for what may read much: after ``SCAN_S`` it is given up.

        :raises Problem: 400, it was.
        """
        with self._reader.connect() as connection, _outages(), limited(connection, SCAN_S) as is_over:
            try:
                return what(connection, *args, **kwargs)
            except DBAPIError as error:
                if is_over(error):
                    detail = f"this took more than {SCAN_S} s: ask for a shorter time, or for fewer series"
                    raise Problem(400, detail) from None
                raise

    def verify(self) -> None:
        """Look whether what is kept can be read, past all caches.

        :raises StoreUnavailable: it cannot.
        """
        if self._writer.damage:
            raise StoreUnavailable(self._writer.damage)
        with _outages():
            verify(self._engine)

    def beat(self, transaction: Transaction) -> None:
        """Write something, to see whether that is possible."""
        sql.upsert(transaction.connection, db.readiness, [{"id": 1, "at": transaction.now}])

    def now(self) -> int:
        """The hub's clock, Unix ms."""
        return time.time_ns() // 1_000_000

    def maintain(self, transaction: Transaction) -> None:
        """What is due from time to time, in one process: evaluate what was missed, resolve what is stale."""
        if not feeds.try_lock(transaction, "maintenance"):
            return
        transaction.evaluator.catch_up(transaction)
        # After an outage the collectors get an hour to say that their series live.
        if transaction.now - self._opened > 3_600_000:
            rulebook.resolve_stale(transaction)
        users.expire(transaction)

    def prune(self) -> None:
        """Delete what is kept no longer, a page a transaction, while others write."""
        with _outages():
            for page in plan(self._engine, self.retention, self.now()):
                while self.submit(page).result():
                    pass


@contextmanager
def _outages() -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        raise StoreUnavailable(str(getattr(error, "orig", error))) from error
