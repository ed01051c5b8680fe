"""Alerts of a real hub, delivered to the stand-ins of Slack and PagerDuty by the operators, over sockets."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_airis.catalog import BY_STEM
from airflow_provider_airis.channels.base import open_channel
from airflow_provider_airis.channels.slack import DRAWN_AT_ONCE, SlackChannel
from airflow_provider_airis.channels.view import AlertView
from airflow_provider_airis.errors import PermanentError, RetryableError
from airflow_provider_airis.hooks.airis import AirisHook
from airflow_provider_airis.hooks.slack import SlackHook
from airflow_provider_airis.operators.pagerduty import AirisChangesToPagerDutyOperator, AirisToPagerDutyOperator
from airflow_provider_airis.operators.slack import AirisToSlackOperator
from airflow_provider_airis.records import Event, Metric, Notification
from airflow_provider_airis.settings import ChannelOptions
from sandbox.process import Server
from tests.contract.peers import Silent

TOKEN = "xoxb-integration-secret"
URL = "https://hub.example.com"
KEY = "k3yk3yk3yk3yk3yk3yk3yk3yk3yk3y12"


class StandIn:
    """A stand-in's process and its control calls."""

    def __init__(self, module: str) -> None:
        self.server = Server(module)
        self.url = self.server.url
        self.http = httpx2.Client(base_url=self.url)

    def seen(self, what: str = "requests") -> list[dict[str, Any]]:
        return self.http.get(f"/_sandbox/{what}").json()

    def fault(self, call: str, **what: Any) -> None:
        self.http.post("/_sandbox/faults", json={"call": call, **what}).raise_for_status()

    def stop(self) -> None:
        self.http.close()
        self.server.stop()


@pytest.fixture(scope="module")
def stand_ins() -> Iterator[dict[str, StandIn]]:
    running = {stem: StandIn(f"sandbox.{stem}") for stem in ("slack", "pagerduty")}
    yield running
    for stand_in in running.values():
        stand_in.stop()


@pytest.fixture
def slack(stand_ins: dict[str, StandIn], connect: Callable[..., str]) -> StandIn:
    stand_in = stand_ins["slack"]
    stand_in.http.post("/_sandbox/reset").raise_for_status()
    connect("slack_default", conn_type="slack", password=TOKEN, extra={"base_url": f"{stand_in.url}/api/"})
    return stand_in


@pytest.fixture
def pagerduty(stand_ins: dict[str, StandIn], connect: Callable[..., str]) -> StandIn:
    stand_in = stand_ins["pagerduty"]
    stand_in.http.post("/_sandbox/reset").raise_for_status()
    connect("pagerduty_events_default", conn_type="pagerduty_events", host=stand_in.url, password=KEY)
    return stand_in


@pytest.fixture
def fire(hub: Any, airis: str, request: pytest.FixtureRequest) -> Callable[..., str]:
    """Raises an alert at the hub and returns its id."""

    def fire(**fields: Any) -> str:
        body = {"name": "Latency is high", "severity": "critical", "fingerprint": request.node.nodeid, **fields}
        answer = httpx2.post(f"{hub.url}/api/v1/alerts", json=body, headers={"Authorization": f"Bearer {hub.token}"})
        assert answer.is_success, answer.text
        return answer.json()["id"]

    return fire


def to_alerts() -> SlackChannel:
    row = BY_STEM["slack"]
    channel = open_channel(row, "#alerts", options=ChannelOptions(row))
    assert isinstance(channel, SlackChannel)
    return channel


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
    replies = slack.seen("replies")
    assert {reply["thread_ts"] for reply in replies} == {message["ts"]}
    assert [re.sub(r"\d+ s$", "", reply["text"]) for reply in replies] == [
        "👀 Acknowledged by ada after ",
        "✅ Resolved after ",
    ]


def test_a_change_of_severity_is_told_in_the_thread(slack, fire):
    alert_id = fire(severity="low")
    to_slack(alert_id)
    fire(severity="critical")
    to_slack(alert_id)
    (reply,) = slack.seen("replies")
    assert reply["text"].startswith("🚨 Critical now, firing for ")


def test_replies_can_be_turned_off(slack, fire, monkeypatch):
    alert_id = fire()
    to_slack(alert_id)
    with AirisHook() as hub:
        hub.acknowledge(alert_id, by="ada")
        monkeypatch.setenv("AIRFLOW__AIRIS_SLACK__REPLIES", "False")
        to_slack(alert_id)
        assert slack.seen("replies") == []
        hub.resolve(alert_id)
        to_slack(alert_id, replies=True)
    assert len(slack.seen("replies")) == 1


@pytest.mark.parametrize("applied", [True, False], ids=["posted", "not posted"])
def test_a_reply_that_was_not_confirmed_is_there_once(slack, fire, applied):
    alert_id = fire()
    to_slack(alert_id)
    with AirisHook() as hub:
        hub.acknowledge(alert_id, by="ada")
        slack.fault("chat.postMessage", status=503, applied=applied)
        with pytest.raises(RetryableError):
            to_slack(alert_id)
        to_slack(alert_id, tries=2)
        hub.resolve(alert_id)
        to_slack(alert_id)
    assert [reply["text"][:6] for reply in slack.seen("replies")] == ["👀 Ackn", "✅ Reso"]


def test_where_the_thread_cannot_be_read_a_reply_is_left_out_rather_than_doubled(slack, fire, caplog):
    alert_id = fire()
    reference = to_slack(alert_id)["reference"]
    with AirisHook() as hub:
        hub.acknowledge(alert_id, by="ada")
    slack.http.post("/_sandbox/tokens", json={"token": TOKEN, "scopes": ["chat:write"]})
    slack.fault("chat.postMessage", status=503, applied=True)
    channel = to_alerts()
    with AirisHook() as hub:
        alert = hub.alert(alert_id)
    with pytest.raises(RetryableError):
        channel.send(AlertView(alert, URL), reference, maybe_sent=False)
    assert channel.send(AlertView(alert, URL), reference, maybe_sent=True) == reference
    assert len(slack.seen("replies")) == 1
    assert "is not told; its message shows the state: Slack (connection slack_default)" in caplog.text


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
    assert re.search(r"\n… and \d+ more lines$", message["blocks"][2]["text"]["text"])
    assert len(event["payload"]["summary"]) <= 1024


WEBHOOK = "/services/T0AIRIS/B0AIRIS/t0ken-that-nobody-may-see"


@pytest.fixture
def webhook(slack: StandIn, connect: Callable[..., str]) -> StandIn:
    """The same connection, but an incoming webhook's."""
    connect("slack_default", conn_type="slackwebhook", password=f"{slack.url}{WEBHOOK}")
    return slack


def test_a_webhook_posts_each_change_once(webhook, fire):
    alert_id = fire(severity="low")
    references = [to_slack(alert_id)["reference"]]
    with AirisHook() as hub:
        fire(severity="critical")
        references.append(to_slack(alert_id)["reference"])
        hub.acknowledge(alert_id, by="ada")
        references.append(to_slack(alert_id)["reference"])
        to_slack(alert_id)
        hub.resolve(alert_id)
        references.append(to_slack(alert_id)["reference"])
        to_slack(alert_id)
    told = [(request["kind"], request["blocks"][0]["text"]["text"]) for request in webhook.seen()]
    assert [kind for kind, _ in told] == ["message"] * 4
    assert [text.split()[1] for _, text in told] == ["LOW", "CRITICAL", "CRITICAL", "Resolved:"]
    assert webhook.seen("replies") == []
    assert len({*references}) == 4


def test_a_state_that_the_reference_tells_is_not_posted_again(webhook, fire):
    alert_id = fire()
    reference = to_slack(alert_id)["reference"]
    with AirisHook() as hub:
        channel = to_alerts()
        assert channel.send(AlertView(hub.alert(alert_id), URL), reference, maybe_sent=True) == reference
    assert len(webhook.seen()) == 1


def test_a_connection_may_become_a_bots_or_a_webhooks_while_alerts_are_open(webhook, fire, connect):
    alert_id = fire()
    to_slack(alert_id)
    bot = {"conn_type": "slack", "password": TOKEN, "extra": {"base_url": f"{webhook.url}/api/"}}
    connect("slack_default", **bot)
    with AirisHook() as hub:
        hub.acknowledge(alert_id, by="ada")
        assert to_slack(alert_id)["reference"].startswith("C0ALERTS001:")
        hub.resolve(alert_id)
    connect("slack_default", conn_type="slackwebhook", password=f"{webhook.url}{WEBHOOK}")
    assert to_slack(alert_id)["reference"].startswith("webhook:resolved:")
    assert [request["kind"] for request in webhook.seen()] == ["message"] * 3


def test_an_answer_of_a_webhook_that_was_lost_makes_one_message_more(webhook, fire, caplog):
    alert_id = fire()
    webhook.fault("webhook", status=503, applied=True)
    with pytest.raises(RetryableError, match="answered HTTP 503"):
        to_slack(alert_id)
    to_slack(alert_id, tries=2)
    assert len(webhook.seen()) == 2
    assert "it is sent again" in caplog.text


def test_a_webhooks_rate_limit_is_waited_for(webhook, fire):
    webhook.fault("webhook", status=429, headers={"Retry-After": "0"}, json={"text": "rate_limited"})
    to_slack(fire())
    assert len(webhook.seen()) == 1


@pytest.mark.parametrize(
    ("status", "word", "says"),
    [
        (404, "no_service", "no_service: the webhook is gone; make a new one"),
        (410, "channel_is_archived", "channel_is_archived: the channel is archived"),
        (403, "action_prohibited", "action_prohibited: the workspace lets the webhook not post there"),
        (400, "invalid_blocks", "HTTP 400 invalid_blocks"),
    ],
)
def test_what_a_webhook_refuses_fails_the_task_for_good_and_gives_nothing_away(
    webhook, fire, caplog, status, word, says
):
    caplog.set_level("DEBUG")
    webhook.fault("webhook", status=status, json={"text": word})
    alert_id = fire()
    with pytest.raises(AirflowFailException, match=says) as failure:
        to_slack(alert_id)
    assert WEBHOOK not in str(failure.value) + caplog.text
    channel = to_alerts()
    assert channel.refuses_all(PermanentError(says, detail=word, status=status)) == (status != 400)


@pytest.mark.parametrize(
    ("fields", "works", "says"),
    [
        ({"conn_type": "slackwebhook", "password": "T0/B0/x"}, True, "has the right form"),
        ({"conn_type": "slack", "password": "https://hooks.slack.com/services/T0/B0/x"}, True, "has the right form"),
        ({"conn_type": "slackwebhook"}, False, "has no password, the URL of the webhook"),
        ({"conn_type": "slackwebhook", "password": "ftp://example.com/x"}, False, "is no URL with https"),
    ],
)
def test_a_webhooks_connection_is_looked_at_only(connect, fields, works, says):
    connect("slack_default", **fields)
    answered, told = SlackHook().test_connection()
    assert answered == works
    assert says in told


def test_a_webhook_that_is_not_there_may_come_back_and_gives_nothing_away(connect, caplog):
    caplog.set_level("DEBUG")
    with Silent() as peer:
        url = peer.url
    connect("slack_default", conn_type="slack", password=f"{url}{WEBHOOK}")
    with pytest.raises(RetryableError, match="got no answer") as absent:
        SlackHook().send({"text": "x"})
    assert WEBHOOK not in str(absent.value) + caplog.text


def crowd(slack: StandIn, channels: int) -> list[int]:
    """Makes the workspace so large; where lists have begun."""
    began: list[int] = slack.http.post("/_sandbox/crowd", json={"channels": channels}).json()
    return began


def test_a_channel_of_a_large_workspace_is_found_though_its_list_is_rate_limited(slack, fire):
    """What was read of the list stays read: each try goes on where the limit has stopped the last one."""
    first = to_slack(fire())["reference"]
    alert_id = fire(fingerprint="after a crash")
    slack.fault("chat.postMessage", status=503, applied=True)
    with pytest.raises(RetryableError):
        to_slack(alert_id)
    crowd(slack, 10_000)
    limited = {"status": 429, "headers": {"Retry-After": "600"}, "json": {"ok": False, "error": "ratelimited"}}
    with AirisHook() as hub:
        view = AlertView(hub.alert(alert_id), URL)
    channel = to_alerts()
    for _ in range(3):
        slack.fault("conversations.list", **limited, after=3)
        with pytest.raises(RetryableError, match="ratelimited"):
            channel.send(view, None, maybe_sent=True)
    found = channel.send(view, None, maybe_sent=True)
    assert found.partition(":")[0] == first.partition(":")[0]
    assert crowd(slack, 0) == [*range(0, 10_000, 999)]
    assert len(slack.seen()) == 3


def test_a_channel_may_be_named_by_its_id(slack, fire):
    alert_id = fire()
    slack.fault("chat.postMessage", status=503, applied=True)
    with pytest.raises(RetryableError):
        AirisToSlackOperator(task_id="slack", alert_id=alert_id, target="C0ALERTS001").execute({})
    crowd(slack, 0)
    task = AirisToSlackOperator(task_id="slack", alert_id=alert_id, target="C0ALERTS001")
    task.execute({"ti": SimpleNamespace(try_number=2, max_tries=3)})
    assert crowd(slack, 0) == []
    assert len(slack.seen()) == 2


@pytest.fixture
def ruled(hub: Any, airis: str, request: pytest.FixtureRequest) -> Callable[..., str]:
    """Sends points that make a rule of their own fire, and returns the alert's id."""

    def ruled(name: str) -> str:
        rule = {"name": name, "metric": name, "aggregation": "max", "window_s": 60, "severity": "critical"}
        rule |= {"comparator": ">", "threshold": 2000}
        headers = {"Authorization": f"Bearer {hub.token}"}
        answer = httpx2.post(f"{hub.url}/api/v1/rules", json=rule, headers=headers)
        assert answer.is_success, answer.text
        now = round(time.time() * 1000) // 60_000 * 60_000
        with AirisHook() as hook:
            for minute in range(-50, 1):
                value = 2_500.0 if minute == 0 else 1_000.0 + minute
                hook.ingest([Metric("endpoint", name, value, "ms", {"variant": "blue"}, now + minute * 60_000)])
            return next(alert.id for alert in hook.alerts() if alert.name == name)

    return ruled


def illustrated(alert_id: str, *, busy: bool = False) -> tuple[SlackChannel, str | None]:
    """Deliver, then draw; returns the reference after it."""
    channel = to_alerts()
    with AirisHook() as hub:
        alert = hub.alert(alert_id)
        reference = channel.send(AlertView(alert, URL), None, maybe_sent=False)
        assert reference
        held = [channel._drawing.acquire() for _ in range(DRAWN_AT_ONCE)] if busy else []
        better = channel.illustrate(hub, AlertView(alert, URL), reference)
        for _ in held:
            channel._drawing.release()
        return channel, better


def test_a_chart_of_the_metric_is_put_into_the_message_and_stays_there(slack, ruled):
    channel, reference = illustrated(alert_id := ruled("latency_charted"))
    (file,) = slack.seen("files")
    assert file["title"] == "latency_charted in ms, max over 60 s"
    assert reference
    assert reference.endswith(f":{file['id']}")
    assert slack.http.get(f"/files/{file['id']}").content.startswith(b"\x89PNG\r\n\x1a\n")
    with AirisHook() as hub:
        hub.resolve(alert_id)
        assert channel.send(AlertView(hub.alert(alert_id), URL), reference, maybe_sent=False) == reference
        found = channel.send(AlertView(hub.alert(alert_id), URL), None, maybe_sent=True)
    assert found == reference
    posted, *updates = slack.seen()
    assert "image" not in {block["type"] for block in posted["blocks"]}
    for update in updates:
        assert [block["slack_file"] for block in update["blocks"] if block["type"] == "image"] == [{"id": file["id"]}]
    assert slack.seen("replies")[0]["text"].startswith("✅ Resolved")


def test_without_the_scope_for_files_the_message_stands_and_is_said_once(slack, ruled, caplog):
    slack.http.post("/_sandbox/tokens", json={"token": TOKEN, "scopes": ["chat:write"]})
    channel, reference = illustrated(alert_id := ruled("latency_without_scope"))
    assert reference is None
    with AirisHook() as hub:
        assert channel.illustrate(hub, AlertView(hub.alert(alert_id), URL), "C0ALERTS001:1.0") is None
    assert caplog.text.count("add the scope files:write") == 1
    assert [request["kind"] for request in slack.seen()] == ["message"]


def test_an_alert_without_points_has_no_chart(slack, fire):
    _, reference = illustrated(fire())
    assert reference is None
    assert slack.seen("files") == []
    assert [request["kind"] for request in slack.seen()] == ["message"]


def test_in_a_burst_the_alerts_go_first_and_a_chart_comes_with_the_next_change(slack, ruled):
    channel, reference = illustrated(alert_id := ruled("latency_burst"), busy=True)
    assert reference is None
    assert slack.seen("files") == []
    with AirisHook() as hub:
        hub.acknowledge(alert_id, by="ada")
        alert = hub.alert(alert_id)
        reference = channel.send(AlertView(alert, URL), None, maybe_sent=True)
        assert channel.illustrate(hub, AlertView(alert, URL), reference)
    assert slack.seen()[-1]["blocks"][1]["type"] == "image"


def test_a_chart_that_slack_shows_no_more_is_left_out(slack, fire):
    alert_id = fire()
    reference = f"{to_slack(alert_id)['reference']}:F0GONE00001"
    channel = to_alerts()
    with AirisHook() as hub:
        hub.resolve(alert_id)
        shown = channel.send(AlertView(hub.alert(alert_id), URL), reference, maybe_sent=False)
    assert f"{shown}:F0GONE00001" == reference
    assert [request["kind"] for request in slack.seen()] == ["message", "update"]


def moved(key: str, *, at: int | None = None, event_type: str = "model_alias_changed", **data: Any) -> Event:
    its = {"registry": "mlflow", "model_name": "fraud", "alias": "champion", "old_version": "1", "version": "2"}
    return Event(event_type, "mlflow-fraud", "info", at or round(time.time() * 1000), its | data, key)


@pytest.fixture
def deployed(
    hub: Any, pagerduty: StandIn, connect: Callable[..., str], request: pytest.FixtureRequest
) -> Callable[..., Any]:
    """Sends events to the hub, then the changes to PagerDuty; the place is the test's own, and begins at the end."""
    extra = {"consumer": request.node.name}
    connect("airis_default", conn_type="airis", host=hub.url, password=hub.token, extra=extra)

    with AirisHook(system="pagerduty-changes") as hook:
        after = 0
        while (page := hook.event_changes(after=after))[0]:
            after = page[1]
        hook.commit(hook.consumer, after, force=True)

    def deployed(*events: Event) -> dict[str, int]:
        with AirisHook() as hook:
            hook.ingest(events)
        return AirisChangesToPagerDutyOperator(task_id="changes").execute({})

    return deployed


def test_the_first_time_changes_of_the_last_day_are_sent(pagerduty, deployed, hub, connect):
    connect("airis_default", conn_type="airis", host=hub.url, password=hub.token, extra={"consumer": "new"})
    ago = round(time.time() * 1000) - 2 * 86_400_000
    deployed(moved("ancient", at=ago, alias="ancient"), moved("recent", alias="recent"))
    told = [change["payload"]["custom_details"]["alias"] for change in pagerduty.seen("changes")]
    assert "recent" in told
    assert "ancient" not in told


def test_an_alias_that_was_moved_is_a_change_event_once(pagerduty, deployed):
    other = moved("other", event_type="model_registered")
    assert deployed(moved("first"), other, moved("second", version=None))["sent"] == 2
    assert deployed()["sent"] == 0
    first, second = pagerduty.seen("changes")
    assert first["payload"]["summary"] == "fraud@champion is version 2 now, it was version 1"
    assert first["payload"]["source"] == "mlflow-fraud"
    assert first["payload"]["custom_details"]["registry"] == "mlflow"
    assert second["payload"]["summary"] == "fraud@champion is gone, it was version 1"
    assert pagerduty.seen() == []


def test_a_change_whose_answer_was_lost_is_there_once_more_and_nothing_else_is(pagerduty, deployed):
    pagerduty.fault("change", status=503, applied=True)
    with pytest.raises(RetryableError):
        deployed(moved("lost 1", alias="one"), moved("lost 2", alias="two"))
    deployed()
    told = [change["payload"]["custom_details"]["alias"] for change in pagerduty.seen("changes")]
    assert told == ["one", "one", "two"]


def test_a_change_that_is_called_invalid_is_named_and_holds_back_no_other(pagerduty, deployed):
    invalid = {"status": "invalid event", "message": "Event object is invalid", "errors": ["'summary' is wrong"]}
    pagerduty.fault("change", status=400, json=invalid)
    with pytest.raises(
        AirflowFailException, match=r"1 change events were refused, 1 were not: bad: .*'summary' is wrong"
    ):
        deployed(moved("bad", alias="one"), moved("good", alias="two"))
    deployed()
    assert [change["payload"]["custom_details"]["alias"] for change in pagerduty.seen("changes")] == ["two"]


def test_a_change_waits_for_a_key_that_pagerduty_knows(pagerduty, deployed, caplog):
    invalid = {"status": "invalid event", "message": "Event object is invalid", "errors": ["Invalid routing key"]}
    pagerduty.fault("change", status=400, json=invalid)
    with pytest.raises(AirflowFailException, match="Invalid routing key") as failure:
        deployed(moved("waits"))
    assert KEY not in str(failure.value) + caplog.text
    assert deployed()["sent"] == 1


def events(hub: Any, event_type: str, alert_id: str) -> list[dict[str, Any]]:
    answer = httpx2.get(
        f"{hub.url}/api/v1/events/changes", params={"limit": 500}, headers={"Authorization": f"Bearer {hub.token}"}
    )
    assert answer.is_success, answer.text
    changes = [change.get("event", change) for change in answer.json()["changes"]]
    return [e for e in changes if e["event_type"] == event_type and e["data"]["alert_id"] == alert_id]
