"""Every row with a way back: golden requests of ``fixtures/<stem>/receive``, and what must be refused of each."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from airflow_provider_airis.catalog import BY_STEM, SYSTEMS
from airflow_provider_airis.plugins.receiver import SECRET_CHARS
from airflow_provider_airis.receive.base import AGE_S, Action, Handler, Refused

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
STEMS = [system.stem for system in SYSTEMS if system.webhook]
# Whose signature says when it was made; of the others a repetition is known by the body alone.
SIGN_THE_TIME = {"slack", "servicenow"}


class Golden(msgspec.Struct):
    about: str
    secret: str
    now: int
    headers: dict[str, str]
    body: str
    actions: list[Action]


def case(stem: str, path: Path) -> Any:
    return pytest.param(stem, msgspec.json.decode(path.read_bytes(), type=Golden), id=f"{stem}-{path.stem}")


CASES = [case(stem, path) for stem in STEMS for path in sorted((FIXTURES / stem / "receive").glob("*.json"))]


def handler(stem: str) -> Handler:
    module, _, name = str(BY_STEM[stem].handler_class).rpartition(".")
    made: Handler = getattr(importlib.import_module(module), name)("no_connection")
    return made


def verify(stem: str, golden: Golden, **other: Any) -> None:
    headers: Mapping[str, str] = {name.lower(): value for name, value in other.get("headers", golden.headers).items()}
    body: bytes = other.get("body", golden.body.encode())
    handler(stem).verify(body, headers, other.get("secrets", [golden.secret]), other.get("now", golden.now))


@pytest.mark.parametrize("stem", STEMS)
def test_each_kind_of_action_and_something_else_is_there(stem):
    kinds = {
        action.kind
        for _, golden in (case.values for case in CASES if case.values[0] == stem)
        for action in golden.actions
    }
    assert {"acknowledge", "resolve"} <= kinds
    assert any(not golden.actions for which, golden in (case.values for case in CASES) if which == stem)
    assert handler(stem).content_type in ("application/json", "application/x-www-form-urlencoded")


@pytest.mark.parametrize(("stem", "golden"), CASES)
def test_what_was_signed_is_read(stem, golden):
    assert len(golden.secret) >= SECRET_CHARS
    verify(stem, golden)
    verify(stem, golden, secrets=["one-that-is-being-replaced", golden.secret])
    assert handler(stem).read(golden.body.encode()) == golden.actions


@pytest.mark.parametrize(("stem", "golden"), CASES)
def test_what_was_not_signed_so_is_refused(stem, golden):
    body = golden.body.encode()
    (signature,) = (name for name in golden.headers if "Signature" in name)
    given = golden.headers[signature]
    for other in (
        {"body": body + b"\n"},
        {"body": bytes([body[0] ^ 1]) + body[1:]},
        {"body": b""},
        {"secrets": ["another-secret-altogether" * 2]},
        {"secrets": [golden.secret.upper()]},
        {"headers": {}},
        *(
            {"headers": golden.headers | {signature: wrong}}
            for wrong in ("", "v1=", "v0=", given[:-2], given[:-1] + "ÿ")
        ),
    ):
        with pytest.raises(Refused) as refused:
            verify(stem, golden, **other)
        assert refused.value.outcome == "unsigned"
        assert golden.secret not in str(refused.value)


@pytest.mark.parametrize(("stem", "golden"), [case for case in CASES if case.values[0] in SIGN_THE_TIME])
def test_what_was_signed_long_ago_or_is_to_be_is_refused(stem, golden):
    for now in (golden.now + AGE_S, golden.now - AGE_S - 2):
        with pytest.raises(Refused) as refused:
            verify(stem, golden, now=now)
        assert refused.value.outcome == "stale"


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b'{"event": 1}', b"payload=", b"payload=[]", b"\xff", b"[" * 5000]
)
def test_what_has_another_shape_is_refused(stem, body):
    with pytest.raises(Refused) as refused:
        handler(stem).read(body)
    assert refused.value.outcome == "malformed"


def test_the_example_of_slacks_own_page():
    """https://docs.slack.dev/authentication/verifying-requests-from-slack"""
    body = (
        "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V"
        "&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text="
        "&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN"
        "&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
    )
    signature = "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"
    headers = {"X-Slack-Request-Timestamp": "1531420618", "X-Slack-Signature": signature}
    verify("slack", Golden("", "8f742231b10e8888abcd99yyyzzz85a5", 1531420620, headers, body, []))


def test_the_example_of_jiras_own_page():
    """https://developer.atlassian.com/cloud/jira/platform/webhooks/#secure-admin-webhooks"""
    signature = "sha256=a4771c39fbe90f317c7824e83ddef3caae9cb3d976c214ace1f2937e133263c9"
    headers = {"X-Hub-Signature": signature}
    verify("jira", Golden("", "It's a Secret to Everybody", 0, headers, "Hello World!", []))
