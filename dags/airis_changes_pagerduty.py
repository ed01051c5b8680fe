"""What was deployed, to PagerDuty as change events: aliases that were moved in MLflow, every five minutes.

Responders see them beside the service's incidents. They are read from the hub, into which `airis_sync_mlflow` brings
them. A crash may send one of them twice, and loses none.
"""

from airflow.sdk import DAG

from airflow_provider_airis.operators.pagerduty import AirisChangesToPagerDutyOperator
from airflow_provider_airis.settings import option
from airflow_provider_airis.shipped import described, limit

with DAG(
    dag_id="airis_changes_pagerduty",
    schedule="*/5 * * * *",
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "execution_timeout": limit("pagerduty", "changes")},
    **described("pagerduty", "changes", __doc__),
):
    AirisChangesToPagerDutyOperator(task_id="changes", pagerduty_events_conn_id=option("pagerduty", "target"))
