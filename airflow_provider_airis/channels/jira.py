"""Alerts as Jira issues: one an alert, with comments on its changes, done with it."""

from __future__ import annotations

import re
from typing import Any

from airflow_provider_airis.channels.base import Channel
from airflow_provider_airis.channels.texts import cut
from airflow_provider_airis.channels.tickets import described
from airflow_provider_airis.channels.view import AlertView

SUMMARY_CHARS = 255
LABEL_CHARS = 255
# Jira takes 32,767, markup and link included.
TEXT_CHARS = 30_000


def issue(view: AlertView, *, project: str, issue_type: str) -> dict[str, Any]:
    """The fields of an alert's new issue."""
    return {
        "project": {"key": project},
        "issuetype": {"name": issue_type},
        "summary": cut(f"[{view.alert.severity.upper()}] {view.name}", SUMMARY_CHARS),
        "description": text(view),
        "labels": ["airis-mon", label(view)],
    }


def text(view: AlertView) -> str:
    """A description or comment in Jira's wiki markup, with :func:`mark` at its end.

    What the alert says is not read as markup: it could mention people, or draw in images.
    """
    shown = re.sub(r"\{noformat", "(noformat", described(view, TEXT_CHARS), flags=re.IGNORECASE)
    return f"{{noformat}}\n{shown}\n{{noformat}}\n[View Dashboard|{view.url}] ({mark(view)})"


def mark(view: AlertView) -> str:
    """By which a state is known again that the issue has already."""
    return f"{label(view)}, {view.alert.status}, {view.alert.updated_at}"


def label(view: AlertView) -> str:
    """By which an alert's issue is found again; labels hold no blanks."""
    return re.sub(r"\s", "_", view.key)[:LABEL_CHARS]


class JiraChannel(Channel):
    """Issues of a project, whose key is the target; an issue's key is the reference.

    See https://developer.atlassian.com/cloud/jira/platform/rest/v2/intro/
    """

    updates = True
    finds = True

    def send(self, view: AlertView, sent: str | None, *, maybe_sent: bool) -> str | None:
        """Comment on the issue, or create it.

        An issue that was deleted is created anew, but not for its end.
        """
        from airflow_provider_airis.hooks.jira import is_done

        key = sent or (self.hook.find(self.target, label(view)) if maybe_sent else None)
        found = self.hook.get(key) if key else None
        if key is None or found is None:
            if view.over:
                return sent
            fields = issue(view, project=self.target, issue_type=self.options["issue_type"])
            return str(self.hook.create({**fields, **self.options["fields"]}))
        told = [str(found.get("description") or ""), *self.hook.comments(key)]
        if not any(mark(view) in said for said in told):
            self.hook.comment(key, text(view))
        if view.over and not is_done(found.get("status") or {}):
            self.hook.transition(key, self.options["resolve_transition"], resolution=self.options["resolution"])
        return key
