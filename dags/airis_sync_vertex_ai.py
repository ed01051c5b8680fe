"""Vertex AI's endpoint metrics into the hub, every five minutes."""

from airflow.sdk import DAG

from airflow_provider_airis.operators.vertex_ai import VertexAIToAirisOperator
from airflow_provider_airis.settings import option, options, sync_schedule

with DAG(
    dag_id="airis_sync_vertex_ai",
    schedule=sync_schedule("vertex_ai"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3},
    tags=["airis", "vertex_ai"],
    doc_md=__doc__,
):
    VertexAIToAirisOperator.partial(
        task_id="vertex_ai_to_airis",
        map_index_template="{{ task.project_id or task.gcp_conn_id }}",
        locations=options("vertex_ai", "locations"),
        lookback_s=int(option("vertex_ai", "lookback_s")),
    ).expand(project_id=options("vertex_ai", "projects") or [None])
