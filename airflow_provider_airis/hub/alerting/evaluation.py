"""Evaluates rules as points arrive. The points' own time decides, not the clock: an evaluation happens at each new
timestamp of a group of series, over the window that ends there, and never at one that is history already. One that is
ahead of the hub's clock waits until the clock is there, or a sender whose clock is fast would hide what others send.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from operator import itemgetter
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Connection, bindparam, func, select, update

from airflow_provider_airis.hub.alerting import alerts
from airflow_provider_airis.hub.alerting.rules import Rule, aggregate
from airflow_provider_airis.hub.store import feeds, sql
from airflow_provider_airis.hub.store import tables as db
from airflow_provider_airis.hub.store.series import SeriesRef
from airflow_provider_airis.hub.store.writer import Transaction
from airflow_provider_airis.records import Alert

# Labels that are fields of an alert; all others become tags.
_FIELDS = ("environment", "model_id", "alert_type", "description")
_CHUNK = 500

_STATES = select(db.rule_states).where(
    db.rule_states.c.rule_id == bindparam("rule_id"),
    db.rule_states.c.fingerprint.in_(bindparam("marks", expanding=True)),
)
_POINTS = (
    select(db.points)
    .where(db.points.c.series_id.in_(bindparam("ids", expanding=True)))
    .where(db.points.c.timestamp > bindparam("after"), db.points.c.timestamp <= bindparam("until"))
    .order_by(db.points.c.series_id, db.points.c.timestamp)
)
_VALUES = update(db.alerts).where(db.alerts.c.id == bindparam("alert_id")).values(current_value=bindparam("value"))
T = TypeVar("T")


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
        self._by_metric: dict[str, list[Rule]] = {}
        self._version = 0
        self._newest = 0
        self._groups: dict[str, dict[str, Group]] = {}
        self._watched: dict[int, list[Group]] = {}
        # Timestamp → series that have a point there, once the clock is.
        self._ahead: dict[int, set[int]] = {}
        self.horizon_ms = 0

    def forget(self) -> None:
        """Read everything anew when it is next asked for."""
        self._rules = None

    @property
    def due(self) -> int | None:
        """When a point that came ahead of the clock is to be evaluated, Unix ms."""
        return min(self._ahead, default=None)

    def discard(self, series_id: int) -> None:
        """A series that was undone; its id may become another's."""
        for group in self._watched.pop(series_id, ()):
            group.series.pop(series_id, None)
            if not group.series:
                self._groups[group.rule.id].pop(group.mark, None)
        self._newest = min(self._newest, series_id - 1)

    def load(self, transaction: Transaction) -> None:
        """Read the rules and find their series, unless that is done; no rule changes then until the commit."""
        connection = transaction.connection
        version = transaction.changed.get(feeds.RULES) or transaction.rules
        if version is None:
            version = transaction.rules = feeds.share(transaction, feeds.RULES)
        if self._rules is not None and version == self._version:
            return
        self._version = version
        self._rules = [msgspec.json.decode(row.rule, type=Rule) for row in connection.execute(select(db.rules))]
        self._by_metric = {rule.metric: [] for rule in self._rules}
        for rule in self._rules:
            self._by_metric[rule.metric].append(rule)
        self._groups, self._watched = {}, {}
        self.horizon_ms = max((rule.horizon_ms for rule in self._rules), default=0)
        self._newest = 0
        try:
            self._find_series(connection)
        except BaseException:
            self.forget()
            raise

    def _find_series(self, connection: Connection) -> None:
        """Take in the series that came since, by whatever process: they are committed in the order of their ids."""
        newest = connection.scalar(select(func.max(db.series.c.id))) or 0
        if newest == self._newest or not self._rules:
            return
        names = sorted({rule.metric for rule in self._rules})
        for start in range(0, len(names), _CHUNK):
            chosen = db.series.c.name.in_(names[start : start + _CHUNK])
            for row in connection.execute(select(db.series).where(chosen, db.series.c.id > self._newest)):
                self.add(row.id, SeriesRef(row.source, row.name, msgspec.json.decode(row.tags), row.unit))
        self._newest = newest

    def add(self, series_id: int, ref: SeriesRef) -> None:
        """A series that may be new."""
        if series_id in self._watched:
            return
        for rule in self._by_metric.get(ref.name, ()):
            if not rule.matches(ref.source, ref.name, ref.tags):
                continue
            source, tags = rule.group(ref.source, ref.tags)
            mark = alerts.fingerprint(rule.id, source, tags)
            group = self._groups.setdefault(rule.id, {}).setdefault(mark, Group(rule, source, tags, mark))
            group.series[series_id] = ref
            self._watched.setdefault(series_id, []).append(group)

    def notice(self, transaction: Transaction, rows: Iterable[tuple[int, int, float]]) -> None:
        """Remember those of the stored points that may change an alert."""
        if not self._watched:
            return
        oldest = transaction.now - self.horizon_ms
        for series_id, timestamp, _ in rows:
            if timestamp >= oldest and series_id in self._watched:
                if timestamp > transaction.now:
                    self._ahead.setdefault(timestamp, set()).add(series_id)
                else:
                    transaction.arrived.setdefault(series_id, set()).add(timestamp)

    def evaluate(self, transaction: Transaction) -> None:
        """Step every group that has new points through their timestamps."""
        for timestamp in [at for at in self._ahead if at <= transaction.now]:
            for series_id in self._ahead.pop(timestamp):
                transaction.arrived.setdefault(series_id, set()).add(timestamp)
        if not transaction.arrived:
            return
        # One process at a time: the next one sees the points, and what was concluded from them.
        feeds.hold(transaction, feeds.ALERTS)
        self._find_series(transaction.connection)
        arrived: dict[str, dict[str, set[int]]] = {}
        for series_id, timestamps in transaction.arrived.items():
            for group in self._watched.get(series_id, ()):
                arrived.setdefault(group.rule.id, {}).setdefault(group.mark, set()).update(timestamps)
        for rule_id, marks in arrived.items():
            groups = [self._groups[rule_id][mark] for mark in marks]
            _Pass(transaction, groups).run(marks)

    def catch_up(self, transaction: Transaction, rule_id: str | None = None) -> None:
        """Evaluate groups up to their newest point, where that has not happened: all, or those of one rule."""
        self.load(transaction)
        # What is due by now is stepped through, as if it had just arrived.
        self.evaluate(transaction)
        feeds.hold(transaction, feeds.ALERTS)
        self._find_series(transaction.connection)
        for owner, groups in self._groups.items():
            if rule_id in (None, owner):
                _Pass(transaction, list(groups.values())).run(None)

    def marks(self, rule_id: str) -> set[str]:
        """Fingerprints of the groups of a rule."""
        return set(self._groups.get(rule_id, ()))


class _Pass:
    """One evaluation of groups of one rule; reads and writes for all of them together."""

    def __init__(self, transaction: Transaction, groups: list[Group]) -> None:
        self._transaction = transaction
        self._rule = groups[0].rule
        self._groups = groups
        self._oldest = transaction.now - self._rule.horizon_ms
        self._states: dict[str, tuple[int | None, int]] = {}
        self._values: dict[str, float] = {}

    def run(self, arrived: dict[str, set[int]] | None) -> None:
        """Step the groups through what arrived; for None through all that is new, and then fire at the last only."""
        connection, rule = self._transaction.connection, self._rule
        for chunk in _chunks([group.mark for group in self._groups]):
            for row in connection.execute(_STATES, {"rule_id": rule.id, "marks": chunk}):
                self._states[row.fingerprint] = row.since, row.evaluated_at
        found = self._newer() if arrived is None else arrived
        steps = {group.mark: self._steps(group, found.get(group.mark, set())) for group in self._groups}
        groups = [group for group in self._groups if steps[group.mark]]
        if not groups:
            return
        points = self._points(groups, [step for group in groups for step in steps[group.mark]])
        alive = alerts.find_open(self._transaction, [group.mark for group in groups])
        states = [
            self._step(group, steps[group.mark], points, alive.get(group.mark), last_only=arrived is None)
            for group in groups
        ]
        sql.upsert(connection, db.rule_states, states)
        if self._values:
            rows = [{"alert_id": alert_id, "value": value} for alert_id, value in self._values.items()]
            connection.execute(_VALUES, rows)

    def _state(self, group: Group) -> tuple[int | None, int]:
        since, evaluated_at = self._states.get(group.mark, (None, -1))
        return since, min(evaluated_at, self._transaction.now)

    def _newer(self) -> dict[str, set[int]]:
        """Timestamps of points that the groups have not been stepped through."""
        after = {group.mark: max(self._state(group)[1], self._oldest) for group in self._groups}
        owner = {series_id: group.mark for group in self._groups for series_id in group.series}
        found: dict[str, set[int]] = {}
        for chunk in _chunks(list(owner)):
            span = {"ids": chunk, "after": min(after.values()), "until": self._transaction.now}
            for series_id, timestamp, _ in self._transaction.connection.execute(_POINTS, span):
                if timestamp > after[owner[series_id]]:
                    found.setdefault(owner[series_id], set()).add(timestamp)
        return found

    def _steps(self, group: Group, timestamps: set[int]) -> list[int]:
        evaluated_at = self._state(group)[1]
        least, most = max(evaluated_at, self._oldest), self._transaction.now
        steps = sorted(timestamp for timestamp in timestamps if least < timestamp <= most)
        # A point that came late, or came again with another value, may change what was concluded last.
        again = any(evaluated_at - self._rule.window_ms < timestamp <= evaluated_at for timestamp in timestamps)
        return [evaluated_at, *steps] if again and evaluated_at >= self._oldest else steps

    def _points(self, groups: list[Group], steps: list[int]) -> dict[int, list[tuple[int, float]]]:
        """Series id → its points within the windows of all steps, oldest first."""
        span = {"after": min(steps) - self._rule.window_ms, "until": max(steps)}
        points: dict[int, list[tuple[int, float]]] = {}
        for chunk in _chunks([series_id for group in groups for series_id in group.series]):
            for series_id, timestamp, value in self._transaction.connection.execute(_POINTS, {**span, "ids": chunk}):
                points.setdefault(series_id, []).append((timestamp, value))
        return points

    def _step(
        self,
        group: Group,
        steps: list[int],
        points: dict[int, list[tuple[int, float]]],
        alert: Alert | None,
        *,
        last_only: bool,
    ) -> dict[str, Any]:
        """Take a group through its steps: its state behind them."""
        rule = self._rule
        since, evaluated_at = self._state(group)
        found = sorted(chain.from_iterable(points.get(series_id, ()) for series_id in group.series), key=itemgetter(0))
        timestamps = [timestamp for timestamp, _ in found]
        for at in steps:
            window = slice(bisect_right(timestamps, at - rule.window_ms), bisect_right(timestamps, at))
            values = [value for _, value in found[window]]
            if not values:  # what arrived was undone
                continue
            value = aggregate(values, rule.aggregation)
            if rule.holds(value):
                if since is None or at - evaluated_at > rule.horizon_ms:
                    since = at
                due = at - since >= rule.for_s * 1000 and (at == steps[-1] or not last_only)
                alert = self._hold(group, alert, value, at, due=due)
            else:
                since = None
                if alert is not None:
                    self._values.pop(alert.id, None)
                    alerts.change(self._transaction, alert, "resolved", status="resolved", current_value=value)
                    alert = None
            evaluated_at = at
        return {"rule_id": rule.id, "fingerprint": group.mark, "since": since, "evaluated_at": evaluated_at}

    def _hold(self, group: Group, alert: Alert | None, value: float, at: int, *, due: bool) -> Alert | None:
        rule, transaction = self._rule, self._transaction
        if alert is not None:
            if alert.severity == rule.severity:
                self._values[alert.id] = value
                return alert
            return alerts.change(transaction, alert, "severity_changed", severity=rule.severity, current_value=value)
        if not due:
            return None
        known = {**group.tags, "source": group.source, "value": f"{value:g}", "threshold": f"{rule.threshold:g}"}
        labels = {name: rule.label(name, known) for name in rule.labels}
        fields: dict[str, Any] = {name: labels.pop(name) for name in _FIELDS if name in labels}
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


def _chunks(items: list[T]) -> Iterator[list[T]]:
    return (items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK))


def _describe(rule: Rule, value: float) -> str:
    return (
        f"{rule.aggregation} of {rule.metric} over {rule.window_s} s is {value:g}, {rule.comparator} {rule.threshold:g}"
    )
