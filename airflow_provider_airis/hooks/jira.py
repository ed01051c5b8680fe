"""Issues by Jira's REST API, of Jira Cloud and of Data Center."""

from __future__ import annotations

import re
from datetime import datetime
from functools import cached_property
from typing import Any
from urllib.parse import quote

import httpx2
import msgspec

from airflow_provider_airis.errors import PermanentError
from airflow_provider_airis.hooks.http import HttpHook
from airflow_provider_airis.records import to_ms

API = "/rest/api/2"
COMMENTS = 100
# What is asked of an issue. Data Center has no date of the status' category, nor of a resolution if none is set.
FIELDS = "description,status,statuscategorychangedate,resolutiondate,updated"
# How statuses are named that count as done and say that nothing was: they are gone to only if they are named.
NOTHING_DONE = r"\b(won.?t|will not|not |cancel|reject|declin|duplicate|invalid|abandon|obsolete)"


class Issue(msgspec.Struct):
    """What is known of an issue.

    :param closed_at: when it came to a status that is done, whatever its name, Unix ms; None if it is at none.
    """

    key: str
    description: str = ""
    closed_at: int | None = None

    @property
    def reference(self) -> str:
        """By which it is asked for again."""
        return self.key

    @property
    def name(self) -> str:
        """What people call it."""
        return self.key


class JiraHook(HttpHook):
    """A Jira site, by an Airflow connection of type ``airis_jira``, or the Atlassian provider's ``jira``.

    With a login: e-mail and API token of Jira Cloud. Without: a personal access token of Data Center.

    See https://developer.atlassian.com/cloud/jira/platform/rest/v2/intro/ and
    https://developer.atlassian.com/server/jira/platform/rest/
    """

    default_conn_name = "jira_default"
    conn_type = "airis_jira"
    hook_name = "Jira"

    @cached_property
    def is_cloud(self) -> bool:
        """Whether it is Jira Cloud, whose search has another address."""
        server = self.decode(self.request("GET", f"{API}/serverInfo"), dict[str, Any])
        return bool(server.get("deploymentType") == "Cloud")

    def find(self, project: str, label: str) -> Issue | None:
        """A project's newest issue with a label; None if there is none.

        Jira's index follows within seconds: an issue that was created just now may not be found.
        """
        path = f"{API}/search/jql" if self.is_cloud else f"{API}/search"
        jql = f"project = {_quoted(project)} AND labels = {_quoted(label)} ORDER BY created DESC"
        answer = self.request("GET", path, params={"jql": jql, "fields": FIELDS, "maxResults": 1})
        issues = self.decode(answer, dict[str, Any]).get("issues") or []
        return _issue(issues[0]) if issues else None

    def create(self, fields: dict[str, Any]) -> Issue:
        """Create an issue."""
        answer = self.decode(self.request("POST", f"{API}/issue", json={"fields": fields}), dict[str, Any])
        return Issue(str(answer["key"]))

    def get(self, key: str) -> Issue | None:
        """An issue; None if it is deleted, or the user may not see it."""
        try:
            answer = self.request("GET", self._path_of(key), params={"fields": FIELDS})
        except PermanentError as error:
            if error.status == 404:
                return None
            raise
        return _issue(self.decode(answer, dict[str, Any]))

    def link(self, key: str, other: str) -> None:
        """Say that two issues have to do with each other: *relates to*.

        :raises PermanentError: the site has no such kind of link, or none at all.
        """
        body = {"type": {"name": "Relates"}, "inwardIssue": {"key": key}, "outwardIssue": {"key": other}}
        self.request("POST", f"{API}/issueLink", json=body)

    def comments(self, key: str) -> list[str]:
        """The newest comments, at most a hundred."""
        params = {"orderBy": "-created", "maxResults": COMMENTS}
        answer = self.decode(self.request("GET", f"{self._path_of(key)}/comment", params=params), dict[str, Any])
        return [str(comment.get("body") or "") for comment in answer.get("comments") or []]

    def comment(self, key: str, text: str) -> None:
        """Add a comment, in Jira's wiki markup."""
        self.request("POST", f"{self._path_of(key)}/comment", json={"body": text})

    def transition(self, key: str, name: str, *, done: bool, resolution: str = "") -> None:
        """Take an issue through the transition of this name, or the one to a status that is done, or is not.

        Of several that are done, as *Done* and *Won't do*, the first whose name does not say that nothing was.

        :raises PermanentError: no such transition leads on from the issue's status; those that do are named.
        """
        path = f"{self._path_of(key)}/transitions"
        offered = self.decode(self.request("GET", path), dict[str, Any]).get("transitions") or []
        fits = [t for t in offered if (t["name"].lower() == name.lower() if name else _fits(t, done))]
        if not fits:
            kind = "that is done" if done else "that is not done"
            wanted = f"no transition named {name!r}" if name else f"no transition to a status {kind}"
            option = "resolve_transition" if done else "reopen_transition"
            raise PermanentError(
                f"{self._asked('GET', path)} offers {wanted}, but {', '.join(t['name'] for t in offered) or 'none'}: "
                f"set {option}, and see that the user may transition issues"
            )
        fields = {"fields": {"resolution": {"name": resolution}}} if resolution else {}
        self.request("POST", path, json={"transition": {"id": fits[0]["id"]}, **fields})

    def check(self) -> str:
        """Ask Jira who the token belongs to; returns what to tell the user."""
        answer = self.decode(self.request("GET", f"{API}/myself", retry=False), dict[str, Any])
        return f"{self.hook_name} at {self.base_url} knows the token as {answer.get('displayName')}"

    def problem(self, response: httpx2.Response) -> tuple[str, str]:
        """Jira's own words: ``{errorMessages: [text], errors: {field: text}}``."""
        try:
            document = self.decode(response, dict[str, Any])
        except PermanentError:
            return "", ""
        fields = document.get("errors") if isinstance(document.get("errors"), dict) else {}
        said = [*(document.get("errorMessages") or []), *(f"{name}: {text}" for name, text in (fields or {}).items())]
        return "; ".join(map(str, said)) or str(document.get("message") or ""), ""

    @staticmethod
    def _path_of(key: str) -> str:
        return f"{API}/issue/{quote(key, safe='')}"


def _issue(found: dict[str, Any]) -> Issue:
    fields = found.get("fields") or {}
    at = fields.get("statuscategorychangedate") or fields.get("resolutiondate") or fields.get("updated")
    closed_at = to_ms(datetime.fromisoformat(str(at))) if _is_done(fields.get("status") or {}) else None
    return Issue(str(found["key"]), str(fields.get("description") or ""), closed_at)


def _is_done(status: dict[str, Any]) -> bool:
    """Whether a status counts as done, whatever its name."""
    return bool((status.get("statusCategory") or {}).get("key") == "done")


def _fits(transition: dict[str, Any], done: bool) -> bool:
    to = transition.get("to") or {}
    nothing_done = re.search(NOTHING_DONE, f"{transition['name']} {to.get('name')}", re.IGNORECASE)
    return _is_done(to) is done and not (done and nothing_done)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
