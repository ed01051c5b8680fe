"""What entries mean: ids that are not text, who is disabled, several addresses, groups in every form, and aliases."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_airis.errors import PermanentError
from airflow_provider_airis.hooks.active_directory import ActiveDirectoryHook
from sandbox.active_directory import BASE_DN, GROUPS, PEOPLE, Slapd
from tests.integration.directories.conftest import admin, person

GUIDS = {"attributes": {"id": "mS-DS-ConsistencyGuid"}}


def guid(slapd: Slapd, uid: str, value: bytes | None) -> None:
    with admin(slapd) as connection:
        dn = f"uid={uid},{PEOPLE}"
        connection.search(dn, "(objectClass=airisPerson)", "BASE")
        if not connection.entries:
            connection.modify(dn, {"objectClass": [("MODIFY_ADD", ["airisPerson"])]})
        values = [] if value is None else [value]
        connection.modify(dn, {"mS-DS-ConsistencyGuid": [("MODIFY_REPLACE", values)]})


def test_forty_binary_ids_are_forty_people(small, sync, held):
    made = {f"user{number:06}": uuid.UUID(int=(1 << 127) + number) for number in range(40)}
    for uid, one in made.items():
        guid(small, uid, one.bytes_le)
    summary = sync(small, **GUIDS)
    assert (summary["users"], summary["created"], summary["rejected"]) == (40, 40, 0)
    assert {name: user["id"] for name, user in held().items()} == {name: str(one) for name, one in made.items()}
    # Whoever has left is asked for by that id, in its bytes.
    with admin(small) as connection:
        connection.delete(f"uid=user000004,{PEOPLE}")
    assert sync(small, mode="full", **GUIDS)["deactivated"] == 1


def test_an_id_of_two_is_refused_by_name_for_both_and_nobody_is_merged(small, sync, held, capsys):
    for number in range(40):
        guid(small, f"user{number:06}", uuid.UUID(int=number + 1).bytes_le)
    assert sync(small, **GUIDS)["created"] == 40
    before = held()["user000001"]
    # Afterwards somebody is given somebody else's, as a copied template does.
    guid(small, "user000002", uuid.UUID(int=2).bytes_le)
    allowed = {"max_rejected": 0.5, **GUIDS}
    for mode in ("auto", "full"):
        capsys.readouterr()
        # The one whose own id is gone has left, as far as anybody can tell.
        summary = sync(small, mode=mode, **allowed)
        assert summary["rejected"] == 2
        log = capsys.readouterr().out
        for one, other in (("user000001", "user000002"), ("user000002", "user000001")):
            assert f"uid={one},{PEOPLE}: /id: mS-DS-ConsistencyGuid" in log
            assert f"is also that of uid={other},{PEOPLE}" in log
        assert held()["user000001"]["dn"] == before["dn"]
        assert not [name for name, user in held().items() if name == "user000002" and user["id"] == before["id"]]
    with pytest.raises(AirflowFailException, match="refused 2 of"):
        sync(small, mode="full", **GUIDS)


def test_the_first_id_that_has_a_value_counts(small, sync, held):
    guid(small, "user000001", b"\x01\xff\xfe")
    sync(small, attributes={"id": "mS-DS-ConsistencyGuid, entryUUID"})
    users = held()
    assert users["user000001"]["id"] == "Af/+"
    assert len({user["id"] for user in users.values()}) == 40
    assert uuid.UUID(users["user000002"]["id"])


@pytest.mark.parametrize(
    ("vendor", "arguments", "disabled"),
    [
        ("389 Project", {}, {"user000003"}),
        ("", {}, {"user000003", "user000009"}),
        ("", {"disabled_if": "employeeType!=active"}, {f"user{number:06}" for number in range(40) if number != 7}),
        ("", {"disabled_if": "nsAccountLock"}, {"user000003", "user000005"}),
        ("", {"disabled_if": "employeeNumber&2, title=none"}, {"user000006"}),
    ],
    ids=["389ds", "openldap", "a value", "an attribute", "bits"],
)
def test_who_is_disabled(tmp_path, sync, held, vendor, arguments, disabled):
    with Slapd(tmp_path / "slapd", users=40, vendor=vendor) as slapd:
        with admin(slapd) as connection:
            for uid, locked in (("user000003", "TRUE"), ("user000005", "FALSE")):
                lock = {"objectClass": [("MODIFY_ADD", ["airisPerson"])], "nsAccountLock": [("MODIFY_ADD", [locked])]}
                connection.modify(f"uid={uid},{PEOPLE}", lock)
            connection.modify(f"uid=user000007,{PEOPLE}", {"employeeType": [("MODIFY_ADD", ["Active"])]})
            connection.modify(f"uid=user000006,{PEOPLE}", {"employeeNumber": [("MODIFY_ADD", ["514"])]})
            connection.modify(f"uid=user000008,{PEOPLE}", {"employeeNumber": [("MODIFY_ADD", ["512"])]})
        attributes = {"id": "entryUUID"} if vendor else {}
        sync(slapd, attributes=attributes, **arguments)
    found = {name for name, user in held().items() if not user["enabled"]}
    # 389 DS has no ppolicy, but somebody may have put one before it.
    assert found == (disabled | {"user000009"} if vendor else disabled)


def test_a_right_to_read_the_state_that_was_lost_enables_nobody(small, sync, held):
    sync(small)
    as_windows = {"attributes": {"id": "entryUUID", "username": "uid"}, "search_filter": "(objectClass=inetOrgPerson)"}
    with pytest.raises(AirflowFailException, match=r"40 of 40 entries .* came without useraccountcontrol"):
        sync(small, preset="active_directory", **as_windows)
    assert not held()["user000009"]["enabled"]
    assert sync(small, preset="active_directory", disabled_if="pwdAccountLockedTime", **as_windows)["users"] == 40


def test_all_addresses_are_kept_and_the_primary_is_the_one_that_is_marked(small, sync, held):
    with admin(small) as connection:
        proxies = ["smtp:ada.l@example.com", "X500:/o=Example/cn=ada", "SMTP:ada@example.com", "sip:ada@example.com"]
        change = {
            "objectClass": [("MODIFY_ADD", ["airisPerson"])],
            "proxyAddresses": [("MODIFY_ADD", proxies)],
            "mail": [("MODIFY_REPLACE", ["ada.lovelace@example.com", "ADA@example.com"])],
            "title": [("MODIFY_ADD", ["Countess"])],
            "telephoneNumber": [("MODIFY_ADD", ["2", "1"])],
            "uid": [("MODIFY_REPLACE", ["ada", "user000001"])],
        }
        connection.modify(f"uid=user000001,{PEOPLE}", change)
    attributes = {"email": "proxyAddresses, mail", "phone": "telephoneNumber"}
    sync(small, attributes=attributes)
    user = held()["user000001"]
    assert user["email"] == "ada@example.com"
    assert user["attributes"] == {
        "email": ["ada@example.com", "ada.l@example.com", "ada.lovelace@example.com"],
        "title": ["Countess", "Engineer"],
        "phone": ["1", "2"],
    }
    assert held()["user000002"]["attributes"] == {}
    assert sync(small, mode="full", attributes=attributes)["duplicates"] == 40
    sync(small, attributes={"email": "mail,proxyAddresses"})
    assert held()["user000001"]["email"] == "ada.lovelace@example.com"


def grouped(slapd: Slapd) -> dict[str, str]:
    """Groups that list their members in every way, and a group of groups, round in a circle."""
    names = {name: f"cn={name},{GROUPS}" for name in ("posix", "unique", "plain", "above", "main")}
    with admin(slapd) as connection:
        connection.add(names["posix"], "posixGroup", {"gidNumber": "500", "memberUid": ["user000001"]})
        unique = [f"UID=user000001, {PEOPLE}#'0101'B", f"uid=user000002,{PEOPLE}"]
        connection.add(names["unique"], "groupOfUniqueNames", {"uniqueMember": unique})
        connection.add(names["above"], "groupOfNames", {"member": [names["unique"], f"uid=user000003,{PEOPLE}"]})
        connection.modify(names["unique"], {"uniqueMember": [("MODIFY_ADD", [names["above"]])]})
        connection.add(names["main"], "posixGroup", {"gidNumber": "600"})
        account = {"objectClass": [("MODIFY_ADD", ["posixAccount"])], "gidNumber": [("MODIFY_ADD", ["600"])]}
        account |= {"uidNumber": [("MODIFY_ADD", ["1"])], "homeDirectory": [("MODIFY_ADD", ["/home/1"])]}
        connection.modify(f"uid=user000004,{PEOPLE}", account)
    return names


def test_groups_say_who_is_in_them(small, sync, held):
    names = grouped(small)
    sync(small, groups_by="members")
    users = held()
    departments = {name: user["groups"] for name, user in users.items()}
    mine = {name: {group for group in groups if group in names.values()} for name, groups in departments.items()}
    assert mine["user000001"] == {names["posix"], names["unique"]}
    assert mine["user000002"] == {names["unique"]}
    assert mine["user000004"] == {names["main"]}
    assert f"cn=legal,{GROUPS}" in departments["user000003"]
    sync(small, groups_by="members", nested_groups=True)
    assert {names["unique"], names["above"], names["posix"]} <= set(held()["user000001"]["groups"])


@pytest.mark.parametrize(
    ("group", "nested", "who"),
    [
        ("posix", False, {"user000001"}),
        ("UNIQUE", False, {"user000001", "user000002"}),
        ("above", False, {"user000003"}),
        ("above", True, {"user000001", "user000002", "user000003"}),
    ],
)
def test_a_group_restricts_by_its_own_members(small, sync, held, group, nested, who):
    grouped(small)
    sync(small, groups_by="members", nested_groups=nested, group=f"cn={group},{GROUPS}")
    assert set(held()) == who


def test_groups_in_groups_count_outside_active_directory(small, sync, held):
    everybody = f"cn=everybody,{GROUPS}"
    sync(small, nested_groups=True)
    assert held()["user000003"]["groups"] == [everybody, f"cn=legal,{GROUPS}"]
    assert sync(small, nested_groups=True, group=everybody, source="all")["users"] == 40
    with pytest.raises(AirflowFailException, match="is empty"):
        sync(small, group=everybody, source="direct")


def test_commas_separate_attributes_of_groups_too(small, sync, held):
    sync(small, attributes={"groups": "seeAlso, memberOf"})
    assert held()["user000003"]["groups"] == [f"cn=legal,{GROUPS}"]


def test_aliases_are_followed_only_if_that_is_said(small, sync, connect):
    with admin(small) as connection:
        connection.add(f"ou=elsewhere,{BASE_DN}", "organizationalUnit")
        alias = {"aliasedObjectName": PEOPLE, "ou": "link"}
        connection.add(f"ou=link,ou=elsewhere,{BASE_DN}", ["alias", "extensibleObject"], alias)

    def found(**extra: Any) -> int:
        connect("ldap_default", **small.connection(**extra))
        with ActiveDirectoryHook() as hook:
            return sum(1 for _ in hook.entries(f"ou=elsewhere,{BASE_DN}", "(objectClass=inetOrgPerson)"))

    assert found() == 0
    assert found(dereference_aliases="always") == 40
    with pytest.raises(PermanentError, match="its dereference_aliases must be one of never, searching"):
        found(dereference_aliases="perhaps")


def test_a_connection_as_a_uri_of_ldaps_is_ldaps(small, monkeypatch):
    port = small.ldaps_url.rpartition(":")[2]
    login = "cn%3Dairis%2Cou%3Dservices%2Cdc%3Dexample%2Cdc%3Dcom"
    extra = f"ca_certs_file={str(small.ca_certs_file).replace('/', '%2F')}"
    uri = f"ldaps://{login}:{small.password}@127.0.0.1:{port}/?{extra}"
    monkeypatch.setenv("AIRFLOW_CONN_LDAP_DEFAULT", uri)
    assert f"at ldaps://127.0.0.1:{port} accepts" in ActiveDirectoryHook(retries=0).check()
    monkeypatch.setenv("AIRFLOW_CONN_LDAP_DEFAULT", f"{uri}&tls=starttls")
    with pytest.raises(PermanentError, match="its type says ldaps and its tls says starttls"):
        ActiveDirectoryHook(retries=0).check()


def test_somebody_new_is_there_at_once(small, sync, held):
    sync(small)
    person(small, "newcomer", mail="new@example.com")
    assert sync(small)["created"] == 1
    assert held()["newcomer"]["email"] == "new@example.com"
