"""The users of Active Directory, or of another LDAP directory, into the hub: everybody, once a day.

Finds who is no longer there, and deactivates them in the hub. A directory that suddenly looks much smaller is not
believed: the task fails and says how many are missing. A directory shows its present only: there is nothing to
backfill.
"""

from airflow.sdk import DAG

from airflow_provider_airis.operators.active_directory import ActiveDirectoryToAirisOperator, configured
from airflow_provider_airis.settings import reconcile_schedule

with DAG(
    dag_id="airis_reconcile_active_directory",
    schedule=reconcile_schedule("active_directory"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3},
    tags=["airis", "active_directory"],
    doc_md=__doc__,
):
    ActiveDirectoryToAirisOperator.partial(
        task_id="active_directory_to_airis", mode="full", map_index_template="{{ task.source }}"
    ).expand_kwargs(configured())
