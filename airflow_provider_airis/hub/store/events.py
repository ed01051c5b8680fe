"""Events: kept once by their keys, and read as a feed or in pages."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec
from sqlalchemy import Connection, select

from airflow_provider_airis.hub.ingest import Form, read_events
from airflow_provider_airis.hub.store import feeds, sql
from airflow_provider_airis.hub.store import tables as db
from airflow_provider_airis.hub.store.writer import Transaction
from airflow_provider_airis.records import IngestAnswer

FEED = feeds.EVENTS


class FeedEvent(msgspec.Struct, frozen=True):
    """An event in the feed. ``data`` is an object."""

    key: str
    event_type: str
    source: str
    severity: str
    timestamp: int
    data: msgspec.Raw


class EventChange(msgspec.Struct, frozen=True):
    """A place in the feed of events."""

    sequence: int
    event: FeedEvent


def ingest(transaction: Transaction, document: bytes, form: Form, header_key: str | None) -> IngestAnswer:
    """Store the events of a document.

    :param header_key: the key of a single event.
    :raises Problem: 400, the document is none.
    """
    rows, refusals = read_events(document, form, transaction.now, header_key)
    new = 0
    if rows:
        first = feeds.advance(transaction, FEED, len(rows)) - len(rows) + 1
        numbered = [msgspec.structs.asdict(row) | {"sequence": first + place} for place, row in enumerate(rows)]
        new = sql.insert_new(transaction.connection, db.events, numbered, ["source", "key"])
    return IngestAnswer(len(rows), len(rows) - new, refusals)


def changes(connection: Connection, after: int, limit: int = 500, *, category: str | None = None) -> list[EventChange]:
    """The events' feed behind a sequence, or those whose ``data.category`` is one."""
    table = db.events
    query = select(table).where(table.c.sequence > after).order_by(table.c.sequence).limit(limit)
    if category is not None:
        query = query.where(table.c.category == category)
    return _events(connection, query)


def page(
    connection: Connection,
    *,
    source: str | None = None,
    event_type: str | None = None,
    category: str | None = None,
    severity: Collection[str] = (),
    before: int | None = None,
    limit: int = 100,
) -> list[EventChange]:
    """Events, those that arrived last first.

    :param before: sequence of the event behind which the page starts.
    """
    table = db.events
    query = select(table).order_by(table.c.sequence.desc()).limit(limit)
    for column, wanted in (
        (table.c.source, source),
        (table.c.event_type, event_type),
        (table.c.category, category),
    ):
        if wanted is not None:
            query = query.where(column == wanted)
    if severity:
        query = query.where(table.c.severity.in_(severity))
    if before is not None:
        query = query.where(table.c.sequence < before)
    return _events(connection, query)


def _events(connection: Connection, query: Any) -> list[EventChange]:
    rows = connection.execute(query).all()
    return [
        EventChange(
            row.sequence,
            FeedEvent(row.key, row.event_type, row.source, row.severity, row.timestamp, msgspec.Raw(row.data.encode())),
        )
        for row in rows
    ]
