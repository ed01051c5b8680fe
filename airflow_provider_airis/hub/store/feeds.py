"""The feeds, and what else processes of one hub agree on: whose turn it is.

A feed's row stays locked from when a transaction takes places in it until that is committed: the order of commits is
the order of sequences, and a reader that has seen one has seen all before it. SQLite lets one transaction write at a
time, so all of this is so there by itself.

Locks are taken in one order, or two transactions would wait for each other: rules, series, points, events, alerts.
:class:`Turn` names the order for works, which share transactions.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from sqlalchemy import Connection, bindparam, func, select, update

from airflow_provider_airis.hub.store import tables as db

if TYPE_CHECKING:
    from airflow_provider_airis.hub.store.writer import Transaction

ALERTS = "alerts"
EVENTS = "events"
# A feed of which only the sequence is of interest: the version of the rules.
RULES = "rules"

_table = db.feeds.c
_ADVANCE = (
    update(db.feeds)
    .where(_table.name == bindparam("feed"))
    .values(sequence=_table.sequence + bindparam("places"))
    .returning(_table.sequence)
)
_HELD = select(_table.sequence).where(_table.name == bindparam("feed"))


class Turn(IntEnum):
    """When a work is done among those that share its transaction, by what it locks."""

    POINTS = 0
    EVENTS = 1
    ANY = 2


def advance(transaction: Transaction, feed: str, places: int = 1) -> int:
    """Take the next places of a feed: the last of them."""
    values = {"feed": feed, "places": places}
    sequence: int = transaction.connection.execute(_ADVANCE, values).scalar_one()
    transaction.changed[feed] = sequence
    return sequence


def hold(transaction: Transaction, feed: str) -> None:
    """Let no other transaction take places of a feed until this one is committed."""
    if feed not in transaction.held:
        transaction.connection.execute(_HELD.with_for_update(), {"feed": feed})
        transaction.held.add(feed)


def share(transaction: Transaction, feed: str) -> int:
    """The end of a feed, at which it stays until this transaction is committed; others may share that."""
    sequence: int = transaction.connection.execute(_HELD.with_for_update(read=True), {"feed": feed}).scalar_one()
    return sequence


def lock(transaction: Transaction, name: str) -> None:
    """Let one transaction at a time do something that has a name."""
    if name not in transaction.held and transaction.connection.dialect.name == "postgresql":
        transaction.connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(name, 0))))
    transaction.held.add(name)


def try_lock(transaction: Transaction, name: str) -> bool:
    """The same, unless another transaction does it just now: whether it is this one's turn."""
    if name not in transaction.held and transaction.connection.dialect.name == "postgresql":
        key = func.hashtextextended(name, 0)
        if not transaction.connection.scalar(select(func.pg_try_advisory_xact_lock(key))):
            return False
    transaction.held.add(name)
    return True


def ends(connection: Connection) -> dict[str, int]:
    """The last sequence of each feed."""
    return {row.name: row.sequence for row in connection.execute(select(db.feeds)) if row.name != RULES}
