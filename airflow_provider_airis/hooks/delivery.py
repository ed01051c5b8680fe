"""How records reach the hub: grouped into batches, a bounded number of which are on their way over a few connections.

A batch is encoded once: whatever happens to it, the same bytes go out under the same key. It is put together from
records that JSON can carry, so that one that it cannot never costs the others; which those are is found here, since
an encoder would write NaN as null and a number among the tags as a number without a word.
"""

from __future__ import annotations

import gzip
import math
import re
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from airflow_provider_airis.errors import PermanentError
from airflow_provider_airis.records import (
    Event,
    EventBody,
    IngestAnswer,
    KeyedEventBody,
    Metric,
    MetricPoint,
    MetricsBody,
)

if TYPE_CHECKING:
    import httpx2

    from airflow_provider_airis.hooks.airis import AirisHook

API = "/api/v1"
# Measured (benchmarks/delivery.py): larger batches or more connections gain little, level 6 costs thrice the time of
# level 1 for a fifth fewer bytes.
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


class Delivery:
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
        self.stop = threading.Event()
        self.pool = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="airis-ingest")
        self.singles = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="airis-ingest-singly")

    def close(self) -> None:
        """End the workers; batches that none has begun are dropped."""
        self.stop.set()
        self.pool.shutdown(cancel_futures=True)
        self.singles.shutdown()

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
            response = self.hook.request("POST", path, content=body, headers=headers, stop=self.stop)
        except PermanentError as error:
            if error.status == 413:
                return self._halved(batch, error, self._send)
            if error.status not in (404, 405):
                raise
            with self.lock:
                if not self.one_by_one:
                    self.hook.log.warning("%s. Falling back to single calls, which are much slower", error)
                self.one_by_one = True
            return self._send_singly(batch)
        return self._judged(batch, self.hook.decode(response, IngestAnswer), len(body))

    def _send_singly(self, batch: _Batch) -> IngestSummary:
        """The calls that every hub has: a body a request, not compressed, since only batches imply that.

        Several are on their way at a time, over as many connections as batches would take.
        """
        lines = batch.lines.splitlines()
        size = -(-len(lines) // CONNECTIONS)
        parts = [lines[start : start + size] for start in range(0, len(lines), size)]
        # What one part cannot send the others need not try.
        given_up = threading.Event()
        sent = [self.singles.submit(self._send_lines, batch, part, given_up) for part in parts]
        wait(sent)
        summary = IngestSummary()
        for future in sent:
            summary.add(future.result())
        return summary

    def _send_lines(self, batch: _Batch, lines: list[bytes], given_up: threading.Event) -> IngestSummary:
        summary = IngestSummary()
        try:
            for line in lines:
                if self.failure is not None or given_up.is_set():
                    break
                summary.add(self._send_line(batch, line, given_up))
        except BaseException:
            given_up.set()
            raise
        return summary

    def _send_line(self, batch: _Batch, line: bytes, given_up: threading.Event) -> IngestSummary:
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
            response = self.hook.request("POST", path, content=body, headers=headers, stop=self.stop)
        except PermanentError as error:
            if error.status != 413:
                raise
            return self._halved(one, error, lambda half: self._send_lines(half, half.lines.splitlines(), given_up))
        return self._judged(one, self._answer(response, one.records), len(body))

    def _answer(self, response: httpx2.Response, count: int) -> IngestAnswer:
        """A hub that has the single calls alone may answer 200 with any object, or nothing: it took all."""
        if not response.content.strip() or "accepted" not in self.hook.decode(response, dict[str, Any]):
            return IngestAnswer(accepted=count)
        return self.hook.decode(response, IngestAnswer)

    def _halved(self, batch: _Batch, error: PermanentError, send: Callable[[_Batch], IngestSummary]) -> IngestSummary:
        summary = IngestSummary()
        halves = batch.halves()
        if halves is None:
            summary.refuse(f"{batch.labels()[0]}: {error}")
        for half in halves or ():
            summary.add(send(half))
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
