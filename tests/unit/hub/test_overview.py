"""The overview of a large store: what it asks, how much it sends, and where the rest is."""

from __future__ import annotations

import html
import json
import re
import threading

import pytest

from airflow_provider_airis.hub import activity
from airflow_provider_airis.hub.activity import Activity
from airflow_provider_airis.hub.alerting import alerts
from airflow_provider_airis.hub.alerting.alerts import ManualAlert
from airflow_provider_airis.hub.store import metrics, points
from tests.unit.hub.conftest import MINUTE, Bench
from tests.unit.hub.served import served, statements, until

SOURCES = 1000
SOURCE = r'<th scope="row"><a href="[^"]*">(aws-account-\d+)</a></th>'


def fill(bench: Bench, sources: int, minutes: int = 3) -> None:
    lines = [
        {
            "timestamp": bench.now - minute * MINUTE,
            "source": f"aws-account-{number:04}",
            "metrics": [{"name": "latency", "value": 1, "unit": "ms", "tags": {}}],
        }
        for number in range(sources)
        for minute in range(1, minutes + 1)
    ]
    document = "\n".join(map(json.dumps, lines)).encode()
    answer = bench.store.submit(lambda t: points.ingest(t, document, "lines")).result(60)
    assert answer.accepted == sources * minutes


def test_a_page_of_a_thousand_sources_is_small_and_all_are_found(bench: Bench) -> None:
    fill(bench, SOURCES)
    for number in range(120):
        body = ManualAlert(name=f"drift of model {number}", severity="high", source="aws", tags={"model": str(number)})
        bench.store.submit(lambda t, body=body: alerts.post(t, body)).result(10)
    with served(bench.store) as client:
        with statements(bench.store) as asked:
            first = client.get("/dashboard")
        assert len(first.content) <= 100_000
        # However many rows it has: none is asked for by itself.
        assert len([statement for statement in asked if statement.startswith("SELECT")]) <= 20
        assert re.search(r"<dt>Sources</dt><dd>1,000", first.text)
        found: list[str] = []
        page = first.text
        while True:
            found += re.findall(SOURCE, page)
            following = re.search(r'rel="next" href="(dashboard\?page=\d+)"', page)
            if not following:
                break
            page = client.get(f"/{following[1]}").text
        assert found == [f"aws-account-{number:04}" for number in range(SOURCES)]
        assert "951 to 1,000 of 1,000" in page
        # A page that is gone since, as when sources are forgotten, is the last one.
        assert "aws-account-0999" in client.get("/dashboard", params={"page": 999}).text
        assert client.get("/dashboard", params={"page": 0}).status_code == 400
        some = client.get("/dashboard", params={"source": "account-00"}).text
        (following,) = re.findall(r'rel="next" href="(dashboard\?page=2&amp;source=account-00)"', some)
        rest = client.get(f"/{html.unescape(following)}").text
        found = re.findall(SOURCE, some) + re.findall(SOURCE, rest)
        assert found == [f"aws-account-{number:04}" for number in range(100)]


def test_a_large_store_is_counted_once_for_all_who_look(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activity, "FEW", 10)
    monkeypatch.setattr(activity, "_SHARE", 1e9)
    fill(bench, 20)
    seen = Activity(bench.store)
    with statements(bench.store) as asked:
        threads = [threading.Thread(target=seen.look) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [len(source.counts) for source in seen.look().sources] == [30] * 20
    assert len([statement for statement in asked if "JOIN points" in statement]) == 1


def test_a_snapshot_that_is_old_is_made_anew_beside_those_who_look(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activity, "FEW", 10)
    monkeypatch.setattr(activity, "_SHARE", 0)
    fill(bench, 20)
    seen = Activity(bench.store)
    assert len(seen.look().sources) == 20
    fill(bench, 21)
    counting, go, counted = threading.Event(), threading.Event(), metrics.activity

    def slowly(*args: object, **kwargs: object) -> object:
        counting.set()
        assert go.wait(30)
        return counted(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(metrics, "activity", slowly)
    assert len(seen.look().sources) == 20
    assert counting.wait(30)
    assert len(seen.look().sources) == 20
    go.set()
    until(lambda: len(seen.look().sources) == 21)


def test_a_small_store_is_counted_at_each_look(bench: Bench) -> None:
    seen = Activity(bench.store)
    assert seen.look().sources == []
    fill(bench, 2)
    assert [sum(source.counts) for source in seen.look().sources] == [3, 3]
