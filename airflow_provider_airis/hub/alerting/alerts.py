"""Alerts: every transition is one row of the change feed, written in the transaction that makes it."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from typing import Annotated, Any

import msgspec
from sqlalchemy import Connection, Row, insert, select, update

from airflow_provider_airis.hub.alerting.rules import Rule
from airflow_provider_airis.hub.ingest import MAX_TAG_VALUE, MAX_TAGS
from airflow_provider_airis.hub.problems import Problem
from airflow_provider_airis.hub.store import feeds, sql
from airflow_provider_airis.hub.store import tables as db
from airflow_provider_airis.hub.store.series import SeriesRef
from airflow_provider_airis.hub.store.writer import Transaction
from airflow_provider_airis.records import Alert, AlertSeverity, ChangeType, Notification

FEED = feeds.ALERTS
_CHUNK = 500


_Label = Annotated[str, msgspec.Meta(max_length=MAX_TAG_VALUE)]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=300, pattern=r"^[^\x00]*$")]
Milliseconds = Annotated[int, msgspec.Meta(ge=0, le=(1 << 53) - 1)]


class Origin(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose alert it is, if another system evaluates it. An episode is (system, fingerprint, starts_at).

    :param starts_at: when it began to fire, Unix ms.
    :param updated_at: when the system said what the body says, Unix ms.
    """

    system: _Name
    fingerprint: _Name
    starts_at: Milliseconds
    updated_at: Milliseconds | None = None


class ManualAlert(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of ``POST /api/v1/alerts``. The fingerprint follows from the other fields unless given.

    :param ends_at: when the alert of another system was over, Unix ms; it is then resolved.
    """

    name: _Label
    severity: AlertSeverity
    description: str = ""
    source: _Label = ""
    model_id: _Label | None = None
    environment: _Label | None = None
    alert_type: _Label | None = None
    threshold: float | None = None
    current_value: float | None = None
    tags: Annotated[dict[str, _Label], msgspec.Meta(max_length=MAX_TAGS)] = {}
    fingerprint: str | None = None
    origin: Origin | None = None
    ends_at: Milliseconds | None = None


class Acknowledgement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of ``POST /api/v1/alerts/{id}/acknowledge`` and of ``/resolve``: who, and why."""

    by: str | None = None
    comment: str | None = None


class Delivery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of ``PUT /api/v1/alerts/{id}/notifications/{channel}/{target}``.

    :param at: ``updated_at`` of the alert as delivered, Unix ms; now, unless given.
    """

    reference: str
    status: str
    at: int | None = None


_SHOWN = [
    db.alerts.c[field.name]
    for field in msgspec.structs.fields(Alert)
    if field.name not in ("duration", "notifications")
]


def fingerprint(*parts: Any) -> str:
    """What tells alerts apart, from whatever identifies them."""
    return hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest()[:32]


def read(connection: Connection, where: Any, now: int, *, limit: int | None = None) -> list[Alert]:
    """The alerts that satisfy a condition, newest first."""
    rows = connection.execute(
        select(*_SHOWN).where(where).order_by(db.alerts.c.timestamp.desc(), db.alerts.c.id.desc()).limit(limit)
    ).all()
    ledger = _ledger(connection, [row.id for row in rows])
    return [_alert(row, ledger.get(row.id, []), now) for row in rows]


def _ledger(connection: Connection, ids: list[str]) -> dict[str, list[Notification]]:
    ledger: dict[str, list[Notification]] = {}
    table = db.notifications.c
    for start in range(0, len(ids), _CHUNK):
        query = select(db.notifications).where(table.alert_id.in_(ids[start : start + _CHUNK]))
        for row in connection.execute(query.order_by(table.alert_id, table.channel, table.target)):
            ledger.setdefault(row.alert_id, []).append(
                Notification(row.channel, row.target, row.reference, row.status, row.at)
            )
    return ledger


def _alert(row: Row[Any], notifications: list[Notification], now: int) -> Alert:
    fields = row._asdict()
    fields["tags"] = msgspec.json.decode(row.tags, type=dict[str, str])
    until = row.updated_at if row.status == "resolved" else now
    return Alert(**fields, duration=max(0, until - row.timestamp) / 1000, notifications=notifications)


def get(connection: Connection, alert_id: str, now: int) -> Alert:
    """One alert.

    :raises Problem: 404.
    """
    found = read(connection, db.alerts.c.id == alert_id, now)
    if not found:
        raise Problem(404, f"there is no alert {alert_id!r}")
    return found[0]


def find_open(transaction: Transaction, marks: list[str]) -> dict[str, Alert]:
    """The alerts of fingerprints that are not resolved."""
    found: dict[str, Alert] = {}
    for start in range(0, len(marks), _CHUNK):
        table = db.alerts.c
        condition = table.fingerprint.in_(marks[start : start + _CHUNK]) & (table.status != "resolved")
        found |= {alert.fingerprint: alert for alert in read(transaction.connection, condition, transaction.now)}
    return found


def fire(
    transaction: Transaction,
    mark: str,
    *,
    name: str,
    severity: AlertSeverity,
    tags: dict[str, str],
    rule: Rule | None = None,
    series: Iterable[SeriesRef] = (),
    data_at: int | None = None,
    timestamp: int | None = None,
    **fields: Any,
) -> Alert:
    """A new alert; it fires since ``timestamp``, by default since now."""
    alert = Alert(
        id=secrets.token_hex(8),
        name=name,
        severity=severity,
        status="firing",
        timestamp=transaction.now if timestamp is None else timestamp,
        updated_at=transaction.now,
        fingerprint=mark,
        tags=tags,
        duration=0.0,
        **fields,
    )
    row = {column.name: getattr(alert, column.name) for column in _SHOWN}
    row["tags"] = msgspec.json.encode(tags, order="sorted").decode()
    row["series"] = msgspec.json.encode(list(series)).decode()
    row["data_at"] = data_at
    if rule is not None:
        row |= {"rule_id": rule.id, "rule": msgspec.json.encode(rule).decode()}
    transaction.connection.execute(insert(db.alerts), row)
    _record(transaction, alert, "fired")
    return alert


def change(
    transaction: Transaction,
    alert: Alert,
    kind: ChangeType,
    *,
    by: str | None = None,
    comment: str | None = None,
    **fields: Any,
) -> Alert:
    """The alert after a transition, which readers of the feed get to see."""
    # The ledger compares these times: two changes within a millisecond must still differ.
    updated_at = transaction.now = max(transaction.now, alert.updated_at + 1)
    touch(transaction, alert.id, updated_at=updated_at, **fields)
    changed = get(transaction.connection, alert.id, updated_at)
    _record(transaction, changed, kind, by, comment)
    return changed


def touch(transaction: Transaction, alert_id: str, **fields: Any) -> None:
    """Set fields of an alert without a transition."""
    transaction.connection.execute(update(db.alerts).where(db.alerts.c.id == alert_id).values(**fields))


def _record(
    transaction: Transaction, alert: Alert, kind: ChangeType, by: str | None = None, comment: str | None = None
) -> None:
    row = {
        "sequence": feeds.advance(transaction, FEED),
        "alert_id": alert.id,
        "change": kind,
        "at": alert.updated_at,
        "by": by,
        "comment": comment,
        "alert": msgspec.json.encode(alert).decode(),
    }
    transaction.connection.execute(insert(db.alert_changes), row)


def post(transaction: Transaction, body: ManualAlert) -> tuple[bool, Alert]:
    """A manual alert, and whether it is new: the same fingerprint while one is open is the same alert.

    :raises Problem: 409, the fingerprint is one of a rule's.
    """
    if body.ends_at is not None:
        raise Problem(400, "an alert without origin is ended by POST /alerts/{id}/resolve", pointer="/ends_at")
    mark = body.fingerprint or fingerprint(
        body.name, body.source, body.model_id, body.environment, body.alert_type, body.tags
    )
    feeds.hold(transaction, FEED)
    states = db.rule_states.c
    rule = transaction.connection.scalar(select(states.rule_id).where(states.fingerprint == mark).limit(1))
    alert = find_open(transaction, [mark]).get(mark)
    if alert is not None and rule is None:
        table = db.alerts.c
        rule = transaction.connection.scalar(select(table.rule_id).where(table.id == alert.id))
    if rule is not None:
        raise Problem(409, f"this is the fingerprint of an alert of the rule {rule!r}", pointer="/fingerprint")
    if alert is None:
        return True, fire(transaction, mark, **content(body))
    return False, describe(transaction, alert, body)


def content(body: ManualAlert) -> dict[str, Any]:
    """What a body says that an alert is, apart from which one it is."""
    apart = ("fingerprint", "origin", "ends_at")
    return {name: getattr(body, name) for name in body.__struct_fields__ if name not in apart}


def describe(transaction: Transaction, alert: Alert, body: ManualAlert) -> Alert:
    """An open alert as a body says that it is now; only another severity is a transition."""
    fields = content(body)
    severity = fields.pop("severity")
    fields["tags"] = msgspec.json.encode(body.tags, order="sorted").decode()
    touch(transaction, alert.id, **fields)
    if severity != alert.severity:
        return change(transaction, alert, "severity_changed", severity=severity)
    return get(transaction.connection, alert.id, transaction.now)


def acknowledge(transaction: Transaction, alert_id: str, body: Acknowledgement) -> Alert:
    """A firing alert becomes acknowledged; any other stays as it is."""
    feeds.hold(transaction, FEED)
    alert = get(transaction.connection, alert_id, transaction.now)
    if alert.status != "firing":
        return alert
    fields = {"status": "acknowledged", "acknowledged_by": body.by}
    return change(transaction, alert, "acknowledged", by=body.by, comment=body.comment, **fields)


def resolve(transaction: Transaction, alert_id: str, body: Acknowledgement) -> Alert:
    """An open alert becomes resolved; a resolved one stays as it is."""
    feeds.hold(transaction, FEED)
    alert = get(transaction.connection, alert_id, transaction.now)
    if alert.status == "resolved":
        return alert
    return change(transaction, alert, "resolved", by=body.by, comment=body.comment, status="resolved")


def deliver(transaction: Transaction, alert_id: str, channel: str, target: str, body: Delivery) -> Notification:
    """Write the ledger."""
    get(transaction.connection, alert_id, transaction.now)
    at = transaction.now if body.at is None else body.at
    entry = Notification(channel, target, body.reference, body.status, at)
    sql.upsert(transaction.connection, db.notifications, [{"alert_id": alert_id, **msgspec.structs.asdict(entry)}])
    return entry
