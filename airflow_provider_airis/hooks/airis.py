"""The hub's client: streams records in, reads alerts and the change feed, keeps the ledger."""

from __future__ import annotations

import gzip
import math
import re
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from hashlib import blake2b
from typing import Any, NamedTuple
from urllib.parse import quote
from uuid import uuid4

import httpx2
import msgspec

from airflow_provider_airis.errors import PermanentError
from airflow_provider_airis.hooks.base import ApiHook, T
from airflow_provider_airis.records import (
    Alert,
    AlertChange,
    AlertSeverity,
    AlertStatus,
    Event,
    EventBody,
    IngestAnswer,
    KeyedEventBody,
    Metric,
    MetricPoint,
    MetricsBody,
    Notification,
)

API = "/api/v1"
# Measured (benchmarks/delivery.py): larger batches or more connections gain nothing, level 6 costs thrice the time of
# level 1 for an eighth fewer bytes.
BATCH_RECORDS = 5_000
BATCH_CHARS = 2_000_000
CONNECTIONS = 4
IN_FLIGHT = 6
GZIP_LEVEL = 1
KEPT_REFUSALS = 20
LONGEST_KEY = 256


class IngestSummary(msgspec.Struct):
    """What became of a delivery.

    :param points: metric points that the hub has now; ``events`` likewise. Both include ``duplicates``.
    :param duplicates: those that it had before.
    :param rejected: records refused, by the hub or already here, where their JSON would say something else.
    :param calls: HTTP requests that were answered, not counting repetitions.
    :param bytes: of their bodies, as sent.
    :param refusals: the first of the rejected ones, each named with the reason.
    """

    points: int = 0
    events: int = 0
    duplicates: int = 0
    rejected: int = 0
    calls: int = 0
    bytes: int = 0
    refusals: list[str] = []

    def add(self, other: IngestSummary) -> None:
        """Count what became of another part of the delivery."""
        self.points += other.points
        self.events += other.events
        self.duplicates += other.duplicates
        self.rejected += other.rejected
        self.calls += other.calls
        self.bytes += other.bytes
        self.refusals += other.refusals[: KEPT_REFUSALS - len(self.refusals)]

    def refuse(self, what: str) -> None:
        """Count a refused record and keep the reason of the first ones."""
        self.rejected += 1
        if len(self.refusals) < KEPT_REFUSALS:
            self.refusals.append(what)


class _Changes(msgspec.Struct):
    changes: list[AlertChange]
    sequence: int


class AirisHook(ApiHook):
    """An AIRIS-MON hub.

    Extras of the connection beside :class:`~airflow_provider_airis.hooks.base.ApiHook`'s: ``compression`` (``gzip``,
    the default, or ``none``), ``consumer`` (whose place in the change feed is kept, ``airflow``) and
    ``dashboard_url`` (base of the links to the dashboard, if not the base URL).
    """

    conn_type = "airis"
    default_conn_name = "airis_default"
    hook_name = "AIRIS-MON"
    health_path = f"{API}/health"

    def check(self) -> str:
        """Ask for its health, then with the token for what it offers."""
        health = self.decode(self.request("GET", self.health_path, retry=False), dict[str, Any])
        try:
            version = self.capabilities(retry=False).get("version", "")
        except PermanentError as error:
            if error.status != 403:  # a token for ingest alone may not ask
                raise
            version = ""
        return f"{self.hook_name} {version} at {self.base_url} is {health.get('status', 'up')}, accepts the token"

    @property
    def consumer(self) -> str:
        """Whose place in the change feed is kept."""
        return str(self.extra.get("consumer") or "airflow")

    def dashboard_url(self, alert_id: str) -> str:
        """The page of an alert that notifications link to."""
        base = str(self.extra.get("dashboard_url") or self.base_url).rstrip("/")
        return f"{base}/dashboard?alert={quote(alert_id, safe='')}"

    def capabilities(self, *, retry: bool | None = None) -> dict[str, Any]:
        """What the hub offers, ``{"version", "capabilities": {…}}``; empty if it does not say."""
        try:
            return self.decode(self.request("GET", f"{API}/capabilities", retry=retry), dict[str, Any])
        except PermanentError as error:
            if error.status in (404, 405):
                return {}
            raise

    def ingest(self, records: Iterable[Metric | Event], *, delivery: str | None = None) -> IngestSummary:
        """Deliver metrics and events as they are yielded, a bounded number of them in memory.

        A point that the hub had already (same source, name, tags and timestamp) takes the value delivered last; so one
        delivery should yield a point once, since its batches travel side by side. An event is identified by its key.
        Records that JSON cannot carry (NaN, a tag that is no string …) and those that the hub refuses are counted in
        the summary, the first ones named with the reason; all others are stored nevertheless.

        :param delivery: names this delivery. Within the same one a batch that the hub has seen is not stored again, so
            a new delivery of newer values needs a new name; by default it gets one.
        :raises RetryableError: the hub did not take it, also after waiting. What it took is stored.
        :raises PermanentError: it refuses the delivery as a whole, e.g. the token.
        :raises Exception: whatever ``records`` raises, after what it had yielded before is delivered.
        """
        self.get_conn()
        with closing(_Delivery(self, delivery or uuid4().hex)) as this:
            return this.run(records)

    def event(self, event: Event) -> None:
        """Deliver one event.

        :raises PermanentError: the hub refuses it.
        """
        summary = self.ingest([event], delivery=event.key)
        if summary.rejected:
            raise PermanentError(
                f"{self.hook_name} (connection {self.conn_id}) refused the event {summary.refusals[0]}"
            )

    def alerts(
        self,
        *,
        status: AlertStatus | None = None,
        severity: AlertSeverity | None = None,
        model_id: str | None = None,
        limit: int = 500,
    ) -> Iterator[Alert]:
        """Yield the alerts, newest first, ``limit`` a page."""
        params = {"status": status, "severity": severity, "model_id": model_id, "limit": limit}
        for alert in self.pages(f"{API}/alerts", params=params, items="alerts"):
            yield self._converted(alert, Alert)

    def alert(self, alert_id: str) -> Alert:
        """One alert as it is now."""
        return self.decode(self.request("GET", f"{API}/alerts/{quote(alert_id, safe='')}"), Alert)

    def acknowledge(self, alert_id: str, by: str, comment: str = "") -> None:
        """Acknowledge an alert; doing it again changes nothing."""
        path = f"{API}/alerts/{quote(alert_id, safe='')}/acknowledge"
        self.request("POST", path, json={"by": by, "comment": comment}, retry=True)

    def resolve(self, alert_id: str) -> None:
        """Resolve an alert; doing it again changes nothing."""
        self.request("POST", f"{API}/alerts/{quote(alert_id, safe='')}/resolve", json={}, retry=True)

    def record_notification(self, alert_id: str, notification: Notification) -> None:
        """Write into the ledger where an alert was sent, under which reference, and in which state."""
        where = "/".join(quote(part, safe="") for part in (notification.channel, notification.target))
        body = {"reference": notification.reference, "status": notification.status, "at": notification.at}
        self.request("PUT", f"{API}/alerts/{quote(alert_id, safe='')}/notifications/{where}", json=body)

    def changes(
        self, *, consumer: str | None = None, after: int | None = None, limit: int = 500, wait: float = 0
    ) -> tuple[list[AlertChange], int]:
        """Read the change feed behind ``after``, or behind what ``consumer`` (the connection's unless named) committed.

        :param wait: seconds, at most 60, for which the hub holds an empty answer back until something changes.
        :return: the changes in order and the sequence up to which they were read.
        """
        response = self.request("GET", f"{API}/alerts/changes", **self._feed(consumer, after, limit, wait))
        page = self.decode(response, _Changes)
        return page.changes, page.sequence

    async def achanges(
        self, *, consumer: str | None = None, after: int | None = None, limit: int = 500, wait: float = 0
    ) -> tuple[list[AlertChange], int]:
        """As :meth:`changes`, from an event loop."""
        async with await self.asession() as client:
            response = await self.arequest(
                client, "GET", f"{API}/alerts/changes", **self._feed(consumer, after, limit, wait)
            )
        page = self.decode(response, _Changes)
        return page.changes, page.sequence

    def committed(self, consumer: str | None = None) -> int:
        """The sequence that a consumer committed last; 0 if never."""
        try:
            response = self.request("GET", f"{API}/consumers/{quote(consumer or self.consumer, safe='')}")
        except PermanentError as error:
            if error.status == 404:
                return 0
            raise
        return int(self.decode(response, dict[str, Any])["sequence"])

    def commit(self, consumer: str, sequence: int, *, force: bool = False) -> None:
        """Move a consumer's place forward; back only if ``force`` says so."""
        body = {"sequence": sequence, "force": True} if force else {"sequence": sequence}
        self.request("PUT", f"{API}/consumers/{quote(consumer, safe='')}", json=body)

    def query(
        self,
        name: str,
        *,
        start: int,
        end: int,
        source: str | None = None,
        tags: Mapping[str, str] | None = None,
        step: int | None = None,
        agg: str | None = None,
    ) -> list[dict[str, Any]]:
        """The points of a metric in ``[start, end)``, Unix ms.

        :param tags: only series that have these.
        :param step: seconds into which points are aggregated by ``agg``; without it they come as they are.
        :return: ``{source, name, unit, tags, points: [[timestamp, value], …]}`` a series.
        """
        params = {
            "name": name,
            "source": source,
            "from": start,
            "to": end,
            "tag": [f"{key}:{value}" for key, value in (tags or {}).items()] or None,
            "step": step,
            "agg": agg,
        }
        answer = self.decode(self.request("GET", f"{API}/metrics/query", params=params), dict[str, Any])
        return self._converted(answer.get("series"), list[dict[str, Any]])

    def coverage(
        self, *, start: int, end: int, source: str | None = None, name: str | None = None, step: int | None = None
    ) -> list[dict[str, Any]]:
        """Which windows of ``[start, end)`` hold points, Unix ms.

        :param step: seconds; windows are whole steps, by default minutes.
        :return: ``{source, name, tags, points, windows: [[from, to], …]}`` a series; ``points`` is how many.
        """
        params = {"source": source, "name": name, "from": start, "to": end, "step": step}
        answer = self.decode(self.request("GET", f"{API}/metrics/coverage", params=params), dict[str, Any])
        return self._converted(answer.get("series"), list[dict[str, Any]])

    def advice(self, status: int) -> str:
        """What somebody who reads the error can do about it."""
        if status == 403:
            return f"give the token of connection {self.conn_id} the scope for this (ingest, read, alerts or admin)"
        if status in (404, 405):
            return f"{super().advice(404)}; GET {API}/capabilities lists what this hub offers"
        if status == 415:
            return f"set compression of connection {self.conn_id} to none"
        return super().advice(status)

    def _feed(self, consumer: str | None, after: int | None, limit: int, wait: float) -> dict[str, Any]:
        if after is None:
            consumer = consumer or self.consumer
        params = {"consumer": consumer, "after": after, "limit": limit, "wait": wait or None}
        return {"params": params, "timeout": self._timeout_s + wait}

    def _converted(self, value: object, shape: type[T]) -> T:
        try:
            return msgspec.convert(value, shape)
        except msgspec.ValidationError as error:
            raise PermanentError(
                f"{self.hook_name} (connection {self.conn_id}) answered with something else than its API does ({error})"
            ) from error


def _plain(value: Any) -> Any:
    """What msgspec does not encode by itself: subclasses of str, float and int, e.g. numpy's or of Enum."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, int):
        return int(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


_encoder = msgspec.json.Encoder(enc_hook=_plain)
_metrics_line = msgspec.json.Decoder(MetricsBody)
_event_line = msgspec.json.Decoder(KeyedEventBody)


class _Batch(NamedTuple):
    """Records of one kind as the lines of a request."""

    number: int
    records: int
    lines: bytes
    events: bool

    def labels(self) -> list[str]:
        """Names of the records, in the order in which the hub counts them."""
        if self.events:
            bodies = map(_event_line.decode, self.lines.splitlines())
            return [_label(body.source, body.event_type, body.timestamp, body.idempotency_key) for body in bodies]
        return [
            _label(body.source, point.name, body.timestamp, point.tags)
            for body in map(_metrics_line.decode, self.lines.splitlines())
            for point in body.metrics
        ]

    def halves(self) -> tuple[_Batch, _Batch] | None:
        """Two batches that together are this one; nothing if it is a single record."""
        if self.records < 2:
            return None
        lines = self.lines.splitlines()
        if len(lines) == 1:
            body = _metrics_line.decode(lines[0])
            middle = len(body.metrics) // 2
            lines = [
                _encoder.encode(MetricsBody(body.timestamp, body.source, part))
                for part in (body.metrics[:middle], body.metrics[middle:])
            ]
        middle = len(lines) // 2
        first = self._replace(lines=b"\n".join(lines[:middle]))
        counted = middle if self.events else sum(len(_metrics_line.decode(line).metrics) for line in lines[:middle])
        second = self._replace(lines=b"\n".join(lines[middle:]), records=self.records - counted)
        return first._replace(records=counted), second


class _Delivery:
    """One call of :meth:`AirisHook.ingest`: groups records into batches and keeps a few of them on their way."""

    def __init__(self, hook: AirisHook, name: str) -> None:
        self.hook = hook
        self.name = name
        self.compress = hook.extra.get("compression") != "none"
        self.summary = IngestSummary()
        self.batches = 0
        self.one_by_one = False
        self.failure: BaseException | None = None
        self.lock = threading.Lock()
        self.pending: set[Future[IngestSummary]] = set()
        self.pool = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="airis-ingest")

    def close(self) -> None:
        """End the workers; batches that none has begun are dropped."""
        self.hook._stop.set()
        self.pool.shutdown(cancel_futures=True)
        self.hook._stop.clear()

    def run(self, records: Iterable[Metric | Event]) -> IngestSummary:
        """Deliver everything; the first error is raised once nothing is on its way any more."""
        errors: list[Exception] = []
        with closing(_until_it_raises(records, errors)) as source:
            self._group(source)
        while self.pending and self.failure is None:
            self._collect()
        if self.failure is not None:
            raise self.failure from (errors[0] if errors else None)
        if errors:
            raise errors[0]
        return self.summary

    def _group(self, records: Iterator[Metric | Event]) -> None:
        groups: dict[tuple[str, int], list[MetricPoint]] = {}
        events: list[bytes] = []
        count = chars = event_chars = 0
        for record in records:
            if self.failure is not None:
                return
            try:
                if isinstance(record, Metric):
                    point, size = _point(record)
                    groups.setdefault((record.source, record.timestamp), []).append(point)
                    count += 1
                    chars += size
                else:
                    events.append(_event(record))
                    event_chars += len(events[-1])
            except _RefusedError as error:
                self.summary.refuse(str(error))
            if count >= BATCH_RECORDS or chars >= BATCH_CHARS:
                self._submit(self._metrics, groups)
                groups, count, chars = {}, 0, 0
            if len(events) >= BATCH_RECORDS or event_chars >= BATCH_CHARS:
                self._submit(self._events, events)
                events, event_chars = [], 0
        if groups:
            self._submit(self._metrics, groups)
        if events:
            self._submit(self._events, events)

    def _submit(self, work: Callable[[int, Any], IngestSummary], records: Any) -> None:
        while len(self.pending) >= IN_FLIGHT and self.failure is None:
            self._collect()
        if self.failure is None:
            self.pending.add(self.pool.submit(self._guarded, work, self.batches, records))
            self.batches += 1

    def _collect(self) -> None:
        done, self.pending = wait(self.pending, return_when=FIRST_COMPLETED)
        for future in done:
            if future.exception() is None:
                self.summary.add(future.result())

    def _guarded(self, work: Callable[[int, Any], IngestSummary], number: int, records: Any) -> IngestSummary:
        try:
            return work(number, records)
        except BaseException as error:
            with self.lock:
                self.failure = self.failure or error
            self.hook._stop.set()
            raise

    def _metrics(self, number: int, groups: dict[tuple[str, int], list[MetricPoint]]) -> IngestSummary:
        summary = IngestSummary()
        bodies = [MetricsBody(timestamp, source, points) for (source, timestamp), points in groups.items()]
        try:
            lines = _encoder.encode_lines(bodies)
        except (TypeError, ValueError, OverflowError):
            bodies = list(_encodable(bodies, summary))
            lines = _encoder.encode_lines(bodies)
        count = sum(len(body.metrics) for body in bodies)
        if count:
            summary.add(self._send(_Batch(number, count, lines, events=False)))
        return summary

    def _events(self, number: int, lines: list[bytes]) -> IngestSummary:
        return self._send(_Batch(number, len(lines), b"\n".join(lines), events=True))

    def _send(self, batch: _Batch) -> IngestSummary:
        if self.one_by_one:
            return self._send_singly(batch)
        body, headers = batch.lines, {"Content-Type": "application/x-ndjson"}
        if self.compress:
            body = gzip.compress(body, GZIP_LEVEL, mtime=0)
            headers["Content-Encoding"] = "gzip"
        headers["Idempotency-Key"] = self._key(batch.number, body)
        path = f"{API}/events/batch" if batch.events else f"{API}/metrics/batch"
        try:
            response = self.hook.request("POST", path, content=body, headers=headers)
        except PermanentError as error:
            if error.status == 413:
                return self._halved(batch, error)
            if error.status not in (404, 405):
                raise
            with self.lock:
                if not self.one_by_one:
                    self.hook.log.warning("%s. Falling back to single calls, which are much slower", error)
                self.one_by_one = True
            return self._send_singly(batch)
        return self._judged(batch, self.hook.decode(response, IngestAnswer), len(body))

    def _send_singly(self, batch: _Batch) -> IngestSummary:
        """The four calls that every hub has: a body a request, not compressed, since only batches imply that."""
        summary = IngestSummary()
        for line in batch.lines.splitlines():
            if self.failure is not None:
                break
            if batch.events:
                event = _event_line.decode(line)
                one, path = batch._replace(records=1, lines=line), f"{API}/events/ingest"
                key = _header(event.idempotency_key)
                body = _encoder.encode(
                    EventBody(event.timestamp, event.event_type, event.source, event.severity, event.data)
                )
            else:
                one = batch._replace(records=len(_metrics_line.decode(line).metrics), lines=line)
                path, key, body = f"{API}/metrics/ingest", self._key(batch.number, line), line
            headers = {"Content-Type": "application/json", "Idempotency-Key": key}
            try:
                response = self.hook.request("POST", path, content=body, headers=headers)
            except PermanentError as error:
                if error.status != 413:
                    raise
                summary.add(self._halved(one, error))
                continue
            summary.add(self._judged(one, self._answer(response, one.records), len(body)))
        return summary

    def _answer(self, response: httpx2.Response, count: int) -> IngestAnswer:
        """A hub that has the single calls alone may answer 200 with any object, or nothing: it took all."""
        if not response.content.strip() or "accepted" not in self.hook.decode(response, dict[str, Any]):
            return IngestAnswer(accepted=count)
        return self.hook.decode(response, IngestAnswer)

    def _halved(self, batch: _Batch, error: PermanentError) -> IngestSummary:
        summary = IngestSummary()
        halves = batch.halves()
        if halves is None:
            summary.refuse(f"{batch.labels()[0]}: {error}")
        for half in halves or ():
            summary.add(self._send(half))
        return summary

    def _judged(self, batch: _Batch, answer: IngestAnswer, size: int) -> IngestSummary:
        summary = IngestSummary(calls=1, bytes=size, duplicates=answer.duplicates)
        if batch.events:
            summary.events = answer.accepted
        else:
            summary.points = answer.accepted
        if answer.accepted != batch.records or answer.rejected:
            labels = batch.labels()
            for refusal in answer.rejected:
                label = labels[refusal.index] if 0 <= refusal.index < len(labels) else f"record {refusal.index}"
                summary.refuse(f"{label}: {_member(refusal.pointer)}{refusal.detail}")
            # One refusal may stand for a whole line.
            missing = max(batch.records - answer.accepted, len(answer.rejected))
            if not answer.rejected:
                summary.refuse(
                    f"{missing} records from {labels[0]} on: the hub did not accept them and did not say why"
                )
            summary.rejected = missing
        return summary

    def _key(self, number: int, body: bytes) -> str:
        named = blake2b(f"{self.name}\n{number}\n".encode(), digest_size=16)
        named.update(body)
        return named.hexdigest()


def _until_it_raises(records: Iterable[Metric | Event], errors: list[Exception]) -> Generator[Metric | Event]:
    try:
        yield from records
    except Exception as error:  # noqa: BLE001  whatever it is, it is raised again after what came before is delivered
        errors.append(error)


class _RefusedError(Exception):
    """A record that JSON cannot carry: which, what of it, and why."""


def _point(metric: Metric) -> tuple[MetricPoint, int]:
    """The point and about how many characters it takes."""
    value, tags = metric.value, metric.tags
    try:
        # Joining refuses what is no string at a third of the cost of asking each.
        size = len("".join((metric.source, metric.name, metric.unit, *tags, *tags.values())))
        if type(value) is not float:
            value = _number(value)
    except (TypeError, AttributeError, OverflowError):
        raise _RefusedError(_fault(metric)) from None
    if value - value != 0.0 or type(metric.timestamp) is not int:
        raise _RefusedError(_fault(metric))
    return MetricPoint(metric.name, value, metric.unit, tags), size


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    return float(value)


def _fault(metric: Metric) -> str:
    """Which field JSON cannot carry, found the slow way."""
    label = _label(metric.source, metric.name, metric.timestamp, metric.tags)
    tags: object = metric.tags
    for field in ("source", "name", "unit"):
        if not isinstance(found := getattr(metric, field), str):
            return f"{label}: /{field}: {_short(found)} is no string"
    if not isinstance(tags, dict):
        return f"{label}: /tags: {_short(tags)} is no object"
    for key, tag in tags.items():
        if not isinstance(key, str):
            return f"{label}: /tags: the key {_short(key)} is no string"
        if not isinstance(tag, str):
            pointer = key.replace("~", "~0").replace("/", "~1")
            return f"{label}: /tags/{pointer}: {_short(tag)} is no string"
    if type(metric.timestamp) is not int:
        return f"{label}: /timestamp: {_short(metric.timestamp)} is no integer"
    return f"{label}: /value: {_short(repr(metric.value))} is no finite number"


def _encodable(bodies: list[MetricsBody], summary: IngestSummary) -> Iterator[MetricsBody]:
    for body in bodies:
        points = []
        for point in body.metrics:
            try:
                _encoder.encode(MetricsBody(body.timestamp, body.source, [point]))
            except (TypeError, ValueError, OverflowError) as error:
                summary.refuse(f"{_label(body.source, point.name, body.timestamp, point.tags)}: {error}")
            else:
                points.append(point)
        if points:
            yield MetricsBody(body.timestamp, body.source, points)


def _event(event: object) -> bytes:
    if not isinstance(event, Event):
        raise _RefusedError(f"{_short(event)}: neither a Metric nor an Event")
    label = _label(event.source, event.event_type, event.timestamp, event.key)
    if not event.key:
        raise _RefusedError(f"{label}: /key: an event needs a key, which identifies it")
    try:
        if pointer := _not_finite(event.data, "/data"):
            raise _RefusedError(f"{label}: {pointer}: no finite number")
        line = _encoder.encode(
            KeyedEventBody(event.timestamp, event.event_type, event.source, event.severity, event.data, event.key)
        )
        _event_line.decode(line)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise _RefusedError(f"{label}: {error}") from None
    return line


def _not_finite(value: object, pointer: str) -> str | None:
    """Where a number is that msgspec would encode as null."""
    if isinstance(value, float):
        return None if math.isfinite(value) else pointer
    if isinstance(value, Mapping):
        members: Iterable[tuple[object, object]] = value.items()
    elif isinstance(value, list | tuple | set | frozenset):
        members = enumerate(value)
    else:
        return None
    return next(filter(None, (_not_finite(member, f"{pointer}/{key}") for key, member in members)), None)


def _header(key: str) -> str:
    """An event's key as a header can carry it."""
    if key.isascii() and key.isprintable() and key == key.strip() and len(key) <= LONGEST_KEY:
        return key
    return blake2b(key.encode(), digest_size=16).hexdigest()


def _label(source: object, name: object, timestamp: object, identity: object) -> str:
    return f"{_short(source)} {_short(name)} at {timestamp} {_short(identity)}"


def _member(pointer: str) -> str:
    """What is left of a pointer into the request once the record itself is named."""
    member = re.sub(r"^/(batches/\d+/metrics|events|metrics)/\d+|^/batches/\d+", "", pointer)
    return f"{member}: " if member else ""


def _short(value: object, most: int = 200) -> str:
    text = (value if isinstance(value, str) else repr(value)).encode(errors="backslashreplace").decode()
    return text if len(text) <= most else f"{text[:most]}…"
