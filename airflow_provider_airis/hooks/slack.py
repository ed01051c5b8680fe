"""Slack as alerts need it: post, update, reply, find again, by its Web API; or only post, by an incoming webhook."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from functools import cached_property
from http.client import HTTPException
from time import sleep
from typing import Any, cast
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

from airflow_provider_airis.errors import AirisError, PermanentError, RetryableError
from airflow_provider_airis.hooks.base import SystemHook
from airflow_provider_airis.hooks.retrying import LONGEST_WAIT_S

EVENT_TYPE = "airis_alert"
# Of channels, each of nearly a thousand.
CHANNEL_PAGES = 100
# Neither addresses nor names in a message's text become links.
LITERAL = {"parse": "none", "link_names": False}
# What Slack answers when it is the token or the channel that has to be mended.
REFUSALS = frozenset(
    {
        "access_denied",
        "account_inactive",
        "action_prohibited",
        "channel_is_archived",
        "channel_is_limited_access",
        "channel_not_found",
        "ekm_access_denied",
        "enterprise_is_restricted",
        "invalid_auth",
        "invalid_token",
        "is_archived",
        "missing_scope",
        "no_active_hooks",
        "no_permission",
        "no_service",
        "no_service_id",
        "no_team",
        "not_allowed_token_type",
        "not_authed",
        "not_in_channel",
        "org_login_required",
        "restricted_action",
        "team_access_not_granted",
        "team_disabled",
        "token_expired",
        "token_revoked",
        "two_factor_setup_required",
    }
)
_PASSING = frozenset(
    {"accesslimited", "fatal_error", "internal_error", "ratelimited", "request_timeout", "service_unavailable"}
)
# All others take JSON, which is the only way to send blocks.
_FORMS = ("auth.", "conversations.", "files.getUploadURLExternal", "users.")
_RENEW = "check the bot token in connection {conn_id}"
_ANEW = "the webhook is gone; make a new one, and put its URL into connection {conn_id}"
_ARCHIVED = "the channel is archived; name another one"
_ADVICE = {
    "account_inactive": _RENEW,
    "action_prohibited": "the workspace lets the webhook not post there; ask its administrators",
    "channel_is_archived": _ARCHIVED,
    "channel_not_found": "check the channel's name, and invite the app to it if it is private",
    "invalid_auth": _RENEW,
    "invalid_token": _ANEW,
    "is_archived": _ARCHIVED,
    "missing_scope": "add the scope {needed} to the Slack app and install it anew",
    "no_active_hooks": _ANEW,
    "no_service": _ANEW,
    "no_service_id": _ANEW,
    "no_team": _ANEW,
    "not_authed": _RENEW,
    "not_in_channel": "invite the app to the channel",
    "token_expired": _RENEW,
    "token_revoked": _RENEW,
}


# What it logs at DEBUG has the URL of a webhook in it, which is a secret.
_silent = logging.getLogger(f"{__name__}.webhook")
_silent.setLevel(logging.INFO)


class SlackHook(SystemHook):
    """Calls Slack on an Airflow connection of type ``slack``, whose password is a bot token. Opens nothing before.

    Or on one of type ``slackwebhook``, or one whose password is a URL, ``https://hooks.slack.com/services/…``: an
    incoming webhook, which can only :meth:`send`. ``base_url``, ``timeout`` and ``proxy`` in the connection's extra
    are the Slack provider's, and so is what a webhook's host and password are.

    :param conn_id: connection of type ``slack`` or ``slackwebhook``.
    :param timeout: seconds to wait for an answer; over the connection's own.
    :param retries: how often a rate-limited call is sent again, after the time that Slack names if that is a minute at
        most. Other errors that pass are left to the task: Slack may have posted what it did not confirm.

    See https://docs.slack.dev/reference/methods and https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks
    """

    default_conn_name = "slack_default"
    conn_type = "slack"
    hook_name = "Slack"

    def __init__(self, conn_id: str | None = None, *, timeout: float | None = None, retries: int = 3) -> None:
        super().__init__(conn_id, timeout=timeout, retries=retries)
        # Channels' ids by their names as far as the list was read, and where it goes on; None at its end.
        self._channels: dict[str, str] = {}
        self._cursor: str | None = ""

    @property
    def is_webhook(self) -> bool:
        """Whether the connection is an incoming webhook's."""
        return self.connection.conn_type == "slackwebhook" or "://" in (self.connection.password or "")

    @cached_property
    def client(self) -> Any:
        """The provider's ``slack_sdk.WebClient``, or ``WebhookClient``."""
        # Their handlers of retries wait for ever.
        more: dict[str, Any] = {"timeout": self._timeout_s, "retry_handlers": []}
        with self.importing():
            if self.is_webhook:
                from airflow.providers.slack.hooks.slack_webhook import SlackWebhookHook

                return SlackWebhookHook(slack_webhook_conn_id=self.conn_id, logger=_silent, **more).get_conn()
            from airflow.providers.slack.hooks.slack import SlackHook as ProvidersHook

            return ProvidersHook(slack_conn_id=self.conn_id, **more).get_conn()

    def call(self, method: str, **arguments: Any) -> dict[str, Any]:
        """Call a method of the Web API and return its answer, which said ``ok``.

        :raises RetryableError: rate limits, faults of Slack's, the network.
        :raises PermanentError: any other answer with ``ok: false``, with what to do about it.
        """
        form = method.startswith(_FORMS)
        answer = self._patiently(
            lambda: self.client.api_call(method, **{"params" if form else "json": arguments}), method
        )
        return dict(answer.data)

    def send(self, message: dict[str, Any]) -> None:
        """Post a message by the incoming webhook, into the channel that it was made for. Nothing can change it later.

        :param message: ``{text, blocks, attachments}``.
        """

        def ask() -> Any:
            response = self.client.send_dict(message)
            if response.status_code != 200:
                raise self._refused("incoming webhook", response.status_code, response.body, response.headers)

        self._patiently(ask, "incoming webhook")

    def post(self, channel: str, message: dict[str, Any], *, thread: str | None = None) -> str:
        """Post a message; returns its reference ``<channel id>:<ts>``.

        :param message: ``{text, blocks, attachments, metadata}``; :meth:`posted` and :meth:`replies` know it again by
            ``metadata``, texts by name.
        :param thread: reference of the message that it is a reply to.
        """
        place = {"thread_ts": thread.split(":")[1]} if thread else {}
        answer = self.call(
            "chat.postMessage", channel=channel, unfurl_links=False, **LITERAL, **place, **_described(message)
        )
        self._channels[channel.removeprefix("#")] = str(answer["channel"])
        return f"{answer['channel']}:{answer['ts']}"

    def update(self, reference: str, message: dict[str, Any]) -> None:
        """Replace a message. Slack takes the channel's id only, which is why the reference holds it."""
        channel, ts = reference.split(":")[:2]
        self.call("chat.update", channel=channel, ts=ts, **LITERAL, **_described(message))

    def replies(self, reference: str) -> Iterator[dict[str, Any]]:
        """Yield the metadata of the replies that :meth:`post` left in a message's thread.

        :raises PermanentError: the app lacks the scope to read (``channels:history``).
        """
        channel, ts = reference.split(":")[:2]
        for message in self._messages("conversations.replies", channel=channel, ts=ts):
            if message["ts"] != ts:
                yield (message.get("metadata") or {}).get("event_payload") or {}

    def upload(self, name: str, content: bytes, *, title: str) -> str:
        """Upload a file that is shared with nobody; returns its id, for a block of type ``image``.

        Slack looks at a file before it lets a message show it: for some seconds such a block is invalid.

        :raises PermanentError: the app lacks the scope ``files:write``, or the workspace takes no files.
        """
        place = self.call("files.getUploadURLExternal", filename=name, length=len(content), alt_txt=title[:1_000])
        self._patiently(lambda: self._put(place["upload_url"], content), "upload of a file")
        self.call("files.completeUploadExternal", files=[{"id": place["file_id"], "title": title}])
        return str(place["file_id"])

    def posted(self, channel: str, *, since: int) -> Iterator[tuple[dict[str, Any], str]]:
        """Yield the metadata and reference of the messages that :meth:`post` left in a channel, newest first.

        :param since: Unix ms; older messages are not looked at. At most the newest 10,000 are.
        :raises PermanentError: the app lacks the scopes to read (``channels:read``, ``channels:history``).
        """
        channel_id = self._channel_id(channel)
        for message in self._messages("conversations.history", channel=channel_id, oldest=f"{since / 1000:.6f}"):
            metadata = message.get("metadata") or {}
            if metadata.get("event_type") == EVENT_TYPE:
                yield metadata.get("event_payload") or {}, f"{channel_id}:{message['ts']}"

    def email(self, user: str) -> str:
        """A user's e-mail, by their id; empty if they have none, or the app lacks the scope ``users:read.email``.

        :raises PermanentError: the app lacks the scope ``users:read``, too.
        """
        profile = self.call("users.info", user=user)["user"].get("profile") or {}
        return str(profile.get("email") or "")

    def respond(self, url: str, text: str) -> None:
        """Answer an interaction at its ``response_url``, so that nobody but the person sees it.

        See https://docs.slack.dev/interactivity/handling-user-interaction#message_responses
        """
        with self.importing():
            from slack_sdk.webhook import WebhookClient

        client = WebhookClient(url, timeout=cast("int", self._timeout_s), retry_handlers=[], logger=_silent)

        def ask() -> Any:
            response = client.send(text=text, response_type="ephemeral", replace_original=False)
            if response.status_code != 200:
                raise self._refused("response_url", response.status_code, response.body, response.headers)

        self._patiently(ask, "response_url")

    def check(self) -> str:
        """Ask Slack who the token belongs to; returns what to tell the user. Of a webhook, look at the URL only."""
        if self.is_webhook:
            if not (self.connection.password or "").strip():
                raise PermanentError(f"Slack: connection {self.conn_id} has no password, the URL of the webhook")
            if not str(self.client.url).startswith(("https://", "http://")):
                raise PermanentError(f"Slack: the webhook of connection {self.conn_id} is no URL with https")
            return "Slack: the webhook's URL has the right form; it is asked with the first alert"
        answer = self.call("auth.test")
        return f"Slack knows the token as {answer.get('user')} of {answer.get('team')}"

    def _patiently(self, ask: Callable[[], Any], what: str) -> Any:
        left = self.retries
        while True:
            try:
                return self._asking(ask, what)
            except RetryableError as error:
                if not left or error.retry_after is None or error.retry_after > LONGEST_WAIT_S:
                    raise
                left -= 1
                self.log.warning("%s; it is asked again in %.0f s", error, error.retry_after)
                sleep(error.retry_after)

    def _asking(self, ask: Callable[[], Any], what: str) -> Any:
        with self.importing():
            from slack_sdk.errors import SlackApiError, SlackClientError

        try:
            return ask()
        except SlackApiError as error:
            response = error.response
            raise self._refused(what, response.status_code, response.data, response.headers) from error
        except HTTPError as error:
            raise self._refused(what, error.code, error.read().decode(errors="replace"), error.headers) from error
        except (SlackClientError, OSError, HTTPException) as error:
            said = self._redacted(str(error))
            raise RetryableError(f"{self._asked(what)} got no answer: {said}") from (None if self.is_webhook else error)

    def _put(self, url: str, content: bytes) -> None:
        """Slack's servers for files are others than those of its methods, and take no token."""
        proxy = self.client.proxy
        opener = build_opener(*([ProxyHandler({"http": proxy, "https": proxy})] if proxy else []))
        request = Request(url, content, {"Content-Type": "application/octet-stream"})  # noqa: S310  as Slack says
        with opener.open(request, timeout=self.client.timeout) as answer:
            answer.read()

    def _messages(self, method: str, **arguments: Any) -> Iterator[dict[str, Any]]:
        cursor = ""
        for _ in range(10):
            answer = self.call(method, include_all_metadata=True, limit=999, cursor=cursor, **arguments)
            yield from answer["messages"]
            cursor = (answer.get("response_metadata") or {}).get("next_cursor", "")
            if not cursor:
                return

    def _channel_id(self, channel: str) -> str:
        """A channel's id by its name, from the list of all, which goes on where a rate limit has stopped it.

        :raises PermanentError: there is none of that name among the first hundred thousand.
        """
        name = channel.removeprefix("#")
        if re.fullmatch(r"[CDG][A-Z0-9]{8,}", channel):
            return channel
        for _ in range(CHANNEL_PAGES):
            if name in self._channels or self._cursor is None:
                break
            self._list_channels(self._cursor)
        if name in self._channels:
            return self._channels[name]
        self._cursor = ""  # it may be made, or renamed, until somebody asks again
        raise PermanentError(
            f"{self._asked('conversations.list')}: there is no channel {channel}; its id can be given as well",
            detail="channel_not_found",
        )

    def _list_channels(self, cursor: str) -> None:
        """One page of the list, and where the next one begins."""
        asked = {"limit": 999, "exclude_archived": True, "types": "public_channel,private_channel"}
        try:
            answer = self.call("conversations.list", cursor=cursor, **asked)
        except PermanentError as error:
            if error.detail == "invalid_cursor":
                self._cursor = ""
            raise
        self._channels |= {str(row["name"]): str(row["id"]) for row in answer["channels"]}
        self._cursor = answer.get("response_metadata", {}).get("next_cursor") or None

    def _refused(self, what: str, status: int, body: Any, headers: Any) -> AirisError:
        """What an answer says: the Web API's is an object, that of a webhook its word for the error."""
        data = body if isinstance(body, dict) else {}
        code = str(data.get("error", "")) or (body.strip() if isinstance(body, str) and self.is_webhook else "")
        code = code if re.fullmatch(r"\w{1,64}", code) else ""
        said = f"{self._asked(what)} answered {'' if status == 200 else f'HTTP {status} '}{code}".rstrip()
        if details := (data.get("response_metadata") or {}).get("messages"):
            said += f" ({'; '.join(map(str, details))})"
        if code in _PASSING or status == 429 or status >= 500:
            wait = {name.lower(): str(value) for name, value in headers.items()}.get("retry-after", "")
            limited = status == 429 and wait.isdigit()
            return RetryableError(said, retry_after=float(wait) if limited else None)
        advice = _ADVICE.get(code, "").format(conn_id=self.conn_id, needed=data.get("needed", "that it lacks"))
        return PermanentError(f"{said}: {advice}" if advice else said, detail=code, status=status)

    def _secrets(self) -> Iterator[str]:
        """Of a webhook the address too: whoever has it can post."""
        yield from super()._secrets()
        if "connection" in self.__dict__ and self.is_webhook:
            path = re.sub(r"^\w+://[^/]*", "", (self.connection.password or "").strip())
            if len(path) > len("/x/y"):
                yield path

    def _asked(self, what: str) -> str:
        return f"Slack (connection {self.conn_id}): {what}"


def _described(message: dict[str, Any]) -> dict[str, Any]:
    return message | {"metadata": {"event_type": EVENT_TYPE, "event_payload": message["metadata"]}}
