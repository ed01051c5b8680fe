"""Stand-in of Slack's Web API: checks what Slack checks, and shows the messages at ``/``.

It knows auth.test, chat.postMessage, chat.update, conversations.list and conversations.history; any bot token
(``xoxb-…``) is good unless ``/_sandbox/tokens`` says otherwise. ``GET /_sandbox/requests`` lists what was posted and
updated, with the time in Unix ms; ``POST /_sandbox/tokens`` ``{token, scopes}`` narrows a token's scopes, to none for a
revoked one; ``POST /_sandbox/faults`` scripts failures.

See https://docs.slack.dev/reference/methods
"""

from __future__ import annotations

import html
import json
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.web import Faults, answered, application, now_ms, page, serve

CHANNELS = {"alerts": "C0ALERTS001", "oncall": "C0ONCALL001", "general": "C0GENERAL01"}
SCOPES = {"chat:write", "channels:read", "channels:history"}
# Each method's scope.
METHODS = {
    "auth.test": None,
    "chat.postMessage": "chat:write",
    "chat.update": "chat:write",
    "conversations.list": "channels:read",
    "conversations.history": "channels:history",
}
TEXT_TYPES = {"plain_text", "mrkdwn"}


class SlackError(Exception):
    """An answer with ``ok: false``."""

    def __init__(self, code: str, **more: Any) -> None:
        super().__init__(code)
        self.answer = {"ok": False, "error": code, **more}


class Slack:
    """One workspace."""

    def __init__(self) -> None:
        self.messages: dict[tuple[str, str], dict[str, Any]] = {}
        self.requests: list[dict[str, Any]] = []
        self.tokens: dict[str, set[str]] = {}
        self.faults = Faults()
        self.last_ts = 0

    async def api(self, request: Request) -> Response:
        """Answer a method."""
        method = request.path_params["method"]
        fault = self.faults.next(method)
        if fault and not fault.applied:
            return answered(fault)
        try:
            self._authorize(method, request.headers.get("authorization", ""))
            if method not in METHODS:
                raise SlackError("unknown_method")
            answer = getattr(self, f"_{method.replace('.', '_')}")(await _arguments(request))
        except SlackError as error:
            return JSONResponse(error.answer)
        return answered(fault) if fault else JSONResponse({"ok": True, **answer})

    def _authorize(self, method: str, header: str) -> None:
        token = header.removeprefix("Bearer ")
        if not token:
            raise SlackError("not_authed")
        scopes = self.tokens.get(token, SCOPES)
        if not token.startswith("xoxb-") or not scopes:
            raise SlackError("invalid_auth")
        if (needed := METHODS.get(method)) and needed not in scopes:
            raise SlackError("missing_scope", needed=needed, provided=",".join(sorted(scopes)))

    def _auth_test(self, arguments: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        return {"url": "https://airis.slack.com/", "team": "AIRIS", "user": "airis-mon", "bot_id": "B0AIRIS0001"}

    def _chat_postMessage(self, arguments: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        channel = self._channel(arguments)
        message = _message(arguments)
        self.last_ts = max(self.last_ts + 1, now_ms() * 1000)
        ts = f"{self.last_ts // 1_000_000}.{self.last_ts % 1_000_000:06d}"
        self.messages[channel, ts] = {"type": "message", "ts": ts, "user": "U0AIRIS0001", **message}
        self._note("message", channel, ts, message)
        return {"channel": channel, "ts": ts, "message": self.messages[channel, ts]}

    def _chat_update(self, arguments: dict[str, Any]) -> dict[str, Any]:
        channel, ts = str(arguments.get("channel", "")), str(arguments.get("ts", ""))
        if channel not in CHANNELS.values():
            raise SlackError("channel_not_found")
        if (channel, ts) not in self.messages:
            raise SlackError("message_not_found")
        message = _message(arguments)
        self.messages[channel, ts] |= message | {"edited": {"ts": f"{now_ms() / 1000:.6f}"}}
        self._note("update", channel, ts, message)
        return {"channel": channel, "ts": ts, "text": message["text"]}

    def _conversations_list(self, arguments: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        channels = [{"id": channel, "name": name, "is_member": True} for name, channel in CHANNELS.items()]
        return {"channels": channels, "response_metadata": {"next_cursor": ""}}

    def _conversations_history(self, arguments: dict[str, Any]) -> dict[str, Any]:
        channel, oldest = str(arguments.get("channel", "")), float(arguments.get("oldest") or 0)
        if channel not in CHANNELS.values():
            raise SlackError("channel_not_found")
        shown = [m for (where, ts), m in self.messages.items() if where == channel and float(ts) >= oldest]
        if str(arguments.get("include_all_metadata", "")).lower() not in ("true", "1"):
            shown = [{key: value for key, value in message.items() if key != "metadata"} for message in shown]
        limit, start = min(int(arguments.get("limit") or 100), 999), int(arguments.get("cursor") or 0)
        more = len(shown) > start + limit
        following = {"response_metadata": {"next_cursor": str(start + limit)}} if more else {}
        return {"messages": shown[::-1][start : start + limit], "has_more": more, **following}

    def _channel(self, arguments: dict[str, Any]) -> str:
        channel = str(arguments.get("channel", ""))
        channel = CHANNELS.get(channel.removeprefix("#"), channel)
        if channel not in CHANNELS.values():
            raise SlackError("channel_not_found")
        return channel

    def _note(self, kind: str, channel: str, ts: str, message: dict[str, Any]) -> None:
        self.requests.append({"at": now_ms(), "kind": kind, "channel": channel, "ts": ts, **message})

    async def seen(self, request: Request) -> Response:  # noqa: ARG002
        """Everything that was posted and updated."""
        return JSONResponse(self.requests)

    async def narrow(self, request: Request) -> Response:
        """Give a token these scopes only."""
        body = await request.json()
        self.tokens[body["token"]] = set(body["scopes"])
        return JSONResponse({})

    async def show(self, request: Request) -> Response:  # noqa: ARG002
        """The messages, roughly as Slack shows them."""
        shown = "".join(_html(message) for _, message in sorted(self.messages.items(), reverse=True))
        note = "A stand-in of Slack: what it was sent, as Slack would roughly show it."
        return page("# alerts", note, shown or '<p class="dim">Nothing has been posted yet.</p>')


async def _arguments(request: Request) -> dict[str, Any]:
    """Slack takes JSON and forms; slack_sdk sends either, nested values of forms as JSON."""
    if request.method == "GET":
        return dict(request.query_params)
    if "json" in request.headers.get("content-type", ""):
        body = await request.json() if await request.body() else {}
        return body if isinstance(body, dict) else {}
    form = {name: str(value) for name, value in (await request.form()).items()}
    return {name: json.loads(value) if name in ("blocks", "metadata") else value for name, value in form.items()}


def _message(arguments: dict[str, Any]) -> dict[str, Any]:
    text, blocks = arguments.get("text") or "", arguments.get("blocks") or []
    if not text and not blocks:
        raise SlackError("no_text")
    if len(text) > 40_000:
        raise SlackError("msg_too_long")
    faults = [fault for index, block in enumerate(blocks) for fault in _faults(index, block)]
    if len(blocks) > 50:
        faults.append("no more than 50 items allowed [json-pointer:/blocks]")
    if faults:
        raise SlackError("invalid_blocks", response_metadata={"messages": [f"[ERROR] {fault}" for fault in faults]})
    metadata = arguments.get("metadata")
    if metadata is not None and not (
        isinstance(metadata, dict) and metadata.get("event_type") and isinstance(metadata.get("event_payload"), dict)
    ):
        raise SlackError("invalid_metadata_format")
    return {"text": text, "blocks": blocks, "metadata": metadata}


def _faults(index: int, block: dict[str, Any]) -> list[str]:
    """What Slack's validation says of a block; https://docs.slack.dev/reference/block-kit/blocks has the limits."""
    where = f"/blocks/{index}"
    kind = block.get("type") if isinstance(block, dict) else block
    if kind == "header":
        return _text_faults(f"{where}/text", block.get("text"), 150, {"plain_text"})
    if kind == "section":
        fields = block.get("fields") or []
        faults = [
            f for i, text in enumerate(fields) for f in _text_faults(f"{where}/fields/{i}", text, 2000, TEXT_TYPES)
        ]
        if len(fields) > 10:
            faults.append(f"no more than 10 items allowed [json-pointer:{where}/fields]")
        if "text" in block or not fields:
            faults += _text_faults(f"{where}/text", block.get("text"), 3000, TEXT_TYPES)
        return faults
    if kind == "context":
        elements = block.get("elements") or []
        faults = [f for i, e in enumerate(elements) for f in _text_faults(f"{where}/elements/{i}", e, 2000, TEXT_TYPES)]
        return faults + ([] if 0 < len(elements) <= 10 else [f"1 to 10 items wanted [json-pointer:{where}/elements]"])
    if kind == "actions":
        faults = []
        for i, element in enumerate(block.get("elements") or []):
            at = f"{where}/elements/{i}"
            faults += _text_faults(f"{at}/text", element.get("text"), 75, {"plain_text"})
            if len(element.get("action_id", "")) > 255:
                faults.append(f"must be less than 256 characters [json-pointer:{at}/action_id]")
            if len(element.get("url", "")) > 3000:
                faults.append(f"must be less than 3001 characters [json-pointer:{at}/url]")
        return faults
    return [] if kind == "divider" else [f"unsupported type: {kind} [json-pointer:{where}/type]"]


def _text_faults(where: str, text: Any, most: int, types: set[str]) -> list[str]:
    if not isinstance(text, dict) or text.get("type") not in types or not isinstance(text.get("text"), str):
        return [f"missing or wrong text object [json-pointer:{where}]"]
    if not text["text"]:
        return [f"must be more than 0 characters [json-pointer:{where}/text]"]
    if len(text["text"]) > most:
        return [f"must be less than {most + 1} characters [json-pointer:{where}/text]"]
    return []


def _html(message: dict[str, Any]) -> str:
    parts = []
    for block in message["blocks"]:
        if block["type"] == "header":
            parts.append(f"<h2>{html.escape(block['text']['text'])}</h2>")
        elif block["type"] == "section" and "fields" in block:
            pairs = (text["text"].partition("\n")[::2] for text in block["fields"])
            rows = "".join(f"<div><dt>{_mrkdwn(label)}</dt><dd>{_mrkdwn(value)}</dd></div>" for label, value in pairs)
            parts.append(f"<dl>{rows}</dl>")
        elif block["type"] == "section":
            parts.append(f"<p>{_mrkdwn(block['text']['text'].partition(chr(10))[2])}</p>")
        elif block["type"] == "context":
            parts.append(f'<p class="dim">{_mrkdwn(" ".join(e["text"] for e in block["elements"]))}</p>')
        elif block["type"] == "actions":
            buttons = (
                f'<a class="button" href="{html.escape(e["url"])}">{html.escape(e["text"]["text"])}</a>'
                if "url" in e
                else f'<span class="button">{html.escape(e["text"]["text"])}</span>'
                for e in block["elements"]
            )
            parts.append(f"<p>{''.join(buttons)}</p>")
    edited = '<span class="dim">(edited)</span>' if "edited" in message else ""
    return f"<article>{''.join(parts) or html.escape(message['text'])}{edited}</article>"


def _mrkdwn(text: str) -> str:
    return html.escape(html.unescape(text).strip("*").rstrip(":"))


def make() -> Starlette:
    """A workspace without messages."""
    slack = Slack()
    return application(
        [
            Route("/", slack.show),
            Route("/api/{method}", slack.api, methods=["GET", "POST"]),
            Route("/_sandbox/requests", slack.seen),
            Route("/_sandbox/tokens", slack.narrow, methods=["POST"]),
        ],
        slack.faults,
    )


if __name__ == "__main__":
    serve("stand-in of Slack's Web API", make)
