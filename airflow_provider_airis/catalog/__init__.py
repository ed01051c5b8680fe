"""The table of contents: one row a system, a module each. Pure data; whatever follows from a row is derived from it.

The provider's registration with Airflow, the connection forms, the configuration sections, the schedules of the Dags,
the tables of the documentation and the contract tests are all read off these rows. Imports neither Airflow nor a hook.
"""

from __future__ import annotations

from airflow_provider_airis.catalog import (
    active_directory,
    airis,
    email,
    jira,
    mlflow,
    pagerduty,
    sagemaker,
    servicenow,
    slack,
    teams,
    vertex_ai,
    webhook,
)
from airflow_provider_airis.catalog.system import (
    PACKAGE,
    Channel,
    Connection,
    EventSpec,
    Export,
    Field,
    Form,
    MetricSpec,
    Option,
    Source,
    System,
    Webhook,
)

__all__ = [
    "BY_STEM",
    "PACKAGE",
    "SYSTEMS",
    "Channel",
    "Connection",
    "EventSpec",
    "Export",
    "Field",
    "Form",
    "MetricSpec",
    "Option",
    "Source",
    "System",
    "Webhook",
]

SYSTEMS: tuple[System, ...] = (
    airis.ROW,
    sagemaker.ROW,
    vertex_ai.ROW,
    mlflow.ROW,
    active_directory.ROW,
    slack.ROW,
    pagerduty.ROW,
    teams.ROW,
    email.ROW,
    servicenow.ROW,
    jira.ROW,
    webhook.ROW,
)

BY_STEM: dict[str, System] = {system.stem: system for system in SYSTEMS}
