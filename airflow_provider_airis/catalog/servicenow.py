"""The row of ServiceNow."""

from __future__ import annotations

from airflow_provider_airis.catalog.system import Channel, Connection, Form, Option, System, Webhook
from airflow_provider_airis.catalog.tickets import REOPEN

ROW = System(
    stem="servicenow",
    prefix="ServiceNow",
    title="ServiceNow",
    category="enterprise",
    summary="an incident an alert, with work notes on its changes, resolved with it",
    url="https://www.servicenow.com/docs/csh?topicname=c_TableAPI.html",
    connection=Connection(
        "servicenow",
        form=Form(
            title="ServiceNow",
            relabeling={"host": "Instance", "login": "User", "password": "Password or token"},
            placeholders={
                "host": "https://example.service-now.com",
                "login": "empty for an OAuth access token",
                "password": "of a user who may create and update incidents",
            },
            hidden=("port", "schema"),
        ),
    ),
    tested_against="a server of our own that checks what the Table API and an incident's data policies check",
    channel=Channel(
        target="servicenow_default",
        options=(
            Option(
                "close_code",
                "string",
                "Solution provided",
                "Resolution code of incidents that are resolved with their alert, one of the instance's choices.",
            ),
            Option(
                "fields",
                "json",
                "",
                "JSON object of further fields of a new incident, by their names in the table.",
                '{"assignment_group": "287ebd7da9fe198100f92cc8d1d2154e", "category": "software"}',
            ),
            REOPEN,
        ),
    ),
    webhook=Webhook(),
)
