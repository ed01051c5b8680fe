"""What the hub's process promises: nothing acknowledged is lost, and it ends when told to."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy.engine import make_url

from airflow_provider_airis.hub.api.app import create_app
from airflow_provider_airis.hub.auth import Tokens
from airflow_provider_airis.hub.server import Server as HubServer
from airflow_provider_airis.hub.store.store import Store
from sandbox.process import ROOT, Server
from tests.conftest import Hub
from tests.databases import Databases, PostgresDatabases


@pytest.fixture
def hub(databases: Databases, tmp_path: Path) -> Iterator[Hub]:
    hub = Hub(tmp_path, databases.fresh(tmp_path))
    yield hub
    hub.server.stop()
    databases.drop(hub.database)


def client(hub: Hub) -> httpx2.Client:
    return httpx2.Client(base_url=f"{hub.url}/api/v1", headers={"Authorization": f"Bearer {hub.token}"}, timeout=30)


def body(at: int, value: float = 1) -> dict[str, Any]:
    return {"timestamp": at, "source": "s", "metrics": [{"name": "n", "value": value, "unit": "", "tags": {}}]}


def until(what: Callable[[], Any], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_what_was_acknowledged_survives_sigkill(hub: Hub) -> None:
    acknowledged: list[int] = []
    enough = threading.Event()

    def send(first: int) -> None:
        with client(hub) as connection, suppress(httpx2.TransportError):
            for at in range(first, first + 100_000):
                connection.post("/metrics/ingest", json=body(at)).raise_for_status()
                acknowledged.append(at)
                if len(acknowledged) > 200:
                    enough.set()

    with ThreadPoolExecutor(4) as pool:
        senders = [pool.submit(send, worker * 1_000_000) for worker in range(4)]
        assert enough.wait(30)
        hub.server.kill()
        for sender in senders:
            sender.result(30)
    hub.server = hub.start()
    with client(hub) as connection:
        (series,) = connection.get("/metrics/query").json()["series"]
    held = {at for at, _ in series["points"]}
    assert set(acknowledged) <= held
    # What was under way may have been stored too, but no more than one call a sender.
    assert len(held - set(acknowledged)) <= 4


def test_a_restart_continues_the_feed_and_remembers_answers(hub: Hub) -> None:
    def raise_alert() -> httpx2.Response:
        with client(hub) as connection:
            return connection.post(
                "/alerts", json={"name": "drift", "severity": "low"}, headers={"Idempotency-Key": "first"}
            )

    def feed(after: int = 0) -> list[tuple[int, str]]:
        with client(hub) as connection:
            changes = connection.get("/alerts/changes", params={"after": after}).json()["changes"]
            return [(change["sequence"], change["change"]) for change in changes]

    first = raise_alert()
    with client(hub) as connection:
        connection.put("/consumers/airflow", json={"sequence": 1}).raise_for_status()
    hub.server.kill()
    hub.server = hub.start()
    again = raise_alert()
    assert (again.status_code, again.content) == (201, first.content)
    with client(hub) as connection:
        connection.post(f"/alerts/{first.json()['id']}/resolve").raise_for_status()
        assert connection.get("/consumers/airflow").json()["sequence"] == 1
        page = connection.get("/alerts/changes", params={"consumer": "airflow"}).json()
    assert feed() == [(1, "fired"), (2, "resolved")]
    assert [change["change"] for change in page["changes"]] == ["resolved"]


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_at_once_though_readers_wait(hub: Hub, sign: signal.Signals) -> None:
    with client(hub) as connection, ThreadPoolExecutor(3) as pool:
        polls = [pool.submit(connection.get, "/alerts/changes", params={"wait": 60}) for _ in range(3)]
        until(lambda: len(established(hub)) >= 3)
        # Answered behind them: by now they have been read.
        assert connection.get("/health").status_code == 200
        before = time.monotonic()
        hub.server.process.send_signal(sign)
        assert hub.server.process.wait(10) == 0
        assert time.monotonic() - before < 3
        for poll in polls:
            answer = poll.result(10)
            assert (answer.status_code, answer.json()["changes"]) == (200, [])
    log = hub.server.log.read_text()
    assert log.startswith("ready http")
    assert "Traceback" not in log
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", hub.server.port), 1):
        pass


def established(hub: Hub) -> list[str]:
    """The hub's connections that clients hold open (state 01 in Linux' table)."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [row[2] for row in rows if row[1].endswith(f":{hub.server.port:04X}") and row[3] == "01"]


def test_while_another_holds_the_database_nothing_is_acknowledged(tmp_path: Path) -> None:
    hub = Hub(tmp_path)
    database = sqlite3.connect(tmp_path / "hub.db", isolation_level=None)
    with hub.server, client(hub) as connection, closing(database) as other:
        other.execute("BEGIN IMMEDIATE")
        answer = connection.post("/metrics/ingest", json=body(5), headers={"Idempotency-Key": "k"})
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) > 0
        assert "locked" in answer.json()["detail"]
        assert connection.get("/metrics/query").json() == {"series": []}
        health = httpx2.get(f"{hub.url}/api/v1/health", timeout=30)
        assert (health.status_code, health.json()["status"]) == (503, "unavailable")
        other.execute("ROLLBACK")
        answer = connection.post("/metrics/ingest", json=body(5), headers={"Idempotency-Key": "k"})
        assert answer.json() == {"accepted": 1, "duplicates": 0, "rejected": []}
        assert connection.get("/health").status_code == 200


def test_the_tokens_file_is_its_owners(hub: Hub) -> None:
    path = hub.folder / "tokens.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (entry,) = json.loads(path.read_text()).values()
    assert entry["scopes"] == ["ingest", "read", "alerts", "admin"]
    assert len(entry["token"]) >= 32
    assert entry["token"] not in hub.server.log.read_text()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("nonsense secret", "must hold"),
        ("{}", "must hold"),
        ('{"a": {"token": "secret", "scopes": []}}', "16 characters"),
        ('{"a": {"token": "secret-secret-secret", "scopes": ["root"]}}', "unknown scopes"),
        ('{"a": {"token": 5, "scopes": ["read"]}}', "16 characters"),
    ],
)
def test_a_bad_tokens_file_is_named_without_its_secrets(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "tokens.json"
    path.write_text(content)
    ended = run("--database", f"sqlite:///{tmp_path}/hub.db", "--tokens", str(path))
    assert ended.returncode == 1
    assert str(path) in ended.stderr
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "secret" not in ended.stderr


def test_a_bad_database_or_port_is_named(tmp_path: Path) -> None:
    tokens = "--tokens", f"{tmp_path}/tokens.json"
    ended = run("--database", f"sqlite:///{tmp_path}/none/hub.db", *tokens)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "unable to open database file" in ended.stderr
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = str(taken.getsockname()[1])
        ended = run("--database", f"sqlite:///{tmp_path}/hub.db", *tokens, "--port", port)
    assert ended.returncode != 0
    assert "address already in use" in ended.stderr
    ended = run("--retention-notifications", "a while")
    assert ended.returncode == 2
    assert "--retention-notifications: 'a while' is no duration" in ended.stderr


def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "airflow_provider_airis.hub", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, **env}, capture_output=True, text=True, timeout=120, check=False
    )


def test_a_sqlite_file_is_for_one_process(tmp_path: Path) -> None:
    hub = Hub(tmp_path)
    with hub.server, client(hub) as connection:
        ended = run("--database", hub.database, "--tokens", f"{tmp_path}/tokens.json", "--port", "0")
        assert (ended.returncode, ended.stdout) == (1, "")
        assert f"process {hub.server.process.pid}" in ended.stderr
        assert "PostgreSQL" in ended.stderr
        assert "Traceback" not in ended.stderr
        assert connection.post("/metrics/ingest", json=body(1)).status_code == 200
        hub.server.kill()
        # Whoever is dead holds nothing.
        hub.server = hub.start()
        hub.server.stop()


def test_it_says_what_is_kept_how_long(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/hub.db"
    options = "--database", database, "--tokens", f"{tmp_path}/tokens.json", "--port", "0"
    with Server("airflow_provider_airis.hub", *options, "--retention-points", "90d") as server:
        until(lambda: "Kept: points 90 d, events for good" in server.log.read_text())


def test_the_password_is_the_environments_or_a_files(postgresql: PostgresDatabases, tmp_path: Path) -> None:
    url = make_url(postgresql.fresh(tmp_path))
    bare = url.render_as_string().replace(":***@", "@")
    (tmp_path / "password").write_text(f"{url.password}\n")
    (tmp_path / "wrong").write_text("not-the-password")
    tokens = "--tokens", f"{tmp_path}/tokens.json", "--port", "0"
    for options, env in (
        (("--database", bare, "--database-password-file", f"{tmp_path}/password"), {}),
        (("--database", bare), {"PGPASSWORD": url.password}),
        ((), {"AIRIS_HUB_DATABASE_URL": url.render_as_string(hide_password=False)}),
        (("--database-password-file", f"{tmp_path}/password"), {"AIRIS_HUB_DATABASE_URL": bare}),
    ):
        with Server("airflow_provider_airis.hub", *options, *tokens, env=env) as server:
            assert httpx2.get(f"{server.url}/api/v1/health", timeout=60).status_code == 200
            assert url.password not in server.log.read_text()
    ended = run(*tokens, "--database", bare, "--database-password-file", f"{tmp_path}/wrong")
    assert ended.returncode == 1
    assert "password authentication failed" in ended.stderr
    assert "not-the-password" not in ended.stderr
    assert "Traceback" not in ended.stderr
    postgresql.drop(url.render_as_string(hide_password=False))


def test_a_database_that_cannot_be_is_named_in_a_sentence(tmp_path: Path) -> None:
    tokens = "--tokens", f"{tmp_path}/tokens.json"
    (tmp_path / "psycopg.py").write_text("raise ModuleNotFoundError(\"No module named 'psycopg'\", name='psycopg')")
    for url, words, env in (
        (
            "postgresql://a@127.0.0.1/x",
            "pip install 'airflow-provider-airis[postgresql]'",
            {"PYTHONPATH": str(tmp_path)},
        ),
        ("postgresql://a@127.0.0.1:1/x", "the store is not reachable", {}),
        ("mysql://a@127.0.0.1/x", "SQLite or PostgreSQL", {}),
    ):
        ended = run("--database", url, *tokens, **env)
        assert (ended.returncode, ended.stdout) == (1, "")
        assert words in ended.stderr
        assert "Traceback" not in ended.stderr


@contextmanager
def in_process(folder: Path, **limits: int) -> Iterator[tuple[Store, httpx2.Client]]:
    """A hub with limits of its own, in a thread."""
    store = Store(f"sqlite:///{folder}/hub.db")
    tokens = Tokens({"all": ("everything-0123456789", frozenset({"ingest", "read", "alerts"}))})
    server = HubServer(create_app(store, tokens, **limits))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started)
        headers = {"Authorization": "Bearer everything-0123456789"}
        with httpx2.Client(base_url=f"{server.url}/api/v1", headers=headers, timeout=30) as connection:
            yield store, connection
    finally:
        server.should_exit = True
        thread.join(10)
        store.close()


def test_too_much_at_once_is_put_off_while_the_rest_goes_on(tmp_path: Path) -> None:
    with in_process(tmp_path, max_requests=2) as (store, connection), ThreadPoolExecutor(3) as pool:
        go, stuck = threading.Event(), threading.Event()

        def block(_: object) -> bool:
            stuck.set()
            return go.wait(20)

        store.submit(block)
        assert stuck.wait(10)
        calls = [pool.submit(connection.post, "/metrics/ingest", json=body(at)) for at in range(3)]
        (refused,), waiting = wait(calls, 10, FIRST_COMPLETED)
        answer = refused.result()
        assert answer.status_code == 429
        assert int(answer.headers["Retry-After"]) > 0
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert connection.get("/alerts").status_code == 200
        go.set()
        assert [future.result(10).status_code for future in waiting] == [200, 200]
        assert connection.post("/metrics/ingest", json=body(9)).status_code == 200


def test_bodies_together_are_bounded(tmp_path: Path) -> None:
    with in_process(tmp_path, max_bytes=100_000) as (_, connection):
        large = json.dumps(body(1)) + " " * 100_000
        answer = connection.post("/metrics/ingest", content=large)
        assert (answer.status_code, "Retry-After" in answer.headers) == (429, True)
        assert connection.post("/metrics/ingest", content=large[:90_000]).status_code == 200
        assert connection.post("/metrics/ingest", content=large[:90_000]).status_code == 200
