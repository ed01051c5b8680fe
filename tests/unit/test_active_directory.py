"""What a directory's values mean, when a mark is of use, and answers that come in pieces."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from airflow_provider_airis.catalog import BY_STEM
from airflow_provider_airis.errors import PermanentError, RetryableError
from airflow_provider_airis.hooks.active_directory import ActiveDirectoryHook
from airflow_provider_airis.hooks.ldap_answers import Answers
from airflow_provider_airis.hooks.ldap_entries import Entry, Root
from airflow_provider_airis.operators.active_directory import ActiveDirectoryToAirisOperator
from airflow_provider_airis.settings import source_arguments
from airflow_provider_airis.sources.directory.changes import Changes, bytes_le
from airflow_provider_airis.sources.directory.people import generalized
from airflow_provider_airis.sources.directory.reading import Reading, key
from tests.ldap_peer import _message, _result, _text, _tlv

GUID = uuid.UUID("781d1d06-8fad-4661-ae9a-dacf51527991")
ROOT = Root("ldap://dc1:389", True, "DC=example,DC=com", "DC=example,DC=com", 1000, "a-copy")


def reader(root: Root = ROOT, **arguments: Any) -> Reading:
    operator = ActiveDirectoryToAirisOperator(task_id="unit", **arguments)
    hook: Any = SimpleNamespace(root_once=root)
    return operator.reading(hook)


def changes(root: Root = ROOT) -> Changes:
    return Changes(reader(root), logging.getLogger())


def entry(**values: str | bytes) -> Entry:
    found = {"samaccountname": "ada", "objectguid": GUID.bytes_le, **{name.lower(): v for name, v in values.items()}}
    encoded = {name: [value if isinstance(value, bytes) else value.encode()] for name, value in found.items()}
    return Entry("CN=Ada,DC=example,DC=com", encoded)


def test_a_guid_is_the_one_that_active_directory_shows():
    [user] = reader().users([entry()])
    assert user.id == str(GUID)
    assert bytes_le(key(user.id)) == GUID.bytes_le


@pytest.mark.parametrize(
    ("control", "expires", "enabled", "at"),
    [
        ("512", "0", True, None),
        ("514", "9223372036854775807", False, None),
        ("66050", "133853472000000000", False, 1_740_873_600_000),
        ("66048", "133853472000000000", True, 1_740_873_600_000),
        ("528", "0", True, None),
    ],
)
def test_disabled_is_a_bit_and_never_has_two_numbers(control, expires, enabled, at):
    [user] = reader().users([entry(userAccountControl=control, accountExpires=expires)])
    assert (user.enabled, user.expires_at) == (enabled, at)


@pytest.mark.parametrize(
    ("text", "ms"),
    [("20261123060000Z", 1795413600000), ("20261123060000.0Z", 1795413600000), ("20261399000000Z", None), (None, None)],
)
def test_times(text, ms):
    assert generalized(text) == ms


def test_attributes_are_mapped_and_the_first_with_a_value_counts():
    mapped = reader(attributes={"department": "physicalDeliveryOfficeName,department", "phone": "telephoneNumber"})
    [user] = mapped.users([entry(department="Legal", telephoneNumber="+49 30 1", mail="ada@example.com")])
    assert (user.department, user.email, user.attributes) == ("Legal", "ada@example.com", {"phone": "+49 30 1"})
    with pytest.raises(PermanentError, match="one for id and one for username"):
        reader(attributes={"id": ""})
    with pytest.raises(PermanentError, match="is none of auto, active_directory, openldap, 389ds"):
        reader(preset="novell")


def test_a_group_is_escaped_into_the_filter():
    assert "(memberOf=CN=a\\29\\28uid=\\2a)" in reader(group="CN=a)(uid=*").filter
    nested = reader(group="CN=a", nested_groups=True).filter
    assert nested.endswith("(memberOf:1.2.840.113556.1.4.1941:=CN=a))")


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({}, ""),
        ({"usn": 1001}, ""),
        ({"server": "ldap://dc2:389"}, ""),
        ({"invocation_id": "another"}, "another domain controller"),
        ({"usn": 999}, "gone back in time"),
        ({"base": "OU=Staff,DC=example,DC=com"}, "another base"),
        ({"invocation_id": None}, "the last one went by usn"),
    ],
)
def test_a_mark_holds_for_one_copy_of_the_database(changed, says):
    last = changes().reached()
    reason = changes(ROOT._replace(**changed)).differs(last)
    assert (says in reason) if says else not reason
    assert msgspec.convert(msgspec.to_builtins(last), type(last)) == last


def test_a_mark_by_time_holds_for_one_server_and_never_lies_in_the_future():
    openldap = ROOT._replace(active_directory=False, usn=None, invocation_id=None)
    reading = reader(openldap, attributes={"changed_at": "modifyTimestamp"})
    first = Changes(reading, logging.getLogger())
    at = [f"{datetime.fromtimestamp(reading.now / 1000 + seconds, UTC):%Y%m%d%H%M%S}Z" for seconds in (-60, 86_400)]
    list(reading.users([entry(uid="a", entryUUID=str(GUID), modifyTimestamp=one) for one in at]))
    assert first.reached().since == reading.now // 1000 * 1000 - 60_000
    reading.latest = 0
    assert first.reached().since == reading.now - 600_000
    assert not changes(openldap).differs(first.reached())
    assert "dc2" in changes(openldap._replace(server="ldap://dc2:389")).differs(first.reached())


def test_long_attributes_are_read_on(monkeypatch):
    hook = ActiveDirectoryHook()
    hook.__dict__["connection"] = SimpleNamespace(host="dc1", password=None, extra="{}", port=None, conn_type="ldap")
    asked = []

    def read(base: str, attributes: tuple[str, ...]) -> Iterator[Entry]:
        asked.append((base, *attributes))
        last = {"memberof;range=2-*": [b"CN=c"]}
        return iter([Entry(base, {"memberof;range=1-1": [b"CN=b"]} if len(asked) == 1 else last)])

    monkeypatch.setattr(hook, "_read", read)
    whole = hook._whole(Entry("CN=Ada", {"memberof": [], "memberof;range=0-0": [b"CN=a"]}))
    assert whole.values == {"memberof": [b"CN=a", b"CN=b", b"CN=c"]}
    assert asked == [("CN=Ada", "memberof;range=1-*"), ("CN=Ada", "memberof;range=2-*")]
    monkeypatch.setattr(hook, "_read", lambda *_: iter(()))
    with pytest.raises(RetryableError, match="answered without it"):
        hook._whole(Entry("CN=Ada", {"memberof;range=0-0": [b"CN=a"]}))


class Pieces:
    """A socket that gives a few bytes at a time."""

    def __init__(self, content: bytes, size: int) -> None:
        self.content, self.size = content, size

    def recv(self, _: int) -> bytes:
        piece, self.content = self.content[: self.size], self.content[self.size :]
        return piece


ANSWER = (
    _message(7, _tlv(0x64, _text("CN=Łucja"), _tlv(0x30, _tlv(0x30, _text("Mail"), _tlv(0x31, _text("x" * 300))))))
    + _message(7, _tlv(0x73, _text("ldap://elsewhere")))
    + _message(7, _result(0x65, {"code": 4, "message": "no more"}))
)


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_an_answer_may_come_in_pieces(size):
    answer = Answers(Pieces(ANSWER, size)).receive(7)
    assert [*answer.entries()] == [("CN=Łucja", {"mail": [b"x" * 300]})]
    assert (answer.code, answer.message) == (4, "no more")


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (ANSWER[:-5], ConnectionResetError),
        (b"HTTP/1.1 400 Bad Request", ValueError),
        (_message(8, _result(0x65, {})), ValueError),
        (_message(0, _result(0x78, {"code": 52})), ConnectionResetError),
        (b"\x30\x84\x7f\xff\xff\xff\x02\x01", ValueError),
    ],
)
def test_what_is_no_answer_is_an_error(content, error):
    with pytest.raises(error):
        Answers(Pieces(content, 100)).receive(7)


def test_each_connection_is_a_directory_of_its_own(monkeypatch):
    monkeypatch.setenv("AIRFLOW__AIRIS_ACTIVE_DIRECTORY__CONNECTIONS", "ldap_default, ldap_subsidiary")
    monkeypatch.setenv("AIRFLOW__AIRIS_ACTIVE_DIRECTORY__ATTRIBUTES", '{"phone": "telephoneNumber"}')
    common, mapped = source_arguments(BY_STEM["active_directory"], "sync")
    first, second = (row | common for row in ActiveDirectoryToAirisOperator.mapped(common, mapped))
    assert (first["ldap_conn_id"], first["source"]) == ("ldap_default", "active_directory")
    assert (second["ldap_conn_id"], second["source"]) == ("ldap_subsidiary", "active_directory-ldap_subsidiary")
    assert first["attributes"] == {"phone": "telephoneNumber"}
    assert ActiveDirectoryToAirisOperator(task_id="second", **second).source == second["source"]
