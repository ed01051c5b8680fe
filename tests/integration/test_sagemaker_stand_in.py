"""The stand-in refuses what AWS refuses, through boto3 as users have it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest

from sandbox.process import Server

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
HOUR = 60 * MINUTE
DAY = 24 * HOUR
FRAUD = {"EndpointName": "fraud-detection", "VariantName": "AllTraffic"}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    arguments = ["--endpoints", "20", "--now", (NOW + 30 * timedelta(seconds=1)).isoformat(), "--ingest-delay-s", "120"]
    arguments += ["--history-from", (NOW - 100 * DAY).isoformat(), "--history-until", (NOW - HOUR).isoformat()]
    with Server("sandbox.sagemaker", *arguments, "--live-from", (NOW - HOUR / 2).isoformat()) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: Server) -> Any:
    import boto3

    def client(service: str, **more: str) -> Any:
        key = {"aws_access_key_id": "AKIAIOSFODNN7EXAMPLE", "aws_secret_access_key": "not-so-secret"}
        return boto3.client(service, endpoint_url=server.url, **{"region_name": "us-east-1", **key, **more})

    return client


@pytest.fixture(scope="module")
def cloudwatch(client: Any) -> Any:
    return client("cloudwatch")


def query(name: str = "q", stat: str = "Sum", metric: str = "Invocations", **fields: Any) -> dict[str, Any]:
    dimensions = [{"Name": key, "Value": value} for key, value in fields.pop("dimensions", FRAUD).items()]
    metric_of = {"Namespace": fields.pop("namespace", "AWS/SageMaker"), "MetricName": metric, "Dimensions": dimensions}
    return {"Id": name, "MetricStat": {"Metric": metric_of, "Period": 60, "Stat": stat, **fields}}


def read(
    cloudwatch: Any, start: datetime, end: datetime, *queries: dict[str, Any], **more: Any
) -> list[dict[str, Any]]:
    request = {"MetricDataQueries": [*queries], "StartTime": start, "EndTime": end, "ScanBy": "TimestampAscending"}
    results: list[dict[str, Any]] = cloudwatch.get_metric_data(**request, **more)["MetricDataResults"]
    return results


def refused(call: Any, **request: Any) -> str:
    from botocore.exceptions import ClientError

    with pytest.raises(ClientError) as caught:
        call(**request)
    error = caught.value.response["Error"]
    return f"{error['Code']}: {error['Message']}"


@pytest.mark.parametrize(
    ("queries", "says"),
    [
        ([query(f"q{i}") for i in range(501)], "ValidationError: .*500"),
        ([query("q"), query("q")], "ValidationError: .*unique"),
        ([query("Q")], "ValidationError: .*Id must match"),
        ([query(Period=90)], "ValidationError: .*Period"),
        ([query(stat="p101")], "ValidationError: .*not a valid statistic"),
        ([query(stat="Mean")], "ValidationError: .*not a valid statistic"),
    ],
    ids=["too many", "twice", "id", "period", "percentile", "statistic"],
)
def test_queries_that_aws_refuses_are_refused(cloudwatch: Any, queries: list[dict[str, Any]], says: str):
    times = {"StartTime": NOW - HOUR, "EndTime": NOW}
    answer = refused(cloudwatch.get_metric_data, MetricDataQueries=queries, **times)
    assert re.match(says, answer), answer


def test_other_limits(cloudwatch: Any, client: Any):
    one = {"MetricDataQueries": [query()], "EndTime": NOW}
    assert "less than" in refused(cloudwatch.get_metric_data, StartTime=NOW, **one)
    assert "100800" in refused(cloudwatch.get_metric_data, StartTime=NOW - DAY, MaxDatapoints=100_801, **one)
    assert "InvalidNextToken" in refused(cloudwatch.get_metric_data, StartTime=NOW - DAY, NextToken="made-up", **one)
    assert "between 1 and 100" in refused(client("sagemaker").list_endpoints, MaxResults=101)
    assert "Could not find endpoint" in refused(client("sagemaker").describe_endpoint, EndpointName="none")
    one_metric = {"Namespace": "AWS/SageMaker", "MetricName": "Invocations", "Period": 60, "Statistics": ["Sum"]}
    assert "1440" in refused(cloudwatch.get_metric_statistics, StartTime=NOW - 2 * DAY, EndTime=NOW, **one_metric)


def test_who_is_not_signed_in_is_refused(server: Server, client: Any):
    target = {"X-Amz-Target": "SageMaker.ListEndpoints"}
    answer = httpx2.post(server.url, headers=target, json={})
    assert (answer.status_code, answer.json()["__type"]) == (403, "MissingAuthenticationToken")
    scope = "AWS4-HMAC-SHA256 Credential=A/20261120/us-east-1/monitoring/aws4_request, SignedHeaders=host, Signature=0"
    answer = httpx2.post(server.url, headers={**target, "Authorization": scope, "X-Amz-Date": "x"}, json={})
    assert (answer.status_code, answer.json()["__type"]) == (403, "SignatureDoesNotMatch")
    assert client("sagemaker", region_name="sa-east-1").list_endpoints()["Endpoints"] == []


def test_only_the_exact_dimensions_and_the_right_unit_have_points(cloudwatch: Any):
    start, end = NOW - 2 * HOUR, NOW - HOUR
    endpoint = {"EndpointName": "fraud-detection"}
    results = read(
        cloudwatch,
        start,
        end,
        query("exact"),
        query("partial", dimensions=endpoint),
        query("lower", namespace="aws/sagemaker"),
        query("count", Unit="Count"),
        query("none", Unit="None"),
        query("millis", stat="Average", metric="ModelLatency", Unit="Milliseconds"),
        query("micros", stat="Average", metric="ModelLatency", Unit="Microseconds"),
    )
    found = {result["Id"]: len(result["Values"]) for result in results}
    assert found == {"exact": 60, "partial": 0, "lower": 0, "count": 0, "none": 60, "millis": 0, "micros": 60}


def test_the_start_is_inclusive_and_rounded_down_the_end_exclusive(cloudwatch: Any):
    start = NOW - 2 * HOUR
    [result] = read(cloudwatch, start + timedelta(seconds=50), start + 3 * MINUTE, query())
    assert [at.astimezone(UTC) for at in result["Timestamps"]] == [start, start + MINUTE, start + 2 * MINUTE]
    old = NOW - 20 * DAY
    [result] = read(cloudwatch, old + 4 * MINUTE, old + 15 * MINUTE, query(Period=300))
    assert [at.astimezone(UTC) for at in result["Timestamps"]] == [old, old + 5 * MINUTE, old + 10 * MINUTE]


def test_old_points_exist_at_wide_periods_only(cloudwatch: Any):
    for days, kept in ((14, {60, 300, 3600}), (20, {300, 3600}), (70, {3600})):
        start = NOW - days * DAY
        results = read(cloudwatch, start, start + HOUR, *(query(f"p{p}", Period=p) for p in (60, 300, 3600)))
        assert {int(result["Id"][1:]) for result in results if result["Values"]} == kept


def test_what_is_published_is_history_and_the_live_minutes_that_are_over(cloudwatch: Any):
    [result] = read(cloudwatch, NOW - HOUR - 2 * MINUTE, NOW + HOUR, query())
    minutes = [int((at.astimezone(UTC) - NOW) / MINUTE) for at in result["Timestamps"]]
    assert minutes == [-62, -61, *range(-30, -2)]


def test_a_period_is_the_sum_of_its_minutes_and_its_extremes(cloudwatch: Any):
    start, end = NOW - 3 * HOUR, NOW - 2 * HOUR
    for stat, whole in (("Sum", sum), ("Maximum", max), ("Minimum", min), ("SampleCount", sum)):
        fine, wide = read(
            cloudwatch,
            start,
            end,
            query("fine", stat, "ModelLatency"),
            query("wide", stat, "ModelLatency", Period=3600),
        )
        assert wide["Values"] == pytest.approx([whole(fine["Values"])])
    results = read(cloudwatch, start, end, *(query(s, s, "ModelLatency") for s in ("p50", "p90", "p99")))
    median, p90, p99 = (result["Values"] for result in results)
    assert all(a < b < c for a, b, c in zip(median, p90, p99, strict=True))


@pytest.mark.parametrize("order", ["TimestampAscending", "TimestampDescending"])
def test_a_page_ends_in_the_middle_of_a_query_which_goes_on_under_the_same_id(cloudwatch: Any, order: str):
    queries = [query(f"q{i}", stat) for i, stat in enumerate(("Sum", "Average", "SampleCount"))]
    request = {"MetricDataQueries": queries, "StartTime": NOW - 3 * HOUR, "EndTime": NOW - 2 * HOUR, "ScanBy": order}
    [*whole] = cloudwatch.get_metric_data(**request)["MetricDataResults"]
    pages: list[list[tuple[str, int, str]]] = []
    joined: dict[str, list[float]] = {}
    token: dict[str, str] = {}
    while token or not pages:
        answer = cloudwatch.get_metric_data(**request, MaxDatapoints=70, **token)
        pages.append([(r["Id"], len(r["Values"]), r["StatusCode"]) for r in answer["MetricDataResults"]])
        for result in answer["MetricDataResults"]:
            joined.setdefault(result["Id"], []).extend(result["Values"])
        token = {"NextToken": answer["NextToken"]} if "NextToken" in answer else {}
    assert pages == [
        [("q0", 60, "Complete"), ("q1", 10, "PartialData")],
        [("q1", 50, "Complete"), ("q2", 20, "PartialData")],
        [("q2", 40, "Complete")],
    ]
    assert joined == {result["Id"]: result["Values"] for result in whole}


def test_listing_pages_filters_and_hides_the_silent(server: Server, client: Any, cloudwatch: Any):
    for name, days in (("idle-for-a-day", 1), ("idle-for-weeks", 20)):
        gone = {"name": name, "created": (NOW - 90 * DAY).isoformat(), "deleted": (NOW - days * DAY).isoformat()}
        httpx2.post(f"{server.url}/_sandbox/endpoints", json=gone).raise_for_status()
    paged = cloudwatch.get_paginator("list_metrics").paginate()
    assert [len(page["Metrics"]) for page in paged] == [500, 624 + 20 - 500]

    def endpoints(**request: Any) -> set[str]:
        rows = cloudwatch.list_metrics(Namespace="AWS/SageMaker", MetricName="Invocations", **request)["Metrics"]
        return {d["Value"] for row in rows for d in row["Dimensions"] if d["Name"] == "EndpointName"}

    assert "idle-for-weeks" not in endpoints()
    assert endpoints() - endpoints(RecentlyActive="PT3H") == {"idle-for-a-day"}
    by_name = [{"Name": "EndpointName", "Value": "churn-prediction"}]
    rows = cloudwatch.list_metrics(MetricName="Invocations", Dimensions=by_name)["Metrics"]
    assert sorted(len(row["Dimensions"]) for row in rows) == [2, 2, 3, 3]

    sagemaker = client("sagemaker")
    names = [endpoint["EndpointName"] for endpoint in sagemaker.list_endpoints(MaxResults=100)["Endpoints"]]
    paged = sagemaker.get_paginator("list_endpoints").paginate(PaginationConfig={"PageSize": 3})
    assert [endpoint["EndpointName"] for page in paged for endpoint in page["Endpoints"]] == names
    assert len(names) == 20
    [found] = sagemaker.list_endpoints(NameContains="churn")["Endpoints"]
    assert found["EndpointName"] == "churn-prediction"
    assert sagemaker.list_endpoints(StatusEquals="Failed")["Endpoints"] == []


def test_an_incident_makes_latency_bad_until_it_ends(server: Server, cloudwatch: Any):
    start, end = NOW - 20 * MINUTE, NOW - 10 * MINUTE
    latency = query(stat="Average", metric="ModelLatency")
    [before] = read(cloudwatch, start, end, latency)
    incident = {"endpoint": "fraud-detection", "factor": 10, "from": (start + 3 * MINUTE).isoformat()}
    httpx2.post(f"{server.url}/_sandbox/incidents", json=incident).raise_for_status()
    until = {"endpoint": "fraud-detection", "until": (start + 7 * MINUTE).isoformat()}
    httpx2.patch(f"{server.url}/_sandbox/incidents", json=until).raise_for_status()
    [after] = read(cloudwatch, start, end, latency)
    factors = [new / old for new, old in zip(after["Values"], before["Values"], strict=True)]
    assert factors == pytest.approx([1] * 3 + [10] * 4 + [1] * 3)
