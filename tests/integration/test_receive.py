"""The way back: what systems send to the API server, over sockets, from the stand-ins to a real hub."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlencode

import httpx2
import pytest
import uvicorn
from airflow.sdk.observability import stats
from starlette.applications import Starlette
from starlette.routing import Mount

from airflow_provider_airis.catalog import SYSTEMS
from airflow_provider_airis.hooks.airis import AirisHook
from airflow_provider_airis.plugins import AirisPlugin
from airflow_provider_airis.plugins.receiver import BURST, MOST_BYTES, SECRET_CHARS, application
from sandbox.process import Server

SECRET = "a-secret-of-many-characters"
STEMS = [system.stem for system in SYSTEMS if system.receives]
CONNECTIONS = {
    "slack": ("slack_default", {"conn_type": "slack", "password": "xoxb-good"}),
    "pagerduty": ("pagerduty_events_default", {"conn_type": "pagerduty_events", "password": "a" * 32}),
    "servicenow": ("servicenow_default", {"conn_type": "servicenow", "host": "http://127.0.0.1:9", "login": "airis"}),
    "jira": ("jira_default", {"conn_type": "jira", "host": "http://127.0.0.1:9", "login": "airis"}),
}


class Counters:
    """A StatsD client that keeps what it is told."""

    def __init__(self) -> None:
        self.counted: list[str] = []

    def incr(self, stat: str, **_: Any) -> None:
        self.counted.append(stat)


class ApiServer:
    """The plugin's application where Airflow mounts it."""

    def __init__(self) -> None:
        application.cache_clear()
        self.counters = Counters()
        stats.initialize(factory=lambda: self.counters, export_legacy_names=False)
        (mounted,) = AirisPlugin.fastapi_apps
        app = Starlette(routes=[Mount(mounted["url_prefix"], mounted["app"])])
        self.server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        (listening,) = self.server.servers[0].sockets
        self.url = f"http://127.0.0.1:{listening.getsockname()[1]}/airis/receive"
        self.client = httpx2.Client(timeout=20)

    def stop(self) -> None:
        self.client.close()
        self.server.should_exit = True
        self.thread.join()
        stats.initialize(factory=Counters, export_legacy_names=False)

    def post(self, stem: str, body: bytes, headers: dict[str, str]) -> int:
        answer = self.client.post(f"{self.url}/{stem}", content=body, headers=headers)
        assert answer.content == b""
        return answer.status_code

    def counted(self, stem: str, outcome: str) -> int:
        return self.counters.counted.count(f"airis.receive.{stem}.{outcome}")


@pytest.fixture
def server(airis: str, connect: Callable[..., str]) -> Iterator[ApiServer]:
    for stem, (conn_id, fields) in CONNECTIONS.items():
        connect(conn_id, **fields, extra={secret_name(stem): SECRET})
    server = ApiServer()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def slack() -> Iterator[Server]:
    server = Server("sandbox.slack")
    yield server
    server.stop()


@pytest.fixture(scope="module")
def pagerduty() -> Iterator[Server]:
    server = Server("sandbox.pagerduty")
    yield server
    server.stop()


@pytest.fixture
def fire(airis: str, request: pytest.FixtureRequest) -> Callable[..., str]:
    def fire(**fields: Any) -> str:
        name = f"{request.node.name} {time.time_ns()}"
        with AirisHook() as hub:
            return hub.fire(name, "critical", fingerprint=name, **fields).id

    return fire


def secret_name(stem: str) -> str:
    return next(system.receives for system in SYSTEMS if system.stem == stem)


def now_ms() -> int:
    return round(time.time() * 1000)


def alert(alert_id: str) -> Any:
    with AirisHook() as hub:
        return hub.alert(alert_id)


def digest(secret: str, content: bytes) -> bytes:
    return hmac.new(secret.encode(), content, hashlib.sha256).digest()


# Written by each vendor's page, not by what the package does.
def signed(stem: str, body: bytes, *, secret: str = SECRET, at: int | None = None) -> dict[str, str]:
    seconds = str(int(time.time()) if at is None else at)
    if stem == "slack":
        return {
            "Content-Type": "application/x-www-form-urlencoded",
            "X-Slack-Request-Timestamp": seconds,
            "X-Slack-Signature": f"v0={digest(secret, f'v0:{seconds}:'.encode() + body).hex()}",
        }
    headers = {"Content-Type": "application/json; charset=utf-8"}
    if stem == "pagerduty":
        return headers | {"X-PagerDuty-Signature": f"v1={digest(secret, body).hex()}"}
    if stem == "servicenow":
        code = base64.b64encode(digest(secret, f"{seconds}.".encode() + body)).decode()
        return headers | {"X-Airis-Signature": f"t={seconds},v1={code}"}
    return headers | {"X-Hub-Signature": f"sha256={digest(secret, body).hex()}"}


def acknowledging(stem: str, alert_id: str) -> bytes:
    """A request by which a person acknowledges an alert, as the vendor writes it."""
    at = now_ms()
    if stem == "slack":
        action = {"action_id": "airis_acknowledge", "value": alert_id, "action_ts": f"{at / 1000:.6f}"}
        user = {"id": "U0JANE00001", "username": "jane"}
        return urlencode({"payload": json.dumps({"type": "block_actions", "user": user, "actions": [action]})}).encode()
    if stem == "pagerduty":
        event = {
            "event_type": "incident.acknowledged",
            "occurred_at": "2026-01-02T03:04:05.678Z",
            "agent": {"type": "user_reference", "summary": "Jane Doe"},
            "data": {"id": "Q1", "incident_key": f"airis-mon-{alert_id}", "assignees": []},
        }
        return json.dumps({"event": event}).encode()
    if stem == "servicenow":
        incident = {"correlation_id": f"airis-mon-{alert_id}", "state": "2", "at": at, "by": "Jane Doe"}
        return json.dumps(incident).encode()
    issue = {"fields": {"labels": [f"airis-mon-{alert_id}"], "status": {"statusCategory": {"key": "indeterminate"}}}}
    changed = {"items": [{"field": "status", "to": "3"}]}
    user = {"displayName": "Jane Doe"}
    return json.dumps(
        {"webhookEvent": "jira:issue_updated", "timestamp": at, "issue": issue, "user": user, "changelog": changed}
    ).encode()


def send(server: ApiServer, stem: str, body: bytes, **how: Any) -> int:
    return server.post(stem, body, signed(stem, body, **how))


@pytest.mark.parametrize("stem", STEMS)
def test_somebody_acknowledges_and_the_same_again_changes_nothing(server, fire, stem):
    alert_id = fire()
    body = acknowledging(stem, alert_id)
    assert send(server, stem, body) == 200
    known = alert(alert_id)
    assert (known.status, known.acknowledged_by) == ("acknowledged", "jane" if stem == "slack" else "Jane Doe")
    assert server.counted(stem, "accepted") == 1
    # Slack never sends a request again, so that who does is somebody else.
    assert send(server, stem, body) == (409 if stem == "slack" else 200)
    assert server.counted(stem, "replayed" if stem == "slack" else "repeated") == 1
    assert alert(alert_id).updated_at == known.updated_at


@pytest.mark.parametrize("stem", STEMS)
def test_what_is_not_the_systems_own_is_refused_and_says_nothing(server, fire, stem):
    alert_id = fire()
    body = acknowledging(stem, alert_id)
    headers = signed(stem, body)
    signature = next(name for name in headers if name.endswith("Signature"))
    for wrong in (
        {signature: headers[signature][:-1]},
        {signature: headers[signature].swapcase()},
        {signature: ""},
        {signature: "ü".encode()},
        signed(stem, body, secret="another-secret-altogether"),
        signed(stem, body + b" "),
    ):
        assert server.post(stem, body, headers | wrong) == 401
    assert server.counted(stem, "unsigned") == 6
    if stem in ("slack", "servicenow"):
        for at in (time.time() - 301, time.time() + 310):
            assert send(server, stem, body, at=int(at)) == 401
        assert server.counted(stem, "stale") == 2
    other = "text/plain" if stem == "slack" else "application/x-www-form-urlencoded"
    assert server.post(stem, body, headers | {"Content-Type": other}) == 415
    large = body + b" " * MOST_BYTES
    assert send(server, stem, large) == 413
    assert server.client.post(f"{server.url}/{stem}", content=iter([large]), headers=headers).status_code == 413
    garbage = b"payload=%7B" if stem == "slack" else b"{"
    assert send(server, stem, garbage) == 400
    assert server.client.get(f"{server.url}/{stem}").status_code == 405
    assert server.client.post(f"{server.url}/email", content=body, headers=headers).status_code == 404
    assert alert(alert_id).status == "firing"


@pytest.mark.parametrize("stem", STEMS)
def test_an_alert_that_the_hub_does_not_know(server, stem):
    # PagerDuty would turn off a webhook that is refused; Slack's person is told.
    expected = 200 if stem in ("pagerduty", "slack") else 404
    assert send(server, stem, acknowledging(stem, "0123456789abcdef")) == expected
    assert send(server, stem, acknowledging(stem, "group-of-nobody")) == expected
    assert server.counted(stem, "unknown") == 2


@pytest.mark.parametrize("stem", STEMS)
def test_a_secret_is_changed_without_a_gap_and_a_short_one_is_none(server, fire, connect, stem):
    conn_id, fields = CONNECTIONS[stem]
    connect(conn_id, **fields, extra={secret_name(stem): f"{'n' * SECRET_CHARS} {SECRET}  short"})
    alert_id = fire()
    assert send(server, stem, acknowledging(stem, alert_id), secret="short") == 401
    assert send(server, stem, acknowledging(stem, alert_id), secret="n" * SECRET_CHARS) == 200
    assert send(server, stem, acknowledging(stem, fire())) == 200


@pytest.mark.parametrize("stem", STEMS)
def test_without_a_secret_there_is_no_way_back(server, connect, monkeypatch, stem):
    conn_id, fields = CONNECTIONS[stem]
    connect(conn_id, **fields)
    body = acknowledging(stem, "0123456789abcdef")
    assert server.post(stem, body, signed(stem, body, secret="")) == 404
    assert server.counted(stem, "not_configured") == 1


@pytest.mark.parametrize("stem", STEMS)
def test_a_hub_that_does_not_answer_is_asked_when_the_sender_tries_again(server, connect, airis, hub, fire, stem):
    alert_id = fire()
    connect("airis_default", conn_type="airis", host="http://127.0.0.1:9", password="x", extra={"timeout": 1})
    body = acknowledging(stem, alert_id)
    headers = signed(stem, body)
    answer = server.client.post(f"{server.url}/{stem}", content=body, headers=headers)
    assert (answer.status_code, answer.headers.get("Retry-After")) == ((200, None) if stem == "slack" else (503, "5"))
    assert server.counted(stem, "failed") == 1
    connect("airis_default", conn_type="airis", host=hub.url, password=hub.token)
    application.cache_clear()
    assert server.post(stem, body, headers) == 200
    assert alert(alert_id).status == "acknowledged"


def test_too_many_are_turned_away_and_rubbish_does_not_keep_what_is_signed_waiting(server, fire):
    body = acknowledging("jira", "x")
    with ThreadPoolExecutor(8) as pool:
        rubbish = list(pool.map(lambda _: send(server, "jira", body, secret="wrong" * 4), range(BURST + 60)))
    assert set(rubbish) == {401, 429}
    alert_id = fire()
    assert send(server, "jira", acknowledging("jira", alert_id)) == 200
    bodies = [acknowledging("jira", alert_id).replace(b"Jane", b"Jane%d" % one) for one in range(BURST + 100)]
    with ThreadPoolExecutor(16) as pool:
        statuses = list(pool.map(lambda one: send(server, "jira", one), bodies))
    assert set(statuses) == {200, 429}
    left = [one for one, status in zip(bodies, statuses, strict=True) if status == 429]
    time.sleep(0.2)
    assert send(server, "jira", left[0]) == 200
