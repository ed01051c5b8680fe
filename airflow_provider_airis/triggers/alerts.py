"""The wake-up of whoever waits for the hub's alerts to change."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.triggers.base import BaseEventTrigger, TaskFailedEvent, TaskSuccessEvent, TriggerEvent

from airflow_provider_airis.errors import PermanentError, RetryableError

if TYPE_CHECKING:
    from airflow_provider_airis.hooks.airis import AirisHook

POLL_S = 50.0
LONGEST_PAUSE_S = 30.0
# A task that fails is followed by the next run at once; a token that is not accepted should not make thousands a day.
PERMANENT_PAUSE_S = 60.0


class AirisAlertTrigger(BaseEventTrigger):
    """Waits on the hub's change feed until it holds something behind a consumer's committed place.

    It ends too at the time that a system's dispatch wants to be woken at though nothing changes, which is the mark of
    the consumer ``<consumer>-<system>-due``. It only wakes: what has changed is read by whoever it woke, so that
    nothing is lost with an event. A hub that is down is waited for; one that refuses the token ends the wait with an
    error.

    :param airis_conn_id: connection of the hub.
    :param consumer: whose place; the connection's ``consumer`` if None.
    :param system: stem of an outbound system, if it is the place of what is delivered there.
    """

    def __init__(
        self, airis_conn_id: str = "airis_default", consumer: str | None = None, system: str | None = None
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.airis_conn_id = airis_conn_id
        self.consumer = consumer
        self.system = system

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments."""
        path = f"{type(self).__module__}.{type(self).__qualname__}"
        return path, {"airis_conn_id": self.airis_conn_id, "consumer": self.consumer, "system": self.system}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event: the wait is over, or it makes no sense."""
        from airflow_provider_airis.hooks.airis import AirisHook

        hook = AirisHook(self.airis_conn_id, retries=0, system=self.system)
        pause = 0.0
        while True:
            try:
                left = await self._left(hook)
                changes, _ = await hook.achanges(consumer=self.consumer, limit=1, wait=max(0.0, min(POLL_S, left)))
            except RetryableError as error:
                if not pause:
                    self.log.warning("%s; waiting for it", error)
                pause = min(pause * 2 or 1.0, LONGEST_PAUSE_S)
                await asyncio.sleep(pause)
                continue
            except (PermanentError, AirflowNotFoundException) as error:
                self.log.error("%s", error)
                await asyncio.sleep(PERMANENT_PAUSE_S)
                yield TaskFailedEvent()
                return
            if pause:
                self.log.info("The hub answers again")
                pause = 0.0
            if changes or left <= 0:
                yield TaskSuccessEvent()
                return

    async def _left(self, hook: AirisHook) -> float:
        """Seconds until the dispatch wants to be woken anyway."""
        if self.system is None:
            return POLL_S
        await hook.aconnection()
        due = (await hook.aplace(f"{hook.consumer}-due")).sequence
        return due / 1000 - time.time() if due else POLL_S
