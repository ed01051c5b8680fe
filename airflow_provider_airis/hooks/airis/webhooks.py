"""Webhooks by which a hub posts its alerts, and those that a hub takes from another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec

from airflow_provider_airis.errors import PermanentError, RetryableError
from airflow_provider_airis.hooks.delivery import API

if TYPE_CHECKING:
    from airflow_provider_airis.hooks.airis.hook import AirisHook

# What a hub tells of its alerts.
ALERT_EVENTS = ("alert.fired", "alert.severity_changed", "alert.acknowledged", "alert.resolved")


class InboundWebhook(msgspec.Struct, frozen=True):
    """Whose signed posts a hub takes, and under which path."""

    name: str
    path: str
    updated_at: int = 0


class Webhooks:
    """The webhooks of a hub."""

    def __init__(self, hub: AirisHook) -> None:
        self._hub = hub

    def create(
        self, name: str, url: str, secret: str, *, events: Sequence[str] = ALERT_EVENTS, headers: Mapping[str, str]
    ) -> None:
        """Let the hub post what happens to a URL, signed. Done twice it posts twice.

        :raises PermanentError: it refuses that; the message does not hold the secret.
        """
        body = {"name": name, "url": url, "events": list(events), "headers": dict(headers), "secret": secret}
        try:
            self._hub.request("POST", f"{API}/integrations/webhooks", json=body)
        except (PermanentError, RetryableError) as error:
            # A hub may quote what it refuses.
            raise type(error)(str(error).replace(secret, "***"), status=error.status) from None

    def inbound(self) -> dict[str, InboundWebhook]:
        """By name, whose signed posts the hub takes.

        :raises PermanentError: with status 404, it takes none.
        """
        answer = self._hub.decode(self._hub.request("GET", f"{API}/inbound-webhooks"), _Inbound)
        return {one.name: one for one in answer.inbound_webhooks}

    def take(self, name: str, secret: str) -> InboundWebhook:
        """Let the hub take posts signed with a secret; the one before stays valid until the next change."""
        return self._hub.decode(self._hub.request("PUT", _path(name), json={"secret": secret}), InboundWebhook)

    def take_no_more(self, name: str) -> None:
        """Let the hub take none any more."""
        try:
            self._hub.request("DELETE", _path(name))
        except PermanentError as error:
            if error.status != 404:
                raise


class _Inbound(msgspec.Struct):
    inbound_webhooks: list[InboundWebhook]


def _path(name: str) -> str:
    return f"{API}/inbound-webhooks/{quote(name, safe='')}"
