"""What the script in ServiceNow sends that ``docs/receive.md`` gives: ServiceNow has no webhooks of its own."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence

import msgspec

from airflow_provider_airis.hooks.servicenow import CLOSED, RESOLVED
from airflow_provider_airis.receive.base import Action, Handler, Refused, alert_id, check, check_age, decoded, mac

NEW = "1"
# Whose changes are those of the instance's own rules and jobs: nobody has taken the incident.
INSTANCE = "system"


class _Incident(msgspec.Struct):
    correlation_id: str
    state: str
    at: int
    by: str = ""
    email: str = ""
    assigned_to: str = ""


class ServiceNowHandler(Handler):
    """Incidents that were resolved, closed or cancelled, and those that somebody has taken.

    The rule that sends them does so if the state or the assignment has changed, not at any edit: what has changed an
    asynchronous rule's script cannot tell, but its conditions can.
    """

    def verify(self, body: bytes, headers: Mapping[str, str], secrets: Sequence[str], now: float) -> None:
        """``X-Airis-Signature: t=<Unix s>,v1=<Base64 of the HMAC of "<t>.<body>">``: the hub's, but in Base64."""
        parts = dict(part.strip().partition("=")[::2] for part in headers.get("x-airis-signature", "").split(","))
        if "v1" not in parts:
            raise Refused("unsigned", "it has no signature")
        timestamp = parts.get("t", "")
        check_age(timestamp, now)
        signed = b"%b.%b" % (timestamp.encode(), body)
        check([parts["v1"]], [base64.b64encode(mac(secret, signed)).decode() for secret in secrets])

    def read(self, body: bytes) -> list[Action]:
        """What the incident's state means."""
        found = decoded(body, _Incident)
        known = alert_id(found.correlation_id)
        if not known or (found.state == NEW and not found.assigned_to):
            return []
        over = found.state in (RESOLVED, *CLOSED)
        if not over and found.by == INSTANCE:
            return []
        return [
            Action(
                kind="resolve" if over else "acknowledge",
                id=known,
                at=found.at,
                by=found.by or "ServiceNow",
                email=found.email,
            )
        ]
