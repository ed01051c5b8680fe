"""Hears what other processes of the hub have committed, by PostgreSQL's LISTEN and NOTIFY."""

from __future__ import annotations

import logging
import select
import socket
import threading
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, Engine, func
from sqlalchemy import select as query
from sqlalchemy.exc import DBAPIError

from airflow_provider_airis.hub.store import feeds

CHANNEL = "airis_feeds"
# What a notification that got lost would cost at most, and how soon a dead connection is noticed.
LOOK_S = 10
log = logging.getLogger(__name__)


def notify(connection: Connection) -> None:
    """Tell all processes, once the transaction is committed, that feeds grew."""
    connection.execute(query(func.pg_notify(CHANNEL, "")))


class Listener:
    """Calls a function, in a thread of its own, with the last sequences of the feeds whenever some grew."""

    def __init__(self, engine: Engine, heard: Callable[[dict[str, int]], None]) -> None:
        self._engine = engine
        self._heard = heard
        self._notified = False
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="hub-listener", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._wake.close()
        self._thread.join()
        self._woken.close()

    def _run(self) -> None:
        ending = False
        while not ending:
            try:
                ending = self._listen()
            except (DBAPIError, OSError) as error:
                log.warning("changes of other processes are heard late: %s", getattr(error, "orig", error))
                ending = bool(select.select([self._woken], [], [], 1)[0])

    def _listen(self) -> bool:
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql(f"LISTEN {CHANNEL}")
            driver: Any = connection.connection.driver_connection
            driver.add_notify_handler(self._take)
            try:
                while True:
                    # The driver reads notifications with answers. One that came with this answer may be newer than it.
                    self._notified = False
                    self._heard(feeds.ends(connection))
                    wait = 0 if self._notified else LOOK_S
                    if self._woken in select.select([driver, self._woken], [], [], wait)[0]:
                        return True
            finally:
                # Back in the pool it would go on listening.
                connection.invalidate()

    def _take(self, _notification: Any) -> None:
        self._notified = True
