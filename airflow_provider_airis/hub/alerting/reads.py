"""Alerts as they are read: one with its history, pages of them, the change feed."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, and_, or_, select, true

from airflow_provider_airis.hub.alerting import alerts
from airflow_provider_airis.hub.alerting.rules import Rule
from airflow_provider_airis.hub.store import tables as db
from airflow_provider_airis.hub.store.series import SeriesRef
from airflow_provider_airis.records import Alert, AlertChange, AlertSeverity, AlertStatus, ChangeType

_CHUNK = 500


class Transition(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An entry of an alert's history. ``status``, ``severity`` and ``value`` are as they were right after it."""

    sequence: int
    change: ChangeType
    at: int
    status: AlertStatus
    severity: AlertSeverity
    value: float | None = None
    by: str | None = None
    comment: str | None = None


class AlertDetail(Alert, frozen=True, kw_only=True):
    """An alert with what its page shows.

    :param rule: the rule as it was when the alert fired; None for a manual alert.
    :param series: what the rule was evaluated over.
    :param data_at: timestamp of the newest point then, Unix ms.
    """

    history: list[Transition] = []
    rule: Rule | None = None
    series: list[SeriesRef] = []
    data_at: int | None = None


def detail(connection: Connection, alert_id: str, now: int) -> AlertDetail | None:
    """One alert with its ledger, history, rule and series."""
    found = alerts.read(connection, db.alerts.c.id == alert_id, now)
    if not found:
        return None
    table = db.alerts.c
    row = connection.execute(select(table.rule, table.series, table.data_at).where(table.id == alert_id)).one()
    changes = db.alert_changes
    history = connection.execute(
        select(changes).where(changes.c.alert_id == alert_id).order_by(changes.c.sequence)
    ).all()
    return AlertDetail(
        **msgspec.structs.asdict(found[0]),
        history=[_transition(entry) for entry in history],
        **_evaluated(row),
    )


def sources(connection: Connection, alert_ids: Collection[str]) -> dict[str, set[str]]:
    """The sources that the alerts of rules were evaluated over, by the alert's id."""
    table = db.alerts.c
    chosen = sorted(alert_ids)
    found: dict[str, set[str]] = {}
    for start in range(0, len(chosen), _CHUNK):
        query = select(table.id, table.series).where(table.id.in_(chosen[start : start + _CHUNK]))
        for alert_id, series in connection.execute(query):
            found[alert_id] = {ref.source for ref in msgspec.json.decode(series, type=list[SeriesRef])}
    return found


def rows(connection: Connection, ids: Collection[str], now: int) -> list[AlertDetail]:
    """Alerts with all that a table shows of them, which is not their history, in the order of their ids."""
    table = db.alerts.c
    more = {
        row.id: row
        for row in connection.execute(
            select(table.id, table.rule, table.series, table.data_at).where(table.id.in_(ids))
        )
    }
    found = {alert.id: alert for alert in alerts.read(connection, table.id.in_(ids), now)}
    return [
        AlertDetail(**msgspec.structs.asdict(found[alert_id]), **_evaluated(more[alert_id]))
        for alert_id in ids
        if alert_id in found
    ]


def _evaluated(row: Any) -> dict[str, Any]:
    return {
        "rule": msgspec.json.decode(row.rule, type=Rule) if row.rule else None,
        "series": msgspec.json.decode(row.series, type=list[SeriesRef]),
        "data_at": row.data_at,
    }


def page(
    connection: Connection,
    now: int,
    *,
    status: Collection[str] = (),
    severity: Collection[str] = (),
    model_id: str | None = None,
    fingerprint: str | None = None,
    before: tuple[int, str] | None = None,
    limit: int = 100,
) -> list[Alert]:
    """Alerts, newest first.

    :param before: timestamp and id of the alert behind which the page starts.
    """
    table = db.alerts.c
    conditions: list[ColumnElement[bool]] = [true()]
    if status:
        conditions.append(table.status.in_(status))
    if severity:
        conditions.append(table.severity.in_(severity))
    if model_id is not None:
        conditions.append(table.model_id == model_id)
    if fingerprint is not None:
        conditions.append(table.fingerprint == fingerprint)
    if before is not None:
        timestamp, alert_id = before
        same = and_(table.timestamp == timestamp, table.id < alert_id)
        conditions.append(or_(table.timestamp < timestamp, same))
    return alerts.read(connection, and_(*conditions), now, limit=limit)


def changes(connection: Connection, after: int, limit: int = 500) -> list[AlertChange]:
    """The alerts' feed behind a sequence."""
    table = db.alert_changes
    return _changes(connection, table.c.sequence > after, limit)


def history(connection: Connection, alert_id: str) -> list[AlertChange]:
    """All transitions of an alert, oldest first."""
    return _changes(connection, db.alert_changes.c.alert_id == alert_id, None)


def _changes(connection: Connection, condition: Any, limit: int | None) -> list[AlertChange]:
    table = db.alert_changes
    rows = connection.execute(select(table).where(condition).order_by(table.c.sequence).limit(limit)).all()
    return [
        AlertChange(
            sequence=row.sequence,
            change=row.change,
            at=row.at,
            alert=msgspec.json.decode(row.alert, type=Alert),
        )
        for row in rows
    ]


def _transition(row: Any) -> Transition:
    alert = msgspec.json.decode(row.alert, type=Alert)
    return Transition(
        sequence=row.sequence,
        change=row.change,
        at=row.at,
        status=alert.status,
        severity=alert.severity,
        value=alert.current_value,
        by=row.by,
        comment=row.comment,
    )
