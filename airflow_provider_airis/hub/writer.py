"""One thread writes: works queue up, are done in order, and share a commit, so that a disk flush serves many."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from airflow_provider_airis.hub.problems import StoreUnavailable

T = TypeVar("T")
log = logging.getLogger(__name__)

Work = Callable[["Transaction"], Any]
Group = list[tuple[Work, Future[Any]]]

# What a commit may take together: enough to share its flush, little enough to answer soon.
_GROUP_WORKS = 64
_GROUP_BYTES = 4 << 20


class Transaction:
    """What a work is done in.

    :ivar now: Unix ms.
    :ivar changed: feed → its last sequence, for those that this transaction adds to.
    :ivar arrived: series id → timestamps of its points that rules want to see.
    :ivar cached: whether works have changed caches, which a rollback must then drop.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.now = time.time_ns() // 1_000_000
        self.changed: dict[str, int] = {}
        self.arrived: dict[int, set[int]] = {}
        self.cached = False


class Writer:
    """Does works in a thread of its own.

    :param before_commit: called with the transaction after its works; what it raises undoes only its own doing.
    :param after_commit: called once the transaction is durable.
    :param after_rollback: called when works were undone, so that caches can be dropped.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        before_commit: Callable[[Transaction], None],
        after_commit: Callable[[Transaction], None],
        after_rollback: Callable[[], None],
    ) -> None:
        self._engine = engine.execution_options(writes=True)
        self._before_commit = before_commit
        self._after_commit = after_commit
        self._after_rollback = after_rollback
        self._works: deque[tuple[Work, Future[Any], int]] = deque()
        self._ready = threading.Condition()
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="hub-writer", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[Transaction], T], *, size: int = 0) -> Future[T]:
        """Queue a work; the future is done when its effect is durable.

        :param size: bytes that it brings, of which a commit takes only so many together.
        """
        future: Future[T] = Future()
        with self._ready:
            if self._ending:
                raise StoreUnavailable("the hub is shutting down")
            self._works.append((work, future, size))
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
            self._write([(work, future) for work, future in group if future.set_running_or_notify_cancel()])

    def _next(self) -> Group:
        with self._ready:
            while not self._works and not self._ending:
                self._ready.wait()
            group: Group = []
            taken = 0
            while self._works and len(group) < _GROUP_WORKS and taken < _GROUP_BYTES:
                work, future, size = self._works.popleft()
                group.append((work, future))
                taken += size
            return group

    def _write(self, group: Group) -> None:
        try:
            with self._engine.begin() as connection:
                transaction = Transaction(connection)
                outcomes = [self._attempt(transaction, work) for work, _ in group]
                _, failure = self._attempt(transaction, self._before_commit)
                if failure is not None:
                    log.error("rules could not be evaluated", exc_info=failure)
        except Exception as error:  # noqa: BLE001 (handed to whoever waits for the works)
            self._after_rollback()
            if isinstance(error, SQLAlchemyError):
                log.error("the store is not reachable: %s", _reason(error))
                error = StoreUnavailable(_reason(error))
            outcomes = [(None, error)] * len(group)
        else:
            self._after_commit(transaction)
        for (_, future), (result, failure) in zip(group, outcomes, strict=True):
            if failure is None:
                future.set_result(result)
            else:
                future.set_exception(failure)

    def _attempt(self, transaction: Transaction, work: Work) -> tuple[Any, Exception | None]:
        """Do a work so that its failure undoes only its own doing; an outage fails the whole transaction."""
        try:
            with transaction.connection.begin_nested():
                return work(transaction), None
        except Exception as error:
            if isinstance(error, (DBAPIError, PoolTimeout)) and not isinstance(error, IntegrityError):
                raise
            if transaction.cached:
                self._after_rollback()
            return None, error


def _reason(error: Exception) -> str:
    return str(error.orig) if isinstance(error, DBAPIError) else str(error)
