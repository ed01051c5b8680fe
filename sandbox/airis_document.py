"""The AIRIS-MON that its integration document promises: four calls, and alerts by webhook. Nothing else is there.

It takes what the document says and no more: a field that it does not name is refused (400), so is what has another
type; a ``Content-Encoding`` is refused (415); every success is answered ``{}``; a request without the token, which
``--token-file`` holds, is 401.

``GET /_sandbox/taken`` lists what was taken, ``POST /_sandbox/alerts`` makes an alert or changes one and answers once
each webhook has it (``{"delivered": [status, …]}``; ``"retries": 0`` sends once), ``POST /_sandbox/faults`` scripts
failures of ``metrics``, ``events``, ``webhooks`` and ``users``, e.g. 429 with ``Retry-After``; ``POST /_sandbox/limit``
``{"per_s": n}`` answers more than n requests a second with 429 and ``Retry-After: 1``.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Literal

import httpx2
import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.web import Faults, answered, application, now_ms, serve

LARGEST = 10 << 20
RETRIES = 5


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    """A body as the document has it; none of its fields may be missing."""


class Point(Strict):
    """A member of ``metrics``."""

    name: str
    value: float
    unit: str
    tags: dict[str, str]


class Metrics(Strict):
    """``POST /api/v1/metrics/ingest``."""

    timestamp: int
    source: str
    metrics: list[Point]


class Event(Strict):
    """``POST /api/v1/events/ingest``."""

    timestamp: int
    event_type: str
    source: str
    severity: Literal["info", "warning", "error", "critical"]
    data: dict[str, Any]


class Webhook(Strict):
    """``POST /api/v1/integrations/webhooks``."""

    name: str
    url: str
    events: list[str]
    headers: dict[str, str]
    secret: str


class User(Strict):
    """A member of ``users``."""

    username: str
    email: str | None
    display_name: str | None
    department: str | None
    title: str | None
    sync_timestamp: int


class Users(Strict):
    """``data`` of a user sync."""

    users: list[User]
    sync_type: Literal["full", "delta"]


class UserSync(Strict):
    """``POST /api/v1/integrations/user-sync``."""

    event_type: Literal["user_sync"]
    source: str
    timestamp: int
    data: Users


class Hub:
    """Keeps what it took, in memory."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.faults = Faults()
        self.taken: dict[str, list[Any]] = {"metrics": [], "events": [], "webhooks": [], "users": []}
        self.requests = 0
        self.connections: set[tuple[str, int]] = set()
        self.alerts: dict[str, dict[str, Any]] = {}
        self.per_s = 0
        self._second = (0, 0)

    def call(self, name: str, shape: type[Strict], status: int = 200) -> Callable[[Request], Awaitable[Response]]:
        """A call that takes a body of a shape."""

        async def post(request: Request) -> Response:
            self.requests += 1
            if request.client is not None:
                self.connections.add((request.client.host, request.client.port))
            fault = self.faults.next(name)
            if fault and not fault.applied:
                return answered(fault)
            if self._is_throttled():
                return JSONResponse({"error": "rate limit exceeded"}, 429, headers={"Retry-After": "1"})
            sent = request.headers.get("authorization", "").removeprefix("Bearer ")
            if not hmac.compare_digest(sent.encode(), self.token.encode()):
                return JSONResponse({"error": "authentication required"}, 401)
            if request.headers.get("content-encoding"):
                return JSONResponse({"error": "no Content-Encoding is taken"}, 415)
            if request.headers.get("content-type", "").partition(";")[0] != "application/json":
                return JSONResponse({"error": "application/json is taken"}, 415)
            content = await request.body()
            if len(content) > LARGEST:
                return JSONResponse({"error": "the body is too large"}, 413)
            try:
                body = msgspec.json.decode(content, type=shape)
            except msgspec.MsgspecError as error:
                return JSONResponse({"error": str(error)}, 400)
            self.taken[name].append(msgspec.to_builtins(body))
            return answered(fault) if fault else JSONResponse({}, status)

        return post

    def _is_throttled(self) -> bool:
        second, count = self._second
        now = int(time.monotonic())
        self._second = (now, count + 1 if second == now else 1)
        return bool(self.per_s) and self._second[1] > self.per_s

    async def limit(self, request: Request) -> Response:
        """From now on so many requests a second; 0 for any number."""
        self.per_s = (await request.json())["per_s"]
        return JSONResponse({})

    async def seen(self, request: Request) -> Response:  # noqa: ARG002
        """What was taken; a webhook without its secret."""
        webhooks = [{name: value for name, value in one.items() if name != "secret"} for one in self.taken["webhooks"]]
        shown = {**self.taken, "webhooks": webhooks, "requests": self.requests, "connections": len(self.connections)}
        return JSONResponse(shown)

    async def alert(self, request: Request) -> Response:
        """Make or change an alert, and post it to whoever wants that."""
        body = await request.json()
        retries = body.pop("retries", RETRIES)
        now = now_ms()
        known = self.alerts.get(str(body.get("id")), {"status": "firing", "timestamp": now})
        alert = {**known, "updated_at": max(now, known.get("updated_at", 0) + 1), **body}
        alert.setdefault("id", f"alert-{len(self.alerts) + 1}")
        self.alerts[alert["id"]] = alert
        event = {"firing": "alert.fired"}.get(alert["status"], f"alert.{alert['status']}")
        if known.get("severity", alert["severity"]) != alert["severity"]:
            event = "alert.severity_changed"
        wanting = [hook for hook in self.taken["webhooks"] if event in hook["events"]]
        sent = {"event_type": event, "timestamp": alert["updated_at"], "data": alert}
        delivered = await asyncio.gather(*(self._deliver(hook, json.dumps(sent).encode(), retries) for hook in wanting))
        return JSONResponse({"id": alert["id"], "delivered": delivered})

    async def _deliver(self, hook: dict[str, Any], content: bytes, retries: int) -> int:
        """The last status, 0 if there was no answer."""
        status = 0
        async with httpx2.AsyncClient(timeout=10) as client:
            for attempt in range(retries + 1):
                stamp = str(int(time.time()))
                signed = hmac.new(hook["secret"].encode(), stamp.encode() + b"." + content, hashlib.sha256).hexdigest()
                headers = {
                    **hook["headers"],
                    "Content-Type": "application/json",
                    "X-Airis-Signature": f"t={stamp},v1={signed}",
                }
                try:
                    status = (await client.post(hook["url"], content=content, headers=headers)).status_code
                except httpx2.RequestError:
                    status = 0
                if 200 <= status < 300 or 400 <= status < 500:
                    break
                if attempt < retries:
                    await asyncio.sleep(0.1 * 2**attempt)
        return status


def make(token_file: str) -> Starlette:
    """A hub that has taken nothing."""
    hub = Hub(Path(token_file).read_text().strip())
    api = "/api/v1"
    return application(
        [
            Route(f"{api}/metrics/ingest", hub.call("metrics", Metrics), methods=["POST"]),
            Route(f"{api}/events/ingest", hub.call("events", Event), methods=["POST"]),
            Route(f"{api}/integrations/webhooks", hub.call("webhooks", Webhook, 201), methods=["POST"]),
            Route(f"{api}/integrations/user-sync", hub.call("users", UserSync), methods=["POST"]),
            Route("/_sandbox/taken", hub.seen),
            Route("/_sandbox/alerts", hub.alert, methods=["POST"]),
            Route("/_sandbox/limit", hub.limit, methods=["POST"]),
        ],
        hub.faults,
    )


if __name__ == "__main__":
    serve(__doc__ or "", make)
