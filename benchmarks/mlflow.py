"""What an MLflow sync costs when nothing has changed: 5,000 models, 100,000 versions, 3 million points in the hub.

``python -m benchmarks.mlflow`` prints the table. Each sync is a process of its own; its time and memory count from
where Airflow, mlflow's client and both hooks have been imported. *mlflow_alone* are the same six calls, their answers
thrown away: that time is the server's, whoever asks.
"""

from __future__ import annotations

import json
import os
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("AIRFLOW__LOGGING__LOGGING_LEVEL", "ERROR")

from airflow_provider_airis.hooks.airis import AirisHook
from airflow_provider_airis.hooks.mlflow import MLflowHook
from airflow_provider_airis.operators.mlflow import MLflowToAirisOperator
from airflow_provider_airis.records import Metric
from sandbox.process import Server
from sandbox.topology import generate_secrets, hub_arguments

MODELS, VERSIONS = 5_000, 20
POINTS = int(os.environ.get("AIRIS_BENCHMARK_POINTS", "3000000"))
ROUNDS = 3


def fill(database: Path) -> None:
    """Give the registry its models, in the database itself: over the API it would take hours."""
    now = int(time.time() * 1000) - 86_400_000
    names = [f"model-{number:05}" for number in range(MODELS)]
    with sqlite3.connect(database) as connection:
        connection.executemany(
            "INSERT INTO registered_models (name, creation_time, last_updated_time) VALUES (?, ?, ?)",
            [(name, now, now + VERSIONS) for name in names],
        )
        connection.executemany(
            "INSERT INTO registered_model_aliases (name, alias, version) VALUES (?, 'champion', 1)",
            [(name,) for name in names],
        )
        connection.executemany(
            "INSERT INTO model_versions (name, version, creation_time, last_updated_time, current_stage, source,"
            " status) VALUES (?, ?, ?, ?, 'None', ?, 'READY')",
            [
                (name, version, now + version, now + version, f"s3://models/{name}/{version}")
                for name in names
                for version in range(1, VERSIONS + 1)
            ],
        )


def history() -> Iterator[Metric]:
    """Points of a thousand series."""
    start = int(time.time() * 1000) - 60_000 * (POINTS // 1_000 + 1)
    for minute in range(POINTS // 1_000):
        for series in range(1_000):
            tags = {"registry": "other", "model_name": f"m{series}"}
            yield Metric(f"mlflow-m{series}", "run_metric", 0.5, "1", tags, start + 60_000 * minute)


def run() -> dict[str, Any]:
    """First sync, syncs without a change, and what MLflow takes for the same calls."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        secrets = generate_secrets(folder / "secrets")
        arguments = hub_arguments(folder / "secrets", folder / "hub.db")
        with (
            Server("sandbox.mlflow", "--folder", str(folder / "mlflow")) as server,
            Server("airflow_provider_airis.hub", "--port", "0", *arguments) as hub,
        ):
            fill(folder / "mlflow" / "mlflow.db")
            os.environ["AIRFLOW_CONN_AIRIS_DEFAULT"] = json.dumps(
                {"conn_type": "airis", "host": hub.url, "password": secrets["hub_token"]}
            )
            os.environ["AIRFLOW_CONN_MLFLOW_DEFAULT"] = json.dumps({"conn_type": "mlflow", "host": server.url})
            with AirisHook() as hook:
                hook.ingest(history())
            results: dict[str, Any] = {"models": MODELS, "versions": MODELS * VERSIONS, "points": POINTS}
            results["first"] = apart("sync")
            apart("sync")  # settles
            results["no_change"] = min((apart("sync") for _ in range(ROUNDS)), key=lambda found: found["s"])
            results["mlflow_alone"] = min((apart("listing") for _ in range(ROUNDS)), key=lambda found: found["s"])
    results["own_s"] = round(results["no_change"]["s"] - results["mlflow_alone"]["s"], 3)
    print(f"{MODELS:,} models, {MODELS * VERSIONS:,} versions, {POINTS:,} points in the hub")
    print(f"{'':14} {'s':>8} {'CPU s':>8} {'MiB':>6}")
    for name in ("first", "no_change", "mlflow_alone"):
        row = results[name]
        print(f"{name:14} {row['s']:8.3f} {row['cpu_s']:8.3f} {row['mib']:6}")
    print(f"a sync without a change costs {results['own_s']:.3f} s beside MLflow's answers")
    return results


def apart(what: str) -> dict[str, Any]:
    """One measurement in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.mlflow", what], check=True, stdout=subprocess.PIPE, text=True
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(what: str) -> dict[str, Any]:
    """Seconds, seconds of CPU and the growth of the peak of memory, once all is imported."""
    operator = MLflowToAirisOperator(task_id="sync", registry="benchmark")
    with MLflowHook() as hook:
        hook.check()  # imports mlflow's client
        before, cpu, started = _peak_mib(), time.process_time(), time.perf_counter()
        if what == "sync":
            operator.execute({})
        else:
            for _ in hook.models():
                pass
            next(hook.versions(at_once=100))
    return {
        "s": round(time.perf_counter() - started, 3),
        "cpu_s": round(time.process_time() - cpu, 3),
        "mib": _peak_mib() - before,
    }


def _peak_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1])))
    else:
        run()
