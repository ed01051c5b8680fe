"""Alerts as Adaptive Cards in a Microsoft Teams channel: a card for each change."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from airflow_provider_airis.channels.base import Channel
from airflow_provider_airis.channels.texts import cut, cut_lines
from airflow_provider_airis.channels.view import AlertView
from airflow_provider_airis.records import iso

TITLE_CHARS = 300
FIELD_CHARS = 500
# Of its JSON: with all else a card stays well below Teams' 28 KB.
DESCRIPTION_BYTES = 12_000
_STYLES = {"bad": "attention", "warning": "warning", "acknowledged": "accent", "resolved": "good"}


def card(view: AlertView, *, follows: str | None = None) -> dict[str, Any]:
    """The Adaptive Card of an alert's state.

    Everything that comes from the alert is a run of a rich text, which Teams does not read as Markdown; it has no line
    breaks either, so each line of the description is a text of its own.

    :param follows: when the alert's first card was posted, if this is a later one: no card can be changed.

    See https://learn.microsoft.com/microsoftteams/platform/task-modules-and-cards/cards/cards-format
    """
    facts = {**view.facts, **view.history, **({"Follows the card of": follows} if follows else {})}
    heading = _text(cut(view.title, TITLE_CHARS), size="Large", weight="Bolder")
    return {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        # What notifications and screen readers show instead.
        "fallbackText": cut(f"{view.title}: {view.name}", TITLE_CHARS),
        "body": [
            {"type": "Container", "style": _STYLES.get(view.tone, "emphasis"), "bleed": True, "items": [heading]},
            {"type": "Container", "items": [_fact(name, cut(value, FIELD_CHARS)) for name, value in facts.items()]},
            *_description(view.description),
        ],
        "actions": [{"type": "Action.OpenUrl", "title": "View Dashboard", "url": view.url}],
        "msteams": {"width": "Full"},
    }


class TeamsChannel(Channel):
    """A card for each change; a later one names the time of the first, which is the reference."""

    def send(self, view: AlertView, sent: str | None, *, maybe_sent: bool) -> str:
        """Post the card."""
        if maybe_sent and sent is None:
            self.repeats(view)
        self.hook.post_card(card(view, follows=sent))
        return sent or iso(time.time_ns() // 1_000_000)


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
