"""What the pages show, from what the store holds: pure functions, times in Unix ms."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from airflow_provider_airis.hub.format import duration, quantity, scale, sparkline
from airflow_provider_airis.records import Alert, AlertChange

MINUTE = 60_000
HOUR = 60 * MINUTE
SILENT_AFTER = 30 * MINUTE
MAX_SERIES = 6
SEVERITIES = ("critical", "high", "medium", "warning", "low", "info")
_TITLES = {
    "fired": "Fired",
    "severity_changed": "Severity changed",
    "acknowledged": "Acknowledged",
    "resolved": "Resolved",
}


class Series(msgspec.Struct):
    """A series and its points ``(timestamp, value)`` in order."""

    source: str
    name: str
    unit: str
    tags: dict[str, str]
    points: list[tuple[int, float]]


class Rule(msgspec.Struct):
    """The part of a threshold rule that the pages speak of."""

    metric: str
    aggregation: str
    window_s: int
    comparator: str
    threshold: float
    for_s: int = 0

    def condition(self, unit: str) -> str:
        """``p90 over 5 min > 500 ms for 2 min``."""
        lasting = f" for {duration(self.for_s)}" if self.for_s else ""
        limit = quantity(self.threshold, self.unit(unit))
        return f"{self.aggregation} over {duration(self.window_s)} {self.comparator} {limit}{lasting}"

    def unit(self, unit: str) -> str:
        """The unit of what it compares, given the metric's: a count has none."""
        return "" if self.aggregation == "count" else unit


class Activity(msgspec.Struct):
    """What arrived from a source within the last hour: points of equal stretches of it, oldest first."""

    name: str
    series: int
    last: int
    counts: list[int]


def headline(active: Sequence[Alert]) -> str:
    """The overview in one line: ``1 critical alert firing``."""
    firing = [alert for alert in active if alert.status == "firing"]
    if not firing:
        return f"{len(active)} acknowledged, none firing" if active else "No alerts firing"
    worst = min((alert.severity for alert in firing), key=SEVERITIES.index)
    alerts = "alert" if len(firing) == 1 else "alerts"
    count = sum(alert.severity == worst for alert in firing)
    return f"{count} {worst} {alerts} firing" if count == len(firing) else f"{len(firing)} alerts firing, {count} {worst}"


def overview(
    active: Sequence[Alert],
    resolved: Sequence[Alert],
    rules: Mapping[str, tuple[Rule, str]],
    activity: Iterable[Activity],
    now: int,
) -> dict[str, Any]:
    """The overview page. ``rules`` maps an alert's id to its rule and its metric's unit."""

    def row(alert: Alert) -> dict[str, Any]:
        rule, unit = rules.get(alert.id, (None, ""))
        return {
            "alert": alert,
            "value": quantity(alert.current_value, rule.unit(unit) if rule else ""),
            "threshold": quantity(alert.threshold, rule.unit(unit) if rule else ""),
            "comparator": rule.comparator if rule else "limit",
            "channels": [
                {"name": entry.channel, "failed": entry.status == "failed"}
                for entry in alert.notifications
            ],
        }

    def order(alert: Alert) -> tuple[bool, int, int]:
        return alert.status != "firing", SEVERITIES.index(alert.severity), -alert.timestamp

    sources = [
        {
            "name": source.name,
            "series": source.series,
            "points": sum(source.counts),
            "rate": round(sum(source.counts) / 60, 1),
            "spark": sparkline(source.counts),
            "last": source.last,
            "silent": now - source.last > SILENT_AFTER,
        }
        for source in activity
    ]
    return {
        "headline": headline(active),
        "counts": {
            "firing": sum(alert.status == "firing" for alert in active),
            "acknowledged": sum(alert.status == "acknowledged" for alert in active),
            "resolved": sum(now - alert.updated_at <= 24 * HOUR for alert in resolved),
        },
        "active": [row(alert) for alert in sorted(active, key=order)],
        "resolved": [row(alert) for alert in resolved],
        "sources": sources,
        "rate": round(sum(source["points"] for source in sources) / 60),
        "silent": sum(source["silent"] for source in sources),
    }


def stretch(alert: Alert, now: int) -> tuple[int, int]:
    """The time around an alert that its chart shows."""
    end = alert.updated_at if alert.status == "resolved" else now
    margin = max(HOUR, (end - alert.timestamp) // 4)
    return alert.timestamp - margin, min(now, end + margin // 2)


def alert_page(
    alert: Alert, history: Sequence[AlertChange], rule: Rule | None, series: Sequence[Series], now: int
) -> dict[str, Any]:
    """The page of one alert."""
    unit = series[0].unit if series else ""
    compared = rule.unit(unit) if rule else ""
    labels = {"source": alert.source, **dict(sorted(alert.tags.items())), "fingerprint": alert.fingerprint, "id": alert.id}
    return {
        "alert": alert,
        "value": quantity(alert.current_value, compared),
        "threshold": quantity(alert.threshold, compared),
        "comparator": rule.comparator if rule else "",
        "metric": rule.metric if rule else "",
        "condition": rule.condition(unit) if rule else "",
        "history": [_entry(change, previous, compared) for change, previous in zip(history, [None, *history])],
        "chart": _chart(alert, history, rule, series, now) if rule and any(line.points for line in series) else None,
        "labels": [(name, text) for name, text in labels.items() if text],
    }


def _entry(change: AlertChange, previous: AlertChange | None, unit: str) -> dict[str, Any]:
    alert = change.alert
    detail = ""
    if change.change == "acknowledged" and alert.acknowledged_by:
        detail = f"by {alert.acknowledged_by}"
    elif change.change == "severity_changed" and previous:
        detail = f"{previous.alert.severity} to {alert.severity}"
    elif alert.current_value is not None:
        detail = f"at {quantity(alert.current_value, unit)}"
    return {"change": change.change, "title": _TITLES[change.change], "detail": detail, "at": change.at}


def _chart(
    alert: Alert, history: Sequence[AlertChange], rule: Rule, series: Sequence[Series], now: int
) -> dict[str, Any]:
    lines = [line for line in series if line.points]
    start, end = stretch(alert, now)
    unit = lines[0].unit
    drawable = rule.aggregation not in ("count", "sum")
    largest = max(abs(value) for line in lines for _, value in line.points)
    factor, suffix = scale(unit, max(largest, abs(rule.threshold) if drawable else 0))
    differing = [
        tag
        for tag in sorted({tag for line in lines for tag in line.tags})
        if len({line.tags.get(tag) for line in lines}) > 1
    ]
    return {
        "series": [
            {
                "label": " · ".join(line.tags[tag] for tag in differing if tag in line.tags)
                or line.tags.get("statistic", line.name),
                "points": _with_gaps([(at, value * factor) for at, value in line.points]),
            }
            for line in lines[:MAX_SERIES]
        ],
        "more": max(0, len(lines) - MAX_SERIES),
        "suffix": suffix,
        "threshold": rule.threshold * factor if drawable else None,
        "start": start,
        "end": end,
        "firing": {"start": alert.timestamp, "end": alert.updated_at if alert.status == "resolved" else now},
        "marks": [{"at": change.at, "change": change.change, "title": _TITLES[change.change]} for change in history],
    }


def _with_gaps(points: Sequence[tuple[int, float]]) -> list[tuple[int, float | None]]:
    """The points with a null wherever some are missing, so that no line is drawn over what nobody measured."""
    steps = [after[0] - before[0] for before, after in zip(points, points[1:])]
    usual = statistics.median(steps) if steps else 0
    line: list[tuple[int, float | None]] = []
    for at, value in points:
        if line and at - line[-1][0] > 2.5 * usual:
            line.append((line[-1][0] + 1, None))
        line.append((at, float(f"{value:.6g}")))
    return line
