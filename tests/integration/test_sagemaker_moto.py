"""SageMaker's operator against moto, so that the stand-in's habits do not become ours.

moto has no percentiles and repeats rows in ListMetrics; it keeps what is put into it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from moto.server import ThreadedMotoServer

from airflow_provider_airis.hooks.sagemaker import SageMakerHook
from airflow_provider_airis.operators.sagemaker import SageMakerToAirisOperator
from airflow_provider_airis.records import Metric

END = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=5)
START = END - timedelta(minutes=10)
STATISTICS = {name: ["Average", "Maximum"] for name in ("modellatency", "overheadlatency")}
PUT = {
    # Metric, dimensions beside the endpoint's and variant's: what is put in each minute.
    ("Invocations", "blue"): [3.0, 0.0, 5.0],
    ("Invocations", "green"): [1.0],
    ("ModelLatency", "blue"): [1200.0, 800.0, 4000.0],
}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def aws(url: str, connect: Callable[..., str]) -> None:
    connect(
        "aws_default",
        conn_type="aws",
        login="AKIAIOSFODNN7EXAMPLE",
        password="wJalrXUtnFEMI-K7MDENG-bPxRfiCYEXAMPLEKEY",
        extra={"endpoint_url": url},
    )


@pytest.fixture(scope="module")
def filled(url: str) -> None:
    """Two endpoints, one of them silent; the other's values in each minute, by variant and by instance type."""
    import boto3

    key = {"aws_access_key_id": "AKIAIOSFODNN7EXAMPLE", "aws_secret_access_key": "not-so-secret"}
    sagemaker = boto3.client("sagemaker", endpoint_url=url, region_name="us-east-1", **key)
    sagemaker.create_model(ModelName="m", ExecutionRoleArn="arn:aws:iam::123456789012:role/FakeRole")
    variants = [
        {"VariantName": name, "ModelName": "m", "InitialInstanceCount": 1, "InstanceType": "ml.m5.large"}
        for name in ("blue", "green")
    ]
    sagemaker.create_endpoint_config(EndpointConfigName="c", ProductionVariants=variants)
    for name in ("fraud", "idle"):
        sagemaker.create_endpoint(EndpointName=name, EndpointConfigName="c")
    cloudwatch = boto3.client("cloudwatch", endpoint_url=url, region_name="us-east-1", **key)
    for minute in range(-2, 12):
        at = START + timedelta(minutes=minute)
        data: list[dict[str, Any]] = []
        for (metric, variant), values in PUT.items():
            dimensions = [{"Name": "EndpointName", "Value": "fraud"}, {"Name": "VariantName", "Value": variant}]
            unit = "Microseconds" if metric == "ModelLatency" else "None"
            for more in ([], [{"Name": "InstanceType", "Value": "ml.m5.large"}]):
                data += [
                    {
                        "MetricName": metric,
                        "Dimensions": dimensions + more,
                        "Timestamp": at,
                        "Value": value + minute,
                        "Unit": unit,
                    }
                    for value in values
                ]
        cloudwatch.put_metric_data(Namespace="AWS/SageMaker", MetricData=data)


@pytest.mark.usefixtures("filled", "aws")
def test_what_was_put_comes_out_point_for_point():
    operator = SageMakerToAirisOperator(
        task_id="read", region_name="us-east-1", start=START.isoformat(), end=END.isoformat(), statistics=STATISTICS
    )
    found: dict[tuple[str, str, str], list[tuple[int, float]]] = {}
    for record in operator.collect(operator.window({})):
        assert isinstance(record, Metric)
        key = (record.name, record.tags["variant_name"], record.tags["statistic"])
        found.setdefault(key, []).append((record.timestamp, record.value))
    assert not operator.failures

    def minutes(values: list[float], how: Callable[[list[float]], float]) -> list[tuple[int, float]]:
        start = int(START.timestamp() * 1000)
        return [(start + minute * 60_000, how([value + minute for value in values])) for minute in range(10)]

    latencies = PUT["ModelLatency", "blue"]
    assert found == {
        ("invocations", "blue", "Sum"): minutes(PUT["Invocations", "blue"], sum),
        ("invocations", "green", "Sum"): minutes(PUT["Invocations", "green"], sum),
        ("modellatency", "blue", "Average"): minutes(latencies, lambda values: sum(values) / len(values)),
        ("modellatency", "blue", "Maximum"): minutes(latencies, max),
    }


@pytest.mark.usefixtures("filled", "aws")
def test_discovery_sees_each_series_once_and_describes_the_silent_endpoint():
    hook = SageMakerHook(region_name="us-east-1")
    rows = list(hook.metrics("AWS/SageMaker", "Invocations", ("EndpointName", "VariantName")))
    assert len(rows) == 4
    assert [endpoint["EndpointName"] for endpoint in hook.endpoints()] == ["fraud", "idle"]
    described = hook.endpoint("idle")
    assert described is not None
    assert [variant["VariantName"] for variant in described["ProductionVariants"]] == ["blue", "green"]
    assert hook.endpoint("never-was") is None
    assert hook.test_connection()[0]
