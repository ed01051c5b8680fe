"""A Microsoft Teams channel, by the URL of a workflow that posts what it is sent."""

from __future__ import annotations

from typing import Any

import httpx2
import msgspec

from airflow_provider_airis.errors import PermanentError
from airflow_provider_airis.hooks.webhook import WebhookHook

CARD = "application/vnd.microsoft.card.adaptive"
LARGEST = 28 * 1024


class TeamsHook(WebhookHook):
    """Posts cards on an Airflow connection of type ``teams``, whose password is the URL of a workflow.

    Whoever has the URL can post, so all of it is a secret, and errors and logs name its host only. The connection's
    host, if set, is where a password without scheme and host leads.

    See https://learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors/how-to/add-incoming-webhook
    """

    default_conn_name = "teams_default"
    conn_type = "teams"
    hook_name = "Microsoft Teams"

    def post_card(self, card: dict[str, Any]) -> None:
        """Post an Adaptive Card.

        The workflow's 202 says that it took the card, not that the card is in the channel.

        :raises RetryableError: 429 (a workflow takes some four cards a second), a fault of theirs, the network.
        :raises PermanentError: the workflow is gone or refuses, or the card is over 28 KB.
        """
        # As the template *Send webhook alerts to a channel* takes it.
        attachment = {"contentType": CARD, "contentUrl": None, "content": card}
        body = msgspec.json.encode({"type": "message", "attachments": [attachment]})
        if len(body) > LARGEST:
            raise PermanentError(f"{self._asked('POST', '')} was not sent, the card is over {LARGEST:,} bytes")
        self.post(body, {})

    def check(self) -> str:
        """Look at the URL only: there is no request that posts nothing."""
        _ = self.url
        return f"{self.hook_name}: the workflow's URL has the right form; {self.base_url} is asked with the first alert"

    def advice(self, status: int) -> str:
        """What Teams' administrators can do about it."""
        renew = f"copy the workflow's URL anew into the password of connection {self.conn_id}"
        gone = f"the workflow is deleted or turned off; {renew}"
        return {401: renew, 403: renew, 404: gone, 410: gone}.get(status) or super().advice(status)

    def _address(self) -> str:
        secret = (self.connection.password or "").strip()
        if not secret:
            raise self._misconfigured("it has no password, the URL of a workflow")
        if "sig=" not in secret:
            raise self._misconfigured("its password is no URL of a workflow, which has a parameter sig")
        return str(httpx2.URL((self.connection.host or "").strip()).join(secret))
