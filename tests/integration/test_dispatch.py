"""The dispatch loop against a real hub: it wakes, plans what is due once, and commits only what was planned."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
from airflow.sdk.exceptions import AirflowFailException
from airflow.triggers.base import TaskFailedEvent, TaskSuccessEvent

from airflow_provider_airis.hooks.airis import AirisHook
from airflow_provider_airis.operators.dispatch import AirisCommitOperator, AirisDeliverOperator, AirisPlanOperator
from airflow_provider_airis.records import Notification
from airflow_provider_airis.sensors.alerts import AirisAlertSensor
from airflow_provider_airis.triggers import alerts as triggers
from airflow_provider_airis.triggers.alerts import AirisAlertTrigger


class Run:
    """The XComs of one Dag run, as Airflow keeps them between its tasks."""

    def __init__(self) -> None:
        self.xcoms: dict[tuple[str, str], Any] = {}

    def task(self, operator: Any) -> Any:
        run = self

        class Instance:
            try_number, max_tries = 1, 0

            def xcom_push(self, key: str, value: Any) -> None:
                run.xcoms[operator.task_id, key] = value

            def xcom_pull(self, task_ids: str | list[str], key: str = "return_value") -> Any:
                # As Airflow does: a list for a list, and for one id the value itself if there is only one.
                ids = [task_ids] if isinstance(task_ids, str) else task_ids
                found = [value for task_id in ids for value in run.mapped(task_id, key)]
                return found[0] if isinstance(task_ids, str) and len(found) == 1 else found

        result = operator.execute({"ti": Instance()})
        run.xcoms[operator.task_id, "return_value"] = result
        return result

    def mapped(self, task_id: str, key: str) -> list[Any]:
        value = self.xcoms.get((task_id, key))
        return value if task_id == "deliver" and value else [value]

    def plan(self) -> list[tuple[str, str, str]]:
        planned = self.task(AirisPlanOperator(task_id="plan"))
        return [(row["channel"], row["target"], row["alert_id"]) for row in planned]

    def commit(self, delivered: int | None = None) -> int:
        count = len(self.xcoms["plan", "return_value"]) if delivered is None else delivered
        self.xcoms["deliver", "return_value"] = [{"alert_id": "some", "status": "firing"}] * count
        return self.task(AirisCommitOperator(task_id="commit", plan="plan", deliver="deliver"))


@pytest.fixture(autouse=True)
def own_consumer(hub: Any, connect: Callable[..., str], request: pytest.FixtureRequest) -> None:
    """Each test reads the feed as a consumer of its own, from where it now ends."""
    extra = {"consumer": request.node.name}
    connect("airis_default", conn_type="airis", host=hub.url, password=hub.token, extra=extra)
    with AirisHook() as client:
        sequence = 0
        while True:
            changes, sequence = client.changes(after=sequence)
            if not changes:
                break
        client.commit(client.consumer, sequence)


@pytest.fixture
def fire(hub: Any, request: pytest.FixtureRequest) -> Iterator[Callable[..., str]]:
    headers = {"Authorization": f"Bearer {hub.token}"}
    with httpx2.Client(base_url=hub.url, headers=headers) as client:

        def fire(severity: str = "critical", name: str = "Latency is high") -> str:
            body = {"name": name, "severity": severity, "fingerprint": f"{request.node.nodeid} {name}"}
            answer = client.post("/api/v1/alerts", json=body)
            assert answer.is_success, answer.text
            return answer.json()["id"]

        yield fire


SLACK, PAGERDUTY = ("slack", "#alerts"), ("pagerduty", "pagerduty_events_default")


def test_every_alert_goes_to_slack_and_the_grave_ones_to_pagerduty(fire):
    ids = {severity: fire(severity, severity) for severity in ("critical", "high", "medium", "low", "warning", "info")}
    planned = Run().plan()
    assert [row for row in planned if row[0] == "slack"] == [(*SLACK, alert_id) for alert_id in ids.values()]
    assert [row for row in planned if row[0] == "pagerduty"] == [(*PAGERDUTY, ids[s]) for s in ("critical", "high")]


def test_severities_and_targets_are_options(fire, monkeypatch):
    monkeypatch.setenv("AIRFLOW__AIRIS_PAGERDUTY__SEVERITIES", "")
    monkeypatch.setenv("AIRFLOW__AIRIS_SLACK__TARGET", "#oncall")
    alert_id = fire("critical")
    assert Run().plan() == [("slack", "#oncall", alert_id)]


def test_an_alert_that_changed_often_is_delivered_once_to_each(fire):
    alert_id = fire()
    with AirisHook() as hub:
        hub.acknowledge(alert_id, by="ada")
        hub.resolve(alert_id)
    assert Run().plan() == [(*SLACK, alert_id), (*PAGERDUTY, alert_id)]


def test_whoever_was_shown_an_alert_hears_its_end_whatever_its_severity_is_then(fire):
    alert_id = fire("low")
    with AirisHook() as hub:
        shown = Notification("pagerduty", "pagerduty_events_default", f"airis-mon-{alert_id}", "firing", 0)
        hub.record_notification(alert_id, shown)
        hub.resolve(alert_id)
    assert Run().plan() == [(*SLACK, alert_id), (*PAGERDUTY, alert_id)]


def test_what_is_not_committed_is_planned_again_and_what_is_is_not(fire):
    first = fire(name="first")
    run = Run()
    assert [row[2] for row in run.plan()] == [first, first]
    assert [row[2] for row in Run().plan()] == [first, first]
    second = fire(name="second")
    run.commit()
    after = Run()
    assert [row[2] for row in after.plan()] == [second, second]
    after.commit()
    last = Run()
    assert last.plan() == []
    last.commit()


def test_a_failed_delivery_makes_the_run_red_but_does_not_hold_the_loop(fire):
    fire()
    run = Run()
    run.plan()
    with pytest.raises(AirflowFailException, match="1 of 2 deliveries failed for good"):
        run.commit(delivered=1)
    assert Run().plan() == []


def test_without_a_plan_nothing_is_committed(fire):
    fire()
    with pytest.raises(AirflowFailException, match="plan has not planned"):
        Run().task(AirisCommitOperator(task_id="commit", plan="plan", deliver="deliver"))
    assert Run().plan() != []


def test_a_channel_that_is_no_receiver_is_refused():
    with pytest.raises(AirflowFailException, match="'sagemaker' is no system that alerts are delivered to"):
        Run().task(AirisDeliverOperator(task_id="deliver", channel="sagemaker", target="x", alert_id="y"))


def test_more_changes_than_a_run_takes_are_planned_by_the_next_ones(fire):
    ids = [fire(name=f"alert {number}") for number in range(520)]
    planned: list[str] = []
    while len(planned) < len(ids):
        run = Run()
        deliveries = run.plan()
        # As many as Airflow maps at once, whatever has piled up.
        assert 0 < len(deliveries) <= 1024
        planned += [alert_id for channel, _, alert_id in deliveries if channel == "slack"]
        run.commit()
    assert planned == ids


async def first_event(trigger: AirisAlertTrigger) -> Any:
    async for event in trigger.run():
        return event
    return None


def woken(trigger: AirisAlertTrigger, meanwhile: Callable[[], Any]) -> Any:
    async def both() -> Any:
        waiting = asyncio.create_task(first_event(trigger))
        done, _ = await asyncio.wait([waiting], timeout=0.5)
        assert not done, "it woke before anything changed"
        await asyncio.to_thread(meanwhile)
        return await asyncio.wait_for(waiting, 30)

    return asyncio.run(both())


def test_a_change_wakes_the_trigger(fire):
    assert isinstance(woken(AirisAlertTrigger(), fire), TaskSuccessEvent)


def test_what_changed_before_it_waited_wakes_it_at_once(fire):
    fire()
    assert isinstance(asyncio.run(asyncio.wait_for(first_event(AirisAlertTrigger()), 30)), TaskSuccessEvent)


def test_a_hub_that_is_down_is_waited_for(hub, fire):
    port = hub.server.port
    hub.server.kill()

    def come_back() -> None:
        hub.server = hub.start(port)
        fire()

    assert isinstance(woken(AirisAlertTrigger(), come_back), TaskSuccessEvent)


def test_a_token_that_is_refused_fails_the_wait(hub, connect, monkeypatch):
    monkeypatch.setattr(triggers, "PERMANENT_PAUSE_S", 0)
    connect("airis_default", conn_type="airis", host=hub.url, password="revoked")
    assert isinstance(asyncio.run(asyncio.wait_for(first_event(AirisAlertTrigger()), 30)), TaskFailedEvent)


def test_a_missing_connection_fails_the_wait(monkeypatch):
    monkeypatch.setattr(triggers, "PERMANENT_PAUSE_S", 0)
    monkeypatch.delenv("AIRFLOW_CONN_AIRIS_DEFAULT")
    assert isinstance(asyncio.run(asyncio.wait_for(first_event(AirisAlertTrigger()), 30)), TaskFailedEvent)


def test_the_trigger_and_its_sensor_are_what_the_triggerer_starts():
    path, arguments = AirisAlertTrigger("hub", "oncall").serialize()
    assert path == "airflow_provider_airis.triggers.alerts.AirisAlertTrigger"
    sensor = AirisAlertSensor(task_id="wait", airis_conn_id="hub", consumer="oncall")
    assert sensor.start_from_trigger
    assert (sensor.start_trigger_args.trigger_cls, sensor.start_trigger_args.trigger_kwargs) == (path, arguments)
