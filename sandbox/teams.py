"""Stand-in of a Teams workflow that posts what it is sent: checks what workflow and card demand; cards at ``/``.

The workflow is ``/workflows/sandbox/triggers/manual/paths/invoke``; any ``sig`` of 32 characters and more is good.
``POST /_sandbox/faults`` scripts failures of ``post``.

See https://learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors/how-to/add-incoming-webhook and
https://adaptivecards.io/explorer/
"""

from __future__ import annotations

import html
from typing import Annotated, Any, Literal

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.fake import FakeServer, Inbox, state_of, token
from sandbox.web import Receiver, answered, page, serve

LARGEST = 28 * 1024
Text = Annotated[str, msgspec.Meta(min_length=1)]


class _Run(msgspec.Struct, tag_field="type", tag="TextRun"):
    """What of Adaptive Cards 1.4 is expected here, element by element."""

    text: Text
    size: Literal["Default", "Small", "Medium", "Large", "ExtraLarge"] = "Default"
    weight: Literal["Default", "Lighter", "Bolder"] = "Default"


class _Line(msgspec.Struct, tag_field="type", tag="RichTextBlock"):
    inlines: list[_Run]


class _Container(msgspec.Struct, tag_field="type", tag="Container"):
    items: Annotated[list[_Line], msgspec.Meta(min_length=1)]
    style: Literal["default", "emphasis", "good", "attention", "warning", "accent"] = "default"


class _Button(msgspec.Struct, tag_field="type", tag="Action.OpenUrl"):
    title: Text
    url: Annotated[str, msgspec.Meta(pattern="://")]


class _Card(msgspec.Struct, tag_field="type", tag="AdaptiveCard"):
    version: Literal["1.4"]
    body: list[_Container | _Line]
    actions: list[_Button]


class _Attachment(msgspec.Struct, rename="camel"):
    content_type: Literal["application/vnd.microsoft.card.adaptive"]
    content: _Card


class _Message(msgspec.Struct, tag_field="type", tag="message"):
    attachments: Annotated[list[_Attachment], msgspec.Meta(min_length=1, max_length=1)]


class Teams(Receiver):
    """One channel."""

    async def post(self, request: Request) -> Response:
        """Take a message."""
        fault, body = self.faults.next("post"), await request.body()
        if fault and not fault.applied:
            return answered(fault)
        if "api-version" not in request.query_params:
            return _error(400, "MissingApiVersionParameter", "The api-version query parameter is required.")
        if len(request.query_params.get("sig", "")) < 32:
            return _error(401, "DirectApiInvalidAuthorizationScheme", "The request has no valid signature.")
        if request.path_params["workflow"] != "sandbox":
            return _error(404, "WorkflowNotFound", "The workflow could not be found.")
        if self.too_many():
            return _error(429, "429", "Rate limit is exceeded.", {"Retry-After": "1"})
        if len(body) > LARGEST:
            return _error(413, "RequestEntityTooLarge", "The message is over 28 KB.")
        try:
            msgspec.json.decode(body, type=_Message)
        except msgspec.MsgspecError as error:
            return _error(400, "TriggerInputSchemaMismatch", f"The input body does not match its schema: {error}")
        self.note("card", card=msgspec.json.decode(body)["attachments"][0]["content"], bytes=len(body))
        return answered(fault) if fault else Response(status_code=202)

    async def show(self, request: Request) -> Response:  # noqa: ARG002
        """The cards, roughly as Teams shows them."""
        shown = "".join(_html(msgspec.convert(taken["card"], _Card)) for taken in reversed(self.requests))
        note = "A stand-in of Microsoft Teams: the cards that a workflow has posted."
        return page("Alerts", note, shown or '<p class="dim">Nothing has been posted yet.</p>')


def _error(status: int, code: str, message: str, headers: dict[str, Any] | None = None) -> Response:
    return JSONResponse({"error": {"code": code, "message": message}}, status, headers)


def _html(card: _Card) -> str:
    lines = [line for part in card.body for line in (part.items if isinstance(part, _Container) else [part])]
    title, *others = ("".join(html.escape(run.text) for run in line.inlines) for line in lines)
    buttons = (f'<a class="button" href="{html.escape(one.url)}">{html.escape(one.title)}</a>' for one in card.actions)
    return f"<article><h2>{title}</h2><p>{'<br>'.join(others)}</p>{''.join(buttons)}</article>"


def make() -> Starlette:
    """A channel without cards."""
    teams = Teams()
    workflow = "/workflows/{workflow}/triggers/manual/paths/invoke"
    return teams.application(Route("/", teams.show), Route(workflow, teams.post, methods=["POST"]))


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
