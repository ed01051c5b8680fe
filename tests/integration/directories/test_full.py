"""A directory's users from a real slapd into a real hub: whole, by what has changed, and against what goes wrong."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_airis.errors import AirisError, PermanentError, RetryableError
from airflow_provider_airis.hooks.active_directory import ActiveDirectoryHook
from airflow_provider_airis.hooks.airis import AirisHook
from airflow_provider_airis.hooks.ldap_entries import escape
from sandbox.active_directory import BASE_DN, GROUPS, PEOPLE, Slapd
from sandbox.process import Server
from tests.integration.directories.conftest import admin, person

PERSON = "(objectClass=inetOrgPerson)"


class Proxy:
    """Passes TCP on to a server, from another address; cuts every connection after so many bytes of answers."""

    def __init__(self, port: int, *, cut: int | None = None) -> None:
        self.port, self.cut, self.sent = port, cut, b""

    def __enter__(self) -> Proxy:
        self._listener = socket.create_server(("127.0.0.2", 0))
        self.url = f"ldap://127.0.0.2:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client = self._listener.accept()[0]
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.port))
            threading.Thread(target=self._up, args=(client, server), daemon=True).start()
            threading.Thread(target=self._down, args=(server, client), daemon=True).start()

    def _up(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while content := client.recv(65536):
                self.sent += content
                server.sendall(content)
            server.shutdown(socket.SHUT_WR)

    def _down(self, server: socket.socket, client: socket.socket) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while content := server.recv(4096):
                passed += len(content)
                if self.cut is not None and passed > self.cut:
                    client.shutdown(socket.SHUT_RDWR)
                    break
                client.sendall(content)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slapd]:
    """Two thousand people whom no test changes."""
    with Slapd(tmp_path_factory.mktemp("slapd"), users=2000) as slapd:
        yield slapd


def hook(connect: Callable[..., str], slapd: Slapd, *, host: str = "", login: str = "", **extra: Any) -> Any:
    fields: dict[str, Any] = slapd.connection(**extra)
    connect("ldap_default", **{**fields, "host": host or fields["host"], "login": login or fields["login"]})
    return ActiveDirectoryHook(timeout=5, retries=0)


def test_a_full_sync_brings_everybody(directory, sync, held):
    summary = sync(directory)
    assert (summary["mode"], summary["users"], summary["created"], summary["rejected"]) == ("full", 2000, 2000, 0)
    users = held()
    assert len(users) == 2000
    user = users["user000107"]
    assert user["display_name"] == "Łucja Ito 107"
    assert user["email"] == "user000107@example.com"
    assert user["groups"] == [f"cn=legal,{GROUPS}"]
    assert user["manager"] == f"uid=user000010,{PEOPLE}"
    assert user["expires_at"] == 21915 * 86_400_000
    assert {name for name, user in users.items() if not user["enabled"]} == {
        f"user{number:06}" for number in range(9, 2000, 50)
    }


def test_the_next_sync_brings_what_has_changed(small, sync, held):
    assert sync(small)["mode"] == "full"
    nothing = sync(small)
    assert (nothing["mode"], nothing["users"], nothing["deactivated"]) == ("delta", 0, 0)
    with admin(small) as connection:
        connection.modify(f"uid=user000003,{PEOPLE}", {"title": [("MODIFY_REPLACE", ["Chief"])]})
        connection.delete(f"uid=user000004,{PEOPLE}")
    person(small, "newcomer", mail="new@example.com")
    delta = sync(small)
    assert (delta["mode"], delta["created"], delta["updated"], delta["deactivated"]) == ("delta", 1, 1, 0)
    assert held()["user000003"]["title"] == "Chief"
    # OpenLDAP does not show what was deleted: reading everybody does.
    assert sync(small, mode="full")["deactivated"] == 1
    assert set(held(active=False)) == {"user000004"}


def test_who_leaves_the_filter_is_deactivated_and_comes_back(small, sync, held):
    only = {"search_filter": "(&(objectClass=inetOrgPerson)(mail=*))"}
    sync(small, **only)
    with admin(small) as connection:
        connection.modify(f"uid=user000003,{PEOPLE}", {"mail": [("MODIFY_DELETE", [])]})
    assert sync(small, **only)["deactivated"] == 1
    assert set(held(active=False)) == {"user000003"}
    with admin(small) as connection:
        connection.modify(f"uid=user000003,{PEOPLE}", {"mail": [("MODIFY_ADD", ["back@example.com"])]})
    assert sync(small, **only)["mode"] == "delta"
    assert held()["user000003"]["email"] == "back@example.com"


def test_a_rename_keeps_the_user(small, sync, held):
    sync(small)
    before = held()["user000005"]["id"]
    with admin(small) as connection:
        connection.modify_dn(f"uid=user000005,{PEOPLE}", "uid=renamed")
    assert sync(small)["updated"] == 1
    assert held()["renamed"]["id"] == before
    assert "user000005" not in held()


def test_another_selection_or_a_checkpoint_that_is_gone_is_a_full_sync(small, sync, request):
    assert sync(small)["mode"] == "full"
    assert sync(small, attributes={"department": "ou"})["mode"] == "full"
    assert sync(small, attributes={"department": "ou"})["mode"] == "delta"
    with AirisHook() as hub:
        hub.checkpoints.delete(f"active_directory/{request.node.name}")
    assert sync(small, attributes={"department": "ou"})["mode"] == "full"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            {"search_filter": "(uid=user00000*)"},
            "Refusing to delete: 30 of 40 users .* are missing, more than max_missing_share=0.1, among them user",
        ),
        (
            {"search_filter": f"(&{PERSON}(!(uid=user00000*)))", "max_missing": 5, "max_missing_share": 1},
            "10 of 40 users .*max_missing=5",
        ),
        ({"search_filter": "(uid=nobody)"}, "is empty: nobody below"),
        ({"base_dn": GROUPS}, "is empty: nobody below"),
        ({"base_dn": f"ou=gone,{BASE_DN}"}, "noSuchObject"),
        (
            {"attributes": {"username": "employeeNumber"}},
            "40 of 40 entries .* came without entryUUID or employeeNumber",
        ),
    ],
)
def test_a_directory_that_looks_much_smaller_is_refused(small, sync, held, arguments, says):
    sync(small)
    with pytest.raises(AirflowFailException, match=says):
        sync(small, mode="full", **arguments)
    assert len(held()) == 40
    assert not held(active=False)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"access": f'access to dn.subtree="{PEOPLE}" by * none'}, "is empty"),
        ({"access": "access to attrs=uid by * none"}, "came without"),
        (
            {"access": "access to filter=(uid=user000003) attrs=uid by * none"},
            "^1 users whom the hub knows came without",
        ),
        (
            {"access": "access to filter=(|(departmentNumber=Sales)(departmentNumber=Legal)) by * none"},
            "Refusing to delete: 10 of",
        ),
        ({"limits": "size.soft=10 size.hard=20 size.pr=10 size.prtotal=20"}, "it gives no more than that in all"),
    ],
    ids=["no entries", "no names", "one name", "some entries", "a limit"],
)
def test_rights_and_limits_that_were_lost_deactivate_nobody(small, sync, held, changed, says):
    sync(small)
    small.configure(**changed)
    with pytest.raises(AirflowFailException, match=says):
        sync(small, mode="full")
    assert len(held()) == 40
    small.configure()
    assert sync(small, mode="full")["duplicates"] == 40


def test_more_may_leave_if_the_limits_are_raised(small, sync, held):
    sync(small)
    summary = sync(small, search_filter="(uid=user00000*)", max_missing_share=1)
    assert summary["deactivated"] == 30
    assert len(held()) == 10


def test_a_delta_that_would_deactivate_many_is_refused(small, sync, held):
    only = {"search_filter": "(&(objectClass=inetOrgPerson)(title=*))"}
    sync(small, **only)
    with admin(small) as connection:
        for number in range(10):
            connection.modify(f"uid=user{number:06},{PEOPLE}", {"title": [("MODIFY_DELETE", [])]})
    with pytest.raises(AirflowFailException, match="10 of 40 users"):
        sync(small, **only)
    assert len(held()) == 40


def test_a_server_that_dies_between_pages_deactivates_nobody(directory, sync, held):
    assert sync(directory)["created"] == 2000
    with Proxy(directory.port, cut=700_000) as proxy, pytest.raises(RetryableError, match="got no answer"):
        sync(directory, host=proxy.url, tls="none", mode="full")
    # The containers, and two pages of people.
    assert proxy.sent.count(b"1.2.840.113556.1.4.319") == 3
    assert len(held()) == 2000


def test_the_page_fits_the_server(directory, connect, capsys):
    reader = hook(connect, directory)
    assert sum(1 for _ in reader.entries(PEOPLE, PERSON, ["uid"], page_size=1500)) == 2000
    assert "asking for 750 a page" in capsys.readouterr().out


def test_less_than_there_is_is_an_error(small, connect):
    small.configure(limits="size.soft=10 size.hard=20 size.pr=10 size.prtotal=20")
    with pytest.raises(PermanentError, match=r"LimitExceeded.*after 20 entries, 10 a page"):
        list(hook(connect, small).entries(PEOPLE, PERSON, ["uid"], page_size=10))


def test_the_next_server_takes_over_and_is_read_whole(small, sync):
    assert sync(small, host=f"ldap://127.0.0.1:9, {small.url}")["mode"] == "full"
    assert sync(small, host=f"ldap://127.0.0.1:9, {small.url}")["mode"] == "delta"
    summary = sync(small, host=f"ldap://127.0.0.1:9, {small.url.replace('127.0.0.1', 'localhost')}")
    assert (summary["mode"], summary["duplicates"]) == ("full", 40)


def test_a_wrong_password_is_not_tried_again_and_again(small, connect):
    with Proxy(small.port) as first, Proxy(small.port) as second:
        fields: dict[str, Any] = small.connection(verify=False)
        connect("ldap_default", **{**fields, "host": f"{first.url},{second.url}", "password": "not the password"})
        with pytest.raises(PermanentError, match="invalidCredentials") as raised:
            ActiveDirectoryHook(retries=3, timeout=5).check()
    assert first.sent
    assert not second.sent
    assert "not the password" not in str(raised.value)


@pytest.mark.parametrize("extra", [{"ca_certs_file": ""}, {}], ids=["issuer", "name"])
def test_what_is_not_trusted_gets_no_password(small, connect, extra):
    with Proxy(small.port) as proxy:
        reader = hook(connect, small, host=proxy.url, **extra)
        with pytest.raises(PermanentError, match=r"its certificate is not trusted \(.+\): let ca_certs_file"):
            reader.check()
    assert small.password.encode() not in proxy.sent


def test_a_password_goes_unencrypted_only_if_that_is_said(small, connect):
    with Proxy(small.port) as proxy:
        assert hook(connect, small, host=proxy.url, verify=False).test_connection()[0]
        assert small.password.encode() not in proxy.sent
        assert hook(connect, small, host=proxy.url, tls="none").test_connection()[0]
        assert small.password.encode() in proxy.sent


def test_ldaps(small, connect):
    assert "accepts" in hook(connect, small, host=small.ldaps_url).check()
    works, told = hook(connect, small, host=small.ldaps_url, ca_certs_file="").test_connection()
    assert not works
    assert "certificate" in told


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"host": ""}, "its host is empty"),
        ({"host": "http://dc1"}, "give hosts, or URLs"),
        ({"host": "ldap://dc1:port"}, "port"),
        ({"host": "ldap://dc1", "extra": {"tls": "ldaps"}}, "its tls says ldaps"),
        ({"extra": {"tls": "sometimes"}}, "starttls, ldaps or none"),
        ({"password": ""}, "needs a login and a password"),
        ({"extra": {"authentication": "magic"}}, "simple, anonymous, gssapi or external"),
        ({"extra": {"ca_certs_file": "/nowhere.pem"}}, "no readable certificate"),
        ({"extra": {"timeout": "soon"}}, "no number of seconds"),
    ],
)
def test_a_connection_that_cannot_be_used_says_why(small, connect, fields, says):
    connect("ldap_default", **{**small.connection(), **fields})
    with pytest.raises(PermanentError, match=says):
        ActiveDirectoryHook(retries=0).check()


def test_a_group_restricts_and_its_name_is_only_a_name(small, sync, held):
    strange = f"cn=ops (night*),{GROUPS}"
    with admin(small) as connection:
        connection.add(strange, "groupOfNames", {"member": [f"uid=user000001,{PEOPLE}", f"uid=user000002,{PEOPLE}"]})
    assert sync(small, group=strange)["users"] == 2
    assert set(held()) == {"user000001", "user000002"}
    with pytest.raises(AirflowFailException, match="is empty"):
        sync(small, group="*)(uid=*", source="injected")
    assert escape("*()\\\0é") == "\\2a\\28\\29\\5c\\00é"


def test_a_dry_run_shows_the_changes_and_sends_nothing(small, sync, held, capsys):
    summary = sync(small, dry_run=True, shown=3)
    assert (summary["created"], held()) == (40, {})
    assert "Would be created: 40 user000000, user000001, user000002, …" in capsys.readouterr().out
    sync(small)
    with admin(small) as connection:
        connection.modify(f"uid=user000003,{PEOPLE}", {"title": [("MODIFY_REPLACE", ["Chief"])]})
        connection.delete(f"uid=user000004,{PEOPLE}")
    capsys.readouterr()
    summary = sync(small, mode="full", dry_run=True)
    told = capsys.readouterr().out
    assert [summary[change] for change in ("created", "updated", "deactivated")] == [0, 1, 1]
    assert "Would be updated: 1 user000003" in told
    assert "Would be deactivated: 1 user000004" in told
    assert held()["user000003"]["title"] != "Chief"
    refused = sync(small, mode="full", dry_run=True, search_filter="(uid=user00000*)")["refused"]
    assert "Refusing to delete" in refused


def test_the_sandbox_serves_as_a_process_and_leaves_nothing_behind(connect):
    with Server("sandbox.active_directory", "--port", "0", "--users", "5") as server:
        account = json.loads(Path(server.log.read_text().split("account ")[1].splitlines()[0]).read_text())
        connect(
            "ldap_default",
            conn_type="ldap",
            host=server.url,
            login=account["login"],
            password=account["password"],
            extra={"ca_certs_file": account["ca_certs_file"]},
        )
        with ActiveDirectoryHook() as reader:
            assert sum(1 for _ in reader.entries(None, PERSON)) == 5
    with pytest.raises(AirisError):
        ActiveDirectoryHook(retries=0, timeout=2).check()
