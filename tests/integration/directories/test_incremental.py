"""What changes are found between two readings of everybody, and what is remembered of a directory."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_airis.hooks.active_directory import ActiveDirectoryHook
from airflow_provider_airis.hooks.airis import AirisHook
from airflow_provider_airis.records import Event
from sandbox.active_directory import BASE_DN, PEOPLE, Slapd
from tests.integration.directories.conftest import admin, person

INNER, OUTER = f"ou=inner,{PEOPLE}", f"ou=outer,{BASE_DN}"


def stamp(seconds: float) -> str:
    return f"{datetime.now(UTC) + timedelta(seconds=seconds):%Y%m%d%H%M%S}Z"


OLD = "createTimestamp: 20260101000000Z\nmodifyTimestamp: "


def ldif(path: Path, people: dict[str, str], *, below: str = PEOPLE) -> Path:
    """People, each with the time of its last change."""
    entries = (
        f"dn: uid={uid},{below}\nobjectClass: inetOrgPerson\nuid: {uid}\ncn: {uid}\nsn: {uid}\n{OLD}{at}\n\n"
        for uid, at in people.items()
    )
    units = (
        f"dn: {dn}\nobjectClass: organizationalUnit\nou: {dn[3:8]}\n{OLD}20260101000000Z\n\n" for dn in (INNER, OUTER)
    )
    path.write_text("".join((*units, *entries)))
    return path


def test_a_time_in_the_future_hides_nobody(tmp_path, sync, held):
    people = {"ahead": stamp(86_400), "ada": stamp(-3600), "bob": stamp(-3600)}
    with Slapd(tmp_path / "slapd", ldif=ldif(tmp_path / "people.ldif", people)) as slapd:
        sync(slapd)
        for title in ("Lead", "Chief"):
            with admin(slapd) as connection:
                connection.modify(f"uid=ada,{PEOPLE}", {"title": [("MODIFY_REPLACE", [title])]})
            assert sync(slapd)["mode"] == "delta"
            assert held()["ada"]["title"] == title


def test_a_clock_that_is_slow_hides_nobody(tmp_path, sync, held, monkeypatch):
    people = {"ada": stamp(-7200), "bob": stamp(-7200)}
    with Slapd(tmp_path / "slapd", ldif=ldif(tmp_path / "people.ldif", people)) as slapd:
        sync(slapd)
        late = stamp(-3600)
        with admin(slapd) as connection:
            relax = [("1.3.6.1.4.1.4203.666.5.12", True, None)]
            change = {"title": [("MODIFY_REPLACE", ["Lead"])], "modifyTimestamp": [("MODIFY_REPLACE", [late])]}
            connection.modify(f"uid=ada,{PEOPLE}", change, controls=relax)
        assert sync(slapd)["updated"] == 1
        assert held()["ada"]["title"] == "Lead"


def test_many_of_one_time_are_not_read_for_ever(tmp_path, sync):
    people = {f"p{number}": stamp(-86_400) for number in range(30)}
    with Slapd(tmp_path / "slapd", ldif=ldif(tmp_path / "people.ldif", people)) as slapd:
        sync(slapd)
        assert sync(slapd)["users"] == 0


def test_an_ou_that_was_renamed_or_moved_changes_whoever_is_below_it(tmp_path, sync, held):
    people = {f"p{number}": "20260101000000Z" for number in range(3)}
    only = {"base_dn": PEOPLE, "max_missing_share": 1}
    renamed = "ou=renamed"
    with Slapd(tmp_path / "slapd", ldif=ldif(tmp_path / "people.ldif", people, below=INNER)) as slapd:
        person(slapd, "newcomer")
        sync(slapd, **only)
        assert sync(slapd, **only)["mode"] == "delta"
        with admin(slapd) as connection:
            connection.modify_dn(INNER, renamed)
        assert sync(slapd, **only)["mode"] == "full"
        assert held()["p1"]["dn"] == f"uid=p1,{renamed},{PEOPLE}"
        with admin(slapd) as connection:
            connection.modify_dn(f"{renamed},{PEOPLE}", renamed, new_superior=OUTER)
        assert sync(slapd, **only)["deactivated"] == 3
        assert set(held(active=False)) == set(people)
        with admin(slapd) as connection:
            connection.modify_dn(f"{renamed},{OUTER}", renamed, new_superior=PEOPLE)
        assert sync(slapd, **only)["mode"] == "full"
        assert set(held()) == {"newcomer", *people}
        assert sync(slapd, **only)["mode"] == "delta"


def test_an_ou_that_is_new_or_described_anew_is_no_reason_to_read_everybody(small, sync, held):
    sync(small)
    with admin(small) as connection:
        connection.add(f"ou=new,{PEOPLE}", "organizationalUnit")
        connection.modify_dn(f"uid=user000001,{PEOPLE}", "uid=user000001", new_superior=f"ou=new,{PEOPLE}")
        connection.modify(PEOPLE, {"description": [("MODIFY_REPLACE", ["all of us"])]})
    delta = sync(small)
    assert (delta["mode"], delta["updated"]) == ("delta", 1)
    assert held()["user000001"]["dn"] == f"uid=user000001,ou=new,{PEOPLE}"


def test_somebody_made_anew_under_the_same_name_is_one_person(small, sync, held):
    sync(small)
    before = held()["user000004"]["id"]
    with admin(small) as connection:
        connection.delete(f"uid=user000004,{PEOPLE}")
    person(small, "user000004")
    delta = sync(small)
    assert (delta["mode"], delta["created"], delta["deactivated"]) == ("delta", 1, 1)
    assert held()["user000004"]["id"] != before
    assert held(active=False)["user000004"]["id"] == before


def test_two_people_of_one_name_stay_two(small, sync, held, airis):
    sync(small)
    with admin(small) as connection:
        connection.add(f"ou=other,{PEOPLE}", "organizationalUnit")
        values = {"cn": "Other", "sn": "Other"}
        connection.add(f"uid=user000004,ou=other,{PEOPLE}", "inetOrgPerson", values)
    delta = sync(small)
    assert (delta["mode"], delta["created"], delta["deactivated"]) == ("delta", 1, 0)


def test_nothing_new_takes_two_searches_and_no_call_for_users(small, sync, monkeypatch):
    sync(small)
    asked: list[int] = []
    close = ActiveDirectoryHook.close
    monkeypatch.setattr(ActiveDirectoryHook, "close", lambda hook: (asked.append(hook.requests), close(hook))[1])
    summary = sync(small)
    assert (summary["mode"], summary["calls"], asked) == ("delta", 0, [2])


def test_what_a_release_before_checkpoints_left_is_read_once(small, sync, request):
    source = request.node.name
    sync(small)
    with AirisHook() as hub:
        name = f"active_directory/{source}"
        found = hub.checkpoints.get(name)
        mark = {key: value for key, value in found.value["cursor"].items() if key not in ("containers", "seen_at")}
        hub.checkpoints.delete(name)
        hub.event(Event("directory_synced", source, "info", found.updated_at + 1, {"mark": mark}, f"old/{source}"))
    assert sync(small)["mode"] == "delta"
    with AirisHook() as hub:
        hub.event(Event("directory_synced", source, "info", found.updated_at + 2, {"mark": {}}, f"older/{source}"))
    assert sync(small)["mode"] == "delta"


def test_of_two_syncs_at_once_the_earlier_mark_stays(small, sync, request, monkeypatch):
    sync(small)
    name = f"active_directory/{request.node.name}"
    sync_users = AirisHook.sync_users

    def between(self: AirisHook, *arguments: Any, **words: Any) -> Any:
        """Another sync commits while this one sends, and had begun before it."""
        answer = sync_users(self, *arguments, **words)
        found = self.checkpoints.get(name)
        cursor = {**found.value["cursor"], "since": found.value["cursor"]["since"] - 60_000}
        self.checkpoints.put(name, {**found.value, "cursor": cursor}, version=found.version)
        return answer

    with AirisHook() as hub:
        before = hub.checkpoints.get(name).value["cursor"]["since"]
    monkeypatch.setattr(AirisHook, "sync_users", between)
    with admin(small) as connection:
        connection.modify(f"uid=user000003,{PEOPLE}", {"title": [("MODIFY_REPLACE", ["Chief"])]})
    assert sync(small)["updated"] == 1
    with AirisHook() as hub:
        assert hub.checkpoints.get(name).value["cursor"]["since"] == before - 60_000


@pytest.fixture
def plain(small: Slapd, document: Any, connect: Any, request: pytest.FixtureRequest) -> Any:
    """Sync against a hub that has the document's four calls alone."""
    from airflow_provider_airis.operators.active_directory import ActiveDirectoryToAirisOperator

    def sync(**arguments: Any) -> dict[str, Any]:
        connect("ldap_default", **small.connection())
        connect("airis_default", conn_type="airis", host=document.url, password=document.token)
        operator = ActiveDirectoryToAirisOperator(task_id="sync", source=request.node.name, **arguments)
        return operator.execute({})

    return sync


def names(document: Any, at: int) -> tuple[str, set[str]]:
    data = document.taken()["users"][at]["data"]
    return data["sync_type"], {user["username"] for user in data["users"]}


def test_a_hub_of_four_calls_learns_who_has_left_by_a_full_sync(small, plain, document, variables):
    assert plain()["mode"] == "full"
    assert len(names(document, -1)[1]) == 40
    with admin(small) as connection:
        connection.modify(f"uid=user000003,{PEOPLE}", {"title": [("MODIFY_REPLACE", ["Chief"])]})
    assert plain()["mode"] == "delta"
    assert names(document, -1) == ("delta", {"user000003"})
    with admin(small) as connection:
        connection.delete(f"uid=user000004,{PEOPLE}")
    person(small, "user000004")
    # The one made anew tells that the other is gone, which a delta cannot say.
    assert plain()["mode"] == "full"
    assert variables


def test_a_hub_of_four_calls_is_protected_too(small, plain, document):
    plain()
    before = len(document.taken()["users"])
    with pytest.raises(AirflowFailException, match="Refusing to delete: 30 of 40 users"):
        plain(mode="full", search_filter="(uid=user00000*)")
    assert len(document.taken()["users"]) == before
    assert plain(mode="full")["mode"] == "full"
    assert plain(mode="full", search_filter="(uid=user00000*)", max_missing_share=1)["users"] == 10
    assert plain(mode="full", dry_run=True)["created"] == 30


def test_ids_are_decoded_in_every_search(small, connect):
    """A binary value is found again by the text it was given."""
    from airflow_provider_airis.hooks.ldap_entries import id_filter

    raw = bytes(range(240, 256))
    with admin(small) as connection:
        change = {"objectClass": [("MODIFY_ADD", ["airisPerson"])], "mS-DS-ConsistencyGuid": [("MODIFY_ADD", [raw])]}
        connection.modify(f"uid=user000001,{PEOPLE}", change)
    connect("ldap_default", **small.connection())
    with ActiveDirectoryHook() as hook:
        [entry] = hook.entries(None, "(mS-DS-ConsistencyGuid=*)", ["mS-DS-ConsistencyGuid"])
        one = entry.id("mS-DS-ConsistencyGuid")
        assert base64.b64encode(raw).decode() != one
        assert [found.dn for found in hook.entries(None, id_filter("mS-DS-ConsistencyGuid", one))] == [entry.dn]
