"""The PagerDuty event of an alert: the golden ones and its limits; and how its hook meets a peer that fails."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from airflow_provider_airis.channels.pagerduty import event
from airflow_provider_airis.channels.view import AlertView
from airflow_provider_airis.exports.pagerduty import change
from airflow_provider_airis.hooks.pagerduty import PagerDutyHook
from airflow_provider_airis.records import Alert, Event
from tests.views import URL, alert

KEY = "0123456789abcdef0123456789abcdef"
FIXTURES = Path(__file__).parents[1] / "fixtures/pagerduty"
GOLDEN, REFUSALS = (
    json.loads((FIXTURES / name).read_text(encoding="utf-8")) for name in ("events.json", "refusals.json")
)


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["about"])
def test_the_event_is_the_golden_one(case):
    assert event(AlertView(msgspec.convert(case["alert"], Alert), case["url"])) == case["event"]


def test_severities_are_pagerdutys():
    severities = ("critical", "high", "medium", "warning", "low", "info")
    shown = [event(AlertView(alert(severity=severity), URL))["payload"]["severity"] for severity in severities]
    assert shown == ["critical", "error", "warning", "warning", "info", "info"]


@pytest.mark.parametrize("filler", ["x", "ü", "🚨", "x\x00"])
def test_text_of_any_length_keeps_pagerdutys_limits(filler):
    long = filler * 600_000
    fields = ("name", "description", "source", "model_id", "environment", "alert_type")
    tags = {f"{filler * 300}{number}": long for number in range(200)}
    body = event(AlertView(alert(id="i" * 400, tags=tags, **dict.fromkeys(fields, long)), URL))
    assert body["payload"]["custom_details"]["tags"]["…"] == "and 150 more"
    assert len(body["payload"]["summary"]) == 1_024
    assert body["payload"]["summary"].endswith("…")
    assert len(body["dedup_key"]) <= 255
    assert len(json.dumps({"routing_key": KEY, **body})) < 512 * 1024


@pytest.mark.parametrize("filler", ["x", "🚨", "\x00"])
def test_a_change_of_any_length_keeps_pagerdutys_limits(filler):
    data = {f"{number}": filler * 600_000 for number in range(100)} | {"model_name": filler * 2_000, "version": 1}
    body = change(Event("model_alias_changed", filler * 2_000, "info", 0, data, "k"))
    assert len(body["payload"]["summary"]) <= 1_024
    assert len(json.dumps({"routing_key": KEY, **body})) < 512 * 1024


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (None, "2", "fraud@champion is version 2 now"),
        ("1", "2", "fraud@champion is version 2 now, it was version 1"),
        ("1", None, "fraud@champion is gone, it was version 1"),
    ],
)
def test_a_change_says_what_was_deployed(old, new, said):
    data = {"registry": "r", "model_name": "fraud", "alias": "champion", "old_version": old, "version": new}
    payload = change(Event("model_alias_changed", "mlflow-fraud", "info", 1795168920000, data, "k"))["payload"]
    assert (payload["summary"], payload["timestamp"]) == (said, "2026-11-20T10:02:00Z")


def test_without_a_host_it_is_pagerdutys_own_service(connect):
    connect("pagerduty_events_default", conn_type="pagerduty_events", password=KEY)
    assert PagerDutyHook().base_url == "https://events.pagerduty.com"
