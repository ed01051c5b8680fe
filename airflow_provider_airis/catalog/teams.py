"""The row of Microsoft Teams."""

from __future__ import annotations

from airflow_provider_airis.catalog.system import Channel, Connection, Form, System

ROW = System(
    stem="teams",
    prefix="Teams",
    title="Microsoft Teams",
    category="notification",
    summary="an Adaptive Card for each change of an alert",
    url="https://learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors/how-to/add-incoming-webhook",
    connection=Connection(
        "teams",
        form=Form(
            title="Microsoft Teams",
            relabeling={"password": "Workflow's URL"},
            placeholders={"password": "https://….environment.api.powerplatform.com/…&sig=…"},
            hidden=("login", "port", "schema"),
        ),
    ),
    tested_against="a server of our own that checks what a workflow and Adaptive Cards 1.4 demand",
    channel=Channel(target="teams_default"),
)
