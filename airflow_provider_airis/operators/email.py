"""Alerts to mail, from Dags of your own."""

from __future__ import annotations

from airflow_provider_airis.operators.notify import NotifyOperator


class AirisToEmailOperator(NotifyOperator):
    """Mails an alert, and each of its changes into the same thread.

    :param target: the address, or several, separated by commas.
    :param smtp_conn_id: connection of type ``smtp``, with ``from_email`` in its extra.
    """

    system = "email"
