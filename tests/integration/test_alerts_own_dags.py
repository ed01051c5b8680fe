"""What users' own Dags have of the hub's alerts: the wake-up, the sensor, the asset, the notifier and the link."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG, Asset
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.triggers.base import BaseEventTrigger, TaskFailedEvent, TaskSuccessEvent, TriggerEvent
from airflow.triggers.shared_stream import SharedStreamManager

from airflow_provider_airis.assets import alerts, firing, told
from airflow_provider_airis.errors import PermanentError
from airflow_provider_airis.hooks.airis import AirisHook
from airflow_provider_airis.links import AirisAlertLink
from airflow_provider_airis.notifications.airis import AirisNotifier
from airflow_provider_airis.sensors.alerts import AirisAlertSensor
from airflow_provider_airis.triggers import alerts as triggers
from airflow_provider_airis.triggers import patience
from airflow_provider_airis.triggers.alerts import AirisAlertTrigger, Told


def first_event(trigger: AirisAlertTrigger) -> Any:
    async def first() -> Any:
        async for event in trigger.run():
            return event
        return None

    return asyncio.run(asyncio.wait_for(first(), 30))


def wait_by_hand(**kwargs: Any) -> Any:
    return AirisAlertSensor(task_id="wait", **kwargs).execute({})


@pytest.fixture
def nothing_new(airis) -> Callable[[str], None]:
    """Nothing has changed that the dispatch to a system has not seen."""

    def commit(system: str) -> None:
        with AirisHook(system=system) as hub:
            sequence = 0
            while (read := hub.changes(after=sequence, limit=5000))[0]:
                sequence = read[1]
            hub.commit(hub.consumer, sequence)

    return commit


@pytest.mark.parametrize("wait", [lambda **k: first_event(AirisAlertTrigger(**k)), wait_by_hand])
def test_a_dispatch_is_woken_at_the_time_it_asked_for_though_nothing_changed(nothing_new, wait):
    nothing_new("due")
    with AirisHook(system="due") as hub:
        for ms in (-1_000, 700):
            due = round(time.time() * 1000) + ms
            hub.commit(hub.consumer, hub.committed(), wake_at=due)
            woken = wait(system="due")
            assert woken is None or isinstance(woken, TaskSuccessEvent)
            assert time.time() * 1000 >= due


@pytest.mark.parametrize("wait", [lambda **k: first_event(AirisAlertTrigger(**k)), wait_by_hand])
def test_a_time_that_is_far_off_or_none_does_not_wake_it_and_a_change_does(nothing_new, wait, request):
    nothing_new("late")
    with AirisHook(system="late") as hub, ThreadPoolExecutor(1) as pool:
        hub.commit(hub.consumer, hub.committed(), wake_at=round(time.time() * 1000) + 3_600_000)
        waiting = pool.submit(wait, system="late")
        with pytest.raises(TimeoutError):
            waiting.result(0.5)
        hub.request("POST", "/api/v1/alerts", json={"name": request.node.name, "severity": "low"})
        waiting.result(30)


def test_a_time_that_is_asked_for_meanwhile_is_seen_at_the_next_poll(nothing_new, monkeypatch):
    monkeypatch.setattr("airflow_provider_airis.triggers.dispatch.POLL_S", 0.3)
    nothing_new("soon")
    with AirisHook(system="soon") as hub, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(first_event, AirisAlertTrigger(system="soon"))
        with pytest.raises(TimeoutError):
            waiting.result(0.5)
        hub.commit(hub.consumer, hub.committed(), wake_at=1)
        waiting.result(30)


# Being told of changes, by what Airflow's triggerer runs


class Triggerer:
    """A trigger as Airflow runs it, which may die.

    :param stores: how many events it gets stored before that; all, unless given.
    :param takes: how many it takes.
    """

    def __init__(
        self, trigger: AirisAlertTrigger, task: Any = None, *, stores: float = math.inf, takes: float = math.inf
    ) -> None:
        self.trigger, self.stores, self.takes = trigger, stores, takes
        trigger.trigger_id = next(_ids)
        trigger.task_instance = task
        self.streams = SharedStreamManager()
        self.key = trigger.shared_stream_key()
        self.events: asyncio.Queue[Any] = asyncio.Queue()
        self.seqs: list[int | None] = []
        self.running = asyncio.create_task(self._run())

    async def _run(self) -> None:
        stream = self.streams.subscribe(trigger_id=self.trigger.trigger_id, trigger=self.trigger, key=self.key)
        try:
            async for event in self.trigger.filter_shared_stream(stream):
                if len(self.seqs) >= self.takes:
                    return
                self.seqs.append(self.streams.bind_pending_event(trigger_id=self.trigger.trigger_id, key=self.key))
                self.events.put_nowait(event)
                if len(self.seqs) <= self.stores:
                    self.store()
        finally:
            await self.streams.unsubscribe(self.trigger.trigger_id, self.key)

    def store(self) -> None:
        self.streams.confirm_persisted(self.seqs[-1:])

    async def event(self) -> Any:
        return await asyncio.wait_for(self.events.get(), 30)

    async def ids(self, count: int) -> list[str]:
        return [(await self.event()).payload["alert"]["id"] for _ in range(count)]

    async def stop(self) -> None:
        self.running.cancel()
        with suppress(asyncio.CancelledError):
            await self.running


class Comms:
    """Where Airflow's triggerer puts XComs."""

    def __init__(self) -> None:
        self.xcoms: dict[str, Any] = {}

    async def asend(self, message: Any) -> None:
        self.xcoms[f"{message.dag_id}.{message.task_id}.{message.key}"] = message.value


@pytest.fixture
def xcoms(monkeypatch) -> dict[str, Any]:
    comms = Comms()
    monkeypatch.setattr("airflow.sdk.execution_time.task_runner.SUPERVISOR_COMMS", comms, raising=False)
    return comms.xcoms


def task_of(dag_id: str, task_id: str) -> SimpleNamespace:
    return SimpleNamespace(dag_id=dag_id, task_id=task_id, run_id="r1", map_index=-1)


_ids = itertools.count(1)


@pytest.fixture
def fire(airis, request) -> Iterator[Callable[..., str]]:
    """Fires an alert of this test's model and returns its id."""
    with AirisHook() as hub:
        yield (
            lambda name="drift", severity="high", **fields: (
                hub.fire(name, severity, model_id=request.node.name, tags={"n": str(next(_ids))}, **fields).id
            )
        )


@pytest.fixture
def mine(request) -> dict[str, Any]:
    """A watcher of this test's model."""
    return {"system": f"alerts:{request.node.name}", "matchers": [f"model_id={json.dumps(request.node.name)}"]}


def place(system: str) -> int:
    with AirisHook(system=system) as hub:
        return hub.committed()


def end() -> int:
    return asyncio.run(AirisHook().aend())


def at_end(system: str) -> bool:
    """Whether everything that there is was told."""
    return place(system) == end()


async def happens(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(30):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.02)


def test_the_feeds_end_is_found(airis, fire):
    with AirisHook() as hub:
        for _ in range(5):
            fire()
            sequence = 0
            while (read := hub.changes(after=sequence, limit=5000))[0]:
                sequence = read[1]
            assert end() == sequence


def test_a_watcher_is_told_of_each_change_that_fits_from_its_first_start_on(fire, mine):
    async def watch() -> list[TriggerEvent]:
        fire()
        watcher = Triggerer(AirisAlertTrigger(**mine, changes=["fired", "resolved"]))
        await happens(lambda: at_end(mine["system"]))
        alert_id = fire(severity="critical")
        with AirisHook() as hub:
            hub.fire("not mine", "high", tags={"n": str(next(_ids))})
            hub.acknowledge(alert_id, "ada")
            hub.resolve(alert_id)
        fire(name="last")
        found = [await watcher.event() for _ in range(3)]
        await happens(lambda: at_end(mine["system"]))
        await watcher.stop()
        assert watcher.events.empty()
        return found

    fired, resolved, last = (event.payload for event in asyncio.run(watch()))
    assert [payload["change"] for payload in (fired, resolved, last)] == ["fired", "resolved", "fired"]
    assert (fired["alert"]["severity"], fired["alert"]["model_id"]) == ("critical", mine_model(mine))
    assert fired["alert"]["id"] == resolved["alert"]["id"]
    assert fired["url"] == AirisHook().dashboard_url(fired["alert"]["id"])
    assert last["alert"]["name"] == "last"


def mine_model(mine: dict[str, Any]) -> str:
    return json.loads(mine["matchers"][0].partition("=")[2])


def test_what_airflow_has_not_stored_is_told_again_and_what_it_has_is_not(fire, mine):
    expected = [fire() for _ in range(3)]
    trigger = partial(AirisAlertTrigger, **mine, catchup=True)

    async def watch() -> None:
        watcher = Triggerer(trigger(), stores=1)
        assert await watcher.ids(3) == expected
        await happens(lambda: place(mine["system"]))
        await watcher.stop()
        watcher = Triggerer(trigger())
        assert await watcher.ids(2) == expected[1:]
        await happens(lambda: at_end(mine["system"]))
        await watcher.stop()
        watcher = Triggerer(trigger())
        new = fire()
        assert await watcher.ids(1) == [new]
        await watcher.stop()

    asyncio.run(watch())


@pytest.mark.parametrize("dies", [{"takes": 0}, {"stores": 0}])
def test_a_triggerer_that_is_stopped_with_an_event_in_its_hands_loses_none(fire, mine, xcoms, dies):
    first = fire()
    sensor = partial(AirisAlertTrigger, matchers=mine["matchers"], catchup=True)
    watcher = partial(AirisAlertTrigger, **mine, catchup=True)

    async def die(triggerer: Triggerer) -> None:
        if dies == {"takes": 0}:
            await triggerer.running
        else:
            await triggerer.event()
        await triggerer.stop()

    async def watch() -> None:
        task = task_of("dies", mine_model(mine))
        await die(Triggerer(watcher(), **dies))
        await die(Triggerer(sensor(), task, **dies))
        xcoms.clear()
        again = Triggerer(watcher())
        assert await again.ids(1) == [first]
        await again.stop()
        waiting = Triggerer(sensor(), task)
        await waiting.event()
        await waiting.stop()
        assert [alert["id"] for alert in xcoms.values()] == [first]

    asyncio.run(watch())


def test_a_task_whose_xcom_is_not_taken_fails_and_its_alert_is_the_next_runs(fire, mine, monkeypatch, request):
    first = fire()
    task = task_of("fails", mine_model(mine))

    async def wait() -> None:
        await Triggerer(AirisAlertTrigger(matchers=mine["matchers"], catchup=True), task).running

    monkeypatch.setattr("airflow.sdk.execution_time.task_runner.SUPERVISOR_COMMS", None, raising=False)
    with pytest.raises(AttributeError):
        asyncio.run(wait())
    xcoms = request.getfixturevalue("xcoms")

    async def wait_again() -> None:
        triggerer = Triggerer(AirisAlertTrigger(matchers=mine["matchers"], catchup=True), task)
        await triggerer.event()
        await triggerer.stop()

    asyncio.run(wait_again())
    assert [alert["id"] for alert in xcoms.values()] == [first]


def test_a_watcher_that_starts_again_has_missed_nothing(fire, mine):
    async def watch() -> None:
        watcher = Triggerer(AirisAlertTrigger(**mine))
        await happens(lambda: at_end(mine["system"]))
        await watcher.stop()
        meanwhile = [fire(), fire()]
        watcher = Triggerer(AirisAlertTrigger(**mine))
        assert await watcher.ids(2) == meanwhile
        await watcher.stop()

    asyncio.run(watch())


def test_more_changes_than_a_page_are_told_in_their_order(fire, mine, monkeypatch):
    monkeypatch.setattr(triggers, "PAGE", 20)
    expected = [fire() for _ in range(50)]

    async def watch() -> None:
        watcher = Triggerer(AirisAlertTrigger(**mine, catchup=True))
        assert await watcher.ids(50) == expected
        await watcher.stop()

    asyncio.run(watch())


def test_a_task_ends_with_one_alert_and_the_next_run_with_the_next(fire, mine, xcoms):
    first, second = fire(), fire()
    task = task_of("own", mine_model(mine))

    async def run(stores: int) -> str:
        triggerer = Triggerer(AirisAlertTrigger(matchers=mine["matchers"], catchup=True), task, stores=stores)
        event = await triggerer.event()
        await triggerer.stop()
        assert isinstance(event, TaskSuccessEvent)
        assert triggerer.events.empty()
        alert = xcoms[f"own.{task.task_id}.return_value"]
        assert event.xcoms == {AirisAlertLink().xcom_key: AirisHook().dashboard_url(alert["id"])}
        return alert["id"]

    assert [asyncio.run(run(stores)) for stores in (0, 1, 1)] == [first, first, second]
    assert at_end(f"own.{task.task_id}")


def test_a_task_that_is_run_by_hand_returns_one_alert_and_the_next_run_the_next(fire, mine):
    with DAG("by_hand"):
        sensor = AirisAlertSensor(task_id="wait", matchers=mine["matchers"], catchup=True)
    expected = [fire(), fire()]
    assert [sensor.execute({})["id"] for _ in range(2)] == expected
    assert AirisAlertLink().get_link(sensor, ti_key=None).endswith(expected[1])
    assert place("by_hand.wait") == end()
    assert sensor.execute({"ti": SimpleNamespace(map_index=2)})["id"] == expected[0]
    assert place("by_hand.wait.2")


def test_a_hub_that_is_down_when_an_event_is_stored_hears_of_it_when_it_is_back(hub, fire, mine, monkeypatch):
    monkeypatch.setattr(patience, "LONGEST_PAUSE_S", 0.2)

    async def watch() -> None:
        watcher = Triggerer(AirisAlertTrigger(**mine, catchup=True), stores=0)
        first = fire()
        assert await watcher.ids(1) == [first]
        port = hub.server.port
        hub.server.kill()
        watcher.stores = math.inf
        watcher.store()
        hub.server = await asyncio.to_thread(hub.start, port)
        await happens(lambda: at_end(mine["system"]))
        second = fire()
        assert await watcher.ids(1) == [second]
        await watcher.stop()

    asyncio.run(watch())


@pytest.mark.parametrize("password", ["revoked", None])
def test_a_hub_that_refuses_fails_the_task_and_restarts_the_watcher(hub, connect, monkeypatch, mine, password):
    monkeypatch.setattr(patience, "PERMANENT_PAUSE_S", 0)
    monkeypatch.delenv("AIRFLOW_CONN_AIRIS_DEFAULT", raising=False)
    if password:
        connect("airis_default", conn_type="airis", host=hub.url, password=password)

    async def watch() -> None:
        task = Triggerer(AirisAlertTrigger(matchers=[]), task_of("own", "wait"))
        assert isinstance(await task.event(), TaskFailedEvent)
        with pytest.raises((PermanentError, AirflowNotFoundException)):
            await Triggerer(AirisAlertTrigger(**mine)).running

    asyncio.run(watch())


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"matchers": ["severity"]}, "^matchers: 'severity' is no matcher"),
        ({"matchers": ['severity=~"("']}, "^matchers: .* is no regular expression"),
        ({"changes": ["fires"]}, "^changes: .*fired, severity_changed, acknowledged, resolved"),
        ({"changes": "fired"}, "^changes: 'fired' is no list"),
    ],
)
def test_what_cannot_be_meant_is_refused_where_it_is_written(wrong, said):
    arguments = {"matchers": [], **wrong}
    for make in (partial(AirisAlertSensor, task_id="wait"), partial(alerts, "mine"), AirisAlertTrigger):
        with pytest.raises(ValueError, match=said):
            make(**arguments)


def test_the_place_of_a_dispatch_is_not_for_matchers():
    with pytest.raises(ValueError, match=r"^system: "):
        AirisAlertSensor(task_id="wait", system="slack", matchers=[])


def test_two_assets_have_a_trigger_each_and_two_dags_with_one_asset_share_it():
    def hashed(asset: Asset) -> int:
        return BaseEventTrigger.hash(*asset.watchers[0].trigger.serialize())

    assert hashed(alerts("a", "team=ml")) == hashed(alerts("a", ["team=ml"])) != hashed(alerts("b", "team=ml"))
    asset = alerts("a", "team=ml")
    assert asset.uri == Asset("airis://alerts/a/").uri == "airis://alerts/a"
    path, arguments = asset.watchers[0].trigger.serialize()
    again = AirisAlertTrigger(**arguments)
    assert again.serialize() == (path, arguments)
    for uri in ("airis://alerts", "airis://models/a", "airis://alerts/a/b", "airis://alerts/a?b=c"):
        with pytest.raises(ValueError, match=r"one looks like airis://alerts/<name>"):
            Asset(uri)
    with pytest.raises(ValueError, match=r"^name: "):
        alerts("two words")


def test_a_run_sees_each_alert_once_as_it_was_last_and_asks_for_what_fires(fire, mine):
    asset = alerts("mine", mine["matchers"])
    open_, over = fire(), fire()
    with AirisHook() as hub:
        hub.resolve(over)
        changes = [c for c in hub.changes(after=0, limit=5000)[0] if c.alert.id in (open_, over)]
    events = [SimpleNamespace(extra={"payload": Told(change, "").payload}) for change in reversed(changes)]
    found = told({asset: events, Asset("other"): [SimpleNamespace(extra={})]})
    assert [(alert["id"], alert["status"]) for alert in found] == [(open_, "firing"), (over, "resolved")]
    assert [alert["id"] for alert in firing(asset)] == [open_]


# The callback


def context(dag_id: str, **fields: Any) -> dict[str, Any]:
    ti = SimpleNamespace(dag_id=dag_id, task_id="train", run_id="r1", map_index=-1, log_url="http://airflow/log")
    return {"ti": ti, "exception": RuntimeError("no data"), "params": {"model": "m1"}, **fields}


def found(dag_id: str) -> list[Any]:
    with AirisHook() as hub:
        return [alert for alert in hub.alerts() if alert.tags.get("dag_id") == dag_id]


def test_a_task_that_fails_again_is_one_alert_and_its_success_resolves_it(airis):
    notify = AirisNotifier(model_id="{{ params.model }}", severity="critical", tags={"team": "{{ ti.task_id }}"})
    for model in ("m1", "m2"):
        notify(context("fails", params={"model": model}))
    (alert,) = found("fails")
    assert (alert.name, alert.severity, alert.status) == ("fails.train failed", "critical", "firing")
    assert alert.description == "RuntimeError: no data\nhttp://airflow/log"
    assert (alert.model_id, alert.tags["team"], alert.tags["run_id"]) == ("m2", "train", "r1")
    AirisNotifier(status="resolved")(context("another"))
    assert found("fails")[0].status == "firing"
    AirisNotifier(status="resolved")(context("fails"))
    assert found("fails")[0].status == "resolved"
    notify(context("fails"))
    assert [alert.status for alert in found("fails")] == ["firing", "resolved"]


def test_a_dags_callback_and_a_mapped_task_have_alerts_of_their_own(airis):
    AirisNotifier()(context("whole", reason="task_failure"))
    AirisNotifier()({"dag": DAG("whole"), "run_id": "r2", "reason": "timed_out"})
    mapped = context("whole")
    mapped["ti"].map_index = 3
    AirisNotifier()(mapped)
    assert sorted((a.name, a.tags["run_id"]) for a in found("whole")) == [
        ("whole failed", "r2"),
        ("whole.train.3 failed", "r1"),
    ]


def test_a_deadline_that_is_missed_is_told_from_the_event_loop(airis):
    async def miss() -> None:
        await AirisNotifier(
            context={
                "dag_run": {"dag_id": "late", "run_id": "r1"},
                "deadline": {"deadline_time": "2026-11-23T00:00:00Z"},
            }
        )

    asyncio.run(miss())
    (alert,) = found("late")
    assert (alert.name, alert.description) == ("late missed its deadline", "It was due at 2026-11-23T00:00:00Z.")


def test_a_hub_that_cannot_be_told_is_logged_and_fails_nothing(connect, monkeypatch, capsys):
    monkeypatch.setattr("airflow_provider_airis.notifications.airis.RETRIES", 0)
    connect("airis_default", conn_type="airis", host="http://127.0.0.1:9", password="t0ken")
    AirisNotifier()(context("unheard"))
    AirisNotifier(airis_conn_id="nowhere")(context("unheard"))
    said = capsys.readouterr().out.splitlines()
    assert "could not connect" in said[0]
    assert "nowhere" in said[1]
    assert "t0ken" not in "".join(said)
    with pytest.raises(ValueError, match=r"^status: "):
        AirisNotifier(status="over")


def test_a_link_leads_to_the_alert_or_to_all_of_them(airis, hub):
    link = AirisAlertLink()
    for alert_id, expected in [("a1", "?alert=a1"), ("group-0123456789abcdef", ""), (None, "")]:
        task = SimpleNamespace(airis_conn_id="airis_default", alert_id=alert_id)
        assert link.get_link(task, ti_key=None) == f"{hub.url}/dashboard{expected}"
