"""Which way imports point, and how long a file may be. What is not so yet is listed, and the lists only shrink."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "airflow_provider_airis"

# Each room, a module or a package of the provider, and the rooms that it may import from beside itself.
BASICS = {"records", "errors", "formats"}
ROW = BASICS | {"catalog"}
CLIENTS = ROW | {"hooks", "routes"}
# What only Airflow loads may read its configuration.
AIRFLOW = CLIENTS | {"settings", "timetables"}
ALLOWED: dict[str, set[str]] = {
    "records": set(),
    "errors": set(),
    "formats": set(),
    "timetables": set(),
    "dag_bundle": set(),
    "catalog": set(),
    "provider_info": {"catalog"},
    "settings": ROW | {"timetables"},
    "routes": ROW,
    "hooks": BASICS | {"routes"},
    "hub": BASICS | {"routes"},
    "sources": ROW | {"hooks"},
    "channels": ROW | {"hooks"},
    "webhooks": CLIENTS,
    "receive": CLIENTS,
    # A system's limits and texts are those of its channel.
    "exports": CLIENTS | {"channels"},
    "links": AIRFLOW,
    "notifications": AIRFLOW,
    "triggers": AIRFLOW | {"links", "dispatch"},
    "sensors": AIRFLOW | {"links", "triggers"},
    "assets": AIRFLOW | {"triggers"},
    "dispatch": AIRFLOW | {"channels"},
    "operators": AIRFLOW | {"sources", "channels", "exports", "dispatch", "links"},
    "shipped": AIRFLOW | {"operators", "sources", "assets"},
    "planning": AIRFLOW | {"operators", "shipped", "sources"},
    "plugins": AIRFLOW | {"assets", "channels", "dispatch", "webhooks", "receive", "exports"},
    "companion": AIRFLOW | {"hub"},
    "cli": AIRFLOW | {"hub", "planning", "companion"},
    "dags": AIRFLOW | {"operators", "sensors", "shipped"},
    "example_dags": {"assets", "hooks"},
}
# Module and room → what has to move. An entry that is not needed any more fails.
NOT_YET = {
    ("routes.command", "hooks"): "the commands that ask the hub belong to cli",
    ("routes.command", "settings"): "likewise",
    ("routes.command", "airflow"): "likewise",
}
CIRCLES = {
    frozenset({f"{PACKAGE}.routes.config", f"{PACKAGE}.routes.tree"}),
    frozenset({f"{PACKAGE}.hooks.airis.checkpoints", f"{PACKAGE}.hooks.airis.variables"}),
}
WITHOUT_AIRFLOW = {"records", "errors", "formats", "catalog", "routes", "channels", "exports", "hub"}

MOST_LINES = 400
# Files that are longer today. One that fits is taken off.
TOO_LONG = {
    "airflow_provider_airis/hooks/airis/hook.py",
    "airflow_provider_airis/hooks/delivery.py",
    "sandbox/active_directory.py",
    "sandbox/sagemaker/aws.py",
    "sandbox/sagemaker/fleet.py",
    "sandbox/slack.py",
}


class Import(NamedTuple):
    module: str
    imports: str
    typing: bool


def modules() -> dict[str, Path]:
    paths = [*(ROOT / PACKAGE).rglob("*.py"), *(ROOT / "dags").glob("*.py")]
    named = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in sorted(paths)}
    return {name.removesuffix(".__init__"): path for name, path in named.items()}


MODULES = modules()


def imports(module: str) -> Iterator[Import]:
    """Everything that a module imports, wherever in it; ``typing`` if only for the types."""
    tree = ast.parse(MODULES[module].read_text())
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{module} imports relatively"
            full = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else node.module for name in full]
        else:
            continue
        for name in names:
            yield Import(module, name, id(node) in for_types)


def room(module: str) -> str:
    """The room of a module; of others' their package. Ours itself, which holds the version, is none."""
    first, *rest = module.split(".")
    return first if first != PACKAGE else rest[0] if rest else ""


IMPORTS = [found for module in MODULES for found in imports(module)]


def test_every_room_says_what_it_may_import():
    assert {room(module) for module in MODULES} - {""} <= ALLOWED.keys()


def test_the_rooms_have_an_order():
    assert [*TopologicalSorter(ALLOWED).static_order()]


def test_imports_point_one_way():
    wrong = {}
    for found in IMPORTS:
        of, to = room(found.module), room(found.imports)
        outside = to not in ALLOWED and not (to == "airflow" and of in WITHOUT_AIRFLOW)
        if of and to and of != to and not outside and to not in ALLOWED.get(of, set()):
            wrong[found.module.removeprefix(f"{PACKAGE}."), to] = found.imports
    assert {key: what for key, what in wrong.items() if key not in NOT_YET} == {}, "move it to where it may be imported"
    assert NOT_YET.keys() - wrong.keys() == set(), "these are so now: take them off the list"


def test_no_modules_import_each_other():
    """Also where each is needed by the other only once it runs."""
    graph = defaultdict(set)
    for found in IMPORTS:
        # A package's own module is loaded before any that is in it.
        if not found.typing and found.imports in MODULES and not found.module.startswith(f"{found.imports}."):
            graph[found.module].add(found.imports)
    circles = set()
    while circle := _circle(graph):
        circles.add(frozenset(circle))
        graph[circle[1]].discard(circle[0])
    assert circles == CIRCLES, "break the new ones; take those that are broken off the list"


def _circle(graph: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


def lengths() -> dict[str, int]:
    files = [path for folder in (PACKAGE, "dags", "sandbox") for path in (ROOT / folder).rglob("*.py")]
    return {path.relative_to(ROOT).as_posix(): path.read_bytes().count(b"\n") for path in files}


def test_no_file_is_too_long():
    long = {name for name, lines in lengths().items() if lines > MOST_LINES}
    assert long - TOO_LONG == set(), f"a file has at most {MOST_LINES} lines: split it"
    assert TOO_LONG - long == set(), "these fit now: take them off the list"
