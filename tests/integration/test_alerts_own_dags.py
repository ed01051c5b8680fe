"""What users' own Dags have of the hub's alerts: the wake-up, the sensor, the asset, the notifier and the link."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from airflow.triggers.base import TaskSuccessEvent

from airflow_provider_airis.hooks.airis import AirisHook
from airflow_provider_airis.sensors.alerts import AirisAlertSensor
from airflow_provider_airis.triggers.alerts import AirisAlertTrigger


def first_event(trigger: AirisAlertTrigger) -> Any:
    async def first() -> Any:
        async for event in trigger.run():
            return event
        return None

    return asyncio.run(asyncio.wait_for(first(), 30))


def wait_by_hand(**kwargs: Any) -> Any:
    return AirisAlertSensor(task_id="wait", **kwargs).execute({})


@pytest.fixture
def nothing_new(airis) -> Callable[[str], None]:
    """Nothing has changed that the dispatch to a system has not seen."""

    def commit(system: str) -> None:
        with AirisHook(system=system) as hub:
            sequence = 0
            while (read := hub.changes(after=sequence, limit=5000))[0]:
                sequence = read[1]
            hub.commit(hub.consumer, sequence)

    return commit


@pytest.mark.parametrize("wait", [lambda **k: first_event(AirisAlertTrigger(**k)), wait_by_hand])
def test_a_dispatch_is_woken_at_the_time_it_asked_for_though_nothing_changed(nothing_new, wait):
    nothing_new("due")
    with AirisHook(system="due") as hub:
        for ms in (-1_000, 700):
            due = round(time.time() * 1000) + ms
            hub.commit(f"{hub.consumer}-due", due, force=True)
            woken = wait(system="due")
            assert woken is None or isinstance(woken, TaskSuccessEvent)
            assert time.time() * 1000 >= due


@pytest.mark.parametrize("wait", [lambda **k: first_event(AirisAlertTrigger(**k)), wait_by_hand])
def test_a_time_that_is_far_off_or_none_does_not_wake_it_and_a_change_does(nothing_new, wait, request):
    nothing_new("late")
    with AirisHook(system="late") as hub, ThreadPoolExecutor(1) as pool:
        hub.commit(f"{hub.consumer}-due", round(time.time() * 1000) + 3_600_000, force=True)
        waiting = pool.submit(wait, system="late")
        with pytest.raises(TimeoutError):
            waiting.result(0.5)
        hub.request("POST", "/api/v1/alerts", json={"name": request.node.name, "severity": "low"})
        waiting.result(30)


def test_a_time_that_is_asked_for_meanwhile_is_seen_at_the_next_poll(nothing_new, monkeypatch):
    monkeypatch.setattr("airflow_provider_airis.triggers.alerts.POLL_S", 0.3)
    nothing_new("soon")
    with AirisHook(system="soon") as hub, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(first_event, AirisAlertTrigger(system="soon"))
        with pytest.raises(TimeoutError):
            waiting.result(0.5)
        hub.commit(f"{hub.consumer}-due", 1, force=True)
        waiting.result(30)
