"""Whose what is: keys of a source, answers of a token, a directory's users."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import insert, select

from airflow_provider_airis.hub.store import migrations
from airflow_provider_airis.hub.store import tables as db
from airflow_provider_airis.hub.store.engine import connect
from airflow_provider_airis.hub.store.store import Store
from tests.databases import Databases
from tests.unit.hub.conftest import MINUTE, Bench
from tests.unit.hub.served import OTHER, served


@pytest.fixture
def client(bench: Bench) -> Iterator[httpx2.Client]:
    with served(bench.store) as client:
        yield client


def event(bench: Bench, source: str, **data: Any) -> dict[str, Any]:
    known = {"timestamp": bench.now, "event_type": "t", "source": source, "severity": "info"}
    return known | {"data": data, "idempotency_key": "1"}


def test_a_key_identifies_an_event_of_its_source(bench: Bench, client: httpx2.Client) -> None:
    for accepted, duplicates, source in ((1, 0, "mlflow"), (1, 0, "servicenow"), (1, 1, "mlflow")):
        body = {"events": [event(bench, source, of=source)]}
        answer = client.post("/api/v1/events/batch", json=body).json()
        assert answer == {"accepted": accepted, "duplicates": duplicates, "rejected": []}
    found = client.get("/api/v1/events").json()["events"]
    assert [(one["key"], one["source"], one["data"]) for one in found] == [
        ("1", "servicenow", {"of": "servicenow"}),
        ("1", "mlflow", {"of": "mlflow"}),
    ]


def test_an_answer_is_replayed_to_the_token_that_got_it(bench: Bench, client: httpx2.Client) -> None:
    def post(value: int, token: str | None = None) -> httpx2.Response:
        points = [{"name": "n", "value": value, "unit": "", "tags": {}}]
        body = {"timestamp": bench.now, "source": "s", "metrics": points}
        bearer = {"Authorization": f"Bearer {token}"} if token else {}
        return client.post("/api/v1/metrics/ingest", json=body, headers={"Idempotency-Key": "k"} | bearer)

    assert post(1).status_code == 200
    # Another's key of that name is another key: neither replayed nor in conflict with it.
    theirs = post(2, OTHER)
    assert (theirs.status_code, theirs.headers.get("Idempotency-Replayed")) == (200, None)
    assert post(1).headers["Idempotency-Replayed"] == "true"
    assert post(2, OTHER).headers["Idempotency-Replayed"] == "true"
    assert post(3).status_code == 409


def user(number: int, **fields: Any) -> dict[str, Any]:
    return {"username": f"u{number}", "email": f"U{number}@Example.com", **fields}


def sync(client: httpx2.Client, timestamp: int, users: list[Any], kind: str = "full", **data: Any) -> httpx2.Response:
    body = {"event_type": "user_sync", "source": "ldap", "timestamp": timestamp}
    return client.post(
        "/api/v1/integrations/user-sync", json=body | {"data": {"users": users, "sync_type": kind, **data}}
    )


def active(client: httpx2.Client, **params: Any) -> list[str]:
    return [user["username"] for user in client.get("/api/v1/users", params={"active": True, **params}).json()["users"]]


@pytest.mark.parametrize("kind", ["full", "delta"])
def test_an_older_sync_does_not_undo_a_newer_one(bench: Bench, client: httpx2.Client, kind: str) -> None:
    assert sync(client, bench.now, [user(1), user(2)]).status_code == 200
    answer = sync(client, bench.now - 1, [user(1, title="of before")], kind)
    assert answer.status_code == 409
    assert answer.json()["errors"][0]["pointer"] == "/timestamp"
    assert "Read the directory again" in answer.json()["detail"]
    assert active(client) == ["u1", "u2"]
    assert sync(client, bench.now, [user(1)]).status_code == 200
    assert active(client) == ["u1"]


def test_an_older_sync_is_refused_with_its_first_part(bench: Bench, client: httpx2.Client) -> None:
    sync(client, bench.now, [user(1)])
    assert sync(client, bench.now - 1, [user(2)], sync_id="s", part=1, last=False).status_code == 409


def test_a_sync_from_the_future_is_none(bench: Bench, client: httpx2.Client) -> None:
    for timestamp in (-1, bench.now + 3600 * MINUTE):
        answer = sync(client, timestamp, [user(1)])
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (400, "/timestamp")
    assert active(client) == []


def test_a_sync_that_names_nobody_deactivates_nobody_unless_that_is_said(bench: Bench, client: httpx2.Client) -> None:
    assert sync(client, bench.now, []).status_code == 200
    sync(client, bench.now, [user(1), user(2)])
    answer = sync(client, bench.now, [])
    assert answer.status_code == 422
    assert "Refusing to deactivate: 2 of 2 users of ldap are missing, the full sync names nobody" in answer.text
    assert active(client) == ["u1", "u2"]
    assert sync(client, bench.now, [], max_deactivate=2).json()["deactivated"] == 2
    assert active(client) == []


def test_no_more_are_deactivated_than_the_sync_says(bench: Bench, client: httpx2.Client) -> None:
    sync(client, bench.now, [user(number) for number in range(5)])
    few = [user(0), user(1, title="Boss")]
    answer = sync(client, bench.now, few, max_deactivate=2)
    assert answer.status_code == 422
    assert "3 of 5 users of ldap are missing, more than max_deactivate=2" in answer.json()["detail"]
    users = client.get("/api/v1/users").json()["users"]
    assert [(one["active"], one.get("title")) for one in users] == [(True, None)] * 5
    # In parts, too, and what was refused may be sent again.
    assert sync(client, bench.now, few[:1], sync_id="p", part=1, last=False, max_deactivate=2).status_code == 200
    assert sync(client, bench.now, few[1:], sync_id="p", part=2, max_deactivate=2).status_code == 422
    assert sync(client, bench.now, few[1:], sync_id="p", part=2, max_deactivate=3).json()["deactivated"] == 3
    assert active(client) == ["u0", "u1"]


def test_a_look_up_by_address_is_of_the_field(bench: Bench, client: httpx2.Client) -> None:
    others = [
        user(2, attributes={"email": "u1@example.com"}),
        user(3, attributes={"mail": ["u1@example.com"], "x": '"email":"u1@example.com"'}),
        {"username": "u4", "attributes": {"email": "u1@example.com"}},
    ]
    sync(client, bench.now, [user(1, email="U1@exämple.com"), *others])
    assert active(client, email="u1@EXÄMPLE.com") == ["u1"]
    assert active(client, email="u1@example.com") == []
    assert active(client, email="u2@example.com") == ["u2"]
    # As it is now, not as it was.
    sync(client, bench.now, [user(1, email="new@example.com"), *others])
    assert active(client, email="u1@exämple.com") == []
    assert active(client, email="New@example.com") == ["u1"]


def test_what_was_there_before_has_its_owner(databases: Databases, tmp_path: Path) -> None:
    url = databases.empty(tmp_path)
    engine = connect(url)
    with engine.execution_options(writes=True).begin() as connection:
        migrations.upgrade(connection, "0005")
        event = {"event_type": "t", "source": "s", "severity": "info", "timestamp": 1, "data": "{}", "category": None}
        connection.execute(insert(db.events), [{"sequence": n, "key": str(n), **event} for n in (3, 7)])
        known = {"source": "ldap", "active": True, "synced_at": 1, "updated_at": 1}
        texts = {"a": {"email": "A@x.com"}, "b": {}, "c": {"email": None, "attributes": {"email": "A@x.com"}}}
        for name, fields in texts.items():
            row = {"id": name, "username": name, "user": json.dumps({"id": name, "username": name} | fields)}
            connection.execute(insert(db.users), known | row)
    engine.dispose()
    store = Store(url)
    rows = store.read(lambda c: c.execute(select(db.events.c.sequence, db.events.c.key).order_by("sequence")).all())
    assert list(map(tuple, rows)) == [(3, "3"), (7, "7")]
    emails = store.read(lambda c: c.execute(select(db.users.c.id, db.users.c.email).order_by("id")).all())
    assert list(map(tuple, emails)) == [("a", "a@x.com"), ("b", None), ("c", None)]
    store.close()
    databases.drop(url)
