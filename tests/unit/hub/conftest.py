from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from airflow_provider_airis.hub.alerting import reads, rulebook
from airflow_provider_airis.hub.alerting.rules import Rule
from airflow_provider_airis.hub.store import points
from airflow_provider_airis.hub.store.store import Store
from airflow_provider_airis.records import Alert, IngestAnswer
from tests.databases import Databases

MINUTE = 60_000


class Bench:
    """A store, and points of the metric ``latency`` stamped relative to now, in minutes."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.store = Store(self.url)
        # Minutes after it have passed, too: none is ahead of the clock.
        self.now = int(time.time() * 1000) // MINUTE * MINUTE - 3 * MINUTE

    def close(self) -> None:
        self.store.close()

    def reopen(self) -> None:
        self.store.close()
        self.store = Store(self.url)

    def send(self, values: Iterable[tuple[float, float]], *, name: str = "latency", **tags: str) -> IngestAnswer:
        """Points ``(minutes from now, value)`` in one document."""
        lines = [
            json.dumps(
                {
                    "timestamp": self.now + round(minute * MINUTE),
                    "source": "s",
                    "metrics": [{"name": name, "value": value, "unit": "ms", "tags": tags}],
                }
            )
            for minute, value in values
        ]
        document = "\n".join(lines).encode()
        return self.store.submit(lambda t: points.ingest(t, document, "lines")).result(10)

    def rule(self, **fields: Any) -> Rule:
        known = {
            "id": "r",
            "name": "slow",
            "metric": "latency",
            "aggregation": "last",
            "window_s": 60,
            "comparator": ">",
            "threshold": 10,
            "severity": "high",
        }
        rule = msgspec.convert(known | fields, Rule)
        self.store.submit(lambda t: rulebook.put(t, rule, replace=True)).result(10)
        return rule

    def kinds(self) -> list[str]:
        """The transitions so far."""
        return [change.change for change in self.store.read(reads.changes, 0, 5000)]

    def open(self) -> list[Alert]:
        return self.store.read(reads.page, self.store.now(), status=["firing", "acknowledged"])


@contextmanager
def temporary(databases: Databases) -> Iterator[Bench]:
    """A bench for one example of a property."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(databases.fresh(Path(folder)))
        try:
            yield bench
        finally:
            bench.close()
            databases.drop(bench.url)


@pytest.fixture
def bench(databases: Databases) -> Iterator[Bench]:
    with temporary(databases) as bench:
        yield bench
