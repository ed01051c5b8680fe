"""Alerts as PagerDuty incidents: triggered, acknowledged and resolved with the alert."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from airflow_provider_airis.errors import PermanentError
from airflow_provider_airis.operators.deliver import AirisToOperator, cut
from airflow_provider_airis.records import Alert, iso

SUMMARY_CHARS = 1_024
DEDUP_KEY_CHARS = 255
DETAIL_CHARS = 10_000

_SEVERITIES = {
    "critical": "critical",
    "high": "error",
    "medium": "warning",
    "warning": "warning",
    "low": "info",
    "info": "info",
}
_ACTIONS = {"firing": "trigger", "acknowledged": "acknowledge", "resolved": "resolve"}


def event(alert: Alert, url: str) -> dict[str, Any]:
    """The Events API v2 event of an alert's state, without the routing key.

    See https://developer.pagerduty.com/docs/send-alert-event
    """
    body: dict[str, Any] = {"event_action": _ACTIONS[alert.status], "dedup_key": dedup_key(alert)}
    if alert.status == "firing":
        model_id, environment = (value and cut(value, SUMMARY_CHARS) for value in (alert.model_id, alert.environment))
        body["payload"] = {
            "summary": cut(f"AIRIS-MON Alert: {alert.name}", SUMMARY_CHARS),
            "source": cut(alert.source or "airis-mon", SUMMARY_CHARS),
            "severity": _SEVERITIES[alert.severity],
            "timestamp": iso(alert.timestamp),
            "component": model_id or "unknown",
            "group": environment or "production",
            "class": cut(alert.alert_type or "monitoring", SUMMARY_CHARS),
            "custom_details": {
                "alert_id": alert.id,
                "description": cut(alert.description, DETAIL_CHARS),
                "model_id": model_id,
                "environment": environment,
                "threshold": alert.threshold,
                "current_value": alert.current_value,
                "duration": alert.duration,
                "dashboard_url": url,
            },
        }
        body["client"] = "AIRIS-MON"
        body["client_url"] = url
        body["links"] = [{"href": url, "text": "View Dashboard"}]
    return body


def dedup_key(alert: Alert) -> str:
    """By which PagerDuty knows that events are of one alert."""
    return f"airis-mon-{alert.id}"[:DEDUP_KEY_CHARS]


class AirisToPagerDutyOperator(AirisToOperator):
    """Triggers a PagerDuty incident for an alert, and acknowledges and resolves it with the alert.

    :param alert_id: the alert's id at the hub.
    :param target: connection of type ``pagerduty_events``, whose integration key names the PagerDuty service.

    See https://developer.pagerduty.com/docs/send-alert-event
    """

    system: ClassVar[str] = "pagerduty"

    @property
    def receiver_conn_id(self) -> str:
        """The target."""
        return self.target

    def refuses_all(self, error: PermanentError) -> bool:
        """A key that is none, or none any more, is answered with 400 as a bad event is."""
        return re.search("routing.?key", error.detail, re.IGNORECASE) is not None or super().refuses_all(error)

    def send(self, alert: Alert, reference: str | None, *, url: str, again: bool) -> str:  # noqa: ARG002
        """Send the event; returns its ``dedup_key``, which makes a repetition harmless.

        PagerDuty drops an acknowledge or resolve of what it was never told.
        """
        return str(self.hook.enqueue(event(alert, url)))
