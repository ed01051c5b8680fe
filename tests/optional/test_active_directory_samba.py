"""What only Active Directory has, against a Samba domain controller: ``AIRIS_TEST_SAMBA=1``.

Needs root, the ports 389 and 636, and Debian's ``samba-ad-dc samba-ad-provision samba-dsdb-modules``.
"""

from __future__ import annotations

import contextlib
import ssl
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_airis.hooks.active_directory import ActiveDirectoryHook
from airflow_provider_airis.hooks.airis import AirisHook
from airflow_provider_airis.operators.active_directory import ActiveDirectoryToAirisOperator

DOMAIN = "DC=example,DC=test"
STAFF = f"OU=Staff,{DOMAIN}"
PASSWORD = "Adm1n-Pass-Word-EXAMPLE"
LOGIN = f"CN=Administrator,CN=Users,{DOMAIN}"
PLAIN = f"CN=airis,CN=Users,{DOMAIN}"


@pytest.fixture(scope="module")
def domain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """An administrator's connection to a domain with forty people."""
    import ldap3

    folder = tmp_path_factory.mktemp("samba")
    options = ("server services = ldap, cldap", "interfaces = 127.0.0.1", "bind interfaces only = yes")
    command = ["samba-tool", "domain", "provision", "--realm=EXAMPLE.TEST", "--domain=EXAMPLE", "--server-role=dc"]
    command += ["--dns-backend=NONE", f"--adminpass={PASSWORD}", f"--targetdir={folder}"]
    subprocess.run([*command, *(f"--option={option}" for option in options)], check=True, capture_output=True)
    with (folder / "samba.log").open("wb") as log:
        samba = subprocess.Popen(
            ["samba", "-i", "--model=single", "-s", str(folder / "etc/smb.conf")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield _filled(ldap3, samba, folder)
    finally:
        samba.terminate()
        samba.wait(20)


def _filled(ldap3: Any, samba: Any, folder: Path) -> Any:
    server = ldap3.Server("127.0.0.1", use_ssl=True, tls=ldap3.Tls(validate=ssl.CERT_NONE))
    for _ in range(600):
        assert samba.poll() is None, (folder / "samba.log").read_text()[-2000:]
        with contextlib.suppress(ldap3.core.exceptions.LDAPException):
            connection = ldap3.Connection(server, LOGIN, PASSWORD, auto_bind=True)
            break
        time.sleep(0.1)
    connection.raise_exceptions = True
    connection.add(STAFF, "organizationalUnit")
    for group in ("inner", "outer"):
        connection.add(f"CN={group},{STAFF}", "group", {"sAMAccountName": group})
    for number in range(40):
        name = f"u{number}"
        values = {
            "sAMAccountName": name,
            "mail": f"{name}@example.test",
            "userAccountControl": 514 if number % 2 else 544,
        }
        connection.add(f"CN={name},{STAFF}", "user", values)
    connection.add(PLAIN, "user", {"sAMAccountName": "airis", "userAccountControl": 544})
    connection.extend.microsoft.modify_password(PLAIN, PASSWORD)
    connection.modify(f"CN=inner,{STAFF}", {"member": [("MODIFY_ADD", [f"CN=u1,{STAFF}"])]})
    connection.modify(f"CN=outer,{STAFF}", {"member": [("MODIFY_ADD", [f"CN=inner,{STAFF}"])]})
    connection.modify(f"CN=u2,{STAFF}", {"accountExpires": [("MODIFY_REPLACE", ["133853472000000000"])]})
    return connection


@pytest.fixture
def sync(domain: Any, connect: Callable[..., str], airis: str, request: pytest.FixtureRequest) -> Callable[..., Any]:
    def sync(*, login: str = LOGIN, **arguments: Any) -> dict[str, Any]:
        connect(
            "ldap_default",
            conn_type="ldap",
            host="127.0.0.1",
            login=login,
            password=PASSWORD,
            extra={"verify": False, "base_dn": STAFF},
        )
        arguments = {"source": request.node.name, **arguments}
        return ActiveDirectoryToAirisOperator(task_id="sync", **arguments).execute({})

    return sync


def users(source: str, *, active: bool = True) -> dict[str, dict[str, Any]]:
    with AirisHook() as hub:
        return {user["username"]: user for user in hub.users(source=source, active=active)}


def test_accounts_are_read_as_they_are(sync, request, domain):
    summary = sync(nested_groups=True)
    assert (summary["method"], summary["users"]) == ("usn", 40)
    found = users(request.node.name)
    assert found["u1"]["groups"] == [f"CN=inner,{STAFF}", f"CN=outer,{STAFF}"]
    assert found["u2"]["expires_at"] == 1_740_873_600_000
    assert (found["u3"]["enabled"], found["u4"]["enabled"]) == (False, True)
    assert found["u1"]["attributes"] == {"primary_group_id": "513"}
    domain.search(f"CN=u1,{STAFF}", "(objectClass=user)", "BASE", attributes=["objectGUID"])
    assert found["u1"]["id"] == domain.entries[0].objectGUID.value.strip("{}")


@pytest.mark.parametrize(("dirsync", "first"), [(False, 5), (True, 15)], ids=["usn", "dirsync"])
def test_changes_moves_and_deletions_are_found(sync, request, domain, dirsync, first):
    method = "dirsync" if dirsync else "usn"
    sync(dirsync=dirsync)
    nothing = sync(dirsync=dirsync)
    assert [nothing[name] for name in ("mode", "method", "users", "deactivated")] == ["delta", method, 0, 0]
    domain.modify(f"CN=u{first},{STAFF}", {"title": [("MODIFY_REPLACE", ["Chief"])]})
    domain.delete(f"CN=u{first + 1},{STAFF}")
    domain.modify_dn(f"CN=u{first + 2},{STAFF}", f"CN=u{first + 2}", new_superior=f"CN=Users,{DOMAIN}")
    delta = sync(dirsync=dirsync)
    assert [delta[name] for name in ("mode", "method", "updated", "deactivated")] == ["delta", method, 1, 2]
    assert set(users(request.node.name, active=False)) == {f"u{first + 1}", f"u{first + 2}"}


@pytest.mark.parametrize("dirsync", [False, True], ids=["usn", "dirsync"])
def test_an_ou_that_was_renamed_or_moved_changes_whoever_is_below_it(sync, request, domain, dirsync):
    name, new = f"Team-{dirsync}", f"OU=Renamed-{dirsync}"
    team, member = f"OU={name},{STAFF}", f"CN=m{dirsync}"
    domain.add(team, "organizationalUnit")
    domain.add(f"{member},{team}", "user", {"sAMAccountName": member[3:], "userAccountControl": 544})
    sync(dirsync=dirsync)
    assert sync(dirsync=dirsync)["mode"] == "delta"
    domain.modify_dn(team, new)
    assert sync(dirsync=dirsync)["mode"] == "full"
    assert users(request.node.name)[member[3:]]["dn"] == f"{member},{new},{STAFF}"
    domain.modify_dn(f"{new},{STAFF}", new, new_superior=DOMAIN)
    assert sync(dirsync=dirsync)["deactivated"] == 1
    domain.modify_dn(f"{new},{DOMAIN}", new, new_superior=STAFF)
    assert sync(dirsync=dirsync)["mode"] == "full"
    assert member[3:] in users(request.node.name)
    domain.add(f"OU=Empty-{dirsync},{STAFF}", "organizationalUnit")
    assert sync(dirsync=dirsync)["mode"] == "delta"


def test_krbtgt_guest_and_computers_are_no_people(sync, request, domain):
    computer = {"sAMAccountName": "PC1$", "userAccountControl": 4096}
    domain.add(f"CN=PC1,CN=Computers,{DOMAIN}", "computer", computer)
    sync(base_dn=DOMAIN)
    found = users(request.node.name)
    assert "Administrator" in found
    assert not {"krbtgt", "Guest", "PC1$"} & set(found)


def test_a_security_identifier_is_an_id_and_so_is_a_consistency_guid(sync, request, domain):
    sync(attributes={"id": "objectSid"})
    domain.search(f"CN=u1,{STAFF}", "(objectClass=user)", "BASE", attributes=["objectSid"])
    assert users(request.node.name)["u1"]["id"] == domain.entries[0].objectSid.value
    assert sync(attributes={"id": "objectSid"}, mode="full")["duplicates"] > 30
    anchor = uuid.uuid4()
    values = {"mS-DS-ConsistencyGuid": [("MODIFY_REPLACE", [anchor.bytes_le])]}
    domain.modify(f"CN=u1,{STAFF}", values)
    sync(attributes={"id": "mS-DS-ConsistencyGuid,objectGUID"}, max_missing_share=1)
    assert users(request.node.name)["u1"]["id"] == str(anchor)


def test_the_address_that_is_marked_is_the_primary_one(sync, request, domain):
    addresses = ["smtp:second@example.test", "SMTP:first@example.test"]
    domain.modify(f"CN=u4,{STAFF}", {"proxyAddresses": [("MODIFY_REPLACE", addresses)]})
    sync(attributes={"email": "proxyAddresses,mail"})
    found = users(request.node.name)["u4"]
    assert found["email"] == "first@example.test"
    assert found["attributes"]["email"] == ["first@example.test", "second@example.test", "u4@example.test"]


def test_somebody_made_anew_is_one_person_where_deletions_are_hidden(sync, request, domain):
    sync(login=PLAIN)
    domain.delete(f"CN=u38,{STAFF}")
    domain.add(f"CN=u38,{STAFF}", "user", {"sAMAccountName": "u38", "userAccountControl": 544})
    delta = sync(login=PLAIN)
    assert [delta[name] for name in ("mode", "created", "deactivated")] == ["delta", 1, 1]
    assert len([user for user in users(request.node.name) if user == "u38"]) == 1


def test_nothing_new_takes_three_searches(sync, monkeypatch):
    sync()
    asked: list[int] = []
    close = ActiveDirectoryHook.close
    monkeypatch.setattr(ActiveDirectoryHook, "close", lambda hook: (asked.append(hook.requests), close(hook))[1])
    assert sync()["users"] == 0
    assert asked == [3]


def test_a_plain_account_reads_by_usn_though_dirsync_was_asked_for(sync, domain, capsys):
    assert sync(login=PLAIN, dirsync=True)["method"] == "usn"
    assert "No DirSync, by uSNChanged instead" in capsys.readouterr().out
    domain.modify(f"CN=u30,{STAFF}", {"title": [("MODIFY_REPLACE", ["Chief"])]})
    delta = sync(login=PLAIN)
    assert [delta[name] for name in ("mode", "method", "updated")] == ["delta", "usn", 1]


def test_a_group_counts_its_groups_members_if_asked(sync):
    assert sync(group=f"CN=outer,{STAFF}", nested_groups=True)["users"] == 1


def test_the_hook_says_what_it_reached(sync, connect):
    sync()
    assert "Active Directory at ldap://127.0.0.1:389 accepts" in ActiveDirectoryHook().check()
