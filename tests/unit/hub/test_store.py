from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import time_machine
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from airflow_provider_airis.hub.alerting import alerts, notification_log, reads, silences
from airflow_provider_airis.hub.alerting.alerts import Acknowledgement, ManualAlert
from airflow_provider_airis.hub.problems import Problem, StoreUnavailable
from airflow_provider_airis.hub.store import answers, consumers, metrics, points
from airflow_provider_airis.hub.store import tables as db
from airflow_provider_airis.hub.store.metrics import MAX_POINTS
from airflow_provider_airis.hub.store.store import Store
from airflow_provider_airis.hub.store.writer import Transaction
from airflow_provider_airis.records import Alert, LogEntry, Shown, from_ms
from tests.databases import Databases
from tests.unit.hub.conftest import MINUTE, Bench, temporary


def post(store: Store, name: str, **fields: object) -> Alert:
    body = ManualAlert(name=name, **{"severity": "low", **fields})  # type: ignore[arg-type]
    return store.submit(lambda t: alerts.post(t, body)).result(10)[1]


class Reader:
    """Reads the feed a few changes at a time, and may be thrown back to what it committed."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.seen: list[int] = []
        self.place = 0

    def read(self, limit: int) -> None:
        for change in self.bench.store.read(reads.changes, self.place, limit):
            self.seen.append(change.sequence)
            self.place = change.sequence

    def commit(self) -> None:
        store = self.bench.store
        store.submit(lambda t: consumers.commit(t, "reader", self.place)).result(10)

    def die(self) -> None:
        committed = self.bench.store.read(consumers.read, "reader")
        self.place = committed.sequence if committed else 0


def act(store: Store, how: Callable[[Transaction, str, Acknowledgement], Alert]) -> None:
    for alert in store.read(reads.page, store.now(), limit=1):
        store.submit(lambda t: how(t, alert.id, Acknowledgement())).result(10)  # noqa: B023 (waited for)


NAMES = st.sampled_from("abc")


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_a_reader_that_stops_anywhere_misses_nothing(databases: Databases, data: st.DataObject) -> None:
    """Transitions at random; a reader that reads pages of random size, commits at random and dies at random."""
    with temporary(databases) as bench:
        reader = Reader(bench)
        steps: dict[str, Callable[[], object]] = {
            "post": lambda: post(bench.store, "drift", fingerprint=data.draw(NAMES), severity="low"),
            "worse": lambda: post(bench.store, "drift", fingerprint=data.draw(NAMES), severity="high"),
            "acknowledge": lambda: act(bench.store, alerts.acknowledge),
            "resolve": lambda: act(bench.store, alerts.resolve),
            "read": lambda: reader.read(data.draw(st.integers(1, 4))),
            "commit": reader.commit,
            "die": reader.die,
            "reopen": bench.reopen,
        }
        for step in data.draw(st.lists(st.sampled_from(list(steps)), min_size=1, max_size=20)):
            steps[step]()
        while reader.place < bench.store.last[alerts.FEED]:
            reader.read(3)
        store = bench.store
        history = [change.sequence for change in store.read(reads.changes, 0, 5000)]
        assert sorted(set(reader.seen)) == history
        assert (
            sorted(
                c.sequence
                for a in store.read(reads.page, store.now(), limit=500)
                for c in store.read(reads.history, a.id)
            )
            == history
        )


def test_transitions_are_idempotent_and_each_is_in_the_feed_once(bench: Bench) -> None:
    store = bench.store
    first = post(store, "drift", fingerprint="f", tags={"a": "1"})
    same = post(store, "drift", fingerprint="f", current_value=5, severity="low")
    assert (same.id, same.current_value, same.updated_at) == (first.id, 5, first.updated_at)
    worse = post(store, "drift", fingerprint="f", severity="critical")
    assert (worse.id, worse.severity) == (first.id, "critical")
    assert worse.updated_at > first.updated_at
    for by in ("ann", "bob"):
        acknowledged = store.submit(
            lambda t, by=by: alerts.acknowledge(t, first.id, Acknowledgement(by, "looking"))
        ).result(10)
        assert (acknowledged.status, acknowledged.acknowledged_by) == ("acknowledged", "ann")
    for _ in range(2):
        resolved = store.submit(lambda t: alerts.resolve(t, first.id, Acknowledgement("ann"))).result(10)
        assert resolved.status == "resolved"
    late = store.submit(lambda t: alerts.acknowledge(t, first.id, Acknowledgement("late"))).result(10)
    assert (late.status, late.acknowledged_by) == ("resolved", "ann")
    assert bench.kinds() == ["fired", "severity_changed", "acknowledged", "resolved"]
    changes = store.read(reads.changes, 0)
    assert [change.alert.status for change in changes] == ["firing", "firing", "acknowledged", "resolved"]
    assert len({change.at for change in changes}) == 4
    detail = store.read(reads.detail, first.id, store.now())
    assert detail is not None
    assert [(entry.by, entry.comment) for entry in detail.history[2:]] == [("ann", "looking"), ("ann", None)]
    assert post(store, "drift", fingerprint="f").id != first.id


def test_duration_runs_until_it_is_resolved(bench: Bench) -> None:
    start = bench.now / 1000
    with time_machine.travel(start, tick=False):
        alert = post(bench.store, "drift")
    with time_machine.travel(start + 90, tick=False):
        assert (
            bench.store.read(
                reads.page,
                bench.store.now(),
            )[0].duration
            == 90
        )
        bench.store.submit(lambda t: alerts.resolve(t, alert.id, Acknowledgement())).result(10)
    with time_machine.travel(start + 900, tick=False):
        assert (
            bench.store.read(
                reads.page,
                bench.store.now(),
            )[0].duration
            == 90
        )


def test_works_share_a_commit_and_a_failing_one_undoes_only_itself(bench: Bench) -> None:
    store, go = bench.store, threading.Event()
    transactions: list[Transaction] = []
    blocker = store.submit(lambda _: go.wait(10))

    def work(transaction: Transaction, name: str) -> None:
        transactions.append(transaction)
        alerts.post(transaction, ManualAlert(name=name, severity="low"))
        if name == "bad":
            raise RuntimeError(name)

    futures = [store.submit(lambda t, name=name: work(t, name)) for name in ("good", "bad", "better")]
    go.set()
    assert blocker.result(10)
    assert futures[0].result(10) is futures[2].result(10) is None
    with pytest.raises(RuntimeError, match="bad"):
        futures[1].result(10)
    assert len(set(map(id, transactions))) == 1
    assert {
        alert.name
        for alert in store.read(
            reads.page,
            store.now(),
        )
    } == {"good", "better"}


def test_what_is_over_is_forgotten_in_parts_and_nothing_that_is_open(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notification_log, "_CHUNK", 50)
    day, start = 86_400, bench.now / 1000
    body = silences.SilenceBody(
        matchers=[silences.SilenceMatcher("a", "b")], endsAt=from_ms(bench.now + 60_000), createdBy="me", comment="why"
    )

    def known() -> list[int]:
        tables = (db.notification_log, db.shown, db.silences)
        return bench.store.read(lambda c: [c.scalar(select(func.count()).select_from(table)) for table in tables])

    def prune() -> bool:
        return bench.store.submit(lambda t: notification_log.prune(t, bench.store.retention.notifications)).result(10)

    def fire(transaction: Transaction, name: str) -> str:
        return alerts.post(transaction, ManualAlert(name=name, severity="low"))[1].id

    def tell(transaction: Transaction, status: str, ids: list[str], *, together: bool = False) -> None:
        shown = {alert_id: Shown(status, transaction.now) for alert_id in ids}
        parts = [shown] if together else [{alert_id: one} for alert_id, one in shown.items()]
        for part in parts:
            group = "together" if together else next(iter(part))
            entry = LogEntry(
                group=group, receiver="r", channel="c", target="t", id="", reference="", at=transaction.now, alerts=part
            )
            notification_log.log(transaction, [entry])

    def begin(transaction: Transaction) -> tuple[list[str], str, str]:
        ids, lasting, untold = (
            [fire(transaction, str(n)) for n in range(110)],
            fire(transaction, "x"),
            fire(transaction, "y"),
        )
        tell(transaction, "firing", [*ids, untold])
        tell(transaction, "firing", [ids[0], lasting], together=True)
        silences.put(transaction, body)
        return ids, lasting, untold

    def end(transaction: Transaction, ids: list[str], untold: str) -> None:
        for alert_id in (*ids, untold):
            alerts.resolve(transaction, alert_id, Acknowledgement())
        tell(transaction, "resolved", ids)
        tell(transaction, "resolved", [ids[0]], together=True)

    with time_machine.travel(start, tick=False):
        ids, lasting, untold = bench.store.submit(begin).result(60)
    with time_machine.travel(start + 40 * day, tick=False):
        assert known() == [112, 113, 1]
        assert not prune()
        # The silence: all alerts were open till now.
        assert known() == [112, 113, 0]
        bench.store.submit(lambda t: end(t, ids, untold)).result(60)
        assert not prune()
        assert known() == [112, 224, 0]
    with time_machine.travel(start + 71 * day, tick=False):
        parts = 1
        while prune():
            parts += 1
            assert known()[1] >= 224 - 50 * parts
        assert parts >= 5
        # An alert that is open; one of which it was not told that it is over, as the log says.
        assert known()[:2] == [2, 1]
        asked = {"channel": None, "known_by": None, "is_open": True, "after": "", "limit": 9}
        assert [one.group for _, one in bench.store.read(lambda c: notification_log.entries(c, **asked))] == [untold]
        assert bench.store.read(reads.detail, ids[0], bench.store.now()).notifications[0].status == "resolved"
        assert [one.entry.group for one in bench.store.read(lambda c: notification_log.showings(c, lasting))] == [
            "together"
        ]


def test_a_value_that_the_store_cannot_hold_is_refused_alone(bench: Bench) -> None:
    store, go = bench.store, threading.Event()
    blocker = store.submit(lambda _: go.wait(10))
    alert = ManualAlert(name="good", severity="low")
    bad = [
        store.submit(lambda t: consumers.commit(t, "c", 1 << 70, force=True)),
        store.submit(lambda t: alerts.post(t, ManualAlert(name="bad", severity="low", tags={"a": "b"}, threshold=1))),
        store.submit(lambda t: t.connection.execute(db.consumers.insert(), {"name": "c", "sequence": 1 << 70})),
        store.submit(lambda t: t.connection.execute(db.consumers.insert(), {"name": "c"})),
    ]
    good = store.submit(lambda t: alerts.post(t, alert))
    go.set()
    assert blocker.result(10)
    assert good.result(10)[0] is True
    assert bad[1].result(10)[0] is True
    for place, status in ((0, 400), (2, 400)):
        with pytest.raises(Problem) as refused:
            bad[place].result(10)
        assert refused.value.status == status
    with pytest.raises(IntegrityError):
        bad[3].result(10)
    assert {alert.name for alert in store.read(reads.page, store.now())} == {"good", "bad"}


def test_a_commit_is_flushed_to_disk(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/hub.db")

    def pragma(name: str) -> object:
        return store.submit(lambda t: t.connection.exec_driver_sql(f"PRAGMA {name}").scalar()).result(10)

    assert (pragma("journal_mode"), pragma("synchronous")) == ("wal", 2)
    store.close()


def test_queued_works_are_finished_at_the_end_and_later_ones_refused(bench: Bench) -> None:
    go = threading.Event()
    bench.store.submit(lambda _: go.wait(10))
    queued = bench.store.submit(lambda t: alerts.post(t, ManualAlert(name="queued", severity="low")))
    closing = threading.Thread(target=bench.store.close)
    closing.start()
    go.set()
    closing.join(10)
    assert queued.result(0)[0] is True
    with pytest.raises(StoreUnavailable):
        bench.store.submit(lambda _: None)


def test_the_last_value_wins_within_a_document_and_between_them(bench: Bench) -> None:
    answer = bench.send([(0, 1), (0, 2), (1, 3)])
    assert (answer.accepted, answer.duplicates) == (3, 1)
    answer = bench.send([(1, 4), (2, 5)])
    assert (answer.accepted, answer.duplicates) == (2, 1)
    (series,) = bench.store.read(metrics.query, start=0, end=1 << 60)
    assert [value for _, value in series.points] == [2, 4, 5]


def test_a_series_is_its_source_name_and_tags_in_whatever_order(bench: Bench) -> None:
    bench.send([(0, 1)], a="1", b="2")
    bench.send([(0, 2)], b="2", a="1")
    bench.send([(0, 3)], a="1")
    assert [(series.tags, series.points[0][1]) for series in bench.store.read(metrics.query, start=0, end=1 << 60)] == [
        ({"a": "1"}, 3),
        ({"a": "1", "b": "2"}, 2),
    ]


def test_a_new_unit_is_the_series_unit(bench: Bench) -> None:
    bench.send([(0, 1)])
    for unit in ("s", "ms", "s"):
        document = json.dumps(
            {
                "timestamp": bench.now,
                "source": "s",
                "metrics": [{"name": "latency", "value": 1, "unit": unit, "tags": {}}],
            }
        ).encode()
        bench.store.submit(lambda t, d=document: points.ingest(t, d, "single")).result(10)
        (series,) = bench.store.read(metrics.query, start=0, end=1 << 60)
        assert (series.unit, len(series.points)) == (unit, 1)


def test_query_filters_and_aggregates(bench: Bench) -> None:
    start = bench.now - bench.now % (60 * MINUTE) - 60 * MINUTE
    bench.now = start
    bench.send([(minute, minute) for minute in range(10)], endpoint="x")
    bench.send([(0, 1)], endpoint="y")
    bench.send([(0, 1)], name="errors", endpoint="x")
    (series,) = bench.store.read(
        metrics.query, start=start, end=start + 10 * MINUTE, name="latency", tags={"endpoint": "x"}
    )
    assert series.points == [(start + minute * MINUTE, minute) for minute in range(10)]
    for aggregation, expected in (
        ("avg", [2, 7]),
        ("max", [4, 9]),
        ("count", [5, 5]),
        ("p50", [2, 7]),
        ("last", [4, 9]),
    ):
        (series,) = bench.store.read(
            metrics.query,
            start=start,
            end=start + 10 * MINUTE,
            name="latency",
            source="s",
            tags={"endpoint": "x"},
            step=5 * MINUTE,
            aggregation=aggregation,
        )
        assert series.points == [(start, expected[0]), (start + 5 * MINUTE, expected[1])], aggregation
    assert bench.store.read(metrics.query, start=start + MINUTE, end=start + 2 * MINUTE, tags={"endpoint": "y"}) == []
    assert bench.store.read(metrics.query, start=start, end=start, name="latency") == []
    assert bench.store.read(metrics.query, start=0, end=1 << 60, source="other") == []


def test_query_refuses_more_than_it_holds_in_memory(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_POINTS == 1_000_000
    monkeypatch.setattr("airflow_provider_airis.hub.store.metrics.MAX_POINTS", 10)
    bench.send([(minute, 1) for minute in range(-10, 0)])
    assert len(bench.store.read(metrics.query, start=0, end=1 << 60)[0].points) == 10
    bench.send([(0, 1)], endpoint="y")
    with pytest.raises(Problem, match="more than 10 points"):
        bench.store.read(metrics.query, start=0, end=1 << 60)


def test_coverage_names_windows_and_gaps(bench: Bench) -> None:
    start = bench.now - bench.now % (60 * MINUTE) - 120 * MINUTE
    bench.now = start
    bench.send([(m, 1) for m in (0, 0.5, 1, 2, 5, 6, 9)], endpoint="x")
    bench.send([(3, 1)], endpoint="y")

    def windows(step: int, **fields: int) -> list[tuple[str, int, list[tuple[float, float]]]]:
        span = {"start": start, "end": start + 60 * MINUTE} | fields
        return [
            (s.tags["endpoint"], s.points, [((a - start) / MINUTE, (b - start) / MINUTE) for a, b in s.windows])
            for s in bench.store.read(metrics.coverage, step=step, **span)
        ]

    assert windows(MINUTE) == [("x", 7, [(0, 3), (5, 7), (9, 10)]), ("y", 1, [(3, 4)])]
    assert windows(5 * MINUTE) == [("x", 7, [(0, 10)]), ("y", 1, [(0, 5)])]
    assert windows(MINUTE, end=start + 2 * MINUTE) == [("x", 3, [(0, 2)])]
    assert bench.store.read(metrics.coverage, start=0, end=1 << 60, step=1000, source="other") == []


@settings(max_examples=20, deadline=None)
@given(st.sets(st.integers(0, 200), min_size=1, max_size=60), st.integers(1, 7))
def test_coverage_is_what_the_points_say(databases: Databases, minutes: set[int], step: int) -> None:
    with temporary(databases) as bench:
        bench.now = 1_700_000_000_000 // (420 * MINUTE) * (420 * MINUTE)
        bench.send([(minute, 1) for minute in minutes])
        (series,) = bench.store.read(metrics.coverage, start=0, end=1 << 60, step=step * MINUTE)
        covered = {
            t for a, b in series.windows for t in range((a - bench.now) // MINUTE, (b - bench.now) // MINUTE, step)
        }
        assert covered == {minute - minute % step for minute in minutes}
        assert all(a[1] < b[0] for a, b in pairwise(series.windows))
        assert series.points == len(minutes)


def test_activity(bench: Bench) -> None:
    bench.send([(-59.5, 1), (-1, 1), (0, 1)], endpoint="x")
    bench.send([(-500, 1)], endpoint="y")
    (source,) = bench.store.read(
        metrics.activity, start=bench.now - 59 * MINUTE, end=bench.now + MINUTE, step=20 * MINUTE
    )
    assert (source.source, source.series, source.last, source.counts) == ("s", 2, bench.now, [0, 0, 2])


def test_answers_expire_after_a_week(bench: Bench) -> None:
    calls: list[int] = []

    def once(body: bytes) -> tuple[int, bytes, bool]:
        def work() -> tuple[int, bytes]:
            calls.append(1)
            return 200, b"done"

        return bench.store.submit(lambda t: answers.once(t, "", "key", "/path", body, work)).result(10)

    assert once(b"body") == (200, b"done", False)
    assert once(b"body") == (200, b"done", True)
    with pytest.raises(Problem, match="another body") as caught:
        once(b"other")
    assert caught.value.status == 409
    for days, number in ((6, 1), (8, 2)):
        with time_machine.travel(time.time() + days * 86_400):
            bench.store.prune()
            once(b"body")
            assert len(calls) == number


def test_an_unusable_database_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="unable to open"):
        Store(f"sqlite:///{tmp_path}/none/hub.db")
    (tmp_path / "hub.db").write_text("this is no database, but a text of more than a hundred bytes " * 3)
    with pytest.raises(StoreUnavailable, match="not a database"):
        Store(f"sqlite:///{tmp_path}/hub.db")
    with pytest.raises(ValueError, match="in memory"):
        Store("sqlite://")
