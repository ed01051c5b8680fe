"""Several processes of one hub on PostgreSQL: what one has done, the others know; nothing is lost, nothing doubled."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
from sqlalchemy import func, select, text

from airflow_provider_airis.hub.alerting import alerts, reads, rulebook
from airflow_provider_airis.hub.alerting.alerts import Acknowledgement, ManualAlert
from airflow_provider_airis.hub.alerting.rules import Rule
from airflow_provider_airis.hub.problems import Problem
from airflow_provider_airis.hub.store import answers, events, feeds, metrics, points, users
from airflow_provider_airis.hub.store import tables as db
from airflow_provider_airis.hub.store.store import Store
from airflow_provider_airis.hub.store.users import UserSync, UserSyncBody
from airflow_provider_airis.hub.store.writer import Transaction
from tests.conftest import Hub
from tests.databases import PostgresDatabases

MINUTE = 60_000
EVENTS = 100_000


@pytest.fixture
def database(postgresql: PostgresDatabases, tmp_path: Path) -> Iterator[str]:
    url = postgresql.fresh(tmp_path)
    yield url
    postgresql.drop(url)


@contextmanager
def stores(url: str, number: int = 2) -> Iterator[list[Store]]:
    opened = [Store(url) for _ in range(number)]
    try:
        yield opened
    finally:
        for store in opened:
            store.close()


@pytest.fixture
def pair(database: str) -> Iterator[list[Store]]:
    with stores(database) as pair:
        yield pair


def now() -> int:
    return int(time.time() * 1000)


def document(*values: float, at: int | None = None, name: str = "latency", **tags: str) -> bytes:
    start = now() - len(values) * MINUTE if at is None else at
    bodies = [
        {
            "timestamp": start + place * MINUTE,
            "source": "s",
            "metrics": [{"name": name, "value": value, "unit": "ms", "tags": tags}],
        }
        for place, value in enumerate(values)
    ]
    return "\n".join(map(json.dumps, bodies)).encode()


def send(store: Store, *values: float, **fields: Any) -> Future[Any]:
    content = document(*values, **fields)
    return store.submit(lambda t: points.ingest(t, content, "lines"), turn=feeds.Turn.POINTS)


def rule(store: Store, **fields: Any) -> None:
    known = {
        "id": "r",
        "name": "slow",
        "metric": "latency",
        "aggregation": "sum",
        "window_s": 60,
        "comparator": ">",
        "threshold": 10,
        "severity": "high",
        "by": [],
    }
    made = msgspec.convert(known | fields, Rule)
    store.submit(lambda t: rulebook.put(t, made, replace=True)).result(30)


def kinds(store: Store) -> list[str]:
    return [change.change for change in store.read(reads.changes, 0, 5000)]


def test_a_reader_of_two_writers_misses_no_event_and_sees_none_twice(pair: list[Store]) -> None:
    batch, numbers = 250, count()
    done = threading.Event()
    seen: list[int] = []
    with stores(str(pair[0]._engine.url.render_as_string(hide_password=False)), 1) as (reader,):

        def write(store: Store) -> None:
            waiting: list[Future[Any]] = []
            while (number := next(numbers)) < EVENTS // batch:
                lines = [
                    f'{{"timestamp":1,"event_type":"t","source":"s","severity":"info","data":{{}},'
                    f'"idempotency_key":"{number}-{place}"}}'
                    for place in range(batch)
                ]
                content = "\n".join(lines).encode()
                work = lambda t, content=content: events.ingest(t, content, "lines", None)  # noqa: E731
                waiting.append(store.submit(work, size=1 << 20, turn=feeds.Turn.EVENTS))
                if len(waiting) > 8:
                    waiting.pop(0).result(60)
            for future in waiting:
                assert future.result(60).duplicates == 0

        def read() -> None:
            after = 0
            while True:
                last = done.is_set()
                page = reader.read(_sequences, after)
                seen.extend(page)
                if page:
                    after = page[-1]
                elif last:
                    return

        with ThreadPoolExecutor(3) as pool:
            reading = pool.submit(read)
            list(pool.map(write, pair))
            done.set()
            reading.result(60)
    assert len(seen) == EVENTS
    assert all(a < b for a, b in pairwise(seen))


def _sequences(connection: Any, after: int) -> list[int]:
    table = db.events.c.sequence
    return list(connection.scalars(select(table).where(table > after).order_by(table).limit(20_000)))


def test_a_rule_that_is_set_at_one_is_evaluated_for_points_of_the_other(pair: list[Store]) -> None:
    one, other = pair
    at = now() - 3 * MINUTE
    send(other, 1, at=at - 20).result(30)  # it has read the rules: there are none
    rule(one)
    send(other, 5, at=at - 10, endpoint="x").result(30)
    assert kinds(one) == []
    # A series that the other has never heard of is in the same group.
    send(one, 5, at=at, endpoint="y").result(30)
    send(other, 6, at=at, endpoint="x").result(30)
    assert kinds(one) == kinds(other) == ["fired"]
    rule(one, threshold=100)
    assert kinds(other) == ["fired", "resolved"]
    send(other, 150, at=at + MINUTE, endpoint="x").result(30)
    assert kinds(one)[2:] == ["fired"]
    other.submit(lambda t: rulebook.remove(t, "r")).result(30)
    send(one, 150, at=at + 2 * MINUTE, endpoint="z").result(30)
    assert kinds(one)[2:] == ["fired", "resolved"]


def test_rules_that_change_meanwhile_miss_no_point(pair: list[Store]) -> None:
    """Each point is above the threshold: the rule fires whichever of the two comes first."""
    one, other = pair
    for turn in range(30):
        sent = send(other, 99, endpoint=f"e{turn}")
        rule(one, id=f"r{turn}", by=None, matchers=[{"tag": "endpoint", "op": "=", "value": f"e{turn}"}])
        sent.result(30)
    assert kinds(one) == ["fired"] * 30


def test_points_of_a_group_that_arrive_at_both_are_evaluated_together(pair: list[Store]) -> None:
    rule(pair[0], threshold=1.5)
    start = now() - 10 * MINUTE
    for turn in range(20):
        at = start + turn * 15_000
        sent = [send(store, 1, at=at, endpoint=f"{number}-{turn}") for number, store in enumerate(pair)]
        for future in sent:
            future.result(30)
    # Whoever came second saw the points of the first.
    assert kinds(pair[0]) == ["fired"]


def test_a_series_made_at_both_at_once_is_one(pair: list[Store]) -> None:
    for turn in range(20):
        sent = [send(store, 1, 2, at=0, name=f"n{turn}", a="b") for store in pair]
        assert sorted(future.result(30).duplicates for future in sent) == [0, 2]
    found = pair[0].read(metrics.query, start=0, end=1 << 60)
    assert len(found) == 20
    assert pair[0].read(lambda c: c.scalar(select(func.count()).select_from(db.series))) == 20


def test_counts_are_exact_whoever_stores_a_point_first(pair: list[Store]) -> None:
    """Documents large enough to be copied, and small ones, which overlap."""
    sent = [
        send(pair[place % 2], *([place] * (700 if place % 3 else 30)), at=place // 2 * 300 * MINUTE, a="b")
        for place in range(12)
    ]
    accepted, duplicates = (
        sum(getattr(future.result(60), name) for future in sent) for name in ("accepted", "duplicates")
    )
    (held,) = pair[0].read(metrics.query, start=0, end=1 << 60)
    assert accepted - duplicates == len(held.points)


def test_a_key_at_both_at_once_is_done_once(pair: list[Store]) -> None:
    done: list[int] = []

    def work(t: Transaction) -> tuple[int, bytes]:
        done.append(alerts.post(t, ManualAlert(name="n", severity="low"))[1].timestamp)
        return 201, str(len(done)).encode()

    for turn in range(20):
        keyed = [store.submit(lambda t: answers.once(t, "", f"k{turn}", "/p", b"", lambda: work(t))) for store in pair]  # noqa: B023
        results = [future.result(30) for future in keyed]
        assert results[0][:2] == results[1][:2]
        assert sorted(replayed for *_, replayed in results) == [False, True]
        with pytest.raises(Problem, match="another body"):
            pair[0].submit(lambda t: answers.once(t, "", f"k{turn}", "/p", b"x", lambda: work(t))).result(30)  # noqa: B023


def test_transitions_of_one_alert_at_both_follow_one_another(pair: list[Store]) -> None:
    for turn in range(20):
        alert = pair[0].submit(lambda t: alerts.post(t, ManualAlert(name=f"n{turn}", severity="low"))).result(30)[1]  # noqa: B023
        acts = [
            pair[0].submit(lambda t: alerts.acknowledge(t, alert.id, Acknowledgement("ann"))),  # noqa: B023
            pair[1].submit(lambda t: alerts.resolve(t, alert.id, Acknowledgement("bob"))),  # noqa: B023
        ]
        for act in acts:
            act.result(30)
        history = [change.change for change in pair[0].read(reads.history, alert.id)]
        assert history in (["fired", "acknowledged", "resolved"], ["fired", "resolved"])
        assert pair[0].read(reads.detail, alert.id, now()).status == "resolved"


def test_parts_of_a_sync_at_both_complete_it(pair: list[Store]) -> None:
    for turn in range(10):
        parts = [
            UserSyncBody(
                event_type="user_sync",
                source=f"d{turn}",
                timestamp=1,
                data=UserSync(
                    users=[{"username": f"u{part}"}], sync_type="full", sync_id="x", part=part, last=part == 2
                ),
            )
            for part in (1, 2)
        ]
        sent = [store.submit(lambda t, part=part: users.sync(t, part)) for store, part in zip(pair, parts, strict=True)]
        assert sorted(future.result(30).applied for future in sent) == [False, True]


def test_a_deadlock_is_done_again(pair: list[Store]) -> None:
    meet = threading.Barrier(2)
    attempts: Counter[str] = Counter()

    def work(transaction: Transaction, first: str, second: str) -> None:
        attempts[first] += 1
        feeds.hold(transaction, first)
        with suppress(threading.BrokenBarrierError):
            meet.wait(5)
        meet.abort()
        feeds.hold(transaction, second)
        feeds.advance(transaction, first)

    one = pair[0].submit(lambda t: work(t, feeds.ALERTS, feeds.EVENTS))
    other = pair[1].submit(lambda t: work(t, feeds.EVENTS, feeds.ALERTS))
    assert one.result(30) is other.result(30) is None
    assert sorted(attempts.values()) == [1, 2]
    assert pair[0].read(feeds.ends) == {"alerts": 1, "events": 1}


def test_an_old_point_makes_a_dropped_week_anew(pair: list[Store]) -> None:
    at = 1_600_000_000_000
    for store in pair:
        assert send(store, 1, at=at).result(30).accepted == 1
    pair[0].submit(lambda t: t.connection.execute(text(f"DROP TABLE points_{at // (7 * 24 * 60 * MINUTE)}"))).result(30)
    assert send(pair[1], 2, at=at).result(30).duplicates == 0


def test_what_is_committed_elsewhere_is_heard_after_the_connection_was_lost(pair: list[Store]) -> None:
    heard = threading.Event()
    pair[1].listen(heard.set)
    pair[0].submit(lambda t: alerts.post(t, ManualAlert(name="a", severity="low"))).result(30)
    assert heard.wait(30)
    heard.clear()
    ended = text(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE '%feeds%' "
        "AND datname = current_database() AND pid <> pg_backend_pid() AND state = 'idle'"
    )
    assert pair[0].read(lambda c: c.scalar(ended)) >= 1
    pair[0].submit(lambda t: alerts.post(t, ManualAlert(name="b", severity="low"))).result(30)
    assert heard.wait(30)
    assert pair[1].last["alerts"] == 2


# Over sockets, in processes of their own


@pytest.fixture
def hubs(database: str, tmp_path: Path) -> Iterator[list[Hub]]:
    hubs = [Hub(tmp_path, database), Hub(tmp_path, database)]
    yield hubs
    for hub in hubs:
        hub.server.stop()


def client(hub: Hub) -> httpx2.Client:
    return httpx2.Client(base_url=f"{hub.url}/api/v1", headers={"Authorization": f"Bearer {hub.token}"}, timeout=60)


def test_a_long_poll_at_one_answers_on_a_commit_at_the_other(hubs: list[Hub]) -> None:
    with client(hubs[0]) as one, client(hubs[1]) as other, ThreadPoolExecutor(1) as pool:
        after = 0
        for turn in range(5):
            poll = pool.submit(other.get, "/alerts/changes", params={"after": after, "wait": 50})
            time.sleep(0.1)  # not needed; most polls wait by then
            one.post("/alerts", json={"name": f"n{turn}", "severity": "low"}).raise_for_status()
            (change,) = poll.result(40).json()["changes"]
            after = change["sequence"]


class Sender:
    """Sends points, in turn above and below a rule's threshold, and an event with each; what fails it tries again with
    its key, at the other process.
    """

    def __init__(self, hubs: list[Hub], name: str) -> None:
        self.hubs, self.name = hubs, name
        self.sent: list[tuple[int, float]] = []
        self.ending = threading.Event()

    def run(self) -> None:
        start = now() - 10 * MINUTE
        for place in range(100_000):
            if self.ending.is_set():
                return
            at, value = start + place * 100, float(1 if place % 2 == 0 else -1)
            metric = {"name": "n", "value": value, "unit": "", "tags": {"sender": self.name}}
            self._call("/metrics/ingest", f"p-{self.name}-{place}", {"metrics": [metric], "timestamp": at})
            event = {"timestamp": at, "event_type": "t", "severity": "info", "data": {}}
            self._call("/events/ingest", f"e-{self.name}-{place}", event)
            self.sent.append((at, value))

    def _call(self, path: str, key: str, body: dict[str, Any]) -> None:
        for attempt in count(len(self.sent)):
            with suppress(httpx2.TransportError, httpx2.HTTPStatusError), client(self.hubs[attempt % 2]) as one:
                one.post(path, json=body | {"source": "s"}, headers={"Idempotency-Key": key}).raise_for_status()
                return
            time.sleep(0.05)


def test_each_is_killed_in_turn_and_nothing_is_lost_or_doubled(hubs: list[Hub]) -> None:
    with client(hubs[0]) as one:
        made = {"metric": "n", "aggregation": "last", "window_s": 60, "comparator": ">", "threshold": 0}
        one.post("/rules", json=made | {"id": "r", "name": "n", "severity": "low"}).raise_for_status()
    senders = [Sender(hubs, name) for name in "abc"]

    def progress(more: int) -> None:
        wanted = [len(sender.sent) + more for sender in senders]
        deadline = time.monotonic() + 120
        while any(len(sender.sent) < least for sender, least in zip(senders, wanted, strict=True)):
            assert time.monotonic() < deadline
            time.sleep(0.02)

    with ThreadPoolExecutor(3) as pool:
        running = [pool.submit(sender.run) for sender in senders]
        try:
            for hub in hubs:
                progress(15)
                hub.server.kill()
                progress(5)
                hub.server = hub.start()
            progress(5)
        finally:
            for sender in senders:
                sender.ending.set()
        for future in running:
            future.result(60)
    with client(hubs[0]) as one:
        series = one.get("/metrics/query", params={"name": "n"}).json()["series"]
        page = one.get("/events/changes", params={"limit": 5000}).json()["changes"]
        changes = one.get("/alerts/changes", params={"limit": 5000}).json()["changes"]
    keys = sorted(change["event"]["key"] for change in page)
    assert keys == sorted(f"e-{sender.name}-{place}" for sender in senders for place in range(len(sender.sent)))
    for sender in senders:
        (points_,) = [line["points"] for line in series if line["tags"]["sender"] == sender.name]
        assert [tuple(point) for point in points_] == sender.sent
        its = [change["change"] for change in changes if change["alert"]["tags"]["sender"] == sender.name]
        assert its == ["fired" if value > 0 else "resolved" for _, value in sender.sent]


def test_while_the_rows_are_locked_the_others_go_on(pair: list[Store]) -> None:
    """An evaluation in one process holds nothing up in the other that needs no rule."""
    go, held = threading.Event(), threading.Event()

    def block(transaction: Transaction) -> None:
        feeds.hold(transaction, feeds.ALERTS)
        held.set()
        go.wait(30)

    blocked = pair[0].submit(block)
    assert held.wait(30)
    assert send(pair[1], 1, at=0).result(20).accepted == 1
    go.set()
    blocked.result(30)
