"""Stand-in of PagerDuty's Events API v2: checks what PagerDuty checks, and shows incidents and changes at ``/``.

Any routing key of 32 letters and digits is good. ``GET /_sandbox/requests`` lists the events that were taken, with the
time in Unix ms, ``GET /_sandbox/incidents`` what became of them, ``GET /_sandbox/changes`` the change events;
``POST /_sandbox/faults`` scripts failures, ``POST /_sandbox/reset`` forgets everything.

``POST /_sandbox/webhook`` ``{url, secret, keys?}`` subscribes to webhooks of version 3, signed as PagerDuty signs, with
the incident's key in it unless ``keys`` is false. They tell what the Events API did, and what a person did, on the page
or by ``POST /_sandbox/act`` ``{incident, action, assignee?}``, which answers the status that came back.
``GET /incidents/{id}/alerts`` is the REST API's, for the token ``TOKEN``.

See https://developer.pagerduty.com/docs/send-alert-event and https://developer.pagerduty.com/docs/webhooks-overview
"""

from __future__ import annotations

import hashlib
import hmac
import html
import json
import re
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from sandbox.fake import FakeServer, Inbox, token
from sandbox.web import Faults, answered, application, now_ms, page, serve

ACTIONS = ("trigger", "acknowledge", "resolve")
SEVERITIES = ("info", "warning", "error", "critical")
STATES = {"trigger": "triggered", "acknowledge": "acknowledged", "resolve": "resolved"}
LARGEST = 512 * 1024
TOKEN = "sandbox-rest-token"
PERSON = {"id": "PJANE01", "type": "user_reference", "summary": "Jane Doe"}
INTEGRATION = {"id": "PAIRIS1", "type": "events_api_v2_inbound_integration_reference", "summary": "AIRIS-MON"}


class PagerDuty:
    """One account."""

    def __init__(self) -> None:
        self.incidents: list[dict[str, Any]] = []
        self.requests: list[dict[str, Any]] = []
        self.changes: list[dict[str, Any]] = []
        self.faults = Faults()
        self.webhook: dict[str, Any] = {}

    async def enqueue(self, request: Request) -> Response:
        """Take an event."""
        fault = self.faults.next("enqueue")
        if fault and not fault.applied:
            return answered(fault)
        body = await request.body()
        if len(body) > LARGEST:
            return JSONResponse({"status": "invalid event", "message": "Event is too large", "errors": []}, 413)
        try:
            event = await request.json()
        except ValueError:
            event = None
        errors = _errors(event)
        if errors:
            answer = {"status": "invalid event", "message": "Event object is invalid", "errors": errors}
            return JSONResponse(answer, 400)
        found = self._apply(event)
        tell = BackgroundTask(self._tell, found, event["event_action"], INTEGRATION) if found else None
        answer = {"status": "success", "message": "Event processed", "dedup_key": event["dedup_key"]}
        return answered(fault) if fault else JSONResponse(answer, 202, background=tell)

    async def change(self, request: Request) -> Response:
        """Take a change event."""
        fault = self.faults.next("change")
        if fault and not fault.applied:
            return answered(fault)
        body = await request.body()
        if len(body) > LARGEST:
            return JSONResponse({"status": "invalid event", "message": "Event is too large", "errors": []}, 413)
        try:
            event = await request.json()
        except ValueError:
            event = None
        if errors := _change_errors(event):
            answer = {"status": "invalid event", "message": "Event object is invalid", "errors": errors}
            return JSONResponse(answer, 400)
        self.changes.append({"at": now_ms(), **{key: value for key, value in event.items() if key != "routing_key"}})
        answer = {"status": "success", "message": "Change event processed"}
        return answered(fault) if fault else JSONResponse(answer, 202)

    def _apply(self, event: dict[str, Any]) -> dict[str, Any] | None:
        action = event["event_action"]
        event.setdefault("dedup_key", f"generated-{len(self.requests)}")
        noted = {key: value for key, value in event.items() if key != "routing_key"}
        self.requests.append({"at": now_ms(), "kind": action, **noted})
        found = next((i for i in self.incidents if _open(i) and i["dedup_key"] == event["dedup_key"]), None)
        if found is None:
            # An acknowledge or resolve of what is not open is taken and dropped.
            if action == "trigger":
                found = {"dedup_key": event["dedup_key"], "status": "triggered", "payload": event["payload"]}
                found |= {"id": f"Q{len(self.incidents):05d}", "links": event.get("links", [])}
                self.incidents.append(found | {"log": [(action, now_ms())]})
                return self.incidents[-1]
            return None
        found["log"].append((action, now_ms()))
        if action == "trigger":
            return None
        found["status"] = STATES[action]
        return found

    async def subscribe(self, request: Request) -> Response:
        """Say where webhooks go."""
        self.webhook = await request.json()
        return JSONResponse({})

    async def act(self, request: Request) -> Response:
        """Do what a person does with an incident."""
        form = "json" not in request.headers.get("content-type", "")
        asked: dict[str, Any] = dict(await request.form()) if form else await request.json()
        incident = next(i for i in self.incidents if i["id"] == asked["incident"])
        if asked["action"] == "reassign":
            incident["assignee"] = asked.get("assignee", "John Roe")
        else:
            incident["status"] = STATES[asked["action"]]
        incident["log"].append((f"{asked['action']} by {PERSON['summary']}", now_ms()))
        status = await self._tell(incident, asked["action"], PERSON)
        return RedirectResponse("/", 303) if form else JSONResponse({"status": status})

    async def _tell(self, incident: dict[str, Any], action: str, agent: dict[str, str]) -> int:
        """Send a webhook; PagerDuty would send one again that was answered with 429 or 5xx."""
        if not self.webhook:
            return 0
        past = {"trigger": "triggered", "acknowledge": "acknowledged", "resolve": "resolved", "reassign": "reassigned"}
        assignee = {"id": "PJOHN01", "type": "user_reference", "summary": incident.get("assignee", "On call")}
        data = {"id": incident["id"], "type": "incident", "status": incident["status"], "assignees": [assignee]}
        data["incident_key"] = incident["dedup_key"] if self.webhook.get("keys", True) else None
        event = {
            "id": f"01{now_ms()}",
            "event_type": f"incident.{past[action]}",
            "resource_type": "incident",
            "occurred_at": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "agent": agent,
            "client": None,
            "data": data,
        }
        body = json.dumps({"event": event}).encode()
        signature = hmac.new(self.webhook["secret"].encode(), body, hashlib.sha256).hexdigest()
        headers = {"Content-Type": "application/json", "X-PagerDuty-Signature": f"v1={signature}"}
        try:
            async with httpx2.AsyncClient(timeout=5) as client:
                return (await client.post(self.webhook["url"], content=body, headers=headers)).status_code
        except httpx2.TransportError:
            return 0

    async def alerts(self, request: Request) -> Response:
        """The alerts of an incident, a page of them: with ``together`` in the subscription, those of every incident."""
        if request.headers.get("authorization") != f"Token token={TOKEN}":
            return JSONResponse({"error": {"message": "Unauthorized", "code": 2006}}, 401)
        together = self.webhook.get("together", False)
        found = [i for i in self.incidents if together or i["id"] == request.path_params["id"]]
        limit = min(100, int(request.query_params.get("limit", 25)))
        offset = int(request.query_params.get("offset", 0))
        listed = found[offset : offset + limit]
        alerts = [{"id": f"A{i['id']}", "type": "alert", "alert_key": i["dedup_key"]} for i in listed]
        document = {"alerts": alerts, "limit": limit, "offset": offset, "more": len(found) > offset + limit}
        return JSONResponse(document, 200 if found else 404)

    async def seen(self, request: Request) -> Response:  # noqa: ARG002
        """Every event that was taken."""
        return JSONResponse(self.requests)

    async def reset(self, request: Request) -> Response:  # noqa: ARG002
        """Forget everything."""
        for kept in (self.incidents, self.requests, self.changes, self.faults.scripted):
            kept.clear()
        return JSONResponse({})

    async def listed(self, request: Request) -> Response:  # noqa: ARG002
        """Every incident."""
        return JSONResponse(self.incidents)

    async def changed(self, request: Request) -> Response:  # noqa: ARG002
        """Every change event that was taken."""
        return JSONResponse(self.changes)

    async def show(self, request: Request) -> Response:  # noqa: ARG002
        """The incidents."""
        shown = "".join(_html(incident, may_act=bool(self.webhook)) for incident in reversed(self.incidents))
        shown += "".join(
            f'<article><p class="state">change</p><h2>{html.escape(change["payload"]["summary"])}</h2></article>'
            for change in reversed(self.changes)
        )
        note = "A stand-in of PagerDuty: the incidents that came of the events it was sent."
        return page("Incidents", note, shown or '<p class="dim">No incident yet.</p>')


def _open(incident: dict[str, Any]) -> bool:
    return bool(incident["status"] != "resolved")


def _errors(event: Any) -> list[str]:
    """What PagerDuty's validation says."""
    if not isinstance(event, dict):
        return ["JSON object expected"]
    action, key = event.get("event_action"), event.get("dedup_key")
    rules = {
        "'routing_key' is invalid": re.fullmatch(r"[0-9A-Za-z]{32}", str(event.get("routing_key", ""))),
        f"'event_action' must be one of {', '.join(ACTIONS)}": action in ACTIONS,
        "'dedup_key' must be a string of at most 255 characters": key is None
        or (isinstance(key, str) and len(key) < 256),
        "'dedup_key' is missing or blank": key or action == "trigger",
        "'payload' is missing or blank": isinstance(event.get("payload"), dict) or action != "trigger",
    }
    errors = [error for error, kept in rules.items() if not kept]
    return errors + (_payload_errors(event["payload"]) if action == "trigger" and not errors else [])


def _change_errors(event: Any) -> list[str]:
    if not isinstance(event, dict):
        return ["JSON object expected"]
    payload = event.get("payload")
    payload = payload if isinstance(payload, dict) else {}
    rules = {
        "'routing_key' is invalid": re.fullmatch(r"[0-9A-Za-z]{32}", str(event.get("routing_key", ""))),
        "'payload.summary' is missing or blank": payload.get("summary"),
        "'payload.summary' must be at most 1024 characters": len(str(payload.get("summary", ""))) <= 1024,
        "'payload.timestamp' must be ISO 8601 with a zone": _zoned(payload.get("timestamp", "2000-01-01T00:00:00Z")),
        "'links' must be objects with a href": all(
            isinstance(link, dict) and link.get("href") for link in event.get("links") or []
        ),
    }
    return [error for error, kept in rules.items() if not kept]


def _payload_errors(payload: dict[str, Any]) -> list[str]:
    rules = {
        f"'payload.{name}' is missing or blank": payload.get(name) for name in ("summary", "source", "severity")
    } | {
        "'payload.summary' must be at most 1024 characters": len(str(payload.get("summary", ""))) <= 1024,
        f"'payload.severity' must be one of {', '.join(SEVERITIES)}": payload.get("severity") in SEVERITIES,
        "'payload.timestamp' must be ISO 8601 with a zone": _zoned(payload.get("timestamp", "2000-01-01T00:00:00Z")),
    }
    return [error for error, kept in rules.items() if not kept]


def _zoned(value: Any) -> bool:
    try:
        return datetime.fromisoformat(str(value)).tzinfo is not None
    except ValueError:
        return False


def _html(incident: dict[str, Any], *, may_act: bool) -> str:
    payload, status = incident["payload"], incident["status"]
    rows = {name: payload.get(name) for name in ("severity", "source", "component", "group", "class")}
    pairs = "".join(f"<div><dt>{k}</dt><dd>{html.escape(str(v))}</dd></div>" for k, v in rows.items() if v)
    links = "".join(
        f'<a class="button" href="{html.escape(link["href"])}">{html.escape(link.get("text", "Link"))}</a>'
        for link in incident["links"]
    )
    actions = {"triggered": ("acknowledge", "resolve"), "acknowledged": ("resolve",)}.get(status, ())
    buttons = "".join(
        f'<button class="button" name="action" value="{action}">{action.title()}</button>'
        for action in actions
        if may_act
    )
    hidden = f'<input type="hidden" name="incident" value="{incident["id"]}">'
    log = " · ".join(action for action, _ in incident["log"])
    return (
        f'<article><p class="state {status}">{status}</p><h2>{html.escape(payload["summary"])}</h2><dl>{pairs}</dl>'
        f'<p class="dim">{html.escape(log)}</p>'
        f'<form method="post" action="/act">{hidden}{buttons}{links}</form></article>'
    )


def make(webhook_url: str | None = None, webhook_secret_file: str | None = None) -> Starlette:
    """An account without incidents."""
    pagerduty = PagerDuty()
    if webhook_url and webhook_secret_file:
        pagerduty.webhook = {"url": webhook_url, "secret": Path(webhook_secret_file).read_text().strip()}
    return application(
        [
            Route("/", pagerduty.show),
            Route("/v2/enqueue", pagerduty.enqueue, methods=["POST"]),
            Route("/v2/change/enqueue", pagerduty.change, methods=["POST"]),
            Route("/act", pagerduty.act, methods=["POST"]),
            Route("/incidents/{id}/alerts", pagerduty.alerts),
            Route("/_sandbox/act", pagerduty.act, methods=["POST"]),
            Route("/_sandbox/webhook", pagerduty.subscribe, methods=["POST"]),
            Route("/_sandbox/requests", pagerduty.seen),
            Route("/_sandbox/changes", pagerduty.changed),
            Route("/_sandbox/incidents", pagerduty.listed),
            Route("/_sandbox/reset", pagerduty.reset, methods=["POST"]),
        ],
        pagerduty.faults,
    )


def _acknowledge(client: httpx2.Client) -> str:
    incident = client.get("/_sandbox/incidents").raise_for_status().json()[0]
    act = {"incident": incident["id"], "action": "acknowledge"}
    answer = client.post("/_sandbox/act", json=act).raise_for_status().json()
    return f"PagerDuty: Jane Doe acknowledges; Airflow answers {answer['status']}"


_CHANGES = {"trigger": "fired", "acknowledge": "acknowledged", "resolve": "resolved"}

PEER = FakeServer(
    "pagerduty",
    8793,
    lambda url, made: {
        "pagerduty_events_default": {
            "conn_type": "pagerduty_events",
            "host": url,
            "password": made["pagerduty_key"],
            "extra": json.dumps({"webhook_secret": made["pagerduty_webhook_secret"]}),
        }
    },
    arguments=(
        *("--webhook-url", "{api}/airis/receive/pagerduty"),
        *("--webhook-secret-file", "{secrets}/pagerduty_webhook_secret"),
    ),
    secrets={"pagerduty_key": lambda: secrets.token_hex(16), "pagerduty_webhook_secret": token},
    published=True,
    shares=True,
    inbox=Inbox({"fired": "events", "resolved": "events"}, lambda request: _CHANGES[request["kind"]], _acknowledge),
)

if __name__ == "__main__":
    serve(__doc__ or "", make)
