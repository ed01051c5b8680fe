"""The hub's alerts to Jira, as they change.

A loop: ``wait`` sleeps in the triggerer until the change feed holds something new; ``deliver`` shows it, and whatever
follows closely, then moves the place in the feed. What a crash leaves is read again, and what was shown already is not
shown twice. While Jira does not answer, its deliveries wait, and this Dag's runs are red.
"""

from datetime import UTC, datetime

from airflow.sdk import DAG

from airflow_provider_airis.operators.dispatch import AirisDispatchOperator
from airflow_provider_airis.sensors.alerts import AirisAlertSensor

with DAG(
    dag_id="airis_dispatch_jira",
    schedule="@continuous",
    # Without one, Airflow gives the second run the first one's logical date, and never creates it.
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    # The next run goes on at once, which is better than a try of this one after a pause.
    default_args={"retries": 0},
    tags=["airis", "alerts"],
    doc_md=__doc__,
):
    AirisAlertSensor(task_id="wait", system="jira") >> AirisDispatchOperator(task_id="deliver", system="jira")
