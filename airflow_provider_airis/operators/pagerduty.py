"""Alerts to PagerDuty, from Dags of your own; and what was deployed, as PagerDuty's change events."""

from __future__ import annotations

from typing import Any

from airflow_provider_airis.operators.export import ExportOperator
from airflow_provider_airis.operators.notify import NotifyOperator


class AirisToPagerDutyOperator(NotifyOperator):
    """Triggers a PagerDuty incident for an alert, and acknowledges and resolves it with the alert.

    :param target: connection of type ``pagerduty_events``, whose integration key names the PagerDuty service.
    """

    system = "pagerduty"


class AirisChangesToPagerDutyOperator(ExportOperator):
    """Sends what was deployed to PagerDuty, as change events: the aliases that were moved in a model registry.

    The first time, it sends those of the last day. PagerDuty cannot tell a repetition, so a crash between sending and
    committing makes one change event more, with the same ``airis_event`` among its details.

    :param pagerduty_events_conn_id: connection of type ``pagerduty_events``, whose integration key names the service.
    :param airis_conn_id: connection of the hub.

    See https://developer.pagerduty.com/docs/events-api-v2/send-change-events/
    """

    def __init__(self, *, pagerduty_events_conn_id: str = "pagerduty_events_default", **kwargs: Any) -> None:
        super().__init__(system="pagerduty", conn_id=pagerduty_events_conn_id, **kwargs)
