"""Jira's webhooks.

See https://developer.atlassian.com/cloud/jira/platform/webhooks/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from airflow_provider_airis.receive.base import Action, Handler, alert_id, check, decoded, mac


class _Category(msgspec.Struct):
    key: str = ""


class _Status(msgspec.Struct, rename={"category": "statusCategory"}):
    category: _Category = msgspec.field(default_factory=_Category)


class _Fields(msgspec.Struct):
    labels: list[str] = []
    status: _Status = msgspec.field(default_factory=_Status)


class _Issue(msgspec.Struct):
    fields: _Fields


class _Item(msgspec.Struct):
    field: str = ""
    to: str | None = None


class _Changelog(msgspec.Struct):
    items: list[_Item] = []


class _User(msgspec.Struct, rename={"display_name": "displayName", "email": "emailAddress"}):
    display_name: str = ""
    email: str | None = None


class _Webhook(msgspec.Struct, rename={"event": "webhookEvent"}):
    event: str
    timestamp: int
    issue: _Issue | None = None
    user: _User | None = None
    changelog: _Changelog | None = None


class JiraHandler(Handler):
    """Issues that were moved to a status that is done, to one that is in progress, or that were assigned."""

    def verify(self, body: bytes, headers: Mapping[str, str], secrets: Sequence[str], now: float) -> None:  # noqa: ARG002
        """``sha256=`` and the HMAC of the body."""
        given = headers.get("x-hub-signature")
        check([given] if given else [], [f"sha256={mac(secret, body).hex()}" for secret in secrets])

    def read(self, body: bytes) -> list[Action]:
        """What became of an issue that has the label of an alert."""
        found = decoded(body, _Webhook)
        if found.event != "jira:issue_updated" or found.issue is None or found.changelog is None:
            return []
        kind = _kind({item.field: item.to for item in found.changelog.items}, found.issue.fields.status.category.key)
        user = found.user or _User()
        return [
            Action(kind=kind, id=known, at=found.timestamp, by=user.display_name or "Jira", email=user.email or "")
            for known in map(alert_id, found.issue.fields.labels)
            if kind and known
        ]


def _kind(changed: dict[str, str | None], category: str) -> Literal["acknowledge", "resolve"] | None:
    if category == "done":
        return "resolve" if "status" in changed else None
    taken = changed.get("assignee") or ("status" in changed and category == "indeterminate")
    return "acknowledge" if taken else None
