"""Stand-in of a ServiceNow instance: the Table API of incidents, with what it checks; shows the incidents at ``/``.

``--password-file`` names the file with the password of every user, which is an access token too. As the instance, it
cuts what is too long, ignores fields it does not know, also in queries, and has two data policies: a resolved incident
needs ``close_code`` and ``close_notes``, and a closed one cannot be changed. ``GET /_sandbox/requests`` lists inserts
and updates with the time in Unix ms; ``POST /_sandbox/faults`` scripts failures of ``read``, ``insert``, ``update``.

See https://www.servicenow.com/docs/csh?topicname=c_TableAPI.html
"""

from __future__ import annotations

import base64
import hmac
import html
import time
import uuid
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.fake import FakeServer, Inbox, token
from sandbox.web import Faults, answered, application, now_ms, page, serve

# Fields of an incident, and how long they may be.
FIELDS = {
    "sys_id": 32,
    "number": 40,
    "state": 40,
    "short_description": 160,
    "description": 4000,
    "impact": 40,
    "urgency": 40,
    "category": 40,
    "assignment_group": 32,
    "caller_id": 32,
    "correlation_id": 100,
    "correlation_display": 100,
    "close_code": 40,
    "close_notes": 4000,
    "work_notes": 4000,
    "resolved_at": 40,
    "sys_updated_on": 40,
}
STATES = {"1": "triggered", "2": "acknowledged", "3": "acknowledged", "6": "resolved", "7": "resolved", "8": "resolved"}
POLICY = "Data Policy Exception: The following fields are mandatory"
CLOSE_CODES = ("Solution provided", "Workaround provided", "Duplicate", "User error", "Resolved by caller")


class ServiceNow:
    """One instance."""

    def __init__(self, password: str) -> None:
        self.password = password
        self.incidents: dict[str, dict[str, str]] = {}
        self.notes: dict[str, list[str]] = {}
        self.requests: list[dict[str, Any]] = []
        self.faults = Faults()

    async def table(self, request: Request) -> Response:
        """Answer a call of the Table API."""
        call = {"GET": "read", "POST": "insert", "PATCH": "update", "PUT": "update"}.get(request.method, "delete")
        fault = self.faults.next(call)
        if fault and not fault.applied:
            return answered(fault)
        if not self._known(request.headers.get("authorization", "")):
            return _error(401, "User is not authenticated", "Required to provide Auth information")
        sys_id = request.path_params.get("sys_id")
        if sys_id is not None and sys_id not in self.incidents:
            return _error(404, "No Record found", "Record doesn't exist or ACL restricts the record retrieval")
        answer = self._read(request, sys_id) if call == "read" else await self._write(request, call, sys_id)
        return answered(fault) if fault else answer

    def _known(self, header: str) -> bool:
        scheme, _, given = header.partition(" ")
        if scheme == "Basic":
            given = base64.b64decode(given).decode().partition(":")[2]
        return scheme in ("Basic", "Bearer") and hmac.compare_digest(given.encode(), self.password.encode())

    def _read(self, request: Request, sys_id: str | None) -> Response:
        if sys_id is not None:
            return JSONResponse({"result": _shown(self.incidents[sys_id], request)})
        found = (
            list(reversed(self.incidents.values())) if "ORDERBYDESC" in str(request.url) else [*self.incidents.values()]
        )
        for condition in request.query_params.get("sysparm_query", "").split("^"):
            name, equal, value = condition.partition("=")
            if equal and name in FIELDS:
                found = [incident for incident in found if incident.get(name, "") == value]
        limit = int(request.query_params.get("sysparm_limit", 10_000))
        return JSONResponse({"result": [_shown(incident, request) for incident in found[:limit]]})

    async def _write(self, request: Request, call: str, sys_id: str | None) -> Response:
        try:
            body = await request.json()
        except ValueError:
            return _error(400, "Exception while reading request", "The payload is not valid JSON")
        given = {name: str(value)[: FIELDS[name]] for name, value in body.items() if name in FIELDS}
        old = self.incidents.get(sys_id or "", {})
        new = {**old, **given}
        if old.get("state") in ("7", "8"):
            return _error(403, "Operation Failed", "ACL Exception Update Failed due to security constraints")
        if not new.get("short_description"):
            return _error(403, "Operation Failed", f"{POLICY}: Short description")
        needed = {"close_code": "Resolution code", "close_notes": "Resolution notes"}
        lacking = [label for name, label in needed.items() if not new.get(name)]
        if new.get("state") == "6" and (lacking or new["close_code"] not in CLOSE_CODES):
            fields = ", ".join(lacking or ["Resolution code"])
            return _error(403, "Operation Failed", f"{POLICY}: {fields}")
        if call == "insert":
            number = f"INC{10_001 + len(self.incidents):07}"
            new = {"state": "1", "impact": "3", "urgency": "3", **new, "sys_id": uuid.uuid4().hex, "number": number}
        note = new.pop("work_notes", "")
        _stamp(new, old)
        self.incidents[new["sys_id"]] = new
        self.notes.setdefault(new["sys_id"], []).extend([note] if note else [])
        noted = {"at": now_ms(), "kind": call, "number": new["number"], "correlation_id": new.get("correlation_id", "")}
        self.requests.append({**noted, "fields": given})
        return JSONResponse({"result": _shown(new, request)}, 201 if call == "insert" else 200)

    async def seen(self, request: Request) -> Response:  # noqa: ARG002
        """Every insert and update."""
        return JSONResponse(self.requests)

    async def listed(self, request: Request) -> Response:  # noqa: ARG002
        """Every incident, with its work notes."""
        return JSONResponse([{**incident, "notes": self.notes[key]} for key, incident in self.incidents.items()])

    async def act(self, request: Request) -> Response:
        """What somebody does in ServiceNow: set fields of an incident, or delete it."""
        body = await request.json()
        if body.pop("delete", False):
            del self.incidents[body["sys_id"]]
        else:
            old = self.incidents[body["sys_id"]]
            self.incidents[body["sys_id"]] = new = {**old, **body}
            _stamp(new, old, resolved_at=body.get("resolved_at"))
        return JSONResponse({})

    async def show(self, request: Request) -> Response:  # noqa: ARG002
        """The incidents."""
        shown = "".join(_html(incident, self.notes[key]) for key, incident in reversed(self.incidents.items()))
        return page("Incidents", "A stand-in of ServiceNow.", shown or '<p class="dim">No incident yet.</p>')


def _stamp(new: dict[str, str], old: dict[str, str], *, resolved_at: str | None = None) -> None:
    """The times that the instance itself keeps, UTC."""
    new["sys_updated_on"] = resolved_at or time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
    if new.get("state") == "6" != old.get("state"):
        new["resolved_at"] = new["sys_updated_on"]


def _shown(incident: dict[str, str], request: Request) -> dict[str, str]:
    wanted = request.query_params.get("sysparm_fields")
    return {name: incident.get(name, "") for name in (wanted.split(",") if wanted else FIELDS) if name in FIELDS}


def _error(status: int, message: str, detail: str) -> Response:
    return JSONResponse({"error": {"message": message, "detail": detail}, "status": "failure"}, status)


def _html(incident: dict[str, str], notes: list[str]) -> str:
    state = STATES.get(incident["state"], "triggered")
    title = f"{incident['number']} {incident['short_description']}"
    said = "".join(f"<pre>{html.escape(text)}</pre>" for text in [incident.get("description", ""), *notes])
    return f'<article><p class="state {state}">{state}</p><h2>{html.escape(title)}</h2>{said}</article>'


def make(password_file: str) -> Starlette:
    """An instance without incidents."""
    servicenow = ServiceNow(Path(password_file).read_text().strip())
    table = "/api/now/table/incident"
    return application(
        [
            Route("/", servicenow.show),
            Route(table, servicenow.table, methods=["GET", "POST"]),
            Route(f"{table}/{{sys_id}}", servicenow.table, methods=["GET", "PATCH", "PUT", "DELETE"]),
            Route("/_sandbox/requests", servicenow.seen),
            Route("/_sandbox/incidents", servicenow.listed),
            Route("/_sandbox/incidents", servicenow.act, methods=["POST"]),
        ],
        servicenow.faults,
    )


def _change(request: dict[str, Any]) -> str:
    if request["kind"] == "insert":
        return "fired"
    return "resolved" if str(request["fields"].get("state")) == "6" else "acknowledged"


PEER = FakeServer(
    "servicenow",
    8800,
    lambda url, made: {
        "servicenow_default": {
            "conn_type": "servicenow",
            "host": url,
            "login": "airis",
            "password": made["servicenow_password"],
        }
    },
    arguments=("--password-file", "{secrets}/servicenow_password"),
    secrets={"servicenow_password": token},
    published=True,
    shares=True,
    inbox=Inbox({"fired": "inserts", "acknowledged": "updates", "resolved": "updates"}, _change),
)

if __name__ == "__main__":
    serve(__doc__ or "", make)
