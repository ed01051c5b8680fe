"""From an alert's firing to the receiver's request, in Airflow on SQLite: ``python -m benchmarks.dispatch``.

Single alerts and a burst, once while the loops of Slack and PagerDuty sleep in the triggerer and once while their tasks
linger. For those that sleep, it prints where the time goes.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx2

from sandbox.airflow import Airflow
from sandbox.process import Server
from sandbox.topology import connections, hub_arguments

SYSTEMS = ("slack", "pagerduty")
SINGLES = 12
BURST = 100
# As the shipped ones, but soon asleep.
DAG = """
from datetime import UTC, datetime
from airflow.sdk import DAG
from airflow_provider_airis.operators.dispatch import AirisDispatchOperator
from airflow_provider_airis.sensors.alerts import AirisAlertSensor

with DAG(
    dag_id="sleepy_{system}", schedule="@continuous", start_date=datetime(2026, 1, 1, tzinfo=UTC), max_active_runs=1
):
    AirisAlertSensor(task_id="wait", system="{system}") >> AirisDispatchOperator(
        task_id="deliver", system="{system}", linger_s=1
    )
"""


def run() -> dict[str, Any]:
    """Seconds from firing to request, by what was fired and whether the loops slept."""
    with tempfile.TemporaryDirectory() as folder, Airflow(Path(folder) / "airflow") as airflow:
        return _Bench(airflow, Path(folder)).run()


class _Bench:
    def __init__(self, airflow: Airflow, folder: Path) -> None:
        self.airflow = airflow
        self.folder = folder
        self.fired = 0

    def run(self) -> dict[str, Any]:
        self.airflow.migrate()
        (self.airflow.home / "dags").mkdir()
        for system in SYSTEMS:
            (self.airflow.home / f"dags/sleepy_{system}.py").write_text(DAG.format(system=system))
        arguments = hub_arguments(self.airflow.home / "secrets", self.folder / "hub.db")
        with (
            Server("airflow_provider_airis.hub", "--port", "0", *arguments) as hub,
            Server("sandbox.slack", "--port", "0") as slack,
            Server("sandbox.pagerduty", "--port", "0") as pagerduty,
        ):
            self.receivers = {"slack": slack.url, "pagerduty": pagerduty.url}
            headers = {"Authorization": f"Bearer {self.airflow.secrets['hub_admin_token']}"}
            self.hub = httpx2.Client(base_url=hub.url, headers=headers)
            self.airflow.start()
            self.airflow.wait()
            rows = connections(self.airflow.secrets, hub=hub.url, dashboard=hub.url, peers=self.receivers)
            for conn_id, fields in rows.items():
                self.airflow.call("POST", "/connections", json={"connection_id": conn_id, **fields})
            return self._measure()

    def _measure(self) -> dict[str, Any]:
        figures: dict[str, Any] = {}
        self._use("sleepy")
        parts: list[dict[str, float]] = []
        singles = []
        for _ in range(SINGLES):
            _until(lambda: self._asleep("sleepy"))
            at, arrived = self._fire(1)
            singles += arrived
            _until(lambda: self._asleep("sleepy"))
            parts += [self._parts(system, at) for system in SYSTEMS]
        figures["asleep"] = _told("single, the loops sleep", singles)
        figures["asleep"]["parts"] = {part: statistics.median(row[part] for row in parts) for part in parts[0]}
        for part, seconds in figures["asleep"]["parts"].items():
            print(f"    {part:32} {seconds:6.2f} s")
        _until(lambda: self._asleep("sleepy"))
        figures["asleep_burst"] = _told(f"burst of {BURST}, the loops sleep", self._fire(BURST)[1])
        _until(lambda: self._asleep("sleepy"))
        self._use("airis_dispatch")
        self._fire(1)
        figures["lingering"] = _told("single, the tasks linger", [s for _ in range(SINGLES) for s in self._fire(1)[1]])
        figures["lingering_burst"] = _told(f"burst of {BURST}, the tasks linger", self._fire(BURST)[1])
        return figures

    def _use(self, prefix: str) -> None:
        """Pause all Dags but those."""
        _until(lambda: {f"{prefix}_{s}" for s in SYSTEMS} <= {dag["dag_id"] for dag in self._dags()})
        for dag in self._dags():
            wanted = dag["dag_id"] in {f"{prefix}_{system}" for system in SYSTEMS}
            if dag["is_paused"] is wanted:
                self.airflow.call("PATCH", f"/dags/{dag['dag_id']}", json={"is_paused": not wanted})

    def _dags(self) -> list[dict[str, Any]]:
        return list(self.airflow.call("GET", "/dags", params={"limit": 100})["dags"])

    def _tasks(self, dag_id: str) -> dict[str, dict[str, Any]]:
        """The tasks of the run that began last, and ``before`` it."""
        params = {"order_by": "-run_after", "limit": 2}
        runs = self.airflow.call("GET", f"/dags/{dag_id}/dagRuns", params=params)["dag_runs"]
        found = [
            {
                task["task_id"]: task
                for task in self.airflow.call("GET", f"/dags/{dag_id}/dagRuns/{run['dag_run_id']}/taskInstances")[
                    "task_instances"
                ]
            }
            for run in runs
        ]
        return {**(found[0] if found else {}), "before": found[1] if len(found) > 1 else {}}

    def _asleep(self, prefix: str) -> bool:
        tasks = [self._tasks(f"{prefix}_{system}") for system in SYSTEMS]
        return all(task.get("wait", {}).get("state") == "deferred" for task in tasks)

    def _parts(self, system: str, at: float) -> dict[str, float]:
        tasks = self._tasks(f"sleepy_{system}")["before"]
        first = self._seen(system)[-1]["at"] / 1000
        places = {
            "hub to trigger to wait's end": _seconds(tasks["wait"]["end_date"]),
            "to deliver queued": _seconds(tasks["deliver"]["queued_when"]),
            "to deliver started": _seconds(tasks["deliver"]["start_date"]),
            "imports, to the request": first,
        }
        times = [at, *places.values()]
        return {name: end - start for name, start, end in zip(places, times, times[1:], strict=False)}

    def _fire(self, count: int) -> tuple[float, list[float]]:
        """When they were fired, and the seconds until each receiver was asked for each."""
        before = {system: len(self._seen(system)) for system in SYSTEMS}
        at: dict[str, float] = {}
        for _ in range(count):
            self.fired += 1
            started = time.time()
            body = {"name": f"alert {self.fired}", "severity": "critical"}
            at[self.hub.post("/api/v1/alerts", json=body).raise_for_status().json()["id"]] = started
        _until(lambda: all(len(self._seen(system)) >= before[system] + count for system in SYSTEMS))
        arrived = []
        for system in SYSTEMS:
            for row in self._seen(system)[before[system] :]:
                alert_id = (
                    str(row.get("dedup_key", "")).removeprefix("airis-mon-")
                    or row["metadata"]["event_payload"]["alert_id"]
                )
                arrived.append(row["at"] / 1000 - at[alert_id])
        return min(at.values()), arrived

    def _seen(self, system: str) -> list[dict[str, Any]]:
        return list(httpx2.get(f"{self.receivers[system]}/_sandbox/requests").json())


def _seconds(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()


def _told(what: str, seconds: list[float]) -> dict[str, Any]:
    ordered = sorted(seconds)
    p95 = ordered[math.ceil(0.95 * len(ordered)) - 1]
    figures = {"p50_s": statistics.median(ordered), "p95_s": p95, "max_s": ordered[-1]}
    print(f"{what:34} " + "  ".join(f"{name[:-2]} {value:5.2f} s" for name, value in figures.items()), flush=True)
    return figures


def _until(condition: Callable[[], Any], seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError("it did not happen in time")
        time.sleep(0.3)


if __name__ == "__main__":
    run()
