"""The webhook of an alert: its body, its signature, and what its hook gives away of a URL that is a secret."""

from __future__ import annotations

import hashlib
import hmac
import json

import msgspec
import pytest

from airflow_provider_airis.catalog import BY_STEM
from airflow_provider_airis.channels.view import AlertView
from airflow_provider_airis.channels.webhook import body, key
from airflow_provider_airis.errors import PermanentError, RetryableError
from airflow_provider_airis.hooks.webhook import WebhookHook, signature
from airflow_provider_airis.records import Alert, Notification
from tests.contract.peers import always, typical
from tests.views import URL, alert

ROW = BY_STEM["webhook"]
KINDS = {"retryable": RetryableError, "permanent": PermanentError}
# What nobody may see of the typical connection.
SECRETS = ("what-both-sides-sign-with", "/hooks/alerts")


@pytest.mark.parametrize(
    ("status", "shown", "change"),
    [
        ("firing", False, "fired"),
        ("firing", True, "severity_changed"),
        ("acknowledged", True, "acknowledged"),
        ("resolved", True, "resolved"),
        ("resolved", False, "resolved"),
    ],
)
def test_it_says_what_has_changed(status, shown, change):
    told = json.loads(body(AlertView(alert(status=status), URL), shown=shown))
    assert (told["change"], told["url"]) == (change, URL)
    assert told["alert"].keys() == {field.name for field in msgspec.structs.fields(Alert)} - {"notifications"}


def test_a_repetition_is_the_same_bytes_under_the_same_key():
    fields = {"timestamp": 1_000, "updated_at": 61_000}
    first = alert(duration=60.1, **fields)
    later = alert(duration=75.0, notifications=[Notification("slack", "#alerts", "C1:1", "firing", 1)], **fields)
    assert body(AlertView(first, URL), shown=False) == body(AlertView(later, URL), shown=False)
    assert json.loads(body(AlertView(first, URL), shown=False))["alert"]["duration"] == 60.0
    assert key(AlertView(first, URL)) == key(AlertView(later, URL)) == "airis-mon-a1-61000"
    assert key(AlertView(alert(id="a/ü b"), URL)).isascii()


def test_the_signature_is_over_time_and_the_bytes_sent():
    told = body(AlertView(alert(name="Drift ü\n"), URL), shown=False)
    digest = hmac.new(b"s3cret", b"1795406459." + told, hashlib.sha256).hexdigest()
    assert signature("s3cret", told, 1795406459) == f"t=1795406459,v1={digest}"


def test_the_request_is_what_was_promised(httpserver, connect):
    httpserver.expect_request("/hooks/alerts/").respond_with_data("", status=204)
    url = httpserver.url_for("/hooks/alerts/?code=k3y")
    extra = {"auth_headers": '{"Authorization": "Bearer t0ken"}'}
    connect("webhook_default", conn_type="webhook", host=url, password="s3cret", extra=extra)
    with WebhookHook() as hook:
        hook.send(b'{"a": 1}', key="k")
    request, _ = httpserver.log[0]
    assert (request.method, request.path, request.query_string) == ("POST", "/hooks/alerts/", b"code=k3y")
    assert request.data == b'{"a": 1}'
    at = int(request.headers["X-Airis-Signature"].partition(",")[0].removeprefix("t="))
    assert request.headers["X-Airis-Signature"] == signature("s3cret", request.data, at)
    assert request.headers["Idempotency-Key"] == "k"
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["Authorization"] == "Bearer t0ken"


def test_a_header_of_the_connection_is_in_no_error(connect):
    answer = {"status": 400, "json": {"error": "I do not know Bearer t0ken-of-theirs"}}
    with always(ROW, answer) as server:
        fields = typical(ROW).connections(server.url)["webhook_default"]
        connect("webhook_default", **fields, extra={"auth_headers": {"Authorization": "Bearer t0ken-of-theirs"}})
        with WebhookHook(retries=0) as hook, pytest.raises(PermanentError, match=r"I do not know \*\*\*"):
            hook.send(b"{}", key="k")


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        ({"host": "r.example.com/a?b=c"}, "https://r.example.com/a?b=c"),
        ({"host": "r.example.com", "schema": "http", "port": 8080}, "http://r.example.com:8080"),
        ({"host": "https://r.example.com:444/a/", "port": 8080}, "https://r.example.com:444/a/"),
    ],
)
def test_the_url_is_the_connections(connect, fields, url):
    connect("webhook_default", conn_type="webhook", password="s3cret", **fields)
    hook = WebhookHook()
    assert str(hook.url) == url
    assert hook.test_connection() == (
        True,
        f"Webhook: there is a URL and a secret; {hook.base_url} is asked with the first alert",
    )
    assert "/a" not in hook.base_url
