"""A Dag that is scheduled on a sync's asset starts when the sync has brought something, in Airflow's own database."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Hub
from tests.replay import FIXTURES, Case

OWN = """
from airflow.sdk import DAG, task
from airflow_provider_airis.assets import synced

with DAG(dag_id="own", schedule=[synced("mlflow")], catchup=False):

    @task
    def look(triggering_asset_events=None):
        pass

    look()
"""
# What the Dag processor, a task and the scheduler do, one after the other in one process.
PROCESSES = """
import json, sys
from pathlib import Path
from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
from airflow.jobs.job import Job
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from airflow.models.dagrun import DagRun
from airflow.utils.session import create_session
from airflow.utils.sqlalchemy import prohibit_commit

folder, conf = Path(sys.argv[1]), json.loads(sys.argv[2])
DagBundlesManager().sync_bundles_to_db()
bag = DagBag(folder, bundle_path=folder, bundle_name="dags-folder")
assert not bag.import_errors, bag.import_errors
sync_bag_to_db(bag, "dags-folder", None)

def schedule():
    runner = SchedulerJobRunner(job=Job())
    with create_session() as session, prohibit_commit(session) as guard:
        runner._create_dagruns_for_dags(guard, session)
        guard.commit()
    with create_session() as session:
        runs = session.query(DagRun).filter(DagRun.dag_id == "own").all()
        return [[event.extra for event in run.consumed_asset_events] for run in runs]

before = schedule()
state = bag.dags["airis_sync_mlflow"].test(run_conf=conf).state
print("RESULT", json.dumps({"before": before, "state": str(state), "after": schedule()}))
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An Airflow with its own database and the Dags folder of a user."""
    home = tmp_path_factory.mktemp("airflow")
    (home / "dags").mkdir()
    (home / "dags/own.py").write_text(OWN)
    shipped = Path(__file__).parents[2] / "dags/airis_sync.py"
    (home / "dags/airis_sync.py").write_text(shipped.read_text())
    run(home, "-m", "airflow", "db", "migrate")
    return home


def run(home: Path, *arguments: str, **more: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    settings = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
    }
    done = subprocess.run(
        [sys.executable, *arguments], env=environment | settings | more, capture_output=True, text=True, timeout=480
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
    return done.stdout


def sync(home: Path, connections: dict[str, Any]) -> dict[str, Any]:
    """Run the shipped Dag once; what the scheduler made of the user's Dag before and after."""
    conf = {"start": "2026-11-20T10:00:00Z", "end": "2026-11-20T10:05:00Z"}
    more = {f"AIRFLOW_CONN_{conn_id.upper()}": json.dumps(fields) for conn_id, fields in connections.items()}
    said = run(home, "-c", PROCESSES, str(home / "dags"), json.dumps(conf), **more)
    (result,) = [line for line in said.splitlines() if line.startswith("RESULT ")]
    told: dict[str, Any] = json.loads(result.removeprefix("RESULT "))
    return told


def test_a_dag_of_a_users_own_starts_on_what_was_brought_and_not_on_what_failed(home: Path, hub: Hub) -> None:
    case = Case.read(FIXTURES / "mlflow/typical")
    airis = {"airis_default": {"conn_type": "airis", "host": hub.url, "password": hub.token}}
    with case.serve() as server:
        good = sync(home, airis | case.connections(server.url))
    airis["airis_default"]["password"] = "a token that the hub does not know"
    failed = sync(home, airis | case.connections(server.url))

    assert (good["before"], good["state"]) == ([], "success")
    ((event,),) = good["after"]
    assert event["part"] == {"mlflow_conn_id": "mlflow_default"}
    assert event["window"] == "[2026-11-20T10:00:00Z, 2026-11-20T10:05:00Z)"
    assert (event["points"] > 0, event["events"] > 0, event["rejected"]) == (True, True, 0)
    assert (failed["state"], failed["after"]) == ("failed", good["after"])


# As a scheduler, then as what it forks; prints which packages that had to load.
LOADS = """
import sys
from airflow.jobs.job import Job
from airflow_provider_airis.plugins.preload import on_starting
on_starting(Job())
before = set(sys.modules)
from airflow_provider_airis.shipped import collect, rows
for kind in ("sync", "reconcile"):
    for system in rows(kind):
        collect(system, kind)
new = {name.partition(".")[0] for name in set(sys.modules) - before}
print("RESULT", sorted(new & {"boto3", "botocore", "google", "gcloud", "aiohttp", "sqlalchemy"}))
"""


def test_who_forks_tasks_has_loaded_what_the_assets_make_airflow_load(home: Path) -> None:
    assert run(home, "-c", LOADS).splitlines()[-1] == "RESULT []"
