"""The dispatch in Airflow itself, while its processes are killed: no alert missed, none doubled, order kept.

``AIRIS_FAULTS_MINUTES=30`` goes on for so long, instead of killing everything once, kills the API server too, and lets
the scheduler hang; ``AIRIS_FAULTS_SEED`` chooses as the run has that printed it.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from sandbox.airflow import Airflow
from sandbox.postgres import Postgres, program
from sandbox.process import Server
from sandbox.topology import COMPONENTS, connections, hub_arguments

SEED = int(os.environ.get("AIRIS_FAULTS_SEED", random.randrange(1 << 32)))
MINUTES = float(os.environ.get("AIRIS_FAULTS_MINUTES", "0"))
SYSTEMS = ("slack", "pagerduty", "webhook")
SEVERITIES = ("high", "critical")
# In their order.
STATUSES = ("firing", "acknowledged", "resolved")
PAGERDUTY = {"trigger": "firing", "acknowledge": "acknowledged", "resolve": "resolved", "error": "high"}
# How soon Airflow sees that something has died: by default after minutes.
SETTINGS = {
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "12",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "5",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "2",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "8",
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "8",
    "AIRFLOW__AIRIS_WEBHOOK__SEVERITIES": ", ".join(SEVERITIES),
}
# Without a heartbeat for so long, a scheduler hangs.
HANGS_S = 40
TRIGGERERS = ("triggerer", "triggerer@2")
# The tasks of a scheduler that was killed have inherited its connection, and with it the rows that it had locked.
DATABASE = {"idle_in_transaction_session_timeout": "15s"}
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
    """Airflow on PostgreSQL with two triggerers and the Dags unpaused, a hub, and the stand-ins of the receivers."""

    def __init__(self, airflow: Airflow, postgres: Postgres, folder: Path) -> None:
        self.airflow = airflow
        self.postgres = postgres
        self.folder = folder
        self.hub = self.start_hub()
        more = {"webhook": ("--secret-file", str(airflow.home / "secrets" / "webhook_secret"))}
        self.receivers = {s: Server(f"sandbox.{s}", "--port", "0", *more.get(s, ())) for s in SYSTEMS}
        headers = {"Authorization": f"Bearer {airflow.secrets['hub_admin_token']}"}
        self.client = httpx2.Client(base_url=self.hub.url, headers=headers)
        self.ids: list[str] = []
        self.restarted: Counter[str] = Counter()

    def start_hub(self, port: int = 0) -> Server:
        own = hub_arguments(self.airflow.home / "secrets", self.folder / "hub.db")
        return Server("airflow_provider_airis.hub", "--port", str(port), *own)

    def stop(self) -> None:
        self.client.close()
        for server in (self.hub, *self.receivers.values()):
            server.stop()

    def unpause(self, paused: bool = False) -> None:
        for system in SYSTEMS:
            self.airflow.call("PATCH", f"/dags/airis_dispatch_{system}", json={"is_paused": paused})

    def tend(self) -> None:
        """Start again what has ended by itself, as systemd does."""
        for name in self.airflow.ended():
            self.restarted[name] += 1
            self.kill(name)

    def until(self, condition: Callable[[], Any], seconds: float = 180) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.going_on()
            self.tend()
            self.probe()
            time.sleep(0.5)

    def probe(self) -> None:
        """Kill the scheduler if it lives but does nothing, as a liveness probe would.

        One that has lost its database ends itself, waits for its workers, and has been seen to wait for ever.
        """
        name = "scheduler"
        with suppress(psutil.NoSuchProcess, RuntimeError, httpx2.TransportError):
            started = psutil.Process(self.airflow.processes[name].pid).create_time()
            beat = self.airflow.call("GET", "/monitor/health")[name]["latest_scheduler_heartbeat"]
            if beat and time.time() - max(started, datetime.fromisoformat(beat).timestamp()) > HANGS_S:
                self.restarted[f"{name}, which hung"] += 1
                self.kill(name)

    def going_on(self) -> list[Any]:
        """What Airflow believes to be running."""
        found = []
        for run in self.airflow.call("GET", "/dags/~/dagRuns", params={"state": ["queued", "running"]})["dag_runs"]:
            tasks = self.airflow.call("GET", f"/dags/{run['dag_id']}/dagRuns/{run['dag_run_id']}/taskInstances")
            states = [(task["task_id"], task["state"], task["try_number"]) for task in tasks["task_instances"]]
            found.append((run["dag_run_id"], run["dag_id"], run["state"], states))
        return found

    def disturb(self, chance: random.Random, seconds: float) -> None:
        """Let alerts fire, change their severity, be acknowledged and resolved for a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            what = chance.random()
            if what < 0.6 or not self.ids:
                number = len(self.ids) if what < 0.45 or not self.ids else chance.randrange(len(self.ids))
                body = {"name": f"alert {number}", "severity": chance.choice(SEVERITIES)}
                alert_id = self.client.post("/api/v1/alerts", json=body).raise_for_status().json()["id"]
                if alert_id not in self.ids:
                    self.ids.append(alert_id)
            else:
                kind = "acknowledge" if what < 0.8 else "resolve"
                path = f"/api/v1/alerts/{chance.choice(self.ids)}/{kind}"
                self.client.post(path, json={"by": "ada"}).raise_for_status()
            self.tend()
            time.sleep(chance.uniform(0, 0.8))

    def alerts(self) -> list[dict[str, Any]]:
        return self.client.get("/api/v1/alerts", params={"limit": 5000}).raise_for_status().json()["alerts"]

    def behind(self) -> list[tuple[str, str]]:
        """Which receivers are not known to show which alerts as they are."""
        found = []
        for alert in self.alerts():
            shown = {n["channel"]: n for n in alert["notifications"]}
            for system in SYSTEMS:
                last = shown.get(system, {"status": "resolved", "at": alert["updated_at"]})
                if (last["status"], last["at"]) != (alert["status"], alert["updated_at"]):
                    found.append((system, alert["id"]))
        return found

    def seen(self, system: str, what: str = "requests") -> list[dict[str, Any]]:
        """What a receiver has taken."""
        return httpx2.get(f"{self.receivers[system].url}/_sandbox/{what}").json()

    def told(self, system: str) -> dict[str, list[tuple[str, str]]]:
        """What a receiver was shown of each alert, one after the other, as (status, severity)."""
        found = defaultdict(list)
        for row in self.seen(system):
            if system == "slack":
                # "Resolved: HIGH Alert: alert 7"
                before, _, state = row["text"].rpartition(" Alert: ")[0].rpartition(": ")
                alert_id, shown = (
                    row["metadata"]["event_payload"]["alert_id"],
                    (before.lower() or "firing", state.lower()),
                )
            elif system == "pagerduty":
                severity = row.get("payload", {}).get("severity", "")
                alert_id = row["dedup_key"].removeprefix("airis-mon-")
                shown = (PAGERDUTY[row["kind"]], PAGERDUTY.get(severity, severity))
            else:
                alert_id, shown = row["alert"]["id"], (row["alert"]["status"], row["alert"]["severity"])
            found[alert_id].append(shown)
        return found

    def doubled(self, system: str) -> list[Any]:
        """What people see twice."""
        if system == "slack":
            posted = [row["metadata"]["event_payload"] for row in self.seen("slack") if row["kind"] == "message"]
            replies = [row["metadata"]["event_payload"] for row in self.seen("slack", "replies")]
            return repeated([(its["alert_id"], its.get("reply")) for its in posted + replies])
        if system == "pagerduty":
            return repeated([incident["dedup_key"] for incident in self.seen("pagerduty", "incidents")])
        return [row["key"] for row in self.seen(system) if row["repeated"]]

    # What dies

    def kill(self, name: str) -> None:
        """A component with all that it started, as if its machine were gone; another takes its place."""
        self.airflow.kill(name)
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
        with suppress(psutil.NoSuchProcess):
            for worker in psutil.Process(self.airflow.processes["scheduler"].pid).children():
                for found in worker.children(recursive=True):
                    with suppress(psutil.NoSuchProcess):
                        if not found.children():
                            found.kill()

    def hang_scheduler(self) -> None:
        """It lives, and does nothing."""
        self.airflow.processes["scheduler"].send_signal(signal.SIGSTOP)

    def kill_hub(self) -> None:
        port = self.hub.port
        self.hub.kill()
        self.hub = self.start_hub(port)

    def kill_database(self, chance: random.Random) -> None:
        self.postgres.kill()
        self.disturb(chance, chance.uniform(0, 6))
        self.postgres.start()

    def pause(self) -> None:
        for paused in (True, False):
            # The database, or the API server, may have come back only just now.
            self.until(lambda: self._paused(paused=paused))  # noqa: B023
            time.sleep(1)

    def _paused(self, *, paused: bool) -> bool:
        with suppress(RuntimeError, httpx2.TransportError):
            self.unpause(paused)
            return True
        return False


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    try:
        program("postgres")
    except FileNotFoundError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("world")
    with (
        Postgres(**DATABASE) as postgres,
        Airflow(
            folder / "airflow", settings=SETTINGS | {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": postgres.url}
        ) as airflow,
    ):
        (airflow.home / "dags").mkdir()
        (airflow.home / "dags" / "own.py").write_text(OWN)
        airflow.migrate()
        world = World(airflow, postgres, folder)
        try:
            airflow.start(*COMPONENTS, TRIGGERERS[1])
            airflow.wait()
            peers = {system: server.url for system, server in world.receivers.items()}
            rows = connections(airflow.secrets, hub=world.hub.url, dashboard=world.hub.url, peers=peers)
            for conn_id, fields in rows.items():
                airflow.call("POST", "/connections", json={"connection_id": conn_id, **fields})
            wanted = {f"airis_dispatch_{system}" for system in SYSTEMS}
            world.until(lambda: wanted <= {dag["dag_id"] for dag in airflow.call("GET", "/dags")["dags"]})
            world.unpause()
            yield world
        finally:
            world.stop()


PAUSE = "none, but the Dags are paused"


def repeated(shown: list[Any]) -> list[Any]:
    return [what for what, count in Counter(shown).items() if count > 1]


def test_whatever_dies_no_alert_is_missed_or_doubled(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    chance = random.Random(SEED)
    world.disturb(chance, 6)
    world.until(lambda: not world.behind())
    deaths: dict[str, Callable[[], None]] = {
        "tasks": world.kill_tasks,
        **{name: lambda name=name: world.kill(name) for name in TRIGGERERS},
        "hub": world.kill_hub,
        "scheduler with its tasks": lambda: world.kill("scheduler"),
        "scheduler alone": world.kill_scheduler_alone,
        "database": lambda: world.kill_database(chance),
        PAUSE: world.pause,
    }
    if MINUTES:
        deaths["api-server"] = lambda: world.kill("api-server")
        deaths["scheduler, which hangs"] = world.hang_scheduler

    def say(line: str) -> None:
        print(line)  # shown by a test that fails
        with capsys.disabled():
            print(line, flush=True)

    say(f"\nAIRIS_FAULTS_SEED={SEED}")
    started, killed = time.monotonic(), Counter[str]()
    while not killed or time.monotonic() < started + MINUTES * 60:
        for name in chance.sample([*deaths], len(deaths)):
            world.disturb(chance, chance.uniform(1, 5))
            say(f"{time.monotonic() - started:7.1f} s  {name}")
            deaths[name]()
            killed[name] += 1
            world.disturb(chance, chance.uniform(0.5, 3))
            if MINUTES and chance.random() < 0.3:
                world.until(lambda: not world.behind())
    world.until(lambda: not world.behind())
    say(f"{time.monotonic() - started:7.1f} s  everything is told")
    paused = killed.pop(PAUSE)
    kills = ", ".join(f"{name} {count}" for name, count in sorted(killed.items()))
    say(f"{killed.total()} kills: {kills}; paused {paused} times")
    ended = ", ".join(f"{name} {count}" for name, count in sorted(world.restarted.items()))
    locked = world.postgres.log.read_text().count("due to idle-in-transaction timeout")
    say(f"ended by themselves and started again: {ended or 'none'}; locks of the dead: {locked}")

    alerts = world.alerts()
    wrong: dict[str, Any] = {}
    doubled = {system: world.doubled(system) for system in SYSTEMS}
    for system in SYSTEMS:
        told = world.told(system)
        for alert in alerts:
            shown = told.get(alert["id"], [("resolved", alert["severity"])])
            if (alert["status"], alert["severity"]) != (shown[-1][0], shown[-1][1] or alert["severity"]):
                wrong[f"{system} missed {alert['id']}"] = (shown, alert)
            if shown != sorted(shown, key=lambda state: STATUSES.index(state[0])):
                wrong[f"{system} was told of {alert['id']} out of order"] = shown
        count = sum(map(len, told.values()))
        say(f"{system}: {len(told)} of {len(alerts)} alerts, {count} requests, doubled: {doubled[system] or 'none'}")
    assert not wrong
    assert doubled["slack"] == doubled["pagerduty"] == []
    # It cannot be asked what it was told before, but is told so: the key is the same.
    assert len(doubled["webhook"]) <= killed.total()


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

    world.until(lambda: consumers() == [200, 200])
    airflow.call("POST", "/dags/own_fails/dagRuns", json={"logical_date": None})
    world.until(own)
    (failed,) = own()
    assert (failed["name"], failed["model_id"], failed["status"]) == ("own_fails.train failed", "train", "firing")
    world.until(lambda: results("own_waits", "react") and results("own_told", "tell"))

    body = {"severity": "low", "alert_type": "own"}
    for name in ("before it dies", "while it is dead"):
        world.client.post("/api/v1/alerts", json=body | {"name": name}).raise_for_status()
        if name == "before it dies":
            world.kill("triggerer")
    airflow.call("POST", "/dags/own_fails/dagRuns", json={"logical_date": None, "conf": {"fail": False}})
    world.until(lambda: own()[0]["status"] == "resolved")
    ids = [alert["id"] for alert in own()]
    world.until(lambda: {*ids} <= {*results("own_waits", "react")} and (failed["id"], "resolved") in told())

    # In their order; the triggerer may have died before the hub heard that something was told.
    assert list(dict.fromkeys(results("own_waits", "react"))) == ids
    expected = [(alert_id, "fired") for alert_id in ids] + [(failed["id"], "resolved")]
    assert sorted(set(told())) == sorted(expected)
    assert len(told()) <= len(expected) + 1
    assert results("own_told", "tell")[0] == [[failed["id"], "firing"]]
    run = airflow.call("GET", "/dags/own_waits/dagRuns", params={"order_by": "id"})["dag_runs"][0]["dag_run_id"]
    links = airflow.call("GET", f"/dags/own_waits/dagRuns/{run}/taskInstances/wait/links")["extra_links"]
    assert links == {"AIRIS-MON alert": f"{world.hub.url}/dashboard?alert={failed['id']}"}
