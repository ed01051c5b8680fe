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


def posted(slack: httpx2.Client, **message: Any) -> Any:
    return call(slack, "chat.postMessage", {"channel": "#alerts", "text": "x", **message})


@pytest.mark.parametrize(
    ("block", "says"),
    [
        ({"type": "actions", "elements": [{"text": {"type": "plain_text", "text": "x" * 76}}]}, "less than 76"),
        (
            {"type": "actions", "elements": [{"text": {"type": "plain_text", "text": "x"}, "value": "x" * 2_001}]},
            "less than 2001",
        ),
        (
            {"type": "actions", "elements": [{"text": {"type": "plain_text", "text": "x"}, "action_id": "a"}] * 2},
            "unique",
        ),
        ({"type": "image", "alt_text": "x", "slack_file": {"id": "F0NOBODY001"}}, "invalid slack file"),
        ({"type": "image", "image_url": "https://example.com/x.png"}, "alt_text"),
    ],
)
def test_slack_names_the_block_that_is_invalid_in_an_attachment_too(slack, block, says):
    for message in ({"blocks": [block]}, {"attachments": [{"color": "#b3261e", "blocks": [block]}]}):
        answer = posted(slack, **message)
        assert answer["error"] == "invalid_blocks"
        assert says in answer["response_metadata"]["messages"][0]


def test_slack_bounds_all_texts_together_and_knows_colours(slack):
    assert posted(slack, blocks=[section("x" * 2_700)] * 5)["error"] == "msg_blocks_too_long"
    assert posted(slack, attachments=[{"color": "reddish"}])["error"] == "invalid_blocks"


def test_slack_keeps_replies_out_of_the_channel(slack):
    first = posted(slack)
    reply = posted(slack, thread_ts=first["ts"], metadata={"event_type": "e", "event_payload": {"a": "b"}})
    asked: dict[str, Any] = {"channel": first["channel"], "oldest": first["ts"]}
    listed = call(slack, "conversations.history", asked)["messages"]
    assert [message["ts"] for message in listed] == [first["ts"]]
    asked = {"channel": first["channel"], "ts": first["ts"], "include_all_metadata": True}
    replies = call(slack, "conversations.replies", asked)["messages"]
    assert [message["ts"] for message in replies] == [first["ts"], reply["ts"]]
    assert replies[1]["metadata"]["event_payload"] == {"a": "b"}
    assert posted(slack, thread_ts="1.000001")["error"] == "thread_not_found"


def test_slack_shows_a_file_once_it_is_uploaded_and_looked_at(slack):
    assert call(slack, "files.getUploadURLExternal", {"filename": "x", "length": 3})["error"] == "invalid_arguments"
    form = {"filename": "x.png", "length": "3"}
    place = slack.post("/api/files.getUploadURLExternal", data=form, headers=TOKEN).json()
    files = {"files": [{"id": place["file_id"], "title": "t"}]}
    assert call(slack, "files.completeUploadExternal", files)["error"] == "file_not_found"
    slack.post(place["upload_url"], content=b"abc").raise_for_status()
    assert call(slack, "files.completeUploadExternal", files)["ok"]
    image = {"type": "image", "alt_text": "x", "slack_file": {"id": place["file_id"]}}
    assert posted(slack, blocks=[image])["error"] == "invalid_blocks"
    for _ in range(100):
        if (answer := posted(slack, blocks=[image]))["ok"]:
            break
    assert slack.get(f"/files/{place['file_id']}").content == b"abc"
    update = {"channel": answer["channel"], "ts": answer["ts"], "text": "y"}
    call(slack, "chat.update", update)
    assert slack.get("/_sandbox/requests").json()[-1]["blocks"] == [image]
    call(slack, "chat.update", update | {"blocks": []})
    assert slack.get("/_sandbox/requests").json()[-1]["blocks"] == []


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("/services/T0/B0/good", b'{"text": "x"}', 200, "ok"),
        ("/services/T0/B0/gone", b'{"text": "x"}', 404, "no_service"),
        ("/services/T0/B0/good", b"{", 400, "invalid_payload"),
        ("/services/T0/B0/good", b'{"text": ""}', 400, "no_text"),
        ("/services/T0/B0/good", b'{"text": "x", "blocks": [{"type": "unheard-of"}]}', 400, "invalid_blocks"),
    ],
)
def test_a_slack_webhook_answers_with_words(slack, path, body, status, says):
    answer = slack.post(path, content=body)
    assert (answer.status_code, answer.text) == (status, says)


@pytest.mark.parametrize(
    ("event", "says"),
    [
        ({"routing_key": "short", "payload": {"summary": "s"}}, "routing_key"),
        ({"routing_key": KEY, "payload": {"summary": ""}}, "summary"),
        ({"routing_key": KEY, "payload": {"summary": "x" * 1_025}}, "summary"),
        ({"routing_key": KEY, "payload": {"summary": "s", "timestamp": "today"}}, "timestamp"),
        ({"routing_key": KEY, "payload": {"summary": "s"}, "links": ["https://x"]}, "links"),
        ([], "JSON object"),
    ],
)
def test_pagerduty_refuses_changes_that_are_none(pagerduty, event, says):
    answer = pagerduty.post("/v2/change/enqueue", json=event)
    assert answer.status_code == 400
    assert says in " ".join(answer.json()["errors"])


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
