"""What an MLflow sync costs when nothing has changed, with 10,000 versions, against reading the registry anew.

``python -m benchmarks.mlflow`` prints the table.
"""

from __future__ import annotations

import json
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("AIRFLOW__LOGGING__LOGGING_LEVEL", "ERROR")

from airflow_provider_airis.hooks.mlflow import MLflowHook
from airflow_provider_airis.operators.mlflow import MLflowToAirisOperator
from sandbox.faults import FaultProxy
from sandbox.process import Server
from sandbox.topology import generate_secrets, hub_arguments

MODELS, VERSIONS = 100, 100
ROUNDS = 3


def fill(database: Path) -> None:
    """Give each model its versions, in the database itself: over the API it would take minutes."""
    with sqlite3.connect(database) as connection:
        now = int(time.time() * 1000) - 86_400_000
        rows = [
            (name, version, now + version, now + version, "None", f"s3://models/{name}/{version}", "READY")
            for (name,) in connection.execute("SELECT name FROM registered_models").fetchall()
            for version in range(1, VERSIONS + 1)
        ]
        connection.executemany(
            "INSERT INTO model_versions (name, version, creation_time, last_updated_time, current_stage, source,"
            " status) VALUES (?, ?, ?, ?, ?, ?, ?)",
            rows,
        )


def run() -> dict[str, Any]:
    """First sync, sync without a change, and a full read."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        secrets = generate_secrets(folder / "secrets")
        arguments = hub_arguments(folder / "secrets", folder / "hub.db")
        with (
            Server("sandbox.mlflow", "--folder", str(folder / "mlflow"), "--models", str(MODELS)) as server,
            Server("airflow_provider_airis.hub", "--port", "0", *arguments) as hub,
            FaultProxy(server.url) as source,
            FaultProxy(hub.url) as target,
        ):
            fill(folder / "mlflow" / "mlflow.db")
            os.environ["AIRFLOW_CONN_AIRIS_DEFAULT"] = json.dumps(
                {"conn_type": "airis", "host": target.url, "password": secrets["hub_token"]}
            )
            os.environ["AIRFLOW_CONN_MLFLOW_DEFAULT"] = json.dumps({"conn_type": "mlflow", "host": source.url})

            def measured(what: Callable[[], Any], rounds: int) -> dict[str, Any]:
                best = float("inf")
                for _ in range(rounds):
                    source.seen.clear()
                    target.seen.clear()
                    started = time.perf_counter()
                    what()
                    best = min(best, time.perf_counter() - started)
                return {"s": round(best, 3), "mlflow_calls": len(source.seen), "hub_calls": len(target.seen)}

            sync = MLflowToAirisOperator(task_id="sync", registry="benchmark")
            results = {
                "versions": MODELS * VERSIONS,
                "first": measured(lambda: sync.execute({}), 1),
                "no_change": measured(lambda: sync.execute({}), ROUNDS),
                "full_read": measured(full_read, ROUNDS),
            }
    results["full_read_over_no_change"] = round(results["full_read"]["s"] / results["no_change"]["s"], 1)
    print(f"{'':12} {'s':>8} {'MLflow calls':>13} {'hub calls':>10}")
    for name in ("first", "no_change", "full_read"):
        row = results[name]
        print(f"{name:12} {row['s']:8.3f} {row['mlflow_calls']:13} {row['hub_calls']:10}")
    return results


def full_read() -> None:
    """Every model, and every version model by model, as a poll without a memory reads them."""
    with MLflowHook() as hook:
        for model in list(hook.models()):
            list(hook.versions(model=model["name"]))


if __name__ == "__main__":
    run()
