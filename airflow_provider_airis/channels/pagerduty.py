"""Alerts as PagerDuty incidents, triggered, acknowledged and resolved with the alert."""

from __future__ import annotations

import re
from typing import Any

from airflow_provider_airis.channels.base import Channel
from airflow_provider_airis.channels.texts import clean, cut, cut_lines, identity, one_line
from airflow_provider_airis.channels.view import AlertView
from airflow_provider_airis.errors import PermanentError
from airflow_provider_airis.records import Alert, iso

SUMMARY_CHARS = 1_024
DEDUP_KEY_CHARS = 255
# However they are encoded, an event stays below PagerDuty's 512 KB.
DETAIL_CHARS = 20_000
TAGS, TAG_CHARS = 50, 200

_SEVERITIES = {
    "critical": "critical",
    "high": "error",
    "medium": "warning",
    "warning": "warning",
    "low": "info",
    "info": "info",
}
_ACTIONS = {"firing": "trigger", "acknowledged": "acknowledge", "resolved": "resolve"}


def event(view: AlertView) -> dict[str, Any]:
    """The Events API v2 event of an alert's state, without the routing key.

    See https://developer.pagerduty.com/docs/send-alert-event
    """
    alert = view.alert
    body: dict[str, Any] = {"event_action": _ACTIONS[alert.status], "dedup_key": identity(view.key, DEDUP_KEY_CHARS)}
    if alert.status == "firing":
        model_id, environment = (
            value and cut(one_line(value), SUMMARY_CHARS) for value in (alert.model_id, alert.environment)
        )
        body["payload"] = {
            "summary": cut(f"AIRIS-MON Alert: {view.name}", SUMMARY_CHARS),
            "source": cut(one_line(alert.source) or "airis-mon", SUMMARY_CHARS),
            "severity": _SEVERITIES[alert.severity],
            "timestamp": iso(alert.timestamp),
            "component": model_id or "unknown",
            "group": environment or "production",
            "class": cut(one_line(alert.alert_type or "") or "monitoring", SUMMARY_CHARS),
            "custom_details": {
                "alert_id": alert.id,
                "description": cut_lines(clean(alert.description), DETAIL_CHARS),
                "model_id": model_id,
                "environment": environment,
                "threshold": alert.threshold,
                "current_value": alert.current_value,
                "duration": alert.duration,
                "dashboard_url": view.url,
                **({"tags": _tags(alert)} if alert.tags else {}),
            },
        }
        body["client"] = "AIRIS-MON"
        body["client_url"] = view.url
        body["links"] = [{"href": view.url, "text": "View Dashboard"}]
    return body


def _tags(alert: Alert) -> dict[str, str]:
    shown = {
        cut(one_line(name), TAG_CHARS): cut(one_line(value), TAG_CHARS) for name, value in [*alert.tags.items()][:TAGS]
    }
    return {**shown, "…": f"and {len(alert.tags) - TAGS:,} more"} if len(alert.tags) > TAGS else shown


class PagerDutyChannel(Channel):
    """A service, by the integration key of its connection; the reference is the event's ``dedup_key``.

    PagerDuty drops an acknowledge or resolve of what it was never sent.

    See https://developer.pagerduty.com/docs/send-alert-event
    """

    updates = True
    deduplicates = True

    def refuses_all(self, error: PermanentError) -> bool:
        """A key that is none, or none any more, is answered with 400 as a bad event is."""
        return re.search("routing.?key", error.detail, re.IGNORECASE) is not None or super().refuses_all(error)

    def send(self, view: AlertView, sent: str | None, *, maybe_sent: bool) -> str:  # noqa: ARG002
        """Send the event."""
        return str(self.hook.enqueue(event(view)))
