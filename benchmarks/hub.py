"""The reference hub on SQLite and PostgreSQL: points a second that are durable when they are acknowledged, the time of
one call, and how soon the change feed of another process has an alert.

``python -m benchmarks.hub``. The load is made before the clock starts and sent over a few connections, so that the
hub's own process is what is measured; its CPU time is read from the operating system.
"""

from __future__ import annotations

import gzip
import json
import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import httpx2
import msgspec
import psycopg

from sandbox.postgres import Postgres
from sandbox.process import Server

BATCHES = 120
ENDPOINTS = 20
METRICS = 12
STATISTICS = ("sum", "average", "maximum", "p50", "p90", "p99")
POINTS = 5_000
CONNECTIONS = 4
CALLS = 1_000
MINUTE = 60_000


def batches() -> list[bytes]:
    """Gzipped NDJSON batches as a backfill sends them: day after day a source at a time, a timestamp a line."""
    per_line = METRICS * len(STATISTICS)
    lines_per_batch = POINTS // per_line
    newest = int(time.time() * 1000) // MINUTE * MINUTE - 86_400_000
    encode = msgspec.json.Encoder().encode
    made = []
    minutes_per_source = BATCHES * lines_per_batch // ENDPOINTS
    lines = (
        encode(_body(endpoint, newest - minute * MINUTE))
        for endpoint in range(ENDPOINTS)
        for minute in range(minutes_per_source, 0, -1)
    )
    batch: list[bytes] = []
    for line in lines:
        batch.append(line)
        if len(batch) == lines_per_batch:
            made.append(gzip.compress(b"\n".join(batch), 1))
            batch = []
    return made


def _body(endpoint: int, timestamp: int) -> dict[str, Any]:
    name = f"fraud-detector-{endpoint:02}"
    return {
        "timestamp": timestamp,
        "source": f"aws-sagemaker-{name}",
        "metrics": [
            {
                "name": f"modellatency{metric}",
                "value": (endpoint * 7919 + metric * 104729 + timestamp) % 1_000_003 / 7,
                "unit": "Microseconds",
                "tags": {
                    "endpoint_name": name,
                    "variant_name": "AllTraffic",
                    "cloud_provider": "aws",
                    "service": "sagemaker",
                    "region": "us-east-1",
                    "statistic": statistic,
                    "period_s": "60",
                },
            }
            for metric in range(METRICS)
            for statistic in STATISTICS
        ],
    }


def run() -> dict[str, Any]:
    """Measure against a hub in a process of its own, and print the table."""
    load = batches()
    with tempfile.TemporaryDirectory() as folder:
        tokens = Path(folder) / "tokens.json"
        database = f"sqlite:///{folder}/hub.db"
        with Server(
            "airflow_provider_airis.hub", "--port", "0", "--database", database, "--tokens", str(tokens)
        ) as server:
            headers = {"Authorization": f"Bearer {json.loads(tokens.read_text())['admin']['token']}"}
            with httpx2.Client(base_url=server.url, headers=headers, timeout=60) as client:
                ingest = _ingest(client, server.process.pid, load)
                again = _ingest(client, server.process.pid, load[: len(load) // 4])
                single = _single(client)
                log = _log(client)
        size = sum(path.stat().st_size for path in Path(folder).glob("hub.db*"))
    points = ingest["points"]
    figures = {
        "points": points,
        "points_per_second": round(points / ingest["wall_s"]),
        "points_per_cpu_second": round(points / ingest["cpu_s"]),
        "points_per_cpu_second_again": round(again["points"] / again["cpu_s"]),
        "wire_bytes_per_point": round(sum(map(len, load)) / points, 1),
        "disk_bytes_per_point": round(size / points, 1),
        "single_call_p50_ms": single["p50"],
        "single_call_p99_ms": single["p99"],
        f"ledger_{CALLS}_calls_ms": log["calls"],
        f"notification_log_{CALLS}_entries_one_call_ms": log["one_call"],
    }
    figures |= _postgresql(load[: BATCHES // 3], figures["points_per_second"])
    for name, figure in figures.items():
        print(f"{name:44} {figure:>12,}")
    return figures


def _postgresql(load: list[bytes], sqlite: float) -> dict[str, Any]:
    """One and two processes on a durable PostgreSQL, beside its own COPY and upsert of as many rows."""
    figures: dict[str, Any] = {}
    with Postgres() as postgres:
        admin = postgres.url.replace("+psycopg2", "")
        raw = _raw(admin, len(load) * (POINTS // (METRICS * len(STATISTICS))) * METRICS * len(STATISTICS))
        figures["postgresql_raw_points_per_second"] = round(raw)
        for number in (1, 2):
            with psycopg.connect(admin, autocommit=True) as session:
                session.execute(f"CREATE DATABASE hub{number}")
            url = admin.removesuffix("/postgres") + f"/hub{number}"
            with _hubs(url, number) as clients:
                rate = _ingest_all(clients, load)
                latency = _latency(clients)
            figures |= {
                f"postgresql_{number}_points_per_second": round(rate),
                f"postgresql_{number}_beside_raw": round(rate / raw, 2),
                f"postgresql_{number}_beside_sqlite": round(rate / sqlite, 2),
                f"postgresql_{number}_alert_p50_ms": round(median(latency), 1),
                f"postgresql_{number}_alert_p95_ms": round(sorted(latency)[int(len(latency) * 0.95)], 1),
            }
    one, two = (figures[f"postgresql_{number}_alert_p95_ms"] for number in (1, 2))
    return figures | {"postgresql_alert_p95_two_beside_one": round(two / one, 2)}


def _raw(url: str, points: int) -> float:
    """Points a second of COPY into a temporary table and INSERT … ON CONFLICT, a commit each ``POINTS``."""
    with psycopg.connect(url) as session:
        session.execute("CREATE TABLE raw (series bigint, at bigint, value float8, PRIMARY KEY (series, at))")
        session.execute("CREATE TEMPORARY TABLE arrived (LIKE raw) ON COMMIT DELETE ROWS")
        session.commit()
        started = time.perf_counter()
        for start in range(0, points, POINTS):
            with session.cursor() as cursor, cursor.copy("COPY arrived FROM STDIN (FORMAT BINARY)") as copy:
                copy.set_types(["int8", "int8", "float8"])
                for place in range(start, start + POINTS):
                    copy.write_row((place % 72, place // 72 * MINUTE, place / 7))
            session.execute(
                "INSERT INTO raw SELECT * FROM arrived ON CONFLICT (series, at) DO UPDATE SET value = excluded.value"
            )
            session.commit()
        return points / (time.perf_counter() - started)


@contextmanager
def _hubs(url: str, number: int) -> Iterator[list[httpx2.Client]]:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        tokens = Path(folder) / "tokens.json"
        clients = []
        for _ in range(number):
            options = "--port", "0", "--database", url, "--tokens", str(tokens)
            server = stack.enter_context(Server("airflow_provider_airis.hub", *options))
            headers = {"Authorization": f"Bearer {json.loads(tokens.read_text())['admin']['token']}"}
            clients.append(stack.enter_context(httpx2.Client(base_url=server.url, headers=headers, timeout=60)))
        yield clients


def _ingest_all(clients: list[httpx2.Client], load: list[bytes]) -> float:
    parts = [load[place :: len(clients)] for place in range(len(clients))]
    started = time.perf_counter()
    with ThreadPoolExecutor(len(clients)) as pool:
        done = list(pool.map(lambda client, part: _ingest(client, os.getpid(), part), clients, parts))
    return sum(one["points"] for one in done) / (time.perf_counter() - started)


def _latency(clients: list[httpx2.Client], alerts: int = 60) -> list[float]:
    """Milliseconds from an alert's POST at the first process until a long poll at the last one has it."""
    took, after = [], 0
    with ThreadPoolExecutor(1) as pool:
        for alert in range(alerts):
            poll = pool.submit(
                lambda behind=after: (
                    clients[-1].get("/api/v1/alerts/changes", params={"after": behind, "wait": 30}),
                    time.perf_counter(),
                )
            )
            time.sleep(0.03)
            started = time.perf_counter()
            body = {"name": "drift", "severity": "low", "fingerprint": f"latency-{alert}"}
            clients[0].post("/api/v1/alerts", json=body).raise_for_status()
            answer, at = poll.result()
            after = answer.raise_for_status().json()["sequence"]
            took.append((at - started) * 1000)
    return took


def _ingest(client: httpx2.Client, pid: int, load: list[bytes]) -> dict[str, float]:
    headers = {"Content-Type": "application/x-ndjson", "Content-Encoding": "gzip"}

    def send(batch: bytes) -> int:
        answer = client.post("/api/v1/metrics/batch", content=batch, headers=headers)
        while answer.status_code == 429:
            time.sleep(float(answer.headers["Retry-After"]))
            answer = client.post("/api/v1/metrics/batch", content=batch, headers=headers)
        return int(answer.raise_for_status().json()["accepted"])

    cpu, wall = _cpu_s(pid), time.perf_counter()
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        points = sum(pool.map(send, load))
    return {"points": points, "wall_s": time.perf_counter() - wall, "cpu_s": _cpu_s(pid) - cpu}


def _single(client: httpx2.Client) -> dict[str, float]:
    took = []
    now = int(time.time() * 1000)
    for call in range(CALLS):
        body = _body(0, now + call)
        body["metrics"] = body["metrics"][:1]
        started = time.perf_counter()
        client.post("/api/v1/metrics/ingest", json=body).raise_for_status()
        took.append((time.perf_counter() - started) * 1000)
    return {"p50": round(median(took), 2), "p99": round(sorted(took)[int(len(took) * 0.99)], 2)}


def _log(client: httpx2.Client) -> dict[str, float]:
    """The ledger of as many alerts: a call each, and with the log in a single call, the median of five."""
    ids = [
        client.post("/api/v1/alerts", json={"name": "drift", "severity": "low", "fingerprint": str(call)}).json()["id"]
        for call in range(CALLS)
    ]
    started = time.perf_counter()
    for alert_id in ids:
        body = {"reference": alert_id, "status": "firing", "at": 1}
        client.put(f"/api/v1/alerts/{alert_id}/notifications/slack/alerts", json=body).raise_for_status()
    calls = time.perf_counter() - started
    took = []
    for turn in range(5):
        entries = [
            {
                "group": f'{{}}:{{alert_id="{alert_id}"}}',
                "receiver": "slack",
                "channel": "slack",
                "target": "alerts",
                "id": alert_id,
                "reference": alert_id,
                "at": turn,
                "alerts": {alert_id: {"status": "firing", "at": turn}},
            }
            for alert_id in ids
        ]
        started = time.perf_counter()
        client.put("/api/v1/notification-log", json={"entries": entries}).raise_for_status()
        took.append(time.perf_counter() - started)
    return {"calls": round(calls * 1000), "one_call": round(median(took) * 1000)}


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    run()
