"""The dispatch along routes: groups, waits, silences, inhibition, mistakes, and hubs that keep no log."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from airflow.triggers.base import TaskSuccessEvent

from airflow_provider_airis.dispatch import limits as engine
from airflow_provider_airis.hooks.airis import AirisHook, hook
from airflow_provider_airis.routes import parse_matchers
from airflow_provider_airis.triggers.alerts import AirisAlertTrigger
from sandbox.faults import Fault, FaultProxy
from tests.integration.test_dispatch import DIES, World, first_event, run, stand_ins, until, world  # noqa: F401
from tests.integration.test_receivers import KEY, WEBHOOK

Write = Callable[..., Path]


@pytest.fixture
def routes(tmp_path: Path, monkeypatch: Any) -> Write:
    """Writes a routing file of one receiver, Slack's #alerts, with these settings of the root."""

    def write(more: str = "", **settings: str) -> Path:
        path = tmp_path / "routes.yaml"
        settings = {"group_wait": "0s", "group_interval": "1s", **settings}
        lines = [f"  {name}: {value}" for name, value in settings.items()]
        receivers = "receivers:\n  - name: everybody\n    slack_configs:\n      - target: '#alerts'\n"
        path.write_text("route:\n  receiver: everybody\n" + "\n".join(lines) + "\n" + receivers + more)
        monkeypatch.setenv("AIRFLOW__AIRIS__ROUTES_FILE", str(path))
        return path

    return write


def fire(world: World, name: str, **fields: Any) -> str:  # noqa: F811
    body = {"name": name, "severity": "high", "fingerprint": f"{world.name} {name} {fields}"} | fields
    world.ids.append(world.client.post("/api/v1/alerts", json=body).raise_for_status().json()["id"])
    return world.ids[-1]


def told(world: World) -> Counter[str | None]:  # noqa: F811
    """How many of the alerts Slack's ledger says what of."""
    found = world.client.get("/api/v1/alerts", params={"limit": 5_000}).raise_for_status().json()["alerts"]
    shown = {a["id"]: {(n["channel"], n["target"]): n["status"] for n in a["notifications"]} for a in found}
    return Counter(shown[alert_id].get(("slack", "#alerts")) for alert_id in world.ids)


def test_a_thousand_alerts_in_twenty_groups_are_twenty_messages_and_twenty_more_when_they_end(world, routes):  # noqa: F811
    routes(group_by="[model_id]", group_wait="3s")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: fire(world, f"alert {n}", model_id=f"model-{n % 20}"), range(1_000)))
        assert run("slack", linger_s=4)["sent"] >= 20
        messages = [known_by for kind, known_by in world.seen("slack") if kind == "message"]
        assert len(messages) == len(set(messages)) == 20
        assert told(world) == {"firing": 1_000}
        list(pool.map(lambda alert_id: world.change(alert_id, "resolve"), world.ids))
    run("slack", linger_s=2)
    kinds = Counter(kind for kind, _ in world.seen("slack"))
    assert kinds["message"] == 20
    assert 20 <= kinds["update"] <= 200
    assert told(world) == {"resolved": 1_000}
    with AirisHook(system="slack") as hub:
        members = hub.alert_ids(messages[0])
    assert len(members) == 50
    assert len({world.alert(alert_id)["model_id"] for alert_id in members[:5]}) == 1


def test_a_wait_outlives_the_run_and_wakes_the_next_one(world, routes, monkeypatch):  # noqa: F811
    monkeypatch.setattr(engine, "STAY_S", 0)
    routes(group_wait="3s")
    alert_id = fire(world, "later")
    assert run("slack")["sent"] == 0
    assert world.place("slack") == world.end()
    event = asyncio.run(asyncio.wait_for(first_event(AirisAlertTrigger(system="slack")), 30))
    assert isinstance(event, TaskSuccessEvent)
    assert time.time() * 1000 >= world.alert(alert_id)["timestamp"] + 3_000
    assert run("slack")["sent"] == 1
    assert world.ledger(alert_id) == {("slack", "#alerts"): "firing"}


@pytest.mark.parametrize("wrong_s", [-300, 300])
def test_a_wait_is_by_the_hubs_clock_whatever_airflows_says(world, routes, monkeypatch, wrong_s):  # noqa: F811
    monkeypatch.setattr(engine, "STAY_S", 0)
    routes(group_wait="3s")
    clock = time.time
    alert_id = fire(world, "later")
    with monkeypatch.context() as patched:
        patched.setattr(time, "time", lambda: clock() + wrong_s)
        patched.setattr(hook, "time", time.time)
        assert run("slack")["sent"] == 0
        asyncio.run(asyncio.wait_for(first_event(AirisAlertTrigger(system="slack")), 30))
        # The hub's Date may be two seconds off.
        assert clock() * 1000 >= world.alert(alert_id)["timestamp"] + 1_000
        assert run("slack", linger_s=2)["sent"] == 1


def test_what_resolved_within_the_wait_is_told_to_nobody(world, routes):  # noqa: F811
    routes(group_wait="2s")
    world.change(fire(world, "blip"), "resolve")
    assert run("slack", linger_s=3)["sent"] == 0
    assert world.seen("slack") == []


def test_a_silenced_alert_is_sent_when_the_silence_is_over(world, routes):  # noqa: F811
    routes(group_by="[alert_id]")
    with AirisHook() as hub:
        ends_at = round(time.time() * 1000) + 3_000
        hub.silence(parse_matchers('team="night"'), ends_at=ends_at, by="ada", comment="known")
    silenced = fire(world, "silenced", tags={"team": "night"})
    other = fire(world, "not silenced", tags={"team": "day"})
    run("slack")
    assert world.ledger(other) == {("slack", "#alerts"): "firing"}
    assert [known_by for _, known_by in world.seen("slack")] == [other, silenced]
    assert time.time() * 1000 >= ends_at


def test_a_silence_that_is_ended_early_is_noticed(world, routes, monkeypatch):  # noqa: F811
    monkeypatch.setattr(engine, "SILENCED_S", 1)
    monkeypatch.setattr(engine, "STAY_S", 0)
    routes(group_by="[alert_id]")
    with AirisHook() as hub:
        ends_at = round(time.time() * 1000) + 3_600_000
        silence = hub.silence(parse_matchers('team="night"'), ends_at=ends_at, by="ada", comment="known")
        alert_id = fire(world, "silenced", tags={"team": "night"})
        assert run("slack")["sent"] == 0
        hub.expire_silence(silence)
    asyncio.run(asyncio.wait_for(first_event(AirisAlertTrigger(system="slack")), 30))
    assert run("slack")["sent"] == 1
    assert world.ledger(alert_id) == {("slack", "#alerts"): "firing"}


def test_an_inhibited_alert_is_held_back_until_its_cause_is_over(world, routes):  # noqa: F811
    routes(
        "inhibit_rules:\n"
        "  - source_matchers: [alertname=down]\n    target_matchers: [alertname=slow]\n    equal: [model_id]\n",
        group_by="[alert_id]",
    )
    down = fire(world, "down", model_id="m1")
    slow, elsewhere = fire(world, "slow", model_id="m1"), fire(world, "slow", model_id="m2")
    run("slack")
    assert {known_by for _, known_by in world.seen("slack")} == {down, elsewhere}
    world.change(down, "resolve")
    run("slack", linger_s=2)
    assert world.ledger(slow) == {("slack", "#alerts"): "firing"}


def test_an_acknowledged_group_is_edited_without_waiting_for_its_interval(world, routes):  # noqa: F811
    routes(group_by="[alertname]", group_interval="1h")
    ids = [fire(world, "latency", model_id=f"m{n}") for n in range(3)]
    run("slack")
    for alert_id in ids:
        world.change(alert_id, "acknowledge")
    run("slack", linger_s=2)
    assert next(kind for kind, _ in world.seen("slack")) == "message"
    assert {kind for kind, _ in world.seen("slack")[1:]} == {"update"}
    assert told(world) == {"acknowledged": 3}


def test_two_targets_of_one_system_do_not_hold_each_other_up(world, routes, monkeypatch):  # noqa: F811
    path = routes(group_by="[alert_id]")
    path.write_text(path.read_text() + "      - target: '#archived'\n")
    alert_id = fire(world, "both")
    with pytest.raises(AirflowFailException, match=r"1 alerts wait for Slack \(#archived\)"):
        run("slack", max_run_s=3)
    assert world.ledger(alert_id) == {("slack", "#alerts"): "firing"}


def test_a_slow_target_does_not_hold_up_another_one_of_its_system(world, routes, connect):  # noqa: F811
    path = routes()
    receivers = "".join(f"      - target: {name}\n" for name in ("a_slow_one", "pagerduty_events_default"))
    path.write_text(
        f"route: {{receiver: all, group_by: [alert_id], group_wait: 0s}}\nreceivers:\n  - name: all\n"
        f"    pagerduty_configs:\n{receivers}"
    )
    with FaultProxy(world.stand_ins["pagerduty"].url, [Fault("latency", seconds=0.3, times=1_000)]) as slow:
        connect("a_slow_one", conn_type="pagerduty_events", host=slow.url, password=KEY)
        ids = [fire(world, f"alert {n}") for n in range(40)]
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(run, "pagerduty")
            until(lambda: len(world.proxies["pagerduty"].seen) == len(ids))
            assert len(slow.seen) < len(ids)
            assert running.result()["sent"] == 2 * len(ids)


@pytest.mark.parametrize("by", ["a routing file", "an option"])
def test_an_incident_goes_on_when_its_alert_is_led_another_way(world, routes, monkeypatch, by):  # noqa: F811
    if by == "a routing file":
        routes().write_text(
            "route: {receiver: all, group_by: [alert_id, severity], group_wait: 0s, group_interval: 1s}\n"
            "receivers: [{name: all, pagerduty_configs: [{target: pagerduty_events_default}]}]\n"
        )
    alert_id = fire(world, "gets worse", fingerprint="gets worse")
    run("pagerduty")
    monkeypatch.setenv("AIRFLOW__AIRIS_PAGERDUTY__SEVERITIES", "critical,high,medium")
    assert fire(world, "gets worse", fingerprint="gets worse", severity="critical") == alert_id
    run("pagerduty", linger_s=2)
    assert {kind for kind, _ in world.seen("pagerduty")} == {"trigger"}
    with AirisHook(system="pagerduty") as hub:
        (entry,) = (entry for entry in hub.notification_log("pagerduty") if alert_id in entry.alerts)
    assert entry.alerts[alert_id].status == "firing"
    world.change(alert_id, "resolve")
    run("pagerduty", linger_s=2)
    assert Counter(kind for kind, _ in world.seen("pagerduty"))["resolve"] == 1
    with AirisHook(system="pagerduty") as hub:
        assert not [entry for entry in hub.notification_log("pagerduty") if alert_id in entry.alerts]


def test_an_alert_that_was_held_back_is_shown_though_a_newer_one_was_told(world, routes, connect):  # noqa: F811
    routes()
    connect("slack_default", conn_type="slackwebhook", password=f"{world.proxies['slack'].url}{WEBHOOK}")
    with AirisHook() as hub:
        ends_at = round(time.time() * 1000) + 3_000
        hub.silence(parse_matchers('team="night"'), ends_at=ends_at, by="ada", comment="known")
    fire(world, "held", tags={"team": "night"}, severity="critical")
    fire(world, "newer", tags={"team": "day"})
    run("slack", linger_s=4)
    assert told(world) == {"firing": 2}
    posts = world.stand_ins["slack"].seen()[world.before["slack"] :]
    assert ["held" in str(post) for post in posts] == [False, True]


def test_when_nothing_is_due_any_more_nobody_is_woken(world, routes, monkeypatch):  # noqa: F811
    monkeypatch.setattr(engine, "STAY_S", 0)
    routes(group_interval="2s")
    alert_id = fire(world, "short")
    run("slack")
    with AirisHook(system="slack") as hub:
        assert hub.place().wake_at
        world.change(alert_id, "resolve")
        run("slack")
        assert told(world) == {"firing": 1}
        asyncio.run(asyncio.wait_for(first_event(AirisAlertTrigger(system="slack")), 30))
        run("slack")
        assert told(world) == {"resolved": 1}
        assert hub.place().wake_at is None


def test_a_file_with_mistakes_sends_nothing_and_is_told_once(world, routes):  # noqa: F811
    path = routes(group_wait="thirty")
    fire(world, "anything")
    for _ in range(2):
        with pytest.raises(AirflowFailException, match=r"routes.yaml:3: group_wait: 'thirty' is no duration"):
            run("slack")
    assert world.seen("slack") == []
    assert ["routes are wrong" in event["data"]["error"] for event in world.events()] == [True]
    path.unlink()
    with pytest.raises(AirflowFailException, match=r"routes.yaml"):
        run("slack")


def test_the_hubs_own_routes_hold_where_there_is_no_file(world):  # noqa: F811
    with AirisHook() as hub:
        hub.put_routes(
            "route:\n  receiver: grave\n  group_by: [alert_id]\n  group_wait: 0s\n"
            "receivers:\n  - name: grave\n    slack_configs:\n      - target: '#oncall'\n"
        )
        try:
            alert_id = fire(world, "grave")
            run("slack")
            assert world.ledger(alert_id) == {("slack", "#oncall"): "firing"}
        finally:
            hub.put_routes("")
            assert hub.routes() is None


def test_a_hub_that_keeps_no_log_is_enough_for_the_default_routes(world, hub, connect, request):  # noqa: F811
    with FaultProxy(hub.url) as proxy:
        proxy.order(Fault("status", status=404, path="notification-log|silences|/routes", times=10_000))
        extra = {"consumer": request.node.name}
        connect("airis_default", conn_type="airis", host=proxy.url, password=hub.token, extra=extra)
        place = world.place("slack")
        first, second = world.fire(), world.fire()
        assert run("slack")["sent"] == 2
        world.change(first, "resolve")
        assert run("slack", linger_s=2)["sent"] == 1
        with AirisHook(system="slack") as client:
            client.commit(client.consumer, place, force=True)
        assert run("slack")["sent"] == 0
    kinds = Counter(world.seen("slack"))
    assert kinds == {("message", first): 1, ("message", second): 1, ("update", first): 1}


def test_a_repetition_whose_run_died_before_writing_it_down_is_told_once(world, routes, hub, connect):  # noqa: F811
    routes(group_interval="5m", repeat_interval="4h")
    alert_id = fire(world, "still there")
    run("slack")
    with AirisHook(system="slack") as client:
        (entry,) = (entry for entry in client.notification_log("slack") if alert_id in entry.alerts)
        client.log_notifications([msgspec.structs.replace(entry, at=entry.at - 18_000_000)])
        client.commit(client.consumer, client.committed(), wake_at=1)
    with FaultProxy(hub.url) as proxy:
        extra = {"consumer": world.name}
        connect("airis_default", conn_type="airis", host=proxy.url, password=hub.token, extra=extra)
        proxy.order(Fault("status", path="notification-log", method="PUT", times=10_000))
        with suppress(AirflowException):
            run("slack", max_run_s=2)
    connect("airis_default", conn_type="airis", host=hub.url, password=hub.token, extra=extra)
    run("slack", linger_s=1)
    replies = world.stand_ins["slack"].seen("replies")
    (told,) = (row["text"] for row in replies if row["metadata"]["event_payload"]["alert_id"] == entry.id)
    assert "firing for" in told
    assert Counter(kind for kind, _ in world.seen("slack"))["message"] == 1


def test_runs_that_are_killed_within_groups_double_no_message(world, routes, monkeypatch, capsys):  # noqa: F811
    routes(group_by="[model_id]")
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    world.proxies["slack"].order(Fault("latency", seconds=0.02, times=100_000))
    command = [sys.executable, "-c", DIES, "slack", str(seed), "5"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ}) as killer:
        assert killer.stdout
        assert killer.stdout.readline() == "ready\n"
        while killer.poll() is None:
            if chance.random() < 0.6 or not world.ids:
                fire(world, f"alert {len(world.ids)}", model_id=f"model-{chance.randrange(4)}")
            else:
                world.change(chance.choice(world.ids), chance.choice(("acknowledge", "resolve")))
            time.sleep(chance.uniform(0, 0.05))
        deaths = killer.stdout.read().strip()
    run("slack", linger_s=2)
    messages = Counter(known_by for kind, known_by in world.seen("slack") if kind == "message")
    with capsys.disabled():
        print(f"\nseed {seed}: {len(world.ids)} alerts, {deaths} runs killed, {len(messages)} messages")
    assert set(messages.values()) == {1}, seed
    for alert_id in world.ids:
        status, known = world.alert(alert_id)["status"], world.ledger(alert_id).get(("slack", "#alerts"))
        assert known == status or (known is None and status == "resolved"), (seed, alert_id, known, status)
