"""What every shipped Dag must be: it parses without a network, a connection or a warning, and explains itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_airis.catalog import SYSTEMS, System
from airflow_provider_airis.catalog.dags import about
from airflow_provider_airis.operators.dispatch import AirisDispatchOperator

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "airflow_provider_airis" / "example_dags").glob("*.py"))
DAG_FILES = [*sorted((ROOT / "dags").glob("*.py")), *EXAMPLES]

# Parses one Dag file as the Dag processor does, in a process that may neither reach for a network nor for a connection.
PARSE = """
import json, sys, warnings
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
bag = DagBag(sys.argv[1], bundle_path=__import__("pathlib").Path(sys.argv[1]).parent)
print(json.dumps({
    "errors": bag.import_errors,
    "warnings": [str(w) for ws in bag.captured_warnings.values() for w in ws],
    "dags": {dag.dag_id: DagSerialization.to_dict(dag)["dag"] for dag in bag.dags.values()},
}, default=str))
"""


# A Dag a system, and a kind of it, in the file of the kind.
DERIVED = {f"airis_{kind}": kind for kind in ("sync", "reconcile", "dispatch", "export")}
OF_SYSTEMS = [(system, kind) for system in SYSTEMS for kind in system.dags]
each_file = pytest.mark.parametrize("name", [path.stem for path in DAG_FILES])
each_dag = pytest.mark.parametrize(("system", "kind"), OF_SYSTEMS, ids=[f"{s.stem}-{kind}" for s, kind in OF_SYSTEMS])


def parse(path: Path, **environment: str) -> dict[str, Any]:
    command = [sys.executable, "-c", PARSE, str(path)]
    environment = {**os.environ, **environment}
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr[-4000:]
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


@pytest.fixture(scope="module")
def parsed() -> dict[str, dict[str, Any]]:
    return {path.stem: parse(path) for path in DAG_FILES}


@pytest.fixture(scope="module")
def dags(parsed) -> dict[str, dict[str, Any]]:
    found = [dag for result in parsed.values() for dag in result["dags"].items()]
    assert len({dag_id for dag_id, _ in found}) == len(found)
    return dict(found)


def tasks(dag: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """A Dag's tasks; of a mapped one, what is shared by all that it becomes."""
    serialized = [task["__var"] for task in dag["tasks"]]
    return {task["task_id"]: task | task.get("partial_kwargs", {}) for task in serialized}


def seconds(task: dict[str, Any]) -> float | None:
    """How long a task may take."""
    limit = task.get("execution_timeout")
    return limit["__var"] if isinstance(limit, dict) else limit


@each_file
def test_a_file_parses_and_holds_the_dags_that_it_is_named_after(parsed, name):
    assert parsed[name]["errors"] == {}
    assert parsed[name]["warnings"] == []
    kind = DERIVED.get(name)
    expected = {system.dags[kind] for system in SYSTEMS if kind in system.dags} if kind else {name}
    assert parsed[name]["dags"].keys() == expected


def test_a_task_makes_no_dag_but_its_own():
    """It parses its Dag's file anew, and names itself while it does."""
    found = parse(ROOT / "dags/airis_sync.py", _AIRFLOW_PARSING_CONTEXT_DAG_ID="airis_sync_mlflow")
    assert (list(found["dags"]), found["errors"]) == (["airis_sync_mlflow"], {})


def test_every_dag_of_a_row_is_there(dags):
    assert {dag_id for system in SYSTEMS for dag_id in system.dags.values()} <= dags.keys()


@each_file
def test_a_dag_explains_itself_and_is_safe_to_enable(parsed, name):
    for dag in parsed[name]["dags"].values():
        assert "airis" in dag["tags"]
        assert dag["doc_md"]
        assert dag.get("catchup", False) is False
        assert dag["max_active_runs"] <= 4


@each_dag
def test_a_dag_says_what_its_row_says(dags, system: System, kind: str):
    said, dag = about(system, kind), dags[system.dags[kind]]
    assert dag["dag_display_name"] == said.title
    assert dag["description"] == said.description
    assert (system.export.summary if kind == "export" else system.summary)[1:] in said.description
    assert {"airis", system.stem, system.category} < set(dag["tags"])
    assert len({"inbound", "outbound"} & set(dag["tags"])) == 1
    for piece in (f"`{system.default_conn_id}`", f"[{system.section}]", system.url, f"docs/systems/{system.stem}.md"):
        assert piece in dag["doc_md"]


def test_a_dag_leads_to_the_documentation_and_the_connection_where_they_are_published():
    found = parse(
        ROOT / "dags/airis_sync.py",
        AIRFLOW__AIRIS__DOCS_URL="https://docs.example.com/airis/",
        AIRFLOW__API__BASE_URL="https://airflow.example.com/prod",
    )
    doc = found["dags"]["airis_sync_sagemaker"]["doc_md"]
    assert "[Amazon SageMaker](https://docs.example.com/airis/systems/sagemaker.html)" in doc
    assert "[`aws_default`](https://airflow.example.com/prod/connections?name_pattern=aws_default)" in doc


@pytest.mark.parametrize("name", [path.stem for path in DAG_FILES if path not in EXAMPLES])
def test_every_task_has_a_limit_of_time(parsed, name):
    """Except for a loop's sensor: it waits for as long as nothing happens, and no worker waits with it."""
    limits = {
        f"{dag_id}.{task_id}": seconds(task)
        for dag_id, dag in parsed[name]["dags"].items()
        for task_id, task in tasks(dag).items()
        if not task.get("start_from_trigger")
    }
    assert limits
    assert [which for which, limit in limits.items() if not limit] == []


def test_a_dispatch_ends_by_itself_before_it_is_ended(dags):
    run_s = AirisDispatchOperator(task_id="any", system="slack").max_run_s
    for system in SYSTEMS:
        if system.channel:
            assert seconds(tasks(dags[system.dags["dispatch"]])["deliver"]) >= run_s + 60


@pytest.mark.parametrize("name", [path.stem for path in EXAMPLES])
def test_an_example_waits_until_somebody_wants_it(parsed, name):
    assert parsed[name]["dags"][name]["is_paused_upon_creation"] is True
    assert "example" in parsed[name]["dags"][name]["tags"]


@pytest.mark.parametrize("system", [s for s in SYSTEMS if s.source], ids=lambda system: system.stem)
def test_every_source_announces_what_it_has_brought(dags, system: System):
    for kind in {"sync", "reconcile"} & system.dags.keys():
        (task,) = tasks(dags[system.dags[kind]]).values()
        assert [outlet["__var"]["uri"] for outlet in task["outlets"]] == [f"airis://{kind}/{system.stem}"]


@pytest.mark.parametrize("system", [s for s in SYSTEMS if s.channel], ids=lambda system: system.stem)
def test_every_receiver_has_a_loop_of_its_own(dags, system):
    dag = dags[system.dags["dispatch"]]
    assert "StandbyContinuousTimetable" in str(dag["timetable"])
    assert dag["max_active_runs"] == 2
    found = tasks(dag)
    assert list(found) == ["wait", "deliver"]
    assert found["wait"]["downstream_task_ids"] == ["deliver"]
    assert found["wait"]["start_from_trigger"] is True
    assert found["wait"]["start_trigger_args"]["trigger_kwargs"]["__var"]["system"] == system.stem
    assert found["deliver"]["system"] == system.stem
    # It is about many alerts: no link to one.
    assert not found["deliver"].get("_operator_extra_links")
    assert not any(task.get("retries") for task in found.values())


@each_file
def test_a_loop_has_a_start_date(parsed, name):
    """Without one, Airflow gives the second run the first one's logical date, and the loop ends after one run."""
    for dag in parsed[name]["dags"].values():
        if "ContinuousTimetable" in str(dag["timetable"]):
            assert dag["start_date"]
