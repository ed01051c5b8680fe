"""The command `airis`, run as users run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_airis import __version__
from airflow_provider_airis.catalog import SYSTEMS, System
from sandbox.airflow import free_port
from sandbox.process import serve
from sandbox.topology import PEERS, arguments, connections, generate_secrets, hub_arguments


def airis(*arguments: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "airflow_provider_airis.cli", *arguments],
        env={**os.environ, "AIRFLOW_HOME": str(home), "NO_COLOR": "1", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_help_and_version(tmp_path: Path) -> None:
    shown = airis("--help", home=tmp_path)
    assert shown.returncode == 0
    assert all(f"\n    {command} " in shown.stdout for command in ("hub", "systems", "check"))
    assert airis("--version", home=tmp_path).stdout == f"airis {__version__}\n"
    assert airis(home=tmp_path).returncode == 2
    assert "--tokens" in airis("hub", "--help", home=tmp_path).stdout


def test_systems_is_the_catalog_and_imports_no_airflow(tmp_path: Path) -> None:
    script = "import sys, airflow_provider_airis.cli as cli; cli.main(['systems']); assert 'airflow' not in sys.modules"
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    header, *rows = shown.stdout.splitlines()
    assert header.split()[:2] == ["SYSTEM", "DIRECTION"]
    assert [row.split()[:3] for row in rows] == [[s.stem, s.flow, s.connection_type] for s in SYSTEMS]


@pytest.mark.parametrize(
    ("connection", "answer"),
    [
        (None, "there is no such connection"),
        ({"conn_type": "ftp", "host": "127.0.0.1"}, "has type 'ftp'"),
        ({"conn_type": "airis", "host": "http://127.0.0.1:{port}", "password": "s3cret-token"}, "127.0.0.1"),
    ],
)
def test_check_says_why_not(tmp_path: Path, connection: dict[str, str] | None, answer: str) -> None:
    text = json.dumps(connection).replace("{port}", str(free_port()))
    shown = airis("check", "my_hub", home=tmp_path, **({"AIRFLOW_CONN_MY_HUB": text} if connection else {}))
    assert shown.returncode == 1
    last = shown.stderr.splitlines()[-1]
    assert last.startswith("my_hub")
    assert answer in last
    assert "s3cret-token" not in shown.stdout + shown.stderr


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, str]]]:
    """The demo's connections, to servers that run."""
    tmp = tmp_path_factory.mktemp("sandbox")
    made = generate_secrets(tmp / "secrets")
    secrets = str(tmp / "secrets")
    times = dict.fromkeys(("history_from", "history_until", "live_from"), "2026-11-19T00:00Z")
    commands = {peer.stem: (peer.module, *arguments(peer, secrets=secrets, **times)) for peer in PEERS}
    hub = ("airflow_provider_airis.hub", *hub_arguments(secrets, tmp / "hub.db"))
    with serve(commands | {"airis": hub}) as servers:
        addresses = {stem: server.url for stem, server in servers.items()}
        yield connections(made, hub=addresses["airis"], dashboard="", peers=addresses)


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.stem)
def test_check_of_what_works(tmp_path: Path, sandbox: dict[str, dict[str, str]], system: System) -> None:
    conn_id = system.default_conn_id
    shown = airis("check", conn_id, home=tmp_path, **{f"AIRFLOW_CONN_{conn_id.upper()}": json.dumps(sandbox[conn_id])})
    assert shown.returncode == 0, shown.stderr
    (line,) = shown.stdout.splitlines()
    assert line.startswith(f"{conn_id} ({system.title}): ")


def test_check_of_a_token_that_is_none(tmp_path: Path, sandbox: dict[str, dict[str, str]]) -> None:
    wrong = sandbox["airis_default"] | {"password": "s3cret-token"}
    shown = airis("check", home=tmp_path, AIRFLOW_CONN_AIRIS_DEFAULT=json.dumps(wrong))
    assert shown.returncode == 1
    assert "token" in shown.stderr
    assert "s3cret-token" not in shown.stdout + shown.stderr
