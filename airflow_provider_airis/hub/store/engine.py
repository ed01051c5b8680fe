"""Engines: what a database URL opens, and how its connections begin."""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError

from airflow_provider_airis.hub.problems import StoreUnavailable
from airflow_provider_airis.hub.store.tables import metadata

_DRIVER = "postgresql+psycopg"
# What a commit may need at least, in bytes.
_ROOM = 1 << 20
# How often SQLite looks at the clock, in instructions of its machine: every few ms.
_OPCODES = 100_000
# https://www.postgresql.org/docs/current/errcodes-appendix.html, query_canceled
_CANCELLED = "57014"


def locate(url: str, password: str | None = None) -> URL:
    """The URL of a database that can hold the store.

    :param url: SQLAlchemy's, or PostgreSQL's own.
    :param password: takes the place of the URL's.
    :raises ValueError: it is none.
    """
    where = make_url(url)
    if where.get_backend_name() in ("postgres", "postgresql"):
        where = where.set(drivername=_DRIVER)
    elif where.get_backend_name() != "sqlite":
        raise ValueError(f"the hub keeps its store in SQLite or PostgreSQL, not in {where.get_backend_name()!r}")
    elif where.database in (None, "", ":memory:"):
        raise ValueError(f"{url} is a database in memory, which keeps nothing: name a file, sqlite:////path/hub.db")
    return where if password is None else where.set(password=password)


def connect(url: str | URL, *, busy_timeout: float = 2) -> Engine:
    """The engine of a database; a SQLite file is created, with its folder's rights.

    :param busy_timeout: seconds that SQLite waits for another process's lock.
    :raises ValueError: the URL is none of a store's, or the driver is missing.
    """
    where = locate(url) if isinstance(url, str) else url
    return _sqlite(where, busy_timeout) if where.get_backend_name() == "sqlite" else _postgresql(where)


def _postgresql(url: URL) -> Engine:
    known = {
        "connect_timeout": 10,
        "tcp_user_timeout": 20_000,
        "keepalives_idle": 10,
        "application_name": "airis hub",
        # A process that hangs must not hold the others up for good.
        "options": "-c lock_timeout=30s -c idle_in_transaction_session_timeout=60s",
    }
    try:
        return create_engine(
            url,
            connect_args={name: value for name, value in known.items() if name not in url.query},
            pool_size=8,
            max_overflow=40,
            pool_pre_ping=True,
        )
    except ModuleNotFoundError as error:
        raise ValueError(
            f"PostgreSQL needs its driver ({error}): pip install 'airflow-provider-airis[postgresql]'"
        ) from None


def _sqlite(url: URL, busy_timeout: float) -> Engine:
    engine = create_engine(
        url,
        connect_args={"timeout": busy_timeout, "check_same_thread": False},
        pool_size=8,
        max_overflow=40,
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        # The driver begins transactions by itself, and late, unless told not to.
        connection.isolation_level = None
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",  # In WAL anything less acknowledges commits that a power cut takes back.
            "wal_autocheckpoint=8000",
            "cache_size=-65536",
            "temp_store=MEMORY",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")

    return engine


def verify(engine: Engine) -> None:
    """Look whether a SQLite file can be read, past what this process has cached of it, and whether its disk has room.

    :raises StoreUnavailable: not so.
    """
    if engine.dialect.name != "sqlite":
        return
    path = Path(str(engine.url.database))
    try:
        if shutil.disk_usage(path.parent).free < _ROOM:
            raise StoreUnavailable(f"no space is left on the disk of {path}")
        with closing(sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=rw", uri=True)) as database:
            for table in metadata.tables:
                database.execute(f'SELECT 1 FROM "{table}" LIMIT 1').fetchone()  # noqa: S608 (our own names)
    except (OSError, sqlite3.Error) as error:
        raise StoreUnavailable(str(error)) from error


@contextmanager
def limited(connection: Connection, seconds: float) -> Iterator[Callable[[DBAPIError], bool]]:
    """Give up what a connection reads within after some time; what is yielded tells whether an error means that."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {round(seconds * 1000)}")
        yield lambda error: getattr(error.orig, "sqlstate", None) == _CANCELLED
        return
    deadline = time.monotonic() + seconds
    driver: Any = connection.connection.driver_connection
    driver.set_progress_handler(lambda: time.monotonic() > deadline, _OPCODES)
    try:
        yield lambda error: "interrupted" in str(error.orig)
    finally:
        driver.set_progress_handler(None, 0)


def is_damage(error: Exception) -> bool:
    """Whether an error says that a SQLite file is broken, which it stays."""
    orig = getattr(error, "orig", None)
    return getattr(orig, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def claim(engine: Engine) -> IO[str] | None:
    """Hold a SQLite file for this process alone, until what is returned is closed; PostgreSQL is for many.

    :raises StoreUnavailable: another process has it, or there can be none.
    """
    if engine.dialect.name != "sqlite":
        return None
    path = f"{engine.url.database}.lock"
    try:
        held = open(path, "a+")  # noqa: SIM115, PTH123 (held for the process' life)
    except OSError as error:
        raise StoreUnavailable(f"unable to open database file: {error}") from None
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        held.seek(0)
        owner = held.read().strip()
        held.close()
        raise StoreUnavailable(
            f"{engine.url.database} is another hub's (process {owner}). SQLite is for one process: "
            "several need a PostgreSQL, --database postgresql://…"
        ) from None
    held.truncate(0)
    held.write(str(os.getpid()))
    held.flush()
    return held
