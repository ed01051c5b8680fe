"""The dispatch in Airflow itself, while its processes are killed: no alert missed, none doubled, order kept."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from sandbox.airflow import Airflow
from sandbox.process import Server
from sandbox.topology import connections, hub_arguments

SYSTEMS = ("slack", "pagerduty")
RANK = {"trigger": 0, "acknowledge": 1, "resolve": 2}
# How soon Airflow sees that something has died: by default after minutes.
SETTINGS = {
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "12",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "5",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "2",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "8",
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "8",
}


class World:
    """Airflow with the Dags unpaused, a hub, and the stand-ins of the receivers."""

    def __init__(self, airflow: Airflow, folder: Path) -> None:
        self.airflow = airflow
        self.folder = folder
        self.hub = self.start_hub()
        self.receivers = {system: Server(f"sandbox.{system}", "--port", "0") for system in SYSTEMS}
        headers = {"Authorization": f"Bearer {airflow.secrets['hub_admin_token']}"}
        self.client = httpx2.Client(base_url=self.hub.url, headers=headers)
        self.ids: list[str] = []

    def start_hub(self, port: int = 0) -> Server:
        arguments = hub_arguments(self.airflow.home / "secrets", self.folder / "hub.db")
        return Server("airflow_provider_airis.hub", "--port", str(port), *arguments)

    def stop(self) -> None:
        self.client.close()
        for server in (self.hub, *self.receivers.values()):
            server.stop()

    def unpause(self, paused: bool = False) -> None:
        for system in SYSTEMS:
            self.airflow.call("PATCH", f"/dags/airis_dispatch_{system}", json={"is_paused": paused})

    def disturb(self, chance: random.Random, seconds: float) -> None:
        """Let alerts fire, be acknowledged and resolved for a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            what = chance.random()
            if what < 0.6 or not self.ids:
                body = {"name": f"alert {len(self.ids)}", "severity": "critical"}
                self.ids.append(self.client.post("/api/v1/alerts", json=body).raise_for_status().json()["id"])
            else:
                kind = "acknowledge" if what < 0.8 else "resolve"
                path = f"/api/v1/alerts/{chance.choice(self.ids)}/{kind}"
                self.client.post(path, json={"by": "ada"}).raise_for_status()
            time.sleep(chance.uniform(0, 0.8))

    def states(self) -> dict[str, tuple[str, dict[str, str]]]:
        """Each alert's status, and what the ledger says of each receiver."""
        found = self.client.get("/api/v1/alerts", params={"limit": 5000}).raise_for_status().json()["alerts"]
        return {a["id"]: (a["status"], {n["channel"]: n["status"] for n in a["notifications"]}) for a in found}

    def behind(self) -> list[str]:
        """Alerts that a receiver does not show as they are."""
        return [
            alert_id
            for alert_id, (status, shown) in self.states().items()
            for system in SYSTEMS
            if shown.get(system, "resolved") != status
        ]

    def seen(self, system: str) -> list[tuple[str, str]]:
        """What a receiver has taken, as (kind, alert id)."""
        found = httpx2.get(f"{self.receivers[system].url}/_sandbox/requests").json()
        if system == "slack":
            return [(row["kind"], row["metadata"]["event_payload"]["alert_id"]) for row in found]
        return [(row["kind"], row["dedup_key"].removeprefix("airis-mon-")) for row in found]

    # What dies

    def kill(self, name: str) -> None:
        """A component with all that it started, as if its machine were gone; another takes its place."""
        process = self.airflow.processes[name]
        for found in psutil.process_iter():
            with suppress(ProcessLookupError, PermissionError, psutil.NoSuchProcess):
                if os.getsid(found.pid) == process.pid:
                    found.kill()
        process.wait()
        self.airflow.start(name)

    def kill_scheduler_alone(self) -> None:
        """The scheduler only: its tasks live on while its successor believes them dead."""
        process = self.airflow.processes["scheduler"]
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.airflow.start("scheduler")

    def kill_tasks(self) -> None:
        """Whatever runs a task's code."""
        session = self.airflow.processes["scheduler"].pid
        for found in psutil.Process(session).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if not found.children():
                    found.kill()

    def kill_hub(self) -> None:
        port = self.hub.port
        self.hub.kill()
        self.hub = self.start_hub(port)

    def pause(self) -> None:
        self.unpause(paused=True)
        time.sleep(1)
        self.unpause()


def until(condition: Callable[[], Any], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.5)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with Airflow(tmp_path / "airflow", settings=SETTINGS) as airflow:
        airflow.migrate()
        world = World(airflow, tmp_path)
        try:
            airflow.start()
            airflow.wait()
            peers = {system: server.url for system, server in world.receivers.items()}
            rows = connections(airflow.secrets, hub=world.hub.url, dashboard=world.hub.url, peers=peers)
            for conn_id, fields in rows.items():
                airflow.call("POST", "/connections", json={"connection_id": conn_id, **fields})
            wanted = {f"airis_dispatch_{system}" for system in SYSTEMS}
            until(lambda: wanted <= {dag["dag_id"] for dag in airflow.call("GET", "/dags")["dags"]})
            world.unpause()
            yield world
        finally:
            world.stop()


def test_whatever_dies_no_alert_is_missed_or_doubled(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    world.disturb(chance, 6)
    until(lambda: not world.behind())
    deaths: dict[str, Callable[[], None]] = {
        "tasks": world.kill_tasks,
        "triggerer": lambda: world.kill("triggerer"),
        "hub": world.kill_hub,
        "scheduler with its tasks": lambda: world.kill("scheduler"),
        "scheduler alone": world.kill_scheduler_alone,
        "none, but the Dags are paused": world.pause,
    }
    order = [*deaths]
    chance.shuffle(order)
    started = time.monotonic()
    for name in order:
        world.disturb(chance, chance.uniform(1, 5))
        deaths[name]()
        world.disturb(chance, chance.uniform(0.5, 3))
    until(lambda: not world.behind())

    with capsys.disabled():
        print(f"\nseed {seed}: {len(world.ids)} alerts, killed {', '.join(order)}; {time.monotonic() - started:.0f} s")
    states = world.states()
    for system in SYSTEMS:
        shown = world.seen(system)
        missed = {a for a, (status, _) in states.items() if status != "resolved"} - {alert_id for _, alert_id in shown}
        assert not missed, (seed, system)
    messages = Counter(alert_id for kind, alert_id in world.seen("slack") if kind == "message")
    assert [alert_id for alert_id, count in messages.items() if count > 1] == [], seed
    events = world.seen("pagerduty")
    for alert_id in states:
        told = [kind for kind, shown_id in events if shown_id == alert_id]
        assert told == sorted(told, key=RANK.__getitem__), (seed, alert_id)
    incidents = httpx2.get(f"{world.receivers['pagerduty'].url}/_sandbox/incidents").json()
    doubled = [key for key, count in Counter(i["dedup_key"] for i in incidents).items() if count > 1]
    assert doubled == [], seed
