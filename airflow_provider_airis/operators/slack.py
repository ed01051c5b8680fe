"""Alerts to Slack, from Dags of your own."""

from __future__ import annotations

from airflow_provider_airis.operators.notify import NotifyOperator


class AirisToSlackOperator(NotifyOperator):
    """Posts an alert as a message, and updates it as the alert changes, with what has happened in its thread.

    :param target: a channel's name or id; of an incoming webhook it names the channel that it was made for.
    :param slack_conn_id: connection of type ``slack`` with a bot token, or an incoming webhook's.
    :param replies: whether changes are also sent into the message's thread.
    """

    system = "slack"
