"""The Teams card of an alert: what it shows, its limits; and that the workflow's URL is seen nowhere."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from airflow_provider_airis.catalog import BY_STEM
from airflow_provider_airis.channels.teams import card
from airflow_provider_airis.channels.view import AlertView
from airflow_provider_airis.errors import PermanentError, RetryableError
from airflow_provider_airis.hooks.teams import LARGEST, TeamsHook, message
from airflow_provider_airis.records import Alert
from sandbox.airflow import free_port
from sandbox.teams import _card as checked
from tests.contract.peers import Silent, always, shared, typical

URL = "https://hub.example.com/dashboard?alert=a1"
ROW = BY_STEM["teams"]
KINDS = {"retryable": RetryableError, "permanent": PermanentError}
SECRETS = ("nobody-may-see-this-signature", "/workflows/3f1c")


def alert(**fields: Any) -> Alert:
    return msgspec.convert(
        {"id": "a1", "name": "n", "severity": "high", "status": "firing", "timestamp": 0, "updated_at": 0, **fields},
        Alert,
    )


def texts(part: Any) -> list[str]:
    """Every text of a card's part."""
    if isinstance(part, dict):
        return [part["text"]] if "text" in part else [text for value in part.values() for text in texts(value)]
    return [text for value in part for text in texts(value)] if isinstance(part, list) else []


@pytest.mark.parametrize("severity", ["critical", "high", "medium", "low", "warning", "info"])
@pytest.mark.parametrize("status", ["firing", "acknowledged", "resolved"])
def test_every_state_of_every_severity_is_a_card_that_teams_takes(severity, status):
    shown = card(AlertView(alert(severity=severity, status=status), URL), follows="2026-11-23T04:00:59Z")
    assert checked(json.loads(message(shown))) == shown
    assert severity.upper() in texts(shown["body"])[0]
    assert shown["actions"] == [{"type": "Action.OpenUrl", "title": "View Dashboard", "url": URL}]


def test_a_card_shows_the_alert():
    subject = alert(
        name="Latency is high",
        model_id="fraud",
        environment="production",
        description="p90 over 2 s",
        status="resolved",
        acknowledged_by="ada",
        timestamp=1795406459603,
        updated_at=1795406819603,
    )
    shown = texts(card(AlertView(subject, URL), follows="2026-11-23T04:01:00Z")["body"])
    assert shown[0] == "Resolved: HIGH Alert"
    assert dict(zip(shown[1:-1:2], shown[2:-1:2], strict=True)) == {
        "Alert: ": "Latency is high",
        "Severity: ": "high",
        "Model: ": "fraud",
        "Environment: ": "production",
        "Triggered at: ": "2026-11-23T04:00:59Z",
        "Acknowledged by: ": "ada",
        "Resolved at: ": "2026-11-23T04:06:59Z",
        "Follows the card of: ": "2026-11-23T04:01:00Z",
    }
    assert shown[-1] == "p90 over 2 s"


@pytest.mark.parametrize("filler", ["x", "ü", "🚨", "x\x00", '"', "[a](https://evil.example.com)"])
def test_text_of_any_length_keeps_the_limit_of_28_kb(filler):
    long = filler * 100_000
    subject = alert(name=long, description=long, model_id=long, environment=long, acknowledged_by=long)
    sent = message(card(AlertView(subject, URL), follows="2026-11-23T04:01:00Z"))
    assert len(sent) <= LARGEST
    assert checked(json.loads(sent))["body"][2]["inlines"][0]["text"].endswith("…")


def test_what_an_alert_says_is_no_markdown():
    evil = "**bold** [click](https://evil.example.com)"
    shown = card(AlertView(alert(name=evil, description=evil), URL))
    assert "TextBlock" not in {part["type"] for part in shown["body"]}
    assert "FactSet" not in json.dumps(shown)


def test_a_card_over_the_limit_is_not_sent(connect):
    connect("teams_default", **typical(ROW).connections("http://127.0.0.1:9")["teams_default"])
    with pytest.raises(PermanentError, match="over 28,672 bytes"):
        TeamsHook().post_card({"body": "x" * LARGEST})


@pytest.mark.parametrize("row", shared(ROW, "refusals.json"), ids=lambda row: row["about"])
def test_what_a_workflow_answers_is_passing_or_permanent(row, connect, caplog):
    caplog.set_level("DEBUG")
    with always(ROW, row["response"]) as server:
        connect("teams_default", **typical(ROW).connections(server.url)["teams_default"])
        with TeamsHook(retries=0) as hook, pytest.raises(KINDS[row["error"]]) as raised:
            hook.post_card({})
    assert row["says"] in str(raised.value)
    assert getattr(raised.value, "retry_after", None) == row.get("retry_after")
    for secret in SECRETS:
        assert secret not in str(raised.value) + repr(hook) + repr(vars(raised.value)) + caplog.text


def test_a_workflow_that_does_not_answer_or_is_not_there_may_come_back(connect, caplog):
    caplog.set_level("DEBUG")
    with Silent() as server:
        connect("teams_default", **typical(ROW).connections(server.url)["teams_default"])
        with TeamsHook(retries=0, timeout=0.3) as hook, pytest.raises(RetryableError, match="in time") as silent:
            hook.post_card({})
    connect("teams_default", **typical(ROW).connections(f"http://127.0.0.1:{free_port()}")["teams_default"])
    with TeamsHook(retries=1) as hook, pytest.raises(RetryableError, match="could not connect") as absent:
        hook.post_card({})
    for secret in SECRETS:
        assert secret not in f"{silent.value} {absent.value} {caplog.text}"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "it has no password, the URL of a workflow"),
        ({"password": "https://example.com/?a=b"}, "its password is no URL of a workflow, which has a parameter sig"),
        ({"password": "/workflows/1?sig=topsecret"}, "its URL must be one with http or https"),
    ],
)
def test_a_connection_that_cannot_be_used_says_why(connect, fields, says):
    connect("teams_default", conn_type="teams", **fields)
    works, told = TeamsHook().test_connection()
    assert not works
    assert says in told
    assert "topsecret" not in told


def test_a_host_is_where_a_password_without_one_leads(connect):
    connect("teams_default", conn_type="teams", host="http://127.0.0.1:9", password="/workflows/1?sig=topsecret")
    hook = TeamsHook()
    assert str(hook.url) == "http://127.0.0.1:9/workflows/1?sig=topsecret"
    works, told = hook.test_connection()
    assert works
    assert "127.0.0.1:9 is asked with the first alert" in told
    assert "topsecret" not in told
