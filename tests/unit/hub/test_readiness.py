"""Whether the hub says what is so of itself, and how often it finds that out."""

from __future__ import annotations

import resource
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from airflow_provider_airis.hub import readiness
from tests.conftest import Hub
from tests.unit.hub.conftest import Bench
from tests.unit.hub.served import served, statements, until


def writes(asked: list[str]) -> int:
    return sum("INTO readiness" in statement for statement in asked)


def test_it_is_found_out_once_for_all_who_ask(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "FRESH_S", 3600)
    with served(bench.store) as client, statements(bench.store) as asked, ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(lambda _: httpx2.get(f"{str(client.base_url).rstrip('/')}/api/v1/health", timeout=60), range(40))
        )
    assert [(answer.status_code, answer.json()) for answer in answers] == [(200, {"status": "ok", "store": "ok"})] * 40
    assert writes(asked) == 1


def test_it_is_found_out_anew_after_a_while(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "FRESH_S", 0)
    with served(bench.store) as client, statements(bench.store) as asked:
        for _ in range(3):
            assert client.get("/api/v1/health").status_code == 200
    assert writes(asked) == 3


def test_nobody_queues_behind_the_writer(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "PATIENCE_S", 0.1)
    monkeypatch.setattr(readiness, "FRESH_S", 0)
    go = threading.Event()
    with served(bench.store) as client:
        blocker = bench.store.submit(lambda _: go.wait(60))
        with statements(bench.store) as asked:
            for _ in range(3):
                answer = client.get("/api/v1/health")
                assert answer.status_code == 503
                assert "what was to be written has waited for" in answer.json()["store"]
            # Alive it is, and says so at once.
            assert client.get("/api/v1/health/live").json() == {"status": "ok"}
            go.set()
            assert blocker.result(60)
            until(lambda: client.get("/api/v1/health").status_code == 200)
        # Those who asked meanwhile left one try behind, not three.
        assert 1 <= writes(asked) <= 2


def test_liveness_asks_nobody(bench: Bench) -> None:
    with served(bench.store) as client, statements(bench.store) as asked:
        answer = httpx2.get(f"{str(client.base_url).rstrip('/')}/api/v1/health/live", timeout=60)
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    assert asked == []


@pytest.fixture
def own(tmp_path: Path) -> Hub:
    return Hub(tmp_path)


def health(hub: Hub) -> tuple[int, str]:
    answer = httpx2.get(f"{hub.url}/api/v1/health", timeout=60)
    return answer.status_code, answer.json()["store"]


def test_a_file_that_may_not_grow_is_no_store(own: Hub) -> None:
    """As on a full disk: the operating system refuses to write more."""
    with own.server:
        assert health(own) == (200, "ok")
        resource.prlimit(own.server.process.pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
        until(lambda: health(own)[0] != 200)  # a second ago it could
        status, reason = health(own)
        assert status == 503
        assert "store is not reachable" in reason
        assert httpx2.get(f"{own.url}/api/v1/health/live", timeout=60).status_code == 200
        resource.prlimit(own.server.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        until(lambda: health(own)[0] == 200)


def test_a_disk_without_room_is_no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Of SQLite: the hub does not see the disk of PostgreSQL.
    bench = Bench(f"sqlite:///{tmp_path}/hub.db")
    monkeypatch.setattr("airflow_provider_airis.hub.store.engine._ROOM", 1 << 60)
    with served(bench.store) as client:
        answer = client.get("/api/v1/health")
    assert (answer.status_code, answer.json()["status"]) == (503, "unavailable")
    assert "no space is left on the disk" in answer.json()["store"]
    bench.close()


def test_a_file_that_was_overwritten_is_no_store(own: Hub) -> None:
    file = own.folder / "hub.db"
    with own.server:
        assert health(own) == (200, "ok")
        # What is in the log is written to the file, and then the file is not.
        other = sqlite3.connect(file)
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        other.close()
        with file.open("r+b") as content:
            content.write(b"\xa5" * file.stat().st_size)
        until(lambda: health(own)[0] != 200)
        status, reason = health(own)
        assert status == 503
        assert "store is not reachable" in reason
