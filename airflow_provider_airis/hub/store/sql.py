"""Inserts that meet rows which are there already: both databases know them, SQLAlchemy calls them by two names."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.dml import ReturningInsert


def insert_missing(connection: Connection, table: Table, row: dict[str, Any]) -> int | None:
    """Insert a row unless its key is there: the new row's primary key, None if it was there."""
    inserted = connection.execute(_missing(connection.dialect.name, table), row).first()
    return None if inserted is None else inserted[0]


def insert_new(connection: Connection, table: Table, rows: Sequence[dict[str, Any]], key: Sequence[str]) -> int:
    """Insert the rows whose keys are not there yet: how many."""
    if not rows:
        return 0
    insert = _insert(connection.dialect.name, table).on_conflict_do_nothing(index_elements=key)
    # Drivers do not agree on what they count; what comes back can be counted.
    return len(connection.execute(insert.returning(table.c[key[0]]), rows).all())


def upsert(connection: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    """Insert rows, or set the other columns of those that have their primary keys."""
    keys = [column.name for column in table.primary_key.columns]
    insert = _insert(connection.dialect.name, table)
    others = {name: insert.excluded[name] for name in rows[0] if name not in keys}
    connection.execute(insert.on_conflict_do_update(index_elements=keys, set_=others), rows)


@cache
def _missing(dialect: str, table: Table) -> ReturningInsert[Any]:
    return _insert(dialect, table).on_conflict_do_nothing().returning(*table.primary_key.columns)


def _insert(dialect: str, table: Table) -> sqlite.Insert:
    # Both dialects have the same methods, under classes of their own.
    make: Any = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}[dialect]
    insert: sqlite.Insert = make(table)
    return insert
