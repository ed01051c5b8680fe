"""Evaluates rules as points arrive. The points' own time decides, not the clock: an evaluation happens at each new
timestamp of a group of series, over the window that ends there, and never at one that is history already.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import msgspec
from sqlalchemy import Connection, delete, func, select

from airflow_provider_airis.hub import alerts
from airflow_provider_airis.hub import database as db
from airflow_provider_airis.hub.alerts import SeriesRef
from airflow_provider_airis.hub.rules import Rule, aggregate
from airflow_provider_airis.hub.writer import Transaction
from airflow_provider_airis.records import Alert

# An alert whose series have had no point for so long is resolved: what it watched is gone.
GONE_MS = 86_400_000
# Labels that are fields of an alert; all others become tags.
_FIELDS = ("environment", "model_id", "alert_type", "description")
_CHUNK = 500


@dataclass
class Group:
    """The series that share an alert of a rule."""

    rule: Rule
    source: str
    tags: dict[str, str]
    mark: str
    series: dict[int, SeriesRef] = field(default_factory=dict)


class Evaluator:
    """The rules in force and the groups of series that they watch. Belongs to the writer's thread."""

    def __init__(self) -> None:
        self._rules: list[Rule] | None = None
        self._groups: dict[tuple[str, str], Group] = {}
        self._watched: dict[int, list[Group]] = {}
        self.horizon_ms = 0

    def forget(self) -> None:
        """Read everything anew when it is next asked for."""
        self._rules = None

    def load(self, connection: Connection) -> None:
        """Read the rules and find their series, unless that is done."""
        if self._rules is not None:
            return
        self._rules = [msgspec.json.decode(row.rule, type=Rule) for row in connection.execute(select(db.rules))]
        self._groups, self._watched = {}, {}
        self.horizon_ms = max((rule.horizon_ms for rule in self._rules), default=0)
        names = sorted({rule.metric for rule in self._rules})
        for start in range(0, len(names), _CHUNK):
            chosen = db.series.c.name.in_(names[start : start + _CHUNK])
            for row in connection.execute(select(db.series).where(chosen)):
                self.add(row.id, SeriesRef(row.source, row.name, msgspec.json.decode(row.tags), row.unit))

    def add(self, series_id: int, ref: SeriesRef) -> None:
        """A series that is new."""
        for rule in self._rules or ():
            if not rule.matches(ref.source, ref.name, ref.tags):
                continue
            source, tags = rule.group(ref.source, ref.tags)
            mark = alerts.fingerprint(rule.id, source, tags)
            group = self._groups.setdefault((rule.id, mark), Group(rule, source, tags, mark))
            group.series[series_id] = ref
            self._watched.setdefault(series_id, []).append(group)

    def notice(self, transaction: Transaction, rows: Iterable[tuple[int, int, float]]) -> None:
        """Remember those of the stored points that may change an alert."""
        if not self._watched:
            return
        oldest = transaction.now - self.horizon_ms
        for series_id, timestamp, _ in rows:
            if timestamp >= oldest and series_id in self._watched:
                transaction.arrived.setdefault(series_id, set()).add(timestamp)

    def evaluate(self, transaction: Transaction) -> None:
        """Step every group that has new points through their timestamps."""
        arrived: dict[tuple[str, str], set[int]] = {}
        for series_id, timestamps in transaction.arrived.items():
            for group in self._watched.get(series_id, ()):
                arrived.setdefault((group.rule.id, group.mark), set()).update(timestamps)
        for key, timestamps in arrived.items():
            self._step(transaction, self._groups[key], timestamps)

    def catch_up(self, transaction: Transaction, rule_id: str | None = None) -> None:
        """Evaluate groups up to their newest point, where that has not happened: all, or those of one rule."""
        self.load(transaction.connection)
        for group in self._groups.values():
            if rule_id in (None, group.rule.id):
                self._step(transaction, group, None)

    def marks(self, rule_id: str) -> set[str]:
        """Fingerprints of the groups of a rule."""
        return {mark for owner, mark in self._groups if owner == rule_id}

    def _step(self, transaction: Transaction, group: Group, arrived: set[int] | None) -> None:
        """Step a group through the timestamps that arrived; through all new ones, firing only at the last, for None."""
        rule = group.rule
        connection = transaction.connection
        states = db.rule_states.c
        state = connection.execute(
            select(states.since, states.evaluated_at).where(
                (states.rule_id == rule.id) & (states.fingerprint == group.mark)
            )
        ).first()
        since, evaluated_at = (state.since, state.evaluated_at) if state else (None, -1)
        oldest = transaction.now - rule.horizon_ms
        timestamps = self._newer(connection, group, max(evaluated_at, oldest)) if arrived is None else arrived
        steps = sorted(timestamp for timestamp in timestamps if timestamp > max(evaluated_at, oldest))
        # A point that came late, or came again with another value, may change what was concluded last.
        if evaluated_at >= oldest and any(evaluated_at - rule.window_ms < t <= evaluated_at for t in timestamps):
            steps.insert(0, evaluated_at)
        if not steps:
            return
        alert = alerts.find_open(transaction, group.mark)
        for at, values in self._windows(connection, group, steps):
            value = aggregate(values, rule.aggregation)
            if not rule.holds(value):
                since = None
                if alert is not None:
                    alerts.change(transaction, alert, "resolved", status="resolved", current_value=value)
                    alert = None
            else:
                if since is None or at - evaluated_at > rule.horizon_ms:
                    since = at
                due = at - since >= rule.for_s * 1000 and (at == steps[-1] or arrived is not None)
                alert = self._hold(transaction, group, alert, value, at, due=due)
            evaluated_at = at
        row = {"rule_id": rule.id, "fingerprint": group.mark, "since": since, "evaluated_at": evaluated_at}
        db.upsert(connection, db.rule_states, row)

    def _newer(self, connection: Connection, group: Group, after: int) -> set[int]:
        points = db.points.c
        query = select(points.timestamp).where(points.series_id.in_(list(group.series)), points.timestamp > after)
        return set(connection.execute(query.distinct()).scalars())

    def _windows(self, connection: Connection, group: Group, steps: list[int]) -> Iterator[tuple[int, list[float]]]:
        window = group.rule.window_ms
        points = db.points.c
        query = (
            select(points.timestamp, points.value)
            .where(points.series_id.in_(list(group.series)))
            .where(points.timestamp > steps[0] - window, points.timestamp <= steps[-1])
            .order_by(points.timestamp, points.series_id)
        )
        found = connection.execute(query).all()
        timestamps = [timestamp for timestamp, _ in found]
        for at in steps:
            values = [value for _, value in found[bisect_right(timestamps, at - window) : bisect_right(timestamps, at)]]
            if values:
                yield at, values

    def _hold(
        self, transaction: Transaction, group: Group, alert: Alert | None, value: float, at: int, *, due: bool
    ) -> Alert | None:
        rule = group.rule
        if alert is not None:
            if alert.severity != rule.severity:
                return alerts.change(
                    transaction, alert, "severity_changed", severity=rule.severity, current_value=value
                )
            alerts.touch(transaction, alert.id, current_value=value)
            return alert
        if not due:
            return None
        known = {**group.tags, "source": group.source, "value": f"{value:g}", "threshold": f"{rule.threshold:g}"}
        labels = {name: rule.label(name, known) for name in rule.labels}
        fields = {name: labels.pop(name) for name in _FIELDS if name in labels}
        fields.setdefault("description", _describe(rule, value))
        return alerts.fire(
            transaction,
            group.mark,
            name=rule.name,
            severity=rule.severity,
            source=group.source,
            threshold=rule.threshold,
            current_value=value,
            tags=group.tags | {name: text for name, text in labels.items() if text is not None},
            rule=rule,
            series=group.series.values(),
            data_at=at,
            **fields,
        )


def close_gone(transaction: Transaction) -> None:
    """Resolve alerts of rules whose series have had no point for a day."""
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


def revise(transaction: Transaction, rule_id: str, rule: Rule | None, marks: Iterable[str] = ()) -> None:
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


def _describe(rule: Rule, value: float) -> str:
    return (
        f"{rule.aggregation} of {rule.metric} over {rule.window_s} s is {value:g}, {rule.comparator} {rule.threshold:g}"
    )
