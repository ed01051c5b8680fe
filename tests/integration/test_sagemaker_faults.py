"""What goes wrong on the way to CloudWatch: nothing is lost or claimed in silence."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
import time_machine
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_airis.errors import PermanentError, RetryableError, SetupError
from airflow_provider_airis.hooks.aws import PASSING, UnansweredError
from airflow_provider_airis.hooks.sagemaker import SageMakerHook
from airflow_provider_airis.operators.sagemaker import SageMakerToAirisOperator
from airflow_provider_airis.records import Metric
from sandbox.process import Server
from tests.contract.peers import Silent

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
SPAN = (NOW - 5 * MINUTE, NOW)
KEY = {"login": "AKIAIOSFODNN7EXAMPLE", "password": "wJalrXUtnFEMI-K7MDENG-bPxRfiCYEXAMPLEKEY"}
FEW = ["invocations", "modellatency"]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    arguments = ["--endpoints", "8", "--regions", "us-east-1", "eu-west-1", "--now", NOW.isoformat()]
    arguments += ["--history-from", (NOW - 40 * DAY).isoformat(), "--history-until", NOW.isoformat()]
    with Server("sandbox.sagemaker", *arguments) as server:
        yield server


def send(server: Server, method: str, path: str, **fields: Any) -> Any:
    answer = httpx2.request(method, f"{server.url}/_sandbox/{path}", json=fields, timeout=60)
    answer.raise_for_status()
    return answer.json()


def extra(url: str, **more: Any) -> dict[str, Any]:
    return {"endpoint_url": url, "config_kwargs": {"retries": {"total_max_attempts": 1}}, **more}


@pytest.fixture
def aws(server: Server, connect: Callable[..., str]) -> Iterator[Server]:
    connect("aws_default", conn_type="aws", **KEY, extra=extra(server.url))
    send(server, "DELETE", "calls")
    yield server
    send(server, "DELETE", "faults")
    send(server, "DELETE", "deny")


def read(start: datetime, end: datetime, **arguments: Any) -> tuple[list[Metric], SageMakerToAirisOperator]:
    operator = SageMakerToAirisOperator(
        task_id="read", start=start.isoformat(), end=end.isoformat(), **{"region_name": "us-east-1", **arguments}
    )
    with time_machine.travel(NOW):
        points = [record for record in operator.collect(operator.window({})) if isinstance(record, Metric)]
    return points, operator


def told(points: list[Metric]) -> list[str]:
    return sorted(map(repr, points))


def endpoints(points: list[Metric]) -> set[str]:
    return {point.tags["endpoint_name"] for point in points}


def test_one_refused_call_drops_no_other_series(aws: Server):
    """A call that is refused once is asked again in halves; a series that is refused each time is named, alone."""
    whole, _ = read(*SPAN, metrics=FEW)
    send(aws, "POST", "faults", operation="GetMetricData", code="ValidationError", times=1)
    again, operator = read(*SPAN, metrics=FEW)
    assert not operator.failures
    assert told(again) == told(whole)
    send(aws, "POST", "faults", operation="GetMetricData", code="ValidationError", times=999, containing="churn-pred")
    points, operator = read(*SPAN, metrics=["invocations"])
    assert endpoints(points) == endpoints(whole) - {"churn-prediction"}
    [(part, error)] = operator.failures.items()
    assert part == "us-east-1/GetMetricData"
    assert "ValidationError" in str(error)
    lost = ", ".join(f"AWS/SageMaker Invocations Sum of churn-prediction/{name}" for name in ("blue", "green"))
    assert str(error).endswith(f": {lost}")


def test_calls_that_are_all_refused_are_not_halved_for_ever(aws: Server):
    send(aws, "POST", "faults", operation="GetMetricData", code="ValidationError", times=9_999)
    points, operator = read(*SPAN)
    assert not points
    assert "more" in str(operator.failures["us-east-1/GetMetricData"])
    assert send(aws, "GET", "calls")["GetMetricData"]["calls"] < 100


def test_a_call_that_passes_holds_back_no_other(aws: Server):
    send(aws, "POST", "faults", operation="GetMetricData", code="RequestThrottled", times=1)
    points, operator = read(*SPAN, statistics={"modellatency": [f"p{n}" for n in range(1, 90)]})
    [error] = operator.failures.values()
    assert isinstance(error, RetryableError)
    assert points


@pytest.mark.parametrize("name", ["p95x", "Avg", "p101", "tm", ""])
def test_a_statistic_that_is_none_is_refused_before_anything_is_asked(aws: Server, name: str):
    with pytest.raises(PermanentError, match="statistics of modellatency has ") as refused:
        read(*SPAN, statistics={"modellatency": [name]})
    assert refused.value.pointer == "/statistics/modellatency"
    assert not send(aws, "GET", "calls")


def test_a_service_that_does_not_answer_is_waited_for_once(connect: Callable[..., str]):
    """However much there is to ask it for, so that a run ends before the next one is due."""
    with Silent() as peer:
        connect("aws_default", conn_type="aws", **KEY, extra={"endpoint_url": peer.url})
        hook = SageMakerHook(region_name="us-east-1", timeout=0.2, retries=0)
        with pytest.raises(UnansweredError):
            list(hook.endpoints())
        asked = len(peer._held)
        for _ in range(3):
            with pytest.raises(UnansweredError, match="not asked again"):
                list(hook.endpoints())
        assert len(peer._held) == asked == 1
        with pytest.raises(UnansweredError):
            list(hook.metrics("AWS/SageMaker"))
        assert len(peer._held) == 2


def test_a_connection_that_is_named_must_exist(
    aws: Server, connect: Callable[..., str], monkeypatch: pytest.MonkeyPatch
):
    """Whatever credentials the worker has: they may be another account's."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA210987654321ABCD")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-worker")
    monkeypatch.setenv("AWS_ENDPOINT_URL", aws.url)
    with pytest.raises(SetupError, match=r"^Connection aws_research does not exist: create it in Airflow's UI"):
        read(*SPAN, aws_conn_id="aws_research")
    connect("airis_default", conn_type="airis", host="http://127.0.0.1:9", password="t0ken")
    with pytest.raises(AirflowFailException, match=r"^Connection aws_research does not exist"):
        SageMakerToAirisOperator(task_id="t", aws_conn_id="aws_research", region_name="us-east-1").execute({})
    assert not send(aws, "GET", "calls")


def test_the_default_connection_alone_may_be_absent_and_that_is_said(
    aws: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
):
    monkeypatch.delenv("AIRFLOW_CONN_AWS_DEFAULT")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA210987654321ABCD")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-worker")
    monkeypatch.setenv("AWS_ENDPOINT_URL", aws.url)
    with caplog.at_level(logging.WARNING):
        points, operator = read(*SPAN, metrics=["invocations"])
    assert not operator.failures
    assert points
    assert (
        "Connection aws_default does not exist: AWS is asked with the credentials"
        in capsys.readouterr().out + caplog.text
    )


def test_a_label_that_cannot_be_looked_up_hides_no_failure_and_loses_no_point(aws: Server):
    """No STS in a private network: the account is in the ARN of what was refused."""
    whole, _ = read(*SPAN, metrics=FEW)
    send(aws, "POST", "faults", operation="GetCallerIdentity", code="AccessDenied", times=99)
    send(aws, "POST", "deny", action="sagemaker:ListEndpoints")
    points, operator = read(*SPAN, metrics=FEW)
    assert list(operator.failures) == ["us-east-1/ListEndpoints"]
    assert told(points) == told(whole)


def test_what_is_refused_stands_beside_a_label_that_could_not_be_looked_up(aws: Server):
    send(aws, "POST", "faults", operation="ListEndpoints", code="ValidationException", times=1)
    send(aws, "POST", "faults", operation="GetCallerIdentity", code="ServiceUnavailable", status=503, times=99)
    points, operator = read(*SPAN, metrics=FEW)
    assert not points
    assert list(operator.failures) == ["us-east-1/ListEndpoints", "us-east-1/GetCallerIdentity"]


def test_a_filter_that_nothing_meets_fails_by_name(aws: Server):
    points, operator = read(*SPAN, metrics=FEW, endpoints=["churn-*", "fruad-*"])
    assert endpoints(points) == {"churn-prediction"}
    [(part, error)] = operator.failures.items()
    assert part == "us-east-1 by connection aws_default/endpoints"
    assert "endpoints names 'fruad-*', which nothing in us-east-1" in str(error)


def test_the_region_is_the_connections_unless_another_is_named(aws: Server, connect: Callable[..., str]):
    connect("aws_default", conn_type="aws", **KEY, extra=extra(aws.url, region_name="eu-west-1"))
    points, operator = read(*SPAN, region_name=None, metrics=["invocations"])
    assert not operator.failures
    assert {point.tags["region"] for point in points} == {"eu-west-1"}


def test_a_variant_that_nothing_lists_any_more_is_read_by_its_exact_dimensions(aws: Server):
    created, deleted = (NOW - 30 * DAY).isoformat(), (NOW - 20 * DAY).isoformat()
    send(aws, "POST", "endpoints", name="renamed", variants=["old"], created=created, deleted=deleted)
    window = (NOW - 25 * DAY, NOW - 25 * DAY + 60 * MINUTE)
    points, _ = read(*window, metrics=FEW)
    assert "renamed" not in endpoints(points)
    exact = ["VariantName=old/EndpointName=renamed"]
    points, operator = read(*window, metrics=FEW, series=exact, endpoints=["renamed"])
    assert not operator.failures
    assert endpoints(points) == {"renamed"}
    assert {point.name for point in points} == {*FEW}
    for wrong, said in (
        ("EndpointName", "write EndpointName=fraud"),
        ("ImageName=x", "no metric that is read has the"),
    ):
        with pytest.raises(PermanentError, match=f"series has .*{said}"):
            read(*window, series=[wrong])


def test_asynchronous_and_serverless_endpoints(aws: Server):
    send(aws, "POST", "endpoints", name="queued", created=(NOW - DAY).isoformat(), asynchronous=True)
    send(aws, "POST", "endpoints", name="lambda", created=(NOW - DAY).isoformat(), serverless=True)
    points, operator = read(*SPAN, endpoints=["queued"], dimensions=["EndpointName"])
    assert not operator.failures
    assert {point.name for point in points} == {
        "approximatebacklogsize",
        "approximatebacklogsizeperinstance",
        "approximateageofoldestrequest",
        "hasbacklogwithoutcapacity",
    }
    points, operator = read(*SPAN, metrics=["modelsetuptime"])
    assert not operator.failures
    assert {(point.tags["endpoint_name"], point.unit) for point in points} == {("lambda", "Microseconds")}
    # A metric that one endpoint has is asked for there alone: AWS bills each query.
    assert operator.summary()["metrics_requested"] == 5
    send(aws, "DELETE", "endpoints/queued")
    send(aws, "DELETE", "endpoints/lambda")


def test_a_set_of_dimensions_that_no_metric_has_is_refused(aws: Server):
    with pytest.raises(PermanentError, match="dimensions names GpuId, which the catalog does not have"):
        read(*SPAN, dimensions=["GpuId"])


def test_what_linked_accounts_share_is_theirs(connect: Callable[..., str]):
    history = ["--history-from", (NOW - DAY).isoformat(), "--history-until", NOW.isoformat()]
    with Server("sandbox.sagemaker", "--endpoints", "0", "--now", NOW.isoformat(), *history) as server:
        connect("aws_default", conn_type="aws", **KEY, extra=extra(server.url))
        created = (NOW - DAY).isoformat()
        send(server, "POST", "endpoints", name="theirs", created=created, account="999988887777")
        _, operator = read(*SPAN, metrics=FEW)
        [(part, error)] = operator.failures.items()
        assert part == "us-east-1/linked_accounts"
        assert "has nothing of its own, but account 999988887777 shares its metrics" in str(error)
        send(server, "POST", "endpoints", name="ours", created=created)
        points, operator = read(*SPAN, metrics=FEW)
        assert not operator.failures
        assert endpoints(points) == {"ours"}
        points, operator = read(*SPAN, metrics=FEW, linked_accounts=True)
        assert not operator.failures
        assert {(p.tags["endpoint_name"], p.tags["account_id"]) for p in points} == {
            ("theirs", "999988887777"),
            ("ours", "123456789012"),
        }


def test_a_refused_page_token_begins_the_listing_anew(connect: Callable[..., str]):
    history = ["--history-from", (NOW - 60 * MINUTE).isoformat(), "--history-until", NOW.isoformat()]
    with Server("sandbox.sagemaker", "--endpoints", "150", "--now", NOW.isoformat(), *history) as server:
        connect("aws_default", conn_type="aws", **KEY, extra=extra(server.url))
        hook = SageMakerHook(region_name="us-east-1")
        whole = [row["EndpointName"] for row in hook.endpoints()]
        token = {"code": "InvalidNextTokenException", "containing": "NextToken"}
        send(server, "POST", "faults", operation="ListEndpoints", times=1, **token)
        assert len(whole) == 150
        assert [row["EndpointName"] for row in hook.endpoints()] == whole
        send(server, "POST", "faults", operation="ListEndpoints", times=99, **token)
        with pytest.raises(PermanentError, match="ListEndpoints"):
            list(hook.endpoints())


def test_what_botocore_sends_again_passes():
    from botocore.retries import standard

    known = {*standard.ThrottledRetryableChecker._THROTTLED_ERROR_CODES}
    known |= {*standard.TransientRetryableChecker._TRANSIENT_ERROR_CODES}
    assert known <= PASSING
