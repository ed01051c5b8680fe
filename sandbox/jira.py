"""Stand-in of Jira: the calls of its REST API that issues need, with what it checks; shows the issues at ``/``.

``--token-file`` names the file with the token: with any e-mail it is Jira Cloud's API token, as a bearer token Data
Center's personal access token, and the answers are those of Cloud or Data Center. There is one project, ``OPS``, with
the types Task and Incident; issues go from *To Do* by *Start* to *In Progress*, by *Won't do* and *Done* to the end.
``GET /_sandbox/requests`` lists what was created, commented and transitioned, with the time in Unix ms;
``POST /_sandbox/faults`` scripts failures of ``read``, ``create``, ``comment``, ``transition``.

See https://developer.atlassian.com/cloud/jira/platform/rest/v2/intro/
"""

from __future__ import annotations

import base64
import hmac
import html
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.fake import FakeServer, Inbox, token
from sandbox.web import Faults, answered, application, now_ms, page, serve

TYPES = ("Task", "Incident")
STATUSES = {"To Do": "new", "In Progress": "indeterminate", "Done": "done", "Won't do": "done"}
# From a status, the transitions by id: their names, and where they lead.
WORKFLOW = {
    "To Do": {"11": ("Start", "In Progress"), "21": ("Won't do", "Won't do"), "31": ("Done", "Done")},
    "In Progress": {"21": ("Won't do", "Won't do"), "31": ("Done", "Done")},
    "Done": {"41": ("Reopen", "To Do")},
    "Won't do": {},
}
FIELDS = {"project", "issuetype", "summary", "description", "labels", "priority"}
STATES = {"To Do": "triggered", "In Progress": "acknowledged", "Done": "resolved", "Won't do": "resolved"}


class JiraError(Exception):
    """A refusal."""

    def __init__(self, status: int, *messages: str, **fields: str) -> None:
        super().__init__(status)
        self.answer = JSONResponse({"errorMessages": list(messages), "errors": fields}, status)


class Jira:
    """One site."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.issues: dict[str, dict[str, Any]] = {}
        self.requests: list[dict[str, Any]] = []
        self.faults = Faults()

    async def api(self, request: Request) -> Response:
        """Answer a call."""
        path = request.path_params["path"]
        calls = {"issue": "create", "comment": "comment", "transitions": "transition", "issueLink": "link"}
        call = calls[path.split("/")[-1]] if request.method == "POST" else "read"
        fault = self.faults.next(call)
        if fault and not fault.applied:
            return answered(fault)
        try:
            cloud = self._is_cloud(request.headers.get("authorization", ""))
            if call == "read":
                answer = self._read(path, request, cloud)
            else:
                answer = self._write(call, path, await request.json())
        except JiraError as error:
            return error.answer
        return answered(fault) if fault else answer

    def _is_cloud(self, header: str) -> bool:
        scheme, _, given = header.partition(" ")
        if scheme == "Basic":
            given = base64.b64decode(given).decode().partition(":")[2]
        if scheme not in ("Basic", "Bearer") or not hmac.compare_digest(given.encode(), self.token.encode()):
            raise JiraError(401, "Client must be authenticated to access this resource.")
        return scheme == "Basic"

    def _read(self, path: str, request: Request, cloud: bool) -> Response:
        if path == "serverInfo":
            return JSONResponse({"deploymentType": "Cloud" if cloud else "Server"})
        if path == "myself":
            return JSONResponse({"displayName": "AIRIS-MON"})
        if path in ("search", "search/jql"):
            if cloud and path == "search":
                raise JiraError(410, "The requested API has been removed. Please migrate to /rest/api/3/search/jql.")
            if not cloud and path == "search/jql":
                raise JiraError(404)
            return JSONResponse({"issues": self._found(request.query_params.get("jql", ""), cloud)})
        key, _, more = path.removeprefix("issue/").partition("/")
        issue = self._issue(key)
        if more == "comment":
            return JSONResponse({"comments": [{"body": text} for text in reversed(issue["comments"])]})
        if more == "transitions":
            offered = [{"id": i, "name": n, "to": _status(to)} for i, (n, to) in WORKFLOW[issue["status"]].items()]
            return JSONResponse({"transitions": offered})
        return JSONResponse(_answer(key, issue, cloud))

    def _found(self, jql: str, cloud: bool) -> list[dict[str, Any]]:
        match = re.fullmatch(r'project = "(\w+)" AND labels = "([^"\\]+)" ORDER BY created DESC', jql)
        if match is None:
            raise JiraError(400, f"Error in the JQL Query: {jql}")
        if match[1] != "OPS":
            raise JiraError(400, f"The value '{match[1]}' does not exist for the field 'project'.")
        found = [(key, issue) for key, issue in self.issues.items() if match[2] in issue["fields"]["labels"]]
        return [_answer(key, issue, cloud) for key, issue in reversed(found)]

    def _write(self, call: str, path: str, body: dict[str, Any]) -> Response:
        if call == "create":
            fields = body["fields"]
            _check(fields)
            key = f"OPS-{len(self.requests) + 1}"
            self.issues[key] = {"fields": fields, "comments": [], "status": "To Do", "links": [], "changed": now_ms()}
            self._note(call, key, fields=fields)
            return JSONResponse({"id": str(10_000 + len(self.issues)), "key": key}, 201)
        if call == "link":
            if body["type"] != {"name": "Relates"}:
                raise JiraError(404, f"No issue link type with name '{body['type'].get('name')}' found.")
            one, other = (self._issue(body[end]["key"]) for end in ("inwardIssue", "outwardIssue"))
            one["links"].append(body["outwardIssue"]["key"])
            other["links"].append(body["inwardIssue"]["key"])
            self._note(call, body["inwardIssue"]["key"])
            return Response(status_code=201)
        key = path.split("/")[1]
        issue = self._issue(key)
        if call == "comment":
            if not body.get("body") or _length(body["body"]) > 32_767:
                raise JiraError(400, comment="Comment body is empty, or over the limit of 32,767 characters.")
            issue["comments"].append(body["body"])
            self._note(call, key, body=body["body"])
            return JSONResponse({"id": "1"}, 201)
        wanted = WORKFLOW[issue["status"]].get(body["transition"]["id"])
        if wanted is None:
            raise JiraError(400, "It seems that you have tried to perform a workflow operation that is not valid.")
        if body.get("fields"):
            raise JiraError(400, resolution="Field 'resolution' cannot be set. It is not on the appropriate screen.")
        issue.update(status=wanted[1], changed=now_ms())
        self._note(call, key, to=wanted[1])
        return Response(status_code=204)

    def _issue(self, key: str) -> dict[str, Any]:
        if key not in self.issues:
            raise JiraError(404, "Issue does not exist or you do not have permission to see it.")
        return self.issues[key]

    def _note(self, kind: str, key: str, **what: Any) -> None:
        labels = self.issues[key]["fields"]["labels"]
        self.requests.append({"at": now_ms(), "kind": kind, "key": key, "labels": labels, **what})

    async def seen(self, request: Request) -> Response:  # noqa: ARG002
        """What was created, commented and transitioned."""
        return JSONResponse(self.requests)

    async def listed(self, request: Request) -> Response:  # noqa: ARG002
        """Every issue."""
        return JSONResponse([{"key": key, **issue} for key, issue in self.issues.items()])

    async def act(self, request: Request) -> Response:
        """What somebody does in Jira: set an issue's status, or delete it."""
        body = await request.json()
        if body.get("delete"):
            del self.issues[body["key"]]
        else:
            self.issues[body["key"]].update(status=body["status"], changed=body.get("changed", now_ms()))
        return JSONResponse({})

    async def show(self, request: Request) -> Response:  # noqa: ARG002
        """The issues."""
        shown = "".join(_html(key, issue) for key, issue in reversed(self.issues.items()))
        return page("OPS", "A stand-in of Jira: its project OPS.", shown or '<p class="dim">No issue yet.</p>')


def _check(fields: dict[str, Any]) -> None:
    summary, labels = fields.get("summary") or "", fields.get("labels") or []
    errors = {name: f"Field '{name}' cannot be set. It is unknown." for name in fields.keys() - FIELDS}
    if (fields.get("project") or {}).get("key") != "OPS":
        errors["project"] = "valid project is required"
    if (fields.get("issuetype") or {}).get("name") not in TYPES:
        errors["issuetype"] = "The issue type selected is invalid."
    if not summary or _length(summary) > 255 or "\n" in summary:
        errors["summary"] = "Summary must be one line of 1 to 255 characters."
    if _length(fields.get("description") or "") > 32_767:
        errors["description"] = "The entered text is too long. It exceeds the allowed limit of 32,767 characters."
    if any(re.search(r"\s", label) or len(label) > 255 for label in labels):
        errors["labels"] = "The label contains spaces which is invalid, or is too long."
    if errors:
        raise JiraError(400, **errors)


def _length(text: str) -> int:
    """As Java counts."""
    return len(text.encode("utf-16-le")) // 2


def _answer(key: str, issue: dict[str, Any], cloud: bool) -> dict[str, Any]:
    """An issue as it is answered: when its status' category has changed tells Cloud alone."""
    changed = datetime.fromtimestamp(issue["changed"] / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.000+0000")
    times = {"updated": changed, **({"statuscategorychangedate": changed} if cloud else {"resolutiondate": None})}
    fields = {"description": issue["fields"].get("description"), "status": _status(issue["status"]), **times}
    return {"key": key, "fields": fields}


def _status(name: str) -> dict[str, Any]:
    return {"name": name, "statusCategory": {"key": STATUSES[name]}}


def _html(key: str, issue: dict[str, Any]) -> str:
    status = issue["status"]
    title = f"{key} {issue['fields']['summary']}"
    said = "".join(f"<pre>{html.escape(text)}</pre>" for text in [issue["fields"]["description"], *issue["comments"]])
    return f'<article><p class="state {STATES[status]}">{status}</p><h2>{html.escape(title)}</h2>{said}</article>'


def make(token_file: str) -> Starlette:
    """A site without issues."""
    jira = Jira(Path(token_file).read_text().strip())
    return application(
        [
            Route("/", jira.show),
            Route("/rest/api/2/{path:path}", jira.api, methods=["GET", "POST"]),
            Route("/_sandbox/requests", jira.seen),
            Route("/_sandbox/incidents", jira.listed),
            Route("/_sandbox/incidents", jira.act, methods=["POST"]),
        ],
        jira.faults,
    )


_CHANGES = {"create": "fired", "comment": "acknowledged", "transition": "resolved"}

PEER = FakeServer(
    "jira",
    8801,
    lambda url, made: {
        "jira_default": {
            "conn_type": "airis_jira",
            "host": url,
            "login": "airis@example.com",
            "password": made["jira_token"],
        }
    },
    arguments=("--token-file", "{secrets}/jira_token"),
    secrets={"jira_token": token},
    published=True,
    shares=True,
    inbox=Inbox(
        {"fired": "issues", "acknowledged": "comments", "resolved": "transitions"},
        lambda request: _CHANGES[request["kind"]],
    ),
)

if __name__ == "__main__":
    serve(__doc__ or "", make)
