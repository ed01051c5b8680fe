"""A week of history through Airflow's own backfill, a task and the scheduler killed in its middle; a gap filled."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from airflow_provider_airis.operators.sagemaker import SageMakerToAirisOperator
from airflow_provider_airis.records import Window, iso, to_ms
from sandbox.airflow import Airflow, end_sessions
from sandbox.fake import Running
from sandbox.process import ROOT, Server
from sandbox.sagemaker.peer import REGION, truth
from sandbox.topology import BUNDLES, connections, hub_arguments

pytestmark = pytest.mark.e2e

DAYS = 7
DAY_MS = 86_400_000
# Points that the hub may still store of a task that was stopped.
UNDER_WAY = 25_000
RECONCILE, FILL = "airis_reconcile_sagemaker", "airis_fill_gaps"
# What is gone is found in seconds here, by default in minutes.
SETTINGS = {
    "AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY": "1",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "4",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "20",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "15",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
    # The two Dags alone: each of the others would be parsed too.
    "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(BUNDLES[:1]),
}


class Backfill:
    """Airflow without a scheduler yet, the stand-in with nine days of history, and an empty hub."""

    def __init__(self, airflow: Airflow, hub: Server, source: Server, history: Window) -> None:
        self.airflow, self.source, self.history = airflow, source, history
        headers = {"Authorization": f"Bearer {airflow.secrets['hub_admin_token']}"}
        self.hub = httpx2.Client(base_url=hub.url, headers=headers, timeout=60)
        self.ended: set[int] = set()

    def schedule(self) -> None:
        self.airflow.start("scheduler")
        self.airflow.wait()

    def unpause(self, dag_id: str) -> None:
        self.airflow.call("PATCH", f"/dags/{dag_id}", json={"is_paused": False})

    def repeat(self, day: str) -> None:
        """Read a day anew, by a backfill that is created as the form in the UI does it; Airflow has one at a time."""
        tried = self._tries()[day]
        until(lambda: all(row["completed_at"] for row in self._backfills()))
        days = {"from_date": f"{day}T00:00:00Z", "to_date": f"{day}T00:00:00Z"}
        form = {"run_backwards": False, "max_active_runs": 1, "reprocess_behavior": "completed", "dag_run_conf": {}}
        until(lambda: self._created({"dag_id": RECONCILE, **days, **form}))
        until(lambda: self._tries()[day] > tried and self.runs("backfill")[day] == "success")

    def _created(self, form: dict[str, Any]) -> bool:
        """Whether Airflow took it: on SQLite it answers 503 while its scheduler writes."""
        try:
            self.airflow.call("POST", "/backfills", json=form)
        except RuntimeError as error:
            if "Database is locked" not in str(error):
                raise
            return False
        return True

    def _backfills(self) -> list[dict[str, Any]]:
        found = self.airflow.call("GET", "/backfills", params={"dag_id": RECONCILE})["backfills"]
        return list(found)

    def _tries(self) -> dict[str, int]:
        return {_day(task): task["try_number"] for task in self.tasks()}

    def runs(self, run_type: str) -> dict[str, str]:
        """State by day; of a filled day by run id, because it has no logical date."""
        found = self.airflow.call("GET", f"/dags/{RECONCILE}/dagRuns", params={"run_type": run_type})["dag_runs"]
        return {_day(run): run["state"] for run in found}

    def tasks(self) -> list[dict[str, Any]]:
        """The tasks of all backfill runs."""
        found = self.airflow.call("GET", f"/dags/{RECONCILE}/dagRuns/~/taskInstances")["task_instances"]
        return [task for task in found if task["logical_date"]]

    def held(self, day: Window) -> int:
        span = {"from": day.start, "to": day.end, "step": 86_400}
        answer = self.hub.get("/api/v1/metrics/coverage", params=span).raise_for_status().json()
        return sum(series["points"] for series in answer["series"])

    def published(self, day: Window) -> int:
        span = {"from": iso(day.start), "to": iso(day.end)}
        answer = httpx2.get(f"{self.source.url}/_sandbox/published", params=span, timeout=60)
        return int(answer.raise_for_status().json()["points"])

    def kill_a_task(self) -> tuple[str, Window]:
        """End a task that has delivered a part of its day, and its supervisor, as a machine that is gone does.

        :return: the day, and its window.
        """
        supervisor, day, window = until(self._halfway)
        for process in (supervisor, *supervisor.children(recursive=True)):
            process.kill()
        return day, window

    def _halfway(self) -> tuple[psutil.Process, str, Window] | None:
        """A task, stopped, which is in the middle of its day; the others go on."""
        scheduler = psutil.Process(self.airflow.processes["scheduler"].pid)
        supervisors = {_title(child): child for child in scheduler.children()}
        for task in self.tasks():
            start = to_ms(datetime.fromisoformat(task["logical_date"]))
            day = Window(start, start + DAY_MS)
            supervisor = next((child for title, child in supervisors.items() if task["id"] in title), None)
            if task["state"] != "running" or supervisor is None or not self.held(day):
                continue
            stopped = [supervisor, *supervisor.children(recursive=True)]
            with suppress(psutil.NoSuchProcess):
                for process in stopped:
                    process.suspend()
                if self.held(day) < self.published(day) - UNDER_WAY:
                    return supervisor, _day(task), day
                for process in stopped:
                    process.resume()
        return None

    def kill(self, component: str) -> None:
        """End a component alone, without a word; what it has started goes on."""
        process = self.airflow.processes.pop(component)
        self.ended.add(process.pid)
        process.kill()
        process.wait()


def _day(run: dict[str, Any]) -> str:
    date = run["logical_date"]
    return str(date)[:16].removesuffix("T00:00") if date else str(run["dag_run_id"])


def _title(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def until(condition: Callable[[], Any], seconds: float = 180) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.3)
    return value


@pytest.fixture
def backfill(tmp_path: Path, connect: Callable[..., str]) -> Iterator[Backfill]:
    today = (datetime.now(UTC) - timedelta(minutes=31)).replace(hour=0, minute=0, second=0, microsecond=0)
    history = Window.between(today - timedelta(days=DAYS + 2), today)
    span = ("--history-from", iso(history.start), "--history-until", iso(history.end))
    with Airflow(tmp_path / "airflow", settings=SETTINGS) as airflow:
        migration = airflow.begin("db", "migrate")
        arguments = hub_arguments(airflow.home / "secrets", tmp_path / "hub.db")
        with (
            Server("airflow_provider_airis.hub", "--port", "0", *arguments) as hub,
            Server("sandbox.sagemaker", "--endpoints", "2", "--regions", REGION, *span) as source,
        ):
            (airflow.home / "dags").mkdir()
            for name in ("airis_reconcile", "airis_fill_gaps"):
                shutil.copy(ROOT / f"dags/{name}.py", airflow.home / "dags")
            airflow.finish(migration)
            airflow.start("api-server", "dag-processor")
            airflow.wait()
            rows = connections(airflow.secrets, hub=hub.url, dashboard=hub.url, peers={"sagemaker": source.url})
            for conn_id, fields in rows.items():
                airflow.call("POST", "/connections", json={"connection_id": conn_id, **fields})
                connect(conn_id, **fields)
            until(lambda: {RECONCILE, FILL} <= {dag["dag_id"] for dag in airflow.call("GET", "/dags")["dags"]})
            this = Backfill(airflow, hub, source, history)
            try:
                yield this
            finally:
                end_sessions(this.ended)


def test_a_week_whose_task_and_scheduler_were_killed_is_complete_doubles_nothing_and_an_outage_before_it_is_filled(
    backfill: Backfill,
) -> None:
    first, second, *week = backfill.history.split(86_400)
    live = Window(first.start, first.start + 2 * 3_600_000)
    times = {"start": iso(live.start), "end": iso(live.end)}
    SageMakerToAirisOperator(task_id="live", region_name=REGION, **times).execute({})
    # SQLite takes a backfill only while nobody else writes. The Dags are stored, and do not change.
    backfill.kill("dag-processor")
    dates = [iso(day.start)[:10] for day in week]
    options = ("--from-date", dates[0], "--to-date", dates[-1], "--max-active-runs", "3")
    backfill.airflow.run("backfill", "create", "--dag-id", RECONCILE, *options)
    backfill.unpause(RECONCILE)
    backfill.schedule()
    until(lambda: "success" in backfill.runs("backfill").values())
    killed, day = backfill.kill_a_task()
    backfill.kill("scheduler")
    assert 0 < backfill.held(day) < backfill.published(day)
    assert backfill.runs("backfill")[killed] == "running"

    backfill.schedule()
    until(lambda: set(backfill.runs("backfill").values()) == {"success"})
    assert sorted(backfill.runs("backfill")) == dates
    assert {_day(task): task["try_number"] for task in backfill.tasks()}[killed] > 1

    backfill.unpause(FILL)
    filled = {f"gapfill__{iso(day.start)[:10]}": "success" for day in (first, second)}
    until(lambda: backfill.runs("operator_triggered") == filled)
    backfill.repeat(dates[0])
    tally = truth(Running(backfill.source.url, ROOT), backfill.hub, [backfill.history])
    assert (tally.missing, tally.doubled, tally.examples) == (0, 0, [])
    assert tally.published == tally.in_hub > 100_000
