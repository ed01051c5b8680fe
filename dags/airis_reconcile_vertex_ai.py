"""Vertex AI's endpoint metrics into the hub, a whole UTC day at a time.

Takes the points that came late and fills the gaps that outages left. This is also the Dag to backfill:
`airflow backfill create --dag-id airis_reconcile_vertex_ai --from-date 2026-11-01 --to-date 2026-11-30`
reads thirty days in thirty runs. Delivering a day again changes nothing in the hub.
"""

from airflow.sdk import DAG

from airflow_provider_airis.operators.vertex_ai import VertexAIToAirisOperator
from airflow_provider_airis.settings import options, reconcile_schedule

with DAG(
    dag_id="airis_reconcile_vertex_ai",
    schedule=reconcile_schedule("vertex_ai"),
    catchup=False,
    max_active_runs=4,
    default_args={"retries": 3},
    tags=["airis", "vertex_ai"],
    doc_md=__doc__,
):
    VertexAIToAirisOperator.partial(
        task_id="vertex_ai_to_airis",
        map_index_template="{{ task.project_id or task.gcp_conn_id }}",
        locations=options("vertex_ai", "locations"),
    ).expand(project_id=options("vertex_ai", "projects") or [None])
