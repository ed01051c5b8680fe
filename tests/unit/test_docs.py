"""README and docs: every example is run, sent or loaded; tables and quoted messages are the code's."""

from __future__ import annotations

import argparse
import ast
import configparser
import contextlib
import importlib.util
import json
import math
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import httpx2
import msgspec
import pytest
import yaml
from airflow.cli.cli_parser import get_parser
from airflow.configuration import conf
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import Connection
from airflow.serialization.serialized_objects import DagSerialization

from airflow_provider_airis import cli
from airflow_provider_airis.catalog import BY_STEM, SYSTEMS
from airflow_provider_airis.catalog.sagemaker import COMPONENT, VARIANT
from airflow_provider_airis.hooks.airis import AirisHook
from airflow_provider_airis.operators.sagemaker import RETENTION, SageMakerToAirisOperator
from airflow_provider_airis.timetables import DelayedCronDataIntervalTimetable
from airflow_provider_airis.triggers.alerts import Told
from docs import tables
from sandbox.process import Server
from tests.replay import Case

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
DAG_IDS = {"airis_fill_gaps"} | {dag_id for system in SYSTEMS for dag_id in system.dags.values()}

# bash itself takes the commands apart: each is a function that records its arguments, and nothing else can run.
RECORD = """
set -euo pipefail
PATH=
record() { printf '%s\\0' "$#" "$@" >&3; }
for name in airflow airis curl docker make pip python; do eval "$name() { record $name \\"\\$@\\"; }"; done
"""
EXPORTED = """
for name in "${!AIRFLOW@}"; do record export "$name" "${!name}"; done
"""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(*languages: str) -> list[Block]:
    found = []
    for page in tables.pages():
        text = page.read_text()
        for match in BLOCK.finditer(text):
            indent, language, content = match.groups()
            line = text.count("\n", 0, match.start()) + 2
            found.append(Block(page, line, language, re.sub(f"^{indent}", "", content, flags=re.MULTILINE)))
    return [block for block in found if not languages or block.language in languages]


def each(*languages: str) -> Any:
    return pytest.mark.parametrize("block", blocks(*languages), ids=str)


def commands(block: Block) -> list[list[str]]:
    """What a shell block runs and exports, as argument lists."""
    read, write = os.pipe()
    script = f"exec 3>&{write}\n{RECORD}\n{block.text}\n{EXPORTED}"
    environment = {"HUB": "{hub}", "TOKEN": "{token}"}
    done = subprocess.run(
        ["/bin/bash", "-c", script], env=environment, pass_fds=[write], capture_output=True, text=True, timeout=30
    )
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        words = pipe.read().decode().split("\0")[:-1]
    assert done.returncode == 0, done.stderr
    found = []
    while words:
        count = int(words.pop(0))
        found.append(words[:count])
        words = words[count:]
    return found


def load(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def check_connection(conn_id: str, connection: Connection, connect: Callable[..., str]) -> None:
    """It is of a type that a system uses, and that system's hook takes it without opening anything."""
    system = next(s for s in SYSTEMS if connection.conn_type in s.connection.types)
    fields = {name: getattr(connection, name) for name in ("host", "login", "password", "schema", "port")}
    connect(conn_id, conn_type=connection.conn_type, extra=connection.extra_dejson, **fields)
    hook = load(system.hook_class)(conn_id)
    if system.connection.form:
        assert connection.extra_dejson.keys() <= {field.name for field in system.form_fields}
        assert httpx2.URL(hook.base_url).host


def test_every_block_is_of_a_kind_that_is_checked():
    known = {"python", "sh", "sql", "js", "json", "ini", "yaml", "toml", "text"}
    assert {str(block): block.language for block in blocks() if block.language not in known} == {}


@pytest.mark.parametrize("block", [b for b in blocks("python") if b.page.stem != "adding-a-system"], ids=str)
def test_python(block, airis, capsys, tmp_path):
    """It runs, with a hub behind ``airis_default``; a Dag is one that Airflow can store, a task does its work."""
    if "DAG(" in block.text:
        assert dags(block, tmp_path)
    for value in list(run(block).values()):
        if hasattr(value, "function") and block.page.stem != "own-dags":
            assert value.function(3, "manual__1")


def test_own_dags_do_what_their_page_says(airis, capsys):
    """An alert that fires goes through each of its tasks."""
    look, retrain, wait, train, _, fresh = [run(block) for block in blocks("python") if block.page.stem == "own-dags"]
    (payload,) = [json.loads(block.text) for block in blocks("json") if block.page.stem == "own-dags"]
    with AirisHook() as hub:
        alert = hub.fire("drift of age", "high", model_id="credit-risk", alert_type="drift", fingerprint="own-dags")
        change = hub.changes(after=0, limit=5000)[0][-1]
        told = Told(change, hub.dashboard_url(alert.id)).payload
        assert payload.keys() == told.keys()
        assert payload["alert"].keys() <= told["alert"].keys()

        look["look"].function({"any": [SimpleNamespace(extra={"payload": payload})]})
        (drifted,) = [found for found in retrain["drifted"].function() if found["id"] == alert.id]
        retrain["acknowledge"].function(retrain["retrain"].function(drifted))
        assert hub.alert(alert.id).status == "acknowledged"
        assert retrain["DRIFT"].uri == "airis://alerts/drift"
        wait["write_down"].function(drifted)
        train["train"].function()
        assert "credit-risk high 0.31" in (said := capsys.readouterr().out)
        assert "drift of age high {}" in said

        brought = {"part": {"region_name": "eu-west-1"}, "window": "10:00 to 10:05", "points": 42}
        fresh["compare"].function({"any": [SimpleNamespace(extra=brought)]})
        assert "eu-west-1 10:00 to 10:05 42" in capsys.readouterr().out

        about = {"ti": SimpleNamespace(dag_id="train_every_night", task_id="train")}
        train["DEFAULT_ARGS"]["on_failure_callback"](about)
        (alert,) = [alert for alert in hub.alerts(status="firing") if alert.name == "train_every_night.train failed"]
        train["DEFAULT_ARGS"]["on_success_callback"](about)
        assert hub.alert(alert.id).status == "resolved"


def run(block: Block, name: str = "example") -> dict[str, Any]:
    """The names that a block defines, in a module of its own."""
    module = sys.modules[name] = ModuleType(name)
    exec(compile(block.text, str(block), "exec"), module.__dict__)
    return module.__dict__


def dags(block: Block, folder: Path) -> list[str]:
    """The ids of a block's Dags, parsed as the Dag processor does."""
    path = folder / "example_dag.py"
    path.write_text(block.text)
    bag = DagBag(path, bundle_path=folder)
    assert bag.import_errors == {}
    assert all(DagSerialization.to_dict(dag)["dag"]["tasks"] for dag in bag.dags.values())
    return list(bag.dags)


def test_the_guide_to_a_new_system_works(connect, monkeypatch, tmp_path):
    """Its row, hook and operator, put where it says, give the records of its fixtures through a socket."""
    code = [block for block in blocks("python") if block.page.stem == "adding-a-system"]
    case, exchanges, expected = [block.text for block in blocks("json") if block.page.stem == "adding-a-system"]
    row = run(code[0])["ACME"]
    monkeypatch.setitem(BY_STEM, row.stem, row)
    for block, path in zip(code[1:3], (row.hook_class, row.collect_class), strict=True):
        name = path.rpartition(".")[0]
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
        run(block, name)
    found = {dag_id for kind in row.dags for dag_id in DagBag(ROOT / f"dags/airis_{kind}.py", bundle_path=ROOT).dags}
    assert set(row.dags.values()) == {"airis_sync_acme", "airis_reconcile_acme"} < found

    folder = tmp_path / row.stem / "typical"
    folder.mkdir(parents=True)
    for name, text in (("case", case), ("exchanges", exchanges), ("expected", expected)):
        (folder / f"{name}.json").write_text(text)
    golden = Case.read(folder)
    with golden.serve() as server:
        for conn_id, fields in golden.connections(server.url).items():
            connect(conn_id, **fields)
        operator = load(row.collect_class)(task_id="guide", **golden.arguments)
        records = [msgspec.to_builtins(record) for record in operator.collect(operator.window({}))]
    assert operator.failures == {}
    assert records == golden.expected
    assert server.left == []
    assert server.unexpected == []


@each("sh")
def test_shell(block, airis, hub, connect, capsys):
    for command, *arguments in commands(block):
        CHECKS[command](arguments, hub=hub, connect=connect)
    capsys.readouterr()


def check_make(arguments: list[str], **_: Any) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for word in arguments:
        variable, is_variable, _value = word.partition("=")
        if is_variable:
            assert f"$({variable})" in makefile or f"{variable} ?=" in makefile
        else:
            assert re.search(rf"^{word}:.*## ", makefile, re.MULTILINE), f"make has no target {word}"


def check_pip(arguments: list[str], **_: Any) -> None:
    project = PYPROJECT["project"]
    for word in arguments:
        if extras := re.fullmatch(rf"(?:\.|{project['name']})\[(.+)\]", word):
            assert set(extras[1].split(",")) <= project["optional-dependencies"].keys()
        elif word.endswith(".txt"):
            assert (ROOT / word).is_file()


def check_airflow(arguments: list[str], connect: Callable[..., str], **_: Any) -> None:
    with contextlib.redirect_stderr(None):
        parsed = get_parser().parse_args(arguments)
    assert getattr(parsed, "dag_id", None) in (None, *DAG_IDS)
    if arguments[:2] == ["connections", "add"]:
        fields = {name: getattr(parsed, f"conn_{name}") for name in ("type", "host", "login", "password", "extra")}
        check_connection(parsed.conn_id, Connection(conn_id="", conn_type=fields.pop("type"), **fields), connect)


def check_airis(arguments: list[str], **_: Any) -> None:
    command, *rest = arguments
    if command == "hub":
        with contextlib.redirect_stdout(Capture()) as shown, contextlib.suppress(SystemExit):
            cli.main(["hub", "--help"])
        assert all(f"{word} " in shown.text for word in rest if word.startswith("--"))
    elif command == "plan-backfill":
        with contextlib.redirect_stderr(None):
            planned = cli.parser().parse_args(arguments)
        assert planned.first <= planned.last
    elif command in ("routes", "webhooks"):
        cli.parser().parse_args(arguments)
    elif command == "silence":
        assert cli.main(arguments) == 0
    elif rest and rest != ["airis_default"]:
        assert rest[0] in {system.default_conn_id for system in SYSTEMS}
    else:
        assert cli.main(arguments) == 0


class Capture:
    """A file that keeps what is written."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        pass


def check_curl(arguments: list[str], hub: Any, **_: Any) -> None:
    """Send what curl would send to a real hub; it must succeed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--fail-with-body", action="store_true", required=True)
    parser.add_argument("-G", dest="get", action="store_true")
    parser.add_argument("-H", dest="headers", action="append", default=[])
    parser.add_argument("-X", dest="method")
    parser.add_argument("-d", dest="data", action="append", default=[])
    words = [word.replace("{hub}", hub.url).replace("{token}", hub.token) for word in arguments]
    wanted = parser.parse_args(words)
    pairs = [pair.split("=", 1) for pair in wanted.data] if wanted.get else None
    content = None if wanted.get or not wanted.data else "&".join(wanted.data)
    answer = httpx2.request(
        wanted.method or ("POST" if content else "GET"),
        wanted.url,
        params=pairs and [(key, value) for key, value in pairs],
        headers=dict(header.split(": ", 1) for header in wanted.headers),
        content=content,
        timeout=30,
    )
    assert answer.is_success, answer.text


def check_export(arguments: list[str], connect: Callable[..., str], **_: Any) -> None:
    name, value = arguments
    if conn_id := name.removeprefix("AIRFLOW_CONN_") if name.startswith("AIRFLOW_CONN_") else "":
        connection = (
            Connection.from_json(value, conn_id=conn_id.lower())
            if value.startswith("{")
            else Connection.from_uri(value, conn_id=conn_id.lower())
        )
        check_connection(conn_id.lower(), connection, connect)
    else:
        _, section, option = name.split("__")
        check_option(section.lower(), option.lower(), value)


def check_option(section: str, option: str, value: str) -> None:
    """It is one of Airflow's or of the catalog's, and what it names is there."""
    own = {system.section: {option.name for option in system.all_options} for system in SYSTEMS}
    known = own.get(section) or conf.configuration_description[section]["options"]
    assert option in known, f"[{section}] has no option {option}"
    if option == "dag_bundle_config_list":
        assert [load(bundle["classpath"]) for bundle in json.loads(value)]
    elif option == "backend":
        assert load(value)
    elif option == "schedule":
        assert DelayedCronDataIntervalTimetable(value).summary
    elif value.startswith("{"):
        assert json.loads(value)


def check_docker(arguments: list[str], **_: Any) -> None:
    assert arguments[0] == "compose"
    assert (ROOT / "docker-compose.yaml").is_file()


def check_python(arguments: list[str], **_: Any) -> None:
    assert arguments[0] == "-m"
    assert importlib.util.find_spec(arguments[1])


CHECKS: dict[str, Callable[..., None]] = {
    "airflow": check_airflow,
    "airis": check_airis,
    "curl": check_curl,
    "docker": check_docker,
    "export": check_export,
    "make": check_make,
    "pip": check_pip,
    "python": check_python,
}


@each("json", "yaml", "toml")
def test_data(block):
    load_text: dict[str, Callable[[str], Any]] = {"json": json.loads, "yaml": yaml.safe_load, "toml": tomllib.loads}
    assert load_text[block.language](block.text)


@each("ini")
def test_configuration(block):
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(block.text)
    assert parser.sections()
    for section in parser.sections():
        for option, value in parser[section].items():
            check_option(section, option, value)


@pytest.mark.parametrize("page", tables.pages(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_tables_are_current(page):
    assert tables.render(page) == page.read_text(), "run `make tables`"


@pytest.mark.parametrize(("light", "dark"), tables.pictures().items(), ids=lambda path: path.name)
def test_dark_pictures_are_current(light, dark):
    assert dark.read_text() == tables.darken(light), "run `make tables`"


def constants() -> Iterator[str]:
    """Every piece of text in the package's code."""
    for path in (ROOT / "airflow_provider_airis").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def quoted() -> Iterator[Any]:
    """Messages that pages explain: the terms of definition lists and the rows of symptoms."""
    for page in tables.pages():
        for term in re.findall(r"^(`.*)\n: ", page.read_text(), re.MULTILINE):
            for message in re.findall(r"`(.+?)`", term):
                yield pytest.param(message, id=f"{page.stem}: {message}")


@pytest.mark.parametrize("message", quoted())
def test_explained_messages_are_the_codes(message):
    texts = list(constants())
    for status in HTTPStatus:
        message = message.replace(f"{status.value} {status.phrase}", "…")
    for piece in filter(None, (piece.strip() for piece in message.split("…"))):
        assert any(piece in text for text in texts), f"nothing says {piece!r}"


def test_links_of_the_readme_lead_somewhere():
    text = (ROOT / "README.md").read_text()
    targets = [*re.findall(r"\]\(([^)#\s]+)", text), *re.findall(r'(?:src|srcset|href)="([^"#]+)"', text)]
    assert targets
    assert [target for target in targets if "://" not in target and not (ROOT / target).exists()] == []


def documented_calls() -> dict[str, set[str]]:
    """Method and path of every call in the hub's table, and the scopes that it names, any of which will do."""
    calls: dict[str, set[str]] = {}
    rows = re.findall(
        r"^\| (`(?:GET|PUT|POST|DELETE)(?:`| /api).*?) \| ([^|]+) \|", (ROOT / "docs/hub.md").read_text(), re.MULTILINE
    )
    for cell, scope in rows:
        words = re.findall(r"`([^`]+)`", cell)
        path = words[-1].split()[-1]
        calls |= {word if " " in word else f"{word} {path}": set(re.findall(r"\w+", scope)) - {"or"} for word in words}
    return calls


def test_the_calls_of_the_hub_are_all_documented(hub):
    answer = httpx2.get(f"{hub.url}/api/v1/openapi.json", headers={"Authorization": f"Bearer {hub.token}"})
    offered = {
        re.sub(r"\{\w+(:path)?\}", "{}", f"{method.upper()} {path}")
        for path, methods in answer.raise_for_status().json()["paths"].items()
        if path.startswith("/api/")
        for method in methods
    }
    told = {re.sub(r"\{\w+\}", "{}", call) for call in documented_calls()}
    assert told - {"GET /api/v1/openapi.json"} == offered


def test_the_hub_asks_for_the_documented_scopes(tmp_path):
    scopes = ("ingest", "read", "alerts", "admin")
    tokens = {scope: {"token": f"the token for {scope}", "scopes": [scope]} for scope in scopes}
    (tmp_path / "tokens.json").write_text(json.dumps(tokens))
    arguments = ("--port", "0", "--database", f"sqlite:///{tmp_path}/hub.db", "--tokens", f"{tmp_path}/tokens.json")
    with Server("airflow_provider_airis.hub", *arguments, log=tmp_path / "hub.log") as server:
        for call, wanted in documented_calls().items():
            method, path = call.split()
            for scope in scopes:
                headers = {"Authorization": f"Bearer {tokens[scope]['token']}"}
                answer = httpx2.request(method, f"{server.url}{path}", headers=headers, timeout=30)
                assert (answer.status_code == 403) is wanted.isdisjoint({scope, "any", "none"}), f"{call} with {scope}"


def test_the_limits_of_the_hub_are_the_codes(hub):
    answer = httpx2.get(f"{hub.url}/api/v1/capabilities", headers={"Authorization": f"Bearer {hub.token}"})
    limits = answer.raise_for_status().json()["limits"]
    text = " ".join((ROOT / "docs/hub.md").read_text().partition("## Limits")[2].split())
    for piece in (
        f"{limits['body_bytes'] >> 20} MiB",
        f"{limits['tags']} tags",
        f"{limits['text_characters']} characters for source, name and unit",
        f"{limits['tag_key_characters']} for a tag's key",
        f"{limits['tag_value_characters']:,} for its value",
    ):
        assert piece in text
    assert (limits["ahead_ms"], limits["query_points"]) == (600_000, 1_000_000)


def test_the_policy_for_aws_is_what_the_operator_needs():
    (policy,) = [json.loads(b.text) for b in blocks("json") if b.page.stem == "sagemaker" and '"Action"' in b.text]
    actions = [statement["Action"] for statement in policy["Statement"]]
    granted = {action for entry in actions for action in ([entry] if isinstance(entry, str) else entry)}
    assert granted == set(re.findall(r"``((?:sagemaker|cloudwatch):\w+)``", SageMakerToAirisOperator.__doc__))


def test_the_arithmetic_of_the_costs_is_the_catalogs():
    text = (ROOT / "docs/systems/sagemaker.md").read_text()
    variant, component = (
        sum(len(metric.statistics) for metric in BY_STEM["sagemaker"].metrics if dimensions in metric.dimensions)
        for dimensions in (VARIANT, COMPONENT)
    )
    told = f"{variant} queries (metrics and their statistics) a variant and window, and for {component} an inference"
    assert told in " ".join(text.split())
    rows = re.findall(r"^\| .*? \| (\d[^=|]+) = ([\d,]+) \| \$([\d.]+) \|$", text, re.MULTILINE)
    assert len(rows) == 6
    for sums, product, dollars in rows:
        terms = [[int(n) for n in re.findall(r"\d+", term.replace(",", ""))] for term in sums.split("+")]
        assert sum(term[0] for term in terms) == variant
        total = sum(map(math.prod, terms))
        assert total == int(product.replace(",", ""))
        assert float(dollars) == pytest.approx(total / 1000 * 0.01, abs=0.005)


def test_the_widths_by_age_are_the_codes():
    now = datetime.now(UTC)
    rows = re.findall(
        r"^\| up to (\d+) days \| .*? \| `(\d+)` \|$", (ROOT / "docs/backfill.md").read_text(), re.MULTILINE
    )
    assert len(rows) == 3
    for days, period in rows:
        assert RETENTION.finest(now - timedelta(days=int(days), hours=-2), now)[0] == int(period)
        with contextlib.suppress(Exception):
            assert RETENTION.finest(now - timedelta(days=int(days)), now)[0] > int(period)


def test_sphinx_builds_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-d", tmp_path / "trees"]
    done = subprocess.run([*command, "docs", tmp_path / "html"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "html/index.html").is_file()
