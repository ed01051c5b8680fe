"""How the command `airis` ends: what it leaves behind, what it says when it is stopped, and when there is nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_airis.routes.matching import parse_matchers
from tests.conftest import Hub
from tests.unit.test_cli import airis

AIRIS = (sys.executable, "-m", "airflow_provider_airis.cli")
HUB_FILES = {"airis-hub.db", "airis-hub.db-shm", "airis-hub.db-wal", "airis-hub.db.lock", "airis-hub-tokens.json"}


def hub_in(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*AIRIS, "hub", *arguments], cwd=folder, capture_output=True, text=True, timeout=120)


@pytest.fixture
def taken() -> Iterator[int]:
    """A port at which somebody else listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("--port", "99999"), 2, "'99999' is no port, 0 to 65535"),
        (("--port", "-1"), 2, "--port"),
        (("--port", "http"), 2, "'http' is no port"),
        (("--port", "{taken}"), 1, "cannot listen on 127.0.0.1 port {taken}: address already in use"),
        (("--port", "0", "--host", "no-host.invalid"), 1, "cannot listen on 'no-host.invalid': "),
        (("--port", "0", "--database", "sqlite:////nonexistent/hub.db"), 1, "the store is not reachable"),
        (("--port", "0", "--database", "mysql://x"), 1, "not in 'mysql'"),
        (("--port", "0", "--database-password-file", "none"), 1, "'none'"),
        (("--port", "0", "--tokens", "nowhere/tokens.json"), 1, "nowhere/tokens.json"),
    ],
)
def test_a_hub_that_cannot_start_says_why_and_leaves_nothing(
    tmp_path: Path, taken: int, arguments: tuple[str, ...], status: int, said: str
) -> None:
    ended = hub_in(tmp_path, *(word.format(taken=taken) for word in arguments))
    assert ended.returncode == status
    assert said.format(taken=taken) in ended.stderr
    assert "Traceback" not in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_hub_that_cannot_start_keeps_the_tokens_that_were_there(tmp_path: Path) -> None:
    tokens = tmp_path / "airis-hub-tokens.json"
    tokens.write_text(json.dumps({"me": {"token": "x" * 16, "scopes": ["read"]}}))
    tokens.chmod(0o600)
    assert hub_in(tmp_path, "--port", "0", "--database", "sqlite:////nonexistent/hub.db").returncode == 1
    assert tokens.read_text().startswith('{"me"')


@pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")
def test_what_a_hub_writes_where_it_is_started_is_ignored_by_git(tmp_path: Path) -> None:
    with subprocess.Popen([*AIRIS, "hub", "--port", "0"], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as hub:
        assert hub.stdout
        assert hub.stdout.readline().startswith("ready ")
        written = {path.name for path in tmp_path.iterdir()}
        hub.send_signal(signal.SIGINT)
        assert hub.wait(60) == 0
    assert written == HUB_FILES
    shutil.copy(Path(__file__).parents[2] / ".gitignore", tmp_path)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    names = subprocess.run(
        ["git", "check-ignore", *HUB_FILES], cwd=tmp_path, check=True, capture_output=True, text=True
    ).stdout
    assert set(names.split()) == HUB_FILES


def test_ctrl_c_ends_a_command_without_a_traceback(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(120)
        connection = {"conn_type": "airis", "host": f"http://127.0.0.1:{silent.getsockname()[1]}", "password": "x"}
        environment = {**os.environ, "AIRFLOW_HOME": str(tmp_path), "AIRFLOW_CONN_MINE": json.dumps(connection)}
        check = subprocess.Popen(
            [*AIRIS, "check", "mine"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        waiting, _ = silent.accept()
        check.send_signal(signal.SIGINT)
        _, said = check.communicate(timeout=60)
        waiting.close()
    assert check.returncode == 128 + signal.SIGINT
    assert "Traceback" not in said
    assert "KeyboardInterrupt" not in said


# Of the help that nobody reads, argparse says nothing.
@pytest.mark.parametrize(("arguments", "status"), [(("systems",), 128 + signal.SIGPIPE), (("--help",), 0)])
def test_a_reader_that_has_gone_is_no_traceback(arguments: tuple[str, ...], status: int) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    ended = subprocess.run([*AIRIS, *arguments], stdout=writes, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writes)
    assert (ended.returncode, ended.stderr) == (status, "")


def test_silences_are_listed_and_that_there_is_none_is_said(hub: Hub, tmp_path: Path) -> None:
    connection = {"conn_type": "airis", "host": hub.url, "password": hub.token}
    mine = {"AIRFLOW_CONN_AIRIS_DEFAULT": json.dumps(connection)}
    shown = airis("silence", "list", home=tmp_path, **mine)
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, "", "No silence is active or pending.\n")
    made = airis("silence", "add", "team=ml", "--comment", "why", "--by", "ana", home=tmp_path, **mine).stdout.strip()
    shown = airis("silence", "list", home=tmp_path, **mine)
    assert re.fullmatch(rf'{made}  until \S+  team="ml"  ana: why\n', shown.stdout)
    assert shown.stderr == ""


@pytest.mark.parametrize("command", [("check",), ("silence", "list")])
def test_a_database_of_airflow_that_does_not_answer_is_told_as_that(tmp_path: Path, command: tuple[str, ...]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    url = f"postgresql+psycopg2://airflow:s3cret@127.0.0.1:{port}/airflow"
    shown = airis(*command, home=tmp_path, AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=url)
    assert shown.returncode == 1
    assert f"port {port} failed" in shown.stderr
    assert "does not exist" not in shown.stderr
    assert "s3cret" not in shown.stderr


@pytest.mark.parametrize("matcher", ['severity="high', 'severity=~"a', '"team=ml', 'a=b, c="d'])
def test_a_quote_that_is_not_closed_is_told_as_that(matcher: str) -> None:
    with pytest.raises(ValueError, match=r"as the quote at '.*' is not closed$"):
        parse_matchers(matcher)
