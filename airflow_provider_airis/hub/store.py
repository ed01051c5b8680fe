"""What the hub keeps. Reads answer at once and may run in any thread; writes are queued and answer futures."""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar

import msgspec
from sqlalchemy import ColumnElement, Connection, and_, delete, func, insert, or_, select, true, update
from sqlalchemy.exc import SQLAlchemyError

from airflow_provider_airis.hub import alerts, users
from airflow_provider_airis.hub import database as db
from airflow_provider_airis.hub.alerts import AlertDetail, SeriesRef, Transition
from airflow_provider_airis.hub.evaluation import Evaluator, close_gone, revise
from airflow_provider_airis.hub.ingest import Form, SeriesKey, check_series, read_events, read_metrics
from airflow_provider_airis.hub.problems import Problem, StoreUnavailable
from airflow_provider_airis.hub.rules import Rule, aggregate
from airflow_provider_airis.hub.users import KnownUser
from airflow_provider_airis.hub.writer import Transaction, Writer
from airflow_provider_airis.records import Alert, AlertChange, IngestAnswer

T = TypeVar("T")
log = logging.getLogger(__name__)

EVENTS_FEED = "events"
ANSWERS_KEPT_MS = 7 * 86_400_000
KEPT_MS = 30 * 86_400_000
MAX_POINTS = 1_000_000
_KNOWN_SERIES = 200_000
_CHUNK = 500


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


class Consumer(msgspec.Struct, frozen=True):
    """A reader's committed offset in a feed, and when it wants to be woken though nothing came; Unix ms."""

    name: str
    sequence: int
    updated_at: int
    wake_at: int | None = None


class FeedEvent(msgspec.Struct, frozen=True):
    """An event in the feed. ``data`` is an object."""

    key: str
    event_type: str
    source: str
    severity: str
    timestamp: int
    data: msgspec.Raw


class EventChange(msgspec.Struct, frozen=True):
    """A place in the feed of events."""

    sequence: int
    event: FeedEvent


class Totals(msgspec.Struct, frozen=True):
    """How much there is."""

    series: int
    points: int
    events: int
    alerts: dict[str, int]


class Store:
    """The hub's store, on a database that one process writes.

    :param url: SQLAlchemy's, e.g. ``sqlite:////var/lib/airis/hub.db``.
    :param kept_ms: how long it is known what was shown of alerts that are over, and what silences there were.
    :raises StoreUnavailable: it cannot be opened.
    """

    def __init__(self, url: str, *, kept_ms: int = KEPT_MS, busy_timeout: float = 2) -> None:
        self.kept_ms = kept_ms
        self._engine = db.connect(url, busy_timeout=busy_timeout)
        self._known: dict[SeriesKey, tuple[int, str]] = {}
        self._evaluator = Evaluator()
        self._opened = _now()
        self._listeners: list[Callable[[dict[str, int]], None]] = []
        with _outages():
            db.create_tables(self._engine)
            with self._engine.connect() as connection:
                self.last: dict[str, int] = {
                    alerts.FEED: connection.scalar(select(func.max(db.alert_changes.c.sequence))) or 0,
                    EVENTS_FEED: connection.scalar(select(func.max(db.events.c.sequence))) or 0,
                }
        self._writer = Writer(
            self._engine,
            before_commit=self._evaluator.evaluate,
            after_commit=self._committed,
            after_rollback=self._forget,
        )

    def close(self) -> None:
        """Finish what is queued, then let go of the database."""
        self._writer.close()
        self._engine.dispose()

    def listen(self, listener: Callable[[dict[str, int]], None]) -> None:
        """Call a function, in the writer's thread, with the feeds that grew and their last sequences."""
        self._listeners.append(listener)

    def _committed(self, transaction: Transaction) -> None:
        if transaction.changed:
            self.last |= transaction.changed
            for listener in self._listeners:
                listener(transaction.changed)

    def _forget(self) -> None:
        self._known.clear()
        self._evaluator.forget()

    # Writing

    def submit(self, work: Callable[[Transaction], T], *, size: int = 0) -> Future[T]:
        """Do something in the next transaction; the future is done when it is durable.

        :param size: bytes that it brings.
        """
        return self._writer.submit(work, size=size)

    def once(
        self,
        transaction: Transaction,
        key: str | None,
        path: str,
        document: bytes,
        work: Callable[[], tuple[int, bytes]],
    ) -> tuple[int, bytes, bool]:
        """Status, answer, and whether they are replayed: under a key a work is done once.

        :raises Problem: 409, the key was used with another document.
        """
        if key is None:
            return *work(), False
        digest = hashlib.sha256(document).hexdigest()
        table = db.answers.c
        first = transaction.connection.execute(
            select(table.digest, table.status, table.answer).where((table.key == key) & (table.path == path))
        ).first()
        if first is None:
            status, answer = work()
            row = {"key": key, "path": path, "digest": digest, "status": status, "answer": answer.decode()}
            transaction.connection.execute(insert(db.answers), {**row, "at": transaction.now})
            return status, answer, False
        if first.digest != digest:
            raise Problem(409, f"Idempotency-Key {key!r} was used here with another body")
        return first.status, first.answer.encode(), True

    def ingest_metrics(self, transaction: Transaction, document: bytes, form: Form) -> IngestAnswer:
        """Store the points of a document.

        :raises Problem: 400, the document is none.
        """
        self._evaluator.load(transaction.connection)

        def resolve(source: str, name: str, unit: str, tags: bytes) -> int:
            return self._resolve(transaction, source, name, unit, tags)

        rows, refusals = read_metrics(document, form, transaction.now, self._known, resolve)
        new = db.upsert_points(transaction.connection, rows)
        self._evaluator.notice(transaction, rows)
        return IngestAnswer(len(rows), len(rows) - new, refusals)

    def _resolve(self, transaction: Transaction, source: str, name: str, unit: str, tags: bytes) -> int:
        connection = transaction.connection
        ref = SeriesRef(source, name, check_series(source, name, unit, tags), unit)
        canonical = msgspec.json.encode(ref.tags, order="sorted").decode()
        key = {"source": source, "name": name, "tags": canonical}
        series_id = db.insert_missing(connection, db.series, {**key, "unit": unit})
        if series_id is None:
            table = db.series.c
            same = (table.source == source) & (table.name == name) & (table.tags == canonical)
            row = connection.execute(select(table.id, table.unit).where(same)).one()
            series_id = row.id
            if row.unit != unit:
                connection.execute(update(db.series).where(table.id == series_id).values(unit=unit))
        else:
            self._evaluator.add(series_id, ref)
        transaction.cached = True
        if len(self._known) >= _KNOWN_SERIES:
            self._known.clear()
        self._known[source, name, tags] = series_id, unit
        return series_id

    def ingest_events(
        self, transaction: Transaction, document: bytes, form: Form, header_key: str | None
    ) -> IngestAnswer:
        """Store the events of a document.

        :param header_key: the key of a single event.
        :raises Problem: 400, the document is none.
        """
        rows, refusals = read_events(document, form, transaction.now, header_key)
        new = db.insert_new(transaction.connection, db.events, [msgspec.structs.asdict(row) for row in rows])
        if new:
            transaction.changed[EVENTS_FEED] = transaction.connection.scalar(select(func.max(db.events.c.sequence)))
        return IngestAnswer(len(rows), len(rows) - new, refusals)

    def put_rule(self, transaction: Transaction, rule: Rule, *, replace: bool) -> bool:
        """Set a rule, and evaluate it over what is there already: whether it is new.

        :raises Problem: 409, there is one that must not be replaced.
        """
        table = db.rules.c
        exists = transaction.connection.scalar(select(table.id).where(table.id == rule.id)) is not None
        if exists and not replace:
            raise Problem(409, f"there is a rule {rule.id!r} already: PUT replaces it", pointer="/id")
        db.upsert(transaction.connection, db.rules, [{"id": rule.id, "rule": msgspec.json.encode(rule).decode()}])
        transaction.cached = True
        self._evaluator.forget()
        self._evaluator.load(transaction.connection)
        revise(transaction, rule.id, rule, self._evaluator.marks(rule.id))
        self._evaluator.catch_up(transaction, rule.id)
        return not exists

    def delete_rule(self, transaction: Transaction, rule_id: str) -> None:
        """Delete a rule and resolve its alerts.

        :raises Problem: 404.
        """
        if not transaction.connection.execute(delete(db.rules).where(db.rules.c.id == rule_id)).rowcount:
            raise Problem(404, f"there is no rule {rule_id!r}")
        transaction.cached = True
        self._evaluator.forget()
        revise(transaction, rule_id, None)

    def commit(
        self,
        transaction: Transaction,
        name: str,
        sequence: int,
        *,
        force: bool = False,
        wake_at: int | msgspec.UnsetType | None = msgspec.UNSET,
    ) -> Consumer:
        """Store how far a consumer has read; it never moves back unless forced, and may then hold any other mark.

        :param wake_at: when it wants to be woken; as it was, unless given.
        :raises Problem: 400, no feed is that long.
        """
        longest = max((self.last | transaction.changed).values())
        if not 0 <= sequence <= (1 << 53 if force else longest):
            raise Problem(400, f"the feeds end at {longest}", pointer="/sequence")
        found = _consumer(transaction.connection, name)
        if found is not None and sequence < found.sequence and not force:
            return found
        if wake_at is msgspec.UNSET:
            wake_at = found.wake_at if found else None
        consumer = Consumer(name, sequence, transaction.now, wake_at)
        db.upsert(transaction.connection, db.consumers, [msgspec.structs.asdict(consumer)])
        return consumer

    def tend(self, transaction: Transaction) -> None:
        """What is due from time to time: evaluate what was missed, close what is gone, expire answers."""
        self._evaluator.catch_up(transaction)
        # After an outage the collectors get an hour to say that their series live.
        if transaction.now - self._opened > 3_600_000:
            close_gone(transaction)
        expired = db.answers.c.at < transaction.now - ANSWERS_KEPT_MS
        transaction.connection.execute(delete(db.answers).where(expired))
        users.forget(transaction)

    # Reading

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with _outages(), self._engine.connect() as connection:
            yield connection

    def reading(self, what: Callable[[Connection], T]) -> T:
        """Read whatever a module of its own reads."""
        with self._reading() as connection:
            return what(connection)

    def now(self) -> int:
        """The hub's clock, Unix ms."""
        return _now()

    def check(self) -> None:
        """Read something.

        :raises StoreUnavailable: that failed.
        """
        with self._reading() as connection:
            connection.execute(select(db.rules.c.id).limit(1)).all()

    def alert(self, alert_id: str) -> AlertDetail | None:
        """One alert with its ledger, history, rule and series."""
        with self._reading() as connection:
            found = alerts.read(connection, db.alerts.c.id == alert_id, _now())
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
            rule=msgspec.json.decode(row.rule, type=Rule) if row.rule else None,
            series=msgspec.json.decode(row.series, type=list[SeriesRef]),
            data_at=row.data_at,
        )

    def alerts(
        self,
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
        with self._reading() as connection:
            return alerts.read(connection, and_(*conditions), _now(), limit=limit)

    def changes(self, after: int, limit: int = 500) -> list[AlertChange]:
        """The alerts' feed behind a sequence."""
        table = db.alert_changes
        return self._changes(table.c.sequence > after, limit)

    def history(self, alert_id: str) -> list[AlertChange]:
        """All transitions of an alert, oldest first."""
        return self._changes(db.alert_changes.c.alert_id == alert_id, None)

    def _changes(self, condition: Any, limit: int | None) -> list[AlertChange]:
        table = db.alert_changes
        with self._reading() as connection:
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

    def event_changes(self, after: int, limit: int = 500, *, category: str | None = None) -> list[EventChange]:
        """The events' feed behind a sequence, or those whose ``data.category`` is one."""
        table = db.events
        query = select(table).where(table.c.sequence > after).order_by(table.c.sequence).limit(limit)
        if category is not None:
            query = query.where(table.c.category == category)
        return self._events(query)

    def events(
        self,
        *,
        source: str | None = None,
        event_type: str | None = None,
        category: str | None = None,
        severity: Collection[str] = (),
        before: int | None = None,
        limit: int = 100,
    ) -> list[EventChange]:
        """Events, those that arrived last first.

        :param before: sequence of the event behind which the page starts.
        """
        table = db.events
        query = select(table).order_by(table.c.sequence.desc()).limit(limit)
        for column, wanted in (
            (table.c.source, source),
            (table.c.event_type, event_type),
            (table.c.category, category),
        ):
            if wanted is not None:
                query = query.where(column == wanted)
        if severity:
            query = query.where(table.c.severity.in_(severity))
        if before is not None:
            query = query.where(table.c.sequence < before)
        return self._events(query)

    def _events(self, query: Any) -> list[EventChange]:
        with self._reading() as connection:
            rows = connection.execute(query).all()
        return [
            EventChange(
                row.sequence,
                FeedEvent(
                    row.key, row.event_type, row.source, row.severity, row.timestamp, msgspec.Raw(row.data.encode())
                ),
            )
            for row in rows
        ]

    def users(
        self,
        *,
        source: str | None = None,
        active: bool | None = None,
        email: str | None = None,
        behind: tuple[str, str] | None = None,
        limit: int = 1000,
    ) -> tuple[list[KnownUser], int]:
        """A page of users by source and id, and how many there are in all.

        :param behind: source and id of the user behind whom the page starts.
        """
        with self._reading() as connection:
            return users.read(connection, source=source, active=active, email=email, behind=behind, limit=limit)

    def consumer(self, name: str) -> Consumer | None:
        """How far a consumer has read, None if it never said."""
        with self._reading() as connection:
            return _consumer(connection, name)

    def rules(self) -> list[Rule]:
        """All rules, by id."""
        with self._reading() as connection:
            rows = connection.execute(select(db.rules.c.rule).order_by(db.rules.c.id)).all()
        return [msgspec.json.decode(row.rule, type=Rule) for row in rows]

    def rule(self, rule_id: str) -> Rule | None:
        """One rule."""
        return next((rule for rule in self.rules() if rule.id == rule_id), None)

    def query(
        self,
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
        :raises Problem: 400, more than ``MAX_POINTS``.
        """
        with self._reading() as connection:
            chosen = _series(connection, name, source, tags or {})
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
                    .limit(MAX_POINTS + 1 - total)
                )
                current = None
                for series_id, timestamp, value in connection.execute(query):
                    if series_id != current:
                        current = series_id
                        ref = chosen[series_id]
                        line: list[tuple[int, float]] = []
                        answer.append(SeriesPoints(ref.source, ref.name, ref.unit, ref.tags, line))
                    line.append((timestamp, value))
                    total += 1
                if total > MAX_POINTS:
                    raise Problem(400, f"more than {MAX_POINTS} points: ask for a shorter time, or for fewer series")
        if step is not None:
            for series in answer:
                series.points = _aggregated(series.points, step, aggregation)
        return sorted(answer, key=_identity)

    def coverage(
        self, *, start: int, end: int, step: int, source: str | None = None, name: str | None = None
    ) -> list[SeriesCoverage]:
        """Where within ``[start, end)`` each series holds points, in whole steps of so many milliseconds."""
        table = db.points.c
        bucket = (table.timestamp - table.timestamp % step).label("bucket")
        within = and_(table.timestamp >= start, table.timestamp < end)
        with self._reading() as connection:
            chosen = _series(connection, name, source, {})
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

    def activity(self, *, start: int, end: int, step: int) -> list[SourceActivity]:
        """Every source with its newest point and its points a step within ``[start, end)``; times in ms."""
        series, points = db.series.c, db.points.c
        last = select(func.max(points.timestamp)).where(points.series_id == series.id).scalar_subquery()
        bucket = ((points.timestamp - start - (points.timestamp - start) % step) / step).label("bucket")
        with self._reading() as connection:
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

    def totals(self) -> Totals:
        """Counts of everything; counting points reads all of them."""
        with self._reading() as connection:
            by_status = select(db.alerts.c.status, func.count()).group_by(db.alerts.c.status)
            series, points, events = (
                connection.scalar(select(func.count()).select_from(table)) or 0
                for table in (db.series, db.points, db.events)
            )
            return Totals(series, points, events, {row[0]: row[1] for row in connection.execute(by_status)})


def _series(connection: Connection, name: str | None, source: str | None, tags: dict[str, str]) -> dict[int, SeriesRef]:
    table = db.series.c
    query = select(db.series)
    if name is not None:
        query = query.where(table.name == name)
    if source is not None:
        query = query.where(table.source == source)
    found = {}
    for row in connection.execute(query):
        held = msgspec.json.decode(row.tags, type=dict[str, str])
        if tags.items() <= held.items():
            found[row.id] = SeriesRef(row.source, row.name, held, row.unit)
    return found


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


def _aggregated(points: Iterable[tuple[int, float]], step: int, aggregation: str) -> list[tuple[int, float]]:
    buckets: dict[int, list[float]] = {}
    for timestamp, value in points:
        buckets.setdefault(timestamp - timestamp % step, []).append(value)
    return [(bucket, aggregate(values, aggregation)) for bucket, values in buckets.items()]


def _consumer(connection: Connection, name: str) -> Consumer | None:
    row = connection.execute(select(db.consumers).where(db.consumers.c.name == name)).first()
    return None if row is None else Consumer(*row)


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


def _now() -> int:
    return time.time_ns() // 1_000_000


@contextmanager
def _outages() -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        raise StoreUnavailable(str(getattr(error, "orig", error))) from error
