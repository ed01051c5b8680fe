"""Runs that stand by, and what waits for its time: whoever dies, whatever is missing, and however clocks are set."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException
from airflow.triggers.base import TaskFailedEvent

from airflow_provider_airis.dispatch import limits as engine
from airflow_provider_airis.hooks.airis import AirisHook
from airflow_provider_airis.triggers import patience
from airflow_provider_airis.triggers.alerts import AirisAlertTrigger
from sandbox.faults import Fault, FaultProxy
from sandbox.process import Server
from tests.conftest import Hub
from tests.integration.test_dispatch import World, first_event, run, stand_ins, until, world  # noqa: F401
from tests.integration.test_dispatch_routes import Write, fire, routes  # noqa: F401
from tests.integration.test_receivers import KEY


def waits(name: str) -> asyncio.Task[None]:
    return asyncio.create_task(AirisAlertTrigger(system="pagerduty").wait(name))


async def over(*tasks: asyncio.Task[None], within: float) -> list[bool]:
    """Which waits end within so many seconds; returns once one does."""
    await asyncio.wait(tasks, timeout=within, return_when=asyncio.FIRST_COMPLETED)
    return [task.done() for task in tasks]


def test_of_two_runs_that_wait_one_begins_and_the_other_goes_on_waiting(world):  # noqa: F811
    async def both() -> None:
        one, two = waits("one"), waits("two")
        assert await over(one, two, within=0.5) == [False, False]
        await asyncio.to_thread(world.fire)
        done = await over(one, two, within=30)
        assert sorted(done) == [False, True]
        other = two if one.done() else one
        delivered = await asyncio.to_thread(run)
        assert delivered["sent"] == 1
        assert await over(other, within=2.5) == [False]
        await asyncio.to_thread(world.fire)
        assert await over(other, within=30) == [True]

    asyncio.run(both())
    assert run()["sent"] == 1


def test_a_run_that_stands_by_takes_over_when_the_lease_of_a_dead_one_lapses(world):  # noqa: F811
    async def dies() -> None:
        with AirisHook(system="pagerduty") as hub:
            held = await asyncio.to_thread(hub.leases.acquire, hub.consumer, "a run whose worker is dead", 4)
            standby = waits("two")
            await asyncio.to_thread(world.fire)
            assert await over(standby, within=2) == [False]
            assert await over(standby, within=30) == [True]
            assert held.expires_at <= time.time() * 1000 < held.expires_at + 3_000
            assert hub.leases.get(hub.consumer).holder == "starting two"

    asyncio.run(dies())
    assert run()["sent"] == 1


def test_a_run_that_does_not_start_leaves_its_turn_to_another(world):  # noqa: F811
    async def lost() -> None:
        world_fires = asyncio.to_thread(world.fire)
        await world_fires
        assert await over(waits("lost"), within=30) == [True]
        assert await over(waits("two"), within=30) == [True]

    asyncio.run(lost())
    # And the first one does, later, unless the other is already at it.
    assert run()["sent"] == 1


def test_a_hub_without_leases_is_named(world, hub, connect):  # noqa: F811
    with FaultProxy(hub.url, [Fault("status", status=404, path="leases", times=100)]) as proxy:
        connect("airis_default", conn_type="airis", host=proxy.url, password=hub.token)
        with pytest.raises(AirflowFailException, match="The hub keeps no leases"):
            run()


@pytest.fixture
def sleeps(monkeypatch: Any) -> list[float]:
    """How long the trigger has waited after each refusal; its clock goes on by that."""
    slept: list[float] = []
    whole = asyncio.sleep

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await whole(0)

    monkeypatch.setattr(patience.asyncio, "sleep", sleep)
    monkeypatch.setattr(patience, "monotonic", lambda: sum(slept))
    monkeypatch.setattr(patience, "_faults", {})
    return slept


def test_a_missing_connection_is_one_fault_that_fails_ever_fewer_runs(monkeypatch, sleeps, capsys):
    monkeypatch.delenv("AIRFLOW_CONN_AIRIS_DEFAULT", raising=False)
    waited = []
    for _ in range(10):
        before = sum(sleeps)
        event = asyncio.run(asyncio.wait_for(first_event(AirisAlertTrigger(system="slack")), 60))
        assert isinstance(event, TaskFailedEvent)
        waited.append(sum(sleeps) - before)
    assert waited == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600, 3600]
    # It is looked for every minute all the same.
    assert max(sleeps) == 60
    assert capsys.readouterr().out.count("airis_default") >= 10


def test_another_fault_is_reported_soon_and_a_mended_one_forgotten(monkeypatch, sleeps, world, hub, connect):  # noqa: F811
    def fails() -> float:
        before = sum(sleeps)
        event = asyncio.run(asyncio.wait_for(first_event(AirisAlertTrigger(system="slack")), 60))
        assert isinstance(event, TaskFailedEvent)
        return sum(sleeps) - before

    extra = {"consumer": world.name}
    connect("airis_default", conn_type="airis", host=hub.url, password="revoked", extra=extra)
    assert [fails(), fails(), fails()] == [60, 120, 240]
    monkeypatch.delenv("AIRFLOW_CONN_AIRIS_DEFAULT")
    assert fails() == 60
    connect("airis_default", conn_type="airis", host=hub.url, password=hub.token, extra=extra)
    world.fire()
    assert not isinstance(asyncio.run(first_event(AirisAlertTrigger(system="slack"))), TaskFailedEvent)
    monkeypatch.delenv("AIRFLOW_CONN_AIRIS_DEFAULT")
    assert fails() == 60


def test_a_receivers_missing_connection_is_left_alone_ever_longer(world, monkeypatch, connect):  # noqa: F811
    monkeypatch.setattr(engine, "REFUSED_PAUSE_S", 2)
    monkeypatch.setattr(engine, "LONGEST_REFUSED_PAUSE_S", 60)
    monkeypatch.setattr(engine, "REFUSED_PAUSE_GROWS", 8)
    monkeypatch.setattr(engine, "STAY_S", 3)
    monkeypatch.delenv("AIRFLOW_CONN_PAGERDUTY_EVENTS_DEFAULT")
    alert_id = world.fire()
    began = time.monotonic()
    with pytest.raises(AirflowFailException, match=r"1 alerts wait for PagerDuty.*pagerduty_events_default"):
        run(max_run_s=600)
    # Two tries, and the next would be worth no worker.
    assert 2 <= time.monotonic() - began < 30
    with AirisHook(system="pagerduty") as hub:
        outage = hub.checkpoints.get(hub.consumer).value["outages"]["pagerduty_events_default"]
        assert outage["pause_s"] == 16
        assert hub.place().wake_at == pytest.approx(outage["retry_at"], abs=1_500)
        assert hub.committed() == world.end()
    # What wakes a run before that time does not make it fail.
    assert run(linger_s=0)["sent"] == 0
    pagerduty = world.proxies["pagerduty"].url
    connect("pagerduty_events_default", conn_type="pagerduty_events", host=pagerduty, password=KEY)

    async def woken() -> None:
        assert await over(waits("next"), within=30) == [True]

    asyncio.run(woken())
    assert run()["sent"] == 1
    assert world.ledger(alert_id) == {("pagerduty", "pagerduty_events_default"): "firing"}
    assert len(world.events()) == 1


def test_a_dispatch_that_sends_nothing_says_which_option_and_how_many_wait(world, capsys):  # noqa: F811
    for _ in range(3):
        world.fire()
    assert run("teams")["sent"] == 0
    said = "and 3 alerts are open: the option severities of section [airis_teams] names none"
    assert capsys.readouterr().out.count(said) == 1


# A process as a worker begins it; nothing but the Dag is imported, and four threads send at once.
COLD = """
import sys
from airflow_provider_airis.operators.dispatch import AirisDispatchOperator
assert "slack_sdk" not in sys.modules
print(AirisDispatchOperator(task_id="deliver", system="slack", linger_s=0).execute({})["sent"])
"""


def test_a_cold_process_loads_what_it_needs_before_threads_do(world):  # noqa: F811
    for _ in range(4):
        for _ in range(4):
            world.fire()
        done = subprocess.run([sys.executable, "-c", COLD], capture_output=True, text=True)
        assert done.stdout.splitlines()[-1:] == ["4"], done.stderr
        assert "partially initialized" not in done.stdout + done.stderr
    assert world.events() == []


class ClockHub(Hub):
    """A hub whose clock is set at will."""

    def start(self, port: int = 0) -> Server:
        self.clock = self.folder / "clock"
        self.set(0)
        return Server(
            "tests.hub_clock",
            *("--port", str(port), "--database", f"sqlite:///{self.folder}/hub.db"),
            *("--tokens", f"{self.folder}/tokens.json"),
            log=self.folder / "hub.log",
            env={"HUB_CLOCK": str(self.clock)},
        )

    def set(self, ahead_s: float) -> None:
        """By how much it is ahead."""
        new = self.clock.with_suffix(".new")
        new.write_text(str(round(ahead_s * 1000)))
        new.rename(self.clock)


@pytest.fixture
def clock_world(
    tmp_path: Path,
    stand_ins: Any,  # noqa: F811
    connect: Callable[..., str],
    monkeypatch: Any,
) -> Iterator[World]:
    hub = ClockHub(tmp_path)
    monkeypatch.setattr(engine, "LEASE_S", 2)
    connect("airis_default", conn_type="airis", host=hub.url, password=hub.token)
    world = World(hub, stand_ins, "clock")  # noqa: F811
    world.hub = hub
    pagerduty = world.proxies["pagerduty"].url
    connect("pagerduty_events_default", conn_type="pagerduty_events", host=pagerduty, password=KEY)
    yield world
    world.client.close()
    hub.server.stop()


@pytest.mark.parametrize("within", ["a run", "between two"])
@pytest.mark.parametrize("step_s", [-3600, 3600])
def test_what_changes_is_sent_within_the_interval_however_the_hubs_clock_is_set(
    clock_world,
    routes,  # noqa: F811
    step_s,
    within,
):
    world, hub = clock_world, clock_world.hub  # noqa: F811
    routes().write_text(
        "route: {receiver: all, group_by: [alert_id], group_wait: 1s, group_interval: 2s, repeat_interval: 4h}\n"
        "receivers: [{name: all, pagerduty_configs: [{target: pagerduty_events_default}]}]\n"
    )
    ids = [fire(world, f"alert {n}", fingerprint=f"alert {n}") for n in range(3)]

    def change() -> None:
        hub.set(step_s)
        world.change(ids[0], "resolve")
        fire(world, "alert 1", fingerprint="alert 1", severity="critical")
        world.change(ids[2], "acknowledge")

    expected = {("resolve", ids[0]), ("acknowledge", ids[2])}
    if within == "between two":
        run(linger_s=1, max_run_s=20)
        assert Counter(world.seen("pagerduty")) == Counter(("trigger", i) for i in ids)
        change()
        run(linger_s=3, max_run_s=20)
    else:
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(run, linger_s=8, max_run_s=40)
            until(lambda: len(world.seen("pagerduty")) == 3)
            change()
            until(lambda: expected <= set(world.seen("pagerduty")), 20)
            running.result()
    seen = world.seen("pagerduty")
    assert expected <= set(seen)
    assert ("trigger", ids[1]) in seen[3:]
    assert len(seen) == 6
    assert world.ledger(ids[1]) == {("pagerduty", "pagerduty_events_default"): "firing"}


def test_what_waits_for_its_time_is_sent_though_the_hubs_clock_is_set_back(clock_world, routes, monkeypatch):  # noqa: F811
    monkeypatch.setattr(engine, "STAY_S", 0)
    world, hub = clock_world, clock_world.hub  # noqa: F811
    routes().write_text(
        "route: {receiver: all, group_by: [alert_id], group_wait: 20s}\n"
        "receivers: [{name: all, pagerduty_configs: [{target: pagerduty_events_default}]}]\n"
    )
    fire(world, "later")
    assert run()["sent"] == 0
    hub.set(-3600)

    async def woken() -> None:
        assert await over(waits("next"), within=30) == [True]

    asyncio.run(woken())
    assert run(linger_s=2)["sent"] == 1
