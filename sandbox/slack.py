"""Stand-in of Slack's Web API and of incoming webhooks: checks what Slack checks, and shows the messages at ``/``.

It knows auth.test, chat.postMessage, chat.update, conversations.list, conversations.history, conversations.replies,
files.getUploadURLExternal, files.completeUploadExternal and users.info; any bot token (``xoxb-…``) is good unless
``/_sandbox/tokens`` says otherwise. A file may be shown ``FILE_MS`` after its upload: before, Slack looks at it.
``/services/T0AIRIS/B0AIRIS/<token>`` is a webhook of the channel ``alerts``; one whose token begins with ``gone`` is
none any more.

``GET /_sandbox/requests`` lists what was posted and updated, with the time in Unix ms; an update that changes no more
than the blocks is a ``chart``. ``/_sandbox/replies`` lists what was posted in threads, ``/_sandbox/files`` what was
uploaded, ``/_sandbox/responses`` what was sent to a ``response_url``; ``POST /_sandbox/tokens`` ``{token, scopes}``
narrows a token's scopes, to none for a revoked one; ``POST /_sandbox/faults`` scripts failures, a webhook's by the call
``webhook`` with its words as ``json.text``; ``POST /_sandbox/reset`` forgets everything.

``POST /_sandbox/crowd`` ``{channels}`` makes the workspace larger, and answers where its lists were read from.

``POST /_sandbox/interactivity`` ``{url, signing_secret}`` says where requests of buttons go, signed as Slack signs.
Then the page's buttons can be pressed, and ``POST /_sandbox/press`` ``{ts, action_id, user?}`` presses one; it answers
the status that came back.

See https://docs.slack.dev/reference/methods
"""

from __future__ import annotations

import hashlib
import hmac
import html
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx2
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from sandbox.fake import FakeServer, Inbox, token
from sandbox.web import Faults, answered, application, now_ms, page, serve

CHANNELS = {"alerts": "C0ALERTS001", "oncall": "C0ONCALL001", "general": "C0GENERAL01"}
SCOPES = {"chat:write", "channels:read", "channels:history", "files:write", "users:read", "users:read.email"}
# Who presses buttons, by their ids.
USERS = {"U0JANE00001": ("jane", "jane.doe@example.com"), "U0GUEST0001": ("guest", None)}
# Each method's scope.
METHODS = {
    "auth.test": None,
    "chat.postMessage": "chat:write",
    "chat.update": "chat:write",
    "conversations.list": "channels:read",
    "conversations.history": "channels:history",
    "conversations.replies": "channels:history",
    "files.getUploadURLExternal": "files:write",
    "files.completeUploadExternal": "files:write",
    "users.info": "users:read",
}
# Takes no JSON, whatever its page says.
FORM_ONLY = "files.getUploadURLExternal"
FILE_MS = 300
# Of the texts of all blocks together; not documented.
MOST_CHARS = 13_200
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
        self.replies: list[dict[str, Any]] = []
        self.responses: list[dict[str, Any]] = []
        self.interactivity: dict[str, str] = {}
        self.scopes: set[str] = set()
        self.files: dict[str, dict[str, Any]] = {}
        self.url = ""
        self.tokens: dict[str, set[str]] = {}
        self.faults = Faults()
        self.last_ts = 0
        self.crowd = 0
        self.listed: list[int] = []

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
            self.url = str(request.base_url)
            form = "json" not in request.headers.get("content-type", "")
            arguments = await _arguments(request) if form or method != FORM_ONLY else {}
            self.scopes = self.tokens.get(request.headers["authorization"].removeprefix("Bearer "), SCOPES)
            answer = getattr(self, f"_{method.replace('.', '_')}")(arguments)
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
        channel, thread = self._channel(arguments), arguments.get("thread_ts")
        if thread and (channel, thread) not in self.messages:
            raise SlackError("thread_not_found")
        return self._posted(channel, self._message(arguments), thread)

    def _posted(self, channel: str, message: dict[str, Any], thread: str | None = None) -> dict[str, Any]:
        self.last_ts = max(self.last_ts + 1, now_ms() * 1000)
        ts = f"{self.last_ts // 1_000_000}.{self.last_ts % 1_000_000:06d}"
        there = {"thread_ts": thread} if thread else {}
        self.messages[channel, ts] = {"type": "message", "ts": ts, "user": "U0AIRIS0001", **there, **message}
        self._note("reply" if thread else "message", channel, ts, self.messages[channel, ts])
        return {"channel": channel, "ts": ts, "message": self.messages[channel, ts]}

    def _chat_update(self, arguments: dict[str, Any]) -> dict[str, Any]:
        channel, ts = str(arguments.get("channel", "")), str(arguments.get("ts", ""))
        if channel not in CHANNELS.values():
            raise SlackError("channel_not_found")
        if (channel, ts) not in self.messages:
            raise SlackError("message_not_found")
        # What is left out stays as it is.
        kept = {name: self.messages[channel, ts][name] for name in ("blocks", "attachments") if name not in arguments}
        before, message = self.messages[channel, ts], self._message({**kept, **arguments})
        same = before["blocks"] != message["blocks"] and before["attachments"] == message["attachments"]
        before |= message | {"edited": {"ts": f"{now_ms() / 1000:.6f}"}}
        self._note("chart" if same else "update", channel, ts, message)
        return {"channel": channel, "ts": ts, "text": message["text"]}

    def _message(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return _message(arguments, {name for name, file in self.files.items() if file["ready"] <= now_ms()})

    def _files_getUploadURLExternal(self, arguments: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        name, length = arguments.get("filename"), int(arguments.get("length") or 0)
        if not name or not length:
            raise SlackError("invalid_arguments")
        file_id = f"F0FILE{len(self.files):05d}"
        self.files[file_id] = {"id": file_id, "name": name, "length": length, "content": b"", "ready": float("inf")}
        return {"file_id": file_id, "upload_url": f"{self.url}upload/v1/{file_id}"}

    def _files_completeUploadExternal(self, arguments: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        files = [self.files.get(one["id"], {}) for one in arguments.get("files") or []]
        if not files:
            raise SlackError("invalid_arguments")
        if not all(file and len(file["content"]) == file["length"] for file in files):
            raise SlackError("file_not_found")
        for file, one in zip(files, arguments["files"], strict=True):
            file |= {"title": one.get("title", ""), "ready": now_ms() + FILE_MS}
        return {"files": [{"id": file["id"], "title": file["title"]} for file in files]}

    async def upload(self, request: Request) -> Response:
        """Take the bytes of a file."""
        file = self.files.get(request.path_params["id"])
        if file is None:
            return PlainTextResponse("no such upload", 404)
        file["content"] = await request.body()
        return PlainTextResponse(f"OK - {len(file['content'])}")

    async def webhook(self, request: Request) -> Response:
        """Post by an incoming webhook, which answers with words."""
        fault = self.faults.next("webhook")
        if fault and not fault.applied:
            return PlainTextResponse(str(fault.json.get("text", "")), fault.status, headers=fault.headers)
        if request.path_params["token"].startswith("gone"):
            return PlainTextResponse("no_service", 404)
        try:
            body = await request.json()
            self._posted(CHANNELS["alerts"], self._message(body))
        except ValueError:
            return PlainTextResponse("invalid_payload", 400)
        except SlackError as error:
            return PlainTextResponse(str(error), 400)
        return PlainTextResponse("lost", fault.status) if fault else PlainTextResponse("ok")

    def _users_info(self, arguments: dict[str, Any]) -> dict[str, Any]:
        name, email = USERS.get(str(arguments.get("user")), ("", None))
        if not name:
            raise SlackError("user_not_found")
        profile = {"email": email} if email and "users:read.email" in self.scopes else {}
        return {"user": {"id": arguments["user"], "name": name, "profile": profile}}

    async def interact(self, request: Request) -> Response:
        """Say where the requests of buttons go."""
        self.interactivity = await request.json()
        return JSONResponse({})

    async def press(self, request: Request) -> Response:
        """Press a button, as a person does."""
        if form := "json" not in request.headers.get("content-type", ""):
            pressed = {name: str(value) for name, value in (await request.form()).items()}
        else:
            pressed = await request.json()
        self.url = str(request.base_url)
        body, headers = self._pressed(**pressed)
        try:
            async with httpx2.AsyncClient(timeout=3) as client:
                status = (await client.post(self.interactivity["url"], content=body, headers=headers)).status_code
        except httpx2.TransportError:
            status = 0
        return RedirectResponse("/", 303) if form else JSONResponse({"status": status})

    def _pressed(self, ts: str, action_id: str, user: str = "U0JANE00001") -> tuple[bytes, dict[str, str]]:
        channel, message = next((where, m) for (where, one), m in self.messages.items() if one == ts)
        buttons = [e for block in _shown(message) if block["type"] == "actions" for e in block["elements"]]
        action = next(button for button in buttons if button["action_id"] == action_id)
        stamp = f"{now_ms() / 1000:.6f}"
        payload = {
            "type": "block_actions",
            "user": {"id": user, "username": USERS[user][0], "name": USERS[user][0], "team_id": "T0AIRIS"},
            "container": {"type": "message_attachment", "message_ts": ts, "channel_id": channel},
            "channel": {"id": channel, "name": "alerts"},
            "message": {"ts": ts, "text": message["text"]},
            "response_url": f"{self.url}actions/T0AIRIS/1/{ts}",
            "actions": [{**action, "block_id": "b1", "action_ts": stamp}],
        }
        body = urlencode({"payload": json.dumps(payload)}).encode()
        at = str(now_ms() // 1000)
        secret = self.interactivity["signing_secret"].encode()
        signature = hmac.new(secret, f"v0:{at}:".encode() + body, hashlib.sha256).hexdigest()
        return body, {
            "Content-Type": "application/x-www-form-urlencoded",
            "X-Slack-Request-Timestamp": at,
            "X-Slack-Signature": f"v0={signature}",
        }

    async def respond(self, request: Request) -> Response:
        """Take an answer to an interaction."""
        self.responses.append({"ts": request.path_params["ts"], **await request.json()})
        return PlainTextResponse("ok")

    async def responded(self, request: Request) -> Response:  # noqa: ARG002
        """Every answer to an interaction."""
        return JSONResponse(self.responses)

    def _conversations_list(self, arguments: dict[str, Any]) -> dict[str, Any]:
        limit, start = min(int(arguments.get("limit") or 100), 999), int(arguments.get("cursor") or 0)
        self.listed.append(start)
        # The known ones come last: whoever looks for one reads the whole list.
        named = [(f"c0crowd{number:05}", f"C0CROWD{number:05}") for number in range(self.crowd)]
        named += CHANNELS.items()
        channels = [{"id": channel, "name": name, "is_member": True} for name, channel in named[start : start + limit]]
        more = start + limit < len(named)
        return {"channels": channels, "response_metadata": {"next_cursor": str(start + limit) if more else ""}}

    async def crowded(self, request: Request) -> Response:
        """How many channels more there are; answers where lists have begun."""
        self.crowd = (await request.json())["channels"]
        began, self.listed = self.listed, []
        return JSONResponse(began)

    def _conversations_history(self, arguments: dict[str, Any]) -> dict[str, Any]:
        oldest = float(arguments.get("oldest") or 0)
        return self._page(arguments, lambda m: "thread_ts" not in m and float(m["ts"]) >= oldest, newest_first=True)

    def _conversations_replies(self, arguments: dict[str, Any]) -> dict[str, Any]:
        ts = str(arguments.get("ts", ""))
        if (arguments.get("channel"), ts) not in self.messages:
            raise SlackError("thread_not_found")
        return self._page(arguments, lambda m: ts in (m["ts"], m.get("thread_ts")))

    def _page(
        self, arguments: dict[str, Any], wanted: Callable[[dict[str, Any]], bool], *, newest_first: bool = False
    ) -> dict[str, Any]:
        channel = str(arguments.get("channel", ""))
        if channel not in CHANNELS.values():
            raise SlackError("channel_not_found")
        shown = [m for (where, _), m in self.messages.items() if where == channel and wanted(m)]
        if str(arguments.get("include_all_metadata", "")).lower() not in ("true", "1"):
            shown = [{key: value for key, value in message.items() if key != "metadata"} for message in shown]
        limit, start = min(int(arguments.get("limit") or 100), 999), int(arguments.get("cursor") or 0)
        more = len(shown) > start + limit
        following = {"response_metadata": {"next_cursor": str(start + limit)}} if more else {}
        ordered = shown[::-1] if newest_first else shown
        return {"messages": ordered[start : start + limit], "has_more": more, **following}

    def _channel(self, arguments: dict[str, Any]) -> str:
        channel = str(arguments.get("channel", ""))
        channel = CHANNELS.get(channel.removeprefix("#"), channel)
        if channel not in CHANNELS.values():
            raise SlackError("channel_not_found")
        return channel

    def _note(self, kind: str, channel: str, ts: str, message: dict[str, Any]) -> None:
        noted = {"at": now_ms(), "kind": kind, "channel": channel, "ts": ts, **message}
        # All blocks, as they are shown below one another.
        noted["blocks"] = _shown(message)
        (self.replies if kind == "reply" else self.requests).append(noted)

    async def replied(self, request: Request) -> Response:  # noqa: ARG002
        """Everything that was posted in threads."""
        return JSONResponse(self.replies)

    async def uploaded(self, request: Request) -> Response:  # noqa: ARG002
        """Every file."""
        return JSONResponse(
            [{name: file.get(name) for name in ("id", "name", "title", "length")} for file in self.files.values()]
        )

    async def file(self, request: Request) -> Response:
        """The bytes of a file."""
        return Response(self.files[request.path_params["id"]]["content"], media_type="image/png")

    async def seen(self, request: Request) -> Response:  # noqa: ARG002
        """Everything that was posted and updated."""
        return JSONResponse(self.requests)

    async def reset(self, request: Request) -> Response:  # noqa: ARG002
        """Forget everything."""
        for kept in (
            self.messages,
            self.requests,
            self.replies,
            self.responses,
            self.files,
            self.tokens,
            self.faults.scripted,
        ):
            kept.clear()
        return JSONResponse({})

    async def narrow(self, request: Request) -> Response:
        """Give a token these scopes only."""
        body = await request.json()
        self.tokens[body["token"]] = set(body["scopes"])
        return JSONResponse({})

    async def show(self, request: Request) -> Response:  # noqa: ARG002
        """The messages, roughly as Slack shows them."""
        messages = sorted(self.messages.items(), reverse=True)
        shown = "".join(
            self._html(message, [m["text"] for _, m in reversed(messages) if m.get("thread_ts") == message["ts"]])
            for _, message in messages
            if "thread_ts" not in message
        )
        note = "A stand-in of Slack: what it was sent, as Slack would roughly show it."
        return page("# alerts", note, shown or '<p class="dim">Nothing has been posted yet.</p>')

    def _html(self, message: dict[str, Any], replies: list[str]) -> str:
        told = [r["text"] for r in self.responses if r["ts"] == message["ts"]]
        note = "".join(f'<p class="dim">Only you can see this: {html.escape(text)}</p>' for text in told[-1:])
        return _html(message, replies, note, may_press=bool(self.interactivity))


async def _arguments(request: Request) -> dict[str, Any]:
    """Slack takes JSON and forms; slack_sdk sends either, nested values of forms as JSON."""
    if request.method == "GET":
        return dict(request.query_params)
    if "json" in request.headers.get("content-type", ""):
        body = await request.json() if await request.body() else {}
        return body if isinstance(body, dict) else {}
    form = {name: str(value) for name, value in (await request.form()).items()}
    return {
        name: json.loads(value) if name in ("blocks", "attachments", "metadata", "files") else value
        for name, value in form.items()
    }


def _message(arguments: dict[str, Any], files: set[str]) -> dict[str, Any]:
    text, blocks = arguments.get("text") or "", arguments.get("blocks") or []
    attachments = arguments.get("attachments") or []
    if not text and not blocks and not attachments:
        raise SlackError("no_text")
    if len(text) > 40_000:
        raise SlackError("msg_too_long")
    if len(attachments) > 100:
        raise SlackError("too_many_attachments")
    faults = _block_faults("/blocks", blocks, files)
    for number, attachment in enumerate(attachments):
        if not re.fullmatch(r"good|warning|danger|#[0-9a-fA-F]{6}", attachment.get("color", "good")):
            faults.append(f"invalid color [json-pointer:/attachments/{number}/color]")
        faults += _block_faults(f"/attachments/{number}/blocks", attachment.get("blocks") or [], files)
    if faults:
        raise SlackError("invalid_blocks", response_metadata={"messages": [f"[ERROR] {fault}" for fault in faults]})
    message = {"text": text, "blocks": blocks, "attachments": attachments}
    if sum(map(len, _texts(_shown(message)))) > MOST_CHARS:
        raise SlackError("msg_blocks_too_long")
    metadata = arguments.get("metadata")
    if metadata is not None and not (
        isinstance(metadata, dict) and metadata.get("event_type") and isinstance(metadata.get("event_payload"), dict)
    ):
        raise SlackError("invalid_metadata_format")
    return {**message, "metadata": metadata}


def _shown(message: dict[str, Any]) -> list[dict[str, Any]]:
    return [*message["blocks"], *(block for one in message["attachments"] for block in one.get("blocks") or [])]


def _texts(part: Any) -> list[str]:
    if isinstance(part, dict):
        own = [part["text"]] if isinstance(part.get("text"), str) else []
        return own + [text for value in part.values() for text in _texts(value)]
    return [text for value in part for text in _texts(value)] if isinstance(part, list) else []


def _block_faults(where: str, blocks: list[dict[str, Any]], files: set[str]) -> list[str]:
    faults = [fault for index, block in enumerate(blocks) for fault in _faults(f"{where}/{index}", block, files)]
    return [*faults, f"no more than 50 items allowed [json-pointer:{where}]"] if len(blocks) > 50 else faults


def _faults(where: str, block: dict[str, Any], files: set[str]) -> list[str]:
    """What Slack's validation says of a block; https://docs.slack.dev/reference/block-kit/blocks has the limits."""
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
        return _button_faults(f"{where}/elements", block.get("elements") or [])
    if kind == "image":
        return _image_faults(where, block, files)
    return [] if kind == "divider" else [f"unsupported type: {kind} [json-pointer:{where}/type]"]


def _button_faults(where: str, elements: list[dict[str, Any]]) -> list[str]:
    faults = [] if 0 < len(elements) <= 25 else [f"1 to 25 items wanted [json-pointer:{where}]"]
    for i, element in enumerate(elements):
        faults += _text_faults(f"{where}/{i}/text", element.get("text"), 75, {"plain_text"})
        for name, most in (("action_id", 255), ("value", 2000), ("url", 3000)):
            if len(element.get(name, "")) > most:
                faults.append(f"must be less than {most + 1} characters [json-pointer:{where}/{i}/{name}]")
    if len({element.get("action_id") for element in elements}) < len(elements):
        faults.append(f"action_id must be unique [json-pointer:{where}]")
    return faults


def _image_faults(where: str, block: dict[str, Any], files: set[str]) -> list[str]:
    faults = []
    if not 0 < len(block.get("alt_text") or "") <= 2000:
        faults.append(f"must be 1 to 2000 characters [json-pointer:{where}/alt_text]")
    if "title" in block:
        faults += _text_faults(f"{where}/title", block["title"], 2000, {"plain_text"})
    if "image_url" not in block and (block.get("slack_file") or {}).get("id") not in files:
        faults.append(f"invalid slack file [json-pointer:{where}/slack_file]")
    return faults


def _text_faults(where: str, text: Any, most: int, types: set[str]) -> list[str]:
    if not isinstance(text, dict) or text.get("type") not in types or not isinstance(text.get("text"), str):
        return [f"missing or wrong text object [json-pointer:{where}]"]
    if not text["text"]:
        return [f"must be more than 0 characters [json-pointer:{where}/text]"]
    if len(text["text"]) > most:
        return [f"must be less than {most + 1} characters [json-pointer:{where}/text]"]
    return []


def _html(message: dict[str, Any], replies: list[str], note: str, *, may_press: bool) -> str:
    ts = message["ts"] if may_press else ""
    parts = [_block_html(block, ts) for block in message["blocks"]]
    for attachment in message["attachments"]:
        inner = "".join(_block_html(block, ts) for block in attachment.get("blocks") or [])
        colour = html.escape(attachment.get("color", ""))
        parts.append(f'<div style="border-left: 4px solid {colour}; padding-left: 12px">{inner}</div>')
    edited = '<span class="dim">(edited)</span>' if "edited" in message else ""
    thread = "".join(f'<p class="dim">↳ {html.escape(html.unescape(text))}</p>' for text in replies)
    return f"<article>{''.join(parts) or html.escape(message['text'])}{edited}{thread}{note}</article>"


def _block_html(block: dict[str, Any], ts: str) -> str:
    if block["type"] == "header":
        return f"<h2>{html.escape(block['text']['text'])}</h2>"
    if block["type"] == "image":
        title, alt = ((block.get("title") or {}).get("text", ""), block["alt_text"])
        source = block.get("image_url") or f"/files/{block['slack_file']['id']}"
        image = f'<img style="max-width: 100%" alt="{html.escape(alt)}" src="{source}">'
        return f'<p class="dim">{html.escape(title)}</p>{image}'
    if block["type"] == "section" and "fields" in block:
        pairs = (text["text"].partition("\n")[::2] for text in block["fields"])
        rows = "".join(f"<div><dt>{_mrkdwn(label)}</dt><dd>{_mrkdwn(value)}</dd></div>" for label, value in pairs)
        return f"<dl>{rows}</dl>"
    if block["type"] == "section":
        text = _mrkdwn(block["text"]["text"].partition(chr(10))[2])
        return f'<p style="white-space: pre-line">{text}</p>'
    if block["type"] == "context":
        return f'<p class="dim">{_mrkdwn(" ".join(e["text"] for e in block["elements"]))}</p>'
    if block["type"] != "actions":
        return ""
    return f'<form method="post" action="/press">{"".join(_button_html(e, ts) for e in block["elements"])}</form>'


def _button_html(button: dict[str, Any], ts: str) -> str:
    text = html.escape(button["text"]["text"])
    if "url" in button:
        return f'<a class="button" href="{html.escape(button["url"])}">{text}</a>'
    if not ts:
        return f'<span class="button">{text}</span>'
    hidden = f'<input type="hidden" name="ts" value="{ts}">'
    return f'{hidden}<button class="button" name="action_id" value="{html.escape(button["action_id"])}">{text}</button>'


def _mrkdwn(text: str) -> str:
    return html.escape(html.unescape(text).strip("*").rstrip(":"))


def make(interactivity_url: str | None = None, signing_secret_file: str | None = None) -> Starlette:
    """A workspace without messages."""
    slack = Slack()
    if interactivity_url and signing_secret_file:
        secret = Path(signing_secret_file).read_text().strip()
        slack.interactivity = {"url": interactivity_url, "signing_secret": secret}
    return application(
        [
            Route("/", slack.show),
            Route("/api/{method}", slack.api, methods=["GET", "POST"]),
            Route("/services/{team}/{service}/{token}", slack.webhook, methods=["POST"]),
            Route("/upload/v1/{id}", slack.upload, methods=["POST"]),
            Route("/files/{id}", slack.file),
            Route("/_sandbox/requests", slack.seen),
            Route("/_sandbox/replies", slack.replied),
            Route("/actions/{team}/{id}/{ts}", slack.respond, methods=["POST"]),
            Route("/press", slack.press, methods=["POST"]),
            Route("/_sandbox/files", slack.uploaded),
            Route("/_sandbox/responses", slack.responded),
            Route("/_sandbox/crowd", slack.crowded, methods=["POST"]),
            Route("/_sandbox/interactivity", slack.interact, methods=["POST"]),
            Route("/_sandbox/press", slack.press, methods=["POST"]),
            Route("/_sandbox/tokens", slack.narrow, methods=["POST"]),
            Route("/_sandbox/reset", slack.reset, methods=["POST"]),
        ],
        slack.faults,
    )


def _change(request: dict[str, Any]) -> str:
    if request["kind"] == "update":
        return "acknowledged" if str(request.get("text")).startswith("Acknowledged") else "resolved"
    return "fired" if request["kind"] == "message" else ""


PEER = FakeServer(
    "slack",
    8792,
    lambda url, made: {
        "slack_default": {
            "conn_type": "slack",
            "password": made["slack_token"],
            "extra": json.dumps({"base_url": f"{url}/api/", "signing_secret": made["slack_signing_secret"]}),
        }
    },
    arguments=(
        *("--interactivity-url", "{api}/airis/receive/slack"),
        *("--signing-secret-file", "{secrets}/slack_signing_secret"),
    ),
    secrets={"slack_token": lambda: f"xoxb-{token()}", "slack_signing_secret": token},
    published=True,
    shares=True,
    inbox=Inbox({"fired": "messages", "acknowledged": "updates", "resolved": "updates"}, _change),
)

if __name__ == "__main__":
    serve(__doc__ or "", make)
