"""The hub's alerts to a receiving system, as they change.

A loop: `wait` sleeps in the triggerer until the change feed holds something new; `deliver` sends it, and whatever
follows closely, then commits its offset in the feed. What a crash leaves is read again, and what was sent already is
not sent twice. Two runs are active: one delivers, under a lease of the hub, and the other stands by in the triggerer.
While the system does not answer, its deliveries wait, and this Dag's runs are red.

This file makes a Dag for every system of the catalog that takes alerts: whom each delivers to, and of which
severities, is configured or a matter of the routes. For a Dag of your own, copy it into your Dags folder, put
`system = BY_STEM["slack"]` in place of the loop and another `dag_id`, and leave the shipped Dag paused: two Dags of
one system share its offset.
"""

from datetime import UTC, datetime

from airflow.sdk import DAG

from airflow_provider_airis.operators.dispatch import AirisDispatchOperator
from airflow_provider_airis.sensors.alerts import AirisAlertSensor
from airflow_provider_airis.shipped import described, limit, rows
from airflow_provider_airis.timetables import StandbyContinuousTimetable

for system in rows("dispatch"):
    with DAG(
        dag_id=system.dags["dispatch"],
        # One run delivers; another waits, deferred, and takes over should that one's worker die.
        schedule=StandbyContinuousTimetable(),
        # Without one, Airflow gives the second run the first one's logical date, and never creates it.
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        catchup=False,
        max_active_runs=2,
        # The next run goes on at once, which is better than a try of this one after a pause.
        default_args={"retries": 0},
        **described(system.stem, "dispatch", __doc__),
    ):
        # No limit: a day without an alert is a quiet day, and waiting takes no worker.
        wait = AirisAlertSensor(task_id="wait", system=system.stem)
        deliver = AirisDispatchOperator(
            task_id="deliver", system=system.stem, execution_timeout=limit(system.stem, "dispatch")
        )
        wait >> deliver
