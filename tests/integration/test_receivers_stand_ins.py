"""The stand-ins of Slack and PagerDuty refuse what the vendors refuse, so that tests against them mean something."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from sandbox.process import Server

KEY = "0123456789abcdef0123456789abcdef"
TOKEN = {"Authorization": "Bearer xoxb-some-token"}


@pytest.fixture(scope="module")
def slack() -> Iterator[httpx2.Client]:
    with Server("sandbox.slack", "--port", "0") as server, httpx2.Client(base_url=server.url) as client:
        yield client


@pytest.fixture(scope="module")
def pagerduty() -> Iterator[httpx2.Client]:
    with Server("sandbox.pagerduty", "--port", "0") as server, httpx2.Client(base_url=server.url) as client:
        yield client


def call(slack: httpx2.Client, method: str, arguments: dict[str, Any], headers: dict[str, str] | None = None) -> Any:
    answer = slack.post(f"/api/{method}", json=arguments, headers=TOKEN if headers is None else headers)
    assert answer.status_code == 200
    return answer.json()


def section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}}


@pytest.mark.parametrize(
    ("headers", "error"), [({}, "not_authed"), ({"Authorization": "Bearer xoxp-1"}, "invalid_auth")]
)
def test_slack_refuses_tokens_with_status_200(slack, headers, error):
    assert call(slack, "auth.test", {}, headers) == {"ok": False, "error": error}


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"channel": "#nowhere", "text": "x"}, "channel_not_found"),
        ({"channel": "#alerts"}, "no_text"),
        ({"channel": "#alerts", "text": "x" * 40_001}, "msg_too_long"),
        ({"channel": "#alerts", "text": "x", "metadata": {"event_type": "y"}}, "invalid_metadata_format"),
        ({"channel": "#alerts", "text": "x", "blocks": [section("x")] * 51}, "invalid_blocks"),
        ({"channel": "#alerts", "text": "x", "blocks": [section("x" * 3_001)]}, "invalid_blocks"),
        ({"channel": "#alerts", "text": "x", "blocks": [section("")]}, "invalid_blocks"),
        ({"channel": "#alerts", "text": "x", "blocks": [{"type": "unheard-of"}]}, "invalid_blocks"),
        ({"channel": "#alerts", "text": "x", "blocks": ["no block"]}, "invalid_blocks"),
        (
            {
                "channel": "#alerts",
                "text": "x",
                "blocks": [{"type": "header", "text": {"type": "plain_text", "text": "x" * 151}}],
            },
            "invalid_blocks",
        ),
        (
            {
                "channel": "#alerts",
                "text": "x",
                "blocks": [{"type": "section", "fields": [{"type": "mrkdwn", "text": "x"}] * 11}],
            },
            "invalid_blocks",
        ),
    ],
)
def test_slack_refuses_messages_beyond_its_limits(slack, arguments, error):
    answer = call(slack, "chat.postMessage", arguments)
    assert (answer["ok"], answer["error"]) == (False, error)


def test_slack_updates_by_the_channels_id_only(slack):
    posted = call(slack, "chat.postMessage", {"channel": "#alerts", "text": "x"})
    assert posted["channel"].startswith("C")
    update = {"ts": posted["ts"], "text": "y"}
    assert call(slack, "chat.update", {"channel": "#alerts", **update})["error"] == "channel_not_found"
    assert call(slack, "chat.update", {"channel": posted["channel"], **update})["ok"]
    update["ts"] = "1.000001"
    assert call(slack, "chat.update", {"channel": posted["channel"], **update})["error"] == "message_not_found"


def test_slack_shows_metadata_only_when_asked(slack):
    metadata = {"event_type": "e", "event_payload": {"a": "b"}}
    posted = call(slack, "chat.postMessage", {"channel": "#alerts", "text": "x", "metadata": metadata})
    asked: dict[str, Any] = {"channel": posted["channel"], "oldest": posted["ts"]}
    (message,) = call(slack, "conversations.history", asked)["messages"]
    assert "metadata" not in message
    (message,) = call(slack, "conversations.history", asked | {"include_all_metadata": True})["messages"]
    assert message["metadata"] == metadata


def test_slack_names_the_scope_that_is_missing(slack):
    slack.post("/_sandbox/tokens", json={"token": "xoxb-narrow", "scopes": ["channels:read"]}).raise_for_status()
    narrow = {"Authorization": "Bearer xoxb-narrow"}
    answer = call(slack, "chat.postMessage", {"channel": "#alerts", "text": "x"}, narrow)
    assert (answer["error"], answer["needed"]) == ("missing_scope", "chat:write")


def test_slack_knows_no_other_method(slack):
    assert call(slack, "chat.delete", {})["error"] == "unknown_method"


def trigger(**payload: Any) -> dict[str, Any]:
    return {
        "routing_key": KEY,
        "event_action": "trigger",
        "dedup_key": "k",
        "payload": {"summary": "s", "source": "s", "severity": "error", **payload},
    }


@pytest.mark.parametrize(
    ("event", "says"),
    [
        (trigger() | {"routing_key": "short"}, "routing_key"),
        (trigger() | {"event_action": "fire"}, "event_action"),
        (trigger() | {"dedup_key": "x" * 256}, "dedup_key"),
        (trigger(severity="high"), "severity"),
        (trigger(summary="x" * 1_025), "summary"),
        (trigger(summary=""), "summary"),
        (trigger(timestamp="2026-11-23 04:00"), "timestamp"),
        ({"routing_key": KEY, "event_action": "resolve"}, "dedup_key"),
        ({"routing_key": KEY, "event_action": "trigger"}, "payload"),
        ([], "JSON object expected"),
    ],
)
def test_pagerduty_refuses_events_that_are_none(pagerduty, event, says):
    answer = pagerduty.post("/v2/enqueue", json=event)
    assert answer.status_code == 400
    assert answer.json()["status"] == "invalid event"
    assert says in " ".join(answer.json()["errors"])


def test_pagerduty_refuses_what_is_too_large(pagerduty):
    assert pagerduty.post("/v2/enqueue", json=trigger(custom_details="x" * 512 * 1024)).status_code == 413


def test_pagerduty_takes_and_drops_the_end_of_what_it_was_never_told(pagerduty):
    end = {"routing_key": KEY, "event_action": "resolve", "dedup_key": "never"}
    assert pagerduty.post("/v2/enqueue", json=end).status_code == 202
    assert "never" not in {incident["dedup_key"] for incident in pagerduty.get("/_sandbox/incidents").json()}


def test_pagerduty_makes_one_incident_of_one_key_until_it_is_resolved(pagerduty):
    actions = ("trigger", "trigger", "resolve", "trigger")
    for action in actions:
        answer = pagerduty.post("/v2/enqueue", json=trigger() | {"event_action": action, "dedup_key": "one"})
        assert (answer.status_code, answer.json()["dedup_key"]) == (202, "one")
    incidents = [i for i in pagerduty.get("/_sandbox/incidents").json() if i["dedup_key"] == "one"]
    assert [[action for action, _ in incident["log"]] for incident in incidents] == [
        ["trigger", "trigger", "resolve"],
        ["trigger"],
    ]
