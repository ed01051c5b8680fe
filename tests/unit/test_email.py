"""The mail of an alert: text and HTML, its thread, its limits; and how its hook meets servers that fail."""

from __future__ import annotations

import email
import email.policy
from email.message import EmailMessage

import pytest

from airflow_provider_airis.channels.email import mail
from airflow_provider_airis.channels.view import AlertView
from airflow_provider_airis.errors import PermanentError, RetryableError
from airflow_provider_airis.hooks.email import EmailHook
from airflow_provider_airis.records import Alert
from tests.contract.peers import Silent
from tests.views import alert

URL = "https://hub.example.com/dashboard?alert=a1&b=c"
SENDER = "AIRIS-MON <airis@example.com>"


def read(subject: Alert, *, first: str | None = None, to: str = "oncall@example.com") -> EmailMessage:
    """The mail, as who gets it reads it."""
    sent = mail(AlertView(subject, URL), sender=SENDER, to=to, first=first).as_bytes()
    assert max(len(line) for line in sent.splitlines()) <= 998
    assert sent.isascii()
    message = email.message_from_bytes(sent, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def test_the_mail_shows_the_alert_as_text_and_as_html():
    message = read(
        alert(
            name="Latency is high",
            model_id="fraud",
            environment="production",
            description="p90 over 2 s\nfor 10 min",
            status="resolved",
            acknowledged_by="ada",
            timestamp=1795406459603,
            updated_at=1795406819603,
        )
    )
    assert message["Subject"] == "AIRIS-MON Alert: Latency is high"
    assert (message["From"], message["To"]) == (SENDER, "oncall@example.com")
    assert message["Date"] == "Mon, 23 Nov 2026 04:06:59 +0000"
    assert message["Auto-Submitted"] == "auto-generated"
    text, page = message.iter_parts()
    assert (text.get_content_type(), page.get_content_type()) == ("text/plain", "text/html")
    lines = text.get_content().splitlines()
    assert lines == [
        "Resolved: HIGH Alert",
        "",
        "Alert: Latency is high",
        "Severity: high",
        "Model: fraud",
        "Environment: production",
        "Triggered at: 2026-11-23T04:00:59Z",
        "Acknowledged by: ada",
        "Resolved at: 2026-11-23T04:06:59Z",
        "",
        "p90 over 2 s",
        "for 10 min",
        "",
        f"View Dashboard: {URL}",
    ]
    assert 'href="https://hub.example.com/dashboard?alert=a1&amp;b=c"' in page.get_content()


def test_a_thread_is_held_by_ids_and_by_one_subject():
    fired = read(alert(updated_at=1))
    resolved = read(alert(updated_at=2, status="resolved"), first=fired["Message-ID"])
    unheard = read(alert(updated_at=2, status="resolved"))
    assert fired["Message-ID"] == "<airis-mon-a1.1@example.com>"
    assert fired["References"] == fired["In-Reply-To"] == "<airis-mon-a1@example.com>"
    assert resolved["Message-ID"] == unheard["Message-ID"] == "<airis-mon-a1.2@example.com>"
    assert resolved["References"] == "<airis-mon-a1@example.com> <airis-mon-a1.1@example.com>"
    assert resolved["In-Reply-To"] == fired["Message-ID"]
    assert unheard["References"] == "<airis-mon-a1@example.com>"
    assert resolved["Subject"] == f"Re: {fired['Subject']}"


def test_a_repetition_has_the_same_id():
    assert read(alert(updated_at=1))["Message-ID"] == read(alert(updated_at=1, current_value=2.0))["Message-ID"]


@pytest.mark.parametrize("filler", ["x", "ü ", "🚨", "\x00", "\r\n", "<b>", "\u2028"])
def test_text_of_any_kind_and_length_makes_a_mail(filler):
    long = filler * 50_000
    subject = alert(id=f"a{filler}", name=long, description=long, model_id=long, acknowledged_by=long)
    message = read(subject)
    assert len(message["Subject"]) <= 200
    assert len(message.as_bytes()) < 200_000
    assert "<b>" not in message.get_body(("html",)).get_content()
    assert " " not in message["Message-ID"]


def test_no_header_can_be_put_in():
    message = read(alert(id="a1\r\nX-Evil: 1", name="n\r\nBcc: eve@example.com"))
    assert message["Bcc"] is message["X-Evil"] is None
    assert message["Subject"] == "AIRIS-MON Alert: n Bcc: eve@example.com"


@pytest.mark.parametrize("name", ["zu groß für 🚨", "Überlast 🚨 in der Produktion, seit über 10 Minuten, p95 ≥ 2 🚨"])
def test_a_subject_that_is_not_ascii_arrives_as_it_is(name):
    assert read(alert(name=name))["Subject"] == f"AIRIS-MON Alert: {name}"
    assert read(alert(name=name), first="<x@y>")["Subject"] == f"Re: AIRIS-MON Alert: {name}"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"host": "127.0.0.1"}, "its extra from_email is no address"),
        ({"host": "127.0.0.1", "extra": {"from_email": "nobody"}}, "its extra from_email is no address"),
        ({"extra": {"from_email": SENDER}}, "it has no host"),
    ],
)
def test_a_connection_that_cannot_be_used_says_why(connect, fields, says):
    connect("smtp_default", conn_type="smtp", **fields)
    with pytest.raises(PermanentError, match=says):
        EmailHook().check()


def test_a_mail_to_nobody_is_not_sent(connect):
    connect("smtp_default", conn_type="smtp", host="127.0.0.1", port=9, extra={"from_email": SENDER})
    with pytest.raises(PermanentError, match="'alerts' is no address; check target"):
        EmailHook().send(mail(AlertView(alert(), URL), sender=SENDER, to="alerts", first=None))


def test_a_server_that_does_not_speak_tls_from_the_start_is_said_so(connect, httpserver):
    extra = {"from_email": SENDER}
    connect("smtp_default", conn_type="smtp", host=httpserver.host, port=httpserver.port, extra=extra)
    with pytest.raises(PermanentError, match=r"does not speak TLS like that .* set disable_ssl of connection"):
        EmailHook().check()


def test_the_connections_timeout_is_kept_unless_the_caller_has_another(connect):
    with Silent() as server:
        address = server.url.partition("://")[2]
        extra = {"from_email": SENDER, "disable_ssl": True, "timeout": 0.2}
        connect("smtp_default", conn_type="smtp", host=address, extra=extra)
        with pytest.raises(RetryableError, match="gave no answer"):
            EmailHook().check()
        connect("smtp_default", conn_type="smtp", host=address, extra=extra | {"timeout": 600})
        with pytest.raises(RetryableError, match="gave no answer"):
            EmailHook(timeout=0.2).check()
