"""Everything that works with a hub of four calls: the document's, strict, over sockets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from airflow_provider_airis.errors import CheckpointConflictError, PermanentError, RetryableError
from airflow_provider_airis.hooks.airis import AirisHook
from airflow_provider_airis.hooks.delivery import CONNECTIONS
from airflow_provider_airis.records import Event, Metric, User
from tests.conftest import DocumentHub

AT = 1_795_255_200_000


@pytest.fixture
def hook(document: DocumentHub) -> Iterator[AirisHook]:
    with AirisHook() as hook:
        yield hook


def points(count: int) -> list[Metric]:
    """Each of a time of its own, so that each is a request of its own."""
    return [Metric("s", "m", float(n), "ms", {"n": str(n)}, AT + n) for n in range(count)]


def events(count: int) -> list[Event]:
    return [Event("t", "s", "info", AT + n, {"n": n}, f"key-{n}") for n in range(count)]


def user(n: int) -> User:
    return User(id=f"id-{n}", username=f"user{n}", email=f"{n}@x", sync_timestamp=AT, groups=["g"], dn=f"CN={n}")


# The hub itself


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (
            "metrics/ingest",
            {"timestamp": 1, "source": "s", "metrics": [{"name": "m", "value": 1, "unit": "", "tags": {}}]},
        ),
        ("events/ingest", {"timestamp": 1, "event_type": "t", "source": "s", "severity": "info", "data": {}}),
        ("integrations/webhooks", {"name": "n", "url": "http://x", "events": [], "headers": {}, "secret": "s"}),
        (
            "integrations/user-sync",
            {"event_type": "user_sync", "source": "s", "timestamp": 1, "data": {"users": [], "sync_type": "full"}},
        ),
    ],
)
def test_it_takes_what_the_document_says_and_no_more(document, path, body):
    url, good = f"{document.url}/api/v1/{path}", {"Authorization": f"Bearer {document.token}"}
    done = httpx2.post(url, json=body, headers=good)
    assert (done.status_code, done.text) == (201 if "webhooks" in path else 200, "{}")
    assert httpx2.post(url, json=body | {"more": 1}, headers=good).status_code == 400
    for name in body:
        assert httpx2.post(url, json={k: v for k, v in body.items() if k != name}, headers=good).status_code == 400
    assert httpx2.post(url, json=body, headers=good | {"Content-Encoding": "gzip"}).status_code == 415
    assert httpx2.post(url, json=body).status_code == 401
    assert httpx2.post(url, json=body, headers={"Authorization": "Bearer no"}).status_code == 401
    assert httpx2.get(url, headers=good).status_code == 405
    assert sum(map(len, (document.taken()[name] for name in ("metrics", "events", "webhooks", "users")))) == 1


@pytest.mark.parametrize(
    "path", ["health", "capabilities", "metrics/batch", "alerts", "users", "checkpoints", "metrics/query"]
)
def test_it_has_nothing_else(document, path):
    good = {"Authorization": f"Bearer {document.token}"}
    for method in ("GET", "POST", "PUT"):
        assert httpx2.request(method, f"{document.url}/api/v1/{path}", headers=good).status_code == 404


# Delivery


def test_records_arrive_singly_over_several_connections(hook, document):
    summary = hook.ingest([*points(200), *events(200)])
    assert (summary.points, summary.events, summary.rejected) == (200, 200, 0)
    taken = document.taken()
    assert sorted(body["metrics"][0]["value"] for body in taken["metrics"]) == list(range(200))
    assert sorted(body["data"]["n"] for body in taken["events"]) == list(range(200))
    # Those of the two batches that it does not know, and of the singles.
    assert 2 <= taken["connections"] <= 2 * CONNECTIONS


def test_points_of_one_time_are_one_request(hook, document):
    assert hook.ingest(Metric("s", "m", float(n), "", {"n": str(n)}, AT) for n in range(500)).points == 500
    assert [len(body["metrics"]) for body in document.taken()["metrics"]] == [500]


def test_a_hub_that_is_asked_too_often_gets_everything_in_the_end(hook, document):
    document.tell("limit", per_s=40)
    assert hook.ingest(points(100)).points == 100
    assert sorted(body["metrics"][0]["value"] for body in document.taken()["metrics"]) == list(range(100))


def test_a_hub_that_refuses_the_token_ends_the_delivery(document, connect):
    connect("airis_default", conn_type="airis", host=document.url, password="another-token")
    with AirisHook() as hook, pytest.raises(PermanentError, match="401"):
        hook.ingest(points(1_000))
    assert document.taken()["metrics"] == []
    # Each connection learns it once, and nobody goes on.
    assert document.taken()["requests"] <= 2 * CONNECTIONS


def test_a_hub_that_fails_is_asked_again_and_gets_each_record(hook, document):
    document.tell("faults", call="metrics", times=3, status=503, headers={"Retry-After": "0"})
    assert hook.ingest(points(20)).points == 20
    assert len(document.taken()["metrics"]) == 20


# Users


def test_a_full_sync_is_one_body_of_the_documents_fields(hook, document):
    summary = hook.sync_users(map(user, range(2_500)), source="ad", sync_type="full", sync_id="a", timestamp=AT)
    assert (summary.users, summary.calls) == (2_500, 1)
    (body,) = document.taken()["users"]
    assert len(body["data"]["users"]) == 2_500
    assert body["data"]["users"][7] == {
        "username": "user7",
        "email": "7@x",
        "display_name": None,
        "department": None,
        "title": None,
        "sync_timestamp": AT,
    }


def test_a_delta_tells_who_changed_and_says_that_it_cannot_tell_who_left(hook, document):
    def sync(count: int, **fields: Any) -> Any:
        return hook.sync_users(
            map(user, range(count)), source="ad", sync_type="delta", sync_id="a", timestamp=AT, **fields
        )

    assert sync(1_500).calls == 2
    assert [len(body["data"]["users"]) for body in document.taken()["users"]] == [1_000, 500]
    with pytest.raises(PermanentError, match=r"2 user\(s\) such as id-8.*Run a full sync"):
        sync(1, deleted=["id-8", "id-9"])


def test_a_directory_that_is_too_large_for_one_body_says_so(hook):
    users = (User(id=str(n), username="u" * 900 + str(n), sync_timestamp=AT) for n in range(12_000))
    with pytest.raises(PermanentError, match=r"12,000 users are too many .* a hub that takes parts"):
        hook.sync_users(users, source="ad", sync_type="full", sync_id="a", timestamp=AT)


# Checkpoints


def test_checkpoints_are_kept_by_airflow_and_that_is_said_once(hook, variables, capsys):
    assert hook.checkpoints.get("mlflow/a b/ü%_") is None
    first = hook.checkpoints.put("mlflow/a b/ü%_", {"n": [1]})
    assert (first.version, first.value) == (1, {"n": [1]})
    assert hook.checkpoints.get(first.name) == first
    second = hook.checkpoints.put(first.name, {"n": [2]}, version=1)
    assert second.version == 2
    for version in (0, 1, 3):
        with pytest.raises(CheckpointConflictError, match=f"is at version 2, not {version}"):
            hook.checkpoints.put(first.name, {}, version=version)
        with pytest.raises(CheckpointConflictError):
            hook.checkpoints.delete(first.name, version=version)
    assert capsys.readouterr().out.count("keeps no checkpoints") == 1
    (key,) = variables
    assert key.startswith("airis_checkpoint__airis_default__mlflow")
    assert set(key) <= set("abcdefghijklmnopqrstuvwxyzABCDEF0123456789_-.=")
    hook.checkpoints.delete(first.name, version=2)
    hook.checkpoints.delete(first.name)
    assert variables == {}


def test_long_names_are_told_apart_and_listed(hook, variables):
    stem = "mlflow/" + "ü" * 120
    names = [f"{stem}/{tail}" for tail in ("a", "b", "a/" + "x" * 170)] + ["mlflow", "mlflow/", "MLflow/a", "other"]
    for n, name in enumerate(names):
        hook.checkpoints.put(name, n)
    assert max(map(len, variables)) <= 250
    assert {one.name: one.value for one in hook.checkpoints.list("mlflow/")} == {
        name: n for n, name in enumerate(names) if name.startswith("mlflow/")
    }
    assert {one.value for one in hook.checkpoints.list(f"{stem}/a")} == {0, 2}
    assert {one.value for one in hook.checkpoints.list()} == set(range(len(names)))
    assert [hook.checkpoints.get(name).value for name in names] == list(range(len(names)))


def test_hubs_do_not_share_checkpoints(document, connect, hook):
    hook.checkpoints.put("a", 1)
    connect("airis_other", conn_type="airis", host=document.url, password=document.token)
    with AirisHook("airis_other") as other:
        assert other.checkpoints.get("a") is None
        assert list(other.checkpoints.list()) == []


def test_what_is_too_large_edited_or_fenced_is_refused(hook, variables):
    with pytest.raises(PermanentError, match=r"4,194,304: use a hub that keeps checkpoints"):
        hook.checkpoints.put("a", "x" * (4 << 20))
    hook.checkpoints.put("a", 1)
    (key,) = variables
    variables[key] = "edited"
    with pytest.raises(PermanentError, match=f"{key} is no checkpoint"):
        hook.checkpoints.get("a")
    with pytest.raises(PermanentError, match="it has no leases"):
        hook.leases.acquire("a", "me", 10)


def test_a_variable_that_cannot_be_read_is_not_taken_for_none(hook, monkeypatch):
    """Airflow answers so when it could not ask: a source must not start anew for that."""
    from airflow.sdk.execution_time import comms, task_runner

    hook.checkpoints.put("a", 1)
    supervisor = task_runner.SUPERVISOR_COMMS

    class Broken:
        def send(self, message: Any) -> Any:
            if isinstance(message, comms.GetVariable):
                raise ConnectionError("the API server is away")
            return supervisor.send(message)

    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", Broken())
    with pytest.raises(RetryableError, match="could not be read"):
        hook.checkpoints.get("a")


# What it lacks


def test_the_connections_test_says_what_it_offers(hook, document, connect):
    works, said = hook.test_connection()
    assert works
    for part in (
        "accepts the token",
        "takes metrics, events, users and webhooks",
        "no change feed: its alerts come through a companion hub",
        "keeps no checkpoints: Airflow keeps them, as Variables",
        "gaps cannot be found",
    ):
        assert part in said
    assert sum(map(len, (document.taken()[name] for name in ("events", "webhooks", "users")))) == 0
    assert [body["metrics"] for body in document.taken()["metrics"]] == [[]]
    connect("airis_default", conn_type="airis", host=document.url, password="wrong-token")
    with AirisHook() as other:
        works, said = other.test_connection()
    assert not works
    assert "401" in said
    connect("airis_default", conn_type="airis", host=f"{document.url}/elsewhere", password=document.token)
    with AirisHook() as other:
        assert not other.test_connection()[0]


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda hub: hub.coverage(start=0, end=1), "does not say which points it holds"),
        (lambda hub: hub.query("m", start=0, end=1), "gives no points back"),
        (lambda hub: list(hub.metrics.last()), "gives no points back"),
        (lambda hub: list(hub.users()), "does not list its users"),
        (lambda hub: hub.changes(after=0), "no change feed: its alerts come through a companion hub"),
        (lambda hub: hub.event_changes(after=0), "no feed of events"),
        (lambda hub: hub.silences(), "no silences"),
        (lambda hub: hub.notification_log("slack"), "does not keep what was sent"),
    ],
)
def test_what_it_lacks_is_said_in_one_sentence(hook, call, reason):
    with pytest.raises(PermanentError, match=reason) as caught:
        call(hook)
    assert caught.value.status == 404
    assert "see Hubs in the documentation" in str(caught.value)
