"""Alerts as signed webhooks: every change of an alert, with the alert as the hub has it."""

from __future__ import annotations

from urllib.parse import quote

import msgspec

from airflow_provider_airis.channels.base import Channel
from airflow_provider_airis.channels.view import KEY, AlertView
from airflow_provider_airis.records import ChangeType

_CHANGES: dict[str, ChangeType] = {"acknowledged": "acknowledged", "resolved": "resolved"}


def body(view: AlertView, *, shown: bool) -> bytes:
    """``{change, url, alert}``: what has changed, the alert's page, and the alert as the hub's API has it.

    Without the hub's ledger, which is none of the receiver's business. ``duration`` is that of the change, so that a
    repetition is the same.

    :param shown: whether the receiver was sent the alert before.
    """
    alert = view.alert
    fields = msgspec.to_builtins(alert)
    del fields["notifications"]
    fields["duration"] = max(0, alert.updated_at - alert.timestamp) / 1000
    change = _CHANGES.get(alert.status, "severity_changed" if shown else "fired")
    return msgspec.json.encode({"change": change, "url": view.url, "alert": fields})


def key(view: AlertView) -> str:
    """By which a receiver knows that it was sent this state before: ``airis-mon-<alert id>-<updated_at>``."""
    return f"{KEY}{quote(view.alert.id, safe='')}-{view.alert.updated_at}"


class WebhookChannel(Channel):
    """Every change to a URL, signed as the hub signs; the reference is the key of what was posted last."""

    deduplicates = True

    def send(self, view: AlertView, sent: str | None, *, maybe_sent: bool) -> str:  # noqa: ARG002
        """Post the change under its key."""
        self.hook.send(body(view, shown=sent is not None), key=key(view))
        return key(view)
