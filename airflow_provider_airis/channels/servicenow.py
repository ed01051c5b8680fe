"""Alerts as ServiceNow incidents: one an alert, with work notes on its changes, resolved with it."""

from __future__ import annotations

from typing import Any

from airflow_provider_airis.channels.base import Channel
from airflow_provider_airis.channels.texts import cut
from airflow_provider_airis.channels.tickets import described
from airflow_provider_airis.channels.view import AlertView

SHORT_CHARS = 160
TEXT_CHARS = 4_000
CORRELATION_CHARS = 100

# Impact and urgency, from which ServiceNow computes the priority.
_GRADES = {
    "critical": ("1", "1"),
    "high": ("1", "2"),
    "medium": ("2", "2"),
    "warning": ("2", "3"),
    "low": ("3", "3"),
    "info": ("3", "3"),
}


def incident(view: AlertView) -> dict[str, Any]:
    """The fields of an alert's new incident."""
    impact, urgency = _GRADES[view.alert.severity]
    return {
        "short_description": cut(f"AIRIS-MON Alert: {view.name}", SHORT_CHARS),
        "description": described(view, TEXT_CHARS),
        "impact": impact,
        "urgency": urgency,
        "correlation_id": correlation_id(view),
        "correlation_display": state(view),
    }


def change(view: AlertView, *, close_code: str) -> dict[str, Any]:
    """The fields that change with an alert's state."""
    from airflow_provider_airis.hooks.servicenow import RESOLVED

    note = described(view, TEXT_CHARS)
    fields = {"work_notes": note, "correlation_display": state(view)}
    if view.over:
        return {**fields, "state": RESOLVED, "close_code": close_code, "close_notes": note}
    impact, urgency = _GRADES[view.alert.severity]
    return {**fields, "impact": impact, "urgency": urgency}


def correlation_id(view: AlertView) -> str:
    """By which an alert's incident is found again. ``^`` would end a condition of ServiceNow's queries."""
    return view.key.replace("^", "_")[:CORRELATION_CHARS]


def state(view: AlertView) -> str:
    """Kept in the incident itself: which state it shows."""
    return f"AIRIS-MON {view.alert.status} {view.alert.updated_at}"


class ServiceNowChannel(Channel):
    """Incidents of an instance; the reference is ``<number>:<sys_id>``.

    See https://www.servicenow.com/docs/csh?topicname=c_TableAPI.html
    """

    updates = True
    finds = True

    def send(self, view: AlertView, sent: str | None, *, maybe_sent: bool) -> str | None:
        """Update the incident, or create it.

        An incident that somebody has closed is left alone; one that was deleted is created anew, but not for its end.
        """
        from airflow_provider_airis.hooks.servicenow import CLOSED, RESOLVED

        found = None
        if sent:
            found = self.hook.get(sent.rpartition(":")[2])
        elif maybe_sent:
            found = self.hook.find(correlation_id(view))
        if found is None:
            if view.over:
                return sent
            found = self.hook.create({**incident(view), **self.options["fields"]})
        elif found.state in CLOSED or (found.state == RESOLVED and view.over):
            self.log.info("Incident %s of alert %s is over already", found.number, view.alert.id)
        elif found.correlation_display != state(view):
            self.hook.update(found.sys_id, change(view, close_code=self.options["close_code"]))
        return f"{found.number}:{found.sys_id}"
