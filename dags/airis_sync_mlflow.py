"""What changes in the MLflow model registry, into the hub, every five minutes.

Each change since the last run is an event: models, versions, their status and stage, aliases. What was known last is
what the hub has, so a restart neither repeats a change nor misses one. The metrics of new versions' runs come along.
"""

from airflow.sdk import DAG

from airflow_provider_airis.operators.mlflow import MLflowToAirisOperator
from airflow_provider_airis.settings import option, options, sync_schedule

with DAG(
    dag_id="airis_sync_mlflow",
    schedule=sync_schedule("mlflow"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3},
    tags=["airis", "mlflow"],
    doc_md=__doc__,
):
    MLflowToAirisOperator.partial(
        task_id="mlflow_to_airis",
        map_index_template="{{ task.mlflow_conn_id }}",
        max_missing_share=float(option("mlflow", "max_missing_share")),
        max_missing=int(option("mlflow", "max_missing")),
    ).expand(mlflow_conn_id=options("mlflow", "connections"))
