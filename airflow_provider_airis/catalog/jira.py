"""The row of Jira."""

from __future__ import annotations

from airflow_provider_airis.catalog.system import Channel, Connection, Form, Option, System, Webhook
from airflow_provider_airis.catalog.tickets import REOPEN

ROW = System(
    stem="jira",
    prefix="Jira",
    title="Jira",
    category="enterprise",
    summary="an issue an alert, with comments on its changes, done with it",
    url="https://developer.atlassian.com/cloud/jira/platform/rest/v2/intro/",
    # Not the Atlassian provider's "jira": whoever registers a type second only adds a warning to every start.
    connection=Connection(
        "airis_jira",
        form=Form(
            title="Jira",
            relabeling={"host": "Base URL", "login": "E-mail", "password": "Token"},
            placeholders={
                "host": "https://example.atlassian.net",
                "login": "of the API token's owner; empty for Data Center",
                "password": "API token, or Data Center's personal access token",
            },
            hidden=("port", "schema"),
        ),
        default_id="jira_default",
        more_types=("jira",),
    ),
    tested_against="a server of our own that checks what Jira Cloud and Data Center check",
    channel=Channel(
        target="OPS",
        options=(
            Option("issue_type", "string", "Task", "Type of new issues, by name.", "Incident"),
            Option(
                "fields",
                "json",
                "",
                "JSON object of further fields of a new issue, as Jira's REST API takes them.",
                '{"priority": {"name": "High"}, "components": [{"name": "Models"}]}',
            ),
            Option(
                "resolve_transition",
                "string",
                "",
                "Name of the transition when the alert is resolved; if empty, the first one to a status that is done, "
                "but none like Won't do.",
                "Resolve issue",
            ),
            REOPEN,
            Option(
                "reopen_transition",
                "string",
                "",
                "Name of the transition that reopens an issue; if empty, the first one to a status that is not done.",
                "Reopen issue",
            ),
            Option(
                "resolution", "string", "", "Resolution that the transition sets, where its screen has one.", "Done"
            ),
        ),
    ),
    webhook=Webhook(),
)
