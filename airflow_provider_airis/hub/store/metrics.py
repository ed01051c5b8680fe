"""Reads of points: queries, coverage, activity."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from itertools import groupby, islice
from operator import itemgetter

import msgspec
from sqlalchemy import ColumnElement, Connection, and_, func, select

from airflow_provider_airis.hub.alerting.rules import aggregate
from airflow_provider_airis.hub.problems import Problem
from airflow_provider_airis.hub.store import series as known_series
from airflow_provider_airis.hub.store import tables as db

MAX_POINTS = 1_000_000
_CHUNK = 500
# Rows in memory at a time that are not answered.
_FETCHED = 10_000


class SeriesPoints(msgspec.Struct):
    """A series and its points ``(timestamp, value)``, oldest first."""

    source: str
    name: str
    unit: str
    tags: dict[str, str]
    points: list[tuple[int, float]]


class SeriesCoverage(msgspec.Struct):
    """Where a series holds points: the windows ``[start, end)``, in whole steps, and how many points in all."""

    source: str
    name: str
    tags: dict[str, str]
    points: int
    windows: list[tuple[int, int]]


class SourceActivity(msgspec.Struct):
    """What a source has sent: its series, its newest point, and points a step within a window, oldest first."""

    source: str
    series: int
    last: int
    counts: list[int]


def query(
    connection: Connection,
    *,
    start: int,
    end: int,
    name: str | None = None,
    source: str | None = None,
    tags: dict[str, str] | None = None,
    step: int | None = None,
    aggregation: str = "avg",
) -> list[SeriesPoints]:
    """The points within ``[start, end)`` of the series that are meant, those without points left out.

    :param tags: which a series must have, among others.
    :param step: milliseconds; a point a step then, stamped with the step's start.
    :raises Problem: 400, it would answer more than ``MAX_POINTS``.
    """
    chosen = known_series.find(connection, name=name, source=source, tags=tags)
    table = db.points.c
    answer: list[SeriesPoints] = []
    total = 0
    ids = list(chosen)
    for first in range(0, len(ids), _CHUNK):
        query = (
            select(table.series_id, table.timestamp, table.value)
            .where(table.series_id.in_(ids[first : first + _CHUNK]))
            .where(table.timestamp >= start, table.timestamp < end)
            .order_by(table.series_id, table.timestamp)
            .execution_options(yield_per=_FETCHED)
        )
        for series_id, rows in groupby(connection.execute(query), itemgetter(0)):
            ref = chosen[series_id]
            points = ((timestamp, value) for _, timestamp, value in rows)
            # What is too many is seen before it is held.
            line = list(islice(_aggregated(points, step, aggregation), MAX_POINTS + 1 - total))
            total += len(line)
            if total > MAX_POINTS:
                thinner = "a step, which answers a point each" if step is None else f"a step over {step / 1000:g} s"
                detail = f"more than {MAX_POINTS:,} points: ask for a shorter time, for fewer series, or for {thinner}"
                raise Problem(400, detail, pointer="/step")
            answer.append(SeriesPoints(ref.source, ref.name, ref.unit, ref.tags, line))
    return sorted(answer, key=_identity)


def coverage(
    connection: Connection, *, start: int, end: int, step: int, source: str | None = None, name: str | None = None
) -> list[SeriesCoverage]:
    """Where within ``[start, end)`` each series holds points, in whole steps of so many milliseconds."""
    table = db.points.c
    bucket = (table.timestamp - table.timestamp % step).label("bucket")
    within = and_(table.timestamp >= start, table.timestamp < end)
    chosen = known_series.find(connection, name=name, source=source)
    answer: list[SeriesCoverage] = []
    ids = list(chosen)
    for first in range(0, len(ids), _CHUNK):
        chunk = ids[first : first + _CHUNK]
        held, windows = _whole(connection, chunk, within, step)
        # Consecutive buckets differ from their rank by the same: that names the stretch they are in.
        buckets = (
            select(table.series_id, bucket)
            .where(table.series_id.in_(held.keys() - windows.keys()), within)
            .group_by(table.series_id, bucket)
            .subquery()
        )
        rank = func.row_number().over(partition_by=buckets.c.series_id, order_by=buckets.c.bucket)
        stretches = select(buckets, (buckets.c.bucket - step * rank).label("stretch")).subquery()
        opens = func.min(stretches.c.bucket)
        query = (
            select(stretches.c.series_id, opens, func.max(stretches.c.bucket) + step)
            .group_by(stretches.c.series_id, stretches.c.stretch)
            .order_by(stretches.c.series_id, opens)
        )
        if held.keys() - windows.keys():
            for series_id, *window in connection.execute(query):
                windows.setdefault(series_id, []).append((window[0], window[1]))
        for series_id, count in held.items():
            ref = chosen[series_id]
            answer.append(SeriesCoverage(ref.source, ref.name, ref.tags, count, windows[series_id]))
    return sorted(answer, key=_identity)


def activity(connection: Connection, *, start: int, end: int, step: int) -> list[SourceActivity]:
    """Every source with its newest point and its points a step within ``[start, end)``; times in ms."""
    series, points = db.series.c, db.points.c
    last = select(func.max(points.timestamp)).where(points.series_id == series.id).scalar_subquery()
    bucket = ((points.timestamp - start - (points.timestamp - start) % step) / step).label("bucket")
    rows = connection.execute(
        select(series.source, func.count(), func.max(last)).group_by(series.source).order_by(series.source)
    ).all()
    size = math.ceil((end - start) / step)
    found = {row[0]: SourceActivity(row[0], row[1], row[2] or 0, [0] * size) for row in rows}
    query = (
        select(series.source, bucket, func.count())
        .join_from(db.series, db.points, points.series_id == series.id)
        .where(points.timestamp >= start, points.timestamp < end)
        .group_by(series.source, bucket)
    )
    for source, place, count in connection.execute(query):
        found[source].counts[int(place)] = count
    return list(found.values())


def _whole(
    connection: Connection, ids: Collection[int], within: ColumnElement[bool], step: int
) -> tuple[dict[int, int], dict[int, list[tuple[int, int]]]]:
    """How many points each series holds, and the window of those without a gap: a point at every step.

    Counting them takes a fifth of the time that looking for their gaps would.
    """
    table = db.points.c
    query = (
        select(
            table.series_id,
            func.count(),
            func.min(table.timestamp),
            func.max(table.timestamp),
            func.max(table.timestamp % step),
        )
        .where(table.series_id.in_(ids), within)
        .group_by(table.series_id)
    )
    held, windows = {}, {}
    for series_id, count, first, last, beside in connection.execute(query):
        held[series_id] = count
        if beside == 0 and count == (last - first) // step + 1:
            windows[series_id] = [(first, last + step)]
    return held, windows


def _identity(series: SeriesPoints | SeriesCoverage) -> tuple[str, str, list[tuple[str, str]]]:
    return series.source, series.name, list(series.tags.items())


def _aggregated(points: Iterable[tuple[int, float]], step: int | None, aggregation: str) -> Iterable[tuple[int, float]]:
    """Points, oldest first, as they are, or one for each step."""
    if step is None:
        return points
    steps = groupby(points, lambda point: point[0] - point[0] % step)
    return ((at, aggregate([value for _, value in within], aggregation)) for at, within in steps)
