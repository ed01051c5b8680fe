"""What every shipped Dag must be: it parses without a network, a connection or a warning, and explains itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_airis.catalog import SYSTEMS

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "airflow_provider_airis" / "example_dags").glob("*.py"))
DAG_FILES = [*sorted((ROOT / "dags").glob("*.py")), *EXAMPLES]

# Parses one Dag file as the Dag processor does, in a process that may neither reach for a network nor for a connection.
PARSE = """
import json, sys, time, warnings
warnings.simplefilter("error", DeprecationWarning)
import airflow.sdk
from airflow.sdk import BaseHook
from airflow.dag_processing.dagbag import DagBag
from airflow.serialization.serialized_objects import DagSerialization

def refuse(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        raise RuntimeError(f"parsing reaches for the network: {event} {args}")

def no_connection(*args, **kwargs):
    raise RuntimeError(f"parsing looks up a connection: {args}")

BaseHook.get_connection = no_connection
sys.addaudithook(refuse)
started = time.perf_counter()
bag = DagBag(sys.argv[1], bundle_path=__import__("pathlib").Path(sys.argv[1]).parent)
seconds = time.perf_counter() - started
print(json.dumps({
    "errors": bag.import_errors,
    "warnings": [str(w) for ws in bag.captured_warnings.values() for w in ws],
    "seconds": seconds,
    "dags": {dag.dag_id: DagSerialization.to_dict(dag)["dag"] for dag in bag.dags.values()},
}, default=str))
"""


@pytest.fixture(scope="module")
def parsed() -> dict[str, dict[str, Any]]:
    results = {}
    for path in DAG_FILES:
        done = subprocess.run(
            [sys.executable, "-c", PARSE, str(path)], capture_output=True, text=True, timeout=120, cwd=ROOT
        )
        assert done.returncode == 0, done.stderr[-4000:]
        results[path.stem] = json.loads(done.stdout.strip().splitlines()[-1])
    return results


@pytest.mark.parametrize("name", [path.stem for path in DAG_FILES])
def test_a_file_holds_the_one_dag_that_it_is_named_after(parsed, name):
    assert parsed[name]["errors"] == {}
    assert parsed[name]["warnings"] == []
    assert list(parsed[name]["dags"]) == [name]


@pytest.mark.parametrize("name", [path.stem for path in DAG_FILES])
def test_a_dag_explains_itself_and_is_safe_to_enable(parsed, name):
    dag = parsed[name]["dags"][name]
    assert "airis" in dag["tags"]
    assert dag["doc_md"]
    assert dag.get("catchup", False) is False
    assert dag["max_active_runs"] <= 4


@pytest.mark.parametrize("name", [path.stem for path in EXAMPLES])
def test_an_example_waits_until_somebody_wants_it(parsed, name):
    assert parsed[name]["dags"][name]["is_paused_upon_creation"] is True
    assert "example" in parsed[name]["dags"][name]["tags"]


def test_every_scheduled_system_has_its_dags(parsed):
    assert {dag_id for system in SYSTEMS for dag_id in system.dags.values()} <= set(parsed)


@pytest.mark.parametrize("system", [s for s in SYSTEMS if s.channel], ids=lambda system: system.stem)
def test_every_receiver_has_a_loop_of_its_own(parsed, system):
    dag_id = system.dags["dispatch"]
    dag = parsed[dag_id]["dags"][dag_id]
    assert "ContinuousTimetable" in str(dag["timetable"])
    assert dag["max_active_runs"] == 1
    tasks = {task["__var"]["task_id"]: task["__var"] for task in dag["tasks"]}
    assert list(tasks) == ["wait", "deliver"]
    assert tasks["wait"]["downstream_task_ids"] == ["deliver"]
    assert tasks["wait"]["start_from_trigger"] is True
    assert tasks["wait"]["start_trigger_args"]["trigger_kwargs"]["__var"]["system"] == system.stem
    assert tasks["deliver"]["system"] == system.stem
    assert not any(task.get("retries") for task in tasks.values())


def test_parse_times_are_shown(parsed, record_property, capsys):
    with capsys.disabled():
        print("\nParsed: " + ", ".join(f"{name} {result['seconds']:.2f} s" for name, result in parsed.items()))


@pytest.mark.parametrize("name", [path.stem for path in DAG_FILES])
def test_a_loop_has_a_start_date(parsed, name):
    """Without one, Airflow gives the second run the first one's logical date, and the loop ends after one run."""
    dag = parsed[name]["dags"][name]
    if "ContinuousTimetable" in str(dag["timetable"]):
        assert dag["start_date"]
