"""The row of signed webhooks."""

from __future__ import annotations

from airflow_provider_airis.catalog.system import Form, System

ROW = System(
    stem="webhook",
    prefix="Webhook",
    title="Webhook",
    category="notification",
    flow="outbound",
    summary="every change of an alert as JSON to any URL, signed",
    url="https://www.rfc-editor.org/rfc/rfc2104",
    connection_type="webhook",
    tested_against="a server of our own that checks the signature",
    form=Form(
        title="Webhook",
        relabeling={"host": "URL", "password": "Secret"},
        placeholders={"host": "https://receiver.example.com/alerts", "password": "what both sides sign with"},
        hidden=("login", "port", "schema"),
    ),
    target="webhook_default",
)
