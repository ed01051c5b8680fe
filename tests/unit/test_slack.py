"""The Slack message of an alert: the golden ones, its limits, and what hostile text becomes."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from slack_sdk.models.blocks import Block

from airflow_provider_airis.channels.slack import message, replied, reply, text
from airflow_provider_airis.channels.view import AlertView
from airflow_provider_airis.records import Alert
from sandbox.slack import MOST_CHARS, _block_faults, _texts
from tests.views import URL, alert

GOLDEN = json.loads((Path(__file__).parents[1] / "fixtures/slack/messages.json").read_text(encoding="utf-8"))


def blocks(alert: Alert, url: str) -> list[dict[str, Any]]:
    """All blocks of its message: header, fields, description, context, buttons."""
    shown = message(AlertView(alert, url))
    return [*shown["blocks"], *shown["attachments"][0]["blocks"]]


def valid(shown: list[dict[str, Any]]) -> None:
    """What the stand-in, and slack_sdk's models, check of blocks."""
    assert _block_faults("", shown, set()) == []
    for block in shown:
        parsed = Block.parse(block)
        assert parsed is not None
        parsed.validate_json()
        assert parsed.to_dict()["type"] == block["type"]


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["about"])
def test_the_message_is_the_golden_one(case):
    subject = msgspec.convert(case["alert"], Alert)
    assert message(AlertView(subject, case["url"])) == case["message"]
    assert text(AlertView(subject, URL)) == case["message"]["text"]
    assert reply(AlertView(subject, URL)) == case["reply"]
    valid(blocks(subject, case["url"]))


@pytest.mark.parametrize("severity", ["critical", "high", "medium", "low", "warning", "info"])
@pytest.mark.parametrize("status", ["firing", "acknowledged", "resolved"])
def test_every_state_of_every_severity_is_a_valid_message(severity, status):
    shown = blocks(alert(severity=severity, status=status), URL)
    valid(shown)
    assert severity.upper() in shown[0]["text"]["text"]


@pytest.mark.parametrize("filler", ["x", "&", "<", "ü", "🚨"])
@pytest.mark.parametrize("length", [1_980, 1_985, 2_981, 2_990, 50_000])
def test_text_of_any_length_keeps_slacks_limits(filler, length):
    long = filler * length
    subject = alert(name=long, description=long, model_id=long, environment=long, acknowledged_by=long)
    shown = blocks(subject, URL)
    valid(shown)
    assert len(text(AlertView(subject, URL))) <= 3_000
    assert len(reply(AlertView(subject, URL))) <= 3_000
    assert sum(map(len, _texts(shown))) <= MOST_CHARS
    fields, description, context = shown[1]["fields"], shown[2]["text"], shown[3]["elements"][0]
    assert all(len(field["text"]) <= 2_000 for field in fields)
    assert len(description["text"]) <= 3_000
    assert len(context["text"]) <= 2_000
    for part in (fields[0]["text"], description["text"], context["text"], text(AlertView(subject, URL))):
        # Nothing is left of an escaped character but the whole of it.
        assert "&" not in part.replace("&amp;", "").replace("&lt;", "").replace("&gt;", "")
    assert (description["text"] == f"*Description:*\n{long}") or description["text"].endswith("…")


def text_objects(part: Any) -> list[dict[str, Any]]:
    """Every text object of blocks."""
    if isinstance(part, dict):
        own = [part] if isinstance(part.get("text"), str) else []
        return own + [found for value in part.values() for found in text_objects(value)]
    return [found for value in part for found in text_objects(value)] if isinstance(part, list) else []


def test_hostile_text_mentions_nobody_and_links_nowhere():
    hostile = "<!channel> <@U123> <https://evil.example|safe> & <"
    view = AlertView(alert(name=hostile, description=hostile, model_id=hostile, acknowledged_by=hostile), URL)
    found = text_objects(blocks(view.alert, URL))
    assert not {"<", ">"} & {*"".join(one["text"] for one in found)}
    assert all(one["verbatim"] is True for one in found if one["type"] == "mrkdwn")
    assert "<" not in text(view)


@pytest.mark.parametrize(
    "said",
    [
        "*bold*",
        "_sloping_",
        "~struck~",
        "`code`",
        "x *bold* y",
        ":fire:",
        "ok:+1:",
        "_a",
        "a_ b",
        "a :100: b",
        "snake_",
    ],
)
def test_what_slack_would_format_is_plain_text(said):
    view = AlertView(alert(name=said, description=said, acknowledged_by=said, status="acknowledged"), URL)
    found = [one for one in text_objects(blocks(view.alert, URL)) if said in one["text"]]
    assert [(one["type"], one["emoji"]) for one in found] == [("plain_text", False)] * 3
    (block,) = replied(view)["blocks"]
    valid([block])
    assert (block["text"]["type"], block["text"]["emoji"]) == ("plain_text", False)
    assert said in block["text"]["text"]


def test_a_quotation_is_plain_text():
    (found,) = (one for one in text_objects(blocks(alert(description="a\n > b"), URL)) if "&gt; b" in one["text"])
    assert (found["type"], found["emoji"]) == ("plain_text", False)


@pytest.mark.parametrize(
    "said", ["fraud_v2_final", "since 2026-11-23T04:00:59Z", "p95 > 2 s", "ratio 2:1", "a/b?c=d&e=f"]
)
def test_other_text_looks_as_it_always_does(said):
    view = AlertView(alert(name=said, description=said), URL)
    assert {one["type"] for one in text_objects(blocks(view.alert, URL)[1:4])} == {"mrkdwn"}
    assert "blocks" not in replied(view)


def test_times_are_utc_wherever_it_runs(monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    try:
        assert "Triggered at 1970-01-01 00:00:00 UTC" in json.dumps(blocks(alert(), URL))
    finally:
        monkeypatch.undo()
        time.tzset()


def test_buttons_are_those_that_fit_the_state():
    buttons = {
        status: [
            (button["action_id"], button["text"]["text"], button.get("value"))
            for button in blocks(alert(status=status), URL)[-1]["elements"]
        ]
        for status in ("firing", "acknowledged", "resolved")
    }
    acknowledge = ("ack_alert_a1", "Acknowledge", "a1")
    others = [("airis_resolve", "Resolve", "a1"), ("airis_silence_1h", "Silence 1 h", "a1")]
    link = ("view_dashboard", "View Dashboard", None)
    assert buttons == {
        "firing": [acknowledge, *others, link],
        "acknowledged": [*others, link],
        "resolved": [link],
    }


def test_a_colour_is_the_severitys_until_somebody_has_it_or_it_is_over():
    colours = {
        (severity, status): message(AlertView(alert(severity=severity, status=status), URL))["attachments"][0]["color"]
        for severity in ("critical", "high", "medium", "low")
        for status in ("firing", "acknowledged", "resolved")
    }
    assert all(re.fullmatch("#[0-9a-f]{6}", colour) for colour in colours.values())
    assert len({colour for (_, status), colour in colours.items() if status == "firing"}) == 4
    assert len({colour for (_, status), colour in colours.items() if status != "firing"}) == 2


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"severity": "critical", "updated_at": 720_000}, "🚨 Critical now, firing for 12 min"),
        (
            {"status": "acknowledged", "acknowledged_by": "<@U1> & ada", "updated_at": 45_000},
            "👀 Acknowledged by &lt;@U1&gt; &amp; ada after 45 s",
        ),
        ({"status": "acknowledged", "updated_at": 7_200_000}, "👀 Acknowledged after 2 h"),
        ({"status": "resolved", "updated_at": 400_000_000}, "✅ Resolved after 4 d"),
        ({"id": "group-0123456789abcdef", "name": "3 of a & b"}, "🚨 High now, firing for 0 s: 3 of a &amp; b"),
    ],
)
def test_a_thread_is_told_what_has_changed(fields, said):
    assert reply(AlertView(alert(**fields), URL)) == said


def test_a_chart_is_shown_with_its_threshold():
    shown = message(AlertView(alert(threshold=2_000_000.0), URL), picture="F0123456789")["blocks"][1]
    assert shown["slack_file"] == {"id": "F0123456789"}
    assert shown["title"]["text"] == shown["alt_text"]
    assert shown["alt_text"].endswith("UTC; the dashed line is the threshold, 2,000,000")
    assert _block_faults("", [shown], {"F0123456789"}) == []
