"""The hub's alerts to Slack and PagerDuty, as they change.

A loop: wait in the triggerer until the change feed holds something new, plan what is due, deliver each alert to each of
its receivers, commit the place in the feed. What a crash leaves uncommitted is planned again, and a receiver that was
shown a state already is not shown it twice. A delivery that failed for good is a failed task and an event at the hub:
clear it to deliver the alert's state of then.
"""

from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG

from airflow_provider_airis.operators.dispatch import AirisCommitOperator, AirisDeliverOperator, AirisPlanOperator
from airflow_provider_airis.sensors.alerts import AirisAlertSensor

with DAG(
    dag_id="airis_dispatch_alerts",
    schedule="@continuous",
    # Without one, Airflow gives the second run the first one's logical date, and never creates it.
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    # A receiver that does not answer, five seconds a try, holds the others' next alerts back for about a minute.
    default_args={"retries": 3, "retry_delay": timedelta(seconds=5)},
    tags=["airis", "alerts"],
    doc_md=__doc__,
):
    plan = AirisPlanOperator(task_id="plan")
    deliver = AirisDeliverOperator.partial(
        task_id="deliver", map_index_template="{{ task.channel }} {{ task.target }} {{ task.alert_id }}"
    ).expand_kwargs(plan.output)
    AirisAlertSensor(task_id="wait", retries=0) >> plan
    deliver >> AirisCommitOperator(task_id="commit", plan="plan", deliver="deliver")
