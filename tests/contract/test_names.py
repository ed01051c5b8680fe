"""The names that AIRIS-MON's integrations have agreed on: endpoints, sources, metrics, tags, events and fields."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from airflow_provider_airis.catalog import BY_STEM
from airflow_provider_airis.channels import pagerduty, slack
from airflow_provider_airis.channels.view import AlertView
from airflow_provider_airis.records import Alert

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
ALERT = msgspec.convert(
    {
        "id": "4f1c9d2ab3e0a711",
        "name": "Latency is high",
        "description": "p90 over 2 s",
        "severity": "critical",
        "status": "firing",
        "model_id": "fraud",
        "environment": "production",
        "timestamp": 1795406459603,
        "updated_at": 1795406459603,
    },
    Alert,
)
VIEW = AlertView(ALERT, f"https://hub.example.com/dashboard?alert={ALERT.id}")


def records(stem: str) -> list[dict[str, Any]]:
    return [record for path in (FIXTURES / stem).glob("*/expected.json") for record in json.loads(path.read_text())]


def test_the_message_in_slack():
    shown = slack.message(VIEW)
    header, fields, description, context, actions = [*shown["blocks"], *shown["attachments"][0]["blocks"]]
    assert [block["type"] for block in (header, fields, description, context, actions)] == [
        *("header", "section", "section", "context", "actions")
    ]
    assert header["text"] == {"type": "plain_text", "text": "🚨 CRITICAL Alert", "emoji": True}
    assert [field["text"].partition("\n")[0] for field in fields["fields"]] == [
        *("*Alert:*", "*Severity:*", "*Model:*", "*Environment:*")
    ]
    assert description["text"]["text"] == "*Description:*\np90 over 2 s"
    assert context["elements"][0]["text"] == "Triggered at 2026-11-23 04:00:59 UTC"
    buttons = {button["text"]["text"]: button for button in actions["elements"]}
    assert buttons["View Dashboard"]["url"] == "https://hub.example.com/dashboard?alert=4f1c9d2ab3e0a711"
    assert buttons["Acknowledge"]["action_id"] == "ack_alert_4f1c9d2ab3e0a711"


def test_the_event_in_pagerduty():
    event = pagerduty.event(VIEW)
    assert (event["event_action"], event["dedup_key"]) == ("trigger", "airis-mon-4f1c9d2ab3e0a711")
    payload = event["payload"]
    details = payload.pop("custom_details")
    assert payload == {
        "summary": "AIRIS-MON Alert: Latency is high",
        "source": "airis-mon",
        "severity": "critical",
        "timestamp": "2026-11-23T04:00:59Z",
        "component": "fraud",
        "group": "production",
        "class": "monitoring",
    }
    assert {
        *["alert_id", "model_id", "environment", "threshold", "current_value", "duration", "dashboard_url"]
    } <= details.keys()
    channel = BY_STEM["pagerduty"].channel
    assert channel
    assert channel.severities == ("critical", "high")
    resolved = pagerduty.event(AlertView(msgspec.structs.replace(ALERT, status="resolved"), VIEW.url))
    assert resolved == {"event_action": "resolve", "dedup_key": "airis-mon-4f1c9d2ab3e0a711"}


def test_sources_metrics_and_tags():
    metrics = [record for record in records("sagemaker") if "name" in record]
    assert metrics
    for metric in metrics:
        assert metric["source"].startswith("aws-sagemaker-")
        assert (metric["tags"]["cloud_provider"], metric["tags"]["service"]) == ("aws", "sagemaker")
    of_endpoints = {metric["name"] for metric in metrics if "endpoint_name" in metric["tags"]}
    wanted = ("Invocations", "Invocation4XXErrors", "Invocation5XXErrors", "ModelLatency", "OverheadLatency")
    assert {name.lower() for name in wanted} <= {metric.name for metric in BY_STEM["sagemaker"].metrics}
    assert of_endpoints <= {metric.name for metric in BY_STEM["sagemaker"].metrics}
    assert {event["source"].rpartition("-")[0] for event in records("mlflow") if "event_type" in event} == {"mlflow"}
    assert "model_version_status" in {event.event_type for event in BY_STEM["mlflow"].events}


AT = 1_795_406_459_603
REQUESTS = {
    "metrics/ingest": {
        "timestamp": AT,
        "source": "tensorflow-serving-fraud",
        "metrics": [
            {
                "name": "inference_latency",
                "value": 12.5,
                "unit": "milliseconds",
                "tags": {"model_name": "fraud", "model_version": "latest", "framework": "tensorflow"},
            }
        ],
    },
    "events/ingest": {
        "timestamp": AT,
        "event_type": "model_version_status",
        "source": "mlflow-fraud",
        "severity": "info",
        "data": {"model_name": "fraud", "version": "2", "stage": "Production", "status": "READY"},
    },
    "integrations/user-sync": {
        "event_type": "user_sync",
        "source": "active_directory",
        "timestamp": AT,
        "data": {
            "users": [
                {
                    "username": "ada",
                    "email": "ada@example.com",
                    "display_name": "Ada Lovelace",
                    "department": None,
                    "title": None,
                    "sync_timestamp": AT,
                }
            ],
            "sync_type": "full",
        },
    },
}


@pytest.mark.parametrize("path", REQUESTS)
def test_the_hub_takes_what_others_send_to_it(hub, path):
    headers = {"Authorization": f"Bearer {hub.token}"}
    answer = httpx2.post(f"{hub.url}/api/v1/{path}", json=REQUESTS[path], headers=headers)
    assert answer.status_code == 200, answer.text
    assert httpx2.post(f"{hub.url}/api/v1/{path}", json=REQUESTS[path]).status_code == 401
