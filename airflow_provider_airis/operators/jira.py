"""Alerts as Jira issues: one an alert, with comments on its changes, done with it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, ClassVar

from airflow_provider_airis.operators.deliver import AirisToOperator, cut
from airflow_provider_airis.operators.tickets import described
from airflow_provider_airis.records import Alert
from airflow_provider_airis.settings import json_option, option

SUMMARY_CHARS = 255
LABEL_CHARS = 255
# Jira takes 32,767, markup and link included.
TEXT_CHARS = 30_000


def issue(alert: Alert, url: str, *, project: str, issue_type: str) -> dict[str, Any]:
    """The fields of an alert's new issue."""
    return {
        "project": {"key": project},
        "issuetype": {"name": issue_type},
        "summary": cut(f"[{alert.severity.upper()}] {' '.join(alert.name.split())}", SUMMARY_CHARS),
        "description": text(alert, url),
        "labels": ["airis-mon", label(alert)],
    }


def text(alert: Alert, url: str) -> str:
    """A description or comment in Jira's wiki markup, with :func:`mark` at its end.

    What the alert says is not read as markup: it could mention people, or draw in images.
    """
    shown = re.sub(r"\{noformat", "(noformat", described(alert, url, TEXT_CHARS), flags=re.IGNORECASE)
    return f"{{noformat}}\n{shown}\n{{noformat}}\n[View Dashboard|{url}] ({mark(alert)})"


def mark(alert: Alert) -> str:
    """By which a state is known again that the issue was told before."""
    return f"{label(alert)}, {alert.status}, {alert.updated_at}"


def label(alert: Alert) -> str:
    """By which an alert's issue is found again; labels hold no blanks."""
    return re.sub(r"\s", "_", f"airis-mon-{alert.id}")[:LABEL_CHARS]


class AirisToJiraOperator(AirisToOperator):
    """Creates an issue for an alert, comments on it as the alert changes, and transitions it when that is resolved.

    :param alert_id: the alert's id at the hub.
    :param target: key of the project.
    :param jira_conn_id: connection of type ``airis_jira``.
    :param issue_type: type of a new issue; this and the following are the options' unless given.
    :param fields: further fields of a new issue.
    :param resolve_transition: name of the transition when the alert is resolved.
    :param resolution: what the transition sets.

    See https://developer.atlassian.com/cloud/jira/platform/rest/v2/intro/
    """

    system: ClassVar[str] = "jira"
    template_fields: Sequence[str] = (*AirisToOperator.template_fields, "jira_conn_id")

    def __init__(
        self,
        *,
        jira_conn_id: str = "jira_default",
        issue_type: str | None = None,
        fields: dict[str, Any] | None = None,
        resolve_transition: str | None = None,
        resolution: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.jira_conn_id = jira_conn_id
        self.issue_type = issue_type
        self.fields = fields
        self.resolve_transition = resolve_transition
        self.resolution = resolution

    @property
    def receiver_conn_id(self) -> str:
        """The receiver's connection."""
        return self.jira_conn_id

    def send(self, alert: Alert, reference: str | None, *, url: str, again: bool) -> str | None:
        """Comment on the issue, or create it; returns its key.

        An issue that was deleted is created anew, but not for its end.
        """
        from airflow_provider_airis.hooks.jira import is_done

        key = reference or (self.hook.find(self.target, label(alert)) if again else None)
        found = self.hook.get(key) if key else None
        if key is None or found is None:
            if alert.status == "resolved":
                return reference
            more = json_option(self.system, "fields") if self.fields is None else self.fields
            kind = self._option("issue_type")
            return str(self.hook.create({**issue(alert, url, project=self.target, issue_type=kind), **more}))
        told = [str(found.get("description") or ""), *self.hook.comments(key)]
        if not any(mark(alert) in said for said in told):
            self.hook.comment(key, text(alert, url))
        if alert.status == "resolved" and not is_done(found.get("status") or {}):
            self.hook.transition(key, self._option("resolve_transition"), resolution=self._option("resolution"))
        return key

    def _option(self, name: str) -> str:
        given = getattr(self, name)
        return option(self.system, name) if given is None else str(given)
