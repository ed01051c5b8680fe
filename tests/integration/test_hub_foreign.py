"""Alerts of other systems: episodes by the API, and by the signed webhooks of another AIRIS-MON."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import httpx2
import pytest

from tests.conftest import Hub
from tests.databases import Databases
from tests.integration.test_hub_api import ok, problem

MINUTE = 60_000
SECRET = "whsec_" + "k" * 32
_numbers = count()


@pytest.fixture(scope="module")
def hub(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    folder = tmp_path_factory.mktemp("hub")
    hub = Hub(folder, databases.fresh(folder))
    yield hub
    hub.server.stop()
    databases.drop(hub.database)


@pytest.fixture
def client(hub: Hub) -> Iterator[httpx2.Client]:
    headers = {"Authorization": f"Bearer {hub.token}"}
    with httpx2.Client(base_url=f"{hub.url}/api/v1", headers=headers, timeout=60) as client:
        yield client


@pytest.fixture
def start() -> int:
    return int(time.time() * 1000) - 10 * MINUTE


@pytest.fixture
def mark() -> str:
    """A fingerprint that no other test uses."""
    return f"mark-{next(_numbers)}"


def said(mark: str, starts_at: int, updated_at: int | None = None, **fields: Any) -> dict[str, Any]:
    origin: dict[str, Any] = {"system": "prometheus", "fingerprint": mark, "starts_at": starts_at}
    if updated_at is not None:
        origin["updated_at"] = updated_at
    return {"name": "drift", "severity": "high", "origin": origin, **fields}


def post(client: httpx2.Client, body: dict[str, Any], status: int = 200) -> Any:
    return ok(client.post("/alerts", json=body), status)


def history(client: httpx2.Client, alert_id: str) -> list[str]:
    return [entry["change"] for entry in ok(client.get(f"/alerts/{alert_id}"))["history"]]


# Episodes


def test_an_episode_is_one_alert(client, mark, start):
    alert = post(client, said(mark, start, model_id="m", tags={"a": "b"}), 201)
    assert (alert["timestamp"], alert["status"], alert["source"], alert["model_id"]) == (
        start,
        "firing",
        "prometheus",
        "m",
    )
    described = post(client, said(mark, start, description="more"))
    assert (described["id"], described["description"], described["source"]) == (alert["id"], "more", "prometheus")
    assert post(client, said(mark, start, severity="critical"))["severity"] == "critical"
    ended = post(client, said(mark, start, severity="critical", ends_at=start + MINUTE))
    assert (ended["id"], ended["status"]) == (alert["id"], "resolved")
    assert history(client, alert["id"]) == ["fired", "severity_changed", "resolved"]
    other = post(client, said(mark, start + 2 * MINUTE), 201)
    assert other["id"] != alert["id"]
    assert other["fingerprint"] == alert["fingerprint"]


def test_what_is_older_changes_nothing(client, mark, start):
    first = post(client, said(mark, start), 201)
    post(client, said(mark, start, ends_at=start + 1))
    again = post(client, said(mark, start))
    assert (again["id"], again["status"]) == (first["id"], "resolved")
    second = post(client, said(mark, start + MINUTE), 201)
    for older in (said(mark, start), said(mark, start, ends_at=start + 1), said(mark, start - MINUTE, severity="low")):
        answer = post(client, older)
        assert answer == second | {"duration": answer["duration"]}
    assert history(client, second["id"]) == ["fired"]


def test_of_two_things_said_of_an_episode_the_later_holds(client, mark, start):
    alert = post(client, said(mark, start, start + 5, severity="low"), 201)
    assert post(client, said(mark, start, start + 4, severity="critical"))["severity"] == "low"
    assert post(client, said(mark, start, start + 6, severity="medium"))["severity"] == "medium"
    # A hub that does not say when is believed.
    assert post(client, said(mark, start, severity="high"))["severity"] == "high"
    assert history(client, alert["id"]) == ["fired", "severity_changed", "severity_changed"]


def test_a_new_episode_ends_the_one_before(client, mark, start):
    first = post(client, said(mark, start), 201)
    second = post(client, said(mark, start + MINUTE), 201)
    assert history(client, first["id"]) == ["fired", "resolved"]
    assert history(client, second["id"]) == ["fired"]


def test_an_episode_that_is_over_before_it_is_heard_of_is_kept(client, mark, start):
    alert = post(client, said(mark, start, ends_at=start + MINUTE), 201)
    assert history(client, alert["id"]) == ["fired", "resolved"]
    assert post(client, said(mark, start, ends_at=start + MINUTE))["id"] == alert["id"]
    assert history(client, alert["id"]) == ["fired", "resolved"]


def test_what_somebody_resolved_stays_so_until_the_next_episode(client, mark, start):
    alert = post(client, said(mark, start), 201)
    ok(client.post(f"/alerts/{alert['id']}/resolve", json={"by": "me"}))
    assert post(client, said(mark, start))["status"] == "resolved"
    assert post(client, said(mark, start, ends_at=start + 1))["id"] == alert["id"]
    assert history(client, alert["id"]) == ["fired", "resolved"]
    assert post(client, said(mark, start + 1), 201)["status"] == "firing"


def test_systems_do_not_meet(client, mark, start):
    bodies = [said(mark, start) for _ in range(2)]
    bodies[1]["origin"]["system"] = "grafana"
    assert len({post(client, body, 201)["fingerprint"] for body in bodies}) == 2


def test_any_order_of_arrival_ends_in_the_same_state(client, start):
    """Two episodes, each fired, escalated and resolved; sent in every order, each twice."""
    steps = [
        ({"severity": "low"}, start, start + 1),
        ({"severity": "high"}, start, start + 2),
        ({"severity": "high", "ends_at": start + 3}, start, start + 3),
        ({"severity": "low"}, start + 9, start + 10),
        ({"severity": "critical"}, start + 9, start + 11),
    ]
    for number, order in enumerate(itertools.permutations(range(len(steps)))):
        if number % 5:  # a part of them is enough
            continue
        mark = f"order-{number}"
        for place in (*order, *order):
            fields, starts_at, updated_at = steps[place]
            answer = client.post("/alerts", json=said(mark, starts_at, updated_at, **fields))
            assert answer.status_code in (200, 201)
        newest = ok(client.get("/alerts", params={"fingerprint": answer.json()["fingerprint"]}))["alerts"]
        assert (newest[0]["severity"], newest[0]["status"]) == ("critical", "firing"), order
        assert [alert["status"] for alert in newest[1:]] in ([], ["resolved"])


def test_of_many_at_once_one_raises_the_alert(client, mark, start):
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: client.post("/alerts", json=said(mark, start)), range(16)))
    assert sorted(answer.status_code for answer in answers) == [200] * 15 + [201]
    assert len({answer.json()["id"] for answer in answers}) == 1


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"fingerprint": "x"}, "/fingerprint"),
        ({"ends_at": 1}, "/ends_at"),
        ({"ends_at": "soon"}, "/ends_at"),
        ({"origin": {"system": "s", "fingerprint": "f"}}, "/origin/starts_at"),
        ({"origin": {"system": "", "fingerprint": "f", "starts_at": 1}}, "/origin/system"),
        ({"origin": {"system": "s" * 301, "fingerprint": "f", "starts_at": 1}}, "/origin/system"),
        ({"origin": {"system": "s", "fingerprint": "f\0", "starts_at": 1}}, "/origin/fingerprint"),
        ({"origin": {"system": "s", "fingerprint": "f", "starts_at": -1}}, "/origin/starts_at"),
        ({"origin": {"system": "s", "fingerprint": "f", "starts_at": 1 << 60}}, "/origin/starts_at"),
        ({"origin": {"system": "s", "fingerprint": "f", "starts_at": 1 << 52}}, "/origin/starts_at"),
        ({"origin": {"system": "s", "fingerprint": "f", "starts_at": 1, "x": 1}}, "/origin/x"),
        ({"origin": None, "ends_at": 5}, "/ends_at"),
    ],
)
def test_what_is_no_episode_is_refused(client, mark, start, fields, pointer):
    problem(client.post("/alerts", json=said(mark, start) | fields), 400, pointer)


def test_a_rules_fingerprint_is_nobody_elses(client, mark):
    """Neither while its alert is open nor afterwards: the rule would take the client's alert for its own."""
    rule = {"id": mark, "name": "r", "metric": mark, "aggregation": "last", "window_s": 60, "comparator": ">"}
    ok(client.put(f"/rules/{mark}", json=rule | {"threshold": 1, "severity": "low"}), 201)
    found: list[dict[str, Any]] = []
    for value, status in ((2.0, "firing"), (0.0, "resolved")):
        points = [{"name": mark, "value": value, "unit": "", "tags": {"a": "b"}}]
        ok(client.post("/metrics/ingest", json={"timestamp": _now(), "source": mark, "metrics": points}))
        found = [one for one in ok(client.get("/alerts"))["alerts"] if one["name"] == "r" and one["source"] == mark]
        assert [one["status"] for one in found] == [status]
        body = {"name": "mine", "severity": "low", "fingerprint": found[0]["fingerprint"]}
        assert mark in problem(client.post("/alerts", json=body), 409, "/fingerprint")
    assert history(client, found[0]["id"]) == ["fired", "resolved"]


def _now() -> int:
    return int(time.time() * 1000)


# Signed webhooks


@pytest.fixture
def name(client: httpx2.Client) -> str:
    """Whose webhooks are taken, under SECRET."""
    name = f"airis-{next(_numbers)}"
    answer = ok(client.put(f"/inbound-webhooks/{name}", json={"secret": SECRET}), 201)
    assert answer["path"] == f"/api/v1/inbound-webhooks/{name}/alerts"
    assert SECRET not in str(answer)
    return name


def signature(content: bytes, secret: str = SECRET, at: float | None = None) -> str:
    stamp = str(int(time.time() if at is None else at))
    return f"t={stamp},v1={hmac.new(secret.encode(), stamp.encode() + b'.' + content, hashlib.sha256).hexdigest()}"


def send(client: httpx2.Client, name: str, body: Any, header: str | None = None) -> httpx2.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"X-Airis-Signature": signature(content) if header is None else header, "Authorization": ""}
    return client.post(f"/inbound-webhooks/{name}/alerts", content=content, headers=headers)


def alert(mark: str, start: int, **fields: Any) -> dict[str, Any]:
    return {"id": mark, "name": "drift", "severity": "high", "timestamp": start, "more": {"unknown": 1}} | fields


@pytest.mark.parametrize(
    "wrap",
    [
        lambda alert, change: {"change": change, "url": "u", "alert": alert},
        lambda alert, change: {"event_type": f"alert.{change}", "timestamp": alert["timestamp"] + 1, "data": alert},
        lambda alert, change: {"event": f"alert.{change}", "data": {"alert": alert}},
        lambda alert, change: {"event_type": f"alert.{change}", "data": {"alerts": [alert]}},
    ],
)
def test_an_alert_comes_in_whatever_it_is_wrapped(client, name, mark, start, wrap):
    fired = alert(mark, start, model_id="m", threshold=2, tags={"a": "b"})
    (raised,) = ok(send(client, name, wrap(fired, "fired")))["alerts"]
    held = ok(client.get(f"/alerts/{raised}"))
    expected = {
        "name": "drift",
        "severity": "high",
        "status": "firing",
        "source": name,
        "model_id": "m",
        "threshold": 2,
        "tags": {"a": "b"},
        "timestamp": start,
    }
    assert held | expected == held
    later = alert(mark, start, acknowledged_by="ann")
    for change in ("acknowledged", "acknowledged", "fired", "resolved", "resolved", "fired"):
        assert ok(send(client, name, wrap(later, change)))["alerts"] == [raised]
    assert history(client, raised) == ["fired", "acknowledged", "resolved"]
    assert ok(client.get(f"/alerts/{raised}"))["acknowledged_by"] == "ann"


def test_an_alert_says_its_own_status(client, name, mark, start):
    (raised,) = ok(send(client, name, alert(mark, start, status="firing", updated_at=start + 1)))["alerts"]
    ok(send(client, name, alert(mark, start, status="acknowledged", updated_at=start + 3, severity="CRITICAL")))
    ok(send(client, name, alert(mark, start, status="firing", updated_at=start + 2)))
    ok(send(client, name, alert(mark, start, status="resolved", updated_at=start + 4, severity="critical")))
    assert history(client, raised) == ["fired", "severity_changed", "acknowledged", "resolved"]


def test_nobody_else_posts_alerts(client, name, mark, start):
    content = json.dumps(alert(mark, start)).encode()
    good = signature(content)
    now = time.time()
    for header in (
        "",
        "nonsense",
        good.replace("v1=", "v0="),
        good[:-1] + ("0" if good[-1] != "0" else "1"),
        signature(content, "another-secret-of-24-characters"),
        signature(content + b" "),
        signature(content, at=now - 400),
        signature(content, at=now + 400),
        good + "," + good,
    ):
        problem(send(client, name, content, header), 401)
    problem(send(client, "unheard-of", content, good), 401)
    assert name not in {one["source"] for one in ok(client.get("/alerts", params={"limit": 5000}))["alerts"]}
    other = signature(content, "another-secret-of-24-characters")
    ok(send(client, name, content, good + other[other.index(",") :]))


def test_the_secret_before_stays_valid_once(client, name, mark, start):
    content = json.dumps(alert(mark, start)).encode()
    secrets = [SECRET, "s" * 24, "t" * 24]
    for secret in secrets[1:]:
        for _ in range(2):  # the same again replaces nothing
            ok(client.put(f"/inbound-webhooks/{name}", json={"secret": secret}))
        place = secrets.index(secret)
        for known in secrets[place - 1 : place + 1]:
            ok(send(client, name, content, signature(content, known)))
        for gone in secrets[: place - 1]:
            problem(send(client, name, content, signature(content, gone)), 401)
    listed = client.get("/inbound-webhooks")
    assert name in [one["name"] for one in ok(listed)["inbound_webhooks"]]
    assert not any(secret in listed.text for secret in secrets)
    assert client.delete(f"/inbound-webhooks/{name}").status_code == 204
    problem(send(client, name, content, signature(content, "t" * 24)), 401)
    problem(client.delete(f"/inbound-webhooks/{name}"), 404)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (b"", None),
        (b"[]", None),
        ({}, "/name"),
        ({"data": {}}, "/data/name"),
        ({"alerts": []}, "/alerts"),
        ({"name": "n", "severity": "high", "timestamp": 1}, "/origin/fingerprint"),
        ({"id": "i", "name": "n", "severity": "high"}, "/origin/starts_at"),
        ({"id": "i", "name": "n", "severity": "awful", "timestamp": 1}, "/severity"),
        ({"alerts": [alert("i", 1), alert("j", 1, name=None)]}, "/alerts/1/name"),
    ],
)
def test_what_is_no_alert_is_refused(client, name, body, pointer):
    answer = send(client, name, body)
    if pointer is None:
        problem(answer, 400)
    else:
        problem(answer, 400, pointer)


def test_secrets_are_set_by_administrators(client, name):
    for secret in ("short", "x" * 301, "with a blank in its middle, yes"):
        problem(client.put(f"/inbound-webhooks/{name}", json={"secret": secret}), 400, "/secret")
    problem(client.put("/inbound-webhooks/a%2Fb", json={"secret": SECRET}), 404)
    problem(client.put("/inbound-webhooks/a%20b", json={"secret": SECRET}), 400, "/name")
    with httpx2.Client(base_url=client.base_url) as nobody:
        problem(nobody.put(f"/inbound-webhooks/{name}", json={"secret": SECRET}), 401)
        problem(nobody.get("/inbound-webhooks"), 401)
