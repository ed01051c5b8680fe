"""Alerts as Slack messages: one an alert, updated as the alert changes."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from datetime import datetime
from typing import Any, ClassVar

from airflow_provider_airis.errors import PermanentError, RetryableError
from airflow_provider_airis.operators.deliver import AirisToOperator, cut
from airflow_provider_airis.records import Alert, from_ms

HEADER_CHARS = 150
FIELD_CHARS = 2_000
SECTION_CHARS = 3_000
# How far Slack's clock and the hub's may be apart.
CLOCKS_MS = 300_000
# What chat.update answers of a message that was deleted, is another app's, or too old to be edited.
GONE = frozenset({"message_not_found", "cant_update_message", "edit_window_closed"})
_LOOKING = threading.Lock()

_ICONS = {"critical": "🚨", "high": "🚨", "medium": "⚠️", "warning": "⚠️", "low": "ℹ️", "info": "ℹ️"}  # noqa: RUF001


def blocks(alert: Alert, url: str) -> list[dict[str, Any]]:
    """The message of an alert in Block Kit: header, fields, description, context, and buttons while it is not resolved.

    See https://docs.slack.dev/reference/block-kit/blocks
    """
    icon, word = _ICONS[alert.severity], f"{alert.severity.upper()} Alert"
    if alert.status == "acknowledged":
        icon, word = "👀", f"{word} (acknowledged)"
    elif alert.status == "resolved":
        icon, word = "✅", f"Resolved: {word}"
    context = [f"Triggered at {_utc(from_ms(alert.timestamp))}"]
    if alert.acknowledged_by:
        context.append(f"Acknowledged by {alert.acknowledged_by}")
    if alert.status == "resolved":
        context.append(f"Resolved at {_utc(from_ms(alert.updated_at))}")
    fields = {
        "Alert": alert.name,
        "Severity": alert.severity,
        "Model": alert.model_id or "N/A",
        "Environment": alert.environment or "N/A",
    }
    buttons = [{"type": "button", "text": _plain("View Dashboard"), "url": url, "action_id": "view_dashboard"}]
    if alert.status == "firing":
        buttons.append(
            {"type": "button", "text": _plain("Acknowledge"), "action_id": f"ack_alert_{alert.id}", "value": alert.id}
        )
    return [
        {"type": "header", "text": _plain(f"{icon} {word}")},
        {"type": "section", "fields": [_mrkdwn(f"*{name}:*\n", value, FIELD_CHARS) for name, value in fields.items()]},
        {"type": "section", "text": _mrkdwn("*Description:*\n", alert.description or "N/A", SECTION_CHARS)},
        {"type": "context", "elements": [_mrkdwn("", " · ".join(context), FIELD_CHARS)]},
        {"type": "actions", "elements": buttons},
    ]


def text(alert: Alert) -> str:
    """What notifications and screen readers show instead of the blocks."""
    state = {"firing": "", "acknowledged": "Acknowledged: ", "resolved": "Resolved: "}[alert.status]
    return _shortened(f"{state}{alert.severity.upper()} Alert: {_escaped(alert.name)}", SECTION_CHARS)


class AirisToSlackOperator(AirisToOperator):
    """Posts an alert to a Slack channel, and updates that message as the alert changes.

    :param alert_id: the alert's id at the hub.
    :param target: the channel: ``#name``, or its id.
    :param slack_conn_id: connection of type ``slack`` with a bot token that has ``chat:write``. With
        ``channels:read`` and ``channels:history`` as well, a message whose posting was not confirmed is found again.

    See https://docs.slack.dev/reference/methods/chat.postMessage
    """

    system: ClassVar[str] = "slack"
    hook_retries = 3
    template_fields: Sequence[str] = (*AirisToOperator.template_fields, "slack_conn_id")

    def __init__(self, *, slack_conn_id: str = "slack_default", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.slack_conn_id = slack_conn_id
        # What earlier tries have left in the channel since when (Unix ms): alert id → reference.
        self._earlier: tuple[int, dict[str, str]] | None = None

    @property
    def receiver_conn_id(self) -> str:
        """The connection with the bot token."""
        return self.slack_conn_id

    def refuses_all(self, error: PermanentError) -> bool:
        """Slack says everything with status 200."""
        from airflow_provider_airis.hooks.slack import REFUSALS

        return error.detail in REFUSALS or super().refuses_all(PermanentError(str(error)))

    def send(self, alert: Alert, reference: str | None, *, url: str, again: bool) -> str | None:
        """Update the message, or post the first one; returns ``<channel id>:<ts>``.

        A message that can no longer be updated is followed by a new one, unless there is only its end to tell.
        """
        message: dict[str, Any] = {
            "text": text(alert),
            "blocks": blocks(alert, url),
            "metadata": {"alert_id": alert.id, "target": self.target},
        }
        if reference is None and again:
            reference = self._find(alert)
        if reference is not None:
            try:
                self.hook.update(reference, **message)
                return reference
            except PermanentError as error:
                if error.detail not in GONE:
                    raise
                self.log.warning("The message of alert %s cannot be updated any more: %s", alert.id, error)
        if alert.status == "resolved":
            return reference
        try:
            return str(self.hook.post(self.target, **message))
        except RetryableError:
            with _LOOKING:
                self._earlier = None  # it may have been posted since the channel was read
            raise

    def _find(self, alert: Alert) -> str | None:
        """The message that an earlier try has left. The channel is read once for all alerts that ask."""
        with _LOOKING:
            since = alert.timestamp - CLOCKS_MS
            if self._earlier is None or since < self._earlier[0]:
                found: dict[str, str] = {}
                try:
                    for metadata, reference in self.hook.posted(self.target, since=since):
                        if metadata.get("target") == self.target:
                            found.setdefault(str(metadata.get("alert_id")), reference)
                except PermanentError as error:
                    self.log.warning("Cannot look whether an earlier try has posted, so it is posted again: %s", error)
                    since = 0
                self._earlier = since, found
            return self._earlier[1].get(alert.id)


def _utc(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def _escaped(value: str) -> str:
    """Slack takes only these three for markup in mrkdwn."""
    return value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _shortened(escaped: str, most: int) -> str:
    """Cut, but not within an escaped character."""
    return re.sub(r"&[a-z]*…$", "…", cut(escaped, most))


def _plain(value: str) -> dict[str, Any]:
    return {"type": "plain_text", "text": cut(value, HEADER_CHARS), "emoji": True}


def _mrkdwn(label: str, value: str, most: int) -> dict[str, Any]:
    return {"type": "mrkdwn", "text": _shortened(label + _escaped(value), most)}
