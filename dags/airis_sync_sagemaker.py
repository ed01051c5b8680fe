"""SageMaker's metrics and its endpoints' states into the hub, every five minutes."""

from airflow.sdk import DAG

from airflow_provider_airis.operators.sagemaker import SageMakerToAirisOperator
from airflow_provider_airis.settings import option, options, sync_schedule

with DAG(
    dag_id="airis_sync_sagemaker",
    schedule=sync_schedule("sagemaker"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3},
    tags=["airis", "sagemaker"],
    doc_md=__doc__,
):
    SageMakerToAirisOperator.partial(
        task_id="sagemaker_to_airis",
        map_index_template="{{ task.aws_conn_id }} {{ task.region_name }}",
        dimensions=options("sagemaker", "dimensions"),
        jobs=options("sagemaker", "jobs"),
        lookback_s=int(option("sagemaker", "lookback_s")),
        silent_every_s=int(option("sagemaker", "silent_every_s")),
    ).expand(aws_conn_id=options("sagemaker", "connections"), region_name=options("sagemaker", "regions"))
