"""Alerts as Jira issues: one an alert, with comments on its changes, done with it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from airflow_provider_airis.channels.texts import cut, identity, utf16
from airflow_provider_airis.channels.tickets import TicketChannel, described
from airflow_provider_airis.channels.view import AlertView
from airflow_provider_airis.errors import AirisError

if TYPE_CHECKING:
    from airflow_provider_airis.hooks.jira import Issue

SUMMARY_CHARS = 255
LABEL_CHARS = 255
# Jira takes 32,767, markup and link included, and counts as Java does.
TEXT_CHARS = 30_000


def issue(view: AlertView, *, project: str, issue_type: str, follows: str = "") -> dict[str, Any]:
    """The fields of an alert's new issue.

    :param follows: key of the closed issue that this one follows.
    """
    more = f"\nFollows {follows}, which is closed." if follows else ""
    return {
        "project": {"key": project},
        "issuetype": {"name": issue_type},
        "summary": cut(f"[{view.alert.severity.upper()}] {view.name}", SUMMARY_CHARS, utf16),
        "description": f"{text(view)}{more}",
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
    """By which an alert's issue is found again; labels hold no blanks, and no markup."""
    return re.sub(r"[^\w.:-]", "_", identity(view.key, LABEL_CHARS), flags=re.ASCII)


class JiraChannel(TicketChannel["Issue"]):
    """Issues of a project, whose key is the target; an issue's key is the reference.

    See https://developer.atlassian.com/cloud/jira/platform/rest/v2/intro/
    """

    def get(self, sent: str) -> Issue | None:
        """By its key."""
        found: Issue | None = self.hook.get(sent)
        return found

    def find(self, view: AlertView) -> Issue | None:
        """By its label."""
        found: Issue | None = self.hook.find(self.target, label(view))
        return found

    def create(self, view: AlertView, follows: Issue | None) -> Issue:
        """An issue; one that follows another is linked to it, where the site lets that."""
        fields = issue(
            view,
            project=self.target,
            issue_type=self.options["issue_type"],
            follows=follows.name if follows else "",
        )
        made: Issue = self.hook.create({**fields, **self.options["fields"]})
        if follows:
            try:
                self.hook.link(made.key, follows.key)
            except AirisError as error:
                self.log.warning("%s names %s and is not linked to it: %s", made.key, follows.key, error)
        return made

    def knows(self, ticket: Issue, view: AlertView) -> bool:
        """By the mark in its description, or in a comment."""
        return any(mark(view) in said for said in (ticket.description, *self.hook.comments(ticket.key)))

    def update(self, ticket: Issue, view: AlertView) -> None:
        """Comment, and take it to a status that is done with the alert's end."""
        if not self.knows(ticket, view):
            self.hook.comment(ticket.key, text(view))
        if view.over and ticket.closed_at is None:
            name, resolution = self.options["resolve_transition"], self.options["resolution"]
            self.hook.transition(ticket.key, name, done=True, resolution=resolution)

    def reopen(self, ticket: Issue, view: AlertView) -> None:
        """Take it to a status that is not done."""
        self.hook.transition(ticket.key, self.options["reopen_transition"], done=False)
        self.update(ticket, view)
