"""Coverage and the finding of gaps against a real hub."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from random import Random
from typing import Any

import pytest
import time_machine

from airflow_provider_airis.catalog import BY_STEM
from airflow_provider_airis.hooks.airis import AirisHook
from airflow_provider_airis.operators.gaps import AirisFindGapsOperator
from airflow_provider_airis.records import Metric

DAY = 86_400_000
STEP = 300_000
TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
MIDNIGHT = int(TODAY.timestamp() * 1000)


def test_coverage_is_what_the_points_say(airis: str) -> None:
    dice = Random(3)
    stamps = {
        f"cover-{n}": sorted(dice.sample(range(MIDNIGHT - DAY, MIDNIGHT), 10**n if n else 0)) for n in range(4)
    } | {"cover-minutes": [at for at in range(MIDNIGHT - DAY, MIDNIGHT, 60_000) if dice.random() < 0.98]}
    start, end = MIDNIGHT - DAY + 1_234_567, MIDNIGHT - 7_654_321
    with AirisHook() as hub:
        hub.ingest(Metric(source, "m", 1.0, "None", {}, at) for source, times in stamps.items() for at in times)
        for step in (60, 300, 3600):
            covered = {row["source"]: row for row in hub.coverage(start=start, end=end, name="m", step=step)}
            for source, times in stamps.items():
                inside = [at for at in times if start <= at < end]
                expected: list[list[int]] = []
                for at in inside:
                    bucket = at - at % (step * 1000)
                    if expected and bucket <= expected[-1][1]:
                        expected[-1][1] = bucket + step * 1000
                    else:
                        expected.append([bucket, bucket + step * 1000])
                assert (source in covered) is bool(inside)
                if inside:
                    assert covered[source]["points"] == len(inside)
                    assert covered[source]["windows"] == expected


class Runs:
    """What a task can ask of Airflow: the runs there are."""

    def __init__(self, **states: str) -> None:
        self.states = states

    def get_dr_count(self, dag_id: str, *, run_ids: list[str], states: list[str]) -> int:
        assert dag_id.startswith("airis_reconcile_")
        return sum(self.states.get(run_id) in states for run_id in run_ids)


def load(stem: str, *outages: tuple[int, int], source: str = "one") -> Iterator[Metric]:
    """Two weeks, today's first hours included, of a load that is always measured, and of requests by day."""
    first, second = BY_STEM[stem].metrics[-1], BY_STEM[stem].metrics[0]
    for at in range(MIDNIGHT - 14 * DAY, MIDNIGHT + 2 * 3_600_000, STEP):
        if not any(opens <= at < closes for opens, closes in outages):
            yield Metric(f"{stem}-{source}", first.name, 1.0, first.unit, {"region": "eu"}, at)
            if at % DAY > DAY // 2:
                yield Metric(f"{stem}-{source}", second.name, 1.0, second.unit, {"region": "eu"}, at)


def find(**states: str) -> list[dict[str, Any]]:
    with time_machine.travel(TODAY.replace(hour=3), tick=True):
        return AirisFindGapsOperator(task_id="find").execute({"ti": Runs(**states)})


@pytest.mark.parametrize("stem", [stem for stem in ("sagemaker", "vertex_ai") if stem in BY_STEM])
def test_the_days_of_an_outage_are_named_once(airis: str, stem: str) -> None:
    noon = MIDNIGHT - 5 * DAY + DAY // 2
    with AirisHook() as hub:
        hub.ingest(load(stem, (noon, noon + DAY), (MIDNIGHT - DAY, MIDNIGHT - DAY + 600_000)))
    dag_id = f"airis_reconcile_{stem}"
    runs = [run for run in find() if run["trigger_dag_id"] == dag_id]
    days = [datetime.fromtimestamp((MIDNIGHT - n * DAY) / 1000, UTC).date() for n in (5, 4, 3)]
    assert [run["trigger_run_id"] for run in runs] == [f"gapfill__{day}" for day in days[:2]]
    assert [run["conf"] for run in runs] == [
        {"start": f"{day}T00:00:00Z", "end": f"{end}T00:00:00Z"} for day, end in pairwise(days)
    ]
    assert all(f"{stem}-one" in run["note"] for run in runs)

    again = find(**{f"gapfill__{days[0]}": "success", f"gapfill__{days[1]}": "failed"})
    assert [run["trigger_run_id"] for run in again if run["trigger_dag_id"] == dag_id] == [f"gapfill__{days[1]}"]
    states = {f"gapfill__{days[0]}": "queued", f"gapfill__{days[1]}": "running"}
    assert [run for run in find(**states) if run["trigger_dag_id"] == dag_id] == []


def test_a_source_without_an_outage_is_left_alone(airis: str) -> None:
    with AirisHook() as hub:
        hub.ingest(load("sagemaker", source="well"))
        hub.ingest(load("sagemaker", (MIDNIGHT - DAY, MIDNIGHT + DAY), source="deleted"))
    assert not any("well" in run["note"] or "deleted" in run["note"] for run in find())
