"""What the pages show, from what the store holds: pure functions, times in Unix ms."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Sequence
from itertools import pairwise
from operator import itemgetter
from typing import Any

import msgspec

from airflow_provider_airis.hub.activity import STEP_MS, Snapshot
from airflow_provider_airis.hub.alerting.notification_log import Showing
from airflow_provider_airis.hub.alerting.reads import AlertDetail, Transition
from airflow_provider_airis.hub.alerting.rules import Rule
from airflow_provider_airis.hub.alerting.silences import KnownSilence
from airflow_provider_airis.hub.format import duration, quantity, scale, sparkline
from airflow_provider_airis.hub.store.metrics import SeriesPoints, SourceActivity
from airflow_provider_airis.records import Alert, to_ms
from airflow_provider_airis.routes import Matcher, labels
from airflow_provider_airis.routes.groups import labels_of
from airflow_provider_airis.routes.matching import alike, match_all

MINUTE = 60_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR
SILENT_AFTER = 30 * MINUTE
MAX_SERIES = 6
MAX_STEPS = 1500
MAX_DELIVERIES = 50
MAX_ENDED = 20
MAX_SOURCES = 50
_SEVERITIES = ("critical", "high", "medium", "warning", "low", "info")
_TITLES = {
    "fired": "Fired",
    "severity_changed": "Severity changed",
    "acknowledged": "Acknowledged",
    "resolved": "Resolved",
}
_SIGNS = {">": ">", ">=": "≥", "<": "<", "<=": "≤", "==": "=", "!=": "≠"}


def headline(alerts: Collection[Alert]) -> str:
    """The open alerts in one line: ``1 critical alert firing``."""
    firing = [alert.severity for alert in alerts if alert.status == "firing"]
    if not firing:
        return f"None firing, {len(alerts)} acknowledged" if alerts else "No alert is firing"
    worst = min(firing, key=_SEVERITIES.index)
    count, noun = len(firing), "alert" if len(firing) == 1 else "alerts"
    if firing.count(worst) == count:
        return f"{count} {worst} {noun} firing"
    return f"{count} {noun} firing, {firing.count(worst)} {worst}"


def urgency(alert: Alert) -> tuple[bool, int, int]:
    """Sorts what needs somebody first to the top."""
    return alert.status != "firing", _SEVERITIES.index(alert.severity), -alert.timestamp


def is_named(source: str, text: str) -> bool:
    """Whether a source's name has a text in it, in whatever case."""
    return text.casefold() in source.casefold()


def overview(
    opened: Collection[Alert],
    ended: Collection[Alert],
    shown: Sequence[AlertDetail],
    activity: Snapshot,
    now: int,
    silences: Sequence[KnownSilence],
    page: int = 1,
) -> dict[str, Any]:
    """The overview.

    :param opened: all alerts that are firing or acknowledged, and ``ended``: those that are resolved.
    :param shown: those of both that get a row.
    :param page: of the sources, from 1; the last one if there are not so many.
    """
    known = activity.sources
    pages = max(1, math.ceil(len(known) / MAX_SOURCES))
    first = (min(page, pages) - 1) * MAX_SOURCES
    return {
        "headline": headline(opened),
        "counts": {
            "firing": sum(alert.status == "firing" for alert in opened),
            "acknowledged": sum(alert.status == "acknowledged" for alert in opened),
            "resolved": sum(now - alert.updated_at <= DAY for alert in ended),
        },
        "active": [_row(alert, silences) for alert in shown if alert.status != "resolved"],
        "resolved": [_row(alert, ()) for alert in shown if alert.status == "resolved"],
        "hidden": len(opened) - sum(alert.status != "resolved" for alert in shown),
        "sources": [_source(source, activity.at) for source in known[first : first + MAX_SOURCES]],
        "first": first + 1,
        "total": len(known),
        "page": min(page, pages),
        "pages": pages,
        "rate": round(sum(sum(source.counts) for source in known) / 60, 1),
        "silent": sum(_is_silent(source, activity.at) for source in known),
    }


def _row(alert: AlertDetail, silences: Sequence[KnownSilence]) -> dict[str, Any]:
    unit = _unit(alert)
    return {
        "alert": alert,
        "silenced": bool(_silencing(alert, silences)),
        "value": quantity(alert.current_value, unit),
        "threshold": quantity(alert.threshold, unit),
        "comparator": _SIGNS[alert.rule.comparator] if alert.rule else "threshold",
    }


def _is_silent(source: SourceActivity, now: int) -> bool:
    return now - source.last > SILENT_AFTER


def _source(source: SourceActivity, now: int) -> dict[str, Any]:
    silent = _is_silent(source, now)
    # The newest step is still being filled, and what is behind it has not come yet: that is no decline.
    complete = source.counts if silent else source.counts[: (source.last - now + HOUR) // STEP_MS]
    return {
        "name": source.source,
        "series": source.series,
        "points": sum(source.counts),
        "rate": round(sum(source.counts) / 60, 1),
        "spark": sparkline(complete),
        "last": source.last,
        "silent": silent,
    }


def _unit(alert: AlertDetail) -> str:
    """The unit of an alert's value and threshold: its metric's, except that a count has none."""
    if alert.rule is None or not alert.series or alert.rule.aggregation == "count":
        return ""
    return alert.series[0].unit


def ended_at(alert: AlertDetail) -> int | None:
    """When it was resolved."""
    if alert.status != "resolved":
        return None
    return next((entry.at for entry in reversed(alert.history) if entry.change == "resolved"), alert.updated_at)


def stretch(alert: AlertDetail, now: int) -> tuple[int, int]:
    """The time ``[start, end)`` that an alert's chart shows: the alert, and enough beside it to compare it with."""
    end = ended_at(alert) or now
    margin = max(HOUR, (end - alert.timestamp) // 4)
    return alert.timestamp - margin, min(now, end + margin // 2)


def resolution(rule: Rule, start: int, end: int) -> tuple[int | None, str]:
    """How the chart of a rule reads its points: the step in ms, None for every point, and the aggregation."""
    least = -(-(end - start) // MAX_STEPS // MINUTE) * MINUTE if end - start > DAY else 0
    if rule.aggregation in ("sum", "count"):
        return max(rule.window_ms, least), rule.aggregation
    return least or None, "min" if rule.comparator.startswith("<") else "max"


def alert_page(
    alert: AlertDetail,
    series: Sequence[SeriesPoints],
    now: int,
    showings: Sequence[Showing],
    silences: Sequence[KnownSilence],
) -> dict[str, Any]:
    """The page of an alert; ``series`` as :func:`resolution` wants them."""
    unit, rule = _unit(alert), alert.rule
    condition = ""
    if rule:
        lasting = f" for {duration(rule.for_s)}" if rule.for_s else ""
        limit = f"{_SIGNS[rule.comparator]} {quantity(rule.threshold, unit)}"
        condition = f"{rule.aggregation} over {duration(rule.window_s)} {limit}{lasting}"
    ended = ended_at(alert)
    sign = _SIGNS[rule.comparator] + " " if rule else ""
    facts = (
        ("Last value" if ended else "Current value", quantity(alert.current_value, unit), "" if ended else "alarm"),
        ("Threshold", sign + quantity(alert.threshold, unit) if alert.threshold is not None else "", ""),
        ("Model", alert.model_id, "text"),
        ("Environment", alert.environment, "text"),
        ("Type", alert.alert_type, "text"),
    )
    known = {"source": alert.source, **alert.tags, "rule": rule.id if rule else "", "id": alert.id}
    return {
        "alert": alert,
        "ended": ended,
        "facts": [fact for fact in facts if fact[1]],
        "metric": rule.metric if rule else "",
        "condition": condition,
        "history": [
            _entry(entry, before, unit) for before, entry in zip([None, *alert.history], alert.history, strict=False)
        ],
        "chart": _chart(alert, rule, unit, series, now) if rule and series else None,
        "deliveries": _deliveries(alert, showings),
        "silences": [] if ended else _silencing(alert, silences),
        "matchers": ", ".join(map(str, alike(alert))),
        "labels": [(name, text) for name, text in known.items() if text],
    }


def _deliveries(alert: AlertDetail, showings: Sequence[Showing]) -> list[dict[str, Any]]:
    """Each state of an alert that a target was shown, what was sent last first, and what the ledger alone knows of."""
    ledger = {(row.channel, row.target): row for row in alert.notifications}
    rows = []
    for showing in showings[:MAX_DELIVERIES]:
        entry = showing.entry
        now_shown = ledger.pop((entry.channel, entry.target), None)
        rows.append(
            {
                "channel": entry.channel,
                "target": entry.target,
                "status": showing.status,
                "reference": now_shown.reference if now_shown else "",
                "receiver": entry.receiver,
                "group": "" if entry.id == alert.id else _group_labels(entry.group),
                "alone": entry.id == alert.id,
                "at": showing.sent_at,
            }
        )
    known = {"receiver": "", "group": "", "alone": False}
    rows += [msgspec.structs.asdict(row) | known for row in ledger.values()]
    return sorted(rows, key=itemgetter("at"), reverse=True)


def _group_labels(group: str) -> str:
    return ", ".join(str(Matcher(name, "=", value)) for name, value in labels_of(group).items())


def _silencing(alert: Alert, silences: Sequence[KnownSilence]) -> list[dict[str, Any]]:
    its = labels(alert)
    rows = [_silence(silence) for silence in silences if silence.status.state == "active"]
    return [row for row in rows if match_all(row["matchers"], its)]


def _silence(silence: KnownSilence) -> dict[str, Any]:
    return {
        "id": silence.id,
        "matchers": [matcher.record() for matcher in silence.matchers],
        "state": silence.status.state,
        "from": to_ms(silence.startsAt),
        "until": to_ms(silence.endsAt),
        "by": silence.createdBy,
        "comment": silence.comment,
    }


def silences_page(silences: Sequence[KnownSilence], opened: Collection[Alert]) -> dict[str, Any]:
    """The page of the silences.

    :param silences: those that have not ended, and those that have lately.
    :param opened: all alerts that are firing or acknowledged.
    """
    its = [labels(alert) for alert in opened]
    rows = [_silence(silence) for silence in silences]
    for row in rows:
        row["alerts"] = sum(match_all(row["matchers"], one) for one in its)
    active = sum(row["state"] == "active" for row in rows)
    return {
        "headline": f"{active or 'No'} {'silence is' if active <= 1 else 'silences are'} active",
        "silences": sorted((row for row in rows if row["state"] != "expired"), key=itemgetter("until")),
        "ended": [row for row in rows if row["state"] == "expired"][:MAX_ENDED],
    }


def _entry(entry: Transition, before: Transition | None, unit: str) -> dict[str, Any]:
    details = []
    if entry.change == "severity_changed" and before:
        details.append(f"from {before.severity} to {entry.severity}")
    if entry.by:
        details.append(f"by {entry.by}")
    if entry.value is not None and entry.change != "acknowledged":
        details.append(f"at {quantity(entry.value, unit)}")
    return {
        "change": entry.change,
        "title": _TITLES[entry.change],
        "detail": ", ".join(details),
        "comment": entry.comment or "",
        "at": entry.at,
    }


def _chart(alert: AlertDetail, rule: Rule, unit: str, series: Sequence[SeriesPoints], now: int) -> dict[str, Any]:
    start, end = stretch(alert, now)
    step, aggregation = resolution(rule, start, end)
    # A sum or a count over another time than the rule's does not compare with its threshold.
    comparable = rule.aggregation not in ("sum", "count") or step == rule.window_ms
    largest = max(abs(value) for line in series for _, value in line.points)
    # In the threshold's unit, as everywhere on the page, unless that makes for long numbers.
    near = comparable and 0 < largest < 100 * abs(rule.threshold)
    factor, suffix = scale(unit, rule.threshold if near else largest)
    return {
        "series": [
            {"label": label, "points": _with_gaps([(at, value * factor) for at, value in line.points])}
            for label, line in zip(_labels(series), series[:MAX_SERIES], strict=False)
        ],
        "more": max(0, len(series) - MAX_SERIES),
        "note": f"Each point is the {aggregation} over {duration(step / 1000)}." if step else "",
        "suffix": suffix,
        "threshold": rule.threshold * factor if comparable else None,
        "start": start,
        "end": end,
        "firing": {"start": alert.timestamp, "end": ended_at(alert) or now},
        "marks": [{"at": e.at, "change": e.change, "title": _TITLES[e.change]} for e in alert.history],
    }


def _labels(series: Sequence[SeriesPoints]) -> list[str]:
    """What tells the lines apart, as short as it gets."""
    tags = sorted({tag for line in series for tag in line.tags})
    telling = [tag for tag in tags if len({line.tags.get(tag) for line in series}) > 1]
    if len({line.source for line in series}) > 1 and not telling:
        return [line.source for line in series]
    return [
        " · ".join(line.tags[tag] for tag in telling if tag in line.tags) or line.tags.get("statistic", line.name)
        for line in series
    ]


def _with_gaps(points: Sequence[tuple[int, float]]) -> list[tuple[int, float | None]]:
    """The points with a null wherever some are missing, so that no line is drawn over what nobody measured."""
    usual = statistics.median(after[0] - before[0] for before, after in pairwise(points)) if len(points) > 1 else 0
    line: list[tuple[int, float | None]] = []
    for at, value in points:
        if line and at - line[-1][0] > 2.5 * usual:
            line.append((line[-1][0] + 1, None))
        line.append((at, float(f"{value:.6g}")))
    return line
