"""Alerts to Jira, from Dags of your own."""

from __future__ import annotations

from airflow_provider_airis.operators.notify import NotifyOperator


class AirisToJiraOperator(NotifyOperator):
    """Creates an issue for an alert, comments on it as the alert changes, and transitions it when that is resolved.

    :param target: key of the project.
    :param jira_conn_id: connection of type ``airis_jira``.
    """

    system = "jira"
