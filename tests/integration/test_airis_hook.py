"""The hub's client against the hub, in a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import pytest
import time_machine

from airflow_provider_airis.errors import PermanentError
from airflow_provider_airis.hooks import delivery as module
from airflow_provider_airis.hooks.airis import AirisHook
from airflow_provider_airis.records import Event, Metric, Notification
from sandbox.faults import Fault, FaultProxy

DAY = 86_400_000
START = (int(time.time() * 1000) - 30 * DAY) // 60_000 * 60_000
_sources = count()


@pytest.fixture
def source() -> str:
    """A source of the test's own, since the hub is the module's."""
    return f"test-{next(_sources)}"


@pytest.fixture
def hook(airis: str) -> Iterator[AirisHook]:
    with AirisHook(airis) as hook:
        yield hook


def point(source: str, **fields: Any) -> Metric:
    return Metric(
        **{
            "source": source,
            "name": "latency",
            "value": 1.0,
            "unit": "Microseconds",
            "tags": {"region": "r"},
            "timestamp": START,
        }
        | fields
    )


def points(source: str, number: int, *, add: float = 0) -> Iterator[Metric]:
    """Points of seven series, one a minute each."""
    for i in range(number):
        yield point(source, value=i + add, tags={"variant": str(i % 7)}, timestamp=START + i // 7 * 60_000)


def stored(hook: AirisHook, source: str, name: str = "latency") -> list[float]:
    """All values that the hub holds of a source, sorted."""
    found = hook.query(name, source=source, start=START - DAY, end=START + 30 * DAY)
    return sorted(value for series in found for _, value in series["points"])


def happened(hook: AirisHook, source: str) -> list[dict[str, Any]]:
    """The events of a source that the hub holds."""
    changes = json.loads(hook.request("GET", "/api/v1/events/changes", params={"limit": 5000}).content)["changes"]
    return [change["event"] for change in changes if change["event"]["source"] == source]


def alert(hook: AirisHook, name: str, **fields: Any) -> str:
    body = {"name": name, "severity": "high", "source": "test", "fingerprint": name} | fields
    return str(json.loads(hook.request("POST", "/api/v1/alerts", json=body, retry=True).content)["id"])


def test_a_stream_arrives_whole(hook, source):
    summary = hook.ingest(points(source, 12_345))
    assert (summary.points, summary.events, summary.duplicates, summary.rejected) == (12_345, 0, 0, 0)
    assert summary.calls == 3
    assert summary.bytes < 12_345 * 30
    assert stored(hook, source) == [float(i) for i in range(12_345)]


def test_metrics_and_events_mix(hook, source):
    def mixed() -> Iterator[Metric | Event]:
        for i, metric in enumerate(points(source, 30)):
            yield metric
            yield Event(
                "deployed", source, "info", START, {"number": i, "deep": {"list": [1, None, "x"]}}, f"{source}-{i}"
            )

    first, second = hook.ingest(mixed()), hook.ingest(mixed())
    assert (first.points, first.events, first.duplicates, first.calls) == (30, 30, 0, 2)
    assert (second.points, second.events, second.duplicates) == (30, 30, 60)
    events = happened(hook, source)
    assert [event["data"]["number"] for event in events] == list(range(30))
    assert events[0]["data"]["deep"] == {"list": [1, None, "x"]}


def test_nothing_is_a_delivery_too(hook):
    summary = hook.ingest([])
    assert (summary.points, summary.calls) == (0, 0)


def test_delivering_again_doubles_nothing_and_the_last_value_wins(hook, source):
    hook.ingest(points(source, 100))
    again = hook.ingest(points(source, 100))
    assert again.duplicates == 100
    hook.ingest(points(source, 100, add=1000))
    assert stored(hook, source) == [1000.0 + i for i in range(100)]
    # The very bytes of the first delivery: they win again, since a delivery of its own has keys of its own.
    hook.ingest(points(source, 100))
    assert stored(hook, source) == [float(i) for i in range(100)]


def test_the_same_delivery_sends_the_same_bytes_under_the_same_keys(hub, connect, source):
    with FaultProxy(hub.url) as proxy:
        connect("proxied", conn_type="airis", host=proxy.url, password=hub.token)
        with AirisHook("proxied") as hook:
            for hours, delivery in enumerate(("a", "a", "b")):
                with time_machine.travel(time.time() + 3600 * hours):  # a time in the bytes would show
                    hook.ingest(points(source, 11_000), delivery=delivery)
        sent = [(seen.headers["Idempotency-Key"], seen.body) for seen in proxy.seen]
    first, second, third = (set(sent[i : i + 3]) for i in (0, 3, 6))
    assert first == second
    assert len(first) == 3
    assert {body for _, body in third} == {body for _, body in first}
    assert not {key for key, _ in third} & {key for key, _ in first}


def test_what_json_cannot_carry_is_named_and_the_rest_is_stored(hook, source):
    bad: list[tuple[Any, str]] = [
        (point(source, value=float("nan")), "/value: nan is no finite number"),
        (point(source, value=float("-inf")), "/value: -inf"),
        (point(source, value=10**400), "/value: 1000"),
        (point(source, value=True), "/value: True"),
        (point(source, value="1"), "/value: '1'"),
        (point(source, tags={"a": 1}), "/tags/a: 1 is no string"),
        (point(source, tags={"a/b": None}), "/tags/a~1b: None"),
        (point(source, tags={1: "a"}), "/tags: the key 1 is no string"),
        (point(source, tags=None), "/tags: None is no object"),
        (point(source, tags={"a": "\ud800"}), "surrogates"),
        (point(source, name=None), "/name: None is no string"),
        (point(source, unit=3), "/unit: 3 is no string"),
        (point(source, timestamp=1.5), "/timestamp: 1.5 is no integer"),
        (Event("t", source, "fatal", START, {}, "k"), "Invalid enum value 'fatal'"),
        (Event("t", source, "info", START, {"a": [0, {"b": float("inf")}]}, "k"), "/data/a/1/b: no finite number"),
        (Event("t", source, "info", START, {"a": object()}, "k"), "object has no JSON form"),
        (Event("t", source, "info", START, {}, ""), "/key"),
        ("text", "neither a Metric nor an Event"),
    ]
    records = [*points(source, 10), *(record for record, _ in bad), Event("t", source, "info", START, {}, source)]
    summary = hook.ingest(records)
    assert (summary.points, summary.events, summary.rejected) == (10, 1, len(bad))
    for _, reason in bad:
        assert sum(reason in refusal for refusal in summary.refusals) == 1, (reason, summary.refusals)
    assert stored(hook, source) == [float(i) for i in range(10)]


def test_numbers_and_strings_of_other_classes_are_what_they_say(hook, source):
    class Number(float):
        pass

    class Text(str):
        __slots__ = ()

    summary = hook.ingest([point(source, value=Number(2.5)), point(source, value=3, tags={"a": Text("b")})])
    assert summary.rejected == 0
    assert stored(hook, source) == [2.5, 3.0]


def test_what_the_hub_refuses_is_named_and_the_rest_is_stored(hook, source):
    good = list(points(source, 10))
    bad = [
        (point(source, tags={"big": "x" * 10_240}), "/tags/big: "),
        (point(source, name=""), "/name: "),
        (point(source, timestamp=START + 400 * DAY), "/timestamp: "),
        (point(source, timestamp=10**20), "/timestamp: "),
        (Event("", source, "info", START, {}, "k"), "/event_type: "),
    ]
    summary = hook.ingest([*good[:5], *(record for record, _ in bad), *good[5:]])
    assert (summary.points, summary.events, summary.rejected) == (10, 0, len(bad))
    for record, field in bad:
        found = [refusal for refusal in summary.refusals if field in refusal and str(record.timestamp) in refusal]
        assert found, (field, summary.refusals)
        assert all(refusal.startswith(source) and len(refusal) < 1000 for refusal in found)
    assert stored(hook, source) == [float(i) for i in range(10)]


def test_every_refusal_counts_and_the_first_ones_are_kept(hook, source):
    summary = hook.ingest(point(source, timestamp=START + 400 * DAY + i) for i in range(6_000))
    assert (summary.points, summary.rejected, len(summary.refusals)) == (0, 6_000, module.KEPT_REFUSALS)


def test_what_came_before_an_error_of_the_source_is_delivered(hook, source):
    def breaking() -> Iterator[Metric]:
        yield from points(source, 7_000)
        raise LookupError("the source broke")

    with pytest.raises(LookupError, match="the source broke"):
        hook.ingest(breaking())
    assert stored(hook, source) == [float(i) for i in range(7_000)]


def test_a_record_that_is_too_large_is_refused_alone(hook, source):
    huge = Event("t", source, "info", START, {"text": "x" * (11 << 20)}, f"{source}-huge")
    small = [Event("t", source, "info", START, {"n": i}, f"{source}-{i}") for i in range(3)]
    summary = hook.ingest([*small, huge, *points(source, 3)])
    assert (summary.points, summary.events, summary.rejected) == (3, 3, 1)
    assert f"{source}-huge" in summary.refusals[0]
    assert "413" in summary.refusals[0]


def test_one_event(hook, source):
    event = Event("retrained", source, "warning", START, {"model": "m"}, f"{source} ünïcode")
    hook.event(event)
    hook.event(event)
    assert [event["data"] for event in happened(hook, source)] == [{"model": "m"}]
    with pytest.raises(PermanentError, match="/event_type"):
        hook.event(Event("", source, "info", START, {}, "k"))


def test_without_compression(hub, connect, source):
    connect("plain", conn_type="airis", host=hub.url, password=hub.token, extra={"compression": "none"})
    with AirisHook("plain") as hook:
        assert hook.ingest(points(source, 1_000)).bytes > 50_000
        assert stored(hook, source) == [float(i) for i in range(1_000)]


def test_coverage_tells_which_windows_hold_points(hook, source):
    hook.ingest(point(source, timestamp=START + minute * 60_000) for minute in (0, 1, 2, 5))
    (series,) = hook.coverage(source=source, start=START, end=START + 600_000)
    assert series["windows"] == [[START, START + 180_000], [START + 300_000, START + 360_000]]


def test_a_query_narrows(hook, source):
    hook.ingest(points(source, 70))
    hook.ingest([point(source, name="other")])
    (series,) = hook.query("latency", source=source, tags={"variant": "3"}, start=START, end=START + 2 * 60_000)
    assert (series["tags"], series["unit"]) == ({"variant": "3"}, "Microseconds")
    assert series["points"] == [[START, 3.0], [START + 60_000, 10.0]]
    (series,) = hook.query("other", source=source, start=START, end=START + 60_000, step=60, agg="max")
    assert series["points"] == [[START, 1.0]]


def test_alerts_are_listed_page_by_page(hook):
    raised = {alert(hook, f"paged-{i}", severity="low") for i in range(7)}
    assert {found.id for found in hook.alerts(severity="low", limit=2)} == raised
    assert all(found.status == "firing" for found in hook.alerts(status="firing", limit=3))


def test_an_alert_goes_its_way(hook):
    alert_id = alert(hook, "way")
    assert hook.alert(alert_id).status == "firing"
    for _ in range(2):
        hook.acknowledge(alert_id, "ada", "looking")
    found = hook.alert(alert_id)
    assert (found.status, found.acknowledged_by) == ("acknowledged", "ada")
    sent = Notification("slack", "#alerts/ü", "C1:1.2", "acknowledged", found.updated_at)
    hook.record_notification(alert_id, sent)
    assert hook.alert(alert_id).notifications == [sent]
    for _ in range(2):
        hook.resolve(alert_id)
    assert hook.alert(alert_id).status == "resolved"
    assert hook.dashboard_url(alert_id) == f"{hook.base_url}/dashboard?alert={alert_id}"


def test_a_missing_alert_is_a_permanent_error_that_says_so(hook):
    with pytest.raises(PermanentError, match="no-such-alert") as failure:
        hook.alert("no-such-alert")
    assert failure.value.status == 404


def test_the_feed_is_read_and_committed(hook):
    _, before = hook.changes(limit=5000)
    alert_id = alert(hook, "feed")
    hook.resolve(alert_id)
    changes, last = hook.changes(after=before)
    assert [(change.change, change.alert.id) for change in changes] == [("fired", alert_id), ("resolved", alert_id)]
    assert last == changes[-1].sequence
    assert hook.changes(after=last) == ([], last)
    assert hook.committed("reader") == 0
    hook.commit("reader", changes[0].sequence)
    assert hook.committed("reader") == changes[0].sequence
    assert [change.change for change in hook.changes(consumer="reader")[0]] == ["resolved"]
    hook.commit("reader", 0)
    assert hook.committed("reader") == changes[0].sequence
    hook.commit("reader", 0, force=True)
    assert hook.committed("reader") == 0


def test_the_feed_page_by_page_loses_nothing(hook):
    _, after = hook.changes(limit=5000)
    raised = [alert(hook, f"lossless-{i}") for i in range(9)]
    read: list[str] = []
    while True:
        changes, after = hook.changes(after=after, limit=4)
        if not changes:
            break
        read += [change.alert.id for change in changes]
    assert read == raised


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_long_poll_ends_with_the_change(airis, hook, asynchronous):
    _, last = hook.changes(limit=5000)
    waiting = AirisHook(airis)
    ask: Callable[[], Any] = lambda: waiting.changes(after=last, wait=50)  # noqa: E731
    if asynchronous:
        ask = lambda: asyncio.run(waiting.achanges(after=last, wait=50))  # noqa: E731
    began = time.monotonic()
    with ThreadPoolExecutor(1) as pool, waiting:
        answer = pool.submit(ask)
        alert_id = alert(hook, f"poll-{asynchronous}")
        changes, sequence = answer.result(40)
    assert [change.alert.id for change in changes] == [alert_id]
    assert sequence > last
    assert time.monotonic() - began < 40


def test_capabilities_and_the_connections_words(hub, connect, hook):
    assert hook.capabilities()["capabilities"]["metrics.batch"] is True
    assert hook.consumer == "airflow"
    connect("worded", conn_type="airis", host=hub.url, extra={"consumer": "c", "dashboard_url": "https://d.example/x/"})
    assert AirisHook("worded").consumer == "c"
    assert AirisHook("worded").dashboard_url("a/b c") == "https://d.example/x/dashboard?alert=a%2Fb%20c"


def test_airflow_makes_the_hook_from_a_connection(airis):
    made = AirisHook.get_hook(airis)
    assert isinstance(made, AirisHook)
    assert made.test_connection()[0]


def test_deliveries_side_by_side_on_one_hook_leave_each_other_alone(hub, connect, source):
    with FaultProxy(hub.url) as proxy:
        proxy.order(Fault("status", status=503, retry_after=1, path="/metrics/batch", times=2))
        connect("proxied", conn_type="airis", host=proxy.url, password=hub.token)
        with AirisHook("proxied") as hook, ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(hook.ingest, points(source, 10))
            until(lambda: proxy.seen)
            # One that ends while the other waits for its next attempt.
            hook.event(Event("t", source, "info", START, {}, source))
            assert waiting.result(20).points == 10
            assert stored(hook, source) == [float(i) for i in range(10)]


def test_the_source_is_not_pulled_beyond_what_is_on_its_way(httpserver, connect):
    release, pulled = threading.Event(), []

    def hold(_request: Any) -> Any:
        from werkzeug import Response

        release.wait(30)
        return Response('{"accepted": 5000}', content_type="application/json")

    httpserver.expect_request("/api/v1/metrics/batch").respond_with_handler(hold)
    connect("held", conn_type="airis", host=httpserver.url_for("/"))

    def counted() -> Iterator[Metric]:
        for metric in points("s", 20 * module.BATCH_RECORDS):
            pulled.append(None)
            yield metric

    # In flight, and one more that is being grouped.
    most = (module.IN_FLIGHT + 1) * module.BATCH_RECORDS
    with ThreadPoolExecutor(1) as pool, AirisHook("held") as hook:
        delivery = pool.submit(hook.ingest, counted())
        try:
            until(lambda: len(pulled) >= most)
            time.sleep(0.3)  # time enough to pull on, if nothing held it
            assert len(pulled) == most
        finally:
            release.set()
        assert delivery.result(30).points == 20 * module.BATCH_RECORDS


DELIVER = """
import sys
from airflow_provider_airis.hooks.airis import AirisHook
from tests.integration.test_airis_hook import points
source, number, start = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
import tests.integration.test_airis_hook as test
test.START = start
AirisHook("proxied").ingest(points(source, number), delivery="killed")
"""


def test_a_delivery_that_is_killed_in_its_middle_and_repeated(hub, hook, connect, source):
    number = 200_000
    with FaultProxy(hub.url) as proxy:
        connect("proxied", conn_type="airis", host=proxy.url, password=hub.token)
        process = subprocess.Popen([sys.executable, "-c", DELIVER, source, str(number), str(START)])
        try:
            until(lambda: len(proxy.seen) >= 8 or process.poll() is not None, 60)
        finally:
            os.kill(process.pid, signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL, "it had ended before"
    there = len(stored(hook, source))
    assert 0 < there < number
    # Airflow runs the task again: another try is another delivery.
    summary = hook.ingest(points(source, number), delivery="again")
    assert summary.points == number
    assert summary.duplicates >= there
    assert stored(hook, source) == [float(i) for i in range(number)]


def until(condition: Callable[[], object], timeout: float = 30) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
