"""docker-compose.yaml is valid, and runs what the demo runs: the same commands, settings, versions and connections.

``fixtures/compose-spec.json`` is the schema of https://github.com/compose-spec/compose-spec (Apache-2.0), as the
package check-jsonschema 0.39.0 carries it.
"""

from __future__ import annotations

import json
import re
import shlex
import socket
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import pytest
import yaml

from sandbox import compose, topology
from sandbox.process import ROOT, Server

FIXTURES = Path(__file__).parent.parent / "fixtures"
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
FAKES = compose.services()
SERVERS = ["hub", *FAKES]


def arguments(service: str) -> list[str]:
    """A service's command, word by word, as its shell would take it."""
    command: list[str] = SERVICES[service]["command"]
    return shlex.split(command[2].removeprefix("exec ")) if command[:2] == ["bash", "-c"] else command


def ports(service: str) -> list[int]:
    """Where it listens."""
    return [peer.port for peer in FAKES[service]] if service in FAKES else [8790]


def test_it_is_valid() -> None:
    schema = json.loads((FIXTURES / "compose-spec.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(COMPOSE)


@pytest.mark.parametrize("component", topology.COMPONENTS)
def test_airflow_runs_as_in_the_demo(component: str) -> None:
    service = SERVICES[component]
    assert service["command"] == ["airflow", *topology.COMPONENTS[component]]
    settings = topology.airflow_settings(
        "/secrets", host="0.0.0.0", port=8080, url="http://127.0.0.1:8080", inside="http://api-server:8080"
    )
    own = {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_CMD": "cat /secrets/sql_alchemy_conn"}
    assert service["environment"] == settings | own


def test_the_database_is_migrated_first() -> None:
    script = SERVICES["database-init"]["command"][2]
    assert shlex.split(script)[:3] == ["airflow", *topology.MIGRATE]
    for component in topology.COMPONENTS:
        assert SERVICES[component]["depends_on"]["database-init"] == {"condition": "service_completed_successfully"}


def test_the_parts_that_follow_from_the_fake_servers_are_current() -> None:
    text = compose.FILE.read_text()
    assert compose.written(text) == text, "run: make tables"


@pytest.mark.parametrize("name", SERVERS)
def test_servers_run_as_in_the_demo(name: str) -> None:
    own = ["--port=8790", *topology.hub_arguments("/secrets", "/data/hub.db")]
    module = "airflow_provider_airis.hub"
    if peers := FAKES.get(name):
        ((module, *own),) = topology.commands(peers, lambda peer: peer.port, **compose.PLACES).values()
    assert arguments(name) == ["python", "-m", module, "--host=0.0.0.0", *own]


@pytest.mark.parametrize("name", SERVERS)
def test_servers_take_their_arguments(name: str, tmp_path: Path) -> None:
    topology.generate_secrets(tmp_path)
    command = SERVICES[name]["command"]
    script = command[2].removeprefix("exec ") if command[0] == "bash" else shlex.join(command)
    for inside, outside in {
        "0.0.0.0": "127.0.0.1",
        **{str(port): "0" for port in ports(name)},
        "/secrets": str(tmp_path),
        "/data": str(tmp_path),
        "$$": "$",
    }.items():
        script = script.replace(inside, outside)
    module, *rest = script.removeprefix("python -m ").split(maxsplit=1)
    words = subprocess.run(["bash", "-c", f"printf '%s\\n' {rest[0]}"], capture_output=True, text=True, check=True)
    if missing := [peer.needs for peer in FAKES.get(name, ()) if peer.missing]:
        pytest.skip(f"{missing[0]} is not installed")
    with Server(module, *words.stdout.splitlines()) as server:
        for url in server.urls.values() or [server.url]:
            socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=5).close()
        assert server.urls.keys() == {peer.stem for peer in FAKES.get(name, ()) if peer.shares}


def test_secrets_are_generated_and_connections_lead_to_the_services(tmp_path: Path) -> None:
    command = [str(tmp_path) if word == "/secrets" else word for word in SERVICES["secrets"]["command"][1:]]
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True, timeout=60)
    first = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True, timeout=60)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == first

    connections = json.loads(first["connections.json"])
    urls = []
    for connection in connections.values():
        extra = json.loads(connection.get("extra", "{}"))
        addresses = [extra.get(name) for name in ("endpoint_url", "monitoring_endpoint", "base_url")]
        host = "//{host}:{port}".format_map(connection) if "port" in connection else connection.get("host")
        urls.append(next(filter(None, [host, *addresses])))
    reached = {(urlsplit(url).hostname, urlsplit(url).port) for url in urls}
    assert reached == {(name, port) for name in SERVERS for port in ports(name)}
    for path in set(re.findall(r"/secrets/(\w+(?:\.json)?)(?!/)\b", (ROOT / "docker-compose.yaml").read_text())):
        assert path in first or path in {peer.stem for peer in topology.PEERS}


def test_what_is_published_is_so_on_loopback_only() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    wanted = {"api-server": [8080], "hub": ports("hub")}
    wanted |= {name: [peer.port for peer in peers if peer.published] for name, peers in FAKES.items()}
    numbers = [number for its in wanted.values() for number in its]
    assert len(set(numbers)) == len(numbers)
    assert published == {name: [f"127.0.0.1:{port}:{port}" for port in its] for name, its in wanted.items() if its}


def test_versions_are_those_tested_with() -> None:
    service = SERVICES["api-server"]
    airflow = version("apache-airflow")
    (base,) = re.findall(r"FROM apache/airflow:(\S+)-python(3\.\d+)", service["build"]["dockerfile_inline"])
    assert base[0] == airflow
    assert f"apache-airflow=={airflow}" in (ROOT / f"constraints-{base[1]}.txt").read_text().splitlines()
    assert f"--constraint constraints-{base[1]}.txt" in service["build"]["dockerfile_inline"]
    assert service["image"] == f"airflow-provider-airis:{version('airflow-provider-airis')}"


def test_nothing_secret_is_in_the_file() -> None:
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            assert not re.search("PASSWORD|TOKEN|SECRET|KEY", name) or name.endswith("_CMD"), (name, value)
