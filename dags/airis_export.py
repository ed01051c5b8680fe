"""What the hub holds and is no alert, to a system that takes it, every few minutes.

The hub's feed of events is read on from where the last run ended. That offset moves only past what the receiver has
accepted or refused: a crash may send the last batch twice, under the same keys, and loses nothing. What is refused is
kept in the hub as events `export_refused`. While the receiver is down this Dag's runs are red and say how much waits.

This file makes a Dag for every system of the catalog with an export. For a Dag of your own, copy it into your Dags
folder, put `system = BY_STEM["pagerduty"]` in place of the loop and another `dag_id`, and leave the shipped Dag paused:
two Dags of one export share its offset.
"""

from airflow.sdk import DAG

from airflow_provider_airis.operators.export import ExportOperator
from airflow_provider_airis.shipped import described, limit, receiver, rows

for system in rows("export"):
    with DAG(
        dag_id=system.dags["export"],
        schedule=system.export.schedule,
        catchup=False,
        max_active_runs=1,
        default_args={"retries": 3, "execution_timeout": limit(system.stem, "export")},
        **described(system.stem, "export", __doc__),
    ):
        ExportOperator(task_id=system.export.what, system=system.stem, conn_id=receiver(system))
