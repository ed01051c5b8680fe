"""The Slack message of an alert: the golden ones, its limits, and what hostile text becomes."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from slack_sdk.models.blocks import Block

from airflow_provider_airis.operators.slack import blocks, text
from airflow_provider_airis.records import Alert

URL = "https://hub.example.com/dashboard?alert=a1"
GOLDEN = json.loads((Path(__file__).parents[1] / "fixtures/slack/messages.json").read_text(encoding="utf-8"))


def alert(**fields: Any) -> Alert:
    return msgspec.convert(
        {"id": "a1", "name": "n", "severity": "high", "status": "firing", "timestamp": 0, "updated_at": 0, **fields},
        Alert,
    )


def valid(shown: list[dict[str, Any]]) -> None:
    """What slack_sdk's models check of blocks."""
    for block in shown:
        parsed = Block.parse(block)
        assert parsed is not None
        parsed.validate_json()
        assert parsed.to_dict()["type"] == block["type"]


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["about"])
def test_the_message_is_the_golden_one(case):
    subject = msgspec.convert(case["alert"], Alert)
    assert text(subject) == case["text"]
    assert blocks(subject, case["url"]) == case["blocks"]
    valid(case["blocks"])


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
    assert len(text(subject)) <= 3_000
    fields, description, context = shown[1]["fields"], shown[2]["text"], shown[3]["elements"][0]
    assert all(len(field["text"]) <= 2_000 for field in fields)
    assert len(description["text"]) <= 3_000
    assert len(context["text"]) <= 2_000
    for part in (fields[0]["text"], description["text"], context["text"], text(subject)):
        # Nothing is left of an escaped character but the whole of it.
        assert "&" not in part.replace("&amp;", "").replace("&lt;", "").replace("&gt;", "")
    assert (description["text"] == f"*Description:*\n{long}") or description["text"].endswith("…")


def test_hostile_text_mentions_nobody_and_links_nowhere():
    hostile = "<!channel> <@U123> <https://evil.example|safe> & <"
    shown = json.dumps(blocks(alert(name=hostile, description=hostile, model_id=hostile, acknowledged_by=hostile), URL))
    assert "<" not in shown
    assert ">" not in shown
    assert "<" not in text(alert(name=hostile))


def test_times_are_utc_wherever_it_runs(monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    try:
        assert "Triggered at 1970-01-01 00:00:00 UTC" in json.dumps(blocks(alert(), URL))
    finally:
        monkeypatch.undo()
        time.tzset()


def test_only_a_firing_alert_can_be_acknowledged():
    buttons = {
        status: [button["text"]["text"] for button in blocks(alert(status=status), URL)[-1]["elements"]]
        for status in ("firing", "acknowledged", "resolved")
    }
    assert buttons == {
        "firing": ["View Dashboard", "Acknowledge"],
        "acknowledged": ["View Dashboard"],
        "resolved": ["View Dashboard"],
    }
