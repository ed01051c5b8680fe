"""The hub's contract, over sockets, against a hub in a process of its own."""

from __future__ import annotations

import base64
import gzip
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from itertools import count
from typing import Any

import httpx2
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_airis.records import Alert
from sandbox.process import Server
from tests.databases import Databases

NDJSON = {"Content-Type": "application/x-ndjson"}
MINUTE = 60_000
TOKENS = {
    **{scope: {"token": f"only-{scope}-0123456789", "scopes": [scope]} for scope in ("ingest", "read", "alerts")},
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
    """A client a token, and one without."""
    context = httpx2.create_ssl_context()
    with ExitStack() as stack:
        clients = {"nobody": httpx2.Client(base_url=f"{server.url}/api/v1", verify=context, timeout=30)}
        for name, entry in TOKENS.items():
            headers = {"Authorization": f"Bearer {entry['token']}"}
            clients[name] = httpx2.Client(base_url=f"{server.url}/api/v1", headers=headers, verify=context, timeout=30)
        for client in clients.values():
            stack.enter_context(client)
        yield clients


@pytest.fixture(scope="module")
def client(clients: dict[str, httpx2.Client]) -> httpx2.Client:
    return clients["admin"]


@pytest.fixture
def source() -> str:
    """A source that no other test uses."""
    return f"source-{next(_numbers)}"


def now() -> int:
    return int(time.time() * 1000)


def body(source: str, *values: float, at: int | None = None, **tags: str) -> dict[str, Any]:
    points = [
        {"name": f"metric{i}", "value": value, "unit": "ms", "tags": {"a": "b", **tags}}
        for i, value in enumerate(values)
    ]
    return {"timestamp": now() if at is None else at, "source": source, "metrics": points}


def event(source: str, **fields: Any) -> dict[str, Any]:
    known = {"timestamp": now(), "event_type": "login", "source": source, "severity": "info", "data": {}}
    return known | fields


def problem(answer: httpx2.Response, status: int, *pointers: str) -> str:
    """The detail of a problem document, which has this status and names these fields."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    document = answer.json()
    assert document["status"] == status
    assert {"type", "title", "detail"} <= document.keys()
    assert [error["pointer"] for error in document["errors"]] == list(pointers)
    return str(document["detail"])


def ok(answer: httpx2.Response, status: int = 200) -> Any:
    assert answer.status_code == status, answer.text
    return answer.json()


def post_alert(client: httpx2.Client, **fields: Any) -> dict[str, Any]:
    known = {"name": "drift", "severity": "low", "fingerprint": f"print-{next(_numbers)}"}
    return ok(client.post("/alerts", json=known | fields), 201)


def end_of_feed(client: httpx2.Client) -> int:
    sequence = 0
    while (page := ok(client.get("/alerts/changes", params={"after": sequence})))["changes"]:
        sequence = page["sequence"]
    return sequence


# Who may


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("POST", "/metrics/ingest", "ingest"),
        ("POST", "/metrics/batch", "ingest"),
        ("POST", "/events/ingest", "ingest"),
        ("POST", "/events/batch", "ingest"),
        ("GET", "/metrics/query", "read"),
        ("GET", "/metrics/coverage", "read"),
        ("GET", "/alerts", "read"),
        ("GET", "/alerts/x", "read"),
        ("GET", "/alerts/changes", "read"),
        ("GET", "/events", "read"),
        ("GET", "/events/changes", "read"),
        ("POST", "/integrations/user-sync", "ingest"),
        ("GET", "/users", "read"),
        ("GET", "/consumers/x", "read"),
        ("GET", "/rules", "read"),
        ("GET", "/rules/x", "read"),
        ("GET", "/openapi.json", "read"),
        ("POST", "/alerts", "alerts"),
        ("POST", "/alerts/x/acknowledge", "alerts"),
        ("POST", "/alerts/x/resolve", "alerts"),
        ("PUT", "/alerts/x/notifications/slack/ops", "alerts"),
        ("PUT", "/consumers/x", "alerts"),
        ("GET", "/notification-log", "read"),
        ("PUT", "/notification-log", "alerts"),
        ("GET", "/silences", "read"),
        ("POST", "/silences", "alerts"),
        ("DELETE", "/silences/x", "alerts"),
        ("GET", "/routes", "read"),
        ("PUT", "/routes", "admin"),
        ("POST", "/rules", "admin"),
        ("PUT", "/rules/x", "admin"),
        ("DELETE", "/rules/x", "admin"),
        ("GET", "/capabilities", None),
    ],
)
def test_every_call_wants_its_scope(
    clients: dict[str, httpx2.Client], method: str, path: str, scope: str | None
) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Digest x"}):
        answer = clients["nobody"].request(method, path, headers=headers, content=b"")
        assert "wrong" not in problem(answer, 401)
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    for name in TOKENS:
        answer = clients[name].request(method, path, content=b"[]" if method in ("POST", "PUT") else None)
        if scope is None or scope in TOKENS[name]["scopes"]:
            assert answer.status_code not in (401, 403), answer.text
        else:
            assert repr(scope) in problem(answer, 403)


def test_a_browser_may_read_by_basic_but_not_write(clients: dict[str, httpx2.Client]) -> None:
    nobody = clients["nobody"]
    for token, status in ((TOKENS["read"]["token"], 200), ("wrong", 401)):
        basic = base64.b64encode(f"anybody:{token}".encode()).decode()
        answer = nobody.get("/alerts", headers={"Authorization": f"Basic {basic}"})
        assert answer.status_code == status
    basic = base64.b64encode(f"x:{TOKENS['admin']['token']}".encode()).decode()
    answer = nobody.post("/alerts", headers={"Authorization": f"Basic {basic}"}, content=b"{}")
    problem(answer, 401)
    problem(nobody.get("/alerts", headers={"Authorization": "Basic ?"}), 401)


def test_health_and_capabilities(clients: dict[str, httpx2.Client], client: httpx2.Client) -> None:
    assert ok(clients["nobody"].get("/health")) == {"status": "ok", "store": "ok"}
    offered = ok(client.get("/capabilities"))
    assert offered["compression"] == ["gzip"]
    assert offered["capabilities"]["metrics.batch"] is True
    assert offered["capabilities"]["integrations.webhooks"] is False
    assert offered["limits"]["body_bytes"] == 10 << 20


def test_what_is_not_there(client: httpx2.Client) -> None:
    problem(client.get("/nothing"), 404)
    problem(client.get("/alerts/nothing"), 404)
    problem(client.post("/alerts/nothing/resolve"), 404)
    problem(client.put("/alerts/nothing/notifications/slack/x", json={"reference": "r", "status": "firing"}), 404)
    problem(client.get("/consumers/nothing"), 404)
    problem(client.delete("/rules/nothing"), 404)
    answer = client.delete("/alerts")
    problem(answer, 405)
    assert answer.headers["Allow"]


def test_the_contract_describes_itself(client: httpx2.Client) -> None:
    document = ok(client.get("/openapi.json"))
    routes = {(path, method) for path, methods in document["paths"].items() for method in methods}
    assert ("/api/v1/metrics/batch", "post") in routes
    assert ("/api/v1/alerts/{alert_id}/notifications/{channel}/{target}", "put") in routes

    def references(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            if "$ref" in node:
                yield node["$ref"]
            for value in node.values():
                yield from references(value)
        elif isinstance(node, list):
            for value in node:
                yield from references(value)

    schemas = document["components"]["schemas"]
    assert {reference.removeprefix("#/components/schemas/") for reference in references(document)} <= schemas.keys()


# Ingest


def test_single_call(client: httpx2.Client, source: str) -> None:
    at = now()
    answer = client.post("/metrics/ingest", json=body(source, 1.5, 2, at=at))
    assert ok(answer) == {"accepted": 2, "duplicates": 0, "rejected": []}
    assert ok(client.post("/metrics/ingest", json=body(source, 3, at=at)))["duplicates"] == 1
    assert ok(client.get("/metrics/query", params={"source": source})) == {
        "series": [
            {"source": source, "name": "metric0", "unit": "ms", "tags": {"a": "b"}, "points": [[at, 3.0]]},
            {"source": source, "name": "metric1", "unit": "ms", "tags": {"a": "b"}, "points": [[at, 2.0]]},
        ]
    }


def test_batch_as_json_and_as_streamed_lines(client: httpx2.Client, source: str) -> None:
    at = now() - 100 * MINUTE
    bodies = [body(source, 1, 2, 3, at=at + i * MINUTE) for i in range(50)]
    assert ok(client.post("/metrics/batch", json={"batches": bodies}))["accepted"] == 150
    lines = (json.dumps(line).encode() + b"\n" for line in bodies)
    answer = client.post("/metrics/batch", content=lines, headers=NDJSON)
    assert "Content-Length" not in answer.request.headers
    assert ok(answer) == {"accepted": 150, "duplicates": 150, "rejected": []}
    packed = gzip.compress("\n".join(map(json.dumps, bodies)).encode())
    answer = client.post("/metrics/batch", content=packed, headers=NDJSON | {"Content-Encoding": "gzip"})
    assert ok(answer)["duplicates"] == 150
    series = ok(client.get("/metrics/query", params={"source": source}))["series"]
    assert [len(line["points"]) for line in series] == [50, 50, 50]


def test_a_bad_record_never_loses_the_good_ones(client: httpx2.Client, source: str) -> None:
    bad = body(source, 1, 2, 3)
    bad["metrics"][1]["value"] = float("nan")
    bad["metrics"][2]["tags"] = {"n": 5}
    late = body(source, 1, at=now() + 700_000)
    answer = ok(client.post("/metrics/ingest", content=json.dumps(bad)))
    assert answer["accepted"] == 1
    assert [(r["index"], r["pointer"]) for r in answer["rejected"]] == [
        (1, "/metrics/1/value"),
        (2, "/metrics/2/tags/n"),
    ]
    lines = "\n".join([json.dumps(body(source, 5)), "nonsense", json.dumps(bad), json.dumps(late)])
    answer = ok(client.post("/metrics/batch", content=lines, headers=NDJSON))
    assert answer["accepted"] == 2
    assert [(r["index"], r["pointer"]) for r in answer["rejected"]] == [
        (1, "/batches/1"),
        (3, "/batches/2/metrics/1/value"),
        (4, "/batches/2/metrics/2/tags/n"),
        (5, "/batches/3/timestamp"),
    ]
    assert "10 minutes" in answer["rejected"][3]["detail"]


def test_documents_that_are_none(client: httpx2.Client, source: str) -> None:
    problem(client.post("/metrics/ingest", content=b"{"), 400, "")
    problem(client.post("/metrics/ingest", json={"timestamp": 1, "source": source}), 400, "/metrics")
    problem(client.post("/metrics/ingest", json=body(source) | {"timestamp": "now"}), 400, "/timestamp")
    problem(client.post("/metrics/batch", json=body(source)), 400, "/timestamp")
    problem(client.post("/events/ingest", json=event(source, severity="bad")), 400, "/severity")
    problem(client.post("/events/ingest", json=event(source, idempotency_key="k")), 400, "/idempotency_key")
    problem(client.post("/alerts", json={"name": "x"}), 400, "/severity")
    problem(client.post("/alerts", json={"name": "x", "severity": "bad"}), 400, "/severity")
    problem(client.post("/rules", json={"name": "x"}), 400, "/metric")
    problem(client.put("/consumers/x", json={"sequence": "1"}), 400, "/sequence")
    headers = {"Content-Encoding": "gzip"}
    assert "gzip" in problem(client.post("/metrics/ingest", content=b"no gzip", headers=headers), 400)


def test_sizes_and_kinds(client: httpx2.Client) -> None:
    megabytes = b" " * (10 << 20) + b"{}"
    problem(client.post("/metrics/ingest", content=megabytes), 413)
    problem(client.post("/metrics/batch", content=iter([megabytes]), headers=NDJSON), 413)
    packed = {"Content-Encoding": "gzip"}
    problem(client.post("/metrics/ingest", content=gzip.compress(megabytes), headers=packed), 413)
    answer = client.post("/metrics/ingest", content=b"", headers={"Content-Encoding": "br"})
    problem(answer, 415)
    assert answer.headers["Accept-Encoding"] == "gzip"
    problem(client.post("/metrics/ingest", content=b"", headers=NDJSON), 415)
    problem(client.post("/metrics/batch", content=b"", headers={"Content-Type": "text/csv"}), 415)


TAGS = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=5),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5),
    max_size=3,
)
POINTS = st.lists(
    st.tuples(
        st.sampled_from(["latency", "errors"]),
        TAGS,
        st.integers(0, 20),
        st.floats(allow_nan=False, allow_infinity=False),
    ),
    max_size=20,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(POINTS, max_size=3))
def test_what_goes_in_comes_out(client: httpx2.Client, batches: list[Any]) -> None:
    source = f"source-{next(_numbers)}"
    expected: dict[Any, float] = {}
    for batch in batches:
        bodies = [
            {"timestamp": at, "source": source, "metrics": [{"name": name, "value": value, "unit": "", "tags": tags}]}
            for name, tags, at, value in batch
        ]
        new = {(name, frozenset(tags.items()), at): value for name, tags, at, value in batch}
        answer = ok(client.post("/metrics/batch", json={"batches": bodies}))
        assert answer == {
            "accepted": len(batch),
            "duplicates": len(batch) - len(new.keys() - expected.keys()),
            "rejected": [],
        }
        expected |= new
    held = {
        (series["name"], frozenset(series["tags"].items()), at): value
        for series in ok(client.get("/metrics/query", params={"source": source}))["series"]
        for at, value in series["points"]
    }
    assert held == expected


def test_idempotency_keys(client: httpx2.Client, source: str) -> None:
    key = {"Idempotency-Key": f"key-{source}"}
    at = now()
    first = client.post("/metrics/ingest", json=body(source, 1, at=at), headers=key)
    assert ok(first)["duplicates"] == 0
    ok(client.post("/metrics/ingest", json=body(source, 2, at=at)))
    again = client.post("/metrics/ingest", json=body(source, 1, at=at), headers=key)
    assert (again.status_code, again.content) == (200, first.content)
    assert again.headers["Idempotency-Replayed"] == "true"
    ((_, value),) = ok(client.get("/metrics/query", params={"source": source}))["series"][0]["points"]
    assert value == 2
    assert "another body" in problem(client.post("/metrics/ingest", json=body(source, 3, at=at), headers=key), 409)
    raised = [ok(client.post("/alerts", json={"name": source, "severity": "low"}, headers=key), 201) for _ in range(2)]
    assert raised[0] == raised[1]
    problem(client.post("/metrics/ingest", json=body(source, 1), headers={"Idempotency-Key": "x" * 257}), 400)


def test_a_refused_document_leaves_its_key_free(client: httpx2.Client, source: str) -> None:
    key = {"Idempotency-Key": f"key-{source}"}
    problem(client.post("/metrics/ingest", content=b"{", headers=key), 400, "")
    assert ok(client.post("/metrics/ingest", json=body(source, 1), headers=key))["accepted"] == 1


def test_the_same_key_at_once_stores_once(client: httpx2.Client, source: str) -> None:
    key = {"Idempotency-Key": f"key-{source}"}
    sent = json.dumps({"name": source, "severity": "low", "fingerprint": source})
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: client.post("/alerts", content=sent, headers=key), range(16)))
    assert {(answer.status_code, answer.content) for answer in answers} == {(201, answers[0].content)}
    assert sum("Idempotency-Replayed" not in answer.headers for answer in answers) == 1


def test_an_event_is_its_key(client: httpx2.Client, source: str) -> None:
    after = ok(client.get("/events/changes", params={"limit": 5000}))["sequence"]
    key = {"Idempotency-Key": f"one-{source}"}
    for _ in range(2):
        assert ok(client.post("/events/ingest", json=event(source, timestamp=1), headers=key))["accepted"] == 1
    events = [
        event(source, idempotency_key=f"one-{source}"),
        event(source, idempotency_key=f"two-{source}", data={"category": "security", "n": 2**80}),
        event(source, idempotency_key=f"two-{source}"),
        event(source, severity="none"),
        event(source),
    ]
    answer = ok(client.post("/events/batch", json={"events": events}))
    assert (answer["accepted"], answer["duplicates"]) == (4, 2)
    assert [(r["index"], r["pointer"]) for r in answer["rejected"]] == [(3, "/events/3/severity")]
    lines = "\n".join(map(json.dumps, events))
    assert ok(client.post("/events/batch", content=lines, headers=NDJSON))["duplicates"] == 3
    changes = ok(client.get("/events/changes", params={"after": after}))["changes"]
    keys = [change["event"]["key"] for change in changes]
    assert keys[:2] == [f"one-{source}", f"two-{source}"]
    assert len(keys) == len(set(keys)) == 4
    secure = ok(client.get("/events/changes", params={"after": after, "category": "security"}))
    assert [change["event"]["data"] for change in secure["changes"]] == [{"category": "security", "n": 2**80}]


# Reading metrics


def test_query_and_coverage(client: httpx2.Client, source: str) -> None:
    start = 1_700_000_040_000 // (60 * MINUTE) * (60 * MINUTE)
    bodies = [body(source, i, at=start + i * MINUTE, endpoint="x:y") for i in (0, 1, 2, 5)]
    ok(client.post("/metrics/batch", json={"batches": bodies}))
    span = {"from": "2023-11-14T22:00:00Z", "to": start + 60 * MINUTE, "source": source}
    answer = ok(client.get("/metrics/query", params=span | {"step": 180, "agg": "sum", "tag": "endpoint:x:y"}))
    assert answer["series"][0]["points"] == [[start, 3.0], [start + 3 * MINUTE, 5.0]]
    (series,) = ok(client.get("/metrics/coverage", params=span))["series"]
    assert series == {
        "source": source,
        "name": "metric0",
        "tags": {"a": "b", "endpoint": "x:y"},
        "points": 4,
        "windows": [[start, start + 3 * MINUTE], [start + 5 * MINUTE, start + 6 * MINUTE]],
    }
    assert ok(client.get("/metrics/query", params={"source": source, "tag": ["endpoint:x:y", "a:c"]}))["series"] == []


@pytest.mark.parametrize(
    ("params", "pointer"),
    [
        ({"from": "yesterday"}, "/from"),
        ({"to": "2023-11-14T22:00:00"}, "/to"),
        ({"from": 5, "to": 4}, "/to"),
        ({"tag": "x"}, "/tag"),
        ({"step": 0}, "/step"),
        ({"agg": "median"}, "/agg"),
    ],
)
def test_bad_queries_name_the_parameter(client: httpx2.Client, params: dict[str, Any], pointer: str) -> None:
    problem(client.get("/metrics/query", params=params), 400, pointer)


# Alerts


def test_a_manual_alert_lives_and_ends(client: httpx2.Client) -> None:
    after = end_of_feed(client)
    alert = post_alert(client, model_id="m", tags={"a": "b"}, threshold=1.5)
    path = f"/alerts/{alert['id']}"
    assert (
        ok(client.post("/alerts", json={k: alert[k] for k in ("name", "severity", "fingerprint")}))["id"] == alert["id"]
    )
    ok(client.post(f"{path}/acknowledge", json={"by": "ann", "comment": "looking"}))
    ok(client.put(f"{path}/notifications/slack/%23ops%2Fa", json={"reference": "C1:2", "status": "firing", "at": 5}))
    ok(client.put(f"{path}/notifications/slack/%23ops%2Fa", json={"reference": "C1:2", "status": "acknowledged"}))
    assert ok(client.post(f"{path}/resolve"))["status"] == "resolved"
    detail = ok(client.get(path))
    assert msgspec.json.decode(client.get(path).content, type=Alert).id == alert["id"]
    assert [(entry["change"], entry.get("by")) for entry in detail["history"]] == [
        ("fired", None),
        ("acknowledged", "ann"),
        ("resolved", None),
    ]
    (entry,) = detail["notifications"]
    assert (entry["channel"], entry["target"], entry["reference"], entry["status"]) == (
        "slack",
        "#ops/a",
        "C1:2",
        "acknowledged",
    )
    assert abs(entry["at"] - now()) < 60_000
    page = ok(client.get("/alerts/changes", params={"after": after}))
    assert [change["change"] for change in page["changes"]] == ["fired", "acknowledged", "resolved"]
    assert [change["alert"]["status"] for change in page["changes"]] == ["firing", "acknowledged", "resolved"]
    assert page["sequence"] == page["changes"][-1]["sequence"]
    assert ok(client.get("/alerts/changes", params={"after": page["sequence"]})) == {
        "changes": [],
        "sequence": page["sequence"],
    }


def test_pages_of_alerts(client: httpx2.Client) -> None:
    ids = [post_alert(client, model_id="paged", severity=s)["id"] for s in ("low", "high", "low", "high", "low")]
    found: list[str] = []
    cursor = None
    while True:
        page = ok(
            client.get("/alerts", params={"model_id": "paged", "limit": 2} | ({"cursor": cursor} if cursor else {}))
        )
        found += [alert["id"] for alert in page["alerts"]]
        if (cursor := page["cursor"]) is None:
            break
    assert sorted(found) == sorted(ids)
    assert len(found) == len(ids)
    ok(client.post(f"/alerts/{ids[0]}/acknowledge", json={"by": "ann"}))
    ok(client.post(f"/alerts/{ids[1]}/resolve"))
    some = {"model_id": "paged", "status": ["firing", "acknowledged"], "severity": "low"}
    assert {a["id"] for a in ok(client.get("/alerts", params=some))["alerts"]} == {ids[0], ids[2], ids[4]}
    problem(client.get("/alerts", params={"cursor": "nonsense"}), 400, "/cursor")
    problem(client.get("/alerts", params={"status": "open"}), 400, "/status/0")


def test_consumers_only_move_forward(client: httpx2.Client) -> None:
    name = f"consumer-{next(_numbers)}"
    alert = post_alert(client)
    ok(client.post(f"/alerts/{alert['id']}/resolve"))
    end = end_of_feed(client)
    assert ok(client.get("/alerts/changes", params={"consumer": name}))["changes"][0]["sequence"] == 1
    assert ok(client.put(f"/consumers/{name}", json={"sequence": end - 1}))["sequence"] == end - 1
    page = ok(client.get("/alerts/changes", params={"consumer": name}))
    assert [change["sequence"] for change in page["changes"]] == [end]
    assert ok(client.put(f"/consumers/{name}", json={"sequence": 0}))["sequence"] == end - 1
    assert ok(client.get(f"/consumers/{name}"))["sequence"] == end - 1
    assert ok(client.put(f"/consumers/{name}", json={"sequence": 0, "force": True}))["sequence"] == 0
    problem(client.put(f"/consumers/{name}", json={"sequence": end + 1000}), 400, "/sequence")
    problem(client.get("/alerts/changes", params={"consumer": name, "after": 1}), 400, "/consumer")


def test_a_long_poll_answers_with_the_change(client: httpx2.Client) -> None:
    after = end_of_feed(client)
    answered: list[float] = []

    def poll() -> list[Any]:
        page = ok(client.get("/alerts/changes", params={"after": after, "wait": 20}))
        answered.append(time.monotonic())
        return list(page["changes"])

    with ThreadPoolExecutor(5) as pool:
        polls = [pool.submit(poll) for _ in range(5)]
        # What wakes these readers for nothing must not end their wait.
        ok(client.post("/events/ingest", json=event("wake")))
        assert not wait(polls, 0.3).done
        before = time.monotonic()
        post_alert(client)
        changes = [future.result(10) for future in polls]
    assert all(len(change) == 1 for change in changes)
    assert max(answered) - before < 5


def test_a_long_poll_ends_empty_after_its_wait(client: httpx2.Client) -> None:
    after = end_of_feed(client)
    before = time.monotonic()
    assert ok(client.get("/alerts/changes", params={"after": after, "wait": 0.5})) == {"changes": [], "sequence": after}
    assert 0.4 < time.monotonic() - before < 5
    problem(client.get("/alerts/changes", params={"wait": 61}), 400, "/wait")


def test_readers_see_every_change_once_while_writers_race(client: httpx2.Client) -> None:
    after = end_of_feed(client)
    total = 4 * 15 * 2

    def write(_: int) -> None:
        for _ in range(15):
            ok(client.post(f"/alerts/{post_alert(client)['id']}/resolve"))

    def read(_: int) -> list[int]:
        seen: list[int] = []
        place = after
        deadline = time.monotonic() + 30
        while len(seen) < total and time.monotonic() < deadline:
            page = ok(client.get("/alerts/changes", params={"after": place, "wait": 5, "limit": 7}))
            seen += [change["sequence"] for change in page["changes"]]
            place = page["sequence"]
        return seen

    with ThreadPoolExecutor(8) as pool:
        readers = [pool.submit(read, i) for i in range(3)]
        list(pool.map(write, range(4)))
        seen = [reader.result(40) for reader in readers]
    assert len(seen[0]) == total
    assert seen[0] == sorted(set(seen[0]))
    assert seen[1] == seen[2] == seen[0]


# Rules


def rule(source: str, **fields: Any) -> dict[str, Any]:
    return {
        "id": f"rule-{source}",
        "name": f"slow {source}",
        "metric": "metric0",
        "source": {"op": "=", "value": source},
        "aggregation": "last",
        "window_s": 60,
        "comparator": ">",
        "threshold": 10,
        "severity": "critical",
    } | fields


def test_rules_are_kept_and_replaced(client: httpx2.Client, source: str) -> None:
    made = ok(client.post("/rules", json=rule(source)), 201)
    assert made["matchers"] == []
    problem(client.post("/rules", json=rule(source)), 409, "/id")
    assert ok(client.get(f"/rules/{made['id']}")) == made
    assert ok(client.put(f"/rules/{made['id']}", json=rule(source, threshold=5)))["threshold"] == 5
    problem(client.put(f"/rules/{made['id']}", json=rule(source, id="other")), 400, "/id")
    named = ok(client.post("/rules", json=rule(source, id=None)), 201)["id"]
    assert {made["id"], named} <= {r["id"] for r in ok(client.get("/rules"))["rules"]}
    assert ok(client.put(f"/rules/put-{source}", json=rule(source, id=None)), 201)["id"] == f"put-{source}"
    for rule_id in (made["id"], named, f"put-{source}"):
        assert client.delete(f"/rules/{rule_id}").status_code == 204
    problem(client.get(f"/rules/{made['id']}"), 404)


def test_live_data_fires_before_it_is_acknowledged_and_history_does_not(client: httpx2.Client, source: str) -> None:
    ok(client.post("/rules", json=rule(source, labels={"model_id": "{a}"})), 201)
    after = end_of_feed(client)
    old = [body(source, 99, at=now() - (i + 20) * MINUTE) for i in range(1000)]
    assert ok(client.post("/metrics/batch", json={"batches": old}))["accepted"] == 1000
    assert ok(client.get("/alerts/changes", params={"after": after}))["changes"] == []
    ok(client.post("/metrics/ingest", json=body(source, 99, at=now() - MINUTE)))
    (change,) = ok(client.get("/alerts/changes", params={"after": after}))["changes"]
    assert (change["change"], change["alert"]["model_id"], change["alert"]["current_value"]) == ("fired", "b", 99)
    ok(client.post("/metrics/ingest", json=body(source, 1, at=now())))
    detail = ok(client.get(f"/alerts/{change['alert']['id']}"))
    assert [entry["change"] for entry in detail["history"]] == ["fired", "resolved"]
    assert detail["rule"]["id"] == f"rule-{source}"
    assert detail["series"] == [{"source": source, "name": "metric0", "tags": {"a": "b"}, "unit": "ms"}]
