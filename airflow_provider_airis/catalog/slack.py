"""The row of Slack."""

from __future__ import annotations

from airflow_provider_airis.catalog.system import Channel, Connection, Option, System, Webhook

ROW = System(
    stem="slack",
    prefix="Slack",
    title="Slack",
    category="notification",
    summary="one message an alert, updated as the alert changes",
    url="https://docs.slack.dev/reference/methods/chat.postMessage",
    connection=Connection("slack", more_types=("slackwebhook",)),
    requires=("apache-airflow-providers-slack>=9.11",),
    tested_against="a server of our own that checks what Slack checks, called through slack_sdk",
    channel=Channel(
        target="#alerts",
        severities=("critical", "high", "medium", "low", "warning", "info"),
        loads=(
            "airflow.providers.slack.hooks.slack",
            "airflow.providers.slack.hooks.slack_webhook",
            "slack_sdk.errors",
            "slack_sdk.models.attachments",
            "slack_sdk.models.blocks.basic_components",
            "slack_sdk.webhook",
        ),
        options=(
            Option(
                "replies",
                "boolean",
                "true",
                "Whether a change of the alert is also told in the message's thread. Not with an incoming webhook.",
            ),
        ),
    ),
    webhook=Webhook("signing_secret"),
)
