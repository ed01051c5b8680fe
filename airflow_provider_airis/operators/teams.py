"""Alerts as Adaptive Cards in a Microsoft Teams channel: a card for each change."""

from __future__ import annotations

import time
from typing import Any, ClassVar

import msgspec

from airflow_provider_airis.operators.deliver import AirisToOperator, cut
from airflow_provider_airis.operators.texts import cut_lines
from airflow_provider_airis.records import Alert, iso

VERSION = "1.4"
TITLE_CHARS = 300
FIELD_CHARS = 500
# Of its JSON: with all else a card stays well below Teams' 28 KB.
DESCRIPTION_BYTES = 12_000

_STYLES = {"critical": "attention", "high": "attention", "medium": "warning", "warning": "warning"}


def card(alert: Alert, url: str, *, follows: str | None = None) -> dict[str, Any]:
    """The Adaptive Card of an alert's state.

    Everything that comes from the alert is a run of a rich text, which Teams does not read as Markdown; it has no line
    breaks either, so each line of the description is a text of its own.

    :param follows: when the alert's first card was posted, if this is a later one: no card can be changed.

    See https://learn.microsoft.com/microsoftteams/platform/task-modules-and-cards/cards/cards-format
    """
    word = f"{alert.severity.upper()} Alert"
    title = {"firing": word, "acknowledged": f"{word} (acknowledged)", "resolved": f"Resolved: {word}"}[alert.status]
    style = {"acknowledged": "accent", "resolved": "good"}.get(alert.status, _STYLES.get(alert.severity, "emphasis"))
    fields = {
        "Alert": alert.name,
        "Severity": alert.severity,
        "Model": alert.model_id or "N/A",
        "Environment": alert.environment or "N/A",
        "Triggered at": iso(alert.timestamp),
    }
    if alert.acknowledged_by:
        fields["Acknowledged by"] = alert.acknowledged_by
    if alert.status == "resolved":
        fields["Resolved at"] = iso(alert.updated_at)
    if follows:
        fields["Follows the card of"] = follows
    heading = _text(cut(title, TITLE_CHARS), size="Large", weight="Bolder")
    facts = [_fact(name, cut(value, FIELD_CHARS)) for name, value in fields.items()]
    return {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": VERSION,
        # What notifications and screen readers show instead.
        "fallbackText": cut(f"{title}: {alert.name}", TITLE_CHARS),
        "body": [
            {"type": "Container", "style": style, "bleed": True, "items": [heading]},
            {"type": "Container", "items": facts},
            *_description(alert.description or "N/A"),
        ],
        "actions": [{"type": "Action.OpenUrl", "title": "View Dashboard", "url": url}],
        "msteams": {"width": "Full"},
    }


class AirisToTeamsOperator(AirisToOperator):
    """Posts a card to a Teams channel for each change of an alert; a later card names the time of the first.

    :param alert_id: the alert's id at the hub.
    :param target: connection of type ``teams``, whose password is the URL of the channel's workflow.

    See https://learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors/how-to/add-incoming-webhook
    """

    system: ClassVar[str] = "teams"

    @property
    def receiver_conn_id(self) -> str:
        """The receiver's connection."""
        return self.target

    def send(self, alert: Alert, reference: str | None, *, url: str, again: bool) -> str:
        """Post the card; returns when the first one was.

        Teams keeps nothing by which a repetition could be told: after a try whose answer was lost, there are two.
        """
        if again and reference is None:
            self.log.warning("An earlier try may have posted the card of alert %s; it is posted again", alert.id)
        self.hook.post_card(card(alert, url, follows=reference))
        return reference or iso(time.time_ns() // 1_000_000)


def _text(value: str, **style: str) -> dict[str, Any]:
    return {"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": value, **style}]}


def _fact(name: str, value: str) -> dict[str, Any]:
    label = {"type": "TextRun", "text": f"{name}: ", "weight": "Bolder"}
    return {"type": "RichTextBlock", "inlines": [label, {"type": "TextRun", "text": value}]}


def _description(value: str) -> list[dict[str, Any]]:
    shown, most = value, len(value)
    while len(msgspec.json.encode(lines := _lines(shown))) > DESCRIPTION_BYTES:
        most = min(len(shown), most) * 9 // 10
        shown = cut_lines(value, most)
    return lines


def _lines(value: str) -> list[dict[str, Any]]:
    first, *others = (_text(line or " ") for line in value.split("\n"))
    return [first, *({**line, "spacing": "None"} for line in others)]
