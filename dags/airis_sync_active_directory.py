"""The users of Active Directory, or of another LDAP directory, into the hub: what has changed in a quarter of an hour.

The first run reads everybody. Deletions that the directory does not show, and changes of groups, come with
`airis_reconcile_active_directory`. A directory that suddenly looks much smaller is not believed: the task fails.
"""

from airflow.sdk import DAG

from airflow_provider_airis.operators.active_directory import ActiveDirectoryToAirisOperator, configured
from airflow_provider_airis.settings import sync_schedule

with DAG(
    dag_id="airis_sync_active_directory",
    schedule=sync_schedule("active_directory"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3},
    tags=["airis", "active_directory"],
    doc_md=__doc__,
):
    ActiveDirectoryToAirisOperator.partial(
        task_id="active_directory_to_airis", map_index_template="{{ task.source }}"
    ).expand_kwargs(configured())
