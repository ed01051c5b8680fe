"""The readers' state: checkpoints, leases, wake-up times, last points, over sockets, and the client of them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count
from typing import Any

import httpx2
import pytest

from airflow_provider_airis.errors import (
    CheckpointConflictError,
    LeaseLostError,
    LeaseTakenError,
    PermanentError,
    RetryableError,
)
from airflow_provider_airis.hooks.airis import AirisHook, Checkpoint, LastPoint
from airflow_provider_airis.records import Metric
from sandbox.process import Server
from tests.databases import Databases
from tests.integration.test_hub_api import ok, problem

MINUTE = 60_000
TOKENS = {
    **{scope: {"token": f"only-{scope}-0123456789", "scopes": [scope]} for scope in ("ingest", "read", "alerts")},
    "rules": {"token": "only-rules-0123456789", "scopes": ["admin"]},
    "admin": {"token": "everything-0123456789", "scopes": ["ingest", "read", "alerts", "admin"]},
}
_numbers = count()


@pytest.fixture(scope="module")
def server(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("hub")
    database = databases.fresh(folder)
    (folder / "tokens.json").write_text(json.dumps(TOKENS))
    options = "--port", "0", "--database", database, "--tokens", f"{folder}/tokens.json"
    with Server("airflow_provider_airis.hub", *options) as server:
        yield server
    databases.drop(database)


@pytest.fixture(scope="module")
def clients(server: Server) -> Iterator[dict[str, httpx2.Client]]:
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(
                httpx2.Client(
                    base_url=f"{server.url}/api/v1",
                    headers={"Authorization": f"Bearer {entry['token']}"},
                    timeout=60,
                )
            )
            for name, entry in TOKENS.items()
        }


@pytest.fixture(scope="module")
def client(clients: dict[str, httpx2.Client]) -> httpx2.Client:
    return clients["admin"]


@pytest.fixture
def hub(server: Server, connect: Any) -> Iterator[AirisHook]:
    connect("airis_default", conn_type="airis", host=server.url, password=TOKENS["admin"]["token"])
    with AirisHook() as hook:
        yield hook


@pytest.fixture
def name() -> str:
    """A name that no other test uses."""
    return f"state-{next(_numbers)}"


def put(client: httpx2.Client, name: str, value: Any, version: int | str | None = None, **headers: str) -> Any:
    if version is not None:
        headers["If-Match"] = str(version)
    return client.put(f"/checkpoints/{name}", json={"value": value}, headers=headers)


# Checkpoints


@pytest.mark.parametrize("value", [None, 0, "", [], {"a": [1.5, "ü€𝄞", {"b": None}]}, 2**63])
def test_a_checkpoint_holds_any_json(client, name, value):
    assert ok(put(client, name, value))["version"] == 1
    answer = client.get(f"/checkpoints/{name}")
    assert ok(answer)["value"] == value
    assert ok(answer) == {"name": name, "version": 1, "value": value, "updated_at": answer.json()["updated_at"]}
    assert answer.headers["ETag"] == '"1"'


def test_a_checkpoint_is_replaced_by_its_version_only(client, name):
    problem(put(client, name, "late", 1), 412)
    assert ok(put(client, name, "a", 0))["version"] == 1
    assert "is at version 1, it was to be new" in problem(put(client, name, "b"), 412)
    problem(put(client, name, "b", 0), 412)
    assert ok(put(client, name, "b", '"1"'))["version"] == 2
    assert "is at version 2, not 1" in problem(put(client, name, "c", 1), 412)
    problem(put(client, name, "c", 3), 412)
    assert ok(client.get(f"/checkpoints/{name}"))["value"] == "b"


@pytest.mark.parametrize("version", ["*", 'W/"1"', "-1", "1.0", "", "9" * 19, "\u0661"])
def test_if_match_is_a_version(client, name, version):
    headers = {"If-Match": version.encode()}
    problem(client.put(f"/checkpoints/{name}", json={"value": 1}, headers=headers), 400, "/If-Match")


def test_of_many_writers_one_is_the_fastest(client, name):
    ok(put(client, name, [], 0))
    with ThreadPoolExecutor(8) as pool:
        for version in range(1, 6):
            answers = list(pool.map(lambda writer, at=version: put(client, name, [at, writer], at), range(16)))
            assert sorted(answer.status_code for answer in answers) == [200] + [412] * 15
            winner = next(writer for writer, answer in enumerate(answers) if answer.status_code == 200)
            assert ok(client.get(f"/checkpoints/{name}"))["value"] == [version, winner]


def test_a_deleted_checkpoint_is_not_taken_for_the_one_that_follows(client, name):
    ok(put(client, name, "first"))
    problem(client.delete(f"/checkpoints/{name}", headers={"If-Match": "2"}), 412)
    for _ in range(2):
        assert client.delete(f"/checkpoints/{name}").status_code == 204
    problem(client.get(f"/checkpoints/{name}"), 404)
    problem(put(client, name, "late", 1), 412)
    problem(client.delete(f"/checkpoints/{name}", headers={"If-Match": "1"}), 412)
    version = ok(put(client, name, "second"))["version"]
    assert version > 1
    problem(put(client, name, "late", 1), 412)
    assert client.delete(f"/checkpoints/{name}", headers={"If-Match": str(version)}).status_code == 204


def test_an_answer_that_was_lost_is_given_again(client, name):
    key = {"Idempotency-Key": name}
    first = put(client, name, "a", 0, **key)
    again = put(client, name, "a", 0, **key)
    assert ok(again) == ok(first)
    assert again.headers["Idempotency-Replayed"] == "true"
    problem(put(client, name, "b", 0, **key), 409)


def test_checkpoints_are_listed_by_prefix_in_pages(client, name):
    tails = [
        "",
        "/",
        "/a",
        "/B",
        "/a%_b",
        "/ä",
        "/\U0010ffff",
        "/\U0010ffff\U0010ffffx",
        *(f"/{i:03}" for i in range(20)),
    ]
    for tail in tails:
        ok(client.put(_url(name + tail), json={"value": tail}))
    ok(put(client, f"{name}0", 1))
    ok(client.put(_url(f"{name.upper()}/a"), json={"value": 1}))
    ok(client.put(_url(f"{name}/gone"), json={"value": 1}))
    assert client.delete(_url(f"{name}/gone")).status_code == 204
    found, cursor = [], None
    while True:
        params = {"prefix": f"{name}/", "limit": 7} | ({"cursor": cursor} if cursor else {})
        page = ok(client.get("/checkpoints", params=params))
        found += page["checkpoints"]
        cursor = page["cursor"]
        if cursor is None:
            break
        assert len(page["checkpoints"]) == 7
    assert [one["value"] for one in found] == sorted(tail for tail in tails if tail)
    assert all(one["name"] == name + one["value"] and one["version"] == 1 for one in found)
    problem(client.get("/checkpoints", params={"cursor": "nonsense"}), 400, "/cursor")
    problem(client.get("/checkpoints", params={"prefix": "x" * 301}), 400, "/prefix")


def _url(name: str) -> str:
    from urllib.parse import quote

    return f"/checkpoints/{quote(name, safe='')}"


def test_a_page_holds_no_more_than_one_of_the_largest(client, name):
    large = "x" * (8 * 1024 * 1024 - 2)
    for i in range(3):
        ok(put(client, f"{name}/{i}", large))
    ok(put(client, f"{name}/3", "small"))
    params: dict[str, Any] = {"prefix": f"{name}/"}
    sizes = []
    while True:
        page = ok(client.get("/checkpoints", params=params))
        sizes.append(len(page["checkpoints"]))
        if page["cursor"] is None:
            break
        params["cursor"] = page["cursor"]
    assert sizes == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("content", "status", "pointer"),
    [
        (b'{"value": "%s"}' % (b"x" * (8 * 1024 * 1024 - 1)), 413, ["/value"]),
        (b'{"value": "a\\u0000b"}', 400, ["/value"]),
        (b'{"value": "\\\\\\u0000"}', 400, ["/value"]),
        (b'{"value": "\\ud800"}', 400, None),
        (b'{"value": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, None),
        (b'{"value": NaN}', 400, None),
        (b'{"value": 1, "version": 1}', 400, ["/version"]),
        (b"{}", 400, ["/value"]),
        (b"[]", 400, [""]),
        (b"", 400, ["/value"]),
    ],
)
def test_what_is_no_checkpoint_is_refused(client, name, content, status, pointer):
    answer = client.put(f"/checkpoints/{name}", content=content)
    assert answer.status_code == status, answer.text
    if pointer is not None:
        problem(answer, status, *pointer)
    problem(client.get(f"/checkpoints/{name}"), 404)


def test_a_text_that_looks_like_a_nul_is_none(client, name):
    assert client.put(f"/checkpoints/{name}", content=b'{"value": "\\\\u0000"}').status_code == 200
    assert ok(client.get(f"/checkpoints/{name}"))["value"] == "\\u0000"


@pytest.mark.parametrize("path", ["/checkpoints/", "/leases/"])
def test_a_name_has_up_to_300_characters(client, path):
    body = {"value": 1} if path == "/checkpoints/" else {"holder": "h", "ttl_s": 60}
    method = "PUT" if path == "/checkpoints/" else "POST"
    ok(client.request(method, path + "%C3%BC" * 300, json=body))
    problem(client.request(method, path + "x" * 301, json=body), 400, "/name")
    problem(client.request(method, path + "a%00b", json=body), 400, "/name")
    assert ok(client.request(method, path + "a%2Fb c", json=body))["name"] == "a/b c"


@pytest.mark.parametrize("path", ["/checkpoints/scoped", "/leases/scoped"])
def test_sources_and_dispatches_keep_their_state_with_the_token_that_they_have(clients, path):
    method, body = ("PUT", {"value": 1}) if "checkpoints" in path else ("POST", {"holder": "h", "ttl_s": 60})
    for scope in ("ingest", "alerts"):
        ok(clients[scope].request(method, f"{path}-{scope}", json=body))
        ok(clients["read"].get(f"{path}-{scope}"))
        ok(clients[scope].get(f"{path}-{scope}"))
        assert clients[scope].delete(f"{path}-{scope}", params={"token": 1}).status_code == 204
    for nobody in ("read", "rules"):
        problem(clients[nobody].request(method, path, json=body), 403)
        problem(clients[nobody].delete(path, params={"token": 1}), 403)
    problem(clients["rules"].get(path), 403)


# Leases


def take(client: httpx2.Client, name: str, holder: str, ttl_s: float = 600, status: int = 200) -> Any:
    answer = client.post(f"/leases/{name}", json={"holder": holder, "ttl_s": ttl_s})
    assert answer.status_code == status, answer.text
    return answer.json()


def test_one_holds_a_lease_and_renews_it(client, name):
    problem(client.get(f"/leases/{name}"), 404)
    first = take(client, name, "a", 60)
    assert first | {"expires_at": 0} == {"name": name, "holder": "a", "token": 1, "expires_at": 0}
    again = take(client, name, "a", 600)
    assert again["token"] == 1
    assert again["expires_at"] - first["expires_at"] >= 500_000
    refused = take(client, name, "b", status=409)
    assert (refused["holder"], refused["expires_at"]) == ("a", again["expires_at"])
    assert "'a'" in refused["detail"]
    assert ok(client.get(f"/leases/{name}")) == again


def test_a_token_grows_across_releases_and_lapses(client, name):
    assert take(client, name, "a")["token"] == 1
    assert client.delete(f"/leases/{name}", params={"token": 1}).status_code == 204
    problem(client.get(f"/leases/{name}"), 404)
    assert take(client, name, "b", 0.05)["token"] == 2
    while client.get(f"/leases/{name}").status_code == 200:
        pass
    assert take(client, name, "b")["token"] == 3
    # A release that comes late takes the lease from nobody.
    for late in (1, 2):
        assert client.delete(f"/leases/{name}", params={"token": late}).status_code == 204
    assert ok(client.get(f"/leases/{name}"))["token"] == 3
    assert client.delete("/leases/unheard-of", params={"token": 1}).status_code == 204


def test_of_many_one_gets_the_lease(client, name):
    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(lambda i: client.post(f"/leases/{name}", json={"holder": f"h{i}", "ttl_s": 60}), range(16))
        )
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 15


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"ttl_s": 1}, "/holder"),
        ({"holder": "", "ttl_s": 1}, "/holder"),
        ({"holder": "x" * 301, "ttl_s": 1}, "/holder"),
        ({"holder": "a\0", "ttl_s": 1}, "/holder"),
        ({"holder": "h"}, "/ttl_s"),
        ({"holder": "h", "ttl_s": 0}, "/ttl_s"),
        ({"holder": "h", "ttl_s": 86_401}, "/ttl_s"),
        ({"holder": "h", "ttl_s": 1, "token": 1}, "/token"),
    ],
)
def test_what_is_no_lease_is_refused(client, name, body, pointer):
    problem(client.post(f"/leases/{name}", json=body), 400, pointer)


def test_whoever_lost_the_lease_writes_nothing_more(client, name):
    """Every write, of whatever kind, is refused with the older token, and with the current one it is done."""
    held = take(client, name, "old")
    alert = ok(client.post("/alerts", json={"name": name, "severity": "low"}), 201)["id"]
    entry = {"group": name, "receiver": "r", "channel": "c", "target": "t", "id": "group-1", "reference": "", "at": 1}
    point = {"name": "m", "value": 1, "unit": "", "tags": {}}
    event = {"timestamp": 1, "event_type": "t", "source": name, "severity": "info", "data": {}}
    rule = {"name": "r", "metric": "m", "aggregation": "last", "window_s": 60, "comparator": ">", "threshold": 1}
    users = {"event_type": "user_sync", "source": name, "timestamp": 1, "data": {"users": [], "sync_type": "full"}}
    silence = {
        "matchers": [{"name": "a", "value": name}],
        "endsAt": "2100-01-01T00:00:00Z",
        "createdBy": "me",
        "comment": "none",
    }
    routes = b"route:\n  receiver: nobody\nreceivers:\n  - name: nobody\n"
    writes: list[tuple[str, str, Any]] = [
        ("PUT", f"/checkpoints/{name}", {"value": 1}),
        ("DELETE", f"/checkpoints/{name}-none", None),
        ("POST", f"/leases/{name}-other", {"holder": "h", "ttl_s": 1}),
        ("DELETE", f"/leases/{name}-other?token=1", None),
        ("PUT", f"/consumers/{name}", {"sequence": 0}),
        ("POST", "/alerts", {"name": f"{name}-b", "severity": "low"}),
        ("POST", f"/alerts/{alert}/acknowledge", {"by": "me"}),
        ("PUT", f"/alerts/{alert}/notifications/c/t", {"reference": "r", "status": "firing"}),
        ("POST", f"/alerts/{alert}/resolve", {"by": "me"}),
        ("PUT", "/notification-log", {"entries": [entry | {"alerts": {}}]}),
        ("POST", "/silences", silence),
        ("DELETE", f"/silences/{_silence(client, silence)}", None),
        ("PUT", "/routes", routes),
        ("PUT", f"/inbound-webhooks/{name}", {"secret": "s" * 24}),
        ("DELETE", f"/inbound-webhooks/{name}", None),
        ("POST", "/rules", rule | {"severity": "low", "id": f"{name}-new"}),
        ("PUT", f"/rules/{name}", rule | {"severity": "low"}),
        ("DELETE", f"/rules/{name}", None),
        ("POST", "/metrics/ingest", {"timestamp": 1, "source": name, "metrics": [point]}),
        ("POST", "/metrics/batch", {"batches": [{"timestamp": 1, "source": name, "metrics": [point]}]}),
        ("POST", "/events/ingest", event),
        ("POST", "/events/batch", {"events": [event]}),
        ("POST", "/integrations/user-sync", users),
    ]
    assert client.delete(f"/leases/{name}", params={"token": held["token"]}).status_code == 204
    new = take(client, name, "new")
    for method, path, body in writes:
        content: dict[str, Any] = {"json": body}
        if isinstance(body, bytes):
            content = {"content": body, "headers": {"Content-Type": "application/yaml"}}
        elif body is None:
            content = {}
        headers = content.pop("headers", {})
        late = headers | {"X-Airis-Fence": f"{name};{held['token']}"}
        assert "taken by 'new'" in problem(
            client.request(method, path, headers=late, **content), 409, "/X-Airis-Fence"
        ), (method, path)
        good = headers | {"X-Airis-Fence": f"{name};{new['token']}"}
        answer = client.request(method, path, headers=good, **content)
        assert answer.status_code in (200, 201, 204), (method, path, answer.text)
    # The check is complete: there is no other call that writes.
    document = ok(client.get("/openapi.json"))
    paths = {
        (method.upper(), path)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if any(parameter["name"] == "X-Airis-Fence" for parameter in operation.get("parameters", ()))
    }
    assert {(method, path) for method, path in paths if method == "GET"} == set()
    done = {(method, _template(path)) for method, path, _ in writes}
    missed = {f"{method} {path}" for method, path in paths if (method, _template(path)) not in done}
    # A signed post comes from another hub, which has no lease here.
    assert missed == {"POST /api/v1/inbound-webhooks/{name}/alerts"}


def _silence(client: httpx2.Client, silence: dict[str, Any]) -> str:
    return str(ok(client.post("/silences", json=silence))["silenceID"])


def _template(path: str) -> str:
    """A path without what differs from call to call."""
    parts = path.removeprefix("/api/v1").partition("?")[0].strip("/").split("/")
    fixed = ("acknowledge", "resolve", "notifications", "ingest", "batch", "user-sync")
    return "/".join(part if i == 0 or part in fixed else "*" for i, part in enumerate(parts))


@pytest.mark.parametrize(
    "fence", ["", "1", ";1", "a;", "a;-1", "a;x", "a;1.0", f"a;{'9' * 19}", f"{'x' * 301};1", "a%00;1"]
)
def test_a_fence_says_lease_and_token(client, name, fence):
    problem(put(client, name, 1, **{"X-Airis-Fence": fence}), 400, "/X-Airis-Fence")


def test_a_token_that_was_never_given_is_refused(client, name):
    problem(put(client, name, 1, **{"X-Airis-Fence": f"{name};1"}), 409, "/X-Airis-Fence")
    take(client, name, "a")
    problem(put(client, name, 1, **{"X-Airis-Fence": f"{name};2"}), 409, "/X-Airis-Fence")
    ok(put(client, name, 1, **{"X-Airis-Fence": f"{name};1"}))


# Consumers and feeds


def test_a_consumer_says_when_it_wants_to_be_woken(client, name):
    assert ok(client.put(f"/consumers/{name}", json={"sequence": 0}))["wake_at"] is None
    assert ok(client.put(f"/consumers/{name}", json={"sequence": 0, "wake_at": 123}))["wake_at"] == 123
    assert ok(client.put(f"/consumers/{name}", json={"sequence": 0}))["wake_at"] == 123
    assert ok(client.get(f"/consumers/{name}"))["wake_at"] == 123
    ok(client.post("/alerts", json={"name": name, "severity": "low"}), 201)
    assert ok(client.put(f"/consumers/{name}", json={"sequence": 1}))["wake_at"] == 123
    # Whoever is behind changes nothing.
    assert ok(client.put(f"/consumers/{name}", json={"sequence": 0, "wake_at": 5}))["wake_at"] == 123
    assert ok(client.put(f"/consumers/{name}", json={"sequence": 1, "wake_at": None}))["wake_at"] is None
    for wrong in ("soon", -1, 1 << 53, 1.5):
        problem(client.put(f"/consumers/{name}", json={"sequence": 1, "wake_at": wrong}), 400, "/wake_at")
    problem(client.put("/consumers/" + "x" * 301, json={"sequence": 0}), 400, "/name")


@pytest.mark.parametrize("feed", ["/alerts/changes", "/events/changes"])
def test_a_reader_who_is_ahead_of_the_feed_is_told(client, name, feed):
    ok(client.post("/alerts", json={"name": name, "severity": "low"}), 201)
    event = {"timestamp": 1, "event_type": "t", "source": name, "severity": "info", "data": {}}
    ok(client.post("/events/ingest", json=event))
    end, params = 0, {"after": 0, "limit": 5000}
    while page := ok(client.get(feed, params=params))["changes"]:
        end = params["after"] = page[-1]["sequence"]
    assert ok(client.get(feed, params={"after": end}))["changes"] == []
    for wait in (0, 30):
        detail = problem(client.get(feed, params={"after": end + 1, "wait": wait}), 409, "/after")
        assert "feed was restored from an older backup" in detail
        assert str(end) in detail
    ok(client.put(f"/consumers/{name}", json={"sequence": end + 1, "force": True}))
    problem(client.get(feed, params={"consumer": name}), 409, "/consumer")


# Last points


def test_each_series_has_a_last_point(client, name):
    now = int(time.time() * 1000)
    for model in range(12):
        for minute in (3, 1, 2):
            tags = {"model": str(model), "even": str(model % 2 == 0)}
            points = [{"name": "m", "value": 10 * model + minute, "unit": "ms", "tags": tags}]
            body = {"timestamp": now - minute * MINUTE, "source": name, "metrics": points}
            ok(client.post("/metrics/ingest", json=body))
    found, params = [], {"source": name, "limit": 5}
    while True:
        page = ok(client.get("/metrics/last", params=params))
        found += page["series"]
        if page["cursor"] is None:
            break
        assert len(page["series"]) == 5
        params["cursor"] = page["cursor"]
    assert [one["value"] for one in found] == [10 * model + 1 for model in range(12)]
    assert {one["timestamp"] for one in found} == {now - MINUTE}
    assert found[3] == {
        "source": name,
        "name": "m",
        "unit": "ms",
        "tags": {"even": "False", "model": "3"},
        "timestamp": now - MINUTE,
        "value": 31,
    }
    even = ok(client.get("/metrics/last", params={"source": name, "name": "m", "tag": "even:True", "limit": 4}))
    assert [one["tags"]["model"] for one in even["series"]] == ["0", "2", "4", "6"]
    assert even["cursor"]
    one = {"source": name, "tag": ["even:True", "model:2"]}
    assert [found["value"] for found in ok(client.get("/metrics/last", params=one))["series"]] == [21]
    assert ok(client.get("/metrics/last", params={"source": name, "name": "n"}))["series"] == []
    problem(client.get("/metrics/last", params={"tag": "even"}), 400, "/tag")


def test_the_capabilities_say_so(client):
    offered = ok(client.get("/capabilities"))["capabilities"]
    assert {name for name in ("checkpoints", "leases", "metrics.last") if offered[name] is not True} == set()


# The client


def test_the_hook_keeps_checkpoints(hub, name):
    assert hub.checkpoints.get(f"{name}/a b/ü") is None
    first = hub.checkpoints.put(f"{name}/a b/ü", {"seen": [1, 2]})
    assert (
        first
        == hub.checkpoints.get(f"{name}/a b/ü")
        == Checkpoint(f"{name}/a b/ü", 1, {"seen": [1, 2]}, first.updated_at)
    )
    with pytest.raises(CheckpointConflictError, match="is at version 1, it was to be new") as caught:
        hub.checkpoints.put(first.name, {})
    assert isinstance(caught.value, RetryableError)
    second = hub.checkpoints.put(first.name, None, version=first.version)
    assert second.version == 2
    with pytest.raises(CheckpointConflictError, match="is at version 2, not 1"):
        hub.checkpoints.put(first.name, {}, version=1)
    with pytest.raises(CheckpointConflictError):
        hub.checkpoints.delete(first.name, version=1)
    for i in range(3):
        hub.checkpoints.put(f"{name}/{i}", i)
    assert [one.value for one in hub.checkpoints.list(f"{name}/")] == [0, 1, 2, None]
    hub.checkpoints.delete(first.name, version=2)
    hub.checkpoints.delete(first.name)
    assert hub.checkpoints.get(first.name) is None


def test_the_hook_says_what_is_too_large(hub, name):
    with pytest.raises(PermanentError, match="8388608") as caught:
        hub.checkpoints.put(name, "x" * (8 << 20))
    assert (caught.value.status, caught.value.pointer) == (413, "/value")


def test_the_hook_takes_leases(hub, name):
    lease = hub.leases.acquire(f"{name}/ü;1", "run 1", 60)
    assert (lease.holder, lease.token) == ("run 1", 1)
    assert hub.leases.acquire(lease.name, "run 1", 60).token == 1
    with pytest.raises(LeaseTakenError, match="'run 1'") as caught:
        hub.leases.acquire(lease.name, "run 2", 60)
    assert isinstance(caught.value, RetryableError)
    hub.leases.release(lease)
    assert hub.leases.acquire(lease.name, "run 2", 60).token == 2
    hub.leases.release(lease)
    with pytest.raises(LeaseTakenError):
        hub.leases.acquire(lease.name, "run 1", 60)
    with pytest.raises(LeaseLostError, match="'run 2'"):
        hub.checkpoints.put(name, 1, fence=lease)
    assert hub.checkpoints.get(name) is None


def test_the_hook_writes_nothing_more_once_its_lease_is_lost(hub, name):
    hub.fence = hub.leases.acquire(name, "old", 60)
    hub.commit(name, 0, wake_at=77)
    hub.leases.release(hub.fence)
    with AirisHook() as other:
        other.leases.acquire(name, "new", 60)
    for write in (
        lambda: hub.commit(name, 0, wake_at=78),
        lambda: hub.fire(name, "low"),
        lambda: hub.checkpoints.put(name, 1),
        lambda: hub.ingest([Metric(name, "m", 1.0, "", {}, 1)]),
    ):
        with pytest.raises(LeaseLostError, match="'new'"):
            write()
    assert hub.place(name).wake_at == 77
    hub.fence = None
    assert hub.commit(name, 0, wake_at=None).wake_at is None


def test_the_hook_knows_last_points(hub, name):
    now = int(time.time() * 1000)
    hub.ingest(
        [Metric(name, "m", float(minute), "ms", {"a": "b:c"}, now - minute * MINUTE) for minute in range(3)]
        + [Metric(name, "n", 5.0, "ms", {}, now)]
    )
    assert list(hub.metrics.last(source=name, name="m", tags={"a": "b:c"})) == [
        LastPoint(name, "m", "ms", {"a": "b:c"}, now, 0.0)
    ]
    assert {point.name for point in hub.metrics.last(source=name)} == {"m", "n"}
