"""The way back: what systems send to the API server, over sockets, from the stand-ins to a real hub."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx2
import pytest
import uvicorn
from airflow.sdk.observability import stats
from starlette.applications import Starlette
from starlette.routing import Mount

from airflow_provider_airis.catalog import SYSTEMS
from airflow_provider_airis.hooks.airis import AirisHook
from airflow_provider_airis.operators.pagerduty import AirisToPagerDutyOperator
from airflow_provider_airis.operators.slack import AirisToSlackOperator
from airflow_provider_airis.plugins import AirisPlugin
from airflow_provider_airis.plugins.receiver import (
    BURST,
    MOST_BYTES,
    PER_S,
    READ_S,
    REFUSED_BURST,
    REFUSED_PER_S,
    SECRET_CHARS,
    STATUSES,
    application,
)
from airflow_provider_airis.records import LogEntry, Shown, User
from airflow_provider_airis.routes import Silence
from sandbox.faults import Fault, FaultProxy
from sandbox.pagerduty import TOKEN
from sandbox.process import ROOT, Server

SECRET = "a-secret-of-many-characters"
KEY = "a" * 32
STEMS = [system.stem for system in SYSTEMS if system.webhook]
CONNECTIONS = {
    "slack": ("slack_default", {"conn_type": "slack", "password": "xoxb-good"}),
    "pagerduty": ("pagerduty_events_default", {"conn_type": "pagerduty_events", "password": KEY}),
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
    return next(system.webhook.secret for system in SYSTEMS if system.stem == stem)


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
def test_a_secret_that_cannot_be_looked_up_for_a_while_turns_nobody_away(server, connect, fire, monkeypatch, stem):
    monkeypatch.setattr(sys.modules[application.__module__], "KNOWN_S", 0)
    conn_id, fields = CONNECTIONS[stem]
    body = acknowledging(stem, fire())
    assert send(server, stem, acknowledging(stem, fire())) == 200
    monkeypatch.delenv(f"AIRFLOW_CONN_{conn_id.upper()}")
    assert send(server, stem, body) == 503
    assert server.counted(stem, "unavailable") == 1
    connect(conn_id, **fields, extra={secret_name(stem): SECRET})
    assert send(server, stem, body) == 200


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
        rubbish = list(pool.map(lambda _: send(server, "jira", body, secret="wrong" * 4), range(REFUSED_BURST + 60)))
    assert set(rubbish) == {401, 429}
    alert_id = fire()
    assert send(server, "jira", acknowledging("jira", alert_id)) == 200
    bodies = [acknowledging("jira", alert_id).replace(b"Jane", b"Jane%d" % one) for one in range(BURST + 100)]
    with ThreadPoolExecutor(16) as pool:
        statuses = list(pool.map(lambda one: send(server, "jira", one), bodies))
    assert set(statuses) == {200, 429}
    left = [one for one, status in zip(bodies, statuses, strict=True) if status == 429]
    until(lambda: send(server, "jira", left[0]) == 200)


def shown(server: Server, path: str) -> Any:
    return httpx2.get(f"{server.url}/_sandbox/{path}").raise_for_status().json()


def ask(server: Server, path: str, **body: Any) -> Any:
    return httpx2.post(f"{server.url}/_sandbox/{path}", json=body, timeout=20).raise_for_status().json()


@pytest.fixture
def workspace(slack: Server, server: ApiServer, connect: Callable[..., str]) -> Server:
    """Slack, with the app's buttons leading to the server."""
    extra = {"base_url": f"{slack.url}/api/", "signing_secret": SECRET}
    connect("slack_default", conn_type="slack", password="xoxb-good", extra=extra)
    ask(slack, "reset")
    ask(slack, "tokens", token="xoxb-good", scopes=["chat:write", "users:read", "users:read.email"])
    ask(slack, "interactivity", url=f"{server.url}/slack", signing_secret=SECRET)
    return slack


def posted(workspace: Server, alert_id: str) -> str:
    """The alert's message."""
    AirisToSlackOperator(task_id="slack", alert_id=alert_id, target="#alerts").execute({})
    return str(shown(workspace, "requests")[-1]["ts"])


def until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 20
    while not (value := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return value


def sync(*users: User) -> None:
    with AirisHook() as hub:
        hub.sync_users(users, source="directory", sync_type="full", sync_id=str(time.time_ns()), timestamp=now_ms())


def user(username: str, email: str | None, **fields: Any) -> User:
    return User(id=f"id-{username}", username=username, email=email, sync_timestamp=1, **fields)


def test_buttons_of_slack_and_who_pressed_them(workspace, fire):
    sync(user("jdoe", "Jane.Doe@Example.com", display_name="Jane Doe"), user("jane", "jane.doe@example.com.au"))
    alert_id = fire()
    ts = posted(workspace, alert_id)
    assert ask(workspace, "press", ts=ts, action_id=f"ack_alert_{alert_id}") == {"status": 200}
    known = alert(alert_id)
    assert (known.status, known.acknowledged_by) == ("acknowledged", "Jane Doe (jdoe)")
    posted(workspace, alert_id)
    assert ask(workspace, "press", ts=ts, action_id="airis_resolve", user="U0GUEST0001") == {"status": 200}
    assert alert(alert_id).status == "resolved"
    with AirisHook() as hub:
        history = hub.request("GET", f"/api/v1/alerts/{alert_id}").json()["history"]
    assert [(e["change"], e.get("by"), e.get("comment")) for e in history[1:]] == [
        ("acknowledged", "Jane Doe (jdoe)", "in Slack"),
        ("resolved", "guest", "in Slack"),
    ]
    assert shown(workspace, "responses") == []


def test_a_button_silences_for_an_hour_and_says_until_when(workspace, fire):
    alert_id = fire(model_id="fraud", tags={"team": "ml"})
    ts = posted(workspace, alert_id)
    pressed = now_ms()
    assert ask(workspace, "press", ts=ts, action_id="airis_silence_1h") == {"status": 200}
    with AirisHook() as hub:
        (silence,) = hub.silences()
        hub.expire_silence(silence.id)
    assert 3_599_000 < silence.ends_at - pressed < 3_605_000
    its = {matcher.name: matcher.value for matcher in silence.matchers}
    assert its == {"alertname": alert(alert_id).name, "model_id": "fraud", "team": "ml"}
    (response,) = until(lambda: shown(workspace, "responses"))
    assert response["text"].startswith("Silenced until ")
    assert response["response_type"] == "ephemeral"
    assert response["replace_original"] is False
    assert alert(alert_id).status == "firing"


def test_a_person_is_told_what_went_wrong_and_nobody_else_is(workspace, fire, connect):
    ts = posted(workspace, alert_id := fire())
    connect("airis_default", conn_type="airis", host="http://127.0.0.1:9", password="x", extra={"timeout": 1})
    assert ask(workspace, "press", ts=ts, action_id=f"ack_alert_{alert_id}") == {"status": 200}
    (response,) = until(lambda: shown(workspace, "responses"))
    assert response["text"] == "AIRIS-MON could not be told. Try again in a minute."
    assert response["response_type"] == "ephemeral"


def test_a_button_is_answered_before_slack_gives_up_though_the_hub_takes_longer(workspace, fire, connect, hub):
    alert_id = fire()
    ts = posted(workspace, alert_id)
    with FaultProxy(hub.url, [Fault(action="latency", path="/acknowledge", seconds=4)]) as slow:
        connect("airis_default", conn_type="airis", host=slow.url, password=hub.token)
        # The stand-in gives up after three seconds, as Slack does.
        assert ask(workspace, "press", ts=ts, action_id=f"ack_alert_{alert_id}") == {"status": 200}
        until(lambda: alert(alert_id).status == "acknowledged")


def test_without_the_scope_for_emails_people_are_named_as_slack_names_them(workspace, fire):
    ask(workspace, "tokens", token="xoxb-good", scopes=["chat:write"])
    alert_id = fire()
    ts = posted(workspace, alert_id)
    assert ask(workspace, "press", ts=ts, action_id=f"ack_alert_{alert_id}") == {"status": 200}
    assert alert(alert_id).acknowledged_by == "jane"


@pytest.fixture
def account(pagerduty: Server, server: ApiServer, connect: Callable[..., str]) -> Server:
    """PagerDuty, with its webhooks leading to the server."""
    extra = {"webhook_secret": SECRET, "api_token": TOKEN, "api_host": pagerduty.url}
    connect(
        "pagerduty_events_default", conn_type="pagerduty_events", host=pagerduty.url, password="a" * 32, extra=extra
    )
    ask(pagerduty, "reset")
    ask(pagerduty, "webhook", url=f"{server.url}/pagerduty", secret=SECRET)
    return pagerduty


def told(account: Server, alert_id: str) -> str:
    """The alert's incident."""
    AirisToPagerDutyOperator(task_id="pd", alert_id=alert_id, target="pagerduty_events_default").execute({})
    return str(shown(account, "incidents")[-1]["id"])


def test_what_is_done_in_pagerduty_edits_the_message_in_slack(account, workspace, fire):
    alert_id = fire()
    ts, incident = posted(workspace, alert_id), told(account, alert_id)
    assert ask(account, "act", incident=incident, action="acknowledge") == {"status": 200}
    assert alert(alert_id).acknowledged_by == "Jane Doe"
    assert posted(workspace, alert_id) == ts
    assert "Acknowledged by Jane Doe" in json.dumps(shown(workspace, "requests")[-1])
    assert ask(account, "act", incident=incident, action="resolve") == {"status": 200}
    assert alert(alert_id).status == "resolved"


def test_what_the_hub_has_told_pagerduty_does_not_come_back(account, server, fire):
    alert_id = fire()
    told(account, alert_id)
    with AirisHook() as hub:
        hub.acknowledge(alert_id, "ada")
        told(account, alert_id)
        hub.resolve(alert_id, "ada")
        told(account, alert_id)
    until(lambda: server.counted("pagerduty", "ignored") == 3)
    assert not [name for name in server.counters.counted if not name.endswith("ignored")]


def test_an_incident_of_many_alerts_is_acknowledged_with_all_of_them(account, server, fire, hub):
    ask(account, "webhook", url=f"{server.url}/pagerduty", secret=SECRET, keys=False, together=True)
    first = fire()
    incident = told(account, first)
    rest = [fire() for _ in range(100)]
    for alert_id in rest:
        event = {"routing_key": "a" * 32, "event_action": "trigger", "dedup_key": f"airis-mon-{alert_id}"}
        payload = {"summary": "x", "source": "y", "severity": "info"}
        httpx2.post(f"{account.url}/v2/enqueue", json={**event, "payload": payload}).raise_for_status()
    ask(account, "act", incident=incident, action="acknowledge")
    until(lambda: all(alert(alert_id).status == "acknowledged" for alert_id in [first, *rest]))


def test_an_incident_without_a_key_is_known_by_those_of_its_alerts(account, server, fire, connect, pagerduty):
    ask(account, "webhook", url=f"{server.url}/pagerduty", secret=SECRET, keys=False)
    alert_id = fire()
    incident = told(account, alert_id)
    assert ask(account, "act", incident=incident, action="acknowledge") == {"status": 200}
    assert alert(alert_id).status == "acknowledged"
    extra = {"webhook_secret": SECRET, "api_host": pagerduty.url}
    connect(
        "pagerduty_events_default", conn_type="pagerduty_events", host=pagerduty.url, password="a" * 32, extra=extra
    )
    assert ask(account, "act", incident=incident, action="resolve") == {"status": 200}
    assert server.counted("pagerduty", "unknown") == 1
    assert alert(alert_id).status == "acknowledged"


def test_an_incident_that_is_reassigned_is_an_event_once(account, server, fire):
    alert_id = fire()
    incident = told(account, alert_id)
    assert ask(account, "act", incident=incident, action="reassign", assignee="Max Roe") == {"status": 200}
    with AirisHook() as hub:
        (event,) = [e for e in hub.events(event_type="alert_assigned") if e["data"]["alert_id"] == alert_id]
    assert (event["source"], event["data"]["by"], event["data"]["to"]) == ("pagerduty", "Jane Doe", "Max Roe")
    assert alert(alert_id).status == "firing"


def group(*alert_ids: str, labels: str, route: str = "") -> str:
    """Alerts that Slack was shown as one."""
    known_by = f"group-{time.time_ns():x}"
    with AirisHook() as hub:
        alerts = {alert_id: Shown("firing", hub.alert(alert_id).updated_at) for alert_id in alert_ids}
        fields = {"receiver": "ml", "channel": "slack", "target": "#alerts", "reference": "C1:1.0", "at": now_ms()}
        hub.log_notifications([LogEntry(group=f"{{}}{route}:{{{labels}}}", id=known_by, alerts=alerts, **fields)])
    return known_by


def test_a_group_is_acknowledged_but_not_what_has_fired_since(server, fire):
    first, second = fire(model_id="a"), fire(model_id="b")
    known_by = group(first, second, labels="")
    body = json.loads(acknowledging("servicenow", known_by))
    old = json.dumps(body | {"at": now_ms() - 120_000}).encode()
    assert send(server, "servicenow", old) == 200
    assert {alert(first).status, alert(second).status} == {"firing"}
    assert send(server, "servicenow", json.dumps(body).encode()) == 200
    assert {alert(first).acknowledged_by, alert(second).acknowledged_by} == {"Jane Doe"}


def press_silence(server: ApiServer, known_by: str, *, response_url: str = "") -> int:
    action = {"action_id": "airis_silence_1h", "value": known_by, "action_ts": str(now_ms() / 1000)}
    payload = {"type": "block_actions", "user": {"id": "U0GUEST0001", "name": "guest"}, "actions": [action]}
    return send(server, "slack", urlencode({"payload": json.dumps({**payload, "response_url": response_url})}).encode())


@pytest.fixture
def silenced(server: ApiServer) -> Callable[[str], Silence]:
    """Presses *Silence 1 h* of a message; the silence, which is over then."""

    def silenced(known_by: str) -> Silence:
        assert press_silence(server, known_by) == 200
        with AirisHook() as hub:
            (silence,) = hub.silences()
            hub.expire_silence(silence.id)
        return silence

    return silenced


def test_a_group_is_silenced_as_narrowly_as_it_was_shown(silenced, fire):
    """Its route's matchers and what its alerts have in common: another route's like-named alert is sent on."""
    its = {"team": "dev", "zone": "a"}
    first = fire(environment="staging", tags=its)
    second = fire(environment="staging", tags=its | {"zone": "b"}, model_id="fraud")
    name = alert(first).name
    route = r'/{environment="staging",team=~"dev|ops:[{]\""}'
    silence = silenced(group(first, second, labels="", route=route))
    assert [str(matcher) for matcher in silence.matchers] == [
        'environment="staging"',
        r'team=~"dev|ops:[{]\""',
        'team="dev"',
    ]
    at = now_ms()
    assert silence.silences({"alertname": name, "environment": "staging", "team": "dev"}, at)
    for other in ({"team": "payments"}, {"environment": "production"}):
        assert not silence.silences({"alertname": name, "environment": "staging", "team": "dev", **other}, at)


@pytest.mark.parametrize("labels", [r'model_id="fraud", team="a:{b}"', ""])
def test_a_silence_has_the_groups_labels_and_the_common_ones(silenced, fire, labels):
    alert_id = fire(model_id="fraud", tags={"team": "a:{b}"})
    silence = silenced(group(alert_id, labels=labels))
    its = {"alertname": alert(alert_id).name, "model_id": "fraud", "team": "a:{b}"}
    assert {matcher.name: matcher.value for matcher in silence.matchers} == its
    assert silence.silences(its, now_ms())
    assert not silence.silences({**its, "model_id": "other"}, now_ms())


def test_alerts_without_a_common_label_are_silenced_by_name(silenced, fire):
    first, second = fire(), fire()
    (matcher,) = silenced(group(first, second, labels="")).matchers
    assert [matcher.matches({"alert_id": one}) for one in (first, second, "another")] == [True, True, False]


def test_a_silence_that_would_be_too_wide_is_refused_to_the_person(workspace, server, hub):
    ids = []
    with httpx2.Client(base_url=hub.url, headers={"Authorization": f"Bearer {hub.token}"}) as client:
        for number in range(1_300):
            fields = {"name": f"a{number}", "severity": "low", "fingerprint": f"wide-{number}"}
            ids.append(client.post("/api/v1/alerts", json=fields).json()["id"])
    known_by = f"group-{time.time_ns():x}"
    with AirisHook() as hook:
        alerts = {alert_id: Shown("firing", now_ms()) for alert_id in ids}
        fields = {"receiver": "ml", "channel": "slack", "target": "#alerts", "reference": "C1:1.0", "at": now_ms()}
        hook.log_notifications([LogEntry(group="{}:{}", id=known_by, alerts=alerts, **fields)])
    assert press_silence(server, known_by, response_url=f"{workspace.url}/actions/T0AIRIS/1/1.0") == 200
    (response,) = until(lambda: shown(workspace, "responses"))
    assert response["text"].startswith("Nothing is silenced: the 1,300 alerts of this message have no label in common")
    with AirisHook() as hook:
        assert hook.silences() == []
    assert server.counted("slack", "failed") == 0


# What ServiceNow offers to scripts, of which each says what it was asked for.
INSTANCE = """
const crypto = require('crypto');
const record = (fields) => ({getValue: (name) => fields[name] ?? null});
const current = record(INCIDENT), previous = record({});
const gs = {getProperty: () => SECRET, error: (text) => console.error(text)};
const GlideStringUtil = {base64Encode: (text) => Buffer.from(text).toString('base64')};
function GlideDateTime(text) {
    this.getNumericValue = () => String(text ? Date.parse(text.replace(' ', 'T') + 'Z') : Date.now());
}
function GlideRecord() {
    const fields = {email: 'beth@example.com'};
    return {get: (name, value) => value === 'beth.anglin', getValue: (name) => fields[name]};
}
function GlideCertificateEncryption() {
    this.generateMac = (key, algorithm, data) => {
        if (algorithm !== 'HmacSHA256') throw algorithm;
        return crypto.createHmac('sha256', Buffer.from(key, 'base64')).update(data).digest('base64');
    };
}
const sn_ws = {RESTMessageV2: function () {
    const sent = {headers: {}};
    this.setEndpoint = (url) => { sent.url = url; };
    this.setHttpMethod = (method) => { sent.method = method; };
    this.setRequestHeader = (name, value) => { sent.headers[name] = value; };
    this.setRequestBody = (body) => { sent.body = body; };
    this.execute = () => { console.log(JSON.stringify(sent)); return {getStatusCode: () => STATUS}; };
}};
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_the_script_for_servicenow_sends_what_is_taken(server, fire):
    (script,) = re.findall(r"```js\n(.*?)```", (ROOT / "docs/receive.md").read_text(), re.DOTALL)
    sync(user("banglin", "beth@example.com", display_name="Beth Anglin"))
    alert_id = fire()
    incident = {
        "correlation_id": f"airis-mon-{alert_id}",
        "number": "INC0010001",
        "state": "2",
        "assigned_to": None,
        "sys_updated_on": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S"),
        "sys_updated_by": "beth.anglin",
    }
    known = f"const INCIDENT = {json.dumps(incident)}, SECRET = {json.dumps(SECRET)}, STATUS = 401;"
    done = subprocess.run(["node", "-e", known + INSTANCE + script], capture_output=True, text=True, timeout=60)
    assert done.stderr == "AIRIS-MON answered 401 about INC0010001\n"
    sent = json.loads(done.stdout)
    assert (sent["method"], urlsplit(sent["url"]).path) == ("post", "/airis/receive/servicenow")
    assert server.post("servicenow", sent["body"].encode(), sent["headers"]) == 200
    known = alert(alert_id)
    assert (known.status, known.acknowledged_by) == ("acknowledged", "Beth Anglin (banglin)")


def test_the_page_names_every_outcome_with_its_status():
    page = (ROOT / "docs/receive.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \|", page, re.MULTILINE)
    assert {outcome: int(status) for outcome, status in rows} == STATUSES
    refused = f"more than {REFUSED_PER_S} a second that are refused, once {REFUSED_BURST}"
    for number in (
        f"{MOST_BYTES:,} bytes",
        f"within {READ_S} seconds",
        f"more than {PER_S} a second, once {BURST}",
        refused,
    ):
        assert number in page
    assert {f"/airis/receive/{stem}" for stem in STEMS} == set(re.findall(r"`(/airis/receive/\w+)` \|", page))
