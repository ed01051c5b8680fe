"""An alert, or a group of them, in words: made once, and shown by each receiver in its own form."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from airflow_provider_airis.channels.texts import clean, one_line
from airflow_provider_airis.records import Alert, iso

KEY = "airis-mon-"
Tone = Literal["bad", "warning", "calm", "acknowledged", "resolved"]

_TITLES = {"firing": "{} Alert", "acknowledged": "{} Alert (acknowledged)", "resolved": "Resolved: {} Alert"}
_TONES: dict[str, Tone] = {"critical": "bad", "high": "bad", "medium": "warning", "warning": "warning"}


@dataclass(frozen=True)
class AlertView:
    """What people are to read of an alert's state. All of it is data: text without control characters, no markup.

    :param alert: the alert as the hub has it; of a group, the one that stands for it.
    :param url: its page on the hub.
    """

    alert: Alert
    url: str

    @property
    def key(self) -> str:
        """By which a receiver knows that several messages are of one alert: ``airis-mon-<alert id>``."""
        return f"{KEY}{self.alert.id}"

    @property
    def over(self) -> bool:
        """Whether it is resolved."""
        return self.alert.status == "resolved"

    @property
    def state(self) -> str:
        """Which state of the alert this is: the same again in a repetition."""
        return f"{self.alert.status}:{self.alert.updated_at}"

    @property
    def tone(self) -> Tone:
        """How it is coloured: by its severity, until somebody has it or it is over."""
        if self.alert.status != "firing":
            return self.alert.status
        return _TONES.get(self.alert.severity, "calm")

    @cached_property
    def title(self) -> str:
        """``CRITICAL Alert``, and what became of it."""
        return _TITLES[self.alert.status].format(self.alert.severity.upper())

    @cached_property
    def name(self) -> str:
        """Its name, in one line."""
        return one_line(self.alert.name) or "N/A"

    @cached_property
    def facts(self) -> dict[str, str]:
        """What it is about, a line each."""
        return {
            "Alert": self.name,
            "Severity": self.alert.severity,
            "Model": one_line(self.alert.model_id or "") or "N/A",
            "Environment": one_line(self.alert.environment or "") or "N/A",
        }

    @cached_property
    def measured(self) -> dict[str, str]:
        """The numbers that it is about."""
        numbers = {"Threshold": self.alert.threshold, "Value": self.alert.current_value}
        return {name: "N/A" if number is None else f"{number:,}" for name, number in numbers.items()}

    @cached_property
    def times(self) -> dict[str, int]:
        """When it fired, and was resolved, Unix ms."""
        resolved = {"Resolved at": self.alert.updated_at} if self.over else {}
        return {"Triggered at": self.alert.timestamp, **resolved}

    @cached_property
    def acknowledged_by(self) -> str:
        """Who has it; empty for nobody."""
        return one_line(self.alert.acknowledged_by or "")

    @property
    def history(self) -> dict[str, str]:
        """What has happened to it, a line each, with times in ISO 8601."""
        first, *later = ((name, iso(at)) for name, at in self.times.items())
        return dict([first, *([("Acknowledged by", self.acknowledged_by)] if self.acknowledged_by else []), *later])

    @cached_property
    def description(self) -> str:
        """Its description, in as many lines as it has; of a group, a line an alert."""
        return clean(self.alert.description).strip() or "N/A"
