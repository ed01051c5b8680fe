"""Consumers: readers of the feeds, and how far each has come."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, select

from airflow_provider_airis.hub.problems import Problem
from airflow_provider_airis.hub.store import feeds, sql
from airflow_provider_airis.hub.store import tables as db
from airflow_provider_airis.hub.store.writer import Transaction


class Consumer(msgspec.Struct, frozen=True):
    """A reader's committed offset in a feed, and when it wants to be woken though nothing came; Unix ms."""

    name: str
    sequence: int
    updated_at: int
    wake_at: int | None = None


def commit(
    transaction: Transaction,
    name: str,
    sequence: int,
    *,
    force: bool = False,
    wake_at: int | msgspec.UnsetType | None = msgspec.UNSET,
) -> Consumer:
    """Store how far a consumer has read; it never moves back unless forced, and may then hold any other mark.

    :param wake_at: when it wants to be woken; as it was, unless given.
    :raises Problem: 400, no feed is that long.
    """
    longest = max(feeds.ends(transaction.connection).values())
    if not 0 <= sequence <= (1 << 53 if force else longest):
        raise Problem(400, f"the feeds end at {longest}", pointer="/sequence")
    feeds.lock(transaction, f"consumer:{name}")
    found = read(transaction.connection, name)
    if found is not None and sequence < found.sequence and not force:
        return found
    if wake_at is msgspec.UNSET:
        wake_at = found.wake_at if found else None
    consumer = Consumer(name, sequence, transaction.now, wake_at)
    sql.upsert(transaction.connection, db.consumers, [msgspec.structs.asdict(consumer)])
    return consumer


def read(connection: Connection, name: str) -> Consumer | None:
    """How far a consumer has read, None if it never said."""
    row = connection.execute(select(db.consumers).where(db.consumers.c.name == name)).first()
    return None if row is None else Consumer(*row)
