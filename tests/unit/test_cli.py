"""The command `airis`, run as users run it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from pathlib import Path

import httpx2
import pytest
from airflow.cli.cli_parser import get_parser

from airflow_provider_airis import __version__, cli, planning
from airflow_provider_airis.catalog import BY_STEM, SYSTEMS, System
from airflow_provider_airis.hooks import vertex_ai
from airflow_provider_airis.operators.sagemaker import SageMakerToAirisOperator
from airflow_provider_airis.operators.vertex_ai import VertexAIToAirisOperator
from airflow_provider_airis.records import Metric, Window, from_ms, iso
from sandbox.airflow import free_port
from sandbox.process import Server, serve
from sandbox.topology import PEERS, commands, connections, generate_secrets, hub_arguments


def airis(*arguments: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "airflow_provider_airis.cli", *arguments],
        env={**os.environ, "AIRFLOW_HOME": str(home), "NO_COLOR": "1", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_help_and_version(tmp_path: Path) -> None:
    shown = airis("--help", home=tmp_path)
    assert shown.returncode == 0
    assert all(
        re.search(rf"^    {command}\s", shown.stdout, re.MULTILINE)
        for command in ("hub", "systems", "check", "plan-backfill")
    )
    assert airis("--version", home=tmp_path).stdout == f"airis {__version__}\n"
    assert airis(home=tmp_path).returncode == 2
    assert "--tokens" in airis("hub", "--help", home=tmp_path).stdout


def test_systems_is_the_catalog_and_imports_no_airflow(tmp_path: Path) -> None:
    script = "import sys, airflow_provider_airis.cli as cli; cli.main(['systems']); assert 'airflow' not in sys.modules"
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    header, *rows = shown.stdout.splitlines()
    assert header.split()[:2] == ["SYSTEM", "FACETS"]
    assert [row.split()[:3] for row in rows] == [
        [s.stem, ",".join(s.facets) or "hub", s.connection.type] for s in SYSTEMS
    ]


@pytest.mark.parametrize(
    ("connection", "answer"),
    [
        (None, "Connection my_hub does not exist: create it"),
        ({"conn_type": "ftp", "host": "127.0.0.1"}, "has type 'ftp'"),
        ({"conn_type": "airis", "host": "http://127.0.0.1:{port}", "password": "s3cret-token"}, "127.0.0.1"),
    ],
)
def test_check_says_why_not(tmp_path: Path, connection: dict[str, str] | None, answer: str) -> None:
    text = json.dumps(connection).replace("{port}", str(free_port()))
    shown = airis("check", "my_hub", home=tmp_path, **({"AIRFLOW_CONN_MY_HUB": text} if connection else {}))
    assert shown.returncode == 1
    last = shown.stderr.splitlines()[-1]
    assert "my_hub" in last
    assert answer in last
    assert "s3cret-token" not in shown.stdout + shown.stderr


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, str]]]:
    """The demo's connections, to servers that run."""
    tmp = tmp_path_factory.mktemp("sandbox")
    made = generate_secrets(tmp / "secrets")
    secrets = str(tmp / "secrets")
    times = dict.fromkeys(("history_from", "history_until", "live_from"), "2026-11-19T00:00Z")
    peers = [peer for peer in PEERS if not peer.missing]
    places = {"secrets": secrets, "api": "http://127.0.0.1:9", **times}
    servers = commands(peers, lambda _: 0, **places)
    hub = ("airflow_provider_airis.hub", "--port", "0", *hub_arguments(secrets, tmp / "hub.db"))
    with serve(servers | {"airis": hub}) as running:
        addresses = {stem: server.url for stem, server in running.items()} | running["fakes"].urls
        yield connections(made, hub=addresses["airis"], dashboard="", peers=addresses)


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.stem)
def test_check_of_what_works(tmp_path: Path, sandbox: dict[str, dict[str, str]], system: System) -> None:
    conn_id = system.default_conn_id
    if conn_id not in sandbox:
        pytest.skip(f"what {system.title} needs is not installed")
    shown = airis("check", conn_id, home=tmp_path, **{f"AIRFLOW_CONN_{conn_id.upper()}": json.dumps(sandbox[conn_id])})
    assert shown.returncode == 0, shown.stderr
    (line,) = shown.stdout.splitlines()
    assert line.startswith(f"{conn_id} ({system.title}): ")


def test_check_of_a_token_that_is_none(tmp_path: Path, sandbox: dict[str, dict[str, str]]) -> None:
    wrong = sandbox["airis_default"] | {"password": "s3cret-token"}
    shown = airis("check", home=tmp_path, AIRFLOW_CONN_AIRIS_DEFAULT=json.dumps(wrong))
    assert shown.returncode == 1
    assert "token" in shown.stderr
    assert "s3cret-token" not in shown.stdout + shown.stderr


TODAY = datetime.now(UTC).date()


@pytest.fixture(scope="module")
def cloud() -> Iterator[httpx2.Client]:
    """The stand-in of SageMaker, in two regions."""
    regions = ("us-east-1", "eu-west-1")
    with (
        Server("sandbox.sagemaker", "--endpoints", "3", "--regions", *regions) as server,
        httpx2.Client(base_url=server.url, timeout=60) as client,
    ):
        yield client


@pytest.fixture
def configured(cloud: httpx2.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both regions, and the stand-in behind the default connection."""
    connection = {
        "conn_type": "aws",
        "login": "AKIAIOSFODNN7EXAMPLE",
        "password": "s3cret-key",
        "extra": {"endpoint_url": str(cloud.base_url), "config_kwargs": {"retries": {"total_max_attempts": 1}}},
    }
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(connection))
    monkeypatch.setenv("AIRFLOW__AIRIS_SAGEMAKER__REGIONS", "us-east-1, eu-west-1")
    # The command sets these for a process of its own.
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "client")
    monkeypatch.setenv("AIRFLOW__LOGGING__LOGGING_LEVEL", "ERROR")


def days(first: int, last: int) -> tuple[str, ...]:
    """The options for the days so long before today."""
    return ("--from", str(TODAY - timedelta(days=first)), "--to", str(TODAY - timedelta(days=last)))


def kept_by_the_minute() -> int:
    """Days until yesterday that begin within the last 15 days, and still do after the hour that a read may take."""
    first = datetime.combine(TODAY, time(), UTC)
    return (first - datetime.now(UTC) + timedelta(days=15, hours=-1)).days


def plan(*arguments: str) -> int:
    return cli.main(["plan-backfill", "--source", "sagemaker", *arguments])


def test_a_plan_has_the_periods_by_age_and_bills_nothing(
    cloud: httpx2.Client, configured: None, tmp_path: Path
) -> None:
    cloud.delete("/_sandbox/calls")
    before = kept_by_the_minute()
    shown = airis("plan-backfill", "--source", "sagemaker", *days(470, 1), "--json", home=tmp_path)
    assert (shown.returncode, shown.stderr) == (0, "")
    planned = json.loads(shown.stdout)
    calls = cloud.get("/_sandbox/calls").json()
    assert not [name for name in calls if name.endswith("GetMetricData")]
    assert [name for name in calls if name.endswith("ListMetrics")]

    assert (planned["source"], planned["dag_id"]) == ("sagemaker", "airis_reconcile_sagemaker")
    assert planned["runs"] + planned["deleted"] == 470
    command = ("airflow", "backfill", "create", "--dag-id", planned["dag_id"])
    chosen = ("--from-date", *days(planned["runs"], 1)[1:2], "--to-date", *days(1, 1)[1:2], "--max-active-runs", "4")
    assert planned["command"].split() == [*command, *chosen]
    assert get_parser().parse_args([*command[1:], *chosen]).dag_id == planned["dag_id"]

    east, west = planned["parts"]
    assert (east["reads"]["region_name"], west["reads"]["region_name"]) == ("us-east-1", "eu-west-1")
    assert [stretch["period_s"] for stretch in east["stretches"]] == [None, 3600, 300, 60]
    lengths = {stretch["period_s"]: stretch["days"] for stretch in east["stretches"]}
    assert lengths.pop(None) == planned["deleted"]
    assert sum(lengths.values()) == planned["runs"]
    assert lengths[60] in (before, kept_by_the_minute())
    for part in (east, west):
        assert part["points"] == part["series"] * sum(n * 86_400 // period for period, n in lengths.items())
        assert part["dollars"] == pytest.approx(part["series"] * planned["runs"] * 0.01 / 1000)
    assert planned["series"] == east["series"] + west["series"] > 0


def test_a_plan_for_people_ends_with_the_command(cloud: httpx2.Client, configured: None, tmp_path: Path) -> None:
    shown = airis("plan-backfill", "--source", "sagemaker", *days(460, 1), home=tmp_path)
    assert (shown.returncode, shown.stderr) == (0, "")
    for piece in ("us-east-1", "eu-west-1", "together", "Dollars, at most", "5 minutes wide", "deleted by the source"):
        assert piece in shown.stdout
    assert shown.stdout.splitlines()[-1].startswith("airflow backfill create --dag-id airis_reconcile_sagemaker ")


def test_the_figures_of_a_planned_day_are_those_of_its_run(cloud: httpx2.Client, configured: None) -> None:
    day = TODAY - timedelta(days=2)
    planned = planning.plan(BY_STEM["sagemaker"], day, day, parts={"region": ["eu-west-1"]})
    (part,) = planned.parts
    start = datetime.combine(day, time(), UTC)
    times = {"start": start.isoformat(), "end": (start + timedelta(days=1)).isoformat()}
    run = SageMakerToAirisOperator(task_id="run", region_name="eu-west-1", **times)
    points = sum(isinstance(record, Metric) for record in run.collect(run.window({})))
    assert points <= part.points
    assert run.summary()["metrics_requested"] == part.series
    assert run.summary()["estimated_usd"] == part.dollars


def test_a_region_that_is_denied_is_named_and_the_others_are_planned(
    cloud: httpx2.Client, configured: None, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.post("/_sandbox/deny", json={"region": "eu-west-1"})
    try:
        assert plan(*days(3, 1)) == 1
    finally:
        cloud.delete("/_sandbox/deny")
    shown = capsys.readouterr()
    assert re.search(r"^eu-west-1/ListEndpoints: .* lacks the permission \S+ in eu-west-1", shown.err, re.MULTILINE)
    assert "us-east-1" in shown.out
    assert "airflow backfill create" in shown.out


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        # Also where midnight has passed since TODAY.
        (days(3, -1), "is not over yet"),
        ((*days(3, 1), "--project", "x"), "airis_reconcile_sagemaker does not read by project"),
        ((*days(3, 1), "--conn-id", "aws_nobody"), "aws_nobody"),
        ((*days(3, 1), "--region", "mars-1"), "'mars-1' is no AWS region"),
    ],
)
def test_what_cannot_be_planned_says_why(
    configured: None, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], answer: str
) -> None:
    assert plan(*arguments) == 1
    assert answer in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (("--source", "slack", *days(2, 1)), "invalid choice: 'slack'"),
        (("--source", "sagemaker", "--from", "soon", "--to", "2026-11-02"), "'soon' is not a day like 2026-11-01"),
        (("--source", "sagemaker", *days(1, 2)), "is after --to"),
    ],
)
def test_a_plan_takes_days_and_sources_only(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], answer: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["plan-backfill", *arguments])
    assert ended.value.code == 2
    assert answer in capsys.readouterr().err


@pytest.fixture(scope="module")
def google() -> Iterator[httpx2.Client]:
    """The stand-in of Vertex AI, with a history of three days."""
    history = ("--history-from", f"{TODAY - timedelta(days=3)}", "--history-until", f"{TODAY}")
    with (
        Server("sandbox.vertex_ai", "--endpoints", "3", *history) as server,
        httpx2.Client(base_url=f"{server.url}/_sandbox/", timeout=60) as client,
    ):
        yield client


@pytest.fixture
def project(google: httpx2.Client, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx2.Client]:
    """Its project behind the default connection, and a stand-in that has counted no call yet."""
    extra = {"is_anonymous": True, "project": "airis-sandbox"}
    extra |= dict.fromkeys(("monitoring_endpoint", "aiplatform_endpoint"), f"http://{google.base_url.netloc.decode()}")
    monkeypatch.setenv(
        "AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT", json.dumps({"conn_type": "google_cloud_platform", "extra": extra})
    )
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "client")
    monkeypatch.setenv("AIRFLOW__LOGGING__LOGGING_LEVEL", "ERROR")
    google.delete("calls")
    yield google
    google.delete("refusals")


def yesterday() -> Window:
    end = datetime.combine(TODAY, time(), UTC)
    return Window.between(end - timedelta(days=1), end)


def test_a_plan_of_vertex_ai_has_six_weeks_in_minutes_and_reads_no_point(project: httpx2.Client) -> None:
    span = TODAY - timedelta(days=50), TODAY - timedelta(days=1)
    planned = json.loads(planning.plan(BY_STEM["vertex_ai"], *span, parts={}).json())
    calls = project.get("calls").json()
    (part,) = planned["parts"]
    assert (planned["dag_id"], part["missing"]) == ("airis_reconcile_vertex_ai", {})
    # The oldest day is left out in the last hour before Google deletes the first of it.
    assert planned["runs"] in (40, 41)
    assert planned["deleted"] == 50 - planned["runs"]
    assert [stretch["period_s"] for stretch in part["stretches"]] == [None, 60]
    chosen = ("--from-date", *days(planned["runs"], 1)[1:2], "--to-date", *days(1, 1)[1:2], "--max-active-runs", "4")
    assert planned["command"].split()[5:] == [*chosen]
    day = yesterday()
    truth = project.get("published", params={"from": iso(day.start), "to": iso(day.end)}).json()
    assert part["series"] == truth["series"]
    assert part["points"] == part["series"] * planned["runs"] * 1440 >= truth["points"] * planned["runs"]
    # Of each series, that it is there: less than one of the planned runs asks for.
    assert calls.pop("points") < 2 * truth["series"]
    assert sum(calls.values()) < part["calls"] / planned["runs"]


def test_the_figures_of_a_planned_day_of_vertex_ai_are_those_of_its_run(
    project: httpx2.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vertex_ai, "MAX_POINTS", 5_000)
    day = yesterday()
    times = {"start": from_ms(day.start).isoformat(), "end": from_ms(day.end).isoformat()}
    run = VertexAIToAirisOperator(task_id="run", metrics=["prediction_latencies", "replicas"], **times)
    (planned,) = run.plan([day])
    project.delete("calls")
    series, points = set[tuple[object, ...]](), 0
    for record in run.collect(run.window({})):
        assert isinstance(record, Metric)
        series.add((record.source, record.name, *record.tags.items()))
        points += 1
    assert not run.failures
    assert planned.series == len(series)
    assert planned.points == len(series) * 1440 >= points > 3 * 5_000
    assert planned.calls == run.summary()["google_calls"]
    assert planned.dollars == pytest.approx(run.summary()["series_returned"] * 0.5 / 1_000_000)


def test_a_project_of_vertex_ai_that_is_denied_is_named(
    project: httpx2.Client, capsys: pytest.CaptureFixture[str]
) -> None:
    project.post("refusals", json={"method": "ListTimeSeries"})
    assert cli.main(["plan-backfill", "--source", "vertex_ai", *days(3, 1), "--project", "airis-sandbox"]) == 1
    shown = capsys.readouterr()
    assert re.search(r"^airis-sandbox/ListTimeSeries: .*PERMISSION_DENIED", shown.err, re.MULTILINE)
