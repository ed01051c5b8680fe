"""The dispatch on CeleryExecutor, as installations run it: PostgreSQL, Redis, two workers, two triggerers.

Each part is killed while alerts fire, with Airflow's own time limit for a task that is dead: five minutes. No alert is
missed, none doubled, and the death of the worker that delivers delays those of that moment by seconds.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator

import pytest

from airflow_provider_airis.hooks.airis import Lease
from sandbox.airflow import COMPONENTS, Airflow
from sandbox.postgres import Postgres
from sandbox.postgres import program as postgres_program
from sandbox.redis import Redis
from sandbox.redis import program as redis_program
from sandbox.topology import connections
from tests.e2e.test_dispatch_faults import STATUSES, World

SYSTEMS = ("slack", "pagerduty")
WORKERS = ("worker@1", "worker@2")
TRIGGERERS = ("triggerer", "triggerer@2")
# Seconds that the death of the worker that delivers may delay an alert.
MOST_S = 15.0


class CeleryWorld(World):
    """Airflow with CeleryExecutor, and the two receivers whose Dags are unpaused."""

    def unpause(self, paused: bool = False) -> None:
        for system in SYSTEMS:
            self.airflow.call("PATCH", f"/dags/airis_dispatch_{system}", json={"is_paused": paused})

    def lease(self, system: str) -> Lease | None:
        """Who has the right to send."""
        answer = self.client.get(f"/api/v1/leases/airflow-{system}")
        return None if answer.status_code == 404 else Lease(**answer.raise_for_status().json())

    def delivering(self, system: str) -> str | None:
        """The worker whose task delivers."""
        held = self.lease(system)
        if held is None or not (found := re.search(r"process (\d+)", held.holder)):
            return None
        try:
            return self.airflow.sessions.get(os.getsid(int(found[1])))
        except ProcessLookupError:
            return None

    def asleep(self) -> bool:
        """Whether nobody delivers, and a run of each Dag waits in a triggerer."""
        if any(self.lease(system) for system in SYSTEMS):
            return False
        for system in SYSTEMS:
            path = f"/dags/airis_dispatch_{system}/dagRuns/~/taskInstances"
            if not self.airflow.call("GET", path, params={"state": "deferred"})["task_instances"]:
                return False
        return True

    def fire_one(self) -> str:
        """A critical alert, which both are sent."""
        body = {"name": f"alert {len(self.ids)}", "severity": "critical"}
        self.ids.append(self.client.post("/api/v1/alerts", json=body).raise_for_status().json()["id"])
        return self.ids[-1]

    def delays(self, alert_id: str, began: float, seconds: float = 330) -> dict[str, float]:
        """After how many seconds each receiver was sent an alert."""
        found: dict[str, float] = {}
        while len(found) < len(SYSTEMS):
            assert time.monotonic() < began + seconds, (found, self.going_on())
            for system in SYSTEMS:
                if system not in found and alert_id in self.told(system):
                    found[system] = time.monotonic() - began
            time.sleep(0.1)
        return found

    def alert(self) -> dict[str, float]:
        """Let one fire; after how many seconds each receiver had it."""
        began = time.monotonic()
        return self.delays(self.fire_one(), began)

    def behind(self) -> list[tuple[str, str]]:
        return [pair for pair in super().behind() if pair[0] in SYSTEMS]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CeleryWorld]:
    try:
        postgres_program("postgres")
        redis_program()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("world")
    with Postgres() as postgres, Redis() as redis:
        settings = {
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": postgres.url,
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            "AIRFLOW__CELERY__BROKER_URL": redis.url,
            "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{postgres.url}",
            **{f"AIRFLOW__AIRIS_{system.upper()}__LINGER_S": "10" for system in SYSTEMS},
            # How soon another triggerer takes the triggers of one that is dead: by default after half a minute.
            "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
            "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "8",
        }
        with Airflow(folder / "airflow", settings=settings) as airflow:
            airflow.migrate()
            world = CeleryWorld(airflow, postgres, folder)
            try:
                airflow.start(*COMPONENTS, TRIGGERERS[1], *WORKERS)
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


def worker_of(world: CeleryWorld, system: str) -> str:
    world.until(lambda: world.delivering(system) in WORKERS)
    return str(world.delivering(system))


def test_a_dead_worker_delays_alerts_by_seconds(world: CeleryWorld, capsys: pytest.CaptureFixture[str]) -> None:
    def say(what: str, delays: dict[str, float]) -> dict[str, float]:
        line = f"{what}: " + ", ".join(f"{system} {seconds:.1f} s" for system, seconds in delays.items())
        print(line)  # shown by a test that fails
        with capsys.disabled():
            print(line, flush=True)
        return delays

    with capsys.disabled():
        print()
    say("the first alert", world.alert())
    say("while a task lingers", world.alert())
    world.until(world.asleep)
    say("asleep", world.alert())
    for part in (WORKERS[0], *TRIGGERERS, "scheduler"):
        world.until(world.asleep)
        world.kill(part)
        say(f"asleep, and {part} is killed", world.alert())

    # The worker that delivers to Slack; it may be PagerDuty's too.
    world.until(world.asleep)
    world.alert()
    victim = worker_of(world, "slack")
    killed = [system for system in SYSTEMS if world.delivering(system) == victim]
    world.airflow.kill(victim)
    began = time.monotonic()
    died = say(f"the worker that delivers to {' and '.join(killed)} is killed", world.alert())
    assert all(died[system] <= MOST_S for system in killed)
    world.airflow.start(victim)
    # Airflow does not know yet that the task is dead; until then there is no other that stands by, and none is needed.
    world.until(world.asleep)
    say(f"asleep, {time.monotonic() - began:.0f} s later", world.alert())
    for alert_id in world.ids[::2]:
        world.client.post(f"/api/v1/alerts/{alert_id}/resolve", json={"by": "ada"}).raise_for_status()
    world.until(lambda: not world.behind())

    for system in SYSTEMS:
        told = world.told(system)
        assert set(told) == {*world.ids}
        for states in told.values():
            assert states == sorted(states, key=lambda state: STATUSES.index(state[0]))
        assert world.doubled(system) == []
    # Nothing is left of the worker but the run that Airflow fails when its heartbeat has expired.
    failed = [
        run["dag_run_id"]
        for system in SYSTEMS
        for run in world.airflow.call("GET", f"/dags/airis_dispatch_{system}/dagRuns")["dag_runs"]
        if run["state"] == "failed"
    ]
    assert len(failed) <= len(killed)
