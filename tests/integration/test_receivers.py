"""Alerts of a real hub, delivered to the stand-ins of Slack and PagerDuty by the operators, over sockets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import monotonic
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_airis.errors import RetryableError
from airflow_provider_airis.hooks.airis import AirisHook
from airflow_provider_airis.hooks.slack import SlackHook
from airflow_provider_airis.operators.pagerduty import AirisToPagerDutyOperator
from airflow_provider_airis.operators.slack import AirisToSlackOperator
from airflow_provider_airis.records import Notification
from sandbox.process import Server
from tests.contract.peers import Silent

TOKEN = "xoxb-integration-secret"
KEY = "k3yk3yk3yk3yk3yk3yk3yk3yk3yk3y12"


class StandIn:
    """A stand-in's process and its control calls."""

    def __init__(self, module: str) -> None:
        self.server = Server(module)
        self.url = self.server.url
        self.http = httpx2.Client(base_url=self.url)

    def seen(self) -> list[dict[str, Any]]:
        return self.http.get("/_sandbox/requests").json()

    def fault(self, call: str, **what: Any) -> None:
        self.http.post("/_sandbox/faults", json={"call": call, **what}).raise_for_status()

    def stop(self) -> None:
        self.http.close()
        self.server.stop()


@pytest.fixture
def slack(connect: Callable[..., str]) -> Iterator[StandIn]:
    stand_in = StandIn("sandbox.slack")
    connect("slack_default", conn_type="slack", password=TOKEN, extra={"base_url": f"{stand_in.url}/api/"})
    yield stand_in
    stand_in.stop()


@pytest.fixture
def pagerduty(connect: Callable[..., str]) -> Iterator[StandIn]:
    stand_in = StandIn("sandbox.pagerduty")
    connect("pagerduty_events_default", conn_type="pagerduty_events", host=stand_in.url, password=KEY)
    yield stand_in
    stand_in.stop()


@pytest.fixture
def fire(hub: Any, airis: str, request: pytest.FixtureRequest) -> Callable[..., str]:
    """Raises an alert at the hub and returns its id."""

    def fire(**fields: Any) -> str:
        body = {"name": "Latency is high", "severity": "critical", "fingerprint": request.node.nodeid, **fields}
        answer = httpx2.post(f"{hub.url}/api/v1/alerts", json=body, headers={"Authorization": f"Bearer {hub.token}"})
        assert answer.is_success, answer.text
        return answer.json()["id"]

    return fire


def to_slack(alert_id: str, *, tries: int = 1, **fields: Any) -> dict[str, Any]:
    task = AirisToSlackOperator(task_id="slack", alert_id=alert_id, target="#alerts", **fields)
    return task.execute({"ti": SimpleNamespace(try_number=tries, max_tries=3)})


def to_pagerduty(alert_id: str, *, tries: int = 1) -> dict[str, Any]:
    task = AirisToPagerDutyOperator(task_id="pagerduty", alert_id=alert_id, target="pagerduty_events_default")
    return task.execute({"ti": SimpleNamespace(try_number=tries, max_tries=3)})


def ledger(alert_id: str) -> list[Notification]:
    with AirisHook() as hub:
        return hub.alert(alert_id).notifications


def test_one_alert_is_one_slack_message_from_firing_to_resolved(slack, fire):
    alert_id = fire(model_id="fraud", environment="production", description="p90 over 2 s")
    posted = to_slack(alert_id)
    with AirisHook() as hub:
        hub.acknowledge(alert_id, by="ada")
        assert to_slack(alert_id)["reference"] == posted["reference"]
        hub.resolve(alert_id)
        assert to_slack(alert_id)["reference"] == posted["reference"]
    message, acknowledged, resolved = slack.seen()
    assert [message["kind"], acknowledged["kind"], resolved["kind"]] == ["message", "update", "update"]
    assert {m["ts"] for m in (message, acknowledged, resolved)} == {message["ts"]}
    assert message["blocks"][0]["text"]["text"] == "🚨 CRITICAL Alert"
    assert "ada" in str(acknowledged["blocks"])
    assert resolved["blocks"][0]["text"]["text"].startswith("✅ Resolved")
    assert [(n.channel, n.target, n.status) for n in ledger(alert_id)] == [("slack", "#alerts", "resolved")]


def test_one_alert_is_one_incident_from_firing_to_resolved(pagerduty, fire):
    alert_id = fire(severity="high", model_id="fraud")
    to_pagerduty(alert_id)
    with AirisHook() as hub:
        hub.acknowledge(alert_id, by="ada")
        to_pagerduty(alert_id)
        hub.resolve(alert_id)
        to_pagerduty(alert_id)
    assert [event["kind"] for event in pagerduty.seen()] == ["trigger", "acknowledge", "resolve"]
    (incident,) = pagerduty.http.get("/_sandbox/incidents").json()
    assert incident["dedup_key"] == f"airis-mon-{alert_id}"
    assert incident["status"] == "resolved"
    assert incident["payload"]["severity"] == "error"
    assert incident["payload"]["custom_details"]["alert_id"] == alert_id


def test_delivering_again_sends_nothing_more(slack, pagerduty, fire):
    alert_id = fire()
    for _ in range(3):
        to_slack(alert_id)
        to_pagerduty(alert_id)
    assert len(slack.seen()) == 1
    assert len(pagerduty.seen()) == 1


def test_what_was_resolved_before_anybody_heard_of_it_is_not_sent(slack, pagerduty, fire):
    alert_id = fire()
    with AirisHook() as hub:
        hub.resolve(alert_id)
    assert to_slack(alert_id)["reference"] is None
    assert to_pagerduty(alert_id)["reference"] is None
    assert slack.seen() == []
    assert pagerduty.seen() == []


def test_a_message_that_was_posted_but_not_confirmed_is_found_again(slack, fire):
    alert_id = fire()
    slack.fault("chat.postMessage", status=503, applied=True)
    with pytest.raises(RetryableError):
        to_slack(alert_id)
    to_slack(alert_id, tries=2)
    assert [request["kind"] for request in slack.seen()] == ["message", "update"]
    assert ledger(alert_id)[0].status == "firing"


def test_without_the_scope_to_look_it_is_posted_again_rather_than_lost(slack, fire):
    alert_id = fire()
    slack.http.post("/_sandbox/tokens", json={"token": TOKEN, "scopes": ["chat:write"]})
    slack.fault("chat.postMessage", status=503, applied=True)
    with pytest.raises(RetryableError):
        to_slack(alert_id)
    to_slack(alert_id, tries=2)
    assert [request["kind"] for request in slack.seen()] == ["message", "message"]


def test_a_rate_limit_is_waited_for(slack, pagerduty, fire):
    alert_id = fire()
    slack.fault(
        "chat.postMessage", status=429, headers={"Retry-After": "1"}, json={"ok": False, "error": "ratelimited"}
    )
    pagerduty.fault("enqueue", status=429, headers={"Retry-After": "1"}, json={"status": "throttle exceeded"})
    to_slack(alert_id)
    to_pagerduty(alert_id)
    assert len(slack.seen()) == len(pagerduty.seen()) == 1


def test_a_refusal_with_status_200_fails_the_task_for_good_and_is_reported(slack, fire, hub, caplog):
    alert_id = fire()
    slack.fault("chat.postMessage", status=200, json={"ok": False, "error": "channel_not_found"})
    with pytest.raises(AirflowFailException, match="channel_not_found: check the channel's name") as failure:
        to_slack(alert_id)
    assert TOKEN not in str(failure.value) + caplog.text
    assert ledger(alert_id)[0].status == "failed"
    reported = events(hub, "notification_failed", alert_id)
    assert [event["data"]["target"] for event in reported] == ["#alerts"]
    to_slack(alert_id)
    assert [request["kind"] for request in slack.seen()] == ["message"]
    assert ledger(alert_id)[0].status == "firing"


def test_an_event_that_pagerduty_calls_invalid_fails_the_task_for_good(pagerduty, fire, caplog):
    alert_id = fire()
    invalid = {"status": "invalid event", "message": "Event object is invalid", "errors": ["'severity' is wrong"]}
    pagerduty.fault("enqueue", status=400, json=invalid)
    with pytest.raises(AirflowFailException, match=r"400.*'severity' is wrong") as failure:
        to_pagerduty(alert_id)
    assert KEY not in str(failure.value) + caplog.text


def test_an_error_that_passes_is_left_to_airflow_and_reported_only_at_the_last_try(pagerduty, fire, hub):
    alert_id = fire()
    pagerduty.fault("enqueue", times=4, status=500)
    with pytest.raises(RetryableError):
        to_pagerduty(alert_id, tries=1)
    assert events(hub, "notification_failed", alert_id) == []
    with pytest.raises(RetryableError):
        to_pagerduty(alert_id, tries=4)
    assert len(events(hub, "notification_failed", alert_id)) == 1
    to_pagerduty(alert_id)
    assert [event["kind"] for event in pagerduty.seen()] == ["trigger"]


def test_an_incident_that_was_triggered_but_not_written_down_is_resolved(pagerduty, fire):
    alert_id = fire()
    pagerduty.fault("enqueue", times=2, status=503, applied=True)
    with pytest.raises(RetryableError):
        to_pagerduty(alert_id)
    with AirisHook() as hub:
        hub.resolve(alert_id)
    to_pagerduty(alert_id, tries=2)
    (incident,) = pagerduty.http.get("/_sandbox/incidents").json()
    assert incident["status"] == "resolved"


def test_a_message_that_was_posted_but_not_written_down_shows_the_end(slack, fire):
    alert_id = fire()
    slack.fault("chat.postMessage", status=503, applied=True)
    with pytest.raises(RetryableError):
        to_slack(alert_id)
    with AirisHook() as hub:
        hub.resolve(alert_id)
    assert to_slack(alert_id, tries=2)["reference"]
    assert [request["kind"] for request in slack.seen()] == ["message", "update"]
    assert slack.seen()[1]["blocks"][0]["text"]["text"].startswith("✅ Resolved")


def test_what_was_resolved_after_a_try_that_sent_nothing_is_not_sent(slack, fire):
    alert_id = fire()
    with AirisHook() as hub:
        hub.resolve(alert_id)
    assert to_slack(alert_id, tries=2)["reference"] is None
    assert slack.seen() == []


def test_a_delivery_that_failed_for_good_is_looked_for_by_the_next_run(slack, fire):
    alert_id = fire()
    slack.fault("chat.postMessage", status=503, applied=True)
    with pytest.raises(RetryableError):
        to_slack(alert_id, tries=4)
    assert [(n.status, n.reference) for n in ledger(alert_id)] == [("failed", "")]
    to_slack(alert_id, tries=1)
    assert [request["kind"] for request in slack.seen()] == ["message", "update"]


def test_a_deleted_message_is_posted_anew_but_not_for_its_end(slack, fire):
    alert_id = fire()
    posted = to_slack(alert_id)["reference"]
    slack.fault("chat.update", times=2, status=200, json={"ok": False, "error": "message_not_found"})
    with AirisHook() as hub:
        hub.acknowledge(alert_id, by="ada")
        anew = to_slack(alert_id)["reference"]
        hub.resolve(alert_id)
        assert to_slack(alert_id)["reference"] == anew != posted
    assert [request["kind"] for request in slack.seen()] == ["message", "message"]
    assert ledger(alert_id)[0].status == "resolved"


@pytest.mark.parametrize(("extra", "holds"), [({}, 0.5), ({"timeout": 1}, 1.0)])
def test_a_slack_that_does_not_answer_is_left_after_the_connections_timeout_if_it_names_one(connect, extra, holds):
    with Silent() as peer:
        connect("slack_default", conn_type="slack", password=TOKEN, extra={"base_url": f"{peer.url}/api/", **extra})
        started = monotonic()
        with pytest.raises(RetryableError, match="got no answer"):
            SlackHook(timeout=0.5).call("auth.test")
    assert holds <= monotonic() - started < 10


def test_a_wait_that_slack_asks_for_is_bounded(slack, fire):
    alert_id = fire()
    limited = {"ok": False, "error": "ratelimited"}
    slack.fault("chat.postMessage", status=429, headers={"Retry-After": "86400"}, json=limited)
    with pytest.raises(RetryableError, match="ratelimited"):
        to_slack(alert_id)


@pytest.mark.parametrize("password", ["", "too-short", "a key with spaces in it, 32 long"])
def test_a_key_that_is_none_is_refused_before_anything_is_sent(pagerduty, fire, connect, password):
    connect("pagerduty_events_default", conn_type="pagerduty_events", host=pagerduty.url, password=password)
    with pytest.raises(AirflowFailException, match="no integration key of 32 letters and digits"):
        to_pagerduty(fire())
    assert pagerduty.seen() == []


def test_hostile_and_endless_text_is_shown_as_text_within_the_vendors_limits(slack, pagerduty, fire):
    hostile = "<!channel> & <https://evil.example|click> *bold*\n"
    alert_id = fire(name=hostile * 4, description=hostile * 200, model_id=None)
    to_slack(alert_id)
    to_pagerduty(alert_id)
    (message,), (event,) = slack.seen(), pagerduty.seen()
    assert "<!channel>" not in str(message["blocks"]) + message["text"]
    assert "&lt;!channel&gt;" in str(message["blocks"])
    assert message["blocks"][2]["text"]["text"].endswith("…")
    assert len(event["payload"]["summary"]) <= 1024


def events(hub: Any, event_type: str, alert_id: str) -> list[dict[str, Any]]:
    answer = httpx2.get(
        f"{hub.url}/api/v1/events/changes", params={"limit": 500}, headers={"Authorization": f"Bearer {hub.token}"}
    )
    assert answer.is_success, answer.text
    changes = [change.get("event", change) for change in answer.json()["changes"]]
    return [e for e in changes if e["event_type"] == event_type and e["data"]["alert_id"] == alert_id]
