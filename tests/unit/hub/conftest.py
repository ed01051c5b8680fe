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

from airflow_provider_airis.hub.rules import Rule
from airflow_provider_airis.hub.store import Store
from airflow_provider_airis.records import Alert, IngestAnswer

MINUTE = 60_000


class Bench:
    """A store, and points of the metric ``latency`` stamped relative to now, in minutes."""

    def __init__(self, path: Path) -> None:
        self.url = f"sqlite:///{path}/hub.db"
        self.store = Store(self.url)
        self.now = int(time.time() * 1000) // MINUTE * MINUTE

    def close(self) -> None:
        self.store.close()

    def reopen(self) -> None:
        self.store.close()
        self.store = Store(self.url)

    def send(self, points: Iterable[tuple[float, float]], *, name: str = "latency", **tags: str) -> IngestAnswer:
        """Points ``(minutes from now, value)`` in one document."""
        lines = [
            json.dumps(
                {
                    "timestamp": self.now + round(minute * MINUTE),
                    "source": "s",
                    "metrics": [{"name": name, "value": value, "unit": "ms", "tags": tags}],
                }
            )
            for minute, value in points
        ]
        document = "\n".join(lines).encode()
        return self.store.submit(lambda t: self.store.ingest_metrics(t, document, "lines")).result(10)

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
        self.store.submit(lambda t: self.store.put_rule(t, rule, replace=True)).result(10)
        return rule

    def kinds(self) -> list[str]:
        """The transitions so far."""
        return [change.change for change in self.store.changes(0, 5000)]

    def open(self) -> list[Alert]:
        return self.store.alerts(status=["firing", "acknowledged"])


@contextmanager
def temporary() -> Iterator[Bench]:
    """A bench for one example of a property."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        try:
            yield bench
        finally:
            bench.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()
