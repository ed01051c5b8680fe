"""What this package adds to Airflow itself, through the entry point ``airflow.plugins``."""

from __future__ import annotations

from typing import Any

from airflow.plugins_manager import AirflowPlugin

from airflow_provider_airis.timetables import DelayedCronDataIntervalTimetable


class AirisPlugin(AirflowPlugin):
    """Registers the timetable that the shipped Dags are scheduled by."""

    name = "airis"
    timetables: list[Any] = [DelayedCronDataIntervalTimetable]
