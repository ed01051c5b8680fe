"""The row of PagerDuty."""

from __future__ import annotations

from airflow_provider_airis.catalog.system import Channel, Connection, EventSpec, Export, System, Webhook

ROW = System(
    stem="pagerduty",
    prefix="PagerDuty",
    title="PagerDuty",
    category="notification",
    summary="an incident for each critical or high alert, resolved with it",
    url="https://developer.pagerduty.com/docs/send-alert-event",
    connection=Connection("pagerduty_events"),
    requires=("apache-airflow-providers-pagerduty>=5.3",),
    tested_against="a server of our own that checks what the Events API v2 checks",
    channel=Channel(target="pagerduty_events_default", severities=("critical", "high")),
    webhook=Webhook(),
    export=Export("changes", "what was deployed, as change events: aliases that were moved in MLflow"),
    events=(EventSpec("alert_assigned", "Somebody has reassigned an alert's incident: by whom, and to whom."),),
)
