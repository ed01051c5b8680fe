"""Alerts as ServiceNow incidents: one an alert, with work notes on its changes, resolved with it."""

from __future__ import annotations

from typing import Any, ClassVar

from airflow_provider_airis.operators.deliver import AirisToOperator, cut
from airflow_provider_airis.operators.tickets import described
from airflow_provider_airis.records import Alert
from airflow_provider_airis.settings import json_option, option

SHORT_CHARS = 160
TEXT_CHARS = 4_000
CORRELATION_CHARS = 100
RESOLVED, CLOSED = "6", ("7", "8")

# Impact and urgency, from which ServiceNow computes the priority.
_GRADES = {
    "critical": ("1", "1"),
    "high": ("1", "2"),
    "medium": ("2", "2"),
    "warning": ("2", "3"),
    "low": ("3", "3"),
    "info": ("3", "3"),
}


def incident(alert: Alert, url: str) -> dict[str, Any]:
    """The fields of an alert's new incident."""
    impact, urgency = _GRADES[alert.severity]
    name = " ".join(alert.name.split())
    return {
        "short_description": cut(f"AIRIS-MON Alert: {name}", SHORT_CHARS),
        "description": described(alert, url, TEXT_CHARS),
        "impact": impact,
        "urgency": urgency,
        "correlation_id": correlation_id(alert),
        "correlation_display": state(alert),
    }


def change(alert: Alert, url: str, *, close_code: str) -> dict[str, Any]:
    """The fields that change with an alert's state."""
    note = described(alert, url, TEXT_CHARS)
    fields = {"work_notes": note, "correlation_display": state(alert)}
    if alert.status == "resolved":
        return {**fields, "state": RESOLVED, "close_code": close_code, "close_notes": note}
    impact, urgency = _GRADES[alert.severity]
    return {**fields, "impact": impact, "urgency": urgency}


def correlation_id(alert: Alert) -> str:
    """By which an alert's incident is found again. ``^`` would end a condition of ServiceNow's queries."""
    return f"airis-mon-{alert.id}".replace("^", "_")[:CORRELATION_CHARS]


def state(alert: Alert) -> str:
    """Kept in the incident itself: which state it was last told."""
    return f"AIRIS-MON {alert.status} {alert.updated_at}"


class AirisToServiceNowOperator(AirisToOperator):
    """Creates an incident for an alert, adds work notes as the alert changes, and resolves the incident with it.

    :param alert_id: the alert's id at the hub.
    :param target: connection of type ``servicenow``.
    :param close_code: the resolution code; the option's unless given.
    :param fields: further fields of a new incident; the option's unless given.

    See https://www.servicenow.com/docs/csh?topicname=c_TableAPI.html
    """

    system: ClassVar[str] = "servicenow"

    def __init__(self, *, close_code: str | None = None, fields: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.close_code = close_code
        self.fields = fields

    @property
    def receiver_conn_id(self) -> str:
        """The receiver's connection."""
        return self.target

    def send(self, alert: Alert, reference: str | None, *, url: str, again: bool) -> str | None:
        """Update the incident, or create it; returns ``<number>:<sys_id>``.

        An incident that somebody has closed is left alone; one that was deleted is created anew, but not for its end.
        """
        found = None
        if reference:
            found = self.hook.get(reference.rpartition(":")[2])
        elif again:
            found = self.hook.find(correlation_id(alert))
        if found is None:
            if alert.status == "resolved":
                return reference
            more = json_option(self.system, "fields") if self.fields is None else self.fields
            found = self.hook.create({**incident(alert, url), **more})
        elif found.state in CLOSED or (found.state == RESOLVED and alert.status == "resolved"):
            self.log.info("Incident %s of alert %s is over already", found.number, alert.id)
        elif found.correlation_display != state(alert):
            code = option(self.system, "close_code") if self.close_code is None else self.close_code
            self.hook.update(found.sys_id, change(alert, url, close_code=code))
        return f"{found.number}:{found.sys_id}"
