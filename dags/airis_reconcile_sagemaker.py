"""SageMaker's metrics and its endpoints' states into the hub, a whole UTC day at a time.

Takes the points that came late and fills the gaps that outages left. This is also the Dag to backfill:
`airflow backfill create --dag-id airis_reconcile_sagemaker --from-date 2026-11-01 --to-date 2026-11-30`
reads thirty days in thirty runs. Delivering a day again changes nothing in the hub.
"""

from airflow.sdk import DAG

from airflow_provider_airis.operators.sagemaker import SageMakerToAirisOperator
from airflow_provider_airis.settings import options, reconcile_schedule

with DAG(
    dag_id="airis_reconcile_sagemaker",
    schedule=reconcile_schedule("sagemaker"),
    catchup=False,
    max_active_runs=4,
    default_args={"retries": 3},
    tags=["airis", "sagemaker"],
    doc_md=__doc__,
):
    SageMakerToAirisOperator.partial(
        task_id="sagemaker_to_airis",
        map_index_template="{{ task.aws_conn_id }} {{ task.region_name }}",
        dimensions=options("sagemaker", "dimensions"),
        jobs=options("sagemaker", "jobs"),
    ).expand(aws_conn_id=options("sagemaker", "connections"), region_name=options("sagemaker", "regions"))
