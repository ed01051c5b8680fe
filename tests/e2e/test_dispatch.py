"""The dispatch loop in Airflow itself: it wakes, delivers, shows what failed, and goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from sandbox.airflow import Airflow
from sandbox.process import Server
from sandbox.topology import connections, hub_arguments

DAG = "/dags/airis_dispatch_alerts"


class Loop:
    """Airflow with the Dag unpaused, a hub, and the stand-ins of the receivers."""

    def __init__(self, airflow: Airflow, hub: Server, slack: Server, pagerduty: Server) -> None:
        self.airflow = airflow
        self.slack, self.pagerduty = (httpx2.Client(base_url=server.url) for server in (slack, pagerduty))
        headers = {"Authorization": f"Bearer {airflow.secrets['hub_admin_token']}"}
        self.hub = httpx2.Client(base_url=hub.url, headers=headers)

    def fire(self, name: str, severity: str = "critical") -> str:
        answer = self.hub.post("/api/v1/alerts", json={"name": name, "severity": severity}).raise_for_status()
        return str(answer.json()["id"])

    def resolve(self, alert_id: str) -> None:
        self.hub.post(f"/api/v1/alerts/{alert_id}/resolve", json={}).raise_for_status()

    def ledger(self, alert_id: str) -> dict[str, str]:
        alert = self.hub.get(f"/api/v1/alerts/{alert_id}").raise_for_status().json()
        return {row["channel"]: row["status"] for row in alert["notifications"]}

    def ended(self, count: int) -> list[dict[str, Any]]:
        """The runs, once so many have ended."""

        def runs() -> list[dict[str, Any]]:
            found = self.airflow.call("GET", f"{DAG}/dagRuns", params={"order_by": "run_after"})["dag_runs"]
            return [run for run in found if run["state"] in ("success", "failed")]

        return until(lambda: (ended := runs())[count - 1 :] and ended)

    def tasks(self, run: dict[str, Any]) -> dict[str, list[str]]:
        found = self.airflow.call("GET", f"{DAG}/dagRuns/{run['dag_run_id']}/taskInstances")["task_instances"]
        return {
            name: sorted(task["state"] for task in found if task["task_id"] == name)
            for name in ("wait", "plan", "deliver", "commit")
        }


def until(condition: Callable[[], Any], seconds: float = 180) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.5)
    return value


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Loop]:
    with Airflow(tmp_path / "airflow", settings={"AIRFLOW__AIRIS_SLACK__SEVERITIES": "critical"}) as airflow:
        airflow.migrate()
        arguments = hub_arguments(airflow.home / "secrets", tmp_path / "hub.db")
        with (
            Server("airflow_provider_airis.hub", "--port", "0", *arguments) as hub,
            Server("sandbox.slack", "--port", "0") as slack,
            Server("sandbox.pagerduty", "--port", "0") as pagerduty,
        ):
            airflow.start()
            airflow.wait()
            peers = {"slack": slack.url, "pagerduty": pagerduty.url}
            rows = connections(airflow.secrets, hub=hub.url, dashboard=hub.url, peers=peers)
            for conn_id, fields in rows.items():
                airflow.call("POST", "/connections", json={"connection_id": conn_id, **fields})
            until(lambda: any(dag["dag_id"] in DAG for dag in airflow.call("GET", "/dags")["dags"]))
            airflow.call("PATCH", DAG, json={"is_paused": False})
            yield Loop(airflow, hub, slack, pagerduty)


def test_the_loop_delivers_is_red_where_a_delivery_failed_and_goes_on(loop: Loop) -> None:
    refused = {"call": "chat.postMessage", "status": 200, "json": {"ok": False, "error": "not_in_channel"}}
    loop.slack.post("/_sandbox/faults", json=refused).raise_for_status()

    alert = loop.fire("one receiver of two refuses")
    first = loop.ended(1)[0]
    assert loop.tasks(first) == {
        "wait": ["success"],
        "plan": ["success"],
        "deliver": ["failed", "success"],
        "commit": ["failed"],
    }
    assert first["state"] == "failed"
    assert loop.ledger(alert) == {"slack": "failed", "pagerduty": "firing"}

    nobodys = loop.fire("nobody is told of these", severity="info")
    second = loop.ended(2)[1]
    assert loop.tasks(second) == {
        "wait": ["success"],
        "plan": ["success"],
        "deliver": ["skipped"],
        "commit": ["success"],
    }
    assert second["state"] == "success"
    assert loop.ledger(nobodys) == {}

    loop.hub.post(f"/api/v1/alerts/{alert}/acknowledge", json={"by": "ada"}).raise_for_status()
    third = loop.ended(3)[2]
    assert third["state"] == "success"
    assert loop.ledger(alert) == {"slack": "acknowledged", "pagerduty": "acknowledged"}

    loop.resolve(alert)
    assert loop.ended(4)[3]["state"] == "success"
    assert [request["kind"] for request in loop.slack.get("/_sandbox/requests").json()] == ["message", "update"]
    (incident,) = loop.pagerduty.get("/_sandbox/incidents").json()
    assert [action for action, _ in incident["log"]] == ["trigger", "acknowledge", "resolve"]
