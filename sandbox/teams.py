"""Stand-in of a Teams workflow that posts what it is sent: checks what workflow and card demand; cards at ``/``.

The workflow is ``/workflows/sandbox/triggers/manual/paths/invoke``; any ``sig`` of 32 characters and more is good.
``GET /_sandbox/requests`` lists the cards that were taken, with the time in Unix ms; ``POST /_sandbox/faults`` scripts
failures of ``post``. Over four requests a second are answered 429 if ``POST /_sandbox/limit`` ``{"on": true}`` says so.

See https://learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors/how-to/add-incoming-webhook and
https://adaptivecards.io/explorer/
"""

from __future__ import annotations

import html
import json
import time
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.fake import FakeServer, Inbox, state_of, token
from sandbox.web import Faults, answered, application, now_ms, page, serve

LARGEST = 28 * 1024
A_SECOND = 4
CARD = "application/vnd.microsoft.card.adaptive"
STYLES = {"default", "emphasis", "good", "attention", "warning", "accent"}
SIZES = {"default", "small", "medium", "large", "extraLarge"}
WEIGHTS = {"default", "lighter", "bolder"}


class Teams:
    """One channel."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.faults = Faults()
        self.limited = False
        self.recent: list[float] = []

    async def post(self, request: Request) -> Response:
        """Take a message."""
        fault = self.faults.next("post")
        if fault and not fault.applied:
            return answered(fault)
        if "api-version" not in request.query_params:
            return _error(400, "MissingApiVersionParameter", "The api-version query parameter is required.")
        if len(request.query_params.get("sig", "")) < 32:
            return _error(401, "DirectApiInvalidAuthorizationScheme", "The request has no valid signature.")
        if request.path_params["workflow"] != "sandbox":
            return _error(404, "WorkflowNotFound", "The workflow could not be found.")
        if self._too_many():
            return JSONResponse(
                {"error": {"code": "429", "message": "Rate limit is exceeded."}}, 429, {"Retry-After": "1"}
            )
        body = await request.body()
        if len(body) > LARGEST:
            return _error(413, "RequestEntityTooLarge", "The message is over 28 KB.")
        try:
            card = _card(json.loads(body))
        except (ValueError, KeyError, TypeError) as error:
            return _error(400, "TriggerInputSchemaMismatch", f"The input body does not match its schema: {error}")
        self.requests.append({"at": now_ms(), "kind": "card", "card": card, "bytes": len(body)})
        return answered(fault) if fault else Response(status_code=202)

    def _too_many(self) -> bool:
        now = time.monotonic()
        self.recent = [*(at for at in self.recent if now - at < 1), now]
        return self.limited and len(self.recent) > A_SECOND

    async def limit(self, request: Request) -> Response:
        """Limit the rate, or not."""
        self.limited = (await request.json())["on"]
        return JSONResponse({})

    async def seen(self, request: Request) -> Response:  # noqa: ARG002
        """Every card that was taken."""
        return JSONResponse(self.requests)

    async def show(self, request: Request) -> Response:  # noqa: ARG002
        """The cards, roughly as Teams shows them."""
        shown = "".join(_html(taken["card"]) for taken in reversed(self.requests))
        note = "A stand-in of Microsoft Teams: the cards that a workflow has posted."
        return page("Alerts", note, shown or '<p class="dim">Nothing has been posted yet.</p>')


def _error(status: int, code: str, message: str) -> Response:
    return JSONResponse({"error": {"code": code, "message": message}}, status)


def _card(message: Any) -> dict[str, Any]:
    """The message's card.

    :raises ValueError: it is none of Adaptive Cards 1.4 that Teams renders.
    """
    if message["type"] != "message" or len(message["attachments"]) != 1:
        raise ValueError("a message with one attachment is wanted")
    attachment = message["attachments"][0]
    if attachment["contentType"] != CARD:
        raise ValueError(f"contentType must be {CARD}")
    card: dict[str, Any] = attachment["content"]
    if card["type"] != "AdaptiveCard" or card["version"] != "1.4":
        raise ValueError("an AdaptiveCard of version 1.4 is wanted")
    for element in card["body"]:
        _check(element)
    for action in card["actions"]:
        if action["type"] != "Action.OpenUrl" or not action["title"] or "://" not in action["url"]:
            raise ValueError("an Action.OpenUrl with title and url is wanted")
    return card


def _check(element: dict[str, Any]) -> None:
    if element["type"] == "Container":
        if element.get("style", "default") not in STYLES or not element["items"]:
            raise ValueError("a Container of a known style with items is wanted")
        for item in element["items"]:
            _check(item)
    elif element["type"] == "RichTextBlock":
        for run in element["inlines"]:
            size, weight = run.get("size", "default"), run.get("weight", "default")
            known = size[:1].lower() + size[1:] in SIZES and weight.lower() in WEIGHTS
            if run["type"] != "TextRun" or not isinstance(run["text"], str) or not run["text"] or not known:
                raise ValueError("TextRuns with text are wanted")
    else:
        raise ValueError(f"{element['type']} is no element that is expected here")


def _html(card: dict[str, Any]) -> str:
    heading, facts, *description = card["body"]
    (title,) = heading["items"]
    shown = [f"<h2>{html.escape(title['inlines'][0]['text'])}</h2>"]
    for fact in facts["items"]:
        label, value = (html.escape(run["text"]) for run in fact["inlines"])
        shown.append(f"<div><b>{label}</b>{value}</div>")
    lines = "<br>".join(html.escape(line["inlines"][0]["text"]) for line in description)
    shown.append(f"<p>{lines}</p>")
    shown += [
        f'<a class="button" href="{html.escape(action["url"])}">{html.escape(action["title"])}</a>'
        for action in card["actions"]
    ]
    return f"<article>{''.join(shown)}</article>"


def make() -> Starlette:
    """A channel without cards."""
    teams = Teams()
    return application(
        [
            Route("/", teams.show),
            Route("/workflows/{workflow}/triggers/manual/paths/invoke", teams.post, methods=["POST"]),
            Route("/_sandbox/requests", teams.seen),
            Route("/_sandbox/limit", teams.limit, methods=["POST"]),
        ],
        teams.faults,
    )


PEER = FakeServer(
    "teams",
    8797,
    lambda url, made: {
        "teams_default": {
            "conn_type": "teams",
            "host": url,
            "password": "/workflows/sandbox/triggers/manual/paths/invoke?api-version=1&sig=" + made["teams_signature"],
        }
    },
    secrets={"teams_signature": token},
    published=True,
    shares=True,
    inbox=Inbox(
        dict.fromkeys(("fired", "acknowledged", "resolved"), "cards"),
        lambda request: state_of(request["card"]["fallbackText"]),
    ),
)

if __name__ == "__main__":
    serve(__doc__ or "", make)
