"""Checkpoints: what readers of other systems know, as named JSON documents that are replaced only by who knows them."""

from __future__ import annotations

import re

import msgspec
from sqlalchemy import Connection, and_, delete, select, true, update

from airflow_provider_airis.hub.problems import Problem
from airflow_provider_airis.hub.store import sql
from airflow_provider_airis.hub.store import tables as db
from airflow_provider_airis.hub.store.writer import Transaction

MAX_VALUE = 8 << 20
# How long a deleted checkpoint's version is remembered, so that a late writer is not taken for a new one.
KEPT_MS = 30 * 86_400_000
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_LAST = "\U0010ffff" * 300


class CheckpointBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of ``PUT /api/v1/checkpoints/{name}``: any JSON up to 8 MiB."""

    value: msgspec.Raw


class KnownCheckpoint(msgspec.Struct, frozen=True):
    """A checkpoint. ``updated_at`` is Unix ms."""

    name: str
    version: int
    value: msgspec.Raw
    updated_at: int


class CheckpointVersion(msgspec.Struct, frozen=True):
    """Answer to ``PUT /api/v1/checkpoints/{name}``."""

    name: str
    version: int
    updated_at: int


class CheckpointsPage(msgspec.Struct):
    """Checkpoints by name; ``cursor`` asks for the next page, null on the last."""

    checkpoints: list[KnownCheckpoint]
    cursor: str | None


def check(body: CheckpointBody) -> None:
    """Refuse a value that the store cannot keep, or that nobody could read."""
    size = len(memoryview(body.value))
    if size > MAX_VALUE:
        raise Problem(413, f"a value has at most {MAX_VALUE} bytes, this one {size}: split it", pointer="/value")
    text = bytes(body.value)
    if _NUL.search(text):
        raise Problem(400, "it holds a NUL character", pointer="/value")
    try:
        msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise Problem(400, f"it is not readable JSON: {error}", pointer="/value") from None


def read(connection: Connection, name: str) -> KnownCheckpoint:
    """One checkpoint.

    :raises Problem: 404.
    """
    table = db.checkpoints.c
    query = select(table.name, table.version, table.value, table.updated_at)
    row = connection.execute(query.where((table.name == name) & table.value.is_not(None))).first()
    if row is None:
        raise Problem(404, f"there is no checkpoint {name!r}")
    return KnownCheckpoint(row.name, row.version, msgspec.Raw(row.value.encode()), row.updated_at)


def read_page(connection: Connection, prefix: str, after: str | None, limit: int) -> tuple[list[KnownCheckpoint], bool]:
    """Those whose names start so, by name in the order of code points, and whether there are more.

    A page ends early once it holds ``MAX_VALUE`` bytes.

    :param after: name behind which the page starts.
    """
    table = db.checkpoints.c
    meant = table.value.is_not(None) & (table.name >= prefix) & (table.name <= prefix + _LAST)
    if after is not None:
        meant &= table.name > after
    sizes = connection.execute(select(table.name, table.size).where(meant).order_by(table.name).limit(limit + 1)).all()
    count = held = 0
    for _, size in sizes[:limit]:
        if count and held + size > MAX_VALUE:
            break
        held += size
        count += 1
    if not count:
        return [], False
    query = select(table.name, table.version, table.value, table.updated_at)
    rows = connection.execute(query.where(meant & (table.name <= sizes[count - 1].name)).order_by(table.name)).all()
    found = [KnownCheckpoint(row.name, row.version, msgspec.Raw(row.value.encode()), row.updated_at) for row in rows]
    return found, len(sizes) > count


def put(transaction: Transaction, name: str, body: CheckpointBody, expected: int) -> CheckpointVersion:
    """Write a checkpoint that is at a version; at none, 0, it must not be there.

    :raises Problem: 412, another was faster.
    """
    text = bytes(body.value).decode()
    values = {"value": text, "size": len(memoryview(body.value)), "updated_at": transaction.now}
    table, connection = db.checkpoints.c, transaction.connection
    if not expected:
        row = {"name": name, "version": 1, **values}
        if sql.insert_missing(connection, db.checkpoints, row) is not None:
            return CheckpointVersion(name, 1, transaction.now)
        meant = and_(table.name == name, table.value.is_(None))
    else:
        meant = and_(table.name == name, table.value.is_not(None), table.version == expected)
    change = update(db.checkpoints).where(meant).values(version=table.version + 1, **values)
    version = connection.scalar(change.returning(table.version))
    if version is None:
        raise _faster(connection, name, expected)
    return CheckpointVersion(name, version, transaction.now)


def remove(transaction: Transaction, name: str, expected: int | None) -> None:
    """Delete a checkpoint; one that is not there stays so.

    :param expected: the version that it must have.
    :raises Problem: 412, it has another.
    """
    table, connection = db.checkpoints.c, transaction.connection
    wanted = true() if expected is None else table.version == expected
    meant = and_(table.name == name, table.value.is_not(None), wanted)
    values = {"version": table.version + 1, "value": None, "size": 0, "updated_at": transaction.now}
    if not connection.execute(update(db.checkpoints).where(meant).values(**values)).rowcount and expected is not None:
        raise _faster(connection, name, expected)
    forgotten = table.value.is_(None) & (table.updated_at < transaction.now - KEPT_MS)
    connection.execute(delete(db.checkpoints).where(forgotten))


def _faster(connection: Connection, name: str, expected: int) -> Problem:
    table = db.checkpoints.c
    query = select(table.version).where((table.name == name) & table.value.is_not(None))
    version = connection.scalar(query) or 0
    wanted = f"not {expected}" if expected else "it was to be new"
    is_at = f"is at version {version}" if version else "is not there"
    return Problem(412, f"another was faster: the checkpoint {name!r} {is_at}, {wanted}; read it again")
