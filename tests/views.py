"""Alerts as tests of receivers show them."""

from __future__ import annotations

from typing import Any

import msgspec

from airflow_provider_airis.channels.view import AlertView
from airflow_provider_airis.records import Alert

URL = "https://hub.example.com/dashboard?alert=a1"


def alert(**fields: Any) -> Alert:
    """An alert of which only these fields matter."""
    plain = {"id": "a1", "name": "n", "severity": "high", "status": "firing", "timestamp": 0, "updated_at": 0}
    return msgspec.convert(plain | fields, Alert)


def view(**fields: Any) -> AlertView:
    """The same in words."""
    return AlertView(alert(**fields), URL)
