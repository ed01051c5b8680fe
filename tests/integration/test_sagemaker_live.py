"""SageMaker's operator as the sync Dag runs it, window after window, on a clock that the test moves."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
import time_machine

from airflow_provider_airis.operators.sagemaker import SageMakerToAirisOperator
from airflow_provider_airis.records import Metric, to_ms
from sandbox.process import Server

START = datetime(2026, 11, 20, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
WINDOW = 5 * MINUTE
DELAY = 2 * MINUTE
# CloudWatch's points show up seven minutes late here: later than the windows are read.
LATE = 7 * MINUTE
LAG = 25 * MINUTE
WAKES = START + 33 * MINUTE
STATISTICS = 25
Held = dict[tuple[str, str, str, int], float]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Ten endpoints without a GPU. Nobody asks three of them anything; one of these wakes."""
    arguments = ["--endpoints", "0", "--now", START.isoformat(), "--live-from", (START - 12 * 60 * MINUTE).isoformat()]
    arguments += ["--ingest-delay-s", str(LATE.total_seconds()), "--listing-lag-s", str(LAG.total_seconds())]
    with Server("sandbox.sagemaker", *arguments) as server:
        created = (START - timedelta(days=20)).isoformat()
        never = (START + timedelta(days=20)).isoformat()
        idle = {"asleep-1": never, "asleep-2": never, "wakes": WAKES.isoformat()}
        for number in range(7):
            send(server, "POST", "endpoints", name=f"busy-{number}", created=created)
        for name, until in idle.items():
            send(server, "POST", "endpoints", name=name, created=created, idle_until=until)
        yield server


def send(server: Server, method: str, path: str, **fields: Any) -> Any:
    answer = httpx2.request(method, f"{server.url}/_sandbox/{path}", json=fields, timeout=60)
    answer.raise_for_status()
    return answer.json()


@pytest.fixture
def sync(server: Server, connect: Callable[..., str]) -> Callable[..., tuple[list[Metric], dict[str, Any]]]:
    connect(
        "aws_default",
        conn_type="aws",
        login="AKIAIOSFODNN7EXAMPLE",
        password="wJalrXUtnFEMI-K7MDENG-bPxRfiCYEXAMPLEKEY",
        extra={"endpoint_url": server.url},
    )

    def sync(start: datetime, **arguments: Any) -> tuple[list[Metric], dict[str, Any]]:
        """One run of the window that begins at ``start``: its points and what it says of itself."""
        interval = {"data_interval_start": start, "data_interval_end": start + WINDOW}
        operator = SageMakerToAirisOperator(task_id="sync", region_name="us-east-1", **arguments)
        now = start + WINDOW + DELAY
        send(server, "PATCH", "clock", now=now.isoformat())
        with time_machine.travel(now, tick=False):
            window = operator.window(interval)  # type: ignore[arg-type]
            points = [record for record in operator.collect(window) if isinstance(record, Metric)]
        assert not operator.failures
        assert all(point.timestamp in window for point in points)
        return points, operator.summary()

    return sync


def held(points: list[Metric]) -> Held:
    return {(p.tags["endpoint_name"], p.name, p.tags["statistic"], p.timestamp): p.value for p in points}


def truth(server: Server, start: datetime, end: datetime) -> Held:
    query = {"from": start.isoformat(), "to": end.isoformat()}
    lines = httpx2.get(f"{server.url}/_sandbox/truth", params=query, timeout=60).text.splitlines()
    return {
        (line["endpoint"], line["metric"].lower(), line["statistic"], at): value
        for line in map(json.loads, lines)
        for at, value in line["points"]
    }


def test_looking_back_takes_what_came_late_at_no_further_call_or_cost(server: Server, sync: Callable[..., Any]):
    start = START - 60 * MINUTE
    alone, costs = sync(start)
    wide, costs_too = sync(start, lookback_s=900)
    assert costs == costs_too
    # Of the window's five minutes none is published when it is read.
    assert not held(alone)
    assert held(wide) == truth(server, start - 15 * MINUTE, start + WINDOW)


def test_silent_series_cost_less_and_lose_nothing(server: Server, sync: Callable[..., Any]):
    """Eighty minutes of windows: less is billed, every point arrives, and who wakes is seen within the bound."""
    found: Held = {}
    requested, seen = 0, None
    windows = 16
    for number in range(windows):
        start = START + number * WINDOW
        points, summary = sync(start, lookback_s=900, idle_poll_interval_s=1800)
        found |= held(points)
        requested += summary["metrics_requested"]
        if seen is None and any(name == "invocations" and endpoint == "wakes" for endpoint, name, *_ in found):
            seen = start + WINDOW + DELAY
    converged = START + windows * WINDOW - LATE
    expected = truth(server, START, converged)
    assert {key: found.get(key) for key in expected} == expected
    assert seen is not None
    assert seen - WAKES <= timedelta(seconds=1800) + WINDOW + LATE
    woke = [at for endpoint, name, _, at in found if (endpoint, name) == ("wakes", "invocations")]
    assert min(woke) == to_ms(WAKES)

    everything = windows * 10 * STATISTICS
    assert summary["estimated_usd"] == pytest.approx(summary["metrics_requested"] / 100_000, abs=1e-6)
    print(f"{requested} of {everything} metrics requested")
    assert requested < 0.77 * everything


def test_every_series_has_its_turn_once_a_bound(sync: Callable[..., Any]):
    """The turns are spread, not all in one window."""
    costs = [sync(START + n * WINDOW, idle_poll_interval_s=900)[1]["metrics_requested"] for n in range(3)]
    every = 10 * STATISTICS
    assert max(costs) < every
    # Seven are busy, and of GPUs no one has any: 21 each; the three others have load, 6 each.
    active = 7 * 21 + 3 * 6
    assert sum(costs) == 3 * active + (every - active)


def test_what_is_read_late_is_read_whole(server: Server, sync: Callable[..., Any]):
    """Of a window that ended hours ago, what is active now says nothing."""
    send(server, "DELETE", "calls")
    interval = {"data_interval_start": START - 300 * MINUTE, "data_interval_end": START - 295 * MINUTE}
    operator = SageMakerToAirisOperator(task_id="late", region_name="us-east-1", idle_poll_interval_s=900)
    with time_machine.travel(START + 60 * MINUTE, tick=False):
        window = operator.window(interval)  # type: ignore[arg-type]
        assert sum(1 for _ in operator.collect(window))
    assert operator.summary()["metrics_requested"] == 10 * STATISTICS
    assert send(server, "GET", "calls")["ListMetrics"]["calls"] == 4
