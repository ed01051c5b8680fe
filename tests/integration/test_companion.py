"""An AIRIS-MON of four calls and its companion: alerts come by signed webhooks, and go on to a receiver."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_airis import cli
from airflow_provider_airis.hooks.airis import AirisHook
from airflow_provider_airis.operators.dispatch import AirisDispatchOperator
from airflow_provider_airis.records import Event
from sandbox.process import Server
from tests.conftest import DocumentHub, Hub


@pytest.fixture
def companion(tmp_path: Path, connect: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub of its own, as the connection ``airis_alerts``, which the configuration names."""
    (tmp_path / "companion").mkdir()
    hub = Hub(tmp_path / "companion")
    connect("airis_alerts", conn_type="airis", host=hub.url, password=hub.token)
    monkeypatch.setenv("AIRFLOW__AIRIS__ALERTS_CONN_ID", "airis_alerts")
    yield hub
    hub.server.stop()


def register(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    status = cli.main(["webhooks", "register", *arguments])
    captured = capsys.readouterr()
    return status, captured.out + captured.err


def changes(hub: AirisHook) -> list[tuple[str, str, str]]:
    return [(one.change, one.alert.name, one.alert.severity) for one in hub.changes(after=0)[0]]


def test_an_alert_goes_through_the_companion_to_a_receiver(document, companion, connect, tmp_path, capsys, monkeypatch):
    """Fired, escalated, acknowledged and resolved at AIRIS-MON: once each at the receiver."""
    monkeypatch.setenv("AIRFLOW__AIRIS_WEBHOOK__SEVERITIES", "critical,high")
    assert register(capsys)[0] == 0
    (tmp_path / "secret").write_text("s3cret-of-the-receiver")
    with (
        Server("sandbox.webhook", "--secret-file", str(tmp_path / "secret")) as receiver,
        AirisHook("airis_alerts") as hub,
    ):
        connect(
            "webhook_default",
            conn_type="webhook",
            host=f"{receiver.url}/alerts",
            password="s3cret-of-the-receiver",
        )
        fired = document.tell("alerts", name="drift", severity="high", model_id="churn", description="d")
        assert fired["delivered"] == [200]
        dispatch()
        for body in ({"severity": "critical"}, {"status": "acknowledged"}, {"status": "resolved"}):
            assert document.tell("alerts", id=fired["id"], **body)["delivered"] == [200]
            dispatch()
        assert changes(hub) == [
            ("fired", "drift", "high"),
            ("severity_changed", "drift", "critical"),
            ("acknowledged", "drift", "critical"),
            ("resolved", "drift", "critical"),
        ]
        (alert,) = hub.alerts()
        assert (alert.source, alert.model_id, alert.description) == ("airis_default", "churn", "d")
        seen = json.loads(_get(f"{receiver.url}/_sandbox/requests"))
        assert [one["kind"] for one in seen] == ["fired", "severity_changed", "acknowledged", "resolved"]
        assert [one["repeated"] for one in seen] == [False] * 4
        dispatch()
        assert len(json.loads(_get(f"{receiver.url}/_sandbox/requests"))) == 4
    # Records go to AIRIS-MON, and nothing of the alerts does.
    with AirisHook() as hub:
        hub.event(Event("t", "s", "info", 1, {}, "k"))
    taken = document.taken()
    assert [event["source"] for event in taken["events"]] == ["s"]


def dispatch() -> None:
    AirisDispatchOperator(task_id="dispatch", system="webhook", linger_s=0.1, max_run_s=60).execute({})


def _get(url: str) -> bytes:
    import httpx2

    return httpx2.get(url).raise_for_status().content


def test_what_the_webhook_posts_again_after_an_outage_is_one_alert(document, companion, capsys):
    assert register(capsys)[0] == 0
    companion.server.stop()
    lost = document.tell("alerts", name="drift", severity="high", retries=0)
    assert lost["delivered"] == [0]
    companion.server = companion.start(companion.server.port)
    for _ in range(2):
        assert document.tell("alerts", id=lost["id"])["delivered"] == [200]
    with AirisHook("airis_alerts") as hub:
        assert changes(hub) == [("fired", "drift", "high")]


def test_registering_says_what_it_did_and_shows_no_secret(document, companion, capsys):
    status, said = register(capsys)
    assert status == 0
    assert f"{companion.url}/api/v1/inbound-webhooks/airis_default/alerts" in said
    assert "alerts_conn_id = airis_alerts" in said
    (webhook,) = document.taken()["webhooks"]
    assert webhook["name"] == "airflow-airis_default"
    assert webhook["events"] == ["alert.fired", "alert.severity_changed", "alert.acknowledged", "alert.resolved"]
    assert "whsec_" not in said
    status, said = register(capsys)
    assert status == 1
    assert "--again registers once more" in said
    assert len(document.taken()["webhooks"]) == 1
    assert register(capsys, "--again", "--url", companion.url)[0] == 0
    # Both secrets are valid, so both webhooks arrive, and the alert is one.
    assert document.tell("alerts", name="drift", severity="low")["delivered"] == [200, 200]
    with AirisHook("airis_alerts") as hub:
        assert changes(hub) == [("fired", "drift", "low")]


def test_what_airis_mon_refuses_is_not_registered_here(document, companion, capsys):
    document.tell("faults", call="webhooks", status=400, json={"error": "no"})
    status, said = register(capsys)
    assert status == 1
    assert "400" in said
    with AirisHook("airis_alerts") as hub:
        assert hub.webhooks.inbound() == {}
    assert register(capsys)[0] == 0


def test_a_registration_whose_answer_was_lost_says_so(document, companion, capsys):
    document.tell("faults", call="webhooks", status=503, applied=True)
    status, said = register(capsys)
    assert status == 1
    assert "is not known" in said
    # It was registered, and its posts are taken.
    assert document.tell("alerts", name="drift", severity="low")["delivered"] == [200]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--companion", "airis_default"], "cannot be its own companion"),
        (["--companion", "airis_missing"], "airis_missing"),
        (["--companion", "airis_document"], "takes no signed alerts: it cannot be a companion"),
        (["--name", "a b"], "/name"),
    ],
)
def test_what_cannot_be_registered_is_said(document, companion, connect, capsys, arguments, reason):
    connect("airis_document", conn_type="airis", host=document.url, password=document.token)
    status, said = register(capsys, *arguments)
    assert status == 1
    assert reason in said
    assert document.taken()["webhooks"] == []
    assert not re.search("whsec_|Traceback", said)


def test_a_secret_that_airis_mon_quotes_is_not_shown(document, companion, capsys, monkeypatch):
    monkeypatch.setattr("secrets.token_urlsafe", lambda _: "quoted-by-the-hub-in-its-answer")
    document.tell(
        "faults", call="webhooks", status=400, json={"error": "secret whsec_quoted-by-the-hub-in-its-answer is bad"}
    )
    status, said = register(capsys)
    assert status == 1
    assert "quoted-by-the-hub" not in said
    assert "secret *** is bad" in said


def test_without_a_companion_the_dispatch_says_what_is_missing(document, connect):
    connect("webhook_default", conn_type="webhook", host="http://127.0.0.1:1/alerts", password="s" * 16)
    with pytest.raises(Exception, match="alerts are sent from a companion hub"):
        dispatch()


def test_who_asks_for_alerts_asks_the_companion(document: DocumentHub, companion: Hub) -> None:
    from airflow_provider_airis import assets
    from airflow_provider_airis.notifications.airis import AirisNotifier
    from airflow_provider_airis.sensors.alerts import AirisAlertSensor

    makers: list[Any] = [
        AirisAlertSensor(task_id="s", system="slack"),
        AirisDispatchOperator(task_id="d", system="slack"),
        AirisNotifier(),
        assets.alerts("a").watchers[0].trigger,
    ]
    assert {maker.airis_conn_id for maker in makers} == {"airis_alerts"}
    assert AirisAlertSensor(task_id="s", system="slack", airis_conn_id="other").airis_conn_id == "other"
