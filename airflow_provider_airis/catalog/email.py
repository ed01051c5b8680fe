"""The row of e-mail."""

from __future__ import annotations

from airflow_provider_airis.catalog.system import Channel, Connection, System

ROW = System(
    stem="email",
    prefix="Email",
    title="E-mail",
    category="notification",
    summary="a thread an alert: a mail for each of its changes",
    url="https://www.rfc-editor.org/rfc/rfc5321",
    connection=Connection("smtp"),
    tested_against="an SMTP server of our own with STARTTLS and login, through smtplib",
    channel=Channel(target="alerts@example.com", loads=("airflow.providers.smtp.hooks.smtp",)),
)
