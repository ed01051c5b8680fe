"""The provider as users get it: its wheel, installed beside Airflow into an environment that holds nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_airis import __version__
from airflow_provider_airis.catalog import SYSTEMS
from sandbox.airflow import Airflow
from sandbox.process import ROOT

pytestmark = pytest.mark.e2e
DAGS = {"airis_fill_gaps"} | {dag_id for system in SYSTEMS for dag_id in system.dags.values()}


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command outside the checkout, so that nothing is imported from there."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "PYTHONPATH"))}
    done = subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def bin_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tmp = tmp_path_factory.mktemp("wheel")
    uv = Path(sys.executable).with_name("uv")
    constraints = ROOT / f"constraints-{sys.version_info[0]}.{sys.version_info[1]}.txt"
    run(uv, "build", "-q", "--wheel", "--no-build-isolation", "--python", sys.executable, "-o", tmp / "dist", ROOT)
    (wheel,) = (tmp / "dist").glob("*.whl")
    run(uv, "venv", "-q", "--python", sys.executable, tmp / "venv")
    python = tmp / "venv" / "bin" / "python"
    run(uv, "pip", "install", "-q", "--python", python, "-c", constraints, f"{wheel}[all]")
    return python.parent


@pytest.fixture(scope="module")
def airflow(bin_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    home = tmp_path_factory.mktemp("airflow") / "home"
    with Airflow(home, python=str(bin_directory / "python")) as airflow:
        airflow.migrate()
        airflow.start()
        airflow.wait()
        yield airflow


def test_airflow_lists_the_provider(bin_directory: Path) -> None:
    listed = json.loads(run(bin_directory / "airflow", "providers", "list", "--output", "json").stdout)
    (provider,) = [row for row in listed if row["package_name"] == "airflow-provider-airis"]
    assert provider["version"] == __version__


def test_the_connection_form_is_offered(airflow: Airflow) -> None:
    forms = {form["connection_type"]: form for form in airflow.api.get("/ui/connections/hook_meta").json()}
    airis = forms["airis"]
    assert airis["hook_name"] == "AIRIS-MON"
    assert airis["standard_fields"]["host"]["title"] == "Base URL"
    assert airis["standard_fields"]["password"]["title"] == "Token"
    assert {"verify", "timeout", "compression", "consumer"} <= airis["extra_fields"].keys()
    assert all(field["description"] for field in airis["extra_fields"].values())
    assert {system.connection.type for system in SYSTEMS} <= forms.keys()


def test_the_dags_appear_paused_through_the_bundle(airflow: Airflow) -> None:
    deadline = time.monotonic() + 120
    dags: dict[str, dict[str, object]] = {}
    while not dags.keys() >= DAGS and time.monotonic() < deadline:
        dags = {dag["dag_id"]: dag for dag in airflow.call("GET", "/dags")["dags"]}
        errors = airflow.call("GET", "/importErrors")["import_errors"]
        assert errors == []
        time.sleep(0.5)
    assert dags.keys() == DAGS
    assert {(dag["bundle_name"], dag["is_paused"]) for dag in dags.values()} == {("airis", True)}


def test_the_command_explains_itself(bin_directory: Path) -> None:
    help_text = run(bin_directory / "airis", "--help").stdout
    assert all(word in help_text for word in ("hub", "systems", "check"))
    systems = run(bin_directory / "airis", "systems").stdout
    assert all(system.stem in systems for system in SYSTEMS)


def test_no_module_warns_of_deprecations(bin_directory: Path, airflow: Airflow) -> None:
    script = """
import importlib, pkgutil, airflow_provider_airis as package
for module in pkgutil.walk_packages(package.__path__, "airflow_provider_airis."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""
    output = run(bin_directory / "python", "-W", "always", "-c", script)
    said = output.stderr.splitlines()
    for log in airflow.logs.rglob("*.log"):
        said += log.read_text(errors="replace").splitlines()
    assert [line for line in said if "airflow_provider_airis" in line and "Warning" in line] == []
