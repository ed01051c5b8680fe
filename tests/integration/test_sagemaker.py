"""SageMaker's operator against the stand-in: every point of its truth, no other, whatever AWS does on the way."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import httpx2
import pytest
import time_machine

from airflow_provider_airis.errors import PermanentError
from airflow_provider_airis.hooks.sagemaker import SageMakerHook
from airflow_provider_airis.operators.sagemaker import SageMakerToAirisOperator
from airflow_provider_airis.records import Event, Metric
from sandbox.process import Server

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
Points = dict[tuple[str, str, str, str, str], list[tuple[int, float]]]


class Aws:
    """The stand-in with its clock at NOW, and 460 days of history."""

    def __init__(self, server: Server) -> None:
        self.url = server.url

    def control(self, method: str, path: str, **fields: Any) -> Any:
        answer = httpx2.request(method, f"{self.url}/_sandbox/{path}", json=fields, timeout=60)
        answer.raise_for_status()
        return answer.json()

    def truth(self, start: datetime, end: datetime, **query: Any) -> Points:
        query |= {"from": start.isoformat(), "to": end.isoformat()}
        lines = httpx2.get(f"{self.url}/_sandbox/truth", params=query, timeout=60).text.splitlines()
        return {
            (line["region"], line["endpoint"], line["variant"], line["metric"].lower(), line["statistic"]): [
                (at, value) for at, value in line["points"]
            ]
            for line in map(json.loads, lines)
        }


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    arguments = ["--endpoints", "8", "--regions", "us-east-1", "eu-west-1", "--now", NOW.isoformat()]
    arguments += ["--history-from", (NOW - 460 * DAY).isoformat(), "--history-until", NOW.isoformat()]
    with Server("sandbox.sagemaker", *arguments) as server:
        yield server


@pytest.fixture
def aws(server: Server, connect: Callable[..., str]) -> Iterator[Aws]:
    connect(
        "aws_default",
        conn_type="aws",
        login="AKIAIOSFODNN7EXAMPLE",
        password="wJalrXUtnFEMI-K7MDENG-bPxRfiCYEXAMPLEKEY",
        extra={"endpoint_url": server.url, "config_kwargs": {"retries": {"total_max_attempts": 2}}},
    )
    aws = Aws(server)
    aws.control("DELETE", "calls")
    yield aws
    aws.control("DELETE", "deny")
    aws.control("DELETE", "faults")


@contextmanager
def collecting(
    start: datetime, end: datetime, **arguments: Any
) -> Iterator[tuple[SageMakerToAirisOperator, Iterator[Metric | Event]]]:
    """The operator at work on a window, at NOW."""
    operator = SageMakerToAirisOperator(
        task_id="read", start=start.isoformat(), end=end.isoformat(), **{"region_name": "us-east-1", **arguments}
    )
    with time_machine.travel(NOW):
        yield operator, operator.collect(operator.window({}))


def collected(start: datetime, end: datetime, **arguments: Any) -> tuple[Points, SageMakerToAirisOperator]:
    with collecting(start, end, **arguments) as (operator, records):
        return by_series(records), operator


def by_series(records: Iterable[Metric | Event]) -> Points:
    """Points by series in the truth's terms; a point that comes twice is there twice."""
    points: Points = defaultdict(list)
    for record in records:
        if isinstance(record, Event):
            continue
        tags = record.tags
        assert record.source == f"aws-sagemaker-{tags['endpoint_name']}"
        key = (tags["region"], tags["endpoint_name"], tags["variant_name"], record.name, tags["statistic"])
        points[key].append((record.timestamp, record.value))
    return dict(points)


def test_a_day_is_the_truth_point_for_point_in_as_few_calls_as_the_limits_allow(aws: Aws):
    points, operator = collected(NOW - DAY, NOW)
    assert not operator.failures
    assert points == aws.truth(NOW - DAY, NOW, region="us-east-1")
    calls = aws.control("GET", "calls")
    variants, series = 12, 12 * 21 + 4
    assert len({key[1:3] for key in points}) == variants
    assert len(points) == series
    count = sum(map(len, points.values()))
    assert calls["GetMetricData"]["calls"] == -(-count // 100_800) == 4
    assert (calls["ListMetrics"]["calls"], calls["ListEndpoints"]["calls"]) == (4, 1)
    assert "DescribeEndpoint" not in calls
    assert operator.summary() == {"metrics_requested": variants * 25, "estimated_usd": 0.003, "aws_calls": 9}


def test_every_record_says_where_it_is_from(aws: Aws):
    with collecting(NOW - HOUR, NOW, endpoints=["churn-*"], metrics=["modellatency"]) as (_, records):
        record = next(records)
    assert isinstance(record, Metric)
    assert (record.source, record.name, record.unit) == (
        "aws-sagemaker-churn-prediction",
        "modellatency",
        "Microseconds",
    )
    assert record.timestamp == (NOW - HOUR).timestamp() * 1000
    assert record.tags == {
        "endpoint_name": "churn-prediction",
        "variant_name": "blue",
        "cloud_provider": "aws",
        "service": "sagemaker",
        "account_id": "123456789012",
        "region": "us-east-1",
        "dimensions": "EndpointName/VariantName",
        "statistic": "Average",
        "period_s": "60",
    }


def test_silence_stays_silent(aws: Aws):
    """One endpoint has minutes without a request: no point is made up for them."""
    points, _ = collected(NOW - HOUR, NOW, endpoints=["image-moderation"], metrics=["invocations", "cpuutilization"])
    asked = {name: len(values) for (*_, name, statistic), values in points.items() if statistic in ("Sum", "Average")}
    assert asked["cpuutilization"] == 60
    assert 0 < asked["invocations"] < 60
    assert all(value > 0 for key, values in points.items() for _, value in values)


@pytest.mark.parametrize(("days", "period"), [(14, 60), (15, 300), (40, 300), (63, 3600), (450, 3600)])
def test_the_period_widens_with_the_age_of_the_window(aws: Aws, days: int, period: int):
    start = NOW - days * DAY
    points, operator = collected(start, start + 6 * HOUR, endpoints=["fraud-detection"])
    assert not operator.failures
    assert points == aws.truth(start, start + 6 * HOUR, region="us-east-1", endpoint="fraud-detection", period=period)
    assert {len(values) for values in points.values()} == {6 * 3600 // period}


def test_windows_share_no_period_and_leave_none_out(aws: Aws):
    """Where the windows are no multiples of the period, a period belongs to the window that it starts in."""
    start = NOW - 20 * DAY
    cuts = [start + timedelta(minutes=m) for m in (0, 7, 11, 12, 30)]
    joined: Points = defaultdict(list)
    for begin, end in pairwise(cuts):
        for key, values in collected(begin, end, endpoints=["fraud-detection"])[0].items():
            joined[key] += values
    assert joined == aws.truth(cuts[0], cuts[-1], region="us-east-1", endpoint="fraud-detection", period=300)


def test_what_retention_has_deleted_fails_and_says_so(aws: Aws):
    with pytest.raises(PermanentError, match="CloudWatch keeps metrics for 455 days"):
        collected(NOW - 456 * DAY, NOW - 455 * DAY)


def test_a_denied_region_fails_alone_and_names_the_permission(aws: Aws):
    aws.control("POST", "deny", region="eu-west-1", action="cloudwatch:GetMetricData")
    points, operator = collected(NOW - HOUR, NOW)
    assert points == aws.truth(NOW - HOUR, NOW, region="us-east-1")
    assert not operator.failures
    points, operator = collected(NOW - HOUR, NOW, region_name="eu-west-1")
    assert not points
    [(part, error)] = operator.failures.items()
    assert part == "eu-west-1/GetMetricData"
    assert isinstance(error, PermanentError)
    who = "connection 'aws_default' (account 123456789012)"
    assert str(error).startswith(f"{who} lacks the permission cloudwatch:GetMetricData in eu-west-1")


@pytest.mark.parametrize("action", ["sagemaker:ListEndpoints", "cloudwatch:ListMetrics"])
def test_either_way_of_discovery_does_when_the_other_is_denied(aws: Aws, action: str):
    aws.control("POST", "deny", action=action)
    points, operator = collected(NOW - HOUR, NOW)
    assert points == aws.truth(NOW - HOUR, NOW, region="us-east-1")
    [(part, error)] = operator.failures.items()
    assert part == f"us-east-1/{action.split(':')[1]}"
    assert f"lacks the permission {action} in us-east-1" in str(error)


def test_a_new_endpoint_is_read_before_listmetrics_shows_it_and_a_deleted_one_as_long_as_it_does(aws: Aws):
    created = NOW - timedelta(minutes=30)
    aws.control("POST", "endpoints", name="brand-new", variants=["a"], created=created.isoformat(), listed=False)
    points, operator = collected(NOW - HOUR, NOW, endpoints=["brand-new"])
    assert not operator.failures
    assert points == aws.truth(NOW - HOUR, NOW, region="us-east-1", endpoint="brand-new")
    assert {len(values) for values in points.values()} == {30}

    aws.control("POST", "endpoints", name="short-lived", created=created.isoformat())
    before = aws.truth(NOW - HOUR, NOW, region="us-east-1", endpoint="short-lived")
    aws.control("DELETE", "endpoints/short-lived")
    points, operator = collected(NOW - HOUR, NOW, endpoints=["short-lived"])
    assert not operator.failures
    assert points == before


def test_an_endpoint_that_is_deleted_while_it_is_read_still_delivers_its_history(aws: Aws):
    aws.control("POST", "endpoints", name="zz-doomed", created=(NOW - 2 * DAY).isoformat())
    truth = aws.truth(NOW - DAY, NOW, region="us-east-1")
    with collecting(NOW - DAY, NOW) as (operator, records):
        first = next(records)
        aws.control("DELETE", "endpoints/zz-doomed")
        points = by_series([first, *records])
    assert not operator.failures
    assert points == truth


@pytest.mark.parametrize("status", ["PartialData", "InternalError"])
def test_unfinished_results_are_asked_for_again_from_where_they_stopped(
    aws: Aws, status: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(SageMakerHook, "partial_waits", (0.01, 0.01))
    aws.control("POST", "partial", metric="ModelLatency", times=10, status=status)
    points, operator = collected(NOW - HOUR, NOW, endpoints=["churn-prediction"])
    assert not operator.failures
    assert points == aws.truth(NOW - HOUR, NOW, region="us-east-1", endpoint="churn-prediction")
    assert operator.summary()["metrics_requested"] == 2 * 25 + 10


def test_throttling_passes_with_patience_and_fails_as_passing_without(aws: Aws):
    aws.control("POST", "faults", operation="GetMetricData", times=1)
    points, operator = collected(NOW - HOUR, NOW, metrics=["invocations"])
    assert points
    assert not operator.failures
    aws.control("POST", "faults", operation="GetMetricData", times=2)
    points, operator = collected(NOW - HOUR, NOW, metrics=["invocations"])
    assert not points
    assert [type(error).__name__ for error in operator.failures.values()] == ["RetryableError"]


def test_statistics_of_ones_own_choice(aws: Aws):
    statistics = {"modellatency": ["p95", "SampleCount"]}
    points, _ = collected(
        NOW - HOUR, NOW, endpoints=["fraud-detection"], metrics=["modellatency", "invocations"], statistics=statistics
    )
    assert sorted((name, statistic) for *_, name, statistic in points) == [
        ("invocations", "Sum"),
        ("modellatency", "SampleCount"),
        ("modellatency", "p95"),
    ]
    [counted], [requests] = (
        [v for k, v in points.items() if k[4] == statistic] for statistic in ("SampleCount", "Sum")
    )
    assert counted == requests


def test_the_connection_is_tested_with_the_three_reads_that_a_sync_needs(aws: Aws):
    assert SageMakerHook(region_name="us-east-1").test_connection() == (
        True,
        "SageMaker and CloudWatch answer in us-east-1",
    )
    for action in ("sagemaker:ListEndpoints", "cloudwatch:ListMetrics", "cloudwatch:GetMetricData"):
        aws.control("DELETE", "deny")
        aws.control("POST", "deny", action=action)
        works, says = SageMakerHook(region_name="us-east-1").test_connection()
        assert not works
        assert f"lacks the permission {action}" in says
