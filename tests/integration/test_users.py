"""Users of directories: syncs in one piece and in parts, through the hook into a hub in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import httpx2
import pytest

from airflow_provider_airis.errors import PermanentError, RetryableError
from airflow_provider_airis.hooks.airis import AirisHook
from airflow_provider_airis.records import Event, User
from sandbox.faults import Fault, FaultProxy
from tests.replay import Replay

NOW = 1_795_000_000_000
_numbers = count()


@pytest.fixture
def source() -> str:
    return f"directory-{next(_numbers)}"


@pytest.fixture
def hook(airis: str) -> Iterator[AirisHook]:
    with AirisHook(airis) as hook:
        yield hook


def user(number: int, **fields: Any) -> User:
    known = {"id": f"id-{number:06}", "username": f"user{number}", "email": f"user{number}@example.com"}
    return User(**{**known, "sync_timestamp": NOW, **fields})


def sync(hook: AirisHook, source: str, users: Any, *, kind: Any = "full", **fields: Any) -> Any:
    known = {"sync_type": kind, "sync_id": f"{source}-{next(_numbers)}", "timestamp": NOW}
    return hook.sync_users(users, source=source, **{**known, **fields})


def names(hook: AirisHook, source: str, *, active: bool | None = True) -> list[str]:
    return [found["username"] for found in hook.users(source=source, active=active)]


def test_a_full_sync_is_the_directory(hook, source):
    first = sync(hook, source, [user(n) for n in range(4)])
    assert (first.users, first.created, first.updated, first.deactivated, first.calls) == (4, 4, 0, 0, 1)
    second = sync(hook, source, [user(0), user(1, title="Boss"), user(2, username="renamed"), user(9)])
    assert (second.duplicates, second.created, second.updated, second.deactivated) == (1, 1, 2, 1)
    assert names(hook, source) == ["user0", "user1", "renamed", "user9"]
    assert names(hook, source, active=False) == ["user3"]
    third = sync(hook, source, [user(n) for n in range(4)])
    assert (third.created, third.updated, third.deactivated) == (0, 3, 1)
    assert names(hook, source) == ["user0", "user1", "user2", "user3"]


def test_what_a_user_has_comes_back(hook, source):
    full = user(
        1,
        display_name="Ada Lovelace",
        department="Engines",
        title="Countess",
        dn="uid=ada,dc=example",
        groups=["cn=poets,dc=example"],
        manager="uid=charles,dc=example",
        enabled=False,
        expires_at=NOW + 1,
        changed_at=NOW - 1,
        attributes={"room": "12"},
    )
    sync(hook, source, [full])
    (found,) = hook.users(source=source)
    assert found.pop("updated_at") > 0
    assert found == {**{f: getattr(full, f) for f in full.__struct_fields__}, "source": source, "active": True}


def test_a_large_directory_comes_in_parts_and_into_force_at_once(hook, source):
    sync(hook, source, [user(n) for n in range(3)])

    def users() -> Iterator[User]:
        for number in range(1, 2_502):
            if number == 2_400:  # two parts have been sent
                assert names(hook, source) == ["user0", "user1", "user2"]
            yield user(number)

    summary = sync(hook, source, users())
    assert (summary.calls, summary.users) == (3, 2_501)
    assert (summary.created, summary.duplicates, summary.deactivated) == (2_499, 2, 1)
    assert len(names(hook, source)) == 2_501
    assert sync(hook, source, (user(n) for n in range(1, 2_502))).duplicates == 2_501


def test_a_directory_that_fails_half_way_leaves_everything_as_it_was(hook, source):
    sync(hook, source, [user(n) for n in range(3)])

    def users() -> Iterator[User]:
        yield from (user(n) for n in range(5, 2_000))
        raise RetryableError("the server went away")

    with pytest.raises(RetryableError):
        sync(hook, source, users())
    assert names(hook, source) == ["user0", "user1", "user2"]


def test_a_delta_touches_whom_it_names(hook, source):
    sync(hook, source, [user(n) for n in range(5)])
    summary = sync(hook, source, [user(1, title="Boss"), user(7)], kind="delta", deleted=["user2", "id-000003"])
    assert (summary.created, summary.updated, summary.deactivated) == (1, 1, 2)
    assert names(hook, source) == ["user0", "user1", "user4", "user7"]
    assert sync(hook, source, [], kind="delta").users == 0
    assert len(names(hook, source)) == 4


def test_another_directory_is_left_alone(hook, source):
    sync(hook, source, [user(1)])
    sync(hook, f"{source}-other", [user(2)])
    assert names(hook, source) == ["user1"]


def test_a_refused_user_is_named_and_not_deactivated(hook, source):
    sync(hook, source, [user(n) for n in range(3)])
    summary = sync(
        hook, source, [user(0), user(1, username="x" * 300), user(2, id="", username="user2", expires_at="soon")]
    )
    assert (summary.users, summary.rejected, summary.deactivated) == (1, 2, 0)
    assert "/username" in summary.refusals[0]
    assert "user2: /expires_at" in summary.refusals[1]
    assert names(hook, source) == ["user0", "user1", "user2"]


def test_an_answer_that_is_lost_is_asked_for_again(hub, connect, source, hook):
    with FaultProxy(hub.url) as proxy:
        proxy.order(Fault("status", status=503, retry_after=0, path="/integrations/user-sync", times=2))
        connect("proxied", conn_type="airis", host=proxy.url, password=hub.token)
        with AirisHook("proxied") as unlucky:
            assert sync(unlucky, source, (user(n) for n in range(1_500))).created == 1_500
    assert len(names(hook, source)) == 1_500


def test_the_documents_own_form_is_taken(hub, source):
    """The architecture document's body, word for word."""
    body = {
        "event_type": "user_sync",
        "source": source,
        "timestamp": NOW,
        "data": {
            "users": [
                {
                    "username": "ada",
                    "email": None,
                    "display_name": "Ada",
                    "department": None,
                    "title": None,
                    "sync_timestamp": NOW,
                }
            ],
            "sync_type": "full",
        },
    }
    headers = {"Authorization": f"Bearer {hub.token}"}
    with httpx2.Client(base_url=f"{hub.url}/api/v1", headers=headers) as client:
        answer = client.post("/integrations/user-sync", json=body)
        assert answer.status_code == 200
        assert answer.json()["created"] == 1
        page = client.get("/users", params={"source": source}).json()
        assert (page["total"], page["cursor"]) == (1, None)
        assert page["users"][0]["id"] == "ada"


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"source": ""}, "/source"),
        ({"data": {"users": [], "sync_type": "partial"}}, "/data/sync_type"),
        ({"data": {"users": [], "sync_type": "full", "part": 0, "sync_id": "s"}}, "/data/part"),
        ({"data": {"users": [], "sync_type": "full", "deleted": ["x"]}}, "/data/deleted"),
        ({"data": {"users": [], "sync_type": "full", "more": 1}}, "/data/more"),
        ({"event_type": "sync"}, "/event_type"),
    ],
)
def test_a_sync_that_is_none_names_the_field(hub, source, change, pointer):
    body = {"event_type": "user_sync", "source": source, "timestamp": NOW, "data": {"users": [], "sync_type": "full"}}
    headers = {"Authorization": f"Bearer {hub.token}"}
    answer = httpx2.post(f"{hub.url}/api/v1/integrations/user-sync", json=body | change, headers=headers)
    assert answer.status_code == 400
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


def test_users_of_many_groups_come_in_smaller_parts(hook, source):
    groups = [f"cn={'g' * 60} {n:03},ou=groups,dc=example,dc=com" for n in range(120)]
    users = [User(id=f"{n}", username=f"u{n}", groups=groups, sync_timestamp=1) for n in range(1_000)]
    summary = hook.sync_users(users, source=source, sync_type="full", sync_id="large", timestamp=1)
    assert (summary.users, summary.created) == (1_000, 1_000)
    assert summary.calls > 2


def test_parts_in_any_order_make_the_whole(hub, source, hook):
    headers = {"Authorization": f"Bearer {hub.token}"}
    applied = []
    for part in (3, 1, 2):
        data = {
            "users": [{"username": f"u{part}"}],
            "sync_type": "full",
            "sync_id": "s",
            "part": part,
            "last": part == 3,
        }
        body = {"event_type": "user_sync", "source": source, "timestamp": NOW, "data": data}
        answer = httpx2.post(f"{hub.url}/api/v1/integrations/user-sync", json=body, headers=headers)
        applied.append(answer.json()["applied"])
    assert applied == [False, False, True]
    assert names(hook, source) == ["u1", "u2", "u3"]


def test_events_come_back_newest_first(hook, source):
    records = [Event("synced", source, "info", NOW + n, {"n": n}, f"{source}-{n}") for n in range(3)]
    hook.ingest([*records, Event("other", source, "info", NOW, {}, f"{source}-other")])
    assert [event["data"]["n"] for event in hook.events(source=source, event_type="synced")] == [2, 1, 0]
    assert [event["key"] for event in hook.events(source=source, event_type="synced", limit=1)] == [f"{source}-2"]
    assert len(hook.events(source=source)) == 4


def test_a_hub_that_takes_a_part_for_the_whole_is_sent_no_further_one(connect, source):
    offers = {"request": {"method": "GET"}, "response": {"json": {"capabilities": {"integrations.user-sync": True}}}}
    with Replay([offers] + [{"request": {"method": "POST"}, "response": {"json": {}}}] * 3) as simple:
        connect("simple", conn_type="airis", host=simple.url, password="simple-token", extra={"compression": "none"})
        with AirisHook("simple") as hook:
            with pytest.raises(PermanentError, match=r"took part 1 of the user sync .* for the whole of it"):
                sync(hook, source, (user(n) for n in range(2_500)))
            assert len(simple.left) == 2
            assert sync(hook, source, [user(1)]).users == 1


def test_a_hub_without_users_says_so(connect, hub):
    connect("elsewhere", conn_type="airis", host=f"{hub.url}/nothing", password=hub.token)
    with AirisHook("elsewhere") as hook, pytest.raises(PermanentError, match="capabilities"):
        sync(hook, "s", [user(1)])


def test_an_older_directory_and_one_that_lost_too_many_are_refused_in_words(hook, source):
    sync(hook, source, [user(n) for n in range(4)])
    with pytest.raises(PermanentError, match="a newer one is not undone by an older one") as caught:
        sync(hook, source, [user(0)], timestamp=NOW - 1)
    assert caught.value.status == 409
    with pytest.raises(PermanentError, match="more than max_deactivate=2"):
        sync(hook, source, [user(0)], max_deactivate=2)
    with pytest.raises(PermanentError, match="the full sync names nobody"):
        sync(hook, source, [])
    assert names(hook, source) == ["user0", "user1", "user2", "user3"]
    assert sync(hook, source, [user(0)], max_deactivate=3).deactivated == 3
