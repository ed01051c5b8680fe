"""Ways from the hub to a receiver through Airflow that :mod:`benchmarks.dispatch` compares, each a Dag file.

All but ``shipped`` are there to be measured: they show nothing twice and lose nothing as long as nothing dies.
"""

from __future__ import annotations

_HEAD = """
from datetime import UTC, datetime
from airflow.sdk import DAG
from airflow_provider_airis.operators.dispatch import AirisDispatchOperator
from airflow_provider_airis.sensors.alerts import AirisAlertSensor

START = {"start_date": datetime(2026, 1, 1, tzinfo=UTC), "max_active_runs": 1, "catchup": False}
ID = "loop_SYSTEM"
"""
# As the shipped ones, but soon asleep.
LOOPS = {
    "shipped": """
with DAG(ID, schedule="@continuous", **START):
    AirisAlertSensor(task_id="wait", system="SYSTEM") >> AirisDispatchOperator(
        task_id="deliver", system="SYSTEM", linger_s=1
    )
""",
    # What waits is what delivers: the event resumes it in a worker.
    "one_task": """
from benchmarks.loop_tasks import Resuming

with DAG(ID, schedule="@continuous", **START):
    Resuming(task_id="deliver", system="SYSTEM", linger_s=1)
""",
    # A mapped task an alert.
    "mapped": """
from airflow.sdk import task
from airflow_provider_airis.hooks.airis import AirisHook
from airflow_provider_airis.operators.SYSTEM import OPERATOR

with DAG(ID, schedule="@continuous", **START):
    @task
    def read():
        with AirisHook(system="SYSTEM") as hub:
            changes, sequence = hub.changes(after=hub.committed(), limit=500)
            hub.commit(hub.consumer, sequence)
        return sorted({change.alert.id for change in changes})

    deliver = OPERATOR.partial(task_id="deliver", target="TARGET").expand(alert_id=(alerts := read()))
    AirisAlertSensor(task_id="wait", system="SYSTEM") >> alerts
""",
}


def text(loop: str, system: str) -> str:
    """The Dag file of a loop for a system; its id is ``loop_<system>``."""
    operator, target = {
        "slack": ("AirisToSlackOperator", "#alerts"),
        "pagerduty": ("AirisToPagerDutyOperator", "pagerduty_events_default"),
    }[system]
    return (_HEAD + LOOPS[loop]).replace("SYSTEM", system).replace("OPERATOR", operator).replace("TARGET", target)
