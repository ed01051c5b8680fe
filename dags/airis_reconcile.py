"""What a system holds, read as a whole and delivered into the hub once a day.

Of a system with a history this is a UTC day at a time: it takes the points that came late and fills the gaps that
outages left. It is also the Dag to backfill:
`airflow backfill create --dag-id airis_reconcile_sagemaker --from-date 2026-11-01 --to-date 2026-11-30`
reads thirty days in thirty runs. Delivering a day again changes nothing in the hub.

Of a directory it is everybody: whoever is no longer there is deactivated in the hub. A directory that suddenly looks
much smaller is refused: the task fails and says how many are missing. Only its present can be read, so there is nothing
to backfill.
"""

from airflow.sdk import DAG

from airflow_provider_airis.settings import reconcile_schedule
from airflow_provider_airis.shipped import collect, described, limit, rows

for system in rows("reconcile"):
    with DAG(
        dag_id=system.dags["reconcile"],
        schedule=reconcile_schedule(system.stem),
        catchup=False,
        # The days of a backfill may be read side by side; the present is read by one.
        max_active_runs=4 if system.source.kind == "history" else 1,
        default_args={"retries": 3, "execution_timeout": limit(system.stem, "reconcile")},
        **described(system.stem, "reconcile", __doc__),
    ):
        collect(system, "reconcile")
