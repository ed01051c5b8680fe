"""What the writer knows by heart: as it is in the database, and lost by nobody else's failure."""

from __future__ import annotations

import json
import threading

import pytest
from sqlalchemy import func, select

from airflow_provider_airis.hub.alerting import rulebook
from airflow_provider_airis.hub.alerting.rules import Rule
from airflow_provider_airis.hub.store import metrics, points
from airflow_provider_airis.hub.store import tables as db
from airflow_provider_airis.hub.store.writer import Transaction
from tests.unit.hub.conftest import MINUTE, Bench
from tests.unit.hub.served import statements


def document(bench: Bench, names: list[str], *, minute: int = 0, sources: int = 1) -> bytes:
    lines = [
        {
            "timestamp": bench.now + minute * MINUTE,
            "source": f"s{number % sources}",
            "metrics": [{"name": "latency", "value": 50, "unit": "ms", "tags": {"endpoint": name}}],
        }
        for number, name in enumerate(names)
    ]
    return "\n".join(map(json.dumps, lines)).encode()


def of_series(asked: list[str]) -> list[str]:
    """Those that read or make series; each evaluation asks besides which is the newest."""
    about = [statement for statement in asked if "FROM series" in statement or "INTO series" in statement]
    return [statement for statement in about if "max(series.id)" not in statement]


@pytest.mark.parametrize("sources", [1, 20])
def test_known_series_are_asked_for_once_a_source_after_a_restart(bench: Bench, sources: int) -> None:
    names = [f"e{number}" for number in range(2000)]
    bench.rule()
    bench.store.submit(lambda t: points.ingest(t, document(bench, names, sources=sources), "lines")).result(60)
    bench.reopen()
    again = document(bench, names, minute=1, sources=sources)
    with statements(bench.store) as asked:
        assert bench.store.submit(lambda t: points.ingest(t, again, "lines")).result(60).accepted == 2000
    # And once for the rules' sake: those that they watch.
    assert len(of_series(asked)) == sources + 1


def fail(transaction: Transaction, bench: Bench, names: list[str]) -> None:
    points.ingest(transaction, document(bench, names), "lines")
    raise RuntimeError("as it happens")


def together(bench: Bench, *works: object) -> list[BaseException | None]:
    """Do works in one transaction: how each failed."""
    go = threading.Event()
    blocker = bench.store.submit(lambda _: go.wait(30))
    futures = [bench.store.submit(work) for work in works]  # type: ignore[arg-type, var-annotated]
    go.set()
    assert blocker.result(30)
    return [future.exception(30) for future in futures]


def test_a_work_that_fails_takes_nothing_from_the_caches_of_others(bench: Bench) -> None:
    bench.rule()
    names = [f"e{number}" for number in range(50)]
    bench.store.submit(lambda t: points.ingest(t, document(bench, names), "lines")).result(30)
    known = document(bench, names, minute=1)
    (good, bad) = together(
        bench,
        lambda t: points.ingest(t, document(bench, ["made beside it"]), "lines"),
        lambda t: fail(t, bench, ["made in vain"]),
    )
    assert good is None
    assert isinstance(bad, RuntimeError)
    with statements(bench.store) as asked:
        bench.store.submit(lambda t: points.ingest(t, known, "lines")).result(30)
        bench.store.submit(lambda t: points.ingest(t, document(bench, ["made beside it"]), "lines")).result(30)
    assert of_series(asked) == []


def test_a_series_made_in_vain_leaves_no_trace_and_its_id_is_another_s(bench: Bench) -> None:
    bench.rule()
    bench.send([(0, 1)], endpoint="first")
    assert isinstance(together(bench, lambda t: fail(t, bench, ["in vain"]))[0], RuntimeError)
    bench.send([(0, 50)], endpoint="second")
    bench.send([(0, 50)], endpoint="in vain")
    found = bench.store.read(metrics.query, start=0, end=bench.now + MINUTE)
    assert sorted(series.tags["endpoint"] for series in found) == ["first", "in vain", "second"]
    assert sorted(alert.tags["endpoint"] for alert in bench.open()) == ["in vain", "second"]
    assert bench.store.read(lambda c: c.scalar(select(func.count()).select_from(db.series))) == 3


def test_a_commit_that_fails_leaves_no_series_behind(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.rule()
    bench.send([(0, 1)], endpoint="first")
    writer = bench.store._writer
    attempt = writer._attempt

    def stop(transaction: Transaction, work: object) -> object:
        outcome = attempt(transaction, work)  # type: ignore[arg-type]
        if work == writer._evaluator.evaluate:
            raise RuntimeError("no commit")
        return outcome

    with monkeypatch.context() as patch:
        patch.setattr(writer, "_attempt", stop)
        with pytest.raises(RuntimeError, match="no commit"):
            bench.send([(0, 50)], endpoint="in vain")
    bench.send([(0, 50)], endpoint="second")
    bench.send([(0, 50)], endpoint="in vain")
    assert sorted(alert.tags["endpoint"] for alert in bench.open()) == ["in vain", "second"]
    with statements(bench.store) as asked:
        bench.send([(1, 1)], endpoint="first")
    assert of_series(asked) == []


def test_a_rule_set_in_vain_is_not_in_force(bench: Bench) -> None:
    rule = bench.rule(threshold=100)
    changed = Rule(**{field: getattr(rule, field) for field in rule.__struct_fields__} | {"threshold": 10})

    def put(transaction: Transaction) -> None:
        rulebook.put(transaction, changed, replace=True)
        raise RuntimeError("as it happens")

    assert isinstance(together(bench, put)[0], RuntimeError)
    bench.send([(0, 50)], endpoint="x")
    assert bench.open() == []
    bench.send([(1, 500)], endpoint="x")
    assert len(bench.open()) == 1


def test_another_unit_in_vain_is_not_the_series(bench: Bench) -> None:
    bench.send([(0, 1)], endpoint="x")
    other = document(bench, ["x"]).replace(b'"ms"', b'"s"').replace(b'"s0"', b'"s"')

    def change(transaction: Transaction) -> None:
        points.ingest(transaction, other, "lines")
        raise RuntimeError("as it happens")

    assert isinstance(together(bench, change)[0], RuntimeError)
    bench.store.submit(lambda t: points.ingest(t, other, "lines")).result(10)
    (series,) = bench.store.read(metrics.query, start=0, end=bench.now + MINUTE)
    assert series.unit == "s"
