"""What the Dag files of :mod:`benchmarks.loops` are made of, where the package has no such thing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

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
