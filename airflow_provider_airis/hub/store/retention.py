"""What is deleted once it is old: a page at a time, so that nobody waits for all of it; partitions as a whole."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import ColumnElement, Delete, Engine, delete, false, select, text, true, tuple_
from sqlalchemy.exc import DBAPIError

from airflow_provider_airis.hub.alerting import notification_log
from airflow_provider_airis.hub.store import feeds
from airflow_provider_airis.hub.store import tables as db
from airflow_provider_airis.hub.store.partitions import FIRST, WEEK_MS

if TYPE_CHECKING:
    from airflow_provider_airis.hub.store.writer import Transaction

DAY_MS = 86_400_000
_ROWS = 2_000
_SERIES = 500
_ALERTS = 200
log = logging.getLogger(__name__)

# Deletes a page of what is old: whether there is more.
Page = Callable[["Transaction"], bool]


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """For how many ms what is kept; None is for good.

    :param sources: patterns of sources whose points have a time of their own, the first that fits.
    :param events: by their timestamps; those of the category ``security`` are kept as ``audit`` says.
    :param alerts: since they were resolved.
    :param answers: what was answered under an ``Idempotency-Key``.
    :param notifications: what was shown of alerts that are over, and silences that have ended.
    """

    points: int | None = None
    sources: tuple[tuple[str, int], ...] = ()
    events: int | None = None
    audit: int | None = None
    alerts: int | None = None
    answers: int = 7 * DAY_MS
    notifications: int = 30 * DAY_MS

    def of_source(self, source: str) -> int | None:
        """How long the points of a source are kept."""
        return next((age for pattern, age in self.sources if fnmatchcase(source, pattern)), self.points)

    @property
    def longest(self) -> int | None:
        """After which time no point is kept any more, of whatever source."""
        return None if self.points is None else max([self.points, *(age for _, age in self.sources)])

    def __str__(self) -> str:
        kept: list[tuple[str, int | None]] = [("points", self.points)]
        kept += [(f"points of {pattern}", age) for pattern, age in self.sources]
        kept += [("events", self.events), ("events of category security", self.audit), ("resolved alerts", self.alerts)]
        kept += [("idempotency answers", self.answers), ("notification log and silences", self.notifications)]
        return "Kept: " + ", ".join(f"{what} {_written(age)}" for what, age in kept)


def _written(age: int | None) -> str:
    if age is None:
        return "for good"
    return f"{age // DAY_MS} d" if age % DAY_MS == 0 else f"{age / 3_600_000:g} h"


def plan(engine: Engine, retention: Retention, now: int) -> Iterator[Page]:
    """Drop the partitions that are over; then what is left to delete, each page until it says that it is done."""
    whole = engine.dialect.name == "postgresql" and retention.longest is not None
    if whole:
        _drop(engine, now - (retention.longest or 0))
    if retention.points is not None or retention.sources:
        yield from _points(engine, retention, now, whole=whole)
    events, alerts = db.events.c, db.alerts.c
    for age, condition in ((retention.events, false() == db.AUDIT), (retention.audit, true() == db.AUDIT)):
        if age is not None:
            yield _events(condition & (events.timestamp < now - age))
    if retention.alerts is not None:
        over = now - retention.alerts
        yield _alerts((alerts.status == "resolved") & (alerts.timestamp < over) & (alerts.updated_at < over))
    yield _answers(now - retention.answers)
    yield lambda transaction: notification_log.prune(transaction, retention.notifications)


def _drop(engine: Engine, before: int) -> None:
    """Drop the partitions of which all is older. Who reads or writes waits at most two seconds for that."""
    names = text("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'points'::regclass")
    try:
        with engine.begin() as connection:
            connection.execute(text("SET LOCAL lock_timeout = '2s'"))
            weeks = [name.removeprefix("points_") for name in connection.scalars(names)]
            for week in sorted(int(week) for week in weeks if week.isdecimal()):
                if (week + 1) * WEEK_MS <= before:
                    connection.exec_driver_sql(f"DROP TABLE points_{week}")
            if before >= FIRST * WEEK_MS and connection.scalar(text("SELECT EXISTS (SELECT FROM points_past)")):
                connection.exec_driver_sql("TRUNCATE points_past")
    except DBAPIError as error:
        log.warning("points that are over are still there, and dropped the next time: %s", error.orig)


def _points(engine: Engine, retention: Retention, now: int, *, whole: bool) -> Iterator[Page]:
    series = db.series.c
    with engine.connect() as connection:
        sources = connection.scalars(select(series.source).distinct().order_by(series.source)).all()
        for source in sources:
            age = retention.of_source(source)
            if age is None or (whole and age == retention.longest):
                continue
            ids = list(connection.scalars(select(series.id).where(series.source == source).order_by(series.id)))
            for start in range(0, len(ids), _SERIES):
                yield _old_points(ids[start : start + _SERIES], now - age)


def _old_points(ids: list[int], before: int) -> Page:
    points = db.points.c
    key = tuple_(points.series_id, points.timestamp)
    old = select(points.series_id, points.timestamp).where(points.series_id.in_(ids), points.timestamp < before)
    return _deletes(delete(db.points).where(key.in_(old.limit(_ROWS))))


def _events(condition: ColumnElement[bool]) -> Page:
    table = db.events.c
    old = select(table.sequence).where(condition).order_by(table.timestamp).limit(_ROWS)
    return _deletes(delete(db.events).where(table.sequence.in_(old)))


def _alerts(condition: ColumnElement[bool]) -> Page:
    def page(transaction: Transaction) -> int:
        connection = transaction.connection
        ids = connection.scalars(select(db.alerts.c.id).where(condition).limit(_ALERTS)).all()
        for table in (db.shown, db.notifications, db.alert_changes, db.origins):
            connection.execute(delete(table).where(table.c.alert_id.in_(ids)))
        connection.execute(delete(db.alerts).where(db.alerts.c.id.in_(ids)))
        return len(ids)

    return _page(page, _ALERTS)


def _answers(before: int) -> Page:
    table = db.answers.c
    key = tuple_(table.key, table.path)
    old = select(table.key, table.path).where(table.at < before).limit(_ROWS)
    return _deletes(delete(db.answers).where(key.in_(old)))


def _deletes(statement: Delete) -> Page:
    return _page(lambda transaction: transaction.connection.execute(statement).rowcount, _ROWS)


def _page(deletes: Callable[[Transaction], int], most: int) -> Page:
    """One process of the hub at a time; the others leave it to that one."""
    return lambda transaction: feeds.try_lock(transaction, "retention") and deletes(transaction) == most
