"""Events of a real hub, exported over sockets: proof an item, refusals, outages, and deaths at every step."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import httpx2
import msgspec
import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_airis.catalog import BY_STEM
from airflow_provider_airis.errors import LeaseLostError, LeaseTakenError, PermanentError, RetryableError
from airflow_provider_airis.exports.base import EventExport, Item, Limits, Outcome
from airflow_provider_airis.exports.lease import ExportLease
from airflow_provider_airis.exports.run import REFUSED_IN_A_ROW, ExportRun, ExportSummary
from airflow_provider_airis.hooks.airis import AirisHook
from airflow_provider_airis.hooks.http import HttpHook
from airflow_provider_airis.operators.pagerduty import AirisChangesToPagerDutyOperator
from airflow_provider_airis.records import Event
from sandbox.process import Server

KEY = "k3yk3yk3yk3yk3yk3yk3yk3yk3yk3y12"
DEPLOY = """
from airflow_provider_airis.operators.pagerduty import AirisChangesToPagerDutyOperator
AirisChangesToPagerDutyOperator(task_id="changes").execute({})
"""


Answer = tuple[int, dict[str, str], bytes]


@contextmanager
def served(answer: Callable[[str, str, bytes, dict[str, str]], Answer]) -> Iterator[str]:
    """An HTTP server of this process: ``answer(method, target, body, headers)``; yields its URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answered(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, headers, content = answer(self.command, self.path, body, dict(self.headers))
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_DELETE = answered  # noqa: N815 (the base class's)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@dataclass
class Inbox:
    """A receiver of batches: what it was sent, what it has, and what it makes of them."""

    requests: list[list[str]] = field(default_factory=list)
    stored: list[str] = field(default_factory=list)
    whole: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    unproved: dict[str, int] = field(default_factory=dict)
    script: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    token_is_good: bool = True

    def answer(
        self, method: str, target: str, body: bytes, headers: dict[str, str]
    ) -> tuple[int, dict[str, str], bytes]:
        if not self.token_is_good:
            return 401, {}, b'{"detail": "unknown token"}'
        if method == "GET":
            return 200, {}, b"{}"
        keys = [item["key"] for item in json.loads(body)]
        self.requests.append(keys)
        if self.script:
            status, more = self.script.pop(0)
            return status, more, b"{}"
        if self.whole & {*keys}:
            return 400, {}, b'{"detail": "one of them is wrong"}'
        said = []
        for key in keys:
            if key in self.refused:
                said.append(["refused", "no such index"])
            elif self.unproved.get(key, 0) > 0:
                self.unproved[key] -= 1
                said.append(["unknown", "busy"])
            else:
                self.stored.append(key)
                said.append(["accepted", ""])
        return 200, {}, json.dumps(said).encode()


class BatchHook(HttpHook):
    conn_type = "http"
    default_conn_name = "batch_default"
    hook_name = "Batches"


class BatchExport(EventExport):
    limits = Limits(items=4, bytes=2_000)
    wanted: tuple[str, ...] = ()

    @cached_property
    def hook(self) -> Any:
        return BatchHook("batch_default", retries=2)

    def wants(self, event: Event) -> bool:
        return event.event_type in self.wanted

    def encode(self, event: Event) -> bytes:
        return msgspec.json.encode({"key": event.key, "data": event.data})

    def send(self, items: Sequence[Item]) -> Sequence[Outcome]:
        content = b"[" + b",".join(item.body for item in items) + b"]"
        answer = self.hook.request("POST", "/in", content=content)
        return msgspec.json.decode(answer.content, type=list[Outcome])


@pytest.fixture
def inbox(connect: Callable[..., str]) -> Iterator[Inbox]:
    inbox = Inbox()
    with served(inbox.answer) as url:
        connect("batch_default", conn_type="http", host=url, password="batch-secret")
        yield inbox


@pytest.fixture
def feed(hub: Any, connect: Callable[..., str], request: pytest.FixtureRequest) -> Callable[..., None]:
    """Puts events into the hub; the consumer is the test's own, and begins at the end."""
    connect("airis_default", conn_type="airis", host=hub.url, password=hub.token, extra={"consumer": request.node.name})

    def feed(*keys: str, **data: Any) -> None:
        now = round(time.time() * 1000)
        kind = request.node.name
        with AirisHook() as hook:
            hook.ingest(Event(kind, "test", "info", now - 60_000, data, f"{kind}/{key}") for key in keys)

    with AirisHook(system="batch") as hook:
        after = 0
        while (page := hook.event_changes(after=after))[0]:
            after = page[1]
        hook.commit(hook.consumer, after, force=True)
    return feed


@pytest.fixture
def export(request: pytest.FixtureRequest) -> Callable[..., ExportSummary]:
    def export(*more: str, max_run_s: float = 60, lease_s: float = 60) -> ExportSummary:
        receiver = BatchExport(BY_STEM["pagerduty"], "batch_default")
        receiver.wanted = (request.node.name, *more)
        with AirisHook(system="batch") as hub, ExportLease(hub, hub.consumer, "test", lease_s=lease_s) as lease:
            return ExportRun(hub, receiver, lease, max_run_s=max_run_s, pauses_s=(0, 0)).go()

    return export


def names(keys: Sequence[str]) -> list[str]:
    return [key.rpartition("/")[2] for key in keys]


def offset() -> int:
    with AirisHook(system="batch") as hub:
        return hub.committed()


def refusals(consumer: str) -> list[dict[str, Any]]:
    with AirisHook() as hub:
        found = hub.events(event_type="export_refused")
    return [event["data"] for event in found if event["data"]["consumer"] == consumer]


def test_batches_keep_the_limits_and_the_order(inbox, feed, export):
    feed(*"abcdef")
    feed("g", text="x" * 1_500)
    feed("h", text="x" * 1_500)
    assert (done := export())[1:3] == (8, 0)
    assert [names(keys) for keys in inbox.requests] == [["a", "b", "c", "d"], ["e", "f", "g"], ["h"]]
    assert done.behind == (0, False, 0)
    assert export().figures() == {"sequence": done.sequence, "sent": 0, "refused": 0, "backlog": 0, "lag_s": 0}
    assert len(inbox.requests) == 3


def test_what_is_refused_without_a_name_is_found_by_halves_named_and_kept(inbox, feed, export, request):
    feed(*"abcd")
    inbox.whole = {f"{request.node.name}/c"}
    done = export()
    assert (done.sent, done.refused) == (3, 1)
    assert names(inbox.stored) == ["a", "b", "d"]
    assert "one of them is wrong" in done.refusals[0]
    (kept,) = refusals(f"{request.node.name}-batch")
    assert (names([kept["key"]]), kept["event_type"], kept["source"]) == (["c"], request.node.name, "test")
    assert "one of them is wrong" in kept["reason"]


def test_what_is_refused_by_name_or_too_large_costs_no_other(inbox, feed, export, request):
    feed("a", "b")
    feed("large", text="x" * 3_000)
    feed("c")
    inbox.refused = {f"{request.node.name}/b"}
    done = export()
    assert (done.sent, done.refused, names(inbox.stored)) == (2, 2, ["a", "c"])
    kept = {one["key"].rpartition("/")[2]: one["reason"] for one in refusals(f"{request.node.name}-batch")}
    assert kept == {"b": "no such index", "large": kept["large"]}
    assert "takes 2,000 at most" in kept["large"]


def test_a_report_of_a_refusal_that_is_refused_ends_there(inbox, feed, export, request):
    feed("a")
    consumer = f"{request.node.name}-batch"
    inbox.refused = {f"{request.node.name}/a", f"export_refused/{consumer}/{request.node.name}/a"}
    assert export("export_refused").refused == 2
    assert export("export_refused").refused == 0
    assert len(refusals(consumer)) == 1


def test_what_was_not_proved_is_sent_again_alone_and_holds_the_offset(inbox, feed, export, request):
    feed(*"abc")
    before, key = offset(), f"{request.node.name}/b"
    inbox.unproved = {key: 9}
    with pytest.raises(RetryableError, match=r"did not confirm 1 of 1 events.*busy.*2 events wait, the oldest"):
        export()
    assert [names(keys) for keys in inbox.requests] == [["a", "b", "c"], ["b"], ["b"]]
    assert offset() == before + 1
    inbox.unproved = {key: 1}
    assert export().sent == 2
    assert names(inbox.stored) == ["a", "c", "c", "b"]


def test_a_receiver_that_is_down_says_how_far_behind_it_is(inbox, feed, export):
    feed(*"abcde")
    before = offset()
    inbox.script = [(503, {})] * 9
    with pytest.raises(RetryableError, match=r"503.*\. 5 events wait, the oldest for 6\d s"):
        export()
    assert offset() == before
    inbox.script = []
    assert export().sent == 5


def test_429_is_asked_again_after_the_time_that_it_says(inbox, feed, export):
    feed("a")
    inbox.script = [(429, {"Retry-After": "0"})] * 2
    assert export().sent == 1
    assert [names(keys) for keys in inbox.requests] == [["a"]] * 3
    feed("b")
    inbox.script = [(429, {"Retry-After": "3600"})]
    with pytest.raises(RetryableError, match="1 events wait") as failure:
        export()
    assert failure.value.retry_after == 3600


def test_a_refused_token_refuses_no_event(inbox, feed, export, request, caplog):
    feed("a")
    inbox.token_is_good = False
    with pytest.raises(PermanentError, match=r"401.*1 events wait") as failure:
        export()
    assert "batch-secret" not in str(failure.value) + caplog.text
    inbox.token_is_good = True
    assert export().sent == 1
    assert refusals(f"{request.node.name}-batch") == []


def test_a_receiver_that_refuses_one_after_the_other_is_not_fed_the_whole_feed(inbox, feed, export, request):
    keys = [f"{n:02}" for n in range(30)]
    feed(*keys)
    inbox.refused = {f"{request.node.name}/{key}" for key in keys}
    with pytest.raises(PermanentError, match="looks as if it refused all"):
        export()
    assert len(refusals(f"{request.node.name}-batch")) == REFUSED_IN_A_ROW
    inbox.refused = set()
    feed("later")
    assert export().sent >= 11


def test_a_run_whose_time_is_over_leaves_the_rest_to_the_next(inbox, feed, export):
    feed(*"abcdef")
    done = export(max_run_s=0)
    assert (done.sent, done.behind.items) == (4, 2)
    assert export().sent == 2
    assert names(inbox.stored) == [*"abcdef"]


def test_two_runs_do_not_send_side_by_side(inbox, feed, export):
    feed("a")
    with AirisHook(system="batch") as hub, ExportLease(hub, hub.consumer, "the first"):
        with pytest.raises(LeaseTakenError, match="the first"):
            export()
        assert inbox.requests == []
    assert export().sent == 1


def test_a_run_that_was_overtaken_moves_nothing(feed):
    feed("a")
    with AirisHook(system="batch") as hub, AirisHook(system="batch") as other:
        with ExportLease(hub, hub.consumer, "the first", lease_s=3600):
            other.leases.release(other.leases.get(other.consumer))
            other.leases.acquire(other.consumer, "the second", 60)
            with pytest.raises(LeaseLostError):
                hub.commit(hub.consumer, hub.committed() + 1)
        assert other.leases.get(other.consumer).holder == "the second"


def test_a_lease_is_renewed_for_as_long_as_it_is_held(feed):
    with AirisHook(system="batch") as hub, AirisHook(system="batch") as other:
        with ExportLease(hub, hub.consumer, "the first", lease_s=2) as lease:
            first = other.leases.get(other.consumer)
            while other.leases.get(other.consumer).expires_at <= first.expires_at + 1_000:
                lease.check()
        assert other.leases.get(other.consumer) is None


@pytest.fixture(scope="module")
def pagerduty() -> Iterator[Server]:
    server = Server("sandbox.pagerduty")
    yield server
    server.stop()


class Relay:
    """Passes requests on to the hub, and kills its victim at one of them, before or after it is passed on."""

    def __init__(self, url: str, method: str, path: str, *, after: bool) -> None:
        self.at, self.after = (method, path), after
        self.victim: subprocess.Popen[bytes] | None = None
        self.client = httpx2.Client(base_url=url, timeout=60)

    def answer(
        self, method: str, target: str, body: bytes, headers: dict[str, str]
    ) -> tuple[int, dict[str, str], bytes]:
        here = self.victim is not None and method == self.at[0] and self.at[1] in urlsplit(target).path
        if here and not self.after:
            self.victim.send_signal(signal.SIGKILL)
            return 500, {}, b""
        kept = {name: value for name, value in headers.items() if name.lower() not in ("host", "connection")}
        answer = self.client.request(method, target, content=body, headers=kept)
        if here:
            self.victim.send_signal(signal.SIGKILL)
        kinds = {name: answer.headers[name] for name in ("Content-Type", "Date") if name in answer.headers}
        return answer.status_code, kinds, answer.content


@pytest.mark.parametrize(
    ("method", "path", "after", "told"),
    [
        ("POST", "/leases/", True, ["one", "two"]),
        ("GET", "/events/changes", True, ["one", "two"]),
        ("PUT", "/consumers/", False, ["one", "one", "two"]),
        ("PUT", "/consumers/", True, ["one", "two"]),
    ],
    ids=["begun", "read", "sent", "committed"],
)
def test_whoever_is_killed_loses_nothing_and_repeats_one_under_its_key(
    hub, connect, pagerduty, request, method, path, after, told
):
    httpx2.post(f"{pagerduty.url}/_sandbox/reset").raise_for_status()
    connect("pagerduty_events_default", conn_type="pagerduty_events", host=pagerduty.url, password=KEY)
    fields = {"conn_type": "airis", "password": hub.token, "extra": {"consumer": request.node.name}}
    connect("airis_default", host=hub.url, **fields)
    now = round(time.time() * 1000)
    with AirisHook(system="pagerduty-changes") as hook:
        end = 0
        while (page := hook.event_changes(after=end))[0]:
            end = page[1]
        hook.commit(hook.consumer, end, force=True)
        keys = {alias: f"{request.node.name}/{alias}" for alias in ("one", "two")}
        moves = {alias: {"model_name": "fraud", "alias": alias, "version": "2"} for alias in keys}
        hook.ingest(Event("model_alias_changed", "mlflow", "info", now, moves[a], keys[a]) for a in keys)
    relay = Relay(hub.url, method, path, after=after)
    with served(relay.answer) as url:
        environment = {**os.environ, "AIRFLOW_CONN_AIRIS_DEFAULT": json.dumps({**fields, "host": url})}
        relay.victim = subprocess.Popen([sys.executable, "-c", DEPLOY], env=environment)
        assert relay.victim.wait(timeout=240) == -signal.SIGKILL
    with AirisHook(system="pagerduty-changes") as hook:
        # It would lapse by itself, a minute later.
        hook.leases.release(hook.leases.get(hook.consumer))
    AirisChangesToPagerDutyOperator(task_id="changes").execute({})
    seen = [change["payload"]["custom_details"] for change in httpx2.get(f"{pagerduty.url}/_sandbox/changes").json()]
    assert [details["alias"] for details in seen] == told
    assert [details["airis_event"] for details in seen] == [keys[alias] for alias in told]


def test_the_operator_names_what_was_refused_and_says_how_much_waits(hub, connect, pagerduty, request):
    httpx2.post(f"{pagerduty.url}/_sandbox/reset").raise_for_status()
    connect("pagerduty_events_default", conn_type="pagerduty_events", host=pagerduty.url, password="no key")
    connect("airis_default", conn_type="airis", host=hub.url, password=hub.token, extra={"consumer": request.node.name})
    task = AirisChangesToPagerDutyOperator(task_id="changes")
    with AirisHook() as hook:
        now = round(time.time() * 1000)
        hook.event(Event("model_alias_changed", "mlflow", "info", now, {"alias": "x"}, request.node.name))
    with pytest.raises(AirflowFailException, match=r"no integration key.*change events wait"):
        task.execute({})
    connect("pagerduty_events_default", conn_type="pagerduty_events", host=pagerduty.url, password=KEY)
    assert task.execute({})["sent"] >= 1
    assert task.execute({}) | {"sequence": 0} == {"sequence": 0, "sent": 0, "refused": 0, "backlog": 0, "lag_s": 0}
