"""From a request's document to records: what is well formed is taken, a record that is not is refused with its place.

The common case decodes straight into structs, a point's tags staying undecoded bytes that are looked up as such; only a
body with something wrong in it is taken apart field by field.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable, Sequence
from typing import Any, Literal
from uuid import uuid4

import msgspec

from airflow_provider_airis.hub.problems import Problem, escape, explain
from airflow_provider_airis.records import EventSeverity, MetricPoint, Refusal

Form = Literal["single", "batch", "lines"]

MAX_BODY = 10 << 20
MAX_TEXT = 256
MAX_TAG_KEY = 128
MAX_TAG_VALUE = 1024
MAX_TAGS = 64
MAX_AHEAD_MS = 600_000


class _Point(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    name: str
    value: float
    unit: str
    tags: msgspec.Raw


class _Body(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    timestamp: int
    source: str
    metrics: list[_Point]


class _LooseBody(msgspec.Struct, forbid_unknown_fields=True):
    timestamp: int
    source: str
    metrics: list[Any]


class _MetricsBatch(msgspec.Struct, forbid_unknown_fields=True):
    batches: list[msgspec.Raw]


class _Event(msgspec.Struct, forbid_unknown_fields=True):
    timestamp: int
    event_type: str
    source: str
    severity: EventSeverity
    data: msgspec.Raw


class _KeyedEvent(_Event, forbid_unknown_fields=True):
    idempotency_key: str | None = None


class _EventsBatch(msgspec.Struct, forbid_unknown_fields=True):
    events: list[msgspec.Raw]


class EventRow(msgspec.Struct, frozen=True):
    """An event as it is stored. ``data`` is the JSON text that arrived."""

    timestamp: int
    event_type: str
    source: str
    severity: str
    data: str
    category: str | None
    key: str


class Refused(Exception):  # noqa: N818 (not an error of the hub's)
    """A record that cannot be taken. ``pointer`` starts at the record."""

    def __init__(self, pointer: str, detail: str) -> None:
        super().__init__(detail)
        self.pointer = pointer
        self.detail = detail


_body = msgspec.json.Decoder(_Body)
_metrics_batch = msgspec.json.Decoder(_MetricsBatch)
_events_batch = msgspec.json.Decoder(_EventsBatch)
_event = msgspec.json.Decoder(_Event)
_keyed_event = msgspec.json.Decoder(_KeyedEvent)
_tags = msgspec.json.Decoder(dict[str, str])
_object = msgspec.json.Decoder(dict[str, Any])

SeriesKey = tuple[str, str, bytes]
Row = tuple[int, int, float]
_UNKNOWN: tuple[int, str | None] = (0, None)


def unpack(content: bytes, encoding: str) -> bytes:
    """The document behind a ``Content-Encoding``.

    :raises Problem: 413 beyond ``MAX_BODY``, 400 for a broken stream, 415 for another encoding.
    """
    if encoding in ("", "identity"):
        return content
    if encoding != "gzip":
        detail = f"Content-Encoding {encoding!r} is not offered: use gzip"
        raise Problem(415, detail, headers={"Accept-Encoding": "gzip"})
    document = b""
    try:
        while content:
            stream = zlib.decompressobj(wbits=31)
            document += stream.decompress(content, MAX_BODY + 1 - len(document))
            if len(document) > MAX_BODY:
                raise too_large()
            if not stream.eof:
                raise Problem(400, "the gzip stream ends in its middle")
            content = stream.unused_data
    except zlib.error as error:
        raise Problem(400, f"the body is no gzip stream: {error}") from None
    return document


def too_large() -> Problem:
    """The answer to a body over ``MAX_BODY``."""
    return Problem(413, f"a body may have {MAX_BODY >> 20} MiB, decompressed: send smaller batches")


def read_metrics(
    document: bytes,
    form: Form,
    now: int,
    known: dict[SeriesKey, tuple[int, str]],
    resolve: Callable[[str, str, str, bytes], int],
) -> tuple[list[Row], list[Refusal]]:
    """Rows ``(series id, timestamp, value)`` of a metrics document, and what was refused.

    :param known: (source, name, undecoded tags) → id and unit of series that need no check any more.
    :param resolve: checks a series' source, name, unit and undecoded tags and gives its id, or raises :class:`Refused`.
    :raises Problem: 400, the document is none.
    """
    rows: list[Row] = []
    refusals: list[Refusal] = []
    index = 0
    for number, line in enumerate(_split(document, form, _metrics_batch, "batches")):
        prefix = "" if form == "single" else f"/batches/{number}"
        try:
            body = _body.decode(line)
        except (msgspec.MsgspecError, RecursionError):
            index = _read_loosely(line, form, prefix, index, now, resolve, rows, refusals)
            continue
        timestamp, source = body.timestamp, body.source
        if reason := _bad_time(timestamp, now):
            refusals += [Refusal(index + i, f"{prefix}/timestamp", reason) for i in range(len(body.metrics))]
            index += len(body.metrics)
            continue
        for i, point in enumerate(body.metrics):
            tags = bytes(point.tags)
            series, unit = known.get((source, point.name, tags), _UNKNOWN)
            if unit != point.unit:
                try:
                    series = resolve(source, point.name, point.unit, tags)
                except Refused as refused:
                    refusals.append(_refusal(index + i, prefix, i, refused))
                    continue
            rows.append((series, timestamp, point.value))
        index += len(body.metrics)
    return rows, refusals


def _read_loosely(
    line: bytes | msgspec.Raw,
    form: Form,
    prefix: str,
    index: int,
    now: int,
    resolve: Callable[[str, str, str, bytes], int],
    rows: list[Row],
    refusals: list[Refusal],
) -> int:
    """Point by point, for a body that is not as it should be: the index behind it."""
    content: Any = None
    try:
        # Unlike msgspec this takes the NaN and Infinity that many senders write, so that only their points are refused.
        content = json.loads(bytes(line))
        body = msgspec.convert(content, _LooseBody)
    except (ValueError, RecursionError) as error:
        pointer, detail = explain(error) if isinstance(error, msgspec.ValidationError) else ("", "this is no JSON")
        if form == "single":
            raise Problem(400, detail, pointer=pointer) from None
        refusals.append(Refusal(index, prefix, f"{detail} ({pointer})" if pointer else detail))
        metrics = content.get("metrics") if isinstance(content, dict) else None
        return index + (max(1, len(metrics)) if isinstance(metrics, list) else 1)
    reason = _bad_time(body.timestamp, now)
    for i, content in enumerate(body.metrics):
        if reason:
            refusals.append(Refusal(index + i, f"{prefix}/timestamp", reason))
            continue
        try:
            point = _convert_point(content)
            tags = msgspec.json.encode(point.tags)
            rows.append((resolve(body.source, point.name, point.unit, tags), body.timestamp, point.value))
        except Refused as refused:
            refusals.append(_refusal(index + i, prefix, i, refused))
    return index + len(body.metrics)


def _refusal(index: int, prefix: str, place: int, refused: Refused) -> Refusal:
    inside = "" if refused.pointer == "/source" else f"/metrics/{place}"
    return Refusal(index, f"{prefix}{inside}{refused.pointer}", refused.detail)


def _convert_point(content: Any) -> MetricPoint:
    try:
        point = msgspec.convert(content, MetricPoint)
    except (msgspec.ValidationError, OverflowError) as error:
        pointer, detail = explain(error)
        if pointer == "/tags" and isinstance(content["tags"], dict):
            pointer += next((f"/{escape(k)}" for k, v in content["tags"].items() if not isinstance(v, str)), "")
        raise Refused(pointer, detail) from None
    if not math.isfinite(point.value):
        raise Refused("/value", f"{point.value} is no finite number")
    try:
        json.dumps([point.name, point.unit, point.tags], ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise Refused("", "it holds text that is no Unicode") from None
    return point


def check_series(source: str, name: str, unit: str, tags: bytes) -> dict[str, str]:
    """The tags of a series that may be stored.

    :raises Refused: with the field and the limit.
    """
    _check_text("/source", source, 1)
    _check_text("/name", name, 1)
    _check_text("/unit", unit, 0)
    try:
        decoded = _tags.decode(tags)
    except msgspec.ValidationError:
        content = msgspec.json.decode(tags)
        if not isinstance(content, dict):
            raise Refused("/tags", "tags are an object of strings") from None
        key = next(key for key, value in content.items() if not isinstance(value, str))
        raise Refused(f"/tags/{escape(key)}", "a tag's value is a string") from None
    if len(decoded) > MAX_TAGS:
        raise Refused("/tags", f"{len(decoded)} tags, at most {MAX_TAGS} are kept")
    for key, value in decoded.items():
        pointer = f"/tags/{escape(key)}"
        if not 1 <= len(key) <= MAX_TAG_KEY:
            raise Refused(pointer, f"a tag's key has 1 to {MAX_TAG_KEY} characters, this one {len(key)}")
        if len(value) > MAX_TAG_VALUE:
            raise Refused(pointer, f"a tag's value has at most {MAX_TAG_VALUE} characters, this one {len(value)}")
        if "\0" in key or "\0" in value:
            raise Refused(pointer, "it holds a NUL character")
    return decoded


def _check_text(pointer: str, value: str, least: int) -> None:
    if not least <= len(value) <= MAX_TEXT:
        raise Refused(pointer, f"it has {least} to {MAX_TEXT} characters, this one {len(value)}")
    if "\0" in value:
        raise Refused(pointer, "it holds a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Refused(pointer, "it holds text that is no Unicode") from None


def _bad_time(timestamp: int, now: int) -> str | None:
    if timestamp < 0:
        return f"{timestamp} is before 1970"
    if timestamp > now + MAX_AHEAD_MS:
        return f"{timestamp} is more than {MAX_AHEAD_MS // 60_000} minutes ahead of the hub's clock, {now}"
    return None


def read_events(document: bytes, form: Form, now: int, header_key: str | None) -> tuple[list[EventRow], list[Refusal]]:
    """The events of a document, and what was refused.

    :param header_key: the key of a single event.
    :raises Problem: 400, the document is none.
    """
    rows: list[EventRow] = []
    refusals: list[Refusal] = []
    decoder: msgspec.json.Decoder[Any] = _event if form == "single" else _keyed_event
    for index, line in enumerate(_split(document, form, _events_batch, "events")):
        prefix = "" if form == "single" else f"/events/{index}"
        try:
            rows.append(_read_event(line, decoder, now, header_key))
        except (msgspec.MsgspecError, RecursionError, OverflowError) as error:
            pointer, detail = explain(error)
            if form == "single":
                raise Problem(400, detail, pointer=pointer) from None
            refusals.append(Refusal(index, prefix + pointer, detail))
        except Refused as refused:
            refusals.append(Refusal(index, prefix + refused.pointer, refused.detail))
    return rows, refusals


def _read_event(
    line: bytes | msgspec.Raw, decoder: msgspec.json.Decoder[Any], now: int, header_key: str | None
) -> EventRow:
    event = decoder.decode(line)
    if reason := _bad_time(event.timestamp, now):
        raise Refused("/timestamp", reason)
    _check_text("/event_type", event.event_type, 1)
    _check_text("/source", event.source, 1)
    key = getattr(event, "idempotency_key", None) or header_key
    if key is not None:
        _check_text("/idempotency_key", key, 1)
    try:
        category = _object.decode(event.data).get("category")
    except msgspec.ValidationError:
        raise Refused("/data", "data is an object") from None
    return EventRow(
        event.timestamp,
        event.event_type,
        event.source,
        event.severity,
        bytes(event.data).decode(),
        category if isinstance(category, str) else None,
        key or uuid4().hex,
    )


def _split(
    document: bytes, form: Form, batch: msgspec.json.Decoder[Any], field: str
) -> Sequence[bytes] | Sequence[msgspec.Raw]:
    if form == "single":
        return [document]
    if form == "lines":
        return [line for line in document.split(b"\n") if line.strip()]
    try:
        lines: list[msgspec.Raw] = getattr(batch.decode(document), field)
    except msgspec.ValidationError as error:
        pointer, detail = explain(error)
        raise Problem(400, detail, pointer=pointer) from None
    except (msgspec.DecodeError, RecursionError):
        # One NaN anywhere makes this no JSON, though only one of its records is bad.
        return [json.dumps(line).encode() for line in _tolerantly(document, field)]
    return lines


def _tolerantly(document: bytes, field: str) -> list[Any]:
    try:
        lines = json.loads(document)[field]
    except (ValueError, RecursionError, LookupError, TypeError):
        raise Problem(400, "the body is no JSON", pointer="") from None
    if not isinstance(lines, list):
        raise Problem(400, f"{field} is a list", pointer=f"/{field}")
    return lines
