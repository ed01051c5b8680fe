"""Slack's Web API as alerts need it: post, update, find again."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from http.client import HTTPException
from time import sleep
from typing import Any

from airflow.sdk import BaseHook

from airflow_provider_airis.errors import AirisError, PermanentError, RetryableError
from airflow_provider_airis.hooks.base import LONGEST_WAIT_S

EVENT_TYPE = "airis_alert"
# What Slack answers when it is the token or the channel that has to be mended.
REFUSALS = frozenset(
    {
        "access_denied",
        "account_inactive",
        "channel_is_limited_access",
        "channel_not_found",
        "ekm_access_denied",
        "enterprise_is_restricted",
        "invalid_auth",
        "is_archived",
        "missing_scope",
        "no_permission",
        "not_allowed_token_type",
        "not_authed",
        "not_in_channel",
        "org_login_required",
        "restricted_action",
        "team_access_not_granted",
        "token_expired",
        "token_revoked",
        "two_factor_setup_required",
    }
)
_PASSING = frozenset(
    {"accesslimited", "fatal_error", "internal_error", "ratelimited", "request_timeout", "service_unavailable"}
)
_RENEW = "check the bot token in connection {conn_id}"
_ADVICE = {
    "account_inactive": _RENEW,
    "channel_not_found": "check the channel's name, and invite the app to it if it is private",
    "invalid_auth": _RENEW,
    "is_archived": "the channel is archived; name another one",
    "missing_scope": "add the scope {needed} to the Slack app and install it anew",
    "not_authed": _RENEW,
    "not_in_channel": "invite the app to the channel",
    "token_expired": _RENEW,
    "token_revoked": _RENEW,
}


class SlackHook(BaseHook):
    """Calls Slack on an Airflow connection of type ``slack``, whose password is a bot token. Opens nothing before.

    ``base_url``, ``timeout`` and ``proxy`` in the connection's extra are the Slack provider's.

    :param slack_conn_id: connection of type ``slack``.
    :param timeout: seconds to wait for an answer, unless the connection names them.
    :param retries: how often a rate-limited call is sent again, after the time that Slack names if that is a minute at
        most. Other errors that pass are left to the task: Slack may have posted what it did not confirm.

    See https://docs.slack.dev/reference/methods
    """

    conn_name_attr = "slack_conn_id"
    default_conn_name = "slack_default"
    conn_type = "slack"
    hook_name = "Slack"

    def __init__(self, slack_conn_id: str = default_conn_name, *, timeout: float = 30, retries: int = 3) -> None:
        super().__init__()
        self.slack_conn_id = slack_conn_id
        self.timeout = timeout
        self.retries = retries

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.slack_conn_id!r})"

    @cached_property
    def client(self) -> Any:
        """The provider's ``slack_sdk.WebClient``."""
        from airflow.providers.slack.hooks.slack import SlackHook as ProvidersHook

        named = self.get_connection(self.slack_conn_id).extra_dejson.get("timeout")
        return ProvidersHook(
            slack_conn_id=self.slack_conn_id,
            timeout=None if named else self.timeout,  # type: ignore[arg-type]  # an int, says the provider; any will do
            retry_handlers=[],  # slack_sdk's own wait as long as they are told to
        ).get_conn()

    def call(self, method: str, **arguments: Any) -> dict[str, Any]:
        """Call a method of the Web API and return its answer, which said ``ok``.

        :raises RetryableError: rate limits, faults of Slack's, the network.
        :raises PermanentError: any other answer with ``ok: false``, with what to do about it.
        """
        left = self.retries
        while True:
            try:
                return self._call(method, arguments)
            except RetryableError as error:
                if not left or error.retry_after is None or error.retry_after > LONGEST_WAIT_S:
                    raise
                left -= 1
                self.log.warning("%s; it is asked again in %.0f s", error, error.retry_after)
                sleep(error.retry_after)

    def post(self, channel: str, *, text: str, blocks: Sequence[Any], metadata: dict[str, str]) -> str:
        """Post a message; returns its reference ``<channel id>:<ts>``.

        :param metadata: by which :meth:`posted` knows it again.
        """
        answer = self.call(
            "chat.postMessage",
            channel=channel,
            text=text,
            blocks=blocks,
            metadata={"event_type": EVENT_TYPE, "event_payload": metadata},
            unfurl_links=False,
        )
        return f"{answer['channel']}:{answer['ts']}"

    def update(self, reference: str, *, text: str, blocks: Sequence[Any], metadata: dict[str, str]) -> None:
        """Replace a message. Slack takes the channel's id only, which is why the reference holds it."""
        channel, _, ts = reference.rpartition(":")
        self.call(
            "chat.update",
            channel=channel,
            ts=ts,
            text=text,
            blocks=blocks,
            metadata={"event_type": EVENT_TYPE, "event_payload": metadata},
        )

    def posted(self, channel: str, *, since: int) -> Iterator[tuple[dict[str, Any], str]]:
        """Yield the metadata and reference of the messages that :meth:`post` left in a channel, newest first.

        :param since: Unix ms; older messages are not looked at. At most the newest 10,000 are.
        :raises PermanentError: the app lacks the scopes to read (``channels:read``, ``channels:history``).
        """
        channel_id = self._channel_id(channel)
        cursor = ""
        for _ in range(10):
            answer = self.call(
                "conversations.history",
                channel=channel_id,
                oldest=f"{since / 1000:.6f}",
                include_all_metadata=True,
                limit=999,
                cursor=cursor,
            )
            for message in answer["messages"]:
                metadata = message.get("metadata") or {}
                if metadata.get("event_type") == EVENT_TYPE:
                    yield metadata.get("event_payload") or {}, f"{channel_id}:{message['ts']}"
            cursor = (answer.get("response_metadata") or {}).get("next_cursor", "")
            if not cursor:
                return

    def check(self) -> str:
        """Ask Slack who the token belongs to; returns what to tell the user."""
        answer = self.call("auth.test")
        return f"Slack knows the token as {answer.get('user')} of {answer.get('team')}"

    def test_connection(self) -> tuple[bool, str]:
        """Whether Slack accepts the token, and as whose. Never raises, posts nothing."""
        try:
            return True, self.check()
        except Exception as error:  # noqa: BLE001 - whatever is wrong with a connection, its form shows it
            return False, str(error)

    def _call(self, method: str, arguments: dict[str, Any]) -> dict[str, Any]:
        from slack_sdk.errors import SlackApiError, SlackClientError

        try:
            answer = self.client.api_call(method, json=arguments)
        except SlackApiError as error:
            raise self._refused(method, error.response) from error
        except (SlackClientError, OSError, HTTPException) as error:
            raise RetryableError(f"{self._asked(method)} got no answer: {error}") from error
        return dict(answer.data)

    def _channel_id(self, channel: str) -> str:
        if re.fullmatch(r"[CDG][A-Z0-9]{8,}", channel):
            return channel
        name = channel.removeprefix("#")
        cursor = ""
        for _ in range(100):
            answer = self.call("conversations.list", limit=999, cursor=cursor, types="public_channel,private_channel")
            for row in answer["channels"]:
                if row["name"] == name:
                    return str(row["id"])
            cursor = answer.get("response_metadata", {}).get("next_cursor", "")
            if not cursor:
                break
        raise PermanentError(f"{self._asked('conversations.list')}: there is no channel {channel}")

    def _refused(self, method: str, response: Any) -> AirisError:
        data = response.data if isinstance(response.data, dict) else {}
        code = str(data.get("error", ""))
        status = "" if response.status_code == 200 else f"HTTP {response.status_code} "
        said = f"{self._asked(method)} answered {status}{code}".rstrip()
        if details := (data.get("response_metadata") or {}).get("messages"):
            said += f" ({'; '.join(map(str, details))})"
        if code in _PASSING or response.status_code == 429 or response.status_code >= 500:
            wait = {name.lower(): str(value) for name, value in response.headers.items()}.get("retry-after", "")
            limited = response.status_code == 429 and wait.isdigit()
            return RetryableError(said, retry_after=float(wait) if limited else None)
        advice = _ADVICE.get(code, "").format(conn_id=self.slack_conn_id, needed=data.get("needed", "that it lacks"))
        return PermanentError(f"{said}: {advice}" if advice else said, detail=code, status=response.status_code)

    def _asked(self, method: str) -> str:
        return f"Slack (connection {self.slack_conn_id}): {method}"
