"""The row of signed webhooks."""

from __future__ import annotations

from airflow_provider_airis.catalog.system import Channel, Connection, Form, System

ROW = System(
    stem="webhook",
    prefix="Webhook",
    title="Webhook",
    category="notification",
    summary="every change of an alert as JSON to any URL, signed",
    url="https://www.rfc-editor.org/rfc/rfc2104",
    connection=Connection(
        "webhook",
        form=Form(
            title="Webhook",
            relabeling={"host": "URL", "password": "Secret"},
            placeholders={"host": "https://receiver.example.com/alerts", "password": "what both sides sign with"},
            hidden=("login", "port", "schema"),
        ),
    ),
    tested_against="a server of our own that checks the signature",
    channel=Channel(target="webhook_default"),
)
