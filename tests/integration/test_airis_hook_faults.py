"""What the hub's client does when something fails: through a proxy that fails as told, or with the hub killed.

Whatever it was, once the delivery or its repetition has succeeded, the hub holds every point exactly once.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from airflow_provider_airis.errors import AirisError, PermanentError, RetryableError
from airflow_provider_airis.hooks.airis import AirisHook
from airflow_provider_airis.records import Event, Metric
from sandbox.faults import Fault, FaultProxy
from sandbox.process import Server
from tests.conftest import Hub
from tests.integration.test_airis_hook import START, happened, point, points, stored

BATCH = "/api/v1/metrics/batch"
NUMBER = 17_000  # four batches


@pytest.fixture
def proxy(hub: Hub) -> Iterator[FaultProxy]:
    with FaultProxy(hub.url) as proxy:
        yield proxy


@pytest.fixture
def proxied(proxy: FaultProxy, hub: Hub, connect: Callable[..., str]) -> Iterator[AirisHook]:
    with AirisHook(connect("proxied", conn_type="airis", host=proxy.url, password=hub.token)) as hook:
        yield hook


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[Hub]:
    """A hub of the test's own, to be killed; it knows a token for reading and one for delivering alone, too."""
    scopes = {"admin": ["ingest", "read", "alerts", "admin"], "read": ["read"], "ingest": ["ingest"]}
    tokens = {name: {"token": f"token-of-{name}-0123456789", "scopes": scopes[name]} for name in scopes}
    (tmp_path / "tokens.json").write_text(json.dumps(tokens))
    hub = Hub(tmp_path)
    yield hub
    hub.server.stop()


@pytest.fixture(autouse=True)
def source(request: pytest.FixtureRequest) -> str:
    return request.node.name


@contextmanager
def everything_logged() -> Iterator[None]:
    """Every logger says all that it has, as with the logging level DEBUG in Airflow."""
    loggers = [logging.getLogger(name) for name in ("", "airflow.task", "httpx2", "httpcore2", "tenacity")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
    yield
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)


def whole(number: int = NUMBER) -> list[float]:
    return [float(i) for i in range(number)]


def assert_repeated_as_they_were(proxy: FaultProxy) -> None:
    """Every request that failed was sent again: the same bytes under the same key."""
    sent = [(seen.headers["Idempotency-Key"], seen.body, seen.fault) for seen in proxy.seen if seen.method == "POST"]
    failed = [request for request in sent if request[2]]
    assert failed
    for key, body, _ in failed:
        assert any(other == (key, body, None) for other in sent)


@pytest.mark.parametrize(
    "fault",
    [
        Fault("reset"),
        Fault("reset_applied"),
        Fault("reset_answer"),
        Fault("status", status=500),
        Fault("status", status=502),
        Fault("status", status=503, retry_after=1),
        Fault("status", status=429, retry_after=1),
        Fault("status", status=408),
    ],
    ids=lambda fault: f"{fault.action}-{fault.status}" if fault.action == "status" else fault.action,
)
def test_a_passing_fault_neither_loses_nor_doubles(proxy, proxied, source, fault):
    fault = Fault(**{name: getattr(fault, name) for name in fault.__struct_fields__} | {"path": BATCH, "times": 3})
    proxy.order(fault)
    summary = proxied.ingest(points(source, NUMBER))
    assert (summary.points, summary.duplicates, summary.rejected, summary.calls) == (NUMBER, 0, 0, 4)
    assert stored(proxied, source) == whole()
    assert len(proxy.seen) == 4 + 3 + 1
    assert_repeated_as_they_were(proxy)


def test_an_answer_that_comes_too_late_is_asked_for_again(proxy, proxied, hub, connect, source):
    """The first attempt is still being served when the second arrives."""
    proxy.order(Fault("latency", seconds=2.5, path=BATCH))
    connect("hasty", conn_type="airis", host=proxy.url, password=hub.token, extra={"timeout": 1.5})
    with AirisHook("hasty") as hook:
        summary = hook.ingest(points(source, 100))
    assert summary.points == 100
    assert [seen.fault for seen in proxy.seen] == ["latency", None]
    assert stored(proxied, source) == whole(100)


def test_retry_after_is_waited_for(proxy, proxied, source, capfd):
    proxy.order(Fault("status", status=429, retry_after=2, path=BATCH))
    proxied.ingest(points(source, 10))
    assert "attempt 2 follows in 2.0 s" in capfd.readouterr().out


def test_a_fault_that_stays_is_raised_as_one_that_a_retry_of_the_task_may_mend(proxy, hub, connect, source):
    proxy.order(Fault("status", status=503, retry_after=0.1, path=BATCH, times=1000))
    connect("proxied", conn_type="airis", host=proxy.url, password=hub.token)
    closed = []

    def endless() -> Iterator[Metric]:
        try:
            while True:
                yield from points(source, NUMBER)
        finally:
            closed.append(True)

    with AirisHook("proxied", retries=2) as hook, pytest.raises(RetryableError) as failure:
        hook.ingest(endless())
    assert closed
    assert failure.value.retry_after == 0.1
    assert "POST /api/v1/metrics/batch answered 503" in str(failure.value)
    proxy.clear()
    with AirisHook("proxied") as hook:
        hook.ingest(points(source, NUMBER))
        assert stored(hook, source) == whole()


@pytest.mark.parametrize("status", [400, 401, 403, 409, 422])
def test_what_no_retry_mends_stops_the_delivery_at_once(proxy, proxied, source, status):
    proxy.order(Fault("status", status=status, path=BATCH, times=1000, after=2))
    closed = []

    def endless() -> Iterator[Metric]:
        try:
            while True:
                yield from points(source, NUMBER)
        finally:
            closed.append(True)

    with pytest.raises(PermanentError, match=f"answered {status}") as failure:
        proxied.ingest(endless())
    assert failure.value.status == status
    assert closed
    # The connections that were on their way, none again.
    assert len(proxy.seen) <= 2 + 4


def test_a_wrong_token_says_which_connection_to_mend(hub, connect, source, capfd):
    secret = "a-secret-that-nobody-may-see"
    connect("wrong", conn_type="airis", host=hub.url, password=secret)
    with AirisHook("wrong") as hook, everything_logged():
        with pytest.raises(PermanentError, match=r"401.*check the token or password of connection wrong") as failure:
            hook.ingest(points(source, 10))
        works, said = hook.test_connection()
    assert failure.value.status == 401
    assert not works
    assert "401" in said
    for told in (str(failure.value), repr(failure.value), repr(hook), said, "".join(capfd.readouterr())):
        assert secret not in told


def test_a_token_without_the_scope_says_so(mortal, connect, source):
    connect("reader", conn_type="airis", host=mortal.url, password="token-of-read-0123456789")
    connect("feeder", conn_type="airis", host=mortal.url, password="token-of-ingest-0123456789")
    with AirisHook("reader") as hook:
        with pytest.raises(PermanentError, match=r"403.*connection reader the scope") as failure:
            hook.ingest(points(source, 10))
        assert failure.value.status == 403
        assert hook.test_connection()[0]
    with AirisHook("feeder") as hook:
        assert hook.ingest(points(source, 10)).points == 10
        assert hook.test_connection()[0]


def test_the_hub_is_down_when_the_delivery_starts(mortal, connect, source):
    connect("mortal", conn_type="airis", host=mortal.url, password=mortal.token)
    port = mortal.server.port
    mortal.server.kill()

    def starting() -> Iterator[Metric]:
        yield from points(source, 10_000)  # two batches, which now find nobody
        mortal.server = mortal.start(port)

    with AirisHook("mortal") as hook:
        assert hook.ingest(starting()).points == 10_000
        assert stored(hook, source) == whole(10_000)


def test_the_hub_dies_in_the_middle_and_comes_back(mortal, connect, source):
    connect("mortal", conn_type="airis", host=mortal.url, password=mortal.token)
    port = mortal.server.port

    def killing() -> Iterator[Metric]:
        for i, metric in enumerate(points(source, 60_000)):
            yield metric
            if i == 30_000:
                mortal.server.kill()
                # Beside the source, which is not read on while nothing can be sent.
                starting.append(pool.submit(mortal.start, port))

    starting: list[Future[Server]] = []
    with ThreadPoolExecutor(1) as pool, AirisHook("mortal", retries=20) as hook:
        summary = hook.ingest(killing())
        mortal.server = starting[0].result()
        assert summary.points == 60_000
        assert stored(hook, source) == whole(60_000)


def test_the_hub_stays_down_and_the_repeated_task_delivers(mortal, connect, source):
    connect("mortal", conn_type="airis", host=mortal.url, password=mortal.token)
    port = mortal.server.port

    def killing() -> Iterator[Metric]:
        for i, metric in enumerate(points(source, 60_000)):
            yield metric
            if i == 30_000:
                mortal.server.kill()

    with AirisHook("mortal", retries=1) as hook:
        with pytest.raises(RetryableError, match=f"check that {mortal.url} is up"):
            hook.ingest(killing(), delivery="first")
        mortal.server = mortal.start(port)
        assert hook.ingest(points(source, 60_000), delivery="second").points == 60_000
        assert stored(hook, source) == whole(60_000)


@pytest.mark.parametrize("status", [404, 405])
def test_a_hub_without_batches_gets_single_calls(proxy, proxied, source, status, capfd):
    proxy.order(Fault("status", status=status, path="/batch", times=1000))

    def mixed() -> Iterator[Metric | Event]:
        yield from points(source, 70)
        yield point(source, name="")  # which the hub refuses
        for key in ("plain", "with spaces ", "ünïcode", "x" * 255):
            yield Event("t", source, "info", START, {}, f"{source} {key}"[:300])

    first, second = proxied.ingest(mixed()), proxied.ingest(mixed())
    assert (first.points, first.events, first.duplicates, first.rejected) == (70, 4, 0, 1)
    # The event's key is the request's: its first answer is given again.
    assert (second.points, second.events, second.duplicates, second.rejected) == (70, 4, 70, 1)
    assert first.calls == 10 + 4
    assert f"{source}  at {START}" in first.refusals[0]
    assert "/name: " in first.refusals[0]
    assert stored(proxied, source) == whole(70)
    assert len(happened(proxied, source)) == 4
    assert capfd.readouterr().out.count("Falling back to single calls") == 2
    singles = [seen for seen in proxy.seen if seen.path.endswith("/ingest")]
    assert len({seen.headers["Idempotency-Key"] for seen in singles}) == 10 + 10 + 4
    assert not any("Content-Encoding" in seen.headers for seen in singles)


def test_a_wrong_base_url_is_no_hub_without_batches(hub, connect, source):
    connect("astray", conn_type="airis", host=f"{hub.url}/astray", password=hub.token)
    with (
        AirisHook("astray") as hook,
        pytest.raises(PermanentError, match=r"404.*check the base URL of connection astray"),
    ):
        hook.ingest(points(source, 10))


def test_a_batch_that_is_too_large_is_halved(proxy, proxied, source):
    proxy.order(Fault("status", status=413, path=BATCH, times=3))
    summary = proxied.ingest(points(source, 4_000))
    assert (summary.points, summary.rejected) == (4_000, 0)
    assert summary.calls > 1
    assert stored(proxied, source) == whole(4_000)


def test_halving_ends_at_a_record_that_is_too_large_alone(proxy, proxied, source):
    proxy.order(Fault("status", status=413, path="/metrics/", times=1000))
    summary = proxied.ingest(points(source, 5))
    assert (summary.points, summary.rejected) == (0, 5)
    assert len(summary.refusals) == 5
    assert "413" in summary.refusals[0]


def test_a_hub_under_a_path_prefix(hub, connect, source):
    with FaultProxy(hub.url, prefix="/monitoring/airis") as proxy:
        connect("prefixed", conn_type="airis", host=f"{proxy.url}/monitoring/airis/", password=hub.token)
        with AirisHook("prefixed") as hook:
            assert hook.test_connection()[0]
            assert hook.ingest(points(source, 10)).points == 10
            assert stored(hook, source) == whole(10)
            assert hook.dashboard_url("a") == f"{proxy.url}/monitoring/airis/dashboard?alert=a"
        connect("prefixed", conn_type="airis", host=proxy.url, password=hub.token)
        with pytest.raises(PermanentError, match="404"):
            AirisHook("prefixed").changes()


def test_an_endless_cursor_stops(httpserver, connect):
    httpserver.expect_request("/api/v1/alerts").respond_with_json({"alerts": [], "cursor": "again"})
    connect("endless", conn_type="airis", host=httpserver.url_for("/"))
    with AirisHook("endless") as hook, pytest.raises(PermanentError, match="pages without an end"):
        list(hook.alerts())


@pytest.mark.parametrize("body", ["<html>sign in</html>", "[]", '{"accepted": "all"}', ""])
def test_something_else_that_answers_200_is_no_success(httpserver, connect, body):
    httpserver.expect_request(BATCH).respond_with_data(body)
    httpserver.expect_request("/api/v1/health").respond_with_data(body)
    connect("else", conn_type="airis", host=httpserver.url_for("/"))
    with AirisHook("else") as hook:
        with pytest.raises(PermanentError, match=r"something else than its API does.*base URL of connection else"):
            hook.ingest(points("s", 10))
        assert not hook.test_connection()[0]


def test_points_that_the_hub_does_not_account_for_are_no_success(httpserver, connect):
    httpserver.expect_request(BATCH).respond_with_json({"accepted": 7})
    connect("careless", conn_type="airis", host=httpserver.url_for("/"))
    with AirisHook("careless") as hook:
        summary = hook.ingest(points("s", 10))
    assert (summary.points, summary.rejected) == (7, 3)
    assert summary.refusals


@pytest.mark.parametrize("body", ["", "{}", '{"status": "ok"}'])
def test_a_hub_that_answers_single_calls_with_nothing_to_read(httpserver, connect, body):
    httpserver.expect_request("/api/v1/metrics/ingest").respond_with_data(body)
    httpserver.expect_request("/api/v1/events/ingest").respond_with_data(body)
    for path in (BATCH, "/api/v1/events/batch"):
        httpserver.expect_request(path).respond_with_data(status=404)
    connect("bare", conn_type="airis", host=httpserver.url_for("/"))
    with AirisHook("bare") as hook:
        summary = hook.ingest([*points("s", 14), Event("t", "s", "info", START, {}, "k")])
        assert (summary.points, summary.events, summary.rejected, summary.calls) == (14, 1, 0, 3)
    # Exactly the fields that the architecture document names.
    bodies = {request.path: json.loads(request.data) for request, _ in httpserver.log if "ingest" in request.path}
    assert set(bodies["/api/v1/metrics/ingest"]) == {"timestamp", "source", "metrics"}
    assert set(bodies["/api/v1/events/ingest"]) == {"timestamp", "event_type", "source", "severity", "data"}


def test_the_proxy_as_a_process(hub, connect, source):
    faults = ("--fault", "action=status status=503 retry_after=0.1 path=/metrics/batch times=2")
    with Server("sandbox.faults", "--upstream", hub.url, "--port", "0", *faults) as server:
        connect("proxied", conn_type="airis", host=server.url, password=hub.token)
        with AirisHook("proxied") as hook:
            assert hook.ingest(points(source, 10)).points == 10
            orders = [{"action": "reset", "path": BATCH}, {"action": "latency", "seconds": 0.1, "path": BATCH}]
            for order in orders:
                httpx2.post(f"{server.url}/_faults", json=order).raise_for_status()
            assert httpx2.post(f"{server.url}/_faults", json={"action": "explode"}).status_code == 400
            assert hook.ingest(points(source, 10)).duplicates == 10
            state = httpx2.get(f"{server.url}/_faults").json()
            assert state["left"] == []
            assert [seen["fault"] for seen in state["seen"]] == ["status", "status", None, "reset", "latency"]
            httpx2.post(f"{server.url}/_faults", json={"action": "reset", "times": 99})
            assert httpx2.delete(f"{server.url}/_faults").json()["left"] == []
            assert stored(hook, source) == whole(10)


def test_no_fault_tells_a_secret(proxy, hub, connect, source, capfd):
    connect("proxied", conn_type="airis", host=proxy.url, password=hub.token)
    actions: list[dict[str, Any]] = [{"action": "reset"}, {"action": "reset_answer"}, {"action": "reset_applied"}]
    actions += [
        {"action": "status", "status": status, "retry_after": 0} for status in (400, 401, 403, 404, 413, 429, 500, 503)
    ]
    told = []
    with everything_logged():
        for action in actions:
            proxy.clear()
            proxy.order(Fault(**action, times=1000))
            with AirisHook("proxied", retries=1) as hook:
                try:
                    told.append(str(hook.ingest(points(source, 10)).refusals))
                except AirisError as error:
                    told += [str(error), repr(error), repr(error.__cause__)]
                told += [repr(hook), hook.test_connection()[1]]
    assert hub.token not in "\n".join(told)
    logged = "".join(capfd.readouterr())
    assert "answered 503" in logged
    assert hub.token not in logged
