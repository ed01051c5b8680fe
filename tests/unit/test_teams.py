"""The Teams card of an alert: what it shows, and that it is no Markdown; its limits, in test_receivers_each.py."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_airis.channels.teams import card
from airflow_provider_airis.errors import PermanentError
from airflow_provider_airis.hooks.teams import LARGEST, TeamsHook
from tests.views import URL, view

MARKDOWN = "**bold** [click](https://evil.example.com)"


def texts(part: Any) -> list[str]:
    """Every text of a card's part."""
    if isinstance(part, dict):
        return [part["text"]] if "text" in part else [text for value in part.values() for text in texts(value)]
    return [text for value in part for text in texts(value)] if isinstance(part, list) else []


def test_a_card_shows_the_alert_and_is_no_markdown():
    about = {"model_id": "fraud", "environment": "production", "description": "p90 over 2 s", "acknowledged_by": "ada"}
    times = {"timestamp": 1795406459603, "updated_at": 1795406819603}
    shown = card(view(name=MARKDOWN, status="resolved", **about, **times), follows="2026-11-23T04:01:00Z")
    title, *facts, description = texts(shown["body"])
    assert (title, description) == ("Resolved: HIGH Alert", "p90 over 2 s")
    assert dict(zip(facts[::2], facts[1::2], strict=True)) == {
        "Alert: ": MARKDOWN,
        "Severity: ": "high",
        "Model: ": "fraud",
        "Environment: ": "production",
        "Triggered at: ": "2026-11-23T04:00:59Z",
        "Acknowledged by: ": "ada",
        "Resolved at: ": "2026-11-23T04:06:59Z",
        "Follows the card of: ": "2026-11-23T04:01:00Z",
    }
    assert shown["actions"] == [{"type": "Action.OpenUrl", "title": "View Dashboard", "url": URL}]
    assert not {"TextBlock", "FactSet"} & {*json.dumps(shown).split('"')}


def test_a_host_is_where_a_password_without_one_leads_and_a_card_over_the_limit_is_not_sent(connect):
    connect("teams_default", conn_type="teams", host="http://127.0.0.1:9", password="/workflows/1?sig=topsecret")
    hook = TeamsHook()
    assert str(hook.url) == "http://127.0.0.1:9/workflows/1?sig=topsecret"
    assert hook.test_connection()[1].endswith("127.0.0.1:9 is asked with the first alert")
    with pytest.raises(PermanentError, match="over 28,672 bytes"):
        hook.post_card({"body": "x" * LARGEST})
