"""Alerts as ServiceNow incidents: one an alert, with work notes on its changes, resolved with it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from airflow_provider_airis.channels.texts import cut, identity, utf16
from airflow_provider_airis.channels.tickets import TicketChannel, described
from airflow_provider_airis.channels.view import AlertView
from airflow_provider_airis.errors import PermanentError

if TYPE_CHECKING:
    from airflow_provider_airis.hooks.servicenow import Incident

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


def incident(view: AlertView, *, follows: str = "") -> dict[str, Any]:
    """The fields of an alert's new incident.

    :param follows: the closed incident that this one follows, in words.
    """
    impact, urgency = _GRADES[view.alert.severity]
    return {
        "short_description": cut(f"AIRIS-MON Alert: {view.name}", SHORT_CHARS, utf16),
        "description": text(view, follows=follows),
        "impact": impact,
        "urgency": urgency,
        "correlation_id": correlation_id(view),
        "correlation_display": state(view),
    }


def change(view: AlertView, *, close_code: str) -> dict[str, Any]:
    """The fields that change with an alert's state."""
    note = text(view)
    fields = {"work_notes": note, "correlation_display": state(view)}
    if view.over:
        return {**fields, "state": "6", "close_code": close_code, "close_notes": note}
    impact, urgency = _GRADES[view.alert.severity]
    return {**fields, "impact": impact, "urgency": urgency}


def text(view: AlertView, *, follows: str = "") -> str:
    """A description or note. What the alert says is not read as HTML, which ``[code]`` makes of a journal's text."""
    return re.sub(r"\[(/?code)\]", r"(\1)", described(view, TEXT_CHARS, follows=follows), flags=re.IGNORECASE)


def correlation_id(view: AlertView) -> str:
    """By which an alert's incident is found again. ``^`` would end a condition of ServiceNow's queries."""
    return identity(view.key.replace("^", "_"), CORRELATION_CHARS)


def state(view: AlertView) -> str:
    """Kept in the incident itself: which state it shows."""
    return f"AIRIS-MON {view.alert.status} {view.alert.updated_at}"


class ServiceNowChannel(TicketChannel["Incident"]):
    """Incidents of an instance; the reference is ``<number>:<sys_id>``.

    One that is closed or cancelled for good is left alone, and never opened again.

    See https://www.servicenow.com/docs/csh?topicname=c_TableAPI.html
    """

    def get(self, sent: str) -> Incident | None:
        """By its id."""
        found: Incident | None = self.hook.get(sent.rpartition(":")[2])
        return found

    def find(self, view: AlertView) -> Incident | None:
        """By its correlation id."""
        found: Incident | None = self.hook.find(correlation_id(view))
        return found

    def create(self, view: AlertView, follows: Incident | None) -> Incident:
        """An incident; one that follows another has its address."""
        said = f"{follows.number}, {self.hook.address(follows.sys_id)}" if follows else ""
        made: Incident = self.hook.create({**incident(view, follows=said), **self.options["fields"]})
        return made

    def knows(self, ticket: Incident, view: AlertView) -> bool:
        """By its correlation display."""
        return ticket.correlation_display == state(view)

    def update(self, ticket: Incident, view: AlertView) -> None:
        """A work note, and the state that it has in the end."""
        if ticket.closed or (ticket.closed_at is not None and view.over):
            self.log.info("Incident %s of alert %s is over already", ticket.number, view.alert.id)
        elif not self.knows(ticket, view):
            self.hook.update(ticket.sys_id, change(view, close_code=self.options["close_code"]))

    def reopen(self, ticket: Incident, view: AlertView) -> None:
        """In progress again, with a work note."""
        if ticket.closed:
            raise PermanentError(f"{ticket.number} is closed for good")
        self.hook.update(ticket.sys_id, {**change(view, close_code=""), "state": "2"})
