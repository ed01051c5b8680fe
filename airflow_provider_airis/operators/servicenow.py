"""Alerts to ServiceNow, from Dags of your own."""

from __future__ import annotations

from airflow_provider_airis.operators.notify import NotifyOperator


class AirisToServiceNowOperator(NotifyOperator):
    """Creates an incident for an alert, adds work notes as the alert changes, and resolves the incident with it.

    :param target: connection of type ``servicenow``.
    """

    system = "servicenow"
