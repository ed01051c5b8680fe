"""The demo's verdict: what is missing, changed or doubled in the hub is found, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from airflow_provider_airis.hooks.airis import AirisHook
from airflow_provider_airis.operators.sagemaker import SageMakerToAirisOperator
from airflow_provider_airis.records import Metric, Window
from sandbox.demo.report import Report, counted
from sandbox.fake import Running
from sandbox.process import Server
from sandbox.sagemaker import PEER
from sandbox.topology import PEERS, connections, generate_secrets, hub_arguments
from sandbox.verify import Tally

PEERS_TOLD = [peer for peer in PEERS if peer.stem in {"slack", "pagerduty"}]
WINDOW = Window(1_795_046_400_000, 1_795_050_000_000)


class Setup:
    """A stand-in with one hour of two endpoints, and a hub."""

    def __init__(self, sagemaker: Running, hub: httpx2.Client) -> None:
        self.sagemaker = sagemaker
        self.hub = hub
        operator = SageMakerToAirisOperator(task_id="read", region_name="us-east-1")
        self.published = [record for record in operator.collect(WINDOW) if isinstance(record, Metric)]

    def deliver(self, points: list[Metric]) -> Tally:
        with AirisHook("airis_default") as hook:
            hook.ingest(points)
        assert PEER.truth is not None
        return PEER.truth(self.sagemaker, self.hub, [WINDOW])


@pytest.fixture
def setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Setup]:
    secrets = generate_secrets(tmp_path / "secrets")
    hour = ("--history-from", "2026-11-19T00:00Z", "--history-until", "2026-11-19T01:00Z", "--now", "2026-11-20T00:00Z")
    with (
        Server("sandbox.sagemaker", "--endpoints", "2", *hour) as sagemaker,
        Server(
            "airflow_provider_airis.hub", "--port", "0", *hub_arguments(tmp_path / "secrets", tmp_path / "hub.db")
        ) as hub,
        httpx2.Client(base_url=hub.url, headers={"Authorization": f"Bearer {secrets['hub_token']}"}) as client,
    ):
        made = connections(secrets, hub=hub.url, dashboard="", peers={"sagemaker": sagemaker.url})
        for conn_id in ("airis_default", "aws_default"):
            monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(made[conn_id]))
        yield Setup(Running(sagemaker.url, tmp_path / "secrets"), client)


def test_a_whole_delivery(setup: Setup) -> None:
    tally = setup.deliver(setup.published)
    assert tally.published == tally.in_hub == len(setup.published) > 1000
    assert (tally.missing, tally.doubled, tally.examples) == (0, 0, [])


def test_what_is_wrong(setup: Setup) -> None:
    _lost, changed, *kept = setup.published
    elsewhere = Metric(kept[0].source, kept[0].name, 1.0, kept[0].unit, {**kept[0].tags, "x": "y"}, kept[0].timestamp)
    wrong = Metric(changed.source, changed.name, changed.value + 1, changed.unit, changed.tags, changed.timestamp)
    tally = setup.deliver([wrong, elsewhere, *kept])
    assert (tally.missing, tally.doubled) == (2, 1)
    assert tally.in_hub == tally.published
    assert {example.partition(":")[0] for example in tally.examples} == {"missing", "doubled"}


def test_a_row_stored_twice() -> None:
    tally = Tally()
    tally.add(("aws-sagemaker-fraud", "invocations", frozenset()), {60_000: 1.0}, [(60_000, 1.0), (60_000, 1.0)])
    assert (tally.published, tally.in_hub, tally.missing, tally.doubled) == (1, 2, 0, 1)


GOOD = Report(
    points_published=10,
    points_in_hub=10,
    backfill_runs=2,
    alerts_fired=1,
    deliveries={"slack_messages": 1, "slack_updates": 2, "pagerduty_events": 2},
    expected={"backfill_runs": 2, "alerts_fired": 1, **counted(PEERS_TOLD, ["fired", "acknowledged", "resolved"])},
)


def test_the_verdict() -> None:
    assert GOOD.faults() == []
    assert len(Report(expected=GOOD.expected).faults()) == 6
    for name in ("points_missing", "points_doubled", "backfill_runs", "alerts_fired"):
        wrong = replace(GOOD, **{name: 3})
        assert wrong.faults() == [f"{name} is 3, not {GOOD.expected.get(name, 0)}"]
    for name, number in GOOD.deliveries.items():
        wrong = replace(GOOD, deliveries=GOOD.deliveries | {name: 3})
        assert wrong.faults() == [f"{name} is 3, not {number}"]


def test_who_acknowledges_nothing_is_told_of_nothing_acknowledged() -> None:
    told = counted(PEERS_TOLD, ["fired", "resolved"])
    assert told == {"slack_messages": 1, "slack_updates": 1, "pagerduty_events": 2}
