"""Points: a document of metrics becomes rows, the last value of a point wins."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import cache
from itertools import chain
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection

from airflow_provider_airis.hub.ingest import Form, Row, read_metrics
from airflow_provider_airis.hub.store import partitions
from airflow_provider_airis.hub.store.writer import Transaction
from airflow_provider_airis.records import IngestAnswer

_CHUNK = 250
# From so many on a COPY costs less than statements with values in them.
_MANY = 500
_REPLACE = "DO UPDATE SET value = excluded.value WHERE points.value <> excluded.value"
# PostgreSQL's binary COPY, https://www.postgresql.org/docs/current/sql-copy.html: three fields, each behind its length.
_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_FIELDS = struct.Struct(">hiqiqid")
_TRAILER = struct.pack(">h", -1)


def ingest(transaction: Transaction, document: bytes, form: Form) -> IngestAnswer:
    """Store the points of a document.

    :raises Problem: 400, the document is none.
    """
    transaction.evaluator.load(transaction)

    def resolve(source: str, name: str, unit: str, tags: bytes) -> int:
        return transaction.series.resolve(transaction, source, name, unit, tags)

    rows, refusals = read_metrics(document, form, transaction.now, transaction.series.known, resolve)
    new = upsert(transaction, rows)
    transaction.evaluator.notice(transaction, rows)
    return IngestAnswer(len(rows), len(rows) - new, refusals)


def upsert(transaction: Transaction, rows: Sequence[Row]) -> int:
    """Store points ``(series id, timestamp, value)``, the last value of each winning: how many were new."""
    connection = transaction.connection
    # Writes are cheapest in key order. The sort is stable: of two values of a point the later stays behind the earlier.
    ordered = sorted(rows, key=itemgetter(0, 1))
    if connection.dialect.name == "postgresql":
        partitions.provide(transaction, (timestamp for _, timestamp, _ in ordered))
        # PostgreSQL refuses to touch a row twice in one statement: of equal keys only the last is left.
        ordered = list({row[:2]: row for row in ordered}.values())
        if len(ordered) >= _MANY:
            return _copy(connection, ordered)
    new = _insert(connection, ordered, "DO NOTHING")
    if new < len(ordered):
        _insert(connection, ordered, _REPLACE)
    return new


def _insert(connection: Connection, rows: Sequence[Row], on_conflict: str) -> int:
    # Many rows a statement: the driver gives up the interpreter's lock once a statement, and with it, in the presence
    # of a busy thread, up to a switch interval.
    mark = "?" if connection.dialect.paramstyle == "qmark" else "%s"
    changed = 0
    for start in range(0, len(rows), _CHUNK):
        chunk = rows[start : start + _CHUNK]
        statement = _points_statement(mark, len(chunk), on_conflict)
        changed += connection.exec_driver_sql(statement, tuple(chain.from_iterable(chunk))).rowcount
    return changed


@cache
def _points_statement(mark: str, rows: int, on_conflict: str) -> str:
    values = ", ".join([f"({mark}, {mark}, {mark})"] * rows)
    return (
        f"INSERT INTO points (series_id, timestamp, value) VALUES {values} "  # noqa: S608 (marks only)
        f"ON CONFLICT (series_id, timestamp) {on_conflict}"
    )


def _copy(connection: Connection, rows: Sequence[Row]) -> int:
    execute, pack = connection.exec_driver_sql, _FIELDS.pack
    execute(
        "CREATE TEMPORARY TABLE IF NOT EXISTS arrived (series_id BIGINT, timestamp BIGINT, value DOUBLE PRECISION) "
        "ON COMMIT DELETE ROWS"
    )
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor, cursor.copy("COPY arrived FROM STDIN (FORMAT BINARY)") as copy:
        lines = (pack(3, 8, series_id, 8, timestamp, 8, value) for series_id, timestamp, value in rows)
        copy.write(b"".join((_HEADER, *lines, _TRAILER)))
    insert = "INSERT INTO points SELECT * FROM arrived ON CONFLICT (series_id, timestamp)"
    new = execute(f"{insert} DO NOTHING").rowcount
    if new < len(rows):
        execute(f"{insert} {_REPLACE}")
    execute("TRUNCATE arrived")
    return new
