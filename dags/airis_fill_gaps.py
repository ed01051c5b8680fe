"""Finds the gaps that outages have left in the hub within the last 14 days, and reads those days again, once.

Asks the hub where everything that is read together, a source or a region, lacks points for more than 15 minutes, with
points before and after: that is an outage of the collection. No traffic is none, as load is measured all the same.
Starts the run `gapfill__<day>` of `airis_reconcile_<system>` for each of these days.
"""

from datetime import UTC, datetime, timedelta

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator  # noqa: TID253
from airflow.sdk import DAG

from airflow_provider_airis.operators.gaps import AirisFindGapsOperator

with DAG(
    dag_id="airis_fill_gaps",
    schedule="0 3 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "execution_timeout": timedelta(hours=1)},
    dag_display_name="AIRIS-MON: fill gaps",
    description="Finds the gaps that outages have left in the hub, and reads those days again, once.",
    tags=["airis", "AIRIS-MON", "inbound"],
    doc_md=__doc__,
):
    find = AirisFindGapsOperator(task_id="find")
    TriggerDagRunOperator.partial(
        task_id="reconcile",
        map_index_template="{{ task.trigger_dag_id }} {{ task.trigger_run_id }}",
        # Such a run has no data interval: its configuration names the window.
        logical_date=None,
        reset_dag_run=True,
        fail_when_dag_is_paused=True,
    ).expand_kwargs(find.output)
