"""SageMaker's endpoint metrics into the hub, every five minutes."""

from airflow.sdk import DAG

from airflow_provider_airis.operators.sagemaker import SageMakerToAirisOperator
from airflow_provider_airis.settings import options, sync_schedule

with DAG(
    dag_id="airis_sync_sagemaker",
    schedule=sync_schedule("sagemaker"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3},
    tags=["airis", "sagemaker"],
    doc_md=__doc__,
):
    SageMakerToAirisOperator.partial(task_id="sagemaker_to_airis", map_index_template="{{ task.region_name }}").expand(
        region_name=options("sagemaker", "regions")
    )
