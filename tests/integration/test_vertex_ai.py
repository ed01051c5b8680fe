"""Vertex AI's operator against the stand-in and into the hub: every point of the truth, no other, each once."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import httpx2
import pytest
from airflow.sdk.exceptions import AirflowFailException
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from airflow_provider_airis.errors import PermanentError, RetryableError
from airflow_provider_airis.hooks import retrying, vertex_ai
from airflow_provider_airis.hooks.airis import AirisHook
from airflow_provider_airis.hooks.vertex_ai import VertexAIHook
from airflow_provider_airis.operators.vertex_ai import VertexAIToAirisOperator
from airflow_provider_airis.records import Event, Metric, to_ms
from sandbox.process import Server
from tests.replay import Replay

END = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=1)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
FEW = ["prediction_count", "prediction_latencies", "cpu_utilization"]
Key = tuple[str, str, frozenset[tuple[str, str]]]
Points = dict[Key, list[tuple[int, float]]]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    history = ("--history-from", (END - 26 * HOUR).isoformat(), "--history-until", END.isoformat())
    with Server("sandbox.vertex_ai", "--endpoints", "3", "--locations", "us-central1", "europe-west4", *history) as one:
        yield one


@pytest.fixture
def control(server: Server, connect: Callable[..., str]) -> Iterator[httpx2.Client]:
    extra = {"is_anonymous": True, "project": "airis-sandbox"}
    extra |= {"monitoring_endpoint": server.url, "aiplatform_endpoint": server.url}
    connect("google_cloud_default", conn_type="google_cloud_platform", extra=extra)
    with httpx2.Client(base_url=f"{server.url}/_sandbox/", timeout=60) as control:
        control.delete("calls")
        yield control
        control.delete("refusals")
        control.delete("foreign").raise_for_status()


def truth(control: httpx2.Client, start: datetime, end: datetime, metrics: Iterable[str] = (), **only: str) -> Points:
    lines = control.get("truth", params={"from": start.isoformat(), "to": end.isoformat()}).text.splitlines()
    points: Points = {}
    for line in map(json.loads, lines):
        if (metrics and line["metric"] not in metrics) or any(line[name] != value for name, value in only.items()):
            continue
        tags = {
            "endpoint_id": line["endpoint_id"],
            "endpoint_name": line["endpoint"],
            "deployed_model_id": line["model_id"],
            "deployed_model": line["model"],
            "location": line["location"],
            "project_id": "airis-sandbox",
            "cloud_provider": "gcp",
            "service": "vertex_ai",
            "statistic": line["statistic"],
            "period_s": "60",
            **line["labels"],
        }
        key = (f"gcp-vertex-{line['endpoint']}", line["metric"], frozenset(tags.items()))
        assert key not in points
        points[key] = [(at, value) for at, value in line["points"]]
    return points


def reading(start: datetime, end: datetime, **arguments: Any) -> VertexAIToAirisOperator:
    return VertexAIToAirisOperator(task_id="read", start=start.isoformat(), end=end.isoformat(), **arguments)


def collected(start: datetime, end: datetime, **arguments: Any) -> tuple[Points, VertexAIToAirisOperator]:
    operator = reading(start, end, **arguments)
    return by_series(operator.collect(operator.window({}))), operator


def by_series(records: Iterable[Metric | Event]) -> Points:
    """A point that comes twice is there twice."""
    points: Points = defaultdict(list)
    for record in records:
        assert isinstance(record, Metric)
        points[record.source, record.name, frozenset(record.tags.items())].append((record.timestamp, record.value))
    return {key: sorted(values) for key, values in points.items()}


def held(start: datetime, end: datetime) -> Points:
    """What the hub has."""
    found: Points = {}
    with AirisHook() as hub:
        for metric in VertexAIToAirisOperator(task_id="any").row.metrics:
            for series in hub.query(metric.name, start=to_ms(start), end=to_ms(end)):
                assert series["unit"] == metric.unit
                found[series["source"], series["name"], frozenset(series["tags"].items())] = [
                    (at, value) for at, value in series["points"]
                ]
    return found


def test_a_window_is_the_truth_point_for_point_in_one_call_a_metric_and_statistic(control: httpx2.Client):
    points, operator = collected(END - 6 * HOUR, END)
    assert not operator.failures
    assert points == truth(control, END - 6 * HOUR, END)
    assert {dict(tags)["location"] for *_, tags in points} == {"us-central1", "europe-west4"}
    latencies = {dict(tags)["latency_type"] for _, name, tags in points if name == "prediction_latencies"}
    assert latencies == {"total", "model", "overhead"}
    calls = control.get("calls").json()
    # 12 metrics, one of them with three percentiles, and one call for the names.
    assert calls["ListTimeSeries"] == 12 + 2 + 1
    assert calls["ListMetricDescriptors"] == 1
    assert calls["ListEndpoints"] == 2
    assert operator.summary()["google_calls"] == 18


def test_a_series_may_go_on_on_the_next_page(control: httpx2.Client, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(vertex_ai, "MAX_POINTS", 100)
    points, _ = collected(END - HOUR, END, metrics=["cpu_utilization"])
    assert points == truth(control, END - HOUR, END, ["cpu_utilization"])
    assert control.get("calls").json()["ListTimeSeries"] > 3


def test_windows_share_no_minute_and_leave_none_out(control: httpx2.Client):
    """Wherever the windows are cut, a minute belongs to the one that it starts in."""
    cuts = [END - timedelta(seconds=s) for s in (1800, 1320, 1310, 1260, 1199, 600, 0)]
    joined: Points = defaultdict(list)
    for begin, end in pairwise(cuts):
        for key, values in collected(begin, end, metrics=FEW)[0].items():
            joined[key] += values
    assert joined == truth(control, cuts[0], cuts[-1], FEW)


def test_the_day_is_what_the_live_windows_delivered(control: httpx2.Client, airis: str):
    start = END - 24 * HOUR
    total = 0
    for hours in range(0, 24, 4):
        begin = start + hours * HOUR
        live = reading(begin, begin + 4 * HOUR, metrics=FEW, lookback_s=900 if hours else 0)
        total += live.execute({})["points"]
    expected = truth(control, start, END, FEW)
    count = sum(map(len, expected.values()))
    assert count < total < 1.1 * count
    assert held(start, END) == expected
    day = reading(start, END, metrics=FEW).execute({})
    assert day["points"] == day["duplicates"] == count
    assert day["rejected"] == 0
    assert held(start, END) == expected


def test_endpoints_of_the_same_name_stay_apart_and_those_that_are_gone_keep_theirs(control: httpx2.Client):
    span = {"created": (END - 2 * HOUR).isoformat(), "location": "europe-west4", "name": "twin"}
    one, two = (control.post("endpoints", json=span).json()["id"] for _ in range(2))
    gone = span | {"deleted": (END - HOUR).isoformat()}
    named = control.post("endpoints", json=gone | {"name": "gone"}).json()["id"]
    nameless = control.post("endpoints", json=gone | {"name": "no-label", "labelled": False}).json()["id"]

    points, operator = collected(END - 2 * HOUR, END, endpoints=["twin"], metrics=FEW)
    assert not operator.failures
    assert points == truth(control, END - 2 * HOUR, END, FEW, endpoint="twin")
    assert {dict(tags)["endpoint_id"] for *_, tags in points} == {one, two}

    points, _ = collected(END - 2 * HOUR, END, endpoints=["gone"], metrics=FEW)
    assert points == truth(control, END - 2 * HOUR, END, FEW, endpoint="gone")
    assert {dict(tags)["endpoint_id"] for *_, tags in points} == {named}

    points, _ = collected(END - 2 * HOUR, END, endpoints=[nameless], metrics=FEW)
    assert {source for source, *_ in points} == {f"gcp-vertex-{nameless}"}
    count = sum(map(len, truth(control, END - 2 * HOUR, END, FEW, endpoint="no-label").values()))
    assert sum(map(len, points.values())) == count > 0


def test_what_is_denied_fails_alone_and_by_name(control: httpx2.Client, airis: str):
    start = END - 10 * MINUTE
    control.post("refusals", json={"method": "ListTimeSeries", "containing": "cpu/utilization"})
    control.post("refusals", json={"method": "ListEndpoints", "containing": "europe-west4"})
    points, operator = collected(start, END, metrics=FEW)
    assert points == truth(control, start, END, ["prediction_count", "prediction_latencies"])
    assert set(operator.failures) == {"airis-sandbox/europe-west4", "airis-sandbox/cpu_utilization/ALIGN_MEAN"}
    with pytest.raises(AirflowFailException, match=r"cpu_utilization/ALIGN_MEAN: .* monitoring\.timeSeries\.list"):
        reading(start, END, metrics=FEW).execute({})


def test_what_cannot_be_named_now_is_not_delivered_under_another_name(control: httpx2.Client, capsys: Any):
    start, hour = END - 10 * MINUTE, {"created": (END - HOUR).isoformat()}
    one = hour | {"location": "asia-east1", "name": "named by the service", "labelled": False}
    endpoint = control.post("endpoints", json=one).json()["id"]
    before, _ = collected(start, END, metrics=FEW, locations=["asia-east1"])
    assert {source for source, *_ in before} == {"gcp-vertex-named by the service"}
    control.post("refusals", json={"method": "ListEndpoints", "containing": "asia-east1"})
    points, operator = collected(start, END, metrics=FEW)
    assert set(operator.failures) == {"airis-sandbox/asia-east1"}
    assert points
    assert not [source for source, *_, tags in points if dict(tags)["endpoint_id"] == endpoint]
    assert f"Left out until their names can be read: asia-east1/{endpoint}" in capsys.readouterr().out


@pytest.mark.parametrize(("number", "owner"), [("", "another-project"), ("123456789012", "210987654321")])
def test_what_other_projects_share_is_left_to_them(control: httpx2.Client, number: str, owner: str):
    """Of a metrics scope; whether Google calls the owner by its id or by its number."""
    start, hour = END - 10 * MINUTE, {"created": (END - HOUR).isoformat()}
    before, _ = collected(start, END, metrics=FEW)
    control.post("endpoints", json=hour | {"location": "us-central1", "name": "theirs", "owner": owner})
    control.post("number", json={"number": number}).raise_for_status()
    points, operator = collected(start, END, metrics=FEW)
    assert not operator.failures
    assert points == before
    assert not [source for source, *_ in points if "theirs" in source]


def test_whose_a_series_is_must_be_known(control: httpx2.Client):
    """By numbers alone, and without an endpoint that shows which is this project's, nothing is booked to it."""
    hour = {"created": (END - HOUR).isoformat(), "location": "africa-south1", "name": "theirs", "owner": "4711"}
    control.post("endpoints", json=hour)
    points, operator = collected(END - 10 * MINUTE, END, metrics=FEW, locations=["africa-south1"])
    assert not points
    [(part, error)] = operator.failures.items()
    assert part == "airis-sandbox/names"
    assert "cannot be told whose they are: africa-south1/" in str(error)
    assert "of project 4711" in str(error)


def test_an_endpoint_has_one_name_whether_it_has_replicas_in_the_window_or_not(control: httpx2.Client):
    """Its location is asked for as soon as it has any point; a deleted one is known by labels of other days."""
    start, hour = END - 10 * MINUTE, {"created": (END - HOUR).isoformat()}
    one = control.post("endpoints", json=hour | {"location": "asia-south1", "name": "silent one"}).json()["id"]
    gone = hour | {"location": "asia-south1", "name": "gone one", "deleted": (END - MINUTE).isoformat()}
    other = control.post("endpoints", json=gone).json()["id"]
    few = ["cpu_utilization", "prediction_count"]
    control.post("silence", json={"metric": "replicas", "from": start.isoformat()})
    points, operator = collected(start, END, metrics=few)
    control.delete("silence")
    assert not operator.failures
    names = {dict(tags)["endpoint_id"]: source for source, *_, tags in points}
    assert (names[one], names[other]) == ("gcp-vertex-silent one", "gcp-vertex-gone one")


def test_a_filter_that_nothing_meets_fails_by_name(control: httpx2.Client):
    _, operator = collected(END - 10 * MINUTE, END, metrics=FEW, endpoints=["fraud-*", "fruad-*"])
    [(part, error)] = operator.failures.items()
    assert part == "project airis-sandbox by connection google_cloud_default/endpoints"
    assert "endpoints names 'fruad-*', which nothing in" in str(error)


def test_only_the_configured_locations_are_asked_for(control: httpx2.Client):
    start = END - 10 * MINUTE
    points, _ = collected(start, END, metrics=FEW, locations=["us-central1"])
    assert points == truth(control, start, END, FEW, location="us-central1")
    assert control.get("calls").json()["ListEndpoints"] == 1


def test_a_quota_that_is_used_up_for_a_moment_is_waited_out(control: httpx2.Client):
    control.post("refusals", json={"containing": "cpu/utilization", "code": "RESOURCE_EXHAUSTED", "times": 1})
    points, operator = collected(END - 10 * MINUTE, END, metrics=["cpu_utilization"])
    assert points == truth(control, END - 10 * MINUTE, END, ["cpu_utilization"])
    assert not operator.failures


def test_an_outage_of_theirs_fails_the_task_before_every_metric_has_waited_for_it(
    control: httpx2.Client, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(retrying, "_wait", lambda _: 0)
    control.post("refusals", json={"code": "UNAVAILABLE"})
    with pytest.raises(RetryableError, match=r"ListMetricDescriptors of project airis-sandbox .* UNAVAILABLE"):
        collected(END - 10 * MINUTE, END)
    assert control.get("calls").json() == {"ListMetricDescriptors": 5}


def test_without_the_descriptors_everything_is_read_and_the_missing_right_is_named(control: httpx2.Client):
    control.post("refusals", json={"method": "ListMetricDescriptors"})
    points, operator = collected(END - 10 * MINUTE, END, metrics=FEW)
    assert points == truth(control, END - 10 * MINUTE, END, FEW)
    [(part, error)] = operator.failures.items()
    assert part == "airis-sandbox/ListMetricDescriptors"
    assert "lacks the permission monitoring.metricDescriptors.list (role roles/monitoring.viewer)" in str(error)


def test_points_that_are_not_visible_yet_are_not_lost_in_silence(control: httpx2.Client):
    """The newest minute is over, but Google shows it up to seven minutes later."""
    now = datetime.now(UTC)
    _, operator = collected(now - 5 * MINUTE, now, metrics=["cpu_utilization"])
    [(part, error)] = operator.failures.items()
    assert part == "airis-sandbox/cpu_utilization"
    assert isinstance(error, RetryableError)
    assert "become visible within 420 s" in str(error)
    _, operator = collected(now - 5 * MINUTE, now, metrics=["cpu_utilization"], lookback_s=900)
    assert not operator.failures


def test_what_google_has_deleted_or_does_not_have_is_told(control: httpx2.Client):
    with pytest.raises(PermanentError, match="Cloud Monitoring keeps Google's metrics for 6 weeks"):
        collected(END - timedelta(days=43), END - timedelta(days=42))
    with pytest.raises(PermanentError, match="metrics names request_count, which the catalog does not have"):
        collected(END - HOUR, END, metrics=["request_count"])
    with pytest.raises(PermanentError, match="percentiles has 90, which Cloud Monitoring does not compute"):
        collected(END - HOUR, END, percentiles=[90])
    points, _ = collected(END - HOUR, END, metrics=["prediction_latencies"], percentiles=[5])
    assert {dict(tags)["statistic"] for *_, tags in points} == {"ALIGN_PERCENTILE_05"}


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        (
            {"monitoring_endpoint": "http://monitoring.example.com", "is_anonymous": False},
            "only a loopback address is called without TLS",
        ),
        ({"monitoring_endpoint": "ftp://127.0.0.1"}, "is neither a host nor a URL"),
        ({"project": ""}, "No Google project: give project_id"),
        ({"is_anonymous": False, "keyfile_dict": "{"}, "gave no access token: Invalid key JSON"),
    ],
)
def test_a_connection_that_cannot_work_says_why(connect: Callable[..., str], extra: dict[str, Any], told: str):
    given = {"is_anonymous": True, "project": "airis-sandbox", **extra}
    connect("google_cloud_default", conn_type="google_cloud_platform", extra=given)
    works, said = VertexAIHook(project_id=given["project"] or None).test_connection()
    assert not works
    assert told in said


def test_a_key_that_is_not_taken_needs_somebody_and_a_token_service_that_is_down_passes(connect: Callable[..., str]):
    pem = rsa.generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    key = {
        "type": "service_account",
        "client_email": "airis@fraud-production.iam.gserviceaccount.com",
        "private_key": pem.decode(),
    }
    refusal = {"status": 400, "json": {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}}
    exchange = {"request": {"method": "POST", "path": "/token"}, "response": refusal}
    with Replay([exchange]) as server:
        extra = {"project": "fraud-production", "keyfile_dict": key | {"token_uri": f"{server.url}/token"}}
        connect("google_cloud_default", conn_type="google_cloud_platform", extra=extra)
        with pytest.raises(PermanentError, match=r"invalid_grant: Invalid JWT Signature.*renew the key") as refused:
            VertexAIHook().check()
    with pytest.raises(RetryableError, match="gave no access token") as down:
        VertexAIHook(timeout=2).check()
    assert key["private_key"] not in str(refused.value) + str(down.value)
