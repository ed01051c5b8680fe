"""What this package adds to Airflow itself, through the entry point ``airflow.plugins``."""

from __future__ import annotations

from typing import Any

from airflow.plugins_manager import AirflowPlugin

from airflow_provider_airis.plugins import preload
from airflow_provider_airis.timetables import DelayedCronDataIntervalTimetable, StandbyContinuousTimetable


async def receiver(scope: Any, receive: Any, send: Any) -> None:
    """The ASGI application of :mod:`.receiver`, loaded at the first request: only the API server needs it."""
    from airflow_provider_airis.plugins.receiver import application

    await application()(scope, receive, send)


class AirisPlugin(AirflowPlugin):
    """Registers the timetables of the shipped Dags, where other systems' requests are taken, and what is loaded before
    tasks are forked.
    """

    name = "airis"
    fastapi_apps: list[Any] = [{"app": receiver, "url_prefix": "/airis", "name": "AIRIS-MON"}]
    listeners: list[Any] = [preload]
    timetables: list[Any] = [DelayedCronDataIntervalTimetable, StandbyContinuousTimetable]
