"""A receiver of signed webhooks, as an own service would be: checks what it should check, shows the alerts at ``/``.

``--secret-file`` names the file with the secret. A request must be JSON of at most 1 MiB, signed within the last five
minutes; one whose ``Idempotency-Key`` was there before is taken and not counted. ``GET /_sandbox/requests`` lists what
was taken, ``repeated`` or not, with the time in Unix ms; ``POST /_sandbox/faults`` scripts failures of ``post``.
"""

from __future__ import annotations

import hashlib
import hmac
import html
import json
import re
import time
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.fake import FakeServer, Inbox, token
from sandbox.web import Faults, answered, application, now_ms, page, serve

LARGEST = 1024 * 1024
WINDOW_S = 300
STATES = {"acknowledged": "acknowledged", "resolved": "resolved"}


class Receiver:
    """Keeps the alerts that it was told of."""

    def __init__(self, secret: str) -> None:
        self.secret = secret
        self.requests: list[dict[str, Any]] = []
        self.alerts: dict[str, dict[str, Any]] = {}
        self.faults = Faults()

    async def post(self, request: Request) -> Response:
        """Take a change."""
        fault = self.faults.next("post")
        if fault and not fault.applied:
            return answered(fault)
        body = await request.body()
        if len(body) > LARGEST:
            return JSONResponse({"error": "the body is too large"}, 413)
        if not self._signed(request.headers.get("x-airis-signature", ""), body):
            return JSONResponse({"error": "the signature is wrong or old"}, 401)
        key = request.headers.get("idempotency-key", "")
        try:
            told = json.loads(body)
            told["change"], told["alert"]["id"]
        except (KeyError, TypeError, ValueError):
            return JSONResponse({"error": "that is no change of an alert"}, 422)
        repeated = any(taken["key"] == key for taken in self.requests)
        headers = {name: value for name, value in request.headers.items() if name.startswith("x-")}
        self.requests.append(
            {"at": now_ms(), "kind": told["change"], "key": key, "repeated": repeated, "headers": headers, **told}
        )
        self.alerts[told["alert"]["id"]] = told
        return answered(fault) if fault else JSONResponse({"ok": True})

    def _signed(self, header: str, body: bytes) -> bool:
        match = re.fullmatch(r"t=(\d+),v1=([0-9a-f]{64})", header)
        if match is None or abs(time.time() - int(match[1])) > WINDOW_S:
            return False
        wanted = hmac.new(self.secret.encode(), match[1].encode() + b"." + body, hashlib.sha256).hexdigest()
        return hmac.compare_digest(wanted, match[2])

    async def seen(self, request: Request) -> Response:  # noqa: ARG002
        """Every request that was taken."""
        return JSONResponse(self.requests)

    async def show(self, request: Request) -> Response:  # noqa: ARG002
        """The alerts."""
        shown = "".join(_html(told) for told in reversed(self.alerts.values()))
        note = "A receiver of webhooks: the alerts that it was told of."
        return page("Webhook", note, shown or '<p class="dim">It was told of none yet.</p>')


def _html(told: dict[str, Any]) -> str:
    alert, state = told["alert"], STATES.get(told["change"], "triggered")
    link = f'<a class="button" href="{html.escape(told["url"])}">View Dashboard</a>'
    return f'<article><p class="state {state}">{state}</p><h2>{html.escape(alert["name"])}</h2><p>{link}</p></article>'


def make(secret_file: str) -> Starlette:
    """A receiver that was told of nothing."""
    receiver = Receiver(Path(secret_file).read_text().strip())
    return application(
        [
            Route("/", receiver.show),
            Route("/alerts", receiver.post, methods=["POST"]),
            Route("/_sandbox/requests", receiver.seen),
        ],
        receiver.faults,
    )


PEER = FakeServer(
    "webhook",
    8796,
    lambda url, made: {
        "webhook_default": {"conn_type": "webhook", "host": f"{url}/alerts", "password": made["webhook_secret"]}
    },
    arguments=("--secret-file", "{secrets}/webhook_secret"),
    secrets={"webhook_secret": token},
    published=True,
    shares=True,
    inbox=Inbox(
        dict.fromkeys(("fired", "acknowledged", "resolved"), "requests"),
        lambda request: "" if request["repeated"] else str(request["kind"]),
    ),
)

if __name__ == "__main__":
    serve(__doc__ or "", make)
