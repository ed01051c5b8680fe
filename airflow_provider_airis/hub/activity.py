"""What each source has sent lately: counted for every look at a small store, now and then for those at a large one."""

from __future__ import annotations

import logging
import threading
import time

import msgspec
from sqlalchemy import Connection, func, select

from airflow_provider_airis.hub.problems import StoreUnavailable
from airflow_provider_airis.hub.store import metrics
from airflow_provider_airis.hub.store import tables as db
from airflow_provider_airis.hub.store.metrics import SourceActivity
from airflow_provider_airis.hub.store.store import Store

log = logging.getLogger(__name__)

HOUR_MS = 3_600_000
STEP_MS = 120_000
# So many series are counted in no time.
FEW = 2_000
# A count is as good for so many times as long as it took: whoever looks, counting takes a twentieth of a processor.
_SHARE = 20


class Snapshot(msgspec.Struct, frozen=True):
    """The sources' points of the hour before ``at``, Unix ms, in steps of ``STEP_MS``."""

    at: int
    sources: list[SourceActivity]


class Activity:
    """Snapshots of a store, for many who look at it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._counting = threading.Lock()
        self._last: Snapshot | None = None
        self._good_until = 0.0

    def look(self) -> Snapshot:
        """The newest snapshot; of a large store one that was counted before, unless there is none yet."""
        if self._store.read(_is_small):
            return self._count()
        last = self._last
        if last is None:
            with self._counting:  # who comes second finds what the first has counted
                return self._last or self._count()
        if time.monotonic() > self._good_until and self._counting.acquire(blocking=False):
            threading.Thread(target=self._recount, name="hub-activity", daemon=True).start()
        return last

    def _recount(self) -> None:
        try:
            self._count()
        except StoreUnavailable as error:  # whoever looks next finds out for himself
            log.warning("the sources' points could not be counted: %s", error)
        finally:
            self._counting.release()

    def _count(self) -> Snapshot:
        began, now = time.monotonic(), self._store.now()
        sources = self._store.read(metrics.activity, start=now - HOUR_MS, end=now, step=STEP_MS)
        self._last = Snapshot(now, sources)
        ended = time.monotonic()
        self._good_until = ended + _SHARE * (ended - began)
        return self._last


def _is_small(connection: Connection) -> bool:
    some = select(db.series.c.id).limit(FEW + 1).subquery()
    return (connection.scalar(select(func.count()).select_from(some)) or 0) <= FEW
