"""Alerts to Microsoft Teams, from Dags of your own."""

from __future__ import annotations

from airflow_provider_airis.operators.notify import NotifyOperator


class AirisToTeamsOperator(NotifyOperator):
    """Posts a card to a Teams channel for each change of an alert; a later card names the time of the first.

    :param target: connection of type ``teams``, whose password is the URL of the channel's workflow.
    """

    system = "teams"
