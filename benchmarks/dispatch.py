"""From an alert's firing to the receiver's request, in Airflow and in Alertmanager: ``python -m benchmarks.dispatch``.

Single alerts and bursts, to Slack and PagerDuty at once: while their loops sleep in the triggerer, with where the time
goes, and while their tasks linger. Airflow is on PostgreSQL, and warm: rounds that are not counted have used each of
its workers; the first of them is told apart. Beside it, the real Alertmanager, Debian's package, which has PagerDuty
called with ``group_wait: 0s``. What is not installed is left out.

``--database sqlite``, ``--set SCHEDULER.SCHEDULER_IDLE_SLEEP_TIME=0.1`` and ``--loop``, one of :mod:`benchmarks.loops`,
compare; ``--singles`` and ``--bursts`` say how many.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx2

from benchmarks import loops
from sandbox.airflow import HOST, Airflow, free_port
from sandbox.postgres import Postgres, program
from sandbox.process import ROOT, Server
from sandbox.topology import connections, hub_arguments

SYSTEMS = ("slack", "pagerduty")
# As many rounds as use each of the eight workers, two at a time, and some more.
WARM_UP = 6
SINGLES, BURSTS, BURST = 16, 3, 100
# What Airflow does, by the timestamps that it leaves; the first is the hub's, the last the receiver's.
PARTS = {
    "trigger": "the trigger has heard of it",
    "triggerer": "the triggerer has ended wait",
    "scheduler": "the scheduler has queued deliver",
    "start": "its process has begun",
    "import": "it has read the Dag file and begins",
    "request": "it has asked the hub, and asks the receiver",
}


def run(
    *,
    database: str = "postgresql",
    loop: str = "shipped",
    settings: dict[str, str] | None = None,
    singles: int = SINGLES,
    bursts: int = BURSTS,
) -> dict[str, Any]:
    """Seconds from firing to request, by what was fired and whether the loops slept."""
    place: AbstractContextManager[Postgres | None] = nullcontext()
    if database == "postgresql" and _has_postgres():
        place = Postgres()
    with tempfile.TemporaryDirectory() as folder, place as postgres:
        environment = {"PYTHONPATH": str(ROOT), **(settings or {})}
        if postgres:
            environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = postgres.url
        figures: dict[str, Any] = {"database": "PostgreSQL" if postgres else "SQLite", "loop": loop}
        print(f"Airflow on {figures['database']}, {loop} {' '.join(f'{k}={v}' for k, v in (settings or {}).items())}")
        with Airflow(Path(folder) / "airflow", settings=environment) as airflow:
            figures |= _Bench(airflow, Path(folder), loop).run(singles, bursts)
        if loop == "shipped" and shutil.which("prometheus-alertmanager"):
            figures["alertmanager"] = _alertmanager(Path(folder), singles, bursts)
    return figures


class _Bench:
    def __init__(self, airflow: Airflow, folder: Path, loop: str) -> None:
        self.airflow = airflow
        self.folder = folder
        self.loop = loop
        self.fired = 0
        self.chance = random.Random(1)

    def run(self, singles: int, bursts: int) -> dict[str, Any]:
        self.airflow.migrate()
        (self.airflow.home / "dags").mkdir()
        for system in SYSTEMS:
            (self.airflow.home / f"dags/loop_{system}.py").write_text(loops.text(self.loop, system))
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
            return self._asleep(singles, bursts) | (self._awake(singles, bursts) if self.loop == "shipped" else {})

    def _asleep(self, singles: int, bursts: int) -> dict[str, Any]:
        self._use("loop")
        self._sleep()
        first = max(self._fire(1)[1])
        print(f"the very first alert {first:31.2f} s")
        for _ in range(WARM_UP):
            self._sleep()
            self._fire(1)
        figures: dict[str, Any] = {"first_s": first}
        for name, rounds, count in (("asleep", singles, 1), ("asleep_burst", bursts, BURST)):
            arrived: list[float] = []
            parts: list[dict[str, float]] = []
            for _ in range(rounds):
                self._sleep()
                at, seconds = self._fire(count)
                arrived += seconds
                self._sleep()
                parts += [found for system in SYSTEMS if (found := self._parts(system, at))]
            if not rounds:
                continue
            figures[name] = _told(f"{_what(count)}, the loops sleep", arrived)
            if parts:
                figures[name]["parts"] = {part: [row[part] for row in parts] for part in PARTS}
                for part, told in PARTS.items():
                    found = figures[name]["parts"][part]
                    print(f"    {told:55} {statistics.median(found):6.2f} s, 95 % {_p95(found):5.2f} s")
                figures[name]["parts"] = {k: round(statistics.median(v), 3) for k, v in figures[name]["parts"].items()}
        return figures

    def _awake(self, singles: int, bursts: int) -> dict[str, Any]:
        self._use("airis_dispatch")
        self._fire(1)
        figures = {}
        for name, rounds, count in (("awake", singles, 1), ("awake_burst", bursts, BURST)):
            arrived: list[float] = []
            for _ in range(rounds):
                arrived += self._fire(count)[1]
                time.sleep(1 + self.chance.random())
            figures[name] = _told(f"{_what(count)}, the tasks linger", arrived)
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

    def _runs(self, dag_id: str) -> list[dict[str, Any]]:
        """The tasks of the runs that began last, the newest first."""
        params = {"order_by": "-run_after", "limit": 2}
        runs = self.airflow.call("GET", f"/dags/{dag_id}/dagRuns", params=params)["dag_runs"]
        path = f"/dags/{dag_id}/dagRuns"
        tasks = [self.airflow.call("GET", f"{path}/{run['dag_run_id']}/taskInstances") for run in runs]
        return [{task["task_id"]: task for task in found["task_instances"]} for found in tasks]

    def _sleep(self) -> None:
        """Return when the loops sleep, at a moment that has to do with nothing."""
        _until(lambda: all(self._sleeps(f"loop_{system}") for system in SYSTEMS))
        time.sleep(3 + 2 * self.chance.random())

    def _sleeps(self, dag_id: str) -> bool:
        runs = self._runs(dag_id)
        return bool(runs) and any(task["state"] == "deferred" for task in runs[0].values())

    def _parts(self, system: str, at: float) -> dict[str, float]:
        """Where the time went until a system was asked first."""
        if self.loop != "shipped":
            return {}
        tasks = self._runs(f"loop_{system}")[1]
        wait, deliver = tasks["wait"], tasks["deliver"]
        logged = [(line["event"], _seconds(line["timestamp"])) for line in self._lines(deliver)]
        heard = [line for line in self._lines(wait, ".trigger.*") if line["event"] == "Trigger fired event"]
        times = {
            "trigger": _seconds(heard[-1]["timestamp"]),
            "triggerer": _seconds(wait["end_date"]),
            "scheduler": _seconds(deliver["queued_when"]),
            "start": logged[0][1],
            "import": next(at for event, at in logged if event == "::endgroup::"),
            "request": min(row["at"] for row in self._seen(system) if row["at"] / 1000 >= at) / 1000,
        }
        ends = [*times.values()]
        return {part: end - start for part, start, end in zip(times, [at, *ends], ends, strict=False)}

    def _lines(self, task: dict[str, Any], more: str = "") -> list[dict[str, Any]]:
        """A task's log."""
        run = f"dag_id={task['dag_id']}/run_id={task['dag_run_id']}/task_id={task['task_id']}"
        found = sorted((self.airflow.logs / run).glob(f"attempt=*.log{more}"))
        return [json.loads(line) for path in found for line in path.read_text().splitlines()]

    def _fire(self, count: int) -> tuple[float, list[float]]:
        """When the first was fired, by the hub, and the seconds until each receiver was asked for each."""
        before = {system: len(self._seen(system)) for system in SYSTEMS}
        at: dict[str, float] = {}
        for _ in range(count):
            self.fired += 1
            body = {"name": f"alert {self.fired}", "severity": "critical"}
            fired = self.hub.post("/api/v1/alerts", json=body).raise_for_status().json()
            at[fired["id"]] = fired["updated_at"] / 1000
        _until(lambda: all(len(self._seen(system)) >= before[system] + count for system in SYSTEMS))
        arrived = []
        for system in SYSTEMS:
            for row in self._seen(system)[before[system] :]:
                if "metadata" in row:
                    alert_id = row["metadata"]["event_payload"]["alert_id"]
                else:
                    alert_id = row["dedup_key"].removeprefix("airis-mon-")
                arrived.append(row["at"] / 1000 - at[alert_id])
        return min(at.values()), arrived

    def _seen(self, system: str) -> list[dict[str, Any]]:
        return list(httpx2.get(f"{self.receivers[system]}/_sandbox/requests").json())


def _alertmanager(folder: Path, singles: int, bursts: int) -> dict[str, Any]:
    """The same alerts, each a group of its own, to the same stand-in."""
    figures = {}
    with Server("sandbox.pagerduty", "--port", "0") as pagerduty:
        receiver = {"routing_key": "0" * 32, "url": f"{pagerduty.url}/v2/enqueue", "description": "{{.GroupLabels.n}}"}
        config = {
            "route": {"receiver": "pagerduty", "group_by": ["..."], "group_wait": "0s"},
            "receivers": [{"name": "pagerduty", "pagerduty_configs": [receiver]}],
        }
        (folder / "alertmanager.yml").write_text(json.dumps(config))
        url = f"http://{HOST}:{free_port()}"
        command = ["prometheus-alertmanager", f"--config.file={folder}/alertmanager.yml", "--cluster.listen-address="]
        command += [f"--storage.path={folder}/alertmanager", f"--web.listen-address={url.removeprefix('http://')}"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            _until(lambda: _answers(f"{url}/-/ready"))
            client = httpx2.Client()
            number = 0

            def fire(count: int) -> list[float]:
                nonlocal number
                at: dict[str, float] = {}
                for _ in range(count):
                    number += 1
                    at[str(number)] = time.time()
                    labels = {"alertname": f"alert {number}", "severity": "critical", "n": str(number)}
                    client.post(f"{url}/api/v2/alerts", json=[{"labels": labels}]).raise_for_status()
                rows: list[dict[str, Any]] = []

                def arrived() -> bool:
                    rows[:] = client.get(f"{pagerduty.url}/_sandbox/requests").json()
                    return len(rows) >= number

                _until(arrived)
                return [row["at"] / 1000 - at[row["payload"]["summary"]] for row in rows[-count:]]

            fire(1)
            for name, rounds, count in (("single", singles, 1), ("burst", bursts, BURST)):
                if rounds:
                    found = [seconds for _ in range(rounds) for seconds in fire(count)]
                    figures[name] = _told(f"{_what(count)}, Alertmanager", found)
        finally:
            process.terminate()
            process.wait(10)
    return figures


def _has_postgres() -> bool:
    try:
        program("postgres")
    except FileNotFoundError:
        return False
    return True


def _answers(url: str) -> bool:
    try:
        return httpx2.get(url).status_code == 200
    except httpx2.TransportError:
        return False


def _what(count: int) -> str:
    return "single" if count == 1 else f"burst of {count}"


def _seconds(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()


def _p95(seconds: list[float]) -> float:
    ordered = sorted(seconds)
    return ordered[math.ceil(0.95 * len(ordered)) - 1]


def _told(what: str, seconds: list[float]) -> dict[str, Any]:
    figures = {"p50_s": statistics.median(seconds), "p95_s": _p95(seconds), "max_s": max(seconds)}
    print(f"{what:34} " + "  ".join(f"{name[:-2]} {value:6.3f} s" for name, value in figures.items()), flush=True)
    return {name: round(value, 3) for name, value in figures.items()}


def _until(condition: Callable[[], Any], seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError("it did not happen in time")
        time.sleep(0.3)


def main() -> None:
    """Run it as the options say."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dispatch")
    parser.add_argument("--database", choices=("postgresql", "sqlite"), default="postgresql")
    parser.add_argument("--loop", choices=tuple(loops.LOOPS), default="shipped")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.OPTION=VALUE")
    parser.add_argument("--singles", type=int, default=SINGLES)
    parser.add_argument("--bursts", type=int, default=BURSTS)
    given = parser.parse_args()
    pairs = [one.partition("=")[::2] for one in given.set]
    settings = {f"AIRFLOW__{name.replace('.', '__', 1).upper()}": value for name, value in pairs}
    run(database=given.database, loop=given.loop, settings=settings, singles=given.singles, bursts=given.bursts)


if __name__ == "__main__":
    main()
