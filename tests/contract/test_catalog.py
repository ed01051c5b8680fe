"""What every row of the catalog must be, before anything of it runs."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import tomllib
from importlib.metadata import requires
from pathlib import Path

import airflow
import jsonschema
import pytest
from airflow.sdk.providers_manager_runtime import ProvidersManagerTaskRuntime

from airflow_provider_airis.catalog import SYSTEMS, System
from airflow_provider_airis.provider_info import get_provider_info

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
# An example Dag with an Asset lets Airflow ask every provider for its URI schemes, which is Airflow's own cost.
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "airflow_provider_airis").rglob("*.py")
    if not {"hub", "example_dags"} & set(path.parts) and path.name != "__main__.py"
)
SDKS = PYPROJECT["tool"]["ruff"]["lint"]["flake8-tidy-imports"]["banned-module-level-imports"]

# Runs in a fresh process and prints which banned ones came along. What Airflow itself imports is its own cost.
IMPORTS = """
import sys, importlib
import airflow.sdk, airflow.triggers.base, airflow.plugins_manager
import airflow.dag_processing.bundles.base, airflow.timetables.interval
before = set(sys.modules)
for name in sys.argv[2:]:
    importlib.import_module(name)
banned = tuple(sys.argv[1].split(","))
new = set(sys.modules) - before
print(sorted(n for n in new for b in banned if n == b or n.startswith(b + ".")))
"""

each_system = pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.stem)


def test_the_provider_info_is_what_airflow_accepts():
    schema = Path(airflow.__file__).parent / "provider_info.schema.json"
    jsonschema.validate(get_provider_info(), json.loads(schema.read_text()))


def test_airflow_finds_the_provider_and_its_connection_form():
    manager = ProvidersManagerTaskRuntime()
    assert "airflow-provider-airis" in manager.providers
    for system in SYSTEMS:
        if not system.connection.form:
            continue
        hook = manager.hooks[system.connection.type]
        assert hook is not None
        assert hook.hook_class_name == system.hook_class
        assert hook.hook_name == system.connection.form.title


def test_every_reused_connection_type_belongs_to_what_the_extra_or_airflow_installs():
    types = ProvidersManagerTaskRuntime().hooks
    for system in SYSTEMS:
        if system.connection.form is None:
            owner = types[system.connection.type]
            assert owner is not None, (
                f"{system.stem}: nothing installed owns the connection type {system.connection.type}"
            )
            brought = [*system.requires, *(requires("apache-airflow-core") or [])]
            assert any(requirement.startswith(owner.package_name) for requirement in brought)


def test_the_extras_are_the_catalogs():
    extras = PYPROJECT["project"]["optional-dependencies"]
    assert {stem: tuple(wanted) for stem, wanted in extras.items() if stem not in ("all", "hub", "postgresql")} == {
        system.stem: system.requires for system in SYSTEMS if system.requires
    }
    assert extras["all"] == [f"{PYPROJECT['project']['name']}[{','.join(stem for stem in extras if stem != 'all')}]"]


def test_every_requirement_has_a_floor():
    groups = [PYPROJECT["project"]["dependencies"], *PYPROJECT["project"]["optional-dependencies"].values()]
    bare = [
        wanted
        for group in groups
        for wanted in group
        if ">=" not in wanted and not wanted.startswith("airflow-provider-airis[")
    ]
    assert not bare


def test_stems_are_distinct_and_sorted_by_nothing_but_the_catalog():
    assert len({system.stem for system in SYSTEMS}) == len(SYSTEMS)
    assert len({system.prefix for system in SYSTEMS}) == len(SYSTEMS)


@each_system
def test_one_word_everywhere(system: System):
    for path in filter(None, (system.hook_class, system.collect_class, system.notify_class, system.handler_class)):
        module, name = path.rsplit(".", 1)
        assert hasattr(importlib.import_module(module), name)
    assert (ROOT / f"docs/systems/{system.stem}.md").is_file()
    assert (ROOT / f"tests/fixtures/{system.stem}").is_dir()
    if system.requires:
        assert system.stem in PYPROJECT["project"]["optional-dependencies"]


@each_system
def test_metrics_are_declared_once_and_completely(system: System):
    assert len({metric.name for metric in system.metrics}) == len(system.metrics)
    for metric in system.metrics:
        assert metric.name == metric.name.lower()
        assert metric.unit
        assert metric.origin
        assert metric.description.endswith(".")


def test_no_vendors_sdk_is_imported_with_any_module():
    command = [sys.executable, "-c", IMPORTS, ",".join(SDKS), *MODULES]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip().splitlines()[-1] == "[]"
