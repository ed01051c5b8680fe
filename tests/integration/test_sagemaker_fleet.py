"""SageMaker's operator on what is more than a variant: other dimensions, jobs, accounts, endpoints' states."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
import time_machine

from airflow_provider_airis.errors import PermanentError
from airflow_provider_airis.operators.sagemaker import SageMakerToAirisOperator
from airflow_provider_airis.records import Event, Metric, to_ms
from sandbox.process import Server

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
HOUR = 60 * MINUTE
VARIANT, COMPONENT = "EndpointName/VariantName", "InferenceComponentName"
CONTAINER = "ContainerName/EndpointName/VariantName"
INSTANCE = "EndpointName/InstanceId/VariantName"
KEY = {"login": "AKIAIOSFODNN7EXAMPLE", "password": "wJalrXUtnFEMI-K7MDENG-bPxRfiCYEXAMPLEKEY"}
Series = dict[tuple[str, str, str, str], list[tuple[int, float]]]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    arguments = ["--endpoints", "0", "--now", NOW.isoformat()]
    arguments += ["--history-from", (NOW - 30 * 24 * HOUR).isoformat(), "--history-until", NOW.isoformat()]
    with Server("sandbox.sagemaker", *arguments) as server:
        created = (NOW - 10 * 24 * HOUR).isoformat()
        shared = {"created": created, "gpu": True, "components": ["llama", "mistral"]}
        send(server, "POST", "endpoints", name="shared-gpu", **shared)
        send(
            server, "POST", "endpoints", name="pipeline", created=created, containers=["clean", "score"], enhanced=True
        )
        jobs = {"train-7": ("training", ["algo-1", "algo-2"]), "score-7": ("transform", ["i-0abc"])}
        for name, (kind, hosts) in jobs.items():
            span = {"start": (NOW - 2 * HOUR).isoformat(), "end": (NOW - HOUR / 2).isoformat()}
            send(server, "POST", "jobs", kind=kind, name=name, hosts=hosts, **span)
        yield server


def send(server: Server, method: str, path: str, **fields: Any) -> Any:
    answer = httpx2.request(method, f"{server.url}/_sandbox/{path}", json=fields, timeout=60)
    answer.raise_for_status()
    return answer.json()


@pytest.fixture
def aws(server: Server, connect: Callable[..., str]) -> Iterator[Server]:
    """The key of one account, which may assume a role in another."""
    extra: dict[str, Any] = {"endpoint_url": server.url, "config_kwargs": {"retries": {"total_max_attempts": 1}}}
    connect("aws_default", conn_type="aws", **KEY, extra=extra)
    role = {"role_arn": "arn:aws:iam::210987654321:role/airis", "service_config": {"sts": {"endpoint_url": server.url}}}
    connect("aws_research", conn_type="aws", **KEY, extra=extra | role)
    send(server, "DELETE", "calls")
    yield server
    send(server, "DELETE", "deny")


def read(
    start: datetime, end: datetime, **arguments: Any
) -> tuple[list[Metric], list[Event], SageMakerToAirisOperator]:
    operator = SageMakerToAirisOperator(
        task_id="read", region_name="us-east-1", start=start.isoformat(), end=end.isoformat(), **arguments
    )
    with time_machine.travel(NOW):
        records = list(operator.collect(operator.window({})))
    metrics = [record for record in records if isinstance(record, Metric)]
    return metrics, [record for record in records if isinstance(record, Event)], operator


def by_series(points: list[Metric]) -> Series:
    """Points by set of dimensions, their values, metric and statistic."""
    series: Series = defaultdict(list)
    for p in points:
        names = p.tags["dimensions"].split("/")
        values = "/".join(p.tags[tag] for tag in map(str.lower, map(_snake, names)))
        series[p.tags["dimensions"], values, p.name, p.tags["statistic"]].append((p.timestamp, p.value))
    return dict(series)


def _snake(name: str) -> str:
    return "".join(f"_{c}" if c.isupper() and at else c for at, c in enumerate(name))


def truth(server: Server, start: datetime, end: datetime, *sets: str) -> Series:
    query = {"from": start.isoformat(), "to": end.isoformat(), "dimensions": ",".join(sets)}
    lines = httpx2.get(f"{server.url}/_sandbox/truth", params=query, timeout=60).text.splitlines()
    return {
        (
            "/".join(line["dimensions"]),
            "/".join(line["dimensions"].values()),
            line["metric"].lower(),
            line["statistic"],
        ): [(at, value) for at, value in line["points"]]
        for line in map(json.loads, lines)
    }


def test_variants_and_inference_components_are_read_unless_told_otherwise(aws: Server):
    points, _, operator = read(NOW - HOUR, NOW)
    found = by_series(points)
    assert not operator.failures
    assert found == truth(aws, NOW - HOUR, NOW, VARIANT, COMPONENT)
    assert {names for names, *_ in found} == {VARIANT, COMPONENT}
    assert {p.source for p in points if p.tags["dimensions"] == COMPONENT} == {
        "aws-sagemaker-llama",
        "aws-sagemaker-mistral",
    }
    units = {p.unit for p in points if p.name.endswith("normalized")}
    assert units == {"Percent"}
    assert operator.summary()["aws_calls"] == 6


@pytest.mark.parametrize("idle_poll_interval_s", [0, 900])
def test_what_has_load_and_no_requests_is_read_beside_what_is_busy(
    connect: Callable[..., str], idle_poll_interval_s: int
):
    span = ("--history-from", (NOW - HOUR).isoformat(), "--history-until", NOW.isoformat())
    with Server("sandbox.sagemaker", "--endpoints", "0", "--now", NOW.isoformat(), *span) as server:
        connect("aws_default", conn_type="aws", **KEY, extra={"endpoint_url": server.url})
        made = {"created": (NOW - 72 * HOUR).isoformat(), "variants": ["busy", "canary"], "components": ["spare"]}
        send(server, "POST", "endpoints", name="main", idle=["canary", "spare"], **made)
        points, _, operator = read(NOW - 30 * MINUTE, NOW, idle_poll_interval_s=idle_poll_interval_s)
        assert not operator.failures
        found = {
            key: [row for row in rows if row[0] >= to_ms(NOW - 30 * MINUTE)] for key, rows in by_series(points).items()
        }
        assert found == truth(server, NOW - 30 * MINUTE, NOW, VARIANT, COMPONENT)
    load = {name for _, values, name, _ in found if values in ("main/canary", "spare")}
    assert load == {
        "cpuutilization",
        "memoryutilization",
        "diskutilization",
        "cpuutilizationnormalized",
        "memoryutilizationnormalized",
    }


@pytest.mark.parametrize("names", [VARIANT, COMPONENT, CONTAINER, INSTANCE])
def test_a_set_of_dimensions_of_ones_own_choice(aws: Server, names: str):
    """In any order of its names; and no other series comes along."""
    spelt = "/".join(reversed(names.split("/")))
    points, _, operator = read(NOW - HOUR, NOW, dimensions=[spelt])
    assert not operator.failures
    assert by_series(points) == truth(aws, NOW - HOUR, NOW, names) != {}


def test_no_two_series_of_several_sets_are_the_same_to_the_hub(aws: Server):
    points, *_ = read(NOW - 5 * MINUTE, NOW, dimensions=[VARIANT, COMPONENT, CONTAINER, INSTANCE])
    assert by_series(points) == truth(aws, NOW - 5 * MINUTE, NOW, VARIANT, COMPONENT, CONTAINER, INSTANCE)
    identities = Counter((p.source, p.name, frozenset(p.tags.items()), p.timestamp) for p in points)
    assert set(identities.values()) == {1}


@pytest.mark.parametrize("lately", [True, False])
def test_jobs_are_read_by_host_and_only_if_asked_for(aws: Server, lately: bool):
    start, end = (NOW - HOUR, NOW) if lately else (NOW - 3 * HOUR, NOW)
    points, _, operator = read(start, end, endpoints=["train-*", "score-*"], jobs=["training", "transform"])
    assert not operator.failures
    assert by_series(points) == truth(aws, start, end, "Host")
    tags = {(p.source, p.tags["job_name"], p.tags["job_type"], p.tags["host"]) for p in points}
    assert tags == {
        ("aws-sagemaker-train-7", "train-7", "training", "train-7/algo-1"),
        ("aws-sagemaker-train-7", "train-7", "training", "train-7/algo-2"),
        ("aws-sagemaker-score-7", "score-7", "transform", "score-7/i-0abc"),
    }
    assert not by_series(read(start, end, endpoints=["train-*", "score-*"])[0])


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"dimensions": ["EndpointNam/VariantName"]}, "dimensions names EndpointNam, which the catalog does not have"),
        ({"jobs": ["traning"]}, "jobs names traning, which the catalog does not have; it has training, processing"),
    ],
)
def test_what_there_is_not_is_an_error_that_lists_what_there_is(asked: dict[str, Any], says: str):
    with pytest.raises(PermanentError, match=says):
        read(NOW - HOUR, NOW, **asked)


def test_equal_names_in_two_accounts_are_two_series(aws: Server):
    ours, _, operator = read(NOW - 5 * MINUTE, NOW)
    theirs, _, other = read(NOW - 5 * MINUTE, NOW, aws_conn_id="aws_research")
    assert not operator.failures | other.failures
    assert by_series(ours) == by_series(theirs)
    assert {p.tags["account_id"] for p in ours} == {"123456789012"}
    assert {p.tags["account_id"] for p in theirs} == {"210987654321"}


def test_a_denied_account_fails_alone_by_name(aws: Server):
    send(aws, "POST", "deny", account="210987654321", action="cloudwatch:GetMetricData")
    assert not read(NOW - 5 * MINUTE, NOW)[2].failures
    points, _, operator = read(NOW - 5 * MINUTE, NOW, aws_conn_id="aws_research")
    assert not points
    [error] = map(str, operator.failures.values())
    assert error.startswith("connection 'aws_research' (account 210987654321) lacks the permission")


def test_a_role_that_may_not_be_assumed_is_named(aws: Server):
    send(aws, "POST", "deny", action="sts:AssumeRole")
    points, _, operator = read(NOW - 5 * MINUTE, NOW, aws_conn_id="aws_research")
    assert not points
    for error in map(str, operator.failures.values()):
        assert error.startswith("connection 'aws_research' (account 123456789012) lacks the permission sts:AssumeRole")


def test_the_account_is_known_where_endpoints_may_not_be_listed(aws: Server):
    send(aws, "POST", "deny", action="sagemaker:ListEndpoints")
    points, _, operator = read(NOW - 5 * MINUTE, NOW, aws_conn_id="aws_research")
    assert list(operator.failures) == ["us-east-1/ListEndpoints"]
    assert {p.tags["account_id"] for p in points} == {"210987654321"}


def test_a_changed_endpoint_is_told_once_with_its_reason_and_configuration(aws: Server):
    send(aws, "POST", "endpoints", name="doomed", variants=["blue"], created=(NOW - 24 * HOUR).isoformat())
    send(aws, "PATCH", "endpoints/doomed", status="Failed", failure_reason="The container did not pass the ping.")
    send(aws, "DELETE", "calls")
    window = (NOW - 5 * MINUTE, NOW + MINUTE)
    _, [event], operator = read(*window, metrics=["invocations"])
    assert not operator.failures
    instance_type = event.data["variants"][0].pop("instance_type")
    instances = event.data["variants"][0].pop("current_instance_count")
    assert instance_type.startswith("ml.m5.")
    assert event == Event(
        event_type="endpoint_status",
        source="aws-sagemaker-doomed",
        severity="error",
        timestamp=to_ms(NOW),
        data={
            "endpoint_name": "doomed",
            "account_id": "123456789012",
            "region": "us-east-1",
            "status": "Failed",
            "failure_reason": "The container did not pass the ping.",
            "endpoint_config_name": "doomed-config",
            "variants": [
                {
                    "variant_name": "blue",
                    "model_name": "doomed-blue",
                    "current_weight": 1.0,
                    "desired_weight": 1.0,
                    "desired_instance_count": instances,
                }
            ],
        },
        key=f"arn:aws:sagemaker:us-east-1:123456789012:endpoint/doomed/{to_ms(NOW)}/Failed",
    )
    calls = send(aws, "GET", "calls")
    assert calls["DescribeEndpoint"]["calls"] == calls["DescribeEndpointConfig"]["calls"] == 1
    assert [e.key for e in read(NOW - 24 * HOUR, NOW + MINUTE, metrics=["invocations"])[1]][-1:] == [event.key]
    assert not read(NOW - 5 * MINUTE, NOW, metrics=["invocations"])[1]
    send(aws, "DELETE", "endpoints/doomed")


def test_a_change_that_may_not_be_described_fails_by_name_and_the_points_arrive(aws: Server):
    send(aws, "POST", "endpoints", name="secret", created=(NOW - MINUTE).isoformat())
    send(aws, "POST", "deny", action="sagemaker:DescribeEndpointConfig")
    points, events, operator = read(NOW - 5 * MINUTE, NOW, endpoints=["secret", "pipeline"], metrics=["cpuutilization"])
    assert {p.tags["endpoint_name"] for p in points} == {"secret", "pipeline"}
    assert not events
    [(part, error)] = operator.failures.items()
    assert part == "us-east-1/DescribeEndpoint secret"
    assert "lacks the permission sagemaker:DescribeEndpointConfig" in str(error)
    send(aws, "DELETE", "endpoints/secret")
