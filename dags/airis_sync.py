"""What is new in a system, read and delivered into the hub every few minutes.

A window that the source has published is read once, and points that came late within its lookback again. What fails is
tried again three times; of a source with a history the next runs read it again, since they look back: a region that
does not answer holds back no other. What is missing for longer comes with the daily `airis_reconcile_…`.

To change what is read or how often, configure it: this file makes a Dag for every system of the catalog, and all that
differs between them is in `airflow.cfg`. For a Dag that is otherwise of your own, copy the file into your Dags folder,
put `system = BY_STEM["sagemaker"]` in place of the loop, and another `dag_id`.
"""

from airflow.sdk import DAG

from airflow_provider_airis.settings import sync_schedule
from airflow_provider_airis.shipped import collect, described, limit, rows

for system in rows("sync"):
    with DAG(
        dag_id=system.dags["sync"],
        schedule=sync_schedule(system.stem),
        catchup=False,
        max_active_runs=1,
        # Tries would keep the run open, and with it every other part's next one.
        default_args={
            "retries": 0 if system.source.kind == "history" else 3,
            "execution_timeout": limit(system.stem, "sync"),
        },
        **described(system.stem, "sync", __doc__),
    ):
        collect(system, "sync")
