"""Waiting for the hub's alerts to change."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator
from airflow.triggers.base import StartTriggerArgs

if TYPE_CHECKING:
    from airflow.sdk.definitions.context import Context

TRIGGER = "airflow_provider_airis.triggers.alerts.AirisAlertTrigger"


class AirisAlertSensor(BaseSensorOperator):
    """Succeeds once the hub's change feed holds something behind the consumer's committed place.

    With a system, also at the time that its dispatch has asked to be woken at.

    It starts and ends in the triggerer: waiting takes no worker, and waking takes no worker's start. Whoever runs
    behind it reads the changes and commits the sequence; until then the sensor succeeds at once.

    :param airis_conn_id: connection of the hub; not templated, since no worker renders it.
    :param consumer: whose place; the connection's ``consumer`` if None.
    :param system: stem of an outbound system, if it is the place of what is delivered there.
    """

    template_fields: Sequence[str] = ()
    ui_color = "#fff4e0"

    def __init__(
        self,
        *,
        airis_conn_id: str = "airis_default",
        consumer: str | None = None,
        system: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.airis_conn_id = airis_conn_id
        self.consumer = consumer
        self.system = system
        self.start_trigger_args = StartTriggerArgs(
            trigger_cls=TRIGGER,
            trigger_kwargs={"airis_conn_id": airis_conn_id, "consumer": consumer, "system": system},
            next_method="execute",
            next_kwargs=None,
            timeout=None,
        )
        self.start_from_trigger = True

    def execute(self, context: Context) -> None:  # noqa: ARG002
        """Wait without a triggerer, where a task is run by hand: ``dag.test()``."""
        from airflow_provider_airis.hooks.airis import AirisHook

        with AirisHook(self.airis_conn_id, system=self.system) as hub:
            while True:
                due = hub.committed(f"{hub.consumer}-due") if self.system else 0
                left = due / 1000 - time.time() if due else 50.0
                if hub.changes(consumer=self.consumer, limit=1, wait=max(0.0, min(50.0, left)))[0] or left <= 0:
                    return
                self.log.info("Nothing has changed yet")
