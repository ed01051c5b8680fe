"""Rules over a store: the points' own time decides."""

from __future__ import annotations

import json
import time
from itertools import pairwise

import pytest
import time_machine
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from airflow_provider_airis.hub.alerting import alerts, reads, rulebook
from airflow_provider_airis.hub.alerting.evaluation import Evaluator
from airflow_provider_airis.hub.store import metrics, points
from airflow_provider_airis.hub.store import tables as db
from tests.databases import Databases
from tests.unit.hub.conftest import MINUTE, Bench, temporary
from tests.unit.hub.served import until


def test_fires_with_the_point_and_resolves_with_the_next(bench: Bench) -> None:
    bench.rule(labels={"model_id": "{endpoint}", "environment": "production", "team": "a"})
    bench.send([(-2, 5)], endpoint="x")
    assert bench.kinds() == []
    bench.send([(-1, 50)], endpoint="x")
    (alert,) = bench.open()
    assert (alert.name, alert.severity, alert.status, alert.source) == ("slow", "high", "firing", "s")
    assert (alert.model_id, alert.environment) == ("x", "production")
    assert (alert.threshold, alert.current_value) == (10, 50)
    assert alert.tags == {"endpoint": "x", "team": "a"}
    assert "last of latency over 60 s is 50, > 10" in alert.description
    bench.send([(0, 60)], endpoint="x")
    assert bench.kinds() == ["fired"]
    assert bench.open()[0].current_value == 60
    bench.send([(1, 7)], endpoint="x")
    assert bench.kinds() == ["fired", "resolved"]
    detail = bench.store.read(reads.detail, alert.id, bench.store.now())
    assert detail is not None
    assert (detail.status, detail.current_value, detail.data_at) == ("resolved", 7, bench.now - MINUTE)
    assert detail.rule is not None
    assert detail.rule.id == "r"
    assert [(ref.source, ref.name, ref.tags, ref.unit) for ref in detail.series] == [
        ("s", "latency", {"endpoint": "x"}, "ms")
    ]
    assert [(entry.change, entry.status, entry.value) for entry in detail.history] == [
        ("fired", "firing", 50),
        ("resolved", "resolved", 7),
    ]
    assert detail.updated_at > detail.timestamp


def test_a_backfill_pages_nobody(bench: Bench) -> None:
    bench.rule()
    bench.send([(minute, 99) for minute in range(-3000, -17)], endpoint="x")
    bench.send([(-3000 * 24, 99)], endpoint="y")
    bench.rule(id="again")
    bench.store.submit(bench.store.maintain).result(10)
    assert bench.kinds() == []
    bench.send([(-1, 99)], endpoint="x")
    assert bench.kinds() == ["fired", "fired"]
    bench.send([(minute, 1) for minute in range(-3000, -17)], endpoint="x")
    assert bench.kinds() == ["fired", "fired"]


def test_late_points_behind_the_newest_change_nothing_unless_in_its_window(bench: Bench) -> None:
    bench.rule(aggregation="max", window_s=180)
    bench.send([(0, 5)])
    bench.send([(-5, 99)])
    assert bench.kinds() == []
    bench.send([(-2, 99)])
    assert bench.kinds() == ["fired"]
    bench.send([(-2, 6)])
    assert bench.kinds() == ["fired", "resolved"]


def test_for_is_counted_in_the_points_time(bench: Bench) -> None:
    bench.rule(for_s=180)
    bench.send([(-5, 99), (-4, 99), (-3, 5), (-2, 99)])
    bench.send([(-1, 99), (0, 99)])
    assert bench.kinds() == []
    bench.reopen()
    bench.send([(1, 99)])
    assert bench.kinds() == ["fired"]


def test_for_starts_anew_behind_a_gap(bench: Bench) -> None:
    bench.rule(for_s=120)
    with time_machine.travel((bench.now - 40 * MINUTE) / 1000):
        bench.send([(-41, 99)])
    bench.send([(-1, 99)])
    assert bench.kinds() == []
    bench.send([(0, 99), (1, 99)])
    assert bench.kinds() == ["fired"]


def test_five_minutes_at_once_are_stepped_through(bench: Bench) -> None:
    bench.rule()
    bench.send([(-4, 5), (-3, 99), (-2, 5), (-1, 99), (0, 5)])
    assert bench.kinds() == ["fired", "resolved", "fired", "resolved"]
    times = [change.at for change in bench.store.read(reads.changes, 0)]
    assert times == sorted(times)
    bench.send([(1, 99), (2, 98), (3, 5)])
    assert (
        bench.store.read(
            reads.page,
            bench.store.now(),
        )[0].current_value
        == 5
    )


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0, 20), min_size=1, max_size=10), st.data())
def test_how_points_are_batched_makes_no_difference(
    databases: Databases, values: list[float], data: st.DataObject
) -> None:
    points = [(index - len(values), value) for index, value in enumerate(values)]
    cuts = data.draw(st.sets(st.integers(0, len(points))))
    for_s = data.draw(st.sampled_from([0, 60, 120]))
    kinds = []
    for edges in ([0, len(points)], sorted({0, len(points)} | cuts)):
        with temporary(databases) as bench:
            bench.rule(aggregation="avg", window_s=120, for_s=for_s)
            for start, end in pairwise(edges):
                bench.send(points[start:end])
            changes = [(change.change, change.alert.current_value) for change in bench.store.read(reads.changes, 0)]
            kinds.append(
                (
                    changes,
                    [
                        alert.current_value
                        for alert in bench.store.read(
                            reads.page,
                            bench.store.now(),
                        )
                    ],
                )
            )
    assert kinds[0] == kinds[1]


def test_what_arrived_and_was_undone_is_not_evaluated(bench: Bench) -> None:
    bench.rule(comparator="<")
    bench.send([(-1, 99)], endpoint="x")
    document = json.dumps(
        {
            "timestamp": bench.now,
            "source": "s",
            "metrics": [{"name": "latency", "value": 1, "unit": "ms", "tags": {"endpoint": "x"}}],
        }
    ).encode()

    def undone(transaction: alerts.Transaction) -> None:
        points.ingest(transaction, document, "single")
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        bench.store.submit(undone).result(10)
    assert bench.kinds() == []
    bench.send([(1, 1)], endpoint="x")
    assert bench.kinds() == ["fired"]


def test_one_alert_a_group(bench: Bench) -> None:
    bench.rule(matchers=[{"tag": "statistic", "op": "=", "value": "p90"}])
    bench.send([(0, 99)], endpoint="x", statistic="p90")
    bench.send([(0, 99)], endpoint="x", statistic="p90", period_s="60")
    bench.send([(0, 99)], endpoint="x", statistic="p50")
    bench.send([(0, 99)], endpoint="y", statistic="p90")
    assert sorted(alert.tags["endpoint"] for alert in bench.open()) == ["x", "y"]


def test_by_aggregates_over_series(bench: Bench) -> None:
    bench.rule(aggregation="sum", by=["region"])
    bench.send([(0, 6)], endpoint="x", region="eu")
    assert bench.kinds() == []
    bench.send([(0, 6)], endpoint="y", region="eu")
    bench.send([(0, 6)], endpoint="z", region="us")
    (alert,) = bench.open()
    assert (alert.tags, alert.current_value) == ({"region": "eu"}, 12)
    detail = bench.store.read(reads.detail, alert.id, bench.store.now())
    assert detail is not None
    assert sorted(ref.tags["endpoint"] for ref in detail.series) == ["x", "y"]


@pytest.mark.parametrize(
    ("comparator", "below", "equal", "above"),
    [
        (">", False, False, True),
        (">=", False, True, True),
        ("<", True, False, False),
        ("<=", True, True, False),
        ("==", False, True, False),
        ("!=", True, False, True),
    ],
)
def test_comparators(bench: Bench, comparator: str, below: bool, equal: bool, above: bool) -> None:
    bench.rule(comparator=comparator)
    for endpoint, value in (("below", 9), ("equal", 10), ("above", 11)):
        bench.send([(0, value)], endpoint=endpoint)
    expected = {"below": below, "equal": equal, "above": above}
    assert {alert.tags["endpoint"] for alert in bench.open()} == {name for name, fires in expected.items() if fires}


def test_a_new_rule_sees_what_is_there_but_not_what_is_over(bench: Bench) -> None:
    bench.send([(-4, 5), (-3, 99), (-2, 5), (-1, 99), (0, 99)])
    bench.send([(-1, 99), (0, 5)], endpoint="over")
    bench.rule(for_s=60)
    assert bench.kinds() == ["fired"]


def test_a_rules_new_severity_changes_its_open_alerts(bench: Bench) -> None:
    bench.rule()
    bench.send([(0, 99)])
    (alert,) = bench.open()
    bench.store.submit(lambda t: alerts.acknowledge(t, alert.id, alerts.Acknowledgement("ann"))).result(10)
    bench.rule(severity="critical")
    (now,) = bench.open()
    assert (now.id, now.severity, now.status, now.acknowledged_by) == (alert.id, "critical", "acknowledged", "ann")
    assert bench.kinds() == ["fired", "acknowledged", "severity_changed"]


def test_a_rule_that_is_narrowed_or_deleted_resolves_what_it_no_longer_covers(bench: Bench) -> None:
    bench.rule()
    for endpoint in ("x", "y"):
        bench.send([(0, 99)], endpoint=endpoint)
    bench.rule(matchers=[{"tag": "endpoint", "op": "=", "value": "x"}])
    assert [alert.tags["endpoint"] for alert in bench.open()] == ["x"]
    bench.rule(matchers=[{"tag": "endpoint", "op": "=", "value": "x"}], threshold=100)
    assert bench.open() == []
    bench.send([(1, 101)], endpoint="x")
    bench.store.submit(lambda t: rulebook.remove(t, "r")).result(10)
    assert bench.open() == []
    bench.send([(2, 101)], endpoint="x")
    assert bench.kinds() == ["fired", "fired", "resolved", "resolved", "fired", "resolved"]


def test_resolved_by_hand_fires_anew_while_the_condition_holds(bench: Bench) -> None:
    bench.rule()
    bench.send([(0, 99)])
    (first,) = bench.open()
    bench.store.submit(lambda t: alerts.resolve(t, first.id, alerts.Acknowledgement("ann", "done"))).result(10)
    bench.send([(1, 99)])
    (second,) = bench.open()
    assert second.id != first.id
    assert second.fingerprint == first.fingerprint


def test_silence_keeps_an_alert_open_for_a_day(bench: Bench) -> None:
    bench.rule()
    bench.send([(0, 99)])
    for hours, still_open in ((23, 1), (25, 0)):
        with time_machine.travel((bench.now + hours * 60 * MINUTE) / 1000):
            bench.store.submit(bench.store.maintain).result(10)
            assert len(bench.open()) == still_open
    (resolved,) = [change for change in bench.store.read(reads.changes, 0) if change.change == "resolved"]
    detail = bench.store.read(reads.detail, resolved.alert.id, bench.store.now())
    assert detail is not None
    assert detail.history[-1].comment == "no data for a day"


def test_after_an_outage_of_the_hub_collectors_get_an_hour(bench: Bench) -> None:
    bench.rule()
    bench.send([(0, 99)])
    with time_machine.travel((bench.now + 25 * 60 * MINUTE) / 1000):
        bench.reopen()
        bench.store.submit(bench.store.maintain).result(10)
    assert len(bench.open()) == 1
    with time_machine.travel((bench.now + 27 * 60 * MINUTE) / 1000):
        bench.store.submit(bench.store.maintain).result(10)
    assert bench.kinds() == ["fired", "resolved"]


def test_the_timer_makes_up_for_an_evaluation_that_failed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.rule()

    def fail(*_: object) -> None:
        raise RuntimeError("broken")

    with monkeypatch.context() as broken:
        broken.setattr(Evaluator, "evaluate", fail)
        assert bench.send([(0, 99)]).accepted == 1
    assert bench.kinds() == []
    bench.store.submit(bench.store.maintain).result(10)
    assert bench.kinds() == ["fired"]


def test_a_series_of_a_failed_work_is_forgotten(bench: Bench) -> None:
    bench.rule()

    def work(transaction: alerts.Transaction) -> None:
        document = b'{"timestamp": 1, "source": "s", "metrics": [{"name": "n", "value": 1, "unit": "", "tags": {}}]}'
        points.ingest(transaction, document, "single")
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        bench.store.submit(work).result(10)
    bench.send([(0, 1)], name="n")
    bench.send([(0, 99)], endpoint="x")
    assert [series.name for series in bench.store.read(metrics.query, start=0, end=1 << 60)] == ["latency", "n"]
    assert bench.kinds() == ["fired"]


def test_a_point_ahead_of_the_clock_hides_nobody_else_and_counts_when_the_clock_is_there(bench: Bench) -> None:
    """A rule over all series of a metric, one of whose senders has a clock that is nine minutes fast."""
    bench.rule(by=[], aggregation="max")
    start = bench.now / 1000
    with time_machine.travel(start, tick=False):
        bench.send([(9, 1)], endpoint="fast")
        bench.send([(-1, 1), (0, 50)], endpoint="right")
        assert bench.kinds() == ["fired"]
        # The timer finds it no earlier.
        bench.store.submit(bench.store.maintain).result(10)
        assert bench.kinds() == ["fired"]
        assert evaluated(bench) <= bench.now
    with time_machine.travel(start + 9 * 60, tick=False):
        bench.store.submit(lambda _: None).result(10)
        assert bench.kinds() == ["fired", "resolved"]
        assert evaluated(bench) == bench.now + 9 * MINUTE


def test_what_came_ahead_is_evaluated_though_nothing_else_comes(bench: Bench) -> None:
    bench.rule()
    ahead = (time.time() * 1000 + 300 - bench.now) / MINUTE
    bench.send([(ahead, 50)], endpoint="x")
    until(bench.kinds)
    assert bench.kinds() == ["fired"]


def test_what_came_ahead_outlives_the_process(bench: Bench) -> None:
    bench.rule()
    start = bench.now / 1000
    with time_machine.travel(start, tick=False):
        bench.send([(5, 50)], endpoint="x")
        bench.reopen()
    with time_machine.travel(start + 5 * 60, tick=False):
        bench.store.submit(bench.store.maintain).result(10)
        assert bench.kinds() == ["fired"]


def test_a_clock_that_was_set_back_blinds_no_rule(bench: Bench) -> None:
    bench.rule()
    start = bench.now / 1000
    with time_machine.travel(start + 3600, tick=False):
        bench.send([(60, 1)], endpoint="x")
    with time_machine.travel(start, tick=False):
        bench.send([(0, 50)], endpoint="x")
        assert bench.kinds() == ["fired"]


def evaluated(bench: Bench) -> int:
    """Data time up to which the rule was evaluated."""
    return bench.store.read(lambda connection: connection.scalar(select(db.rule_states.c.evaluated_at))) or 0
