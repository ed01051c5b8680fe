"""Alerts as signed webhooks: every change of an alert, with the alert as the hub has it."""

from __future__ import annotations

from typing import ClassVar
from urllib.parse import quote

import msgspec

from airflow_provider_airis.operators.deliver import AirisToOperator
from airflow_provider_airis.records import Alert, ChangeType

_CHANGES: dict[str, ChangeType] = {"acknowledged": "acknowledged", "resolved": "resolved"}


def body(alert: Alert, url: str, *, shown: bool) -> bytes:
    """``{change, url, alert}``: what has changed, the alert's page, and the alert as the hub's API has it.

    Without the hub's ledger, which is none of the receiver's business. ``duration`` is that of the change, so that a
    repetition is the same.

    :param shown: whether the receiver was told of the alert before.
    """
    fields = msgspec.to_builtins(alert)
    del fields["notifications"]
    fields["duration"] = max(0, alert.updated_at - alert.timestamp) / 1000
    change = _CHANGES.get(alert.status, "severity_changed" if shown else "fired")
    return msgspec.json.encode({"change": change, "url": url, "alert": fields})


def key(alert: Alert) -> str:
    """By which a receiver knows that it was told of this state before."""
    return f"airis-mon-{quote(alert.id, safe='')}-{alert.updated_at}"


class AirisToWebhookOperator(AirisToOperator):
    """Posts every change of an alert to a URL, signed as the hub signs.

    The receiver tells a repetition by the header ``Idempotency-Key``, ``airis-mon-<alert id>-<updated_at>``.

    :param alert_id: the alert's id at the hub.
    :param target: connection of type ``webhook``: the URL, and the secret to sign with.
    """

    system: ClassVar[str] = "webhook"

    @property
    def receiver_conn_id(self) -> str:
        """The receiver's connection."""
        return self.target

    def send(self, alert: Alert, reference: str | None, *, url: str, again: bool) -> str:  # noqa: ARG002
        """Post the change; returns its key."""
        self.hook.send(body(alert, url, shown=reference is not None), key=key(alert))
        return key(alert)
