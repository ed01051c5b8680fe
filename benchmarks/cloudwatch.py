"""What reading CloudWatch costs in calls, billed metrics, time and memory. The stand-in counts, and keeps AWS's limits.

``python -m benchmarks.cloudwatch`` prints the table.
"""

from __future__ import annotations

import json
import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch

os.environ.setdefault("AIRFLOW__LOGGING__LOGGING_LEVEL", "WARNING")

import httpx2

from airflow_provider_airis.catalog import BY_STEM
from airflow_provider_airis.catalog.sagemaker import VARIANT
from airflow_provider_airis.hooks.cloudwatch import MAX_POINTS, MAX_QUERIES
from airflow_provider_airis.operators.sagemaker import SageMakerToAirisOperator
from airflow_provider_airis.records import Window
from sandbox.process import Server

NOW = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
METRICS = [metric for metric in BY_STEM["sagemaker"].metrics if VARIANT in metric.dimensions]
STATISTICS = ("Average", "Maximum", "Sum")
# As far back as one-minute points are kept: 15 days, less the hour that the operator leaves for reading them.
BACKFILL = timedelta(days=14, hours=22)
# By their requests and by their load.
LISTINGS = 2
# 20 series a variant, all of which have a point every minute.
DENSE = [metric.name for metric in METRICS if not metric.name.startswith(("gpu", "invocationmodel"))]


@contextmanager
def stand_in(endpoints: int, idle: int = 0) -> Iterator[tuple[Server, httpx2.Client]]:
    """The stand-in with endpoints of one variant, without a GPU: nobody asks the ``idle`` first of them anything."""
    span = ("--history-from", (NOW - timedelta(days=16)).isoformat(), "--history-until", NOW.isoformat())
    with (
        Server("sandbox.sagemaker", "--endpoints", "0", *span) as server,
        httpx2.Client(base_url=f"{server.url}/_sandbox/", timeout=60) as control,
    ):
        created = (NOW - timedelta(days=30)).isoformat()
        for number in range(endpoints):
            endpoint = {"name": f"endpoint-{number:03}", "created": created}
            if number < idle:
                endpoint["idle_until"] = (NOW + timedelta(days=1)).isoformat()
            control.post("endpoints", json=endpoint).raise_for_status()
        os.environ["AIRFLOW_CONN_AWS_DEFAULT"] = json.dumps(
            {
                "conn_type": "aws",
                "login": "AKIAIOSFODNN7EXAMPLE",
                "password": "not-so-secret",
                "extra": {"endpoint_url": server.url},
            }
        )
        yield server, control


def read(start: datetime, end: datetime, **arguments: Any) -> tuple[int, float, SageMakerToAirisOperator]:
    """Points, seconds of this process's CPU, and the operator that read them."""
    operator = SageMakerToAirisOperator(task_id="read", region_name="us-east-1", **arguments)
    began = time.process_time()
    points = sum(1 for _ in operator.collect(Window.between(start, end)))
    seconds = time.process_time() - began
    if operator.failures:
        raise RuntimeError(str(operator.failures))
    return points, seconds, operator


def counted(control: httpx2.Client) -> tuple[int, int]:
    """Calls of CloudWatch and points served since the last time."""
    calls = control.get("calls").json()
    control.delete("calls")
    cloudwatch = [calls[name] for name in ("GetMetricData", "GetMetricStatistics", "ListMetrics") if name in calls]
    return sum(row["calls"] for row in cloudwatch), sum(row.get("points", 0) for row in cloudwatch)


def window_of_15_minutes() -> dict[str, Any]:
    """100 endpoints, 12 metrics, 3 statistics, 15 minutes; and the same, one GetMetricStatistics for each."""
    import boto3

    start = NOW - timedelta(minutes=15)
    with stand_in(100) as (server, control):
        statistics = {metric.name: STATISTICS for metric in METRICS}
        *_, operator = read(start, NOW, statistics=statistics)
        calls, points = counted(control)
        key = {"aws_access_key_id": "AKIAIOSFODNN7EXAMPLE", "aws_secret_access_key": "not-so-secret"}
        cloudwatch = boto3.client("cloudwatch", endpoint_url=server.url, region_name="us-east-1", **key)
        for number in range(100):
            values = {"EndpointName": f"endpoint-{number:03}", "VariantName": "AllTraffic"}
            for metric in METRICS:
                namespace, name = metric.origin.split(":")
                for statistic in STATISTICS:
                    cloudwatch.get_metric_statistics(
                        Namespace=namespace,
                        MetricName=name,
                        Dimensions=[{"Name": key, "Value": value} for key, value in values.items()],
                        StartTime=start,
                        EndTime=NOW,
                        Period=60,
                        Statistics=[statistic],
                    )
        naive, naive_points = counted(control)
    if points != naive_points:
        raise RuntimeError(f"{points} points in {calls} calls, but {naive_points} in {naive}")
    return {
        "points": points,
        "cloudwatch_calls": calls,
        "cloudwatch_calls_one_per_metric": naive,
        "metrics_requested": operator.summary()["metrics_requested"],
    }


def backfill() -> dict[str, Any]:
    """1,200 series at one minute: 15 days as one window, and a day, as each run of the reconciling Dag reads it.

    The floor: ListMetrics once for each kind of series by which something is found, and each page of GetMetricData with
    its 100,800 points.
    """
    with stand_in(60) as (_, control):
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        points, seconds, _ = read(NOW - BACKFILL, NOW, metrics=DENSE)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - resident
        calls, served = counted(control)
        read(NOW - timedelta(days=1), NOW, metrics=DENSE)
        day_calls, day_points = counted(control)
    if points != served:
        raise RuntimeError(f"{served} points were served, {points} came out")
    series = 60 * sum(len(metric.statistics) for metric in METRICS if metric.name in DENSE)
    floor = max(-(-points // MAX_POINTS), -(-series // MAX_QUERIES)) + LISTINGS
    day_floor = -(-day_points // MAX_POINTS) + LISTINGS
    return {
        "series": series,
        "points": points,
        "cloudwatch_calls": calls,
        "cloudwatch_calls_floor": floor,
        "over_floor": calls / floor - 1,
        "day_calls": day_calls,
        "day_calls_floor": day_floor,
        "points_per_cpu_second": points / seconds,
        "memory_growth_mib": grown / 1024,
    }


def parsing() -> dict[str, Any]:
    """Six hours of the same series: answers parsed by the hook, and by botocore."""
    with stand_in(60):
        start = NOW - timedelta(hours=6)
        points, seconds, _ = read(start, NOW, metrics=DENSE)
        with patch("airflow_provider_airis.hooks.cloudwatch._parse_metric_data", lambda **_: None):
            again, slow, _ = read(start, NOW, metrics=DENSE)
    if points != again:
        raise RuntimeError(f"{points} points parsed here, {again} by botocore")
    return {
        "points_per_cpu_second": points / seconds,
        "points_per_cpu_second_botocore": again / slow,
        "ratio": slow / seconds,
    }


def silence() -> dict[str, Any]:
    """An hour of the live Dag, 100 endpoints of which 30 idle: billed metrics, and what is paid in a month for them.

    ``idle_poll_interval_s`` of 0, 900 (the default) and 3600; all with ``lookback_s`` of 900.
    """
    windows = [(NOW - timedelta(minutes=5 * n + 5), NOW - timedelta(minutes=5 * n)) for n in range(12)]
    figures: dict[str, Any] = {}
    # To the operator it is the end of the hour, however late that hour is read.
    now = patch("airflow_provider_airis.operators.sagemaker.timezone.utcnow", return_value=NOW)
    with now, stand_in(100, idle=30) as (_, control):
        for every in (0, 900, 3600):
            requested = 0
            for start, end in windows:
                begin = start - timedelta(seconds=900 + every)
                *_, operator = read(begin, end, lookback_s=900, idle_poll_interval_s=every)
                requested += operator.summary()["metrics_requested"]
            figures[f"metrics_requested_{every}"] = requested
            figures[f"cloudwatch_calls_{every}"] = counted(control)[0]
            figures[f"usd_a_month_{every}"] = requested * 24 * 30 / 100_000
    return figures


def run() -> dict[str, Any]:
    """All four."""
    results = {
        "window": window_of_15_minutes(),
        "backfill": backfill(),
        "parsing": parsing(),
        "silence": silence(),
    }
    for name, row in results.items():
        print(name)
        for figure, value in row.items():
            print(f"  {figure:<34}{value:>14,.3f}" if isinstance(value, float) else f"  {figure:<34}{value:>14,}")
    return results


if __name__ == "__main__":
    run()
