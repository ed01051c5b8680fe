"""What is deleted once it is old, and what is not."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import time_machine
from sqlalchemy import func, select, text

from airflow_provider_airis.hub.__main__ import main
from airflow_provider_airis.hub.alerting import alerts, reads
from airflow_provider_airis.hub.alerting.alerts import Acknowledgement, Delivery, ManualAlert
from airflow_provider_airis.hub.store import events, metrics, points
from airflow_provider_airis.hub.store import tables as db
from airflow_provider_airis.hub.store.retention import Retention
from airflow_provider_airis.hub.store.store import Store
from tests.databases import Databases

DAY = 86_400_000
NOW = 1_800_000_000_000


@contextmanager
def keeping(databases: Databases, folder: Path, **ages: object) -> Iterator[Store]:
    url = databases.fresh(folder)
    with time_machine.travel(NOW / 1000, tick=False):
        store = Store(url, retention=Retention(**ages))  # type: ignore[arg-type]
        try:
            yield store
        finally:
            store.close()
            databases.drop(url)


def send(store: Store, source: str, *days: float) -> None:
    metric = {"name": "n", "value": 1, "unit": "", "tags": {}}
    lines = [json.dumps({"timestamp": NOW - round(day * DAY), "source": source, "metrics": [metric]}) for day in days]
    store.submit(lambda t: points.ingest(t, "\n".join(lines).encode(), "lines")).result(30)


def held(store: Store) -> dict[str, list[float]]:
    found = store.read(metrics.query, start=0, end=1 << 60)
    return {series.source: [(NOW - at) / DAY for at, _ in series.points] for series in found}


def test_nothing_is_deleted_unless_an_option_says_so(databases: Databases, tmp_path: Path) -> None:
    with keeping(databases, tmp_path) as store:
        send(store, "s", 20_000, 5_000, 1)
        store.prune()
        assert held(store) == {"s": [20_000, 5_000, 1]}


def test_points_by_source_the_first_pattern_that_fits(databases: Databases, tmp_path: Path) -> None:
    sources = (("aws-b", 40 * DAY), ("aws-*", 10 * DAY))
    with keeping(databases, tmp_path, sources=sources) as store:
        for source in ("aws-a", "aws-b", "gcp"):
            send(store, source, 20_000, 50, 30, 9)
        store.prune()
        assert held(store) == {"aws-a": [9], "aws-b": [30, 9], "gcp": [20_000, 50, 30, 9]}


def test_points_whose_time_is_over_go_and_partitions_as_a_whole(databases: Databases, tmp_path: Path) -> None:
    with keeping(databases, tmp_path, points=30 * DAY, sources=(("short", 10 * DAY), ("long", 60 * DAY))) as store:
        for source in ("short", "long", "s"):
            send(store, source, 20_000, 90, 70, 45, 20, 1)
        store.prune()
        left = held(store)
        assert (left["short"], left["s"]) == ([1], [20, 1])
        # A week of which some is kept by any source stays as a whole for that.
        assert left["long"] in ([45, 20, 1], [70, 45, 20, 1])
        if databases.kind == "postgresql":
            names = text("SELECT count(*) FROM pg_inherits WHERE inhparent = 'points'::regclass")
            assert store.read(lambda c: c.scalar(names)) == 1 + 3


def test_more_than_a_page_goes_while_others_write(
    databases: Databases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_airis.hub.store.retention._ROWS", 50)
    with keeping(databases, tmp_path, sources=(("s", DAY),)) as store:
        send(store, "s", *(2 + place / 1000 for place in range(500)))
        send(store, "s", 0.5)
        commits: list[int] = []
        pruning = threading.Thread(target=store.prune)
        pruning.start()
        while pruning.is_alive():
            send(store, "t", len(commits) / 10_000)
            commits.append(1)
        assert held(store)["s"] == [0.5]
        assert len(held(store)["t"]) == len(commits)
        # A page a transaction: what was sent meanwhile came between them.
        assert len(commits) > 2


def test_events_and_what_is_audited_apart(databases: Databases, tmp_path: Path) -> None:
    def send_events(store: Store) -> None:
        lines = [
            json.dumps(
                {
                    "timestamp": NOW - day * DAY,
                    "event_type": "t",
                    "source": "s",
                    "severity": "info",
                    "data": data,
                    "idempotency_key": f"{data.get('category')}-{day}",
                }
            )
            for day in (1, 20, 400)
            for data in ({}, {"category": "other"}, {"category": "security"})
        ]
        store.submit(lambda t: events.ingest(t, "\n".join(lines).encode(), "lines", None)).result(30)

    with keeping(databases, tmp_path, events=10 * DAY, audit=365 * DAY) as store:
        send_events(store)
        store.prune()
        found = sorted(change.event.key for change in store.read(events.changes, 0))
        assert found == ["None-1", "other-1", "security-1", "security-20"]
        # The feed goes on where it was.
        send_events(store)
        assert min(change.sequence for change in store.read(events.changes, 9)) > 9


def test_alerts_since_they_were_resolved_with_all_that_is_theirs(databases: Databases, tmp_path: Path) -> None:
    with keeping(databases, tmp_path, alerts=30 * DAY) as store:

        def post(name: str) -> str:
            return store.submit(lambda t: alerts.post(t, ManualAlert(name=name, severity="low"))).result(30)[1].id

        with time_machine.travel((NOW - 90 * DAY) / 1000, tick=False):
            old, late, open_ = (post(name) for name in ("old", "late", "open"))
            for alert_id in (old, late, open_):
                work = Delivery(reference="r", status="firing")
                store.submit(lambda t, i=alert_id, w=work: alerts.deliver(t, i, "c", "t", w)).result(30)
            store.submit(lambda t: alerts.resolve(t, old, Acknowledgement())).result(30)
        with time_machine.travel((NOW - 5 * DAY) / 1000, tick=False):
            store.submit(lambda t: alerts.resolve(t, late, Acknowledgement())).result(30)
        store.prune()
        assert {alert.name for alert in store.read(reads.page, NOW)} == {"late", "open"}
        assert store.read(reads.history, old) == []
        assert store.read(lambda c: c.scalar(select(func.count()).select_from(db.notifications))) == 2
        assert [change.alert.name for change in store.read(reads.changes, 0)] == ["late", "open", "late"]


def test_what_is_kept_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert str(Retention(points=90 * DAY, sources=(("aws-*", 36 * 3_600_000),))) == (
        "Kept: points 90 d, points of aws-* 36 h, events for good, events of category security for good, "
        "resolved alerts for good, idempotency answers 7 d, notification log and silences 30 d"
    )
    with pytest.raises(SystemExit):
        main(["--retention-points", "aws-*=a while"])
    assert "'a while' is no duration" in capsys.readouterr().err
