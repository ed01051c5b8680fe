"""Issues by Jira's REST API, of Jira Cloud and of Data Center."""

from __future__ import annotations

from functools import cached_property
from typing import Any
from urllib.parse import quote

import httpx2

from airflow_provider_airis.errors import PermanentError
from airflow_provider_airis.hooks.http import HttpHook
from airflow_provider_airis.settings import value

API = "/rest/api/2"
COMMENTS = 100


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

    def find(self, project: str, label: str) -> str | None:
        """The key of a project's oldest issue with a label; None if there is none.

        Jira's index follows within seconds: an issue that was created just now may not be found.
        """
        path = f"{API}/search/jql" if self.is_cloud else f"{API}/search"
        jql = f"project = {_quoted(project)} AND labels = {_quoted(label)} ORDER BY created ASC"
        answer = self.request("GET", path, params={"jql": jql, "fields": "labels", "maxResults": 1})
        issues = self.decode(answer, dict[str, Any]).get("issues") or []
        return str(issues[0]["key"]) if issues else None

    def create(self, fields: dict[str, Any]) -> str:
        """Create an issue; returns its key."""
        answer = self.decode(self.request("POST", f"{API}/issue", json={"fields": fields}), dict[str, Any])
        return str(answer["key"])

    def get(self, key: str) -> dict[str, Any] | None:
        """Description and status of an issue; None if it is deleted, or the user may not see it."""
        try:
            answer = self.request("GET", self._path_of(key), params={"fields": "description,status"})
        except PermanentError as error:
            if error.status == 404:
                return None
            raise
        fields: dict[str, Any] = self.decode(answer, dict[str, Any])["fields"]
        return fields

    def comments(self, key: str) -> list[str]:
        """The newest comments, at most a hundred."""
        params = {"orderBy": "-created", "maxResults": COMMENTS}
        answer = self.decode(self.request("GET", f"{self._path_of(key)}/comment", params=params), dict[str, Any])
        return [str(comment.get("body") or "") for comment in answer.get("comments") or []]

    def comment(self, key: str, text: str) -> None:
        """Add a comment, in Jira's wiki markup."""
        self.request("POST", f"{self._path_of(key)}/comment", json={"body": text})

    def transition(self, key: str, name: str, *, resolution: str = "") -> None:
        """Take an issue through the transition of this name, or the first one to a status that is done.

        :raises PermanentError: no such transition leads on from the issue's status; those that do are named.
        """
        path = f"{self._path_of(key)}/transitions"
        offered = self.decode(self.request("GET", path), dict[str, Any]).get("transitions") or []
        fits = [t for t in offered if (t["name"].lower() == name.lower() if name else is_done(t.get("to") or {}))]
        if not fits:
            wanted = f"no transition named {name!r}" if name else "no transition to a status that is done"
            raise PermanentError(
                f"{self._asked('GET', path)} offers {wanted}, but {', '.join(t['name'] for t in offered) or 'none'}: "
                "set resolve_transition, and see that the user may transition issues"
            )
        fields = {"fields": {"resolution": {"name": resolution}}} if resolution else {}
        self.request("POST", path, json={"transition": {"id": fits[0]["id"]}, **fields})

    def check(self) -> str:
        """Ask Jira who the token belongs to, and read the options; returns what to tell the user."""
        value("jira", "fields")
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


def is_done(status: dict[str, Any]) -> bool:
    """Whether a status counts as done, whatever its name."""
    return bool((status.get("statusCategory") or {}).get("key") == "done")


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
