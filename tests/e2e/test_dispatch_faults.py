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
# What a user writes.
OWN = """
from datetime import UTC, datetime

from airflow.sdk import DAG, Param, task
from airflow_provider_airis.assets import alerts, told
from airflow_provider_airis.notifications.airis import AirisNotifier
from airflow_provider_airis.sensors.alerts import AirisAlertSensor

OWN = {"catchup": False, "is_paused_upon_creation": False}

with DAG("own_fails", schedule=None, params={"fail": True}, **OWN):

    @task(
        on_failure_callback=AirisNotifier(alert_type="own", model_id="{{ ti.task_id }}"),
        on_success_callback=AirisNotifier(status="resolved"),
    )
    def train(params):
        if params["fail"]:
            raise RuntimeError("no data")

    train()

with DAG("own_told", schedule=[alerts("own", "alert_type=own", changes=["fired", "resolved"])], **OWN):

    @task
    def tell(triggering_asset_events=None):
        return [[alert["id"], alert["status"]] for alert in told(triggering_asset_events)]

    tell()

with DAG("own_waits", schedule="@continuous", start_date=datetime(2026, 1, 1, tzinfo=UTC), max_active_runs=1, **OWN):

    @task
    def react(alert):
        return alert["id"]

    react(AirisAlertSensor(task_id="wait", matchers=["alert_type=own"]).output)
"""


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
        # A worker that waits for its next task holds the queue's lock; killed, it would keep the others from theirs.
        for worker in psutil.Process(self.airflow.processes["scheduler"].pid).children():
            for found in worker.children(recursive=True):
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


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    with Airflow(folder / "airflow", settings=SETTINGS) as airflow:
        (airflow.home / "dags").mkdir()
        (airflow.home / "dags" / "own.py").write_text(OWN)
        airflow.migrate()
        world = World(airflow, folder)
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


def test_users_own_dags_are_started_waited_for_and_told_of_by_alerts_though_the_triggerer_dies(world: World) -> None:
    world.unpause(paused=True)
    airflow = world.airflow

    def consumers() -> list[int]:
        return [
            world.client.get(f"/api/v1/consumers/airflow-{name}").status_code
            for name in ("alerts:own", "own_waits.wait")
        ]

    def own() -> list[dict[str, Any]]:
        found = world.client.get("/api/v1/alerts", params={"limit": 5000}).raise_for_status().json()["alerts"]
        return [alert for alert in reversed(found) if alert["alert_type"] == "own"]

    def results(dag_id: str, task_id: str) -> list[Any]:
        runs = airflow.call("GET", f"/dags/{dag_id}/dagRuns", params={"order_by": "id"})["dag_runs"]
        paths = [
            f"/dags/{dag_id}/dagRuns/{run['dag_run_id']}/taskInstances/{task_id}"
            for run in runs
            if run["state"] == "success"
        ]
        return [airflow.call("GET", f"{path}/xcomEntries/return_value")["value"] for path in paths]

    def told() -> list[tuple[str, str]]:
        events = airflow.call("GET", "/assets/events", params={"order_by": "timestamp"})["asset_events"]
        payloads = [event["extra"]["payload"] for event in events]
        return [(payload["alert"]["id"], payload["change"]) for payload in payloads]

    until(lambda: consumers() == [200, 200])
    airflow.call("POST", "/dags/own_fails/dagRuns", json={"logical_date": None})
    until(own)
    (failed,) = own()
    assert (failed["name"], failed["model_id"], failed["status"]) == ("own_fails.train failed", "train", "firing")
    until(lambda: results("own_waits", "react") and results("own_told", "tell"))

    body = {"severity": "low", "alert_type": "own"}
    for name in ("before it dies", "while it is dead"):
        world.client.post("/api/v1/alerts", json=body | {"name": name}).raise_for_status()
        if name == "before it dies":
            world.kill("triggerer")
    airflow.call("POST", "/dags/own_fails/dagRuns", json={"logical_date": None, "conf": {"fail": False}})
    until(lambda: own()[0]["status"] == "resolved")
    ids = [alert["id"] for alert in own()]
    until(lambda: {*ids} <= {*results("own_waits", "react")} and (failed["id"], "resolved") in told())

    # In their order; the triggerer may have died before the hub heard that something was told.
    assert list(dict.fromkeys(results("own_waits", "react"))) == ids
    expected = [(alert_id, "fired") for alert_id in ids] + [(failed["id"], "resolved")]
    assert sorted(set(told())) == sorted(expected)
    assert len(told()) <= len(expected) + 1
    assert results("own_told", "tell")[0] == [[failed["id"], "firing"]]
    run = airflow.call("GET", "/dags/own_waits/dagRuns", params={"order_by": "id"})["dag_runs"][0]["dag_run_id"]
    links = airflow.call("GET", f"/dags/own_waits/dagRuns/{run}/taskInstances/wait/links")["extra_links"]
    assert links == {"AIRIS-MON alert": f"{world.hub.url}/dashboard?alert={failed['id']}"}
