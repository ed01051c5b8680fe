"""The last point of each series, which a reader of counters subtracts from."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, and_, func, select

from airflow_provider_airis.hub.store import tables as db

_CHUNK = 500


class LastPoint(msgspec.Struct, frozen=True):
    """A series and its newest point; ``timestamp`` is Unix ms."""

    source: str
    name: str
    unit: str
    tags: dict[str, str]
    timestamp: int
    value: float


class LastPoints(msgspec.Struct):
    """Answer of ``GET /api/v1/metrics/last``; ``cursor`` asks for the next page, null on the last."""

    series: list[LastPoint]
    cursor: str | None


def read(
    connection: Connection,
    *,
    source: str | None,
    name: str | None,
    tags: dict[str, str],
    after: int,
    limit: int,
) -> tuple[list[LastPoint], int | None]:
    """The last points of the series that are meant, in the order in which the hub came to know them.

    :param tags: which a series must have, among others.
    :param after: id of the series behind which the page starts; the second of the answer starts the next one.
    """
    series, points = db.series.c, db.points.c
    newest = select(func.max(points.timestamp)).where(points.series_id == series.id).correlate(db.series)
    query = select(series.id, series.source, series.name, series.unit, series.tags, points.timestamp, points.value)
    query = query.join_from(
        db.series,
        db.points,
        and_(points.series_id == series.id, points.timestamp == newest.scalar_subquery()),
    )
    for column, wanted in ((series.source, source), (series.name, name)):
        if wanted is not None:
            query = query.where(column == wanted)
    found: list[LastPoint] = []
    while True:
        rows = connection.execute(query.where(series.id > after).order_by(series.id).limit(_CHUNK)).all()
        for row in rows:
            held = msgspec.json.decode(row.tags, type=dict[str, str])
            if tags.items() <= held.items():
                if len(found) == limit:
                    return found, after
                found.append(LastPoint(row.source, row.name, row.unit, held, row.timestamp, row.value))
            after = row.id
        if len(rows) < _CHUNK:
            return found, None
