"""The dispatch to Slack and PagerDuty against a real hub: nothing missed, nothing doubled, whatever fails or dies."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowFailException, AirflowNotFoundException
from airflow.triggers.base import TaskFailedEvent, TaskSuccessEvent

from airflow_provider_airis.channels.pagerduty import PagerDutyChannel
from airflow_provider_airis.dispatch import limits as engine
from airflow_provider_airis.errors import PermanentError, RetryableError
from airflow_provider_airis.hooks.airis import AirisHook
from airflow_provider_airis.operators.dispatch import AirisDispatchOperator
from airflow_provider_airis.records import Notification, iso
from airflow_provider_airis.sensors.alerts import AirisAlertSensor
from airflow_provider_airis.triggers import patience
from airflow_provider_airis.triggers.alerts import AirisAlertTrigger
from sandbox.faults import Fault, FaultProxy
from tests.integration.test_receivers import KEY, TOKEN, StandIn

SYSTEMS = ("slack", "pagerduty")
TARGETS = {"slack": "#alerts", "pagerduty": "pagerduty_events_default"}
RANK = {"trigger": 0, "acknowledge": 1, "resolve": 2}


@pytest.fixture(scope="module")
def stand_ins() -> Iterator[dict[str, StandIn]]:
    with ThreadPoolExecutor(2) as pool:
        started = dict(zip(SYSTEMS, pool.map(StandIn, (f"sandbox.{system}" for system in SYSTEMS)), strict=True))
    yield started
    for stand_in in started.values():
        stand_in.stop()


class World:
    """A hub, what is between it and the receivers, and the receivers, as one test sees them."""

    def __init__(self, hub: Any, stand_ins: dict[str, StandIn], name: str) -> None:
        self.name = name
        self.stand_ins = stand_ins
        self.before = {system: len(stand_in.seen()) for system, stand_in in stand_ins.items()}
        self.proxies = {system: FaultProxy(stand_in.url) for system, stand_in in stand_ins.items()}
        self.client = httpx2.Client(base_url=hub.url, headers={"Authorization": f"Bearer {hub.token}"}, timeout=30)
        self.ids: list[str] = []

    def close(self) -> None:
        """End what is open, and let nobody be told of it, as the next test has the same hub."""
        for status in ("firing", "acknowledged"):
            params = {"status": status, "limit": 5_000}
            for alert in self.client.get("/api/v1/alerts", params=params).raise_for_status().json()["alerts"]:
                self.change(alert["id"], "resolve")
        entries = self.client.get("/api/v1/notification-log", params={"open": True, "limit": 5_000}).json()["entries"]
        for entry in entries:
            entry["alerts"] = {i: shown | {"status": "resolved"} for i, shown in entry["alerts"].items()}
        for start in range(0, len(entries), 1_000):
            body = {"entries": entries[start : start + 1_000]}
            self.client.put("/api/v1/notification-log", json=body).raise_for_status()
        self.client.close()
        for proxy in self.proxies.values():
            proxy.close()

    def fire(self, severity: str = "critical", name: str = "") -> str:
        name = name or f"alert {len(self.ids)}"
        body = {"name": name, "severity": severity, "fingerprint": f"{self.name} {name}"}
        self.ids.append(self.client.post("/api/v1/alerts", json=body).raise_for_status().json()["id"])
        return self.ids[-1]

    def change(self, alert_id: str, kind: str) -> None:
        self.client.post(f"/api/v1/alerts/{alert_id}/{kind}", json={"by": "ada"}).raise_for_status()

    def alert(self, alert_id: str) -> dict[str, Any]:
        return self.client.get(f"/api/v1/alerts/{alert_id}").raise_for_status().json()

    def ledger(self, alert_id: str) -> dict[tuple[str, str], str]:
        return {(n["channel"], n["target"]): n["status"] for n in self.alert(alert_id)["notifications"]}

    def events(self) -> list[dict[str, Any]]:
        params = {"event_type": "notification_failed", "limit": 500}
        found = self.client.get("/api/v1/events", params=params).raise_for_status().json()["events"]
        return [event for event in found if event["timestamp"] >= self.alert(self.ids[0])["timestamp"]]

    def seen(self, system: str) -> list[tuple[str, str]]:
        """What the receiver has taken since the test began, as (kind, alert id)."""
        found = self.stand_ins[system].seen()[self.before[system] :]
        if system == "slack":
            return [(row["kind"], row["metadata"]["event_payload"]["alert_id"]) for row in found]
        return [(row["kind"], row["dedup_key"].removeprefix("airis-mon-")) for row in found]

    def place(self, system: str) -> int:
        with AirisHook(system=system) as hub:
            return hub.committed(hub.consumer)

    def end(self) -> int:
        """The feed's last sequence."""
        with AirisHook() as hub:
            sequence = 0
            while True:
                changes, sequence = hub.changes(after=sequence, limit=5000)
                if not changes:
                    return sequence


def run(system: str = "pagerduty", *, linger_s: float = 0.2, max_run_s: float = 60) -> dict[str, int]:
    return AirisDispatchOperator(task_id="deliver", system=system, linger_s=linger_s, max_run_s=max_run_s).execute({})


@pytest.fixture
def world(
    hub: Any,
    stand_ins: dict[str, StandIn],
    connect: Callable[..., str],
    request: pytest.FixtureRequest,
    monkeypatch: Any,
) -> Iterator[World]:
    """Each test reads the feed as a consumer of its own, from where it now ends; pauses are short."""
    monkeypatch.setattr(engine, "SHORTEST_PAUSE_S", 0.05)
    monkeypatch.setattr(engine, "LONGEST_PAUSE_S", 0.2)
    monkeypatch.setattr(engine, "REFUSED_PAUSE_S", 0.1)
    monkeypatch.setattr(engine, "LONGEST_REFUSED_PAUSE_S", 0.4)
    monkeypatch.setattr(engine, "LEASE_S", 2)
    extra = {"consumer": request.node.name}
    connect("airis_default", conn_type="airis", host=hub.url, password=hub.token, extra=extra)
    world = World(hub, stand_ins, request.node.name)
    slack, pagerduty = (world.proxies[system].url for system in SYSTEMS)
    connect("slack_default", conn_type="slack", password=TOKEN, extra={"base_url": f"{slack}/api/"})
    connect("pagerduty_events_default", conn_type="pagerduty_events", host=pagerduty, password=KEY)
    end = world.end()
    for system in (None, *SYSTEMS):
        with AirisHook(system=system) as client:
            client.commit(client.consumer, end)
    yield world
    world.close()


def test_every_alert_goes_to_slack_and_the_grave_ones_to_pagerduty(world):
    ids = {severity: world.fire(severity) for severity in ("critical", "high", "medium", "low", "warning", "info")}
    assert run("slack")["sent"] == 6
    assert run("pagerduty")["sent"] == 2
    assert Counter(world.seen("slack")) == Counter(("message", alert_id) for alert_id in ids.values())
    assert Counter(world.seen("pagerduty")) == Counter(("trigger", ids[s]) for s in ("critical", "high"))
    assert world.place("slack") == world.place("pagerduty") == world.end()


def test_severities_and_targets_are_options(world, monkeypatch):
    monkeypatch.setenv("AIRFLOW__AIRIS_PAGERDUTY__SEVERITIES", "")
    monkeypatch.setenv("AIRFLOW__AIRIS_SLACK__TARGET", "#oncall")
    alert_id = world.fire()
    run("slack")
    run("pagerduty")
    assert world.ledger(alert_id) == {("slack", "#oncall"): "firing"}


def test_an_alert_that_changed_often_is_shown_once_in_its_newest_state(world):
    alert_id = world.fire()
    world.change(alert_id, "acknowledge")
    run("slack")
    assert world.seen("slack") == [("message", alert_id)]
    world.change(alert_id, "resolve")
    over = world.fire()
    world.change(over, "resolve")
    run("slack")
    assert world.seen("slack") == [("message", alert_id), ("update", alert_id)]
    assert world.ledger(alert_id) == {("slack", "#alerts"): "resolved"}
    assert world.ledger(over) == {}


def test_what_is_read_again_since_the_place_was_not_committed_is_not_told_again(world):
    place = world.place("slack")
    alert_id = world.fire()
    run("slack")
    for kind in ("acknowledge", "resolve"):
        world.change(alert_id, kind)
    run("slack")
    shown = world.seen("slack")
    assert shown == [("message", alert_id), ("update", alert_id)]
    with AirisHook(system="slack") as hub:
        hub.commit(hub.consumer, place, force=True)
    world.fire()  # or the run waits for a change, as there is none behind the feed's end
    run("slack")
    assert world.seen("slack") == [*shown, ("message", world.ids[1])]


def test_whoever_was_shown_an_alert_hears_its_end_whatever_its_severity_or_the_option_is_then(world, monkeypatch):
    alert_id = world.fire("low")
    with AirisHook() as hub:
        shown = Notification("pagerduty", TARGETS["pagerduty"], f"airis-mon-{alert_id}", "firing", 0)
        hub.record_notification(alert_id, shown)
    monkeypatch.setenv("AIRFLOW__AIRIS_PAGERDUTY__TARGET", "another_connection")
    world.change(alert_id, "resolve")
    run("pagerduty")
    assert world.seen("pagerduty") == [("resolve", alert_id)]


def test_an_older_target_that_refuses_does_not_hold_the_others(world, monkeypatch):
    first = world.fire()
    run("slack")
    monkeypatch.setenv("AIRFLOW__AIRIS_SLACK__TARGET", "#oncall")
    archived = {"ok": False, "error": "is_archived"}
    world.stand_ins["slack"].fault("chat.update", status=200, json=archived, times=3)
    world.change(first, "resolve")
    second = world.fire()
    with pytest.raises(AirflowFailException, match=r"1 deliveries failed.*is_archived"):
        run("slack", max_run_s=3)
    assert world.ledger(first)["slack", "#alerts"] == "failed"
    assert world.ledger(second) == {("slack", "#oncall"): "firing"}


def test_what_changes_meanwhile_is_delivered_by_the_same_run(world):
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run, linger_s=3)
        ids = []
        for _ in range(3):
            ids.append(world.fire())
            until(lambda: len(world.seen("pagerduty")) == len(ids))
        assert not running.done()
        world.change(ids[0], "resolve")
        assert running.result()["sent"] == 4
    assert world.seen("pagerduty")[3] == ("resolve", ids[0])


def test_a_receiver_that_is_down_is_probed_waited_for_and_then_told_everything_once(world):
    for system in SYSTEMS:
        world.proxies[system].order(
            Fault("status", status=503, times=10_000, method="POST", path="enqueue|postMessage")
        )
    ids = [world.fire() for _ in range(30)]
    place = world.place("slack")
    for system in SYSTEMS:
        for _ in range(2):
            with pytest.raises(AirflowFailException, match=r"30 alerts wait for .* since 20.*the next run goes on"):
                run(system, max_run_s=1.5)
        # Four at first, then one at a time: far fewer than the alerts that wait.
        assert len(world.proxies[system].seen) < 2 * (engine.DELIVERIES + 1.5 / 0.1 * 2)
    assert world.place("slack") == place
    assert all(world.ledger(alert_id) == {} for alert_id in ids)
    told = world.events()
    assert Counter(event["source"] for event in told) == {"airflow-slack": 1, "airflow-pagerduty": 1}
    assert {event["data"]["waiting_since"] for event in told} == {iso(world.alert(ids[0])["updated_at"])}
    for alert_id in ids[:5]:
        world.change(alert_id, "resolve")
    for system, kind in (("slack", "message"), ("pagerduty", "trigger")):
        world.proxies[system].clear()
        run(system)
        shown = Counter(seen for seen in world.seen(system) if seen[0] == kind)
        assert shown == Counter((kind, alert_id) for alert_id in ids[5:])
    assert world.place("slack") == world.end()


def test_a_receiver_that_is_down_does_not_hold_another_ones_alerts(world):
    world.proxies["slack"].order(Fault("reset", times=10_000))
    with ThreadPoolExecutor(1) as pool:
        stuck = pool.submit(run, "slack", max_run_s=4)
        alert_id = world.fire()
        run("pagerduty")
        assert world.seen("pagerduty") == [("trigger", alert_id)]
        assert not stuck.done()
        world.proxies["slack"].clear()
        assert stuck.result()["sent"] == 1


def test_what_was_posted_but_not_confirmed_is_found_again_with_one_look_for_all(world):
    world.proxies["slack"].order(Fault("reset_applied", path="postMessage", times=4))
    ids = [world.fire() for _ in range(40)]
    run("slack")
    assert Counter(world.seen("slack"))[("message", ids[0])] == 1
    assert Counter(kind for kind, _ in world.seen("slack"))["message"] == 40
    looks = [request for request in world.proxies["slack"].seen if "conversations.history" in request.path]
    assert 1 <= len(looks) <= 4


def test_a_receiver_that_asks_for_patience_gets_it(world):
    world.proxies["pagerduty"].order(Fault("status", status=429, retry_after=1))
    alert_id = world.fire()
    run()
    # Within that second it would have been tried a dozen times.
    assert len(world.proxies["pagerduty"].seen) == 2
    assert world.seen("pagerduty") == [("trigger", alert_id)]
    assert world.events() == []


def test_patience_is_not_ended_by_what_was_under_way_before(world):
    proxy = world.proxies["pagerduty"]
    proxy.order(Fault("latency", seconds=0.3, times=3, after=1))
    proxy.order(Fault("status", status=429, retry_after=4))
    ids = [world.fire() for _ in range(8)]
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run)
        until(lambda: len(proxy.seen) >= 4)
        refused_at = time.monotonic()
        until(lambda: len(world.seen("pagerduty")) == 3)
        until(lambda: len(proxy.seen) > 4)
        # A pause that had been ended would be over at once.
        assert time.monotonic() - refused_at > 1
        assert running.result()["sent"] == 8
    assert Counter(world.seen("pagerduty")) == Counter(("trigger", alert_id) for alert_id in ids)


def test_a_token_that_is_revoked_marks_no_alert_tells_once_and_heals_when_it_is_renewed(world):
    def scopes(*names: str) -> None:
        world.stand_ins["slack"].http.post("/_sandbox/tokens", json={"token": TOKEN, "scopes": names})

    scopes()
    try:
        ids = [world.fire() for _ in range(20)]
        for _ in range(2):
            with pytest.raises(AirflowFailException, match=r"20 alerts wait.*invalid_auth: check the bot token"):
                run("slack", max_run_s=1)
        assert [event["data"]["target"] for event in world.events()] == ["#alerts"]
        assert all(world.ledger(alert_id) == {} for alert_id in ids)
        with ThreadPoolExecutor(1) as pool:
            asked = len(world.proxies["slack"].seen)
            running = pool.submit(run, "slack")
            until(lambda: any("auth.test" in request.path for request in world.proxies["slack"].seen[asked:]))
            scopes("chat:write", "channels:read", "channels:history")
            assert running.result()["sent"] == 20
    finally:
        scopes("chat:write", "channels:read", "channels:history")
    assert Counter(world.seen("slack")) == Counter(("message", alert_id) for alert_id in ids)
    assert len(world.events()) == 1


def test_a_connection_that_is_missing_is_waited_for_like_a_revoked_token(world, monkeypatch):
    monkeypatch.delenv("AIRFLOW_CONN_PAGERDUTY_EVENTS_DEFAULT")
    alert_id = world.fire()
    with pytest.raises(AirflowFailException, match=r"1 alerts wait for PagerDuty.*pagerduty_events_default"):
        run(max_run_s=1)
    assert world.ledger(alert_id) == {}
    assert len(world.events()) == 1


def test_a_connection_that_cannot_be_looked_up_for_a_moment_is_not_the_alerts_fault(world, monkeypatch):
    alert_id = world.fire()
    whole, missing = BaseHook.get_connection.__func__, ["pagerduty_events_default"]

    def get_connection(cls: Any, conn_id: str) -> Any:
        if conn_id in missing:
            missing.remove(conn_id)
            raise AirflowNotFoundException(f"The conn_id `{conn_id}` isn't defined")
        return whole(cls, conn_id)

    monkeypatch.setattr(BaseHook, "get_connection", classmethod(get_connection))
    assert run(linger_s=1)["sent"] == 1
    assert not missing
    assert world.ledger(alert_id) == {("pagerduty", TARGETS["pagerduty"]): "firing"}


def test_an_alert_that_is_refused_once_is_marked_and_due_again_at_the_next_interval(world):
    ids = [world.fire() for _ in range(10)]
    invalid = {"status": "invalid event", "message": "Event object is invalid", "errors": ["'severity' is wrong"]}
    world.stand_ins["pagerduty"].fault("enqueue", status=400, json=invalid)
    assert run()["sent"] == 10
    assert [event["data"]["status"] for event in world.events()] == ["firing"]
    assert Counter(world.seen("pagerduty")) == Counter(("trigger", alert_id) for alert_id in ids)
    assert len(world.proxies["pagerduty"].seen) == 11


@pytest.fixture
def refuse(monkeypatch: Any) -> dict[str, Exception]:
    """What PagerDuty says to some alerts, by their ids."""
    whole, refused = PagerDutyChannel.send, dict[str, Exception]()

    def send(self: Any, view: Any, *arguments: Any, **named: Any) -> str:
        if view.alert.id in refused:
            raise refused[view.alert.id]
        return whole(self, view, *arguments, **named)

    monkeypatch.setattr(PagerDutyChannel, "send", send)
    return refused


@pytest.mark.parametrize("mended", ["in time", "changed", "offset set back"])
def test_an_alert_that_is_refused_for_its_own_sake_is_marked_and_the_others_are_delivered(world, refuse, mended):
    ids = [world.fire() for _ in range(10)]
    failed = ids[4]
    refuse[failed] = PermanentError("'severity' is wrong", status=400)
    with pytest.raises(AirflowFailException, match=r"1 deliveries failed, 9 did not.*'severity' is wrong"):
        run(max_run_s=3)
    states = Counter(world.ledger(alert_id)["pagerduty", TARGETS["pagerduty"]] for alert_id in ids)
    assert states == {"firing": 9, "failed": 1}
    assert world.ledger(failed)["pagerduty", TARGETS["pagerduty"]] == "failed"
    assert [event["data"]["status"] for event in world.events()] == ["firing"]
    assert world.place("pagerduty") == world.end()
    refuse.clear()
    if mended == "changed":
        world.change(failed, "acknowledge")
    elif mended == "offset set back":
        with AirisHook(system="pagerduty") as hub:
            hub.commit(hub.consumer, 0, force=True)
    run(linger_s=1.5)
    assert world.ledger(failed)["pagerduty", TARGETS["pagerduty"]] == world.alert(failed)["status"]
    assert Counter(known_by for _, known_by in world.seen("pagerduty") if known_by in ids) == dict.fromkeys(ids, 1)


def test_several_alerts_that_are_refused_alike_are_an_outage_and_delivered_after_the_repair(world):
    required = {"status": "invalid event", "message": "Event object is invalid", "errors": ["'team' is required"]}
    world.stand_ins["pagerduty"].fault("enqueue", status=400, json=required, times=100_000)
    ids = [world.fire() for _ in range(4)]
    with pytest.raises(AirflowFailException, match=r"4 alerts wait for PagerDuty.*'team' is required"):
        run(max_run_s=2)
    assert all(world.ledger(alert_id) == {} for alert_id in ids)
    assert [event["data"]["target"] for event in world.events()] == [TARGETS["pagerduty"]]
    world.stand_ins["pagerduty"].http.post("/_sandbox/reset").raise_for_status()
    assert run()["sent"] == 4
    assert len(world.events()) == 1
    assert all(set(world.ledger(alert_id).values()) == {"firing"} for alert_id in ids)


def test_two_alerts_with_the_same_fault_do_not_hold_up_those_that_come(world, refuse, monkeypatch):
    monkeypatch.setattr(engine, "REFUSED_PAUSE_S", 60)
    monkeypatch.setattr(engine, "LONGEST_REFUSED_PAUSE_S", 60)
    poison = [world.fire() for _ in range(2)]
    refuse.update(dict.fromkeys(poison, PermanentError("'severity' is wrong", status=400)))
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run, linger_s=1, max_run_s=20)
        until(lambda: world.events())
        alert_id = world.fire()
        until(lambda: world.ledger(alert_id))
        until(lambda: all(world.ledger(i) for i in poison))
        refuse.clear()
        assert running.result()["sent"] == 3


@pytest.mark.parametrize(
    "error",
    [
        KeyError("gone"),
        RetryableError("it times out, always"),
        PermanentError("the data policy forbids it", status=403),
    ],
)
def test_an_alert_that_trips_the_code_or_the_receiver_every_time_does_not_stop_the_others(
    world, monkeypatch, refuse, error
):
    monkeypatch.setattr(engine, "MOST_FAILURES", 2)
    poison = world.fire()
    refuse[poison] = error
    others = [world.fire() for _ in range(3)]
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run, linger_s=2, max_run_s=15)
        while not running.done():
            others.append(world.fire())
            time.sleep(0.2)
            if len(others) > 40 or world.ledger(poison):
                break
        with pytest.raises(AirflowFailException, match=r"1 deliveries failed"):
            running.result()
    assert Counter(world.seen("pagerduty")) == Counter(("trigger", alert_id) for alert_id in others)
    assert world.ledger(poison) == {("pagerduty", TARGETS["pagerduty"]): "failed"}
    outages = [event for event in world.events() if "alert_id" not in event["data"]]
    assert len(outages) == isinstance(error, PermanentError)
    assert len(world.events()) == 1 + len(outages)


def test_an_error_that_nobody_expected_is_not_the_alerts_fault(world, refuse):
    ids = [world.fire() for _ in range(3)]
    refuse.update(dict.fromkeys(ids, ImportError("cannot import name 'x' from partially initialized module")))
    with pytest.raises(AirflowFailException, match=r"3 alerts wait for PagerDuty.*partially initialized"):
        run(max_run_s=1)
    refuse.update(dict.fromkeys(ids, RuntimeError("dictionary changed size during iteration")))
    with pytest.raises(AirflowFailException, match=r"3 alerts wait for PagerDuty.*changed size"):
        run(max_run_s=1)
    assert all(world.ledger(alert_id) == {} for alert_id in ids)
    refuse.clear()
    assert run()["sent"] == 3


def test_a_hub_that_dies_meanwhile_is_waited_for_and_nothing_is_sent_twice(hub, world):
    for _ in range(60):
        world.fire()
    world.proxies["pagerduty"].order(Fault("latency", seconds=0.05, times=60))
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run)
        until(lambda: len(world.seen("pagerduty")) > 10)
        port = hub.server.port
        hub.server.kill()
        hub.server = hub.start(port)
        running.result()
    assert Counter(world.seen("pagerduty")) == Counter(("trigger", alert_id) for alert_id in world.ids)
    assert world.place("pagerduty") == world.end()


def test_what_changes_while_the_log_cannot_be_written_is_told_too(hub, world, connect):
    with FaultProxy(hub.url) as proxy, ThreadPoolExecutor(1) as pool:
        extra = {"consumer": world.name}
        connect("airis_default", conn_type="airis", host=proxy.url, password=hub.token, extra=extra)
        proxy.order(Fault("status", path="notification-log", method="PUT", after=1, times=8))
        alert_id = world.fire()
        running = pool.submit(run, linger_s=1)
        until(lambda: world.seen("pagerduty"))
        world.change(alert_id, "acknowledge")
        running.result()
    assert world.seen("pagerduty") == [("trigger", alert_id), ("acknowledge", alert_id)]
    assert world.ledger(alert_id) == {("pagerduty", TARGETS["pagerduty"]): "acknowledged"}


def test_a_hub_that_refuses_the_token_fails_the_task(world, connect, hub):
    connect("airis_default", conn_type="airis", host=hub.url, password="revoked")
    with pytest.raises(AirflowFailException, match="401"):
        run()


def test_a_system_that_is_no_receiver_is_refused():
    with pytest.raises(AirflowFailException, match="'sagemaker' is no system that alerts are delivered to"):
        run("sagemaker")


def test_a_run_that_is_stopped_begins_nothing_more_and_the_next_one_goes_on(world):
    world.proxies["pagerduty"].order(Fault("latency", seconds=0.05, times=100))
    for _ in range(40):
        world.fire()
    operator = AirisDispatchOperator(task_id="deliver", system="pagerduty", linger_s=0.2)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(operator.execute, {})
        until(lambda: len(world.seen("pagerduty")) > 5)
        operator.on_kill()
        running.result()
    assert len(world.seen("pagerduty")) < 40
    run()
    assert Counter(world.seen("pagerduty")) == Counter(("trigger", alert_id) for alert_id in world.ids)


def test_a_run_whose_lease_has_lapsed_but_that_lives_sends_nothing_more(world, hub, connect):
    extra = {"consumer": world.name}
    with FaultProxy(hub.url) as proxy, ThreadPoolExecutor(2) as pool, AirisHook(system="slack") as client:
        connect("airis_default", conn_type="airis", host=proxy.url, password=hub.token, extra=extra)
        first = world.fire()
        cut_off = pool.submit(run, "slack", linger_s=30)
        until(lambda: world.seen("slack"))
        proxy.order(Fault("status", status=503, path="leases", times=100_000))
        connect("airis_default", conn_type="airis", host=hub.url, password=hub.token, extra=extra)
        until(lambda: client.leases.get(client.consumer) is None)
        second = world.fire()
        assert run("slack", linger_s=1)["sent"] == 1
        proxy.clear()
        world.fire()
        with pytest.raises(AirflowFailException, match="Superseded by another run"):
            cut_off.result()
        run("slack")
        assert Counter(world.seen("slack")) == Counter(("message", alert_id) for alert_id in world.ids)
        assert {first, second} < {*world.ids}


def test_what_a_run_writes_after_another_has_taken_over_is_refused(world, monkeypatch):
    monkeypatch.setattr(engine, "LEASE_S", 60)
    monkeypatch.setattr(engine, "RENEWALS", 0.1)
    world.fire()
    with ThreadPoolExecutor(1) as pool, AirisHook(system="slack") as client:
        superseded = pool.submit(run, "slack", linger_s=30)
        until(lambda: world.seen("slack"))
        committed = client.committed()
        lease = client.leases.get(client.consumer)
        client.leases.release(lease)
        client.leases.acquire(client.consumer, "another run", 60)
        world.fire()
        with pytest.raises(AirflowFailException, match="Superseded by another run"):
            superseded.result()
        assert client.committed() == committed
        client.leases.release(client.leases.get(client.consumer))
    assert len(world.seen("slack")) == 1
    assert run("slack")["sent"] == 1


def test_a_run_that_begins_while_another_one_delivers_leaves_it_to_that_one(world):
    world.fire()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run, linger_s=3)
        until(lambda: world.seen("pagerduty"))
        world.fire()
        assert run() == {"sequence": world.place("pagerduty"), "sent": 0}
        assert running.result()["sent"] == 2


def test_a_run_that_could_not_write_fails(world, hub, connect):
    with FaultProxy(hub.url) as proxy:
        extra = {"consumer": world.name}
        connect("airis_default", conn_type="airis", host=proxy.url, password=hub.token, extra=extra)
        world.fire()
        proxy.order(Fault("status", status=503, path="consumers|notification-log", method="PUT", times=100_000))
        with pytest.raises(AirflowFailException, match="503"):
            run(max_run_s=2)
        proxy.clear()
        assert run()["sent"] == 1
        # There is nothing to send: that nothing could be read is all that can be said.
        proxy.order(Fault("status", status=507, path="alerts", times=100_000))
        with pytest.raises(AirflowFailException, match="507"):
            run(max_run_s=1)


def test_what_an_earlier_version_kept_in_consumers_is_read_once(world, monkeypatch):
    monkeypatch.setattr(engine, "GRACE_S", 0)
    alert_id = world.fire()
    world.proxies["slack"].order(Fault("status", status=503, times=100_000))
    with AirisHook(system="slack") as hub:
        names = {
            f"{hub.consumer}-due": 1_700_000_000_000,
            f"{hub.consumer}-at-work": 1,
            f"{hub.consumer}-outage-%23alerts": 1_600_000_000_000,
        }
        for name, sequence in names.items():
            hub.commit(name, sequence, force=True)
        hub.commit(hub.consumer, world.end())
        # Nothing has changed since, but something was due.
        event = asyncio.run(asyncio.wait_for(first_event(AirisAlertTrigger(system="slack")), 30))
        assert isinstance(event, TaskSuccessEvent)
        with pytest.raises(AirflowFailException, match="1 alerts wait for Slack"):
            run("slack", max_run_s=1)
        assert [hub.committed(name) for name in names] == [0, 0, 0]
        kept = hub.checkpoints.get(hub.consumer).value
        assert kept["outages"]["#alerts"]["since"] == 1_600_000_000_000
        world.proxies["slack"].clear()
        assert run("slack")["sent"] == 1
        assert hub.checkpoints.get(hub.consumer).value == {"outages": {}}
    assert world.ledger(alert_id) == {("slack", "#alerts"): "firing"}


def test_a_burst_of_a_thousand_alerts_is_shown_once_each(world, capsys):
    place = world.place("pagerduty")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: world.fire(name=f"alert {number}"), range(1_000)))
    started = time.monotonic()
    run("pagerduty")
    with capsys.disabled():
        print(f"\n1,000 alerts delivered in {time.monotonic() - started:.1f} s")
    assert Counter(world.seen("pagerduty")) == Counter(("trigger", alert_id) for alert_id in world.ids)
    before = len(world.proxies["pagerduty"].seen)
    with AirisHook(system="pagerduty") as hub:
        hub.commit(hub.consumer, place, force=True)
    run("pagerduty")
    assert len(world.proxies["pagerduty"].seen) == before


def test_an_alert_that_waits_costs_the_hub_two_requests_at_most(world, hub, connect, request):
    with FaultProxy(hub.url) as proxy:
        extra = {"consumer": request.node.name}
        connect("airis_default", conn_type="airis", host=proxy.url, password=hub.token, extra=extra)
        with AirisHook(system="pagerduty") as client:
            client.commit(client.consumer, world.end())
        for _ in range(200):
            world.fire()
        asked = len(proxy.seen)
        assert run()["sent"] == 200
        assert len(proxy.seen) - asked < 2 * 200


def test_memory_grows_with_what_waits_and_no_faster(world):
    def grown(count: int) -> int:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda number: world.fire(name=f"{count} {number}"), range(count)))
        tracemalloc.start()
        assert run()["sent"] == count
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak

    run()
    few, many = grown(50), grown(350)
    # What is open: 400 alerts then, with what was shown of them.
    assert many - few < 350 * 16_384


# Imports once, then forks a run after the other, each killed in its midst.
DIES = """
import os, random, signal, sys, time
system, seed, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
from airflow_provider_airis.dispatch import limits, run
from airflow_provider_airis.operators import dispatch
from airflow_provider_airis.channels import slack, pagerduty
from airflow_provider_airis.hooks import airis, slack, pagerduty
import airflow.providers.slack.hooks.slack, slack_sdk.errors
chance = random.Random(seed)
limits.LEASE_S = 0.2
print("ready", flush=True)
end = time.monotonic() + seconds
deaths = 0
while time.monotonic() < end:
    child = os.fork()
    if not child:
        dispatch.AirisDispatchOperator(task_id="deliver", system=system, linger_s=5).execute({})
        os._exit(0)
    time.sleep(chance.uniform(0.02, 0.8))
    os.kill(child, signal.SIGKILL)
    deaths += os.waitpid(child, 0)[1] == signal.SIGKILL
print(deaths, flush=True)
"""


@pytest.mark.parametrize("system", SYSTEMS)
def test_runs_that_are_killed_at_any_moment_miss_nothing_and_double_nothing(world, system, monkeypatch, capsys):
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    world.proxies[system].order(Fault("latency", seconds=0.02, times=100_000))
    command = [sys.executable, "-c", DIES, system, str(seed), "6"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ}) as killer:
        assert killer.stdout
        assert killer.stdout.readline() == "ready\n"
        while killer.poll() is None:
            what = chance.random()
            if what < 0.6 or not world.ids:
                world.fire()
            else:
                world.change(chance.choice(world.ids), "acknowledge" if what < 0.8 else "resolve")
            time.sleep(chance.uniform(0, 0.05))
        deaths = killer.stdout.read().strip()
    run(system)
    with capsys.disabled():
        print(f"\nseed {seed}: {len(world.ids)} alerts, {deaths} runs killed, {len(world.seen(system))} requests taken")
    shown = world.seen(system)
    first = Counter(alert_id for kind, alert_id in shown if kind in ("message", "trigger"))
    for alert_id in world.ids:
        alert, states = world.alert(alert_id), [kind for kind, shown_id in shown if shown_id == alert_id]
        told = world.ledger(alert_id).get((system, TARGETS[system]))
        if alert["status"] != "resolved" or states:
            assert told == alert["status"], (seed, alert_id, states)
        if system == "slack":
            assert first[alert_id] <= 1, (seed, alert_id, states)
        else:
            assert states == sorted(states, key=RANK.__getitem__), (seed, alert_id, states)
    if system == "pagerduty":
        found = httpx2.get(f"{world.stand_ins[system].url}/_sandbox/incidents").json()
        incidents = Counter(incident["dedup_key"] for incident in found)
        assert max(incidents.values()) == 1


def until(condition: Callable[[], Any], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture
def fire(world: World) -> Callable[[], str]:
    return world.fire


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


def test_a_hub_that_is_down_is_waited_for(hub, world, fire):
    port = hub.server.port
    hub.server.kill()

    def come_back() -> None:
        hub.server = hub.start(port)
        fire()

    assert isinstance(woken(AirisAlertTrigger(), come_back), TaskSuccessEvent)


def test_a_token_that_is_refused_fails_the_wait(hub, connect, monkeypatch):
    monkeypatch.setattr(patience, "PERMANENT_PAUSE_S", 0)
    connect("airis_default", conn_type="airis", host=hub.url, password="revoked")
    assert isinstance(asyncio.run(asyncio.wait_for(first_event(AirisAlertTrigger()), 30)), TaskFailedEvent)


def test_a_token_that_is_refused_once_is_waited_for(hub, world, connect, request, monkeypatch):
    monkeypatch.setattr(patience, "PERMANENT_PAUSE_S", 0)
    with FaultProxy(hub.url) as proxy:
        proxy.order(Fault("status", status=401))
        extra = {"consumer": request.node.name}
        connect("airis_default", conn_type="airis", host=proxy.url, password=hub.token, extra=extra)
        world.fire()
        assert isinstance(asyncio.run(asyncio.wait_for(first_event(AirisAlertTrigger()), 30)), TaskSuccessEvent)


def test_a_missing_connection_fails_the_wait(monkeypatch):
    monkeypatch.setattr(patience, "PERMANENT_PAUSE_S", 0)
    monkeypatch.delenv("AIRFLOW_CONN_AIRIS_DEFAULT", raising=False)
    assert isinstance(asyncio.run(asyncio.wait_for(first_event(AirisAlertTrigger()), 30)), TaskFailedEvent)


def test_the_trigger_and_its_sensor_are_what_the_triggerer_starts():
    path, arguments = AirisAlertTrigger("hub", "oncall", "slack").serialize()
    assert path == "airflow_provider_airis.triggers.alerts.AirisAlertTrigger"
    sensor = AirisAlertSensor(task_id="wait", airis_conn_id="hub", consumer="oncall", system="slack")
    assert sensor.start_from_trigger
    assert (sensor.start_trigger_args.trigger_cls, sensor.start_trigger_args.trigger_kwargs) == (path, arguments)


# As a scheduler, then as the task that it forks; prints what the task had to load.
LOADS = """
import os, sys
from pathlib import Path
from runpy import run_path
from airflow.jobs.job import Job
Job()
before = set(sys.modules)
for system in sys.argv[2:]:
    os.environ["_AIRFLOW_PARSING_CONTEXT_DAG_ID"] = f"airis_dispatch_{system}"
    names = run_path(str(Path(sys.argv[1]) / "airis_dispatch.py"))
    operator = names["AirisDispatchOperator"](task_id="deliver", system=system, linger_s=0)
    operator.execute({})
ours = ("airflow_provider_airis", "airflow", "httpx2", "httpcore2", "slack_sdk", "aiohttp", "jinja2")
print("loaded", sorted(name for name in set(sys.modules) - before if name.partition(".")[0] in ours))
"""


def test_the_scheduler_has_loaded_what_a_forked_task_needs(world):
    world.fire()
    command = [sys.executable, "-c", LOADS, str(Path(__file__).parents[2] / "dags"), *SYSTEMS]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "loaded []", done.stderr
    assert [len(world.seen(system)) for system in SYSTEMS] == [1, 1]
