"""SageMaker without a stand-in: the rules of time, the translation of errors, the parsing of answers."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk.definitions.mappedoperator import MappedOperator

from airflow_provider_airis.errors import PermanentError, RetryableError
from airflow_provider_airis.hooks.cloudwatch import _queries_at_once
from airflow_provider_airis.hooks.sagemaker import SageMakerHook
from airflow_provider_airis.operators.sagemaker import RETENTION, SageMakerToAirisOperator
from airflow_provider_airis.records import Window, iso
from sandbox.process import Server
from tests.replay import Replay

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
SECRET = "wJalrXUtnFEMI-K7MDENG-bPxRfiCYEXAMPLEKEY"
STAT = {
    "Metric": {
        "Namespace": "AWS/SageMaker",
        "MetricName": "ModelLatency",
        "Dimensions": [{"Name": "EndpointName", "Value": "fraud"}, {"Name": "VariantName", "Value": "blue"}],
    },
    "Period": 60,
    "Stat": "p99",
}
WINDOW = Window.between(NOW - timedelta(minutes=5), NOW)
WINDOW_ISO = (iso(WINDOW.start), iso(WINDOW.end))
AT = WINDOW.start // 1000


@pytest.fixture
def hook(connect: Callable[..., str]) -> Callable[..., SageMakerHook]:
    def hook(url: str, **extra: Any) -> SageMakerHook:
        extra = {"endpoint_url": url, "config_kwargs": {"retries": {"total_max_attempts": 1}}, **extra}
        connect("aws_default", conn_type="aws", login="AKIAIOSFODNN7EXAMPLE", password=SECRET, extra=extra)
        return SageMakerHook(region_name="us-east-1")

    return hook


def answer(*results: dict[str, Any], **more: Any) -> dict[str, Any]:
    body = {"MetricDataResults": list(results), "Messages": [], **more}
    return {"request": {}, "response": {"headers": {"Content-Type": "application/x-amz-json-1.0"}, "json": body}}


def result(*points: tuple[int, Any], status: str = "Complete") -> dict[str, Any]:
    stamps, values = [at for at, _ in points], [value for _, value in points]
    return {"Id": "q0", "Timestamps": stamps, "Values": values, "StatusCode": status}


@pytest.mark.parametrize(
    ("age", "period"),
    [
        (timedelta(0), 60),
        (timedelta(days=14, hours=23), 60),
        (timedelta(days=14, hours=23, seconds=1), 300),
        (timedelta(days=62, hours=23), 300),
        (timedelta(days=62, hours=23, seconds=1), 3600),
        (timedelta(days=454, hours=23), 3600),
    ],
)
def test_the_period_is_the_finest_that_is_kept_for_an_hour_more(age: timedelta, period: int):
    assert RETENTION.finest(NOW - age, NOW)[0] == period


def test_what_retention_has_deleted_is_an_error_that_says_from_when_on_there_is_something():
    with pytest.raises(PermanentError, match=r"455 days: those of 2025-08-22 12:00 are deleted.*2025-08-22T13:00Z"):
        RETENTION.finest(NOW - timedelta(days=455), NOW)


@pytest.mark.parametrize(
    ("periods", "queries"), [(1, 500), (15, 500), (201, 500), (1440, 490), (21_600, 490), (100_800, 500)]
)
def test_as_many_queries_go_together_as_fill_their_pages(periods: int, queries: int):
    assert _queries_at_once(periods) == queries


def test_unknown_metrics_are_an_error_that_lists_the_known():
    operator = SageMakerToAirisOperator(task_id="t", metrics=["modellatency", "latency"])
    with pytest.raises(PermanentError, match=r"metrics names latency, .* it has invocations, "):
        list(operator.collect(WINDOW))


@pytest.mark.parametrize(("name", "live"), [("sync", True), ("reconcile", False)])
def test_the_dags_map_a_task_to_each_connection_and_region(name: str, live: bool, monkeypatch: pytest.MonkeyPatch):
    for option, value in {"CONNECTIONS": "aws_main, aws_research", "REGIONS": "us-east-1, eu-west-1"}.items():
        monkeypatch.setenv(f"AIRFLOW__AIRIS_SAGEMAKER__{option}", value)
    monkeypatch.setenv("AIRFLOW__AIRIS_SAGEMAKER__JOBS", "training")
    folder = Path(__file__).resolve().parents[2] / "dags"
    bag = DagBag(folder / f"airis_{name}.py", bundle_path=folder)
    [task] = bag.dags[f"airis_{name}_sagemaker"].tasks
    assert isinstance(task, MappedOperator)
    assert task.expand_input.value == [
        {"aws_conn_id": conn_id, "region_name": region}
        for conn_id in ("aws_main", "aws_research")
        for region in ("us-east-1", "eu-west-1")
    ]
    one = task.unmap({"aws_conn_id": "aws_research", "region_name": "eu-west-1"})
    assert task.map_index_template == "{{ task.aws_conn_id or 'default' }} {{ task.region_name or 'default' }}"
    assert (one.lookback_s, one.idle_poll_interval_s) == ((900, 900) if live else (7200, 0))
    assert one.jobs == ["training"]
    assert one.dimensions == ["EndpointName/VariantName", "InferenceComponentName"]


def test_regions_go_with_connections_as_they_are_paired():
    mapped = SageMakerToAirisOperator.mapped(
        {},
        {
            "aws_conn_id": ["main", "research", "edge"],
            "region_name": ["main:us-east-1", "main:us-west-2", "edge:eu-west-1"],
        },
    )
    assert [tuple(row.values()) for row in mapped] == [
        ("main", "us-east-1"),
        ("main", "us-west-2"),
        ("research", None),
        ("edge", "eu-west-1"),
    ]
    mapped = SageMakerToAirisOperator.mapped({}, {"aws_conn_id": ["main", "research"], "region_name": [None]})
    assert mapped == [{"aws_conn_id": conn_id, "region_name": None} for conn_id in ("main", "research")]
    with pytest.raises(PermanentError, match="regions names nobody, which connections does not"):
        SageMakerToAirisOperator.mapped({}, {"aws_conn_id": ["main"], "region_name": ["nobody:us-east-1"]})


def refusal(status: int, code: str = "", message: str = "", **headers: str) -> dict[str, Any]:
    body = {"__type": code, "message": message} if code else {}
    return {"request": {}, "response": {"status": status, "headers": headers, "json": body}}


@pytest.mark.parametrize(
    ("response", "kind", "says"),
    [
        (refusal(400, "ThrottlingException", "Rate exceeded"), RetryableError, "Rate exceeded"),
        (refusal(400, "com.amazonaws.cloudwatch#ThrottlingException"), RetryableError, "ThrottlingException"),
        (refusal(429), RetryableError, "HTTP 429"),
        (refusal(500, "InternalServiceFault"), RetryableError, "HTTP 500"),
        (refusal(503), RetryableError, "HTTP 503"),
        (refusal(403, "ExpiredTokenException", "expired"), RetryableError, "expired"),
        (refusal(400), PermanentError, "HTTP 400"),
        (refusal(404), PermanentError, "HTTP 404"),
        (refusal(400, "ValidationError", "bad Stat"), PermanentError, "bad Stat"),
        (refusal(403, "UnrecognizedClientException", "invalid token"), PermanentError, "credentials are not accepted"),
        (
            refusal(403, "AccessDenied", "User: arn:aws:sts::123456789012:assumed-role/x/y is not authorized"),
            PermanentError,
            r"'aws_default' \(account 123456789012\) lacks the permission cloudwatch:GetMetricData in us-east-1",
        ),
    ],
)
def test_errors_are_told_apart_and_say_who_asked_for_what(
    hook: Callable[..., SageMakerHook], response: dict[str, Any], kind: type[Exception], says: str
):
    with Replay([response]) as server, pytest.raises(kind, match=says) as caught:
        list(hook(server.url).metric_data([STAT], WINDOW))
    assert "cloudwatch:GetMetricData" in str(caught.value)
    assert SECRET not in str(caught.value)


def test_the_wait_that_aws_asks_for_is_kept(hook: Callable[..., SageMakerHook]):
    with Replay([refusal(503, **{"Retry-After": "7"})]) as server, pytest.raises(RetryableError) as caught:
        list(hook(server.url).endpoints())
    assert caught.value.retry_after == 7


def test_nobody_listening_passes_and_no_credentials_do_not(
    hook: Callable[..., SageMakerHook], connect: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    with Replay([]) as server:
        url = server.url
    with pytest.raises(RetryableError, match=r"sagemaker:ListEndpoints by connection 'aws_default' failed: Could not"):
        list(hook(url).endpoints())
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    connect("aws_default", conn_type="aws", extra={"endpoint_url": url})
    with pytest.raises(PermanentError, match="set the key's id and secret, or a role"):
        list(SageMakerHook(region_name="us-east-1").endpoints())


def test_a_connection_without_a_region_is_an_error_that_says_where_to_set_one(
    connect: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    connect("aws_default", conn_type="aws")
    works, says = SageMakerHook().test_connection()
    assert (works, says[:14]) == (False, "No AWS region:")


def test_an_endless_cursor_ends(hook: Callable[..., SageMakerHook]):
    page = {"request": {}, "response": {"json": {"Endpoints": [], "NextToken": "again"}}}
    with Replay([page] * 5) as server, pytest.raises(PermanentError, match="endless cursor"):
        list(hook(server.url).endpoints())


def test_an_answer_that_is_no_json_passes(hook: Callable[..., SageMakerHook]):
    page = {"request": {}, "response": {"text": "<html>proxy</html>"}}
    with Replay([page]) as server, pytest.raises(RetryableError, match="something else than AWS"):
        list(hook(server.url).metric_data([STAT], WINDOW))


@pytest.mark.parametrize("protocol", ["json", "smithy-rpc-v2-cbor"])
def test_both_protocols_of_cloudwatch_give_the_same_points(
    hook: Callable[..., SageMakerHook], protocol: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Which one botocore speaks depends on its release; the answers are parsed by us or by it."""
    import botocore

    model = Path("data/cloudwatch/2010-08-01/service-2.json.gz")
    description = json.loads(gzip.decompress((Path(botocore.__file__).parent / model).read_bytes()))
    description["metadata"]["protocols"] = [protocol]
    (tmp_path / "cloudwatch/2010-08-01").mkdir(parents=True)
    (tmp_path / "cloudwatch/2010-08-01/service-2.json").write_text(json.dumps(description))
    monkeypatch.setenv("AWS_DATA_PATH", str(tmp_path))
    span = ("2026-11-20T11:00Z", "2026-11-20T12:00Z")
    arguments = ("--endpoints", "1", "--history-from", span[0], "--history-until", span[1], "--now", span[1])
    with Server("sandbox.sagemaker", *arguments) as server:
        reading = hook(server.url)
        stats = [
            {"Metric": row, "Period": 60, "Stat": "Sum"} for row in reading.metrics("AWS/SageMaker", "Invocations")
        ]
        found = {query: (stamps, values) for query, stamps, values in reading.metric_data(stats, WINDOW)}
        truth = httpx2.get(f"{server.url}/_sandbox/truth", params={"from": WINDOW_ISO[0], "to": WINDOW_ISO[1]})
    [sums] = [line for line in map(json.loads, truth.text.splitlines()) if line["metric"] == "Invocations"]
    expected = ([at for at, _ in sums["points"]], [value for _, value in sums["points"]])
    # Once for the variant, once more for its instance type.
    assert found == {0: expected, 1: expected}


def test_points_outside_the_window_and_points_sent_twice_are_left_out(hook: Callable[..., SageMakerHook]):
    first = answer(result((AT - 60, 1.0), (AT, 2.0), (AT + 60, 3.0), status="PartialData"), NextToken="t")
    second = answer(result((AT + 60, 3.0), (AT + 120, 4.0), (AT + 300, 5.0)))
    with Replay([first, second]) as server:
        readings = list(hook(server.url).metric_data([STAT], WINDOW))
    points = [
        (at // 1000 - AT, value) for _, stamps, values in readings for at, value in zip(stamps, values, strict=True)
    ]
    assert points == [(0, 2.0), (60, 3.0), (120, 4.0)]


def test_numbers_written_as_text_are_numbers(hook: Callable[..., SageMakerHook]):
    """AWS's JSON has no other way to write NaN; what becomes of it is the engine's affair."""
    with Replay([answer(result((AT, "NaN"), (AT + 60, 1.5)))]) as server:
        [(_, _, values)] = hook(server.url).metric_data([STAT], WINDOW)
    assert [str(value) for value in values] == ["nan", "1.5"]


def test_a_query_that_stays_unfinished_is_named_and_the_others_are_read(
    hook: Callable[..., SageMakerHook], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(SageMakerHook, "partial_waits", (0.01, 0.01))
    whole = {**result((AT, 7.0)), "Id": "q1"}
    cut = answer(result((AT, 1.0), status="PartialData"), whole)
    again = answer(result((AT + 60, 2.0), status="InternalError"))
    never = answer(result(status="InternalError"))
    other = {**STAT, "Stat": "p50"}
    with Replay([cut, again, never]) as server:
        reading = hook(server.url)
        got = []
        readings = reading.metric_data([STAT, other], WINDOW)
        with pytest.raises(RetryableError, match=r"after 3 tries: AWS/SageMaker ModelLatency p99 of fraud/blue$"):
            got.extend(readings)
    assert [(query, values) for query, _, values in got] == [(0, [1.0]), (1, [7.0]), (0, [2.0])]
    assert reading.metrics_requested == 4
