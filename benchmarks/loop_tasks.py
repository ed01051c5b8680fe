"""What the Dag files of :mod:`benchmarks.loops` are made of, where the package has no such thing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from airflow.sdk import BaseOperator
from airflow.triggers.base import StartTriggerArgs, TriggerEvent

from airflow_provider_airis.operators.dispatch import AirisDispatchOperator
from airflow_provider_airis.triggers.alerts import AirisAlertTrigger


class Waking(AirisAlertTrigger):
    """Resumes a task, where :class:`AirisAlertTrigger` ends it."""

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event."""
        async for _ in super().run():
            yield TriggerEvent(None)  # type: ignore[no-untyped-call]


class Resuming(AirisDispatchOperator):
    """Waits in the triggerer, and delivers."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        trigger, arguments = Waking(system=self.system).serialize()
        self.start_trigger_args = StartTriggerArgs(
            trigger_cls=trigger, trigger_kwargs=arguments, next_method="deliver", next_kwargs={}, timeout=None
        )
        self.start_from_trigger = True

    def deliver(self, context: Any, event: Any) -> dict[str, int]:  # noqa: ARG002
        """Deliver."""
        return self.execute(context)


class Sending(AirisAlertTrigger):
    """Delivers, then ends the task."""

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event."""
        assert self.system
        async for event in super().run():
            await asyncio.to_thread(_deliver, self.system)
            yield event


def _deliver(system: str) -> None:
    operator = AirisDispatchOperator(task_id="deliver", system=system, linger_s=1)
    operator.execute({})


class Triggering(BaseOperator):
    """Is done in the triggerer."""

    def __init__(self, *, system: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        trigger, arguments = Sending(system=system).serialize()
        self.start_trigger_args = StartTriggerArgs(
            trigger_cls=trigger, trigger_kwargs=arguments, next_method="execute", next_kwargs=None, timeout=None
        )
        self.start_from_trigger = True

    def execute(self, context: Any) -> None:
        """Nothing is left to do."""
