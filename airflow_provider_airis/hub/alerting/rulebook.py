"""The rules in force: set, replaced, deleted, and what follows for their alerts."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from sqlalchemy import Connection, delete, func, select

from airflow_provider_airis.hub.alerting import alerts
from airflow_provider_airis.hub.alerting.rules import Rule
from airflow_provider_airis.hub.problems import Problem
from airflow_provider_airis.hub.store import feeds, sql
from airflow_provider_airis.hub.store import tables as db
from airflow_provider_airis.hub.store.writer import Transaction

# An alert whose series have had no point for so long is resolved: what it watched is gone.
GONE_MS = 86_400_000


def put(transaction: Transaction, rule: Rule, *, replace: bool) -> bool:
    """Set a rule, and evaluate it over what is there already: whether it is new.

    :raises Problem: 409, there is one that must not be replaced.
    """
    # Whoever stores points meanwhile waits, and sees the rule then.
    feeds.advance(transaction, feeds.RULES)
    table = db.rules.c
    exists = transaction.connection.scalar(select(table.id).where(table.id == rule.id)) is not None
    if exists and not replace:
        raise Problem(409, f"there is a rule {rule.id!r} already: PUT replaces it", pointer="/id")
    sql.upsert(transaction.connection, db.rules, [{"id": rule.id, "rule": msgspec.json.encode(rule).decode()}])
    transaction.evaluator.load(transaction)
    feeds.hold(transaction, feeds.ALERTS)
    apply_rule_change(transaction, rule.id, rule, transaction.evaluator.marks(rule.id))
    transaction.evaluator.catch_up(transaction, rule.id)
    return not exists


def remove(transaction: Transaction, rule_id: str) -> None:
    """Delete a rule and resolve its alerts.

    :raises Problem: 404.
    """
    feeds.advance(transaction, feeds.RULES)
    feeds.hold(transaction, feeds.ALERTS)
    if not transaction.connection.execute(delete(db.rules).where(db.rules.c.id == rule_id)).rowcount:
        raise Problem(404, f"there is no rule {rule_id!r}")
    apply_rule_change(transaction, rule_id, None)


def read(connection: Connection) -> list[Rule]:
    """All rules, by id."""
    rows = connection.execute(select(db.rules.c.rule).order_by(db.rules.c.id)).all()
    return [msgspec.json.decode(row.rule, type=Rule) for row in rows]


def resolve_stale(transaction: Transaction) -> None:
    """Resolve alerts of rules whose series have had no point for a day."""
    feeds.hold(transaction, feeds.ALERTS)
    states, table = db.rule_states.c, db.alerts.c
    last = select(func.max(states.evaluated_at)).where(
        (states.rule_id == table.rule_id) & (states.fingerprint == table.fingerprint)
    )
    condition = (
        (table.status != "resolved")
        & table.rule_id.is_not(None)
        & (func.coalesce(last.scalar_subquery(), 0) < transaction.now - GONE_MS)
        & (table.timestamp < transaction.now - GONE_MS)
    )
    for alert in alerts.read(transaction.connection, condition, transaction.now):
        alerts.change(transaction, alert, "resolved", status="resolved", comment="no data for a day")


def apply_rule_change(transaction: Transaction, rule_id: str, rule: Rule | None, marks: Iterable[str] = ()) -> None:
    """After a rule was replaced or, for None, deleted: resolve the alerts of groups that it no longer has, carry a new
    severity over to the others, and forget what it had concluded.
    """
    kept = set(marks)
    condition = (db.alerts.c.status != "resolved") & (db.alerts.c.rule_id == rule_id)
    for alert in alerts.read(transaction.connection, condition, transaction.now):
        if rule is None or alert.fingerprint not in kept:
            alerts.change(transaction, alert, "resolved", status="resolved", comment="the rule no longer covers it")
        elif alert.severity != rule.severity:
            alerts.change(transaction, alert, "severity_changed", severity=rule.severity)
    transaction.connection.execute(delete(db.rule_states).where(db.rule_states.c.rule_id == rule_id))
