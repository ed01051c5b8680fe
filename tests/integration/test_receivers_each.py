"""What every receiver must show of an alert, whatever happens on the way: a real hub, the operators, the stand-ins.

Slack and PagerDuty, which came first, have theirs in test_receivers.py.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, get_args
from urllib.parse import urlsplit

import httpx2
import pytest
from airflow.sdk.exceptions import AirflowFailException
from msgspec.structs import replace

from airflow_provider_airis.catalog import BY_STEM
from airflow_provider_airis.channels.base import Channel, open_channel
from airflow_provider_airis.channels.view import AlertView
from airflow_provider_airis.errors import PermanentError, RetryableError
from airflow_provider_airis.hooks.airis import AirisHook
from airflow_provider_airis.records import Alert, AlertSeverity, Notification
from airflow_provider_airis.settings import ChannelOptions
from sandbox.process import serve
from tests.contract.peers import load

URL = "https://hub.example.com"
SECRET = "s3cret-that-nobody-may-see-anywhere-12345"
TEAMS_URL = f"/workflows/sandbox/triggers/manual/paths/invoke?api-version=1&sp=%2Ftriggers&sv=1.0&sig={SECRET}"


@dataclass(frozen=True)
class Receiver:
    """How a system is reached, and what its stand-in lists.

    :param fields: of its connection, from the stand-in's address.
    :param call: the request that shows an alert first, for scripted failures.
    :param life: the kinds of requests of an alert that fires, is acknowledged and resolved.
    :param lost: the kinds after a first try whose answers were lost, and a second one.
    :param refusal: an answer that no retry mends, and ``says``, what the task then tells.
    :param fails: an error that passes; ``limit``, the answer to one request too many.
    :param attempts: how often a try asks if the receiver fails; ``unanswered``, if its answers are lost.
    """

    stem: str
    fields: Callable[[str], dict[str, Any]]
    call: str
    life: list[str]
    lost: list[str]
    refusal: dict[str, Any]
    says: str
    conn_id: str = ""
    target: str = ""
    arguments: tuple[str, ...] = ()
    fails: dict[str, Any] = field(default_factory=lambda: {"status": 500})
    limit: dict[str, Any] = field(default_factory=lambda: {"status": 429, "headers": {"Retry-After": "0"}})
    attempts: int = 1
    unanswered: int = 1


RECEIVERS = [
    Receiver(
        "webhook",
        lambda url: {"host": f"{url}/alerts", "password": SECRET},
        call="post",
        life=["fired", "acknowledged", "resolved"],
        lost=["fired", "fired", "fired"],
        refusal={"status": 401, "json": {"error": "the signature is wrong or old"}},
        says="401 Unauthorized (the signature is wrong or old)",
        arguments=("--secret-file", "{folder}/secret"),
        attempts=2,
        unanswered=2,
    ),
    Receiver(
        "teams",
        lambda url: {"password": f"{url}{TEAMS_URL}"},
        call="post",
        life=["card", "card", "card"],
        lost=["card", "card"],
        refusal={"status": 404, "json": {"error": {"code": "WorkflowNotFound", "message": "It could not be found."}}},
        says="WorkflowNotFound: It could not be found.): the workflow is deleted or turned off",
    ),
    Receiver(
        "email",
        lambda url: {
            "host": "127.0.0.1",
            "port": urlsplit(url).port,
            "login": "airis",
            "password": SECRET,
            "extra": {"from_email": "AIRIS-MON <airis@example.com>", "disable_ssl": True},
        },
        call="END",
        life=["mail", "mail", "mail"],
        lost=["mail", "mail"],
        refusal={"status": 554, "json": {"text": "5.7.1 looks like spam"}},
        says="answered 554 5.7.1 looks like spam: the server refuses the mail; its administrators know why",
        target="oncall@example.com, ml@example.com",
        fails={"status": 452, "json": {"text": "4.3.1 no space"}},
        limit={"status": 450, "json": {"text": "4.2.1 too many mails at once"}},
        arguments=("--password-file", "{folder}/secret", "--certificate", "{folder}/certificate.pem"),
        attempts=2,
    ),
    Receiver(
        "servicenow",
        lambda url: {"host": url, "login": "airis", "password": SECRET},
        call="insert",
        life=["insert", "update", "update"],
        lost=["insert"],
        refusal={"status": 403, "json": {"error": {"message": "Operation Failed", "detail": "ACL Exception Insert"}}},
        says="answered 403 Forbidden (Operation Failed: ACL Exception Insert): the credentials of connection",
        arguments=("--password-file", "{folder}/secret"),
    ),
    Receiver(
        "jira",
        lambda url: {"host": url, "login": "airis@example.com", "password": SECRET},
        call="create",
        life=["create", "comment", "comment", "transition"],
        lost=["create"],
        refusal={"status": 400, "json": {"errorMessages": [], "errors": {"issuetype": "It is invalid."}}},
        says="answered 400 Bad Request (issuetype: It is invalid.): the request itself is at fault",
        target="OPS",
        arguments=("--token-file", "{folder}/secret"),
    ),
]
each = pytest.mark.parametrize("receiver", RECEIVERS, ids=lambda receiver: receiver.stem)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The stand-ins' addresses."""
    folder = tmp_path_factory.mktemp("receivers")
    (folder / "secret").write_text(SECRET)
    commands = {
        receiver.stem: (f"sandbox.{receiver.stem}", *(word.format(folder=folder) for word in receiver.arguments))
        for receiver in RECEIVERS
    }
    with pytest.MonkeyPatch.context() as patch, serve(commands) as running:
        # What a machine trusts, and so what STARTTLS is checked against.
        patch.setenv("SSL_CERT_FILE", str(folder / "certificate.pem"))
        yield {stem: server.url for stem, server in running.items()}


class Side:
    """One receiver's side: its operator, and what its stand-in was asked."""

    def __init__(self, receiver: Receiver, url: str, connect: Callable[..., str]) -> None:
        self.row = BY_STEM[receiver.stem]
        address = urlsplit(url)
        # A mail server has its page, and all that is scripted, on the next port.
        self.url = url if address.scheme == "http" else f"http://{address.hostname}:{(address.port or 0) + 1}"
        self.call = receiver.call
        self.target = receiver.target or self.row.default_conn_id
        connect(self.row.default_conn_id, conn_type=self.row.connection.type, **receiver.fields(url))

    def deliver(self, alert_id: str, *, tries: int = 1) -> dict[str, Any]:
        task = load(self.row.notify_class)(task_id=self.row.stem, alert_id=alert_id, target=self.target)
        return task.execute({"ti": SimpleNamespace(try_number=tries, max_tries=3)})

    def channel(self) -> Channel:
        return open_channel(self.row, self.target, options=ChannelOptions(self.row))

    def seen(self, alert_id: str) -> list[dict[str, Any]]:
        requests = httpx2.get(f"{self.url}/_sandbox/requests").json()
        return [request for request in requests if alert_id in json.dumps(request)]

    def kinds(self, alert_id: str) -> list[str]:
        return [request["kind"] for request in self.seen(alert_id)]

    def fault(self, call: str = "", **what: Any) -> None:
        body = {"call": call or self.call, **what}
        httpx2.post(f"{self.url}/_sandbox/faults", json=body).raise_for_status()


@pytest.fixture
def side(receiver: Receiver, servers: dict[str, str], airis: str, connect: Callable[..., str]) -> Side:
    return Side(receiver, servers[receiver.stem], connect)


@pytest.fixture
def fire(hub: Any, airis: str, request: pytest.FixtureRequest) -> Callable[..., str]:
    """Raises an alert at the hub and returns its id."""

    def fire(**fields: Any) -> str:
        body = {"name": "Latency is high", "severity": "critical", "fingerprint": request.node.nodeid, **fields}
        answer = httpx2.post(f"{hub.url}/api/v1/alerts", json=body, headers={"Authorization": f"Bearer {hub.token}"})
        assert answer.is_success, answer.text
        return str(answer.json()["id"])

    return fire


def ledger(alert_id: str) -> list[Notification]:
    with AirisHook() as hub:
        return hub.alert(alert_id).notifications


def reported(hub: Any, alert_id: str) -> list[dict[str, Any]]:
    """The hub's events of deliveries of this alert that have failed."""
    headers = {"Authorization": f"Bearer {hub.token}"}
    answer = httpx2.get(f"{hub.url}/api/v1/events", params={"event_type": "notification_failed"}, headers=headers)
    return [event for event in answer.json()["events"] if event["data"]["alert_id"] == alert_id]


@each
def test_an_alert_is_shown_from_firing_to_resolved(receiver, side, fire):
    alert_id = fire(model_id="fraud", environment="production", description="p90 over 2 s")
    first = side.deliver(alert_id)["reference"]
    assert first
    with AirisHook() as hub:
        hub.acknowledge(alert_id, by="ada")
        side.deliver(alert_id)
        hub.resolve(alert_id)
        assert side.deliver(alert_id)["status"] == "resolved"
    assert side.kinds(alert_id) == receiver.life
    assert "ada" in json.dumps(side.seen(alert_id))
    assert [(n.channel, n.target, n.status) for n in ledger(alert_id)] == [(receiver.stem, side.target, "resolved")]


@each
@pytest.mark.parametrize("filler", ["x", "ü ", "🚨", "\x00x", "\n", '"', "{noformat}", "[a](https://evil.example.com)"])
def test_text_of_any_kind_and_length_is_taken_in_every_state(receiver, side, airis, filler):
    long = filler * (35_000 // len(filler))
    texts = dict.fromkeys(("name", "description", "model_id", "environment", "acknowledged_by"), long)
    alert = Alert(
        id=f"any-{filler.encode().hex()}", severity="high", status="firing", timestamp=0, updated_at=0, **texts
    )
    channel, sent = side.channel(), None
    for at, status in enumerate(("firing", "acknowledged", "resolved")):
        view = AlertView(replace(alert, status=status, updated_at=at), f"{URL}?alert={alert.id}")
        sent = channel.send(view, sent, maybe_sent=False)
        assert sent
    channel.close()
    # A webhook has the hub's own record, whole.
    shown = json.dumps(side.seen(alert.id), ensure_ascii=False)
    assert "…" in shown or receiver.stem == "webhook" or not filler.strip()


@each
@pytest.mark.parametrize("severity", get_args(AlertSeverity))
def test_every_severity_is_shown(receiver, side, airis, severity):
    alert = Alert(
        id=f"{receiver.stem}-{severity}", name="n", severity=severity, status="firing", timestamp=0, updated_at=0
    )
    channel = side.channel()
    assert channel.send(AlertView(alert, f"{URL}?alert={alert.id}"), None, maybe_sent=False)
    channel.close()
    assert severity in json.dumps(side.seen(alert.id)).lower()


@each
def test_delivering_again_sends_nothing_more(receiver, side, fire):
    alert_id = fire()
    for _ in range(3):
        side.deliver(alert_id)
    assert side.kinds(alert_id) == receiver.life[:1]


@each
def test_a_change_of_severity_is_shown(receiver, side, fire):
    alert_id = fire(severity="low")
    side.deliver(alert_id)
    assert fire(severity="critical") == alert_id
    side.deliver(alert_id)
    assert len(side.seen(alert_id)) == 2
    assert "critical" in json.dumps(side.seen(alert_id)[1]).lower()


@each
def test_what_was_resolved_before_anybody_heard_of_it_is_not_sent(receiver, side, fire):
    alert_id = fire()
    with AirisHook() as hub:
        hub.resolve(alert_id)
    assert side.deliver(alert_id)["reference"] is None
    assert side.seen(alert_id) == []


@each
def test_after_an_answer_that_was_lost_a_repetition_is_none_or_known_as_such(receiver, side, fire):
    alert_id = fire()
    side.fault(status=503, applied=True, times=receiver.unanswered)
    with pytest.raises(RetryableError):
        side.deliver(alert_id)
    side.deliver(alert_id, tries=2)
    assert side.kinds(alert_id) == receiver.lost
    assert [n.status for n in ledger(alert_id)] == ["firing"]


@each
def test_a_rate_limit_is_waited_for(receiver, side, fire):
    alert_id = fire()
    side.fault(**receiver.limit)
    side.deliver(alert_id)
    assert side.kinds(alert_id) == receiver.life[:1]


@each
def test_a_refusal_fails_the_task_for_good_and_is_reported(receiver, side, fire, hub, caplog):
    alert_id = fire()
    side.fault(**receiver.refusal)
    with pytest.raises(AirflowFailException) as failure:
        side.deliver(alert_id)
    assert receiver.says in str(failure.value)
    (event,) = reported(hub, alert_id)
    assert event["data"]["target"] == side.target
    assert SECRET not in str(failure.value) + caplog.text + json.dumps(event)
    assert urlsplit(TEAMS_URL).path not in str(failure.value) + caplog.text + json.dumps(event)
    assert ledger(alert_id)[0].status == "failed"
    side.deliver(alert_id)
    assert ledger(alert_id)[0].status == "firing"


@each
def test_an_error_that_passes_is_left_to_airflow_and_reported_only_at_the_last_try(receiver, side, fire, hub):
    alert_id = fire()
    side.fault(**receiver.fails, times=2 * receiver.attempts)
    with pytest.raises(RetryableError):
        side.deliver(alert_id)
    assert reported(hub, alert_id) == []
    with pytest.raises(RetryableError):
        side.deliver(alert_id, tries=4)
    assert len(reported(hub, alert_id)) == 1


class Counted:
    """Passes connections on to a receiver, and counts them."""

    def __init__(self, url: str) -> None:
        self._to = (urlsplit(url).hostname or "", urlsplit(url).port or 0)
        self.connections = 0

    def __enter__(self) -> Counted:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                here = self._socket.accept()[0]
                self.connections += 1
                there = socket.create_connection(self._to)
                for one, other in ((here, there), (there, here)):
                    threading.Thread(target=self._pass, args=(one, other), daemon=True).start()

    @staticmethod
    def _pass(one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(65_536):
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@pytest.mark.parametrize("receiver", [r for r in RECEIVERS if r.stem != "email"], ids=lambda receiver: receiver.stem)
def test_all_that_an_operator_sends_goes_over_one_connection(receiver, servers, airis, connect, fire):
    alerts = [fire(fingerprint=f"one-{receiver.stem}-{number}") for number in range(3)]
    with Counted(servers[receiver.stem]) as counted, AirisHook() as hub:
        side = Side(receiver, counted.url, connect)
        channel = side.channel()
        for alert_id in alerts:
            channel.send(AlertView(hub.alert(alert_id), URL), None, maybe_sent=False)
        channel.close()
    assert counted.connections == 1


def one(stem: str) -> Any:
    return pytest.mark.parametrize("receiver", [r for r in RECEIVERS if r.stem == stem], ids=[stem])


@one("webhook")
def test_a_webhook_is_known_again_by_its_key(receiver, side, fire):
    alert_id = fire()
    side.fault(status=503, applied=True)
    side.deliver(alert_id)
    first, second = side.seen(alert_id)
    assert (first["repeated"], second["repeated"]) == (False, True)
    assert first["alert"] == second["alert"]
    assert first["key"] == f"airis-mon-{alert_id}-{first['alert']['updated_at']}"


@one("email")
def test_all_mails_of_an_alert_are_one_encrypted_thread(receiver, side, fire):
    alert_id = fire(name="Latency\r\nBcc: eve@example.com ist zu groß 🚨", description="<b>p90</b> over 2 s")
    first = side.deliver(alert_id)["reference"]
    with AirisHook() as hub:
        hub.resolve(alert_id)
    assert side.deliver(alert_id)["reference"] == first
    mails = side.seen(alert_id)
    assert mails[0]["headers"]["Message-ID"] == first
    assert mails[1]["headers"]["Message-ID"] != first
    assert mails[1]["headers"]["In-Reply-To"] == first
    assert mails[1]["headers"]["References"].split() == [f"<airis-mon-{alert_id}@example.com>", first]
    assert mails[0]["headers"]["References"] == f"<airis-mon-{alert_id}@example.com>"
    assert mails[1]["headers"]["Subject"] == "Re: " + mails[0]["headers"]["Subject"]
    for mail in mails:
        assert mail["encrypted"]
        assert mail["to"] == ["oncall@example.com", "ml@example.com"]
        assert "Bcc" not in mail["headers"]
        assert "&lt;b&gt;p90&lt;/b&gt; over 2 s" in mail["html"]
        assert "<b>p90</b> over 2 s" in mail["text"]
        assert f"/dashboard?alert={alert_id}" in mail["text"]


@one("email")
def test_a_mail_that_was_sent_again_is_known_by_its_id(receiver, side, fire):
    alert_id = fire()
    side.fault(status=0, applied=True)
    with pytest.raises(RetryableError, match="gave no answer"):
        side.deliver(alert_id)
    side.deliver(alert_id, tries=2)
    assert [mail["repeated"] for mail in side.seen(alert_id)] == [False, True]


@one("email")
def test_an_address_that_is_refused_is_told_and_the_others_have_the_mail(receiver, side, fire):
    alert_id = fire()
    side.target = "oncall@example.com, nobody@nowhere.example.com"
    with pytest.raises(AirflowFailException, match=r"refuses nobody@nowhere.example.com: 550 5.1.1 .* others|other"):
        side.deliver(alert_id)
    assert [mail["to"] for mail in side.seen(alert_id)] == [["oncall@example.com"]]


@one("email")
def test_a_busy_mailbox_is_offered_the_mail_again_alone(receiver, side, fire):
    alert_id = fire()
    side.target = "full@example.com, oncall@example.com"
    side.fault("RCPT", status=450, json={"text": "4.2.1 try again later"})
    side.deliver(alert_id)
    assert [mail["to"] for mail in side.seen(alert_id)] == [["oncall@example.com"], ["full@example.com"]]
    assert len({mail["headers"]["Message-ID"] for mail in side.seen(alert_id)}) == 1


@one("email")
def test_a_mailbox_that_stays_busy_costs_the_others_no_second_mail(receiver, side, fire):
    """As the dispatch tries: with the same channel, which knows who lacks the mail."""
    alert_id = fire()
    side.target = "full@example.com, oncall@example.com"
    with AirisHook() as hub:
        view = AlertView(hub.alert(alert_id), URL)
    channel = open_channel(side.row, side.target, options=ChannelOptions(side.row), retries=0)
    for maybe_sent in (False, True):
        side.fault("RCPT", status=452, json={"text": "4.2.2 mailbox full"})
        with pytest.raises(RetryableError, match=r"full@example.com: 452 4.2.2 mailbox full"):
            channel.send(view, None, maybe_sent=maybe_sent)
    channel.send(view, None, maybe_sent=True)
    assert [mail["to"] for mail in side.seen(alert_id)] == [["oncall@example.com"], ["full@example.com"]]


@one("email")
def test_an_operator_whose_mailbox_stays_busy_says_who_lacks_the_mail(receiver, side, fire):
    alert_id = fire()
    side.target = "full@example.com, oncall@example.com"
    side.fault("RCPT", status=452, json={"text": "4.2.2 mailbox full"})
    with AirisHook() as hub:
        view = AlertView(hub.alert(alert_id), URL)
    channel = side.channel()
    channel.hook.retries = 0
    with pytest.raises(PermanentError, match="the other") as partly:
        channel.send(view, None, maybe_sent=False)
    assert channel.refuses_all(partly.value) is False


@one("email")
@pytest.mark.parametrize(
    ("target", "all_of_them"),
    [
        ("a@nowhere.example.com", True),
        ("a@nowhere.example.com, b@nowhere.example.com", True),
        ("a@nowhere.example.com, oncall@example.com", False),
    ],
)
def test_addresses_of_which_none_is_accepted_are_waited_for(receiver, side, fire, target, all_of_them):
    side.target = target
    channel = side.channel()
    with AirisHook() as hub, pytest.raises(PermanentError) as refused:
        channel.send(AlertView(hub.alert(fire()), URL), None, maybe_sent=False)
    assert channel.refuses_all(refused.value) is all_of_them


@one("email")
def test_a_certificate_that_nobody_vouches_for_is_not_trusted(receiver, side, fire, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE")
    alert_id = fire()
    with pytest.raises(AirflowFailException, match="its certificate is not trusted"):
        side.deliver(alert_id)
    assert side.seen(alert_id) == []


def incidents(side: Side, alert_id: str) -> list[dict[str, Any]]:
    listed = httpx2.get(f"{side.url}/_sandbox/incidents").json()
    return [incident for incident in listed if incident["correlation_id"] == f"airis-mon-{alert_id}"]


def act(side: Side, **what: Any) -> None:
    """Somebody does something in the receiver's own pages."""
    httpx2.post(f"{side.url}/_sandbox/incidents", json=what).raise_for_status()


@one("servicenow")
def test_an_incident_has_the_alerts_priority_and_is_resolved_with_a_code(receiver, side, fire, monkeypatch):
    monkeypatch.setenv("AIRFLOW__AIRIS_SERVICENOW__FIELDS", '{"category": "software"}')
    alert_id = fire(severity="high", name="x" * 500, description="y" * 9_000)
    reference = side.deliver(alert_id)["reference"]
    with AirisHook() as hub:
        hub.resolve(alert_id)
    side.deliver(alert_id)
    (incident,) = incidents(side, alert_id)
    assert reference == f"{incident['number']}:{incident['sys_id']}"
    assert (incident["impact"], incident["urgency"], incident["category"]) == ("1", "2", "software")
    assert (incident["state"], incident["close_code"]) == ("6", "Solution provided")
    assert incident["short_description"].endswith("…")
    assert incident["description"].endswith(f"/dashboard?alert={alert_id}")
    assert incident["close_notes"].startswith("Resolved: HIGH Alert")
    assert len(incident["notes"]) == 1


@one("servicenow")
def test_a_work_note_whose_answer_was_lost_is_not_written_twice(receiver, side, fire):
    alert_id = fire()
    side.deliver(alert_id)
    with AirisHook() as hub:
        hub.acknowledge(alert_id, by="ada")
    side.fault("update", status=503, applied=True)
    with pytest.raises(RetryableError):
        side.deliver(alert_id)
    side.deliver(alert_id, tries=2)
    (incident,) = incidents(side, alert_id)
    assert len(incident["notes"]) == 1
    assert ledger(alert_id)[0].status == "acknowledged"


@one("servicenow")
def test_an_incident_that_somebody_has_closed_is_left_alone(receiver, side, fire):
    alert_id = fire()
    reference = side.deliver(alert_id)["reference"]
    act(side, sys_id=reference.partition(":")[2], state="7")
    with AirisHook() as hub:
        hub.resolve(alert_id)
    assert side.deliver(alert_id)["reference"] == reference
    assert side.kinds(alert_id) == ["insert"]
    assert ledger(alert_id)[0].status == "resolved"


@one("servicenow")
def test_an_incident_that_was_deleted_is_created_anew_but_not_for_its_end(receiver, side, fire):
    alert_id = fire()
    first = side.deliver(alert_id)["reference"]
    act(side, sys_id=first.partition(":")[2], delete=True)
    with AirisHook() as hub:
        hub.acknowledge(alert_id, by="ada")
        second = side.deliver(alert_id)["reference"]
        assert second != first
        act(side, sys_id=second.partition(":")[2], delete=True)
        hub.resolve(alert_id)
        assert side.deliver(alert_id)["reference"] == second
    assert side.kinds(alert_id) == ["insert", "insert"]


@one("servicenow")
def test_a_resolution_code_that_the_instance_does_not_know_is_told(receiver, side, fire, monkeypatch):
    monkeypatch.setenv("AIRFLOW__AIRIS_SERVICENOW__CLOSE_CODE", "Unheard of")
    alert_id = fire()
    side.deliver(alert_id)
    with AirisHook() as hub:
        hub.resolve(alert_id)
    with pytest.raises(AirflowFailException, match="fields are mandatory: Resolution code"):
        side.deliver(alert_id)


def issues(side: Side, alert_id: str) -> list[dict[str, Any]]:
    listed = httpx2.get(f"{side.url}/_sandbox/incidents").json()
    return [issue for issue in listed if f"airis-mon-{alert_id}" in issue["fields"]["labels"]]


@one("jira")
@pytest.mark.parametrize("login", ["airis@example.com", None], ids=["cloud", "data center"])
def test_an_issue_is_found_again_in_cloud_and_data_center_and_is_done_with_its_alert(
    receiver, side, fire, connect, monkeypatch, login
):
    monkeypatch.setenv("AIRFLOW__AIRIS_JIRA__FIELDS", '{"priority": {"name": "High"}}')
    connect("jira_default", conn_type="airis_jira", host=side.url, login=login, password=SECRET)
    alert_id = fire(name="x\n" * 500, description="[~admin] {noformat} " + "y" * 40_000)
    side.fault("create", status=503, applied=True)
    with pytest.raises(RetryableError):
        side.deliver(alert_id)
    reference = side.deliver(alert_id, tries=2)["reference"]
    with AirisHook() as hub:
        hub.resolve(alert_id)
    side.deliver(alert_id)
    (issue,) = issues(side, alert_id)
    assert (issue["key"], issue["status"]) == (reference, "Done")
    assert issue["fields"]["priority"] == {"name": "High"}
    assert len(issue["comments"]) == 1
    for text in (issue["fields"]["description"], issue["comments"][0]):
        assert text.count("{noformat}") == 2
        assert "[~admin]" in text.split("{noformat}")[1]
    assert side.kinds(alert_id) == ["create", "comment", "transition"]


@one("jira")
@pytest.mark.parametrize("call", ["comment", "transition"])
def test_what_an_issue_was_told_is_not_told_twice(receiver, side, fire, call):
    alert_id = fire()
    side.deliver(alert_id)
    with AirisHook() as hub:
        hub.resolve(alert_id)
    side.fault(call, status=503, applied=True)
    with pytest.raises(RetryableError):
        side.deliver(alert_id)
    side.deliver(alert_id, tries=2)
    assert side.kinds(alert_id) == ["create", "comment", "transition"]
    assert ledger(alert_id)[0].status == "resolved"


@one("jira")
def test_an_issue_that_is_done_or_deleted_is_respected(receiver, side, fire):
    alert_id, other = fire(), fire(fingerprint="other")
    done, deleted = (side.deliver(one_of)["reference"] for one_of in (alert_id, other))
    act(side, key=done, status="Done")
    act(side, key=deleted, delete=True)
    with AirisHook() as hub:
        hub.acknowledge(other, by="ada")
        anew = side.deliver(other)["reference"]
        assert anew != deleted
        act(side, key=anew, delete=True)
        for one_of in (alert_id, other):
            hub.resolve(one_of)
    assert side.deliver(alert_id)["reference"] == done
    assert side.deliver(other)["reference"] == anew
    assert side.kinds(alert_id) == ["create", "comment"]
    assert side.kinds(other) == ["create", "create"]


@one("jira")
def test_a_transition_that_is_not_there_is_told_with_those_that_are(receiver, side, fire, monkeypatch):
    monkeypatch.setenv("AIRFLOW__AIRIS_JIRA__RESOLVE_TRANSITION", "Close")
    alert_id = fire()
    side.deliver(alert_id)
    with AirisHook() as hub:
        hub.resolve(alert_id)
    with pytest.raises(
        AirflowFailException, match="no transition named 'Close', but Start, Won't do, Done: set resolve_trans"
    ):
        side.deliver(alert_id)
    monkeypatch.setenv("AIRFLOW__AIRIS_JIRA__RESOLVE_TRANSITION", "start")
    side.deliver(alert_id)
    assert issues(side, alert_id)[0]["status"] == "In Progress"


def tickets(receiver: Receiver, side: Side, alert_id: str) -> list[dict[str, Any]]:
    """The alert's tickets: references, whether they are open, and all their text."""
    listed = incidents(side, alert_id) if receiver.stem == "servicenow" else issues(side, alert_id)
    return [
        {
            "reference": one_of.get("key") or f"{one_of['number']}:{one_of['sys_id']}",
            "open": (one_of.get("state") or one_of.get("status")) in ("1", "2", "To Do", "In Progress"),
            "text": json.dumps(one_of),
        }
        for one_of in listed
    ]


def close(receiver: Receiver, side: Side, reference: str, *, ago_s: int = 0, for_good: bool = False) -> None:
    """A person closes a ticket, so long ago."""
    if receiver.stem == "servicenow":
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(time.time() - ago_s))
        act(side, sys_id=reference.partition(":")[2], state="7" if for_good else "6", resolved_at=at)
    else:
        act(side, key=reference, status="Won't do" if for_good else "Done", changed=round((time.time() - ago_s) * 1000))


each_ticket = pytest.mark.parametrize(
    "receiver", [r for r in RECEIVERS if r.stem in ("servicenow", "jira")], ids=lambda receiver: receiver.stem
)


@each_ticket
@pytest.mark.parametrize(
    ("within_s", "ago_s", "for_good", "reopened"),
    [(3_600, 60, False, True), (3_600, 7_200, False, False), (0, 0, False, False), (3_600, 60, True, False)],
)
def test_a_ticket_that_a_person_has_closed_swallows_nothing(
    receiver, side, fire, monkeypatch, within_s, ago_s, for_good, reopened
):
    monkeypatch.setenv(f"AIRFLOW__AIRIS_{receiver.stem.upper()}__REOPEN_WITHIN_S", str(within_s))
    alert_id = fire(severity="high")
    first = side.deliver(alert_id)["reference"]
    close(receiver, side, first, ago_s=ago_s, for_good=for_good)
    assert fire(severity="critical") == alert_id
    second = side.deliver(alert_id)["reference"]
    assert (second == first) is reopened
    found = {ticket["reference"]: ticket for ticket in tickets(receiver, side, alert_id)}
    assert found[second]["open"]
    assert "CRITICAL Alert" in found[second]["text"]
    if not reopened:
        assert first.partition(":")[0] in found[second]["text"]
        assert not found[first]["open"]
    with AirisHook() as hub:
        hub.resolve(alert_id)
    assert side.deliver(alert_id)["reference"] == second
    assert not any(ticket["open"] for ticket in tickets(receiver, side, alert_id))


@each_ticket
def test_a_person_who_has_closed_a_ticket_is_not_contradicted_by_what_it_shows_already(receiver, side, fire):
    alert_id = fire()
    reference = side.deliver(alert_id)["reference"]
    close(receiver, side, reference)
    with AirisHook() as hub:
        view = AlertView(hub.alert(alert_id), URL)
    channel = side.channel()
    assert channel.send(view, reference, maybe_sent=True) == reference
    channel.close()
    assert [ticket["open"] for ticket in tickets(receiver, side, alert_id)] == [False]


@each_ticket
def test_after_a_crash_a_closed_ticket_is_followed_by_one_new_one(receiver, side, fire, monkeypatch):
    monkeypatch.setenv(f"AIRFLOW__AIRIS_{receiver.stem.upper()}__REOPEN_WITHIN_S", "0")
    alert_id = fire(severity="high")
    first = side.deliver(alert_id)["reference"]
    close(receiver, side, first)
    fire(severity="critical")
    side.fault(status=503, applied=True)
    with pytest.raises(RetryableError):
        side.deliver(alert_id)
    second = side.deliver(alert_id, tries=2)["reference"]
    assert second != first
    assert len(tickets(receiver, side, alert_id)) == 2


@one("jira")
def test_an_issue_that_follows_another_is_linked_to_it(receiver, side, fire, monkeypatch):
    monkeypatch.setenv("AIRFLOW__AIRIS_JIRA__REOPEN_WITHIN_S", "0")
    alert_id = fire(severity="high")
    first = side.deliver(alert_id)["reference"]
    close(receiver, side, first)
    fire(severity="critical")
    second = side.deliver(alert_id)["reference"]
    assert {issue["key"]: issue["links"] for issue in issues(side, alert_id)} == {first: [second], second: [first]}


@one("teams")
def test_over_four_cards_a_second_wait_their_turn(receiver, side, fire):
    alerts = [fire(fingerprint=f"burst-{number}") for number in range(6)]
    httpx2.post(f"{side.url}/_sandbox/limit", json={"on": True}).raise_for_status()
    try:
        for alert_id in alerts:
            side.deliver(alert_id)
    finally:
        httpx2.post(f"{side.url}/_sandbox/limit", json={"on": False}).raise_for_status()
    assert [side.kinds(alert_id) for alert_id in alerts] == [["card"]] * 6


@one("teams")
def test_a_later_card_names_the_first(receiver, side, fire):
    alert_id = fire()
    first = side.deliver(alert_id)["reference"]
    with AirisHook() as hub:
        hub.resolve(alert_id)
    assert side.deliver(alert_id)["reference"] == first
    cards = [request["card"] for request in side.seen(alert_id)]
    told = [json.dumps(card["body"]) for card in cards]
    assert "Follows the card of" not in told[0]
    assert first in told[1]
    assert "Resolved: CRITICAL Alert" in told[1]
