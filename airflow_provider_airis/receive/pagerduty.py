"""PagerDuty's webhooks, version 3.

See https://developer.pagerduty.com/docs/webhooks-overview and https://developer.pagerduty.com/docs/verifying-signatures
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, ClassVar, Literal

import msgspec

from airflow_provider_airis.receive.base import Action, Handler, alert_id, check, decoded, mac
from airflow_provider_airis.records import to_ms

_KINDS: dict[str, Literal["acknowledge", "resolve", "assign"]] = {
    "incident.acknowledged": "acknowledge",
    "incident.resolved": "resolve",
    "incident.reassigned": "assign",
}


class _Reference(msgspec.Struct):
    type: str = ""
    summary: str | None = None
    id: str = ""


class _Incident(msgspec.Struct):
    id: str
    incident_key: str | None = None
    assignees: list[_Reference] = []


class _Event(msgspec.Struct):
    event_type: str
    occurred_at: Annotated[datetime, msgspec.Meta(tz=True)]
    data: msgspec.Raw
    agent: _Reference | None = None


class _Webhook(msgspec.Struct):
    event: _Event


class PagerDutyHandler(Handler):
    """Incidents that were acknowledged, resolved or reassigned; by anybody but the integration that told of the alert.

    PagerDuty sends a webhook again, four times within 20 minutes, if the answer is 429 or 5xx or takes more than five
    seconds. Any other answer that is no success drops it, and three of these in a row turn the webhook off for a day:
    so an incident of somebody else's, or of another hub's, is answered with success.
    """

    unknown: ClassVar[int] = 200

    def verify(self, body: bytes, headers: Mapping[str, str], secrets: Sequence[str], now: float) -> None:  # noqa: ARG002
        """``v1=`` and the HMAC of the body; several while PagerDuty rotates its secret."""
        given = [one.strip() for one in headers.get("x-pagerduty-signature", "").split(",")]
        check(
            [one for one in given if one.startswith("v1=")],
            [f"v1={mac(secret, body).hex()}" for secret in secrets],
        )

    def read(self, body: bytes) -> list[Action]:
        """What was done about an incident."""
        event = decoded(body, _Webhook).event
        agent = event.agent or _Reference()
        # What the Events API has done, the hub has asked for.
        if event.event_type not in _KINDS or agent.type.endswith("integration_reference"):
            return []
        incident = decoded(event.data, _Incident)
        return [
            Action(
                kind=_KINDS[event.event_type],
                id=alert_id(incident.incident_key),
                at=to_ms(event.occurred_at),
                by=agent.summary or "PagerDuty",
                to=", ".join(one.summary or one.id for one in incident.assignees),
                about=incident.id,
            )
        ]

    def complete(self, action: Action) -> Iterable[Action]:
        """By the keys of the incident's alerts, if its own is none of ours, as where several are one incident."""
        from airflow_provider_airis.hooks.pagerduty import PagerDutyHook

        if action.id:
            return [action]
        with PagerDutyHook(self.conn_id, timeout=2, retries=0) as hook:
            if not hook.extra.get("api_token"):
                hook.log.warning(
                    "PagerDuty's incident %s has a key of its own: without the extra api_token of connection %s nobody "
                    "knows whether it is of an alert of the hub",
                    *(action.about, self.conn_id),
                )
                return []
            keys = [alert_id(key) for key in hook.alert_keys(action.about)]
        return [msgspec.structs.replace(action, id=key) for key in keys if key]
