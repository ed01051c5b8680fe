"""Alerts to a URL of your own, from Dags of your own."""

from __future__ import annotations

from airflow_provider_airis.operators.notify import NotifyOperator


class AirisToWebhookOperator(NotifyOperator):
    """Posts every change of an alert to a URL, signed as the hub signs.

    :param target: connection of type ``webhook``: the URL, and the secret to sign with.
    """

    system = "webhook"
