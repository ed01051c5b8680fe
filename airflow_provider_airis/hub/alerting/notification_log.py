"""The notification log: what was sent to whom, a group of alerts an entry."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from sqlalchemy import Connection, Row, Table, delete, exists, select, tuple_

from airflow_provider_airis.hub.alerting.alerts import fingerprint
from airflow_provider_airis.hub.store import sql
from airflow_provider_airis.hub.store import tables as db
from airflow_provider_airis.hub.store.writer import Transaction
from airflow_provider_airis.records import LogEntry, Shown

MOST_ENTRIES = 1_000
_CHUNK = 500


class LogEntries(msgspec.Struct, forbid_unknown_fields=True):
    """Body of ``PUT /api/v1/notification-log``."""

    entries: Annotated[list[LogEntry], msgspec.Meta(max_length=MOST_ENTRIES)]


class LogPage(msgspec.Struct):
    """Entries of the notification log; ``next_cursor`` asks for the next page, null on the last."""

    entries: list[LogEntry]
    next_cursor: str | None


class Showing(msgspec.Struct, frozen=True):
    """That a target was shown an alert, in which state and in which group.

    :param entry: as the log has it now.
    :param at: ``updated_at`` of the alert as shown, Unix ms, and ``sent_at``: when that was sent first.
    """

    entry: LogEntry
    status: str
    at: int
    sent_at: int


def log(transaction: Transaction, entries: list[LogEntry]) -> None:
    """Write entries of the log, and into the ledger of each alert that the hub knows what they say of it."""
    connection = transaction.connection
    known = _known(connection, list({alert_id for entry in entries for alert_id in entry.alerts}))
    rows: dict[str, dict[str, Any]] = {}
    ledger: dict[tuple[str, str, str], dict[str, Any]] = {}
    shown = []
    for entry in entries:
        row = msgspec.structs.asdict(entry)
        key = row["key"] = fingerprint(*(row[name] for name in ("group", "receiver", "channel", "target")))
        row["alerts"] = msgspec.json.encode(entry.alerts).decode()
        row["open"] = any(one.status != "resolved" for one in entry.alerts.values())
        rows[key] = row
        for alert_id, one in entry.alerts.items():
            if one.status == "sending" or alert_id not in known:
                continue
            state = {"alert_id": alert_id, "status": one.status, "at": one.at}
            place = {"channel": entry.channel, "target": entry.target}
            ledger[alert_id, entry.channel, entry.target] = state | place | {"reference": entry.reference}
            shown.append(state | {"key": key, "sent_at": entry.at})
    tables: tuple[tuple[Table, dict[Any, dict[str, Any]]], ...]
    tables = ((db.notification_log, rows), (db.notifications, ledger))
    for table, written in tables:
        if written:
            # In order, so that no two transactions wait for each other's rows.
            sql.upsert(connection, table, [row for _, row in sorted(written.items())])
    sql.insert_new(connection, db.shown, shown, ["alert_id", "key", "at", "status"])


def _known(connection: Connection, ids: list[str]) -> set[str]:
    table = db.alerts.c
    found: set[str] = set()
    for start in range(0, len(ids), _CHUNK):
        found |= set(connection.scalars(select(table.id).where(table.id.in_(ids[start : start + _CHUNK]))))
    return found


def entries(
    connection: Connection, *, channel: str | None, known_by: str | None, is_open: bool | None, after: str, limit: int
) -> list[tuple[str, LogEntry]]:
    """Entries of the log, each with its key, by which they are sorted.

    :param after: key of the entry behind which the page starts.
    """
    table = db.notification_log.c
    query = select(db.notification_log).where(table.key > after).order_by(table.key).limit(limit)
    for column, wanted in ((table.channel, channel), (table.id, known_by), (table.open, is_open)):
        if wanted is not None:
            query = query.where(column == wanted)
    return [(row.key, _entry(row)) for row in connection.execute(query)]


def _entry(row: Row[Any]) -> LogEntry:
    fields = {name: getattr(row, name) for name in LogEntry.__struct_fields__}
    return LogEntry(**fields | {"alerts": msgspec.json.decode(row.alerts, type=dict[str, Shown])})


def showings(connection: Connection, alert_id: str) -> list[Showing]:
    """To whom an alert was shown, what was sent last first."""
    table = db.shown.c
    columns = (table.status.label("shown_status"), table.at.label("shown_at"), table.sent_at)
    query = select(db.notification_log, *columns).join(db.shown, table.key == db.notification_log.c.key)
    rows = connection.execute(query.where(table.alert_id == alert_id).order_by(table.sent_at.desc(), table.at.desc()))
    return [Showing(_entry(row), row.shown_status, row.shown_at, row.sent_at) for row in rows]


def prune(transaction: Transaction, kept_ms: int) -> bool:
    """Forget what was over so long ago, a part of it: whether there is more.

    What is open stays, and so does to whom an alert was shown until it has been resolved for so long.
    """
    before = transaction.now - kept_ms
    entry, state, alert, silence = (t.c for t in (db.notification_log, db.shown, db.alerts, db.silences))
    row = (state.alert_id, state.key, state.at, state.status)
    ended = (alert.status == "resolved") & (alert.updated_at < before)
    shown = select(*row).join_from(db.shown, db.alerts).where((state.sent_at < before) & ended)
    unused = ~exists().where(state.key == entry.key)
    closed = select(entry.key).where(entry.open.is_not(True) & (entry.at < before) & unused)
    gone = [
        transaction.connection.execute(delete(table).where(key.in_(over.limit(_CHUNK)))).rowcount
        for table, key, over in (
            (db.shown, tuple_(*row), shown),
            (db.notification_log, entry.key, closed),
            (db.silences, silence.id, select(silence.id).where(silence.ends_at < before)),
        )
    ]
    return max(gone) == _CHUNK
