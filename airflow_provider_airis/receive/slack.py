"""The buttons of Slack's messages.

See https://docs.slack.dev/authentication/verifying-requests-from-slack and
https://docs.slack.dev/reference/interaction-payloads/block_actions-payload
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, Literal
from urllib.parse import parse_qs

import msgspec

from airflow_provider_airis.errors import AirisError
from airflow_provider_airis.receive.base import Action, Handler, Refused, check, check_age, decoded, mac

# A person's e-mail seldom changes, and Slack's methods are rate limited.
KNOWN_S = 3_600
MOST_KNOWN = 10_000

ACKNOWLEDGE = "ack_alert_"
_KINDS: dict[str, Literal["acknowledge", "resolve", "silence"]] = {
    "airis_acknowledge": "acknowledge",
    "airis_resolve": "resolve",
    "airis_silence_1h": "silence",
}


class _User(msgspec.Struct):
    id: str
    username: str = ""
    name: str = ""


class _Pressed(msgspec.Struct):
    action_id: str = ""
    action_ts: str = ""
    value: str = ""

    @property
    def kind(self) -> Literal["acknowledge", "resolve", "silence"] | None:
        """What it stands for; of any other app's button nothing."""
        return "acknowledge" if self.action_id.startswith(ACKNOWLEDGE) else _KINDS.get(self.action_id)

    @property
    def alert_id(self) -> str:
        """The alert's or group's id, which an action that acknowledges may have in its own."""
        return self.value or self.action_id.partition(ACKNOWLEDGE)[2]


class _Payload(msgspec.Struct):
    type: str
    user: _User | None = None
    actions: list[_Pressed] = []
    response_url: str = ""


class SlackHandler(Handler):
    """Buttons with the ``action_id`` ``ack_alert_<alert id>``, ``airis_resolve`` and ``airis_silence_1h``.

    Messages of before have ``airis_acknowledge``, and the alert's id as the button's value only.

    Slack waits three seconds, and does not ask twice: the person is told by ``response_url`` what went wrong.
    """

    content_type: ClassVar[str] = "application/x-www-form-urlencoded"
    replies: ClassVar[bool] = True
    repeats: ClassVar[bool] = False

    def __init__(self, conn_id: str) -> None:
        super().__init__(conn_id)
        self._emails: dict[str, tuple[float, str]] = {}

    def verify(self, body: bytes, headers: Mapping[str, str], secrets: Sequence[str], now: float) -> None:
        """``v0=`` and the HMAC of ``v0:<timestamp>:<body>``."""
        timestamp = headers.get("x-slack-request-timestamp", "")
        check_age(timestamp, now)
        signed = b"v0:%b:%b" % (timestamp.encode(), body)
        given = headers.get("x-slack-signature")
        check([given] if given else [], [f"v0={mac(secret, signed).hex()}" for secret in secrets])

    def read(self, body: bytes) -> list[Action]:
        """The buttons that were pressed."""
        try:
            (payload,) = parse_qs(body.decode(), max_num_fields=10)["payload"]
        except (KeyError, ValueError):
            raise Refused("malformed", "its body is no form with a field payload") from None
        found = decoded(payload, _Payload)
        if found.type != "block_actions" or found.user is None:
            return []
        user = found.user
        return [
            Action(
                kind=pressed.kind,
                id=pressed.alert_id,
                at=_ms(pressed.action_ts),
                by=user.username or user.name or user.id,
                about=user.id,
                reply_to=found.response_url,
            )
            for pressed in found.actions
            if pressed.kind and pressed.alert_id
        ]

    def complete(self, action: Action) -> Iterable[Action]:
        """With the person's e-mail, where the bot token has ``users:read.email``."""
        from airflow_provider_airis.hooks.slack import SlackHook

        known_at, email = self._emails.get(action.about, (0.0, ""))
        if time.monotonic() - known_at > KNOWN_S or not known_at:
            hook = SlackHook(self.conn_id, timeout=2, retries=0)
            try:
                email = "" if hook.is_webhook else hook.email(action.about)
            except AirisError as error:
                hook.log.info("The e-mail of %s is not known: %s", action.about, error)
            if len(self._emails) >= MOST_KNOWN:
                self._emails.clear()
            self._emails[action.about] = time.monotonic(), email
        return [msgspec.structs.replace(action, email=email)]

    def reply(self, action: Action, text: str) -> None:
        """A message that only the person sees who has pressed the button."""
        from airflow_provider_airis.hooks.slack import SlackHook

        if action.reply_to:
            SlackHook(self.conn_id, timeout=10).respond(action.reply_to, text)


def _ms(timestamp: str) -> int:
    try:
        return round(float(timestamp) * 1000)
    except (ValueError, OverflowError):
        raise Refused("malformed", "an action has no action_ts") from None
