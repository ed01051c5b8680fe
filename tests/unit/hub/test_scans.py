"""Reads of many points: bounded by what they answer and by time, and in nobody's way."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from airflow_provider_airis.hub.api import app
from airflow_provider_airis.hub.problems import Problem
from airflow_provider_airis.hub.store import metrics, points, store
from tests.unit.hub.conftest import MINUTE, Bench
from tests.unit.hub.served import served


def fill(bench: Bench, series: int, minutes: int) -> None:
    lines = [
        {
            "timestamp": bench.now - minute * MINUTE,
            "source": "s",
            "metrics": [
                {"name": "latency", "value": minute, "unit": "ms", "tags": {"endpoint": str(number)}}
                for number in range(series)
            ],
        }
        for minute in range(minutes)
    ]
    document = "\n".join(map(json.dumps, lines)).encode()
    bench.store.submit(lambda t: points.ingest(t, document, "lines")).result(60)


def test_a_step_is_bounded_by_what_it_answers(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a month of 24 series of a point a minute, of which an hour each is 17,000 points of a million."""
    fill(bench, series=4, minutes=60)
    monkeypatch.setattr(metrics, "MAX_POINTS", 100)
    with served(bench.store) as client:

        def ask(step: int | None) -> tuple[int, int | str]:
            params = {"source": "s"} | ({} if step is None else {"step": step})
            answer = client.get("/api/v1/metrics/query", params=params)
            if answer.status_code != 200:
                assert answer.json()["errors"][0]["pointer"] == "/step"
                return answer.status_code, answer.json()["detail"]
            found = answer.json()["series"]
            assert [series["tags"]["endpoint"] for series in found] == ["0", "1", "2", "3"]
            return 200, sum(len(series["points"]) for series in found)

        assert ask(600) == (200, 4 * len({(bench.now // MINUTE - minute) // 10 for minute in range(60)}))
        more = "more than 100 points: ask for a shorter time, for fewer series, or for"
        assert ask(60) == (400, f"{more} a step over 60 s")
        assert ask(None) == (400, f"{more} a step, which answers a point each")


def test_those_who_read_much_are_in_nobody_s_way(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(bench, series=2, minutes=2)
    started, go, known = threading.Semaphore(0), threading.Event(), metrics.query

    def slowly(*args: object, **kwargs: object) -> object:
        started.release()
        assert go.wait(60)
        return known(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(metrics, "query", slowly)
    with served(bench.store) as client, ThreadPoolExecutor(32) as pool:
        slow = [pool.submit(client.get, "/api/v1/metrics/query") for _ in range(2 * app.SCANNERS)]
        for _ in range(app.SCANNERS):
            assert started.acquire(timeout=60)
        try:
            for path in (
                "/dashboard",
                "/silences",
                "/api/v1/alerts",
                "/api/v1/health",
                "/api/v1/metrics/last?source=s",
            ):
                assert client.get(path).status_code == 200, path
        finally:
            go.set()
        assert [found.result(60).status_code for found in slow] == [200] * 2 * app.SCANNERS


def test_a_read_that_takes_too_long_is_given_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def forever(connection: metrics.Connection) -> object:
        endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
        return connection.exec_driver_sql(endless).scalar()

    monkeypatch.setattr(store, "SCAN_S", 0.2)
    with pytest.raises(Problem, match="ask for a shorter time") as caught:
        bench.store.scan(forever)
    assert caught.value.status == 400
    # The connection is as good as before, for reads of any length.
    monkeypatch.setattr(store, "SCAN_S", 60)
    assert bench.store.scan(lambda c: c.exec_driver_sql("SELECT 1").scalar()) == 1
    assert bench.store.read(lambda c: c.exec_driver_sql("SELECT 1").scalar()) == 1
