"""The ServiceNow incident of an alert: its fields and limits, and whose incident is never touched."""

from __future__ import annotations

import pytest

from airflow_provider_airis.channels.servicenow import change, correlation_id, incident
from airflow_provider_airis.channels.texts import utf16
from airflow_provider_airis.channels.view import AlertView
from airflow_provider_airis.hooks.servicenow import ServiceNowHook
from sandbox.servicenow import FIELDS
from tests.views import URL, alert


def test_severities_are_impact_and_urgency():
    severities = ("critical", "high", "medium", "warning", "low", "info")
    shown = {severity: incident(AlertView(alert(severity=severity), URL)) for severity in severities}
    assert {severity: (fields["impact"], fields["urgency"]) for severity, fields in shown.items()} == {
        "critical": ("1", "1"),
        "high": ("1", "2"),
        "medium": ("2", "2"),
        "warning": ("2", "3"),
        "low": ("3", "3"),
        "info": ("3", "3"),
    }


def test_an_incident_shows_the_alert():
    subject = alert(
        name="Latency\nis high",
        model_id="fraud",
        environment="production",
        description="p90 over 2 s",
        threshold=2_000_000.0,
        timestamp=1795406459603,
        updated_at=1795406459603,
    )
    fields = incident(AlertView(subject, URL))
    assert fields["short_description"] == "AIRIS-MON Alert: Latency is high"
    assert fields["correlation_id"] == "airis-mon-a1"
    assert fields["correlation_display"] == "AIRIS-MON firing 1795406459603"
    assert fields["description"].splitlines() == [
        "HIGH Alert",
        "",
        "Alert: Latency is high",
        "Severity: high",
        "Model: fraud",
        "Environment: production",
        "Threshold: 2,000,000.0",
        "Value: N/A",
        "Triggered at: 2026-11-23T04:00:59Z",
        "",
        "p90 over 2 s",
        "",
        f"Dashboard: {URL}",
    ]


@pytest.mark.parametrize("filler", ["x", "🚨", "\x00", "\n", "^"])
@pytest.mark.parametrize("status", ["firing", "acknowledged", "resolved"])
def test_text_of_any_length_keeps_the_tables_limits(filler, status):
    long = filler * 50_000
    subject = alert(id=long, name=long, description=long, model_id=long, acknowledged_by=long, status=status)
    for fields in (incident(AlertView(subject, URL)), change(AlertView(subject, URL), close_code="Solution provided")):
        assert {name: utf16(value) for name, value in fields.items() if utf16(value) > FIELDS[name]} == {}
        assert URL in fields.get("description", "") + fields.get("work_notes", "")
    assert "^" not in correlation_id(AlertView(subject, URL))


def test_what_an_alert_says_is_no_html():
    """A journal of ServiceNow's makes HTML of what stands in [code]."""
    hostile = "[code]<img src=x onerror=alert(1)>[/code] [CODE]"
    fields = incident(AlertView(alert(name=hostile, description=hostile), URL))
    note = change(AlertView(alert(name=hostile, description=hostile), URL), close_code="x")["work_notes"]
    for text in (fields["description"], note):
        assert "[code]" not in text.lower()
        assert "(code)<img src=x onerror=alert(1)>(/code) (CODE)" in text


def test_only_the_end_changes_the_state():
    assert change(AlertView(alert(status="acknowledged"), URL), close_code="x").keys() == {
        *("work_notes", "correlation_display", "impact", "urgency")
    }
    resolved = change(AlertView(alert(status="resolved"), URL), close_code="Solution provided")
    assert (resolved["state"], resolved["close_code"]) == ("6", "Solution provided")
    assert resolved["close_notes"]


def test_an_incident_of_another_correlation_id_is_none(httpserver, connect):
    """As an instance answers that leaves the condition out, since the user may not read the field."""
    result = [{"sys_id": "1", "number": "INC1", "state": "1", "correlation_id": "", "correlation_display": ""}]
    httpserver.expect_request("/api/now/table/incident").respond_with_json({"result": result})
    connect("servicenow_default", conn_type="servicenow", host=httpserver.url_for(""), password="token")
    with ServiceNowHook() as hook:
        assert hook.find("airis-mon-a1") is None
    request, _ = httpserver.log[0]
    assert request.args["sysparm_query"] == "correlation_id=airis-mon-a1^ORDERBYDESCsys_created_on"
    assert request.headers["Authorization"] == "Bearer token"
