from __future__ import annotations

import gzip
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_airis.hub.ingest import MAX_BODY, Form, check_series, read_events, read_metrics, unpack
from airflow_provider_airis.hub.problems import Problem, escape

NOW = 1_800_000_000_000


class Series:
    """Gives each series an id, and keeps what identifies it."""

    def __init__(self) -> None:
        self.ids: dict[Any, int] = {}

    def resolve(self, source: str, name: str, unit: str, tags: bytes) -> int:
        key = source, name, unit, tuple(sorted(check_series(source, name, unit, tags).items()))
        return self.ids.setdefault(key, len(self.ids))


def read(document: bytes, form: Form = "single", series: Series | None = None) -> tuple[list[Any], list[Any]]:
    return read_metrics(document, form, NOW, {}, (series or Series()).resolve)


def point(**fields: Any) -> dict[str, Any]:
    return {"name": "latency", "value": 1.5, "unit": "ms", "tags": {"endpoint": "a"}} | fields


def body(*points: Any, **fields: Any) -> dict[str, Any]:
    return {"timestamp": NOW, "source": "s", "metrics": list(points)} | fields


@pytest.mark.parametrize(
    ("bad", "pointer", "words"),
    [
        (point(value="1"), "/value", "float"),
        (point(value=True), "/value", "float"),
        (point(value=float("nan")), "/value", "no finite number"),
        (point(value=float("-inf")), "/value", "no finite number"),
        (point(value=10**400), "/value", ""),
        (point(tags={"a/b~c": 1}), "/tags/a~1b~0c", "string"),
        (point(tags={"a": None, "value": float("nan")}), "/tags/a", "str"),
        (point(tags=[]), "/tags", "object"),
        (point(tags={"a": "x" * 1025}), "/tags/a", "1024"),
        (point(tags={"k" * 129: "x"}), f"/tags/{'k' * 129}", "128"),
        (point(tags={f"k{i}": "" for i in range(65)}), "/tags", "64"),
        (point(tags={"a": "\0"}), "/tags/a", "NUL"),
        (point(name=""), "/name", "1 to 256"),
        (point(name="x" * 257), "/name", "1 to 256"),
        (point(name="\ud800"), "", "Unicode"),
        (point(unit="x" * 257), "/unit", "256"),
        (point(more=1), "/more", "unknown"),
        ({"name": "latency", "unit": "", "tags": {}}, "/value", "missing"),
        (5, "", "object"),
    ],
)
def test_one_bad_point_is_refused_with_its_place_and_loses_no_other(bad: Any, pointer: str, words: str) -> None:
    documents: list[tuple[Form, Any, str, int]] = [
        ("single", json.dumps(body(point(), bad, point())), "", 1),
        ("batch", json.dumps({"batches": [body(point()), body(point(), bad, point())]}), "/batches/1", 2),
        ("lines", "\n".join(map(json.dumps, [body(point()), body(point(), bad, point())])) + "\n", "/batches/1", 2),
    ]
    for form, document, prefix, index in documents:
        rows, refusals = read(document.encode(), form)
        assert rows == [(0, NOW, 1.5)] * (index + 1), form
        assert [(refusal.index, refusal.pointer) for refusal in refusals] == [(index, f"{prefix}/metrics/1{pointer}")]
        assert words in refusals[0].detail


@pytest.mark.parametrize(
    ("fields", "pointer", "words"),
    [
        ({"timestamp": NOW + 600_001}, "/timestamp", "ahead"),
        ({"timestamp": 2**70}, "/timestamp", "ahead"),
        ({"timestamp": -1}, "/timestamp", "1970"),
        ({"source": "x" * 257}, "/source", "256"),
        ({"source": ""}, "/source", "256"),
    ],
)
@pytest.mark.parametrize("extra", [[], [point(value=None)]], ids=["fast", "loose"])
def test_what_is_wrong_with_a_body_refuses_its_points_only(
    fields: dict[str, Any], pointer: str, words: str, extra: list[Any]
) -> None:
    lines = [body(point()), body(point(), point(), **fields), body(point(), *extra)]
    rows, refusals = read("\n".join(map(json.dumps, lines)).encode(), "lines")
    assert len(rows) == 2
    assert [(r.index, r.pointer) for r in refusals[:2]] == [(1, f"/batches/1{pointer}"), (2, f"/batches/1{pointer}")]
    assert words in refusals[0].detail


def test_future_within_ten_minutes_is_taken() -> None:
    assert read(json.dumps(body(point(), timestamp=NOW + 600_000)).encode()) == ([(0, NOW + 600_000, 1.5)], [])


@pytest.mark.parametrize(
    ("line", "records", "words"),
    [
        (b"{", 1, "no JSON"),
        (b"\xff", 1, "no JSON"),
        (b"[" * 100_000, 1, "no JSON"),
        (b'{"a": 1}', 1, "unknown"),
        (b"[]", 1, "object"),
        (json.dumps(body(point(), point(), source=5)).encode(), 2, "/source"),
    ],
)
def test_a_bad_line_is_one_refusal_and_keeps_the_others(line: bytes, records: int, words: str) -> None:
    good = json.dumps(body(point(), point())).encode()
    bad_point = json.dumps(body(point(value=None))).encode()
    rows, refusals = read(b"\n".join([good, line, b"", bad_point, good]), "lines")
    assert len(rows) == 4
    assert [(r.index, r.pointer) for r in refusals] == [
        (2, "/batches/1"),
        (2 + records, "/batches/2/metrics/0/value"),
    ]
    assert words in refusals[0].detail


@pytest.mark.parametrize(
    ("document", "form", "pointer"),
    [
        (b"", "single", ""),
        (b"{", "single", ""),
        (b"[]", "single", ""),
        (b"{}", "single", "/timestamp"),
        (json.dumps(body(timestamp="1")).encode(), "single", "/timestamp"),
        (json.dumps(body(metrics={})).encode(), "single", "/metrics"),
        (json.dumps(body(more=1)).encode(), "single", "/more"),
        (b"{}", "batch", "/batches"),
        (b"{", "batch", ""),
        (b'{"batches": NaN}', "batch", "/batches"),
    ],
)
def test_no_document_at_all(document: bytes, form: Form, pointer: str) -> None:
    with pytest.raises(Problem) as caught:
        read(document, form)
    assert caught.value.status == 400
    assert [error.pointer for error in caught.value.errors] == [pointer]


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
POINTS = st.builds(
    point,
    name=TEXT.filter(bool),
    value=st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**70), 2**70),
    unit=TEXT,
    tags=st.dictionaries(TEXT.filter(bool), TEXT, max_size=4),
)


@given(st.lists(POINTS, max_size=5), st.booleans())
def test_both_ways_of_reading_agree(points: list[dict[str, Any]], ascii_only: bool) -> None:
    series = Series()
    rows, refusals = read(json.dumps(body(*points), ensure_ascii=ascii_only).encode(), series=series)
    assert not refusals
    assert [(timestamp, value) for _, timestamp, value in rows] == [(NOW, float(p["value"])) for p in points]
    loosely, refusals = read(json.dumps(body(*points, None)).encode(), series=series)
    assert loosely == rows
    assert [refusal.pointer for refusal in refusals] == [f"/metrics/{len(points)}"]


@given(st.binary(max_size=60), st.sampled_from(["single", "batch", "lines"]))
def test_any_bytes_are_refused_or_taken(document: bytes, form: Form) -> None:
    for reader in (read, lambda content, form: read_events(content, form, NOW, None)):
        with suppress(Problem):
            reader(document, form)


def event(**fields: Any) -> dict[str, Any]:
    return {"timestamp": NOW, "event_type": "login", "source": "s", "severity": "info", "data": {"n": 2**70}} | fields


@pytest.mark.parametrize(
    ("bad", "pointer"),
    [
        (event(severity="bad"), "/severity"),
        (event(timestamp=NOW + 600_001), "/timestamp"),
        (event(data=[]), "/data"),
        (event(source="x" * 257), "/source"),
        (event(event_type=""), "/event_type"),
        (event(idempotency_key="x" * 257), "/idempotency_key"),
        (event(more=1), "/more"),
        (event(data={"value": float("nan")}), ""),
        ("x", ""),
    ],
)
def test_one_bad_event_loses_no_other(bad: Any, pointer: str) -> None:
    events = [event(idempotency_key="a"), bad, event()]
    for form, document in (
        ("batch", json.dumps({"events": events})),
        ("lines", "\n".join(map(json.dumps, events))),
    ):
        rows, refusals = read_events(document.encode(), form, NOW, None)  # type: ignore[arg-type]
        assert [(refusal.index, refusal.pointer) for refusal in refusals] == [(1, f"/events/1{pointer}")]
        assert rows[0].key == "a"
        assert len({row.key for row in rows}) == 2
        assert json.loads(rows[0].data) == {"n": 2**70}


def test_an_event_is_filed_under_its_category() -> None:
    document = json.dumps(event(data={"category": "security"})).encode()
    rows, _ = read_events(document, "single", NOW, "key")
    assert (rows[0].category, rows[0].key) == ("security", "key")


def test_unpack() -> None:
    assert unpack(b"plain", "") == b"plain"
    assert unpack(gzip.compress(b"one ") + gzip.compress(b"two"), "gzip") == b"one two"
    assert len(unpack(gzip.compress(bytes(MAX_BODY)), "gzip")) == MAX_BODY


@pytest.mark.parametrize(
    ("content", "encoding", "status"),
    [
        (gzip.compress(bytes(MAX_BODY + 1)), "gzip", 413),
        (gzip.compress(bytes(MAX_BODY)) + gzip.compress(b"1", mtime=0), "gzip", 413),
        (gzip.compress(b"cut off", mtime=0)[:-4], "gzip", 400),
        (b"no gzip", "gzip", 400),
        (b"", "br", 415),
    ],
)
def test_unpack_refuses(content: bytes, encoding: str, status: int) -> None:
    with pytest.raises(Problem) as caught:
        unpack(content, encoding)
    assert caught.value.status == status


def test_pointers_are_escaped() -> None:
    assert escape("a/b~c") == "a~1b~0c"
