"""SageMaker's operator from the stand-in into the hub: the hub holds the truth, however often it is delivered."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_airis.errors import PartialError
from airflow_provider_airis.hooks.airis import AirisHook
from airflow_provider_airis.hooks.sagemaker import SageMakerHook
from airflow_provider_airis.operators.sagemaker import SageMakerToAirisOperator
from airflow_provider_airis.records import to_ms
from sandbox.process import Server

END = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
START = END - timedelta(hours=4)
Points = dict[tuple[str, str, str, str], dict[int, float]]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    history = ("--history-from", START.isoformat(), "--history-until", END.isoformat())
    with Server("sandbox.sagemaker", "--endpoints", "6", *history) as server:
        yield server


@pytest.fixture
def control(server: Server, airis: str, connect: Callable[..., str]) -> Iterator[httpx2.Client]:
    connect(
        "aws_default",
        conn_type="aws",
        login="AKIAIOSFODNN7EXAMPLE",
        password="wJalrXUtnFEMI-K7MDENG-bPxRfiCYEXAMPLEKEY",
        extra={"endpoint_url": server.url, "config_kwargs": {"retries": {"total_max_attempts": 1}}},
    )
    with httpx2.Client(base_url=f"{server.url}/_sandbox/", timeout=60) as control:
        yield control
        control.delete("deny")
        control.delete("faults")


def deliver(start: datetime, end: datetime, **arguments: Any) -> dict[str, Any]:
    operator = SageMakerToAirisOperator(
        task_id="deliver", region_name="us-east-1", start=start.isoformat(), end=end.isoformat(), **arguments
    )
    return operator.execute({})


def truth(control: httpx2.Client, start: datetime, end: datetime) -> Points:
    lines = control.get("truth", params={"from": start.isoformat(), "to": end.isoformat()}).text.splitlines()
    return {
        (line["endpoint"], line["variant"], line["metric"].lower(), line["statistic"]): dict(line["points"])
        for line in map(json.loads, lines)
    }


def held(start: datetime, end: datetime) -> Points:
    """What the hub has, by series."""
    found: Points = {}
    with AirisHook() as hub:
        for metric in SageMakerToAirisOperator(task_id="any").row.metrics:
            for series in hub.query(metric.name, start=to_ms(start), end=to_ms(end)):
                tags = series["tags"]
                assert series["unit"] == metric.unit
                key = (tags["endpoint_name"], tags["variant_name"], series["name"], tags["statistic"])
                assert key not in found
                found[key] = dict(series["points"])
                assert len(found[key]) == len(series["points"])
    return found


def test_the_hub_holds_every_point_once_after_retries_overlaps_and_failures(
    control: httpx2.Client, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(SageMakerHook, "partial_waits", (0.01,))
    hour = timedelta(hours=1)
    control.post("partial", json={"metric": "ModelLatency", "times": 1_000})
    with pytest.raises(PartialError, match=r"us-east-1/GetMetricData: .* ModelLatency Average of .* and \d+ more"):
        deliver(START, START + 2 * hour)
    some = sum(map(len, held(START, END).values()))
    control.delete("faults")

    summary = deliver(START, START + 2 * hour)
    expected = truth(control, START, START + 2 * hour)
    count = sum(map(len, expected.values()))
    assert 0 < some < count
    assert (summary["points"], summary["duplicates"], summary["series"]) == (count, some, len(expected))
    assert summary["rejected"] == 0
    assert held(START, END) == expected

    deliver(START + hour, END)
    assert held(START, END) == truth(control, START, END)

    again = deliver(START, END)
    assert again["duplicates"] == again["points"] == sum(map(len, held(START, END).values()))
    assert held(START, END) == truth(control, START, END)


def test_a_missing_permission_fails_at_once_and_is_named(control: httpx2.Client):
    control.post("deny", json={"action": "sagemaker:ListEndpoints"})
    with pytest.raises(AirflowFailException, match="lacks the permission sagemaker:ListEndpoints in us-east-1"):
        deliver(START, END, endpoints=["fraud-*"], metrics=["invocations"])
    assert held(START, END)["fraud-detection", "AllTraffic", "invocations", "Sum"]
