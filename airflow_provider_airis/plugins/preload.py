"""What the shipped Dags and a task of the dispatch import, loaded before Airflow forks the processes that use it.

Tasks are forks of the scheduler with ``LocalExecutor``, and what it has loaded none of them has to: an alert that wakes
the dispatch reaches its receiver a second earlier. The Dag processor forks a process for each file that it parses.
"""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from typing import Any

from airflow.listeners import hookimpl

MODULES = (
    "airflow.dag_processing.dagbag",
    "airflow.sdk.execution_time.cache",
    "airflow.sdk.execution_time.supervisor",
    "airflow.sdk.execution_time.task_runner",
    "airflow_provider_airis.dispatch.run",
    "airflow_provider_airis.hooks.airis",
    "airflow_provider_airis.operators.dispatch",
    "airflow_provider_airis.sensors.alerts",
    "airflow_provider_airis.shipped",
    "httpcore2",
    "jinja2.ext",
)


@hookimpl
def on_starting(component: Any) -> None:
    """Load it with a component that forks: a scheduler, a triggerer, a Dag processor; not with a task."""
    if type(component).__name__ == "Job":
        preload()


def preload() -> None:
    """Load what is installed."""
    from airflow_provider_airis.assets import synced
    from airflow_provider_airis.catalog import SYSTEMS
    from airflow_provider_airis.dispatch.loading import load

    for module in MODULES:
        with suppress(ImportError):
            import_module(module)
    for row in SYSTEMS:
        load(row)
    # An asset makes Airflow load what every provider has for its kinds of URI: two seconds, wherever a Dag has one.
    synced("any")
