"""The transport under every hook that speaks HTTP, against a server that answers as the test says."""

from __future__ import annotations

import asyncio
import datetime
import http.server
import ipaddress
import json
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from werkzeug import Request, Response

from airflow_provider_airis.errors import AirisError, PermanentError, RetryableError
from airflow_provider_airis.hooks.http import MOST_PAGES, HttpHook
from airflow_provider_airis.hooks.pagers import Cursor

RETRYABLE = [408, 425, 429, 500, 502, 503, 504]
PERMANENT = [400, 401, 403, 404, 405, 406, 409, 410, 413, 415, 422, 451, 501, 505]


class Hook(HttpHook):
    conn_type = "example"
    default_conn_name = "example_default"
    hook_name = "Example"
    health_path = "/health"


@pytest.fixture
def hook(httpserver, connect) -> Iterator[Hook]:
    connect("example_default", conn_type="example", host=httpserver.url_for(""), password="the-password")
    with Hook(retries=0) as hook:
        yield hook


@pytest.fixture
def parsed(connect) -> Callable[..., Hook]:
    """A hook on a connection of these fields."""

    def parsed(**fields: Any) -> Hook:
        return Hook(connect("example_default", conn_type="example", **fields))

    return parsed


def answers(*responses: Response) -> Callable[[Request], Response]:
    waiting = iter(responses)
    return lambda _request: next(waiting)


@pytest.mark.parametrize("status", RETRYABLE)
def test_statuses_that_pass(httpserver, hook, status):
    httpserver.expect_request("/a").respond_with_data(status=status, headers={"Retry-After": "7"})
    with pytest.raises(
        RetryableError, match=rf"^Example \(connection example_default\): GET /a answered {status} \w+"
    ) as it:
        hook.request("GET", "/a")
    assert it.value.retry_after == 7


@pytest.mark.parametrize("status", PERMANENT)
def test_statuses_that_stay(httpserver, hook, status):
    httpserver.expect_request("/a").respond_with_data(status=status)
    with pytest.raises(PermanentError, match=rf"GET /a answered {status} \w+") as failure:
        Hook(retries=3).request("GET", "/a")
    assert failure.value.status == status
    assert len(httpserver.log) == 1


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_statuses_that_succeed(httpserver, hook, status):
    httpserver.expect_request("/a").respond_with_data(status=status)
    assert hook.request("GET", "/a").status_code == status


def test_a_problem_document_is_quoted(httpserver, hook):
    problem = {
        "title": "Bad Request",
        "detail": "two fields are wrong",
        "errors": [{"pointer": "/metrics/0/value", "detail": "no number"}, {"pointer": "/b", "detail": "other"}],
    }
    httpserver.expect_request("/a").respond_with_json(problem, status=400, content_type="application/problem+json")
    with pytest.raises(PermanentError) as failure:
        hook.request("POST", "/a", json={})
    assert failure.value.pointer == "/metrics/0/value"
    assert failure.value.detail == "two fields are wrong: no number"
    assert "400 Bad Request (two fields are wrong: no number; at /metrics/0/value)" in str(failure.value)


@pytest.mark.parametrize(
    "body", ["", "<html>", "[1]", '"text"', '{"detail": [1]}', '{"errors": 3, "detail": 4}', "\xff"]
)
def test_any_other_error_document_does_no_harm(httpserver, hook, body):
    httpserver.expect_request("/a").respond_with_data(body.encode("latin-1"), status=400)
    with pytest.raises(PermanentError, match="400 Bad Request: the request itself"):
        hook.request("GET", "/a")


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (401, "check the token or password of connection example_default"),
        (403, "lack the permission or scope"),
        (404, "check the base URL of connection example_default"),
        (413, "send less at once"),
        (429, "less often"),
    ],
)
def test_errors_say_what_to_do(httpserver, hook, status, advice):
    httpserver.expect_request("/a").respond_with_data(status=status)
    with pytest.raises(AirisError, match=advice):
        hook.request("GET", "/a")


def test_a_redirect_is_not_followed_but_named(httpserver, hook):
    location = "https://user:pw@elsewhere.example/x?token=abc"
    httpserver.expect_request("/a").respond_with_data(status=308, headers={"Location": location})
    with pytest.raises(PermanentError, match="put the final address into connection") as failure:
        hook.request("GET", "/a")
    assert "https://elsewhere.example/x:" in str(failure.value)
    assert len(httpserver.log) == 1


@pytest.mark.parametrize("kind", ["seconds", "date", "past", "nonsense"])
def test_retry_after(httpserver, hook, kind):
    value, least, most = {
        "seconds": ("3", 3, 3),
        "date": (formatdate(time.time() + 100, usegmt=True), 90, 100),
        "past": (formatdate(time.time() - 100, usegmt=True), 0, 0),
        "nonsense": ("soon", None, None),
    }[kind]
    httpserver.expect_request("/a").respond_with_data(status=503, headers={"Retry-After": value})
    with pytest.raises(RetryableError) as failure:
        hook.request("GET", "/a")
    if least is None:
        assert failure.value.retry_after is None
    else:
        assert least <= failure.value.retry_after <= most


def test_an_attempt_follows_when_it_was_asked_for(httpserver, hook):
    limited = Response(status=429, headers={"Retry-After": "0"})
    httpserver.expect_request("/a").respond_with_handler(answers(limited, limited, Response("done")))
    assert Hook(retries=2).request("GET", "/a").text == "done"
    assert len(httpserver.log) == 3


def test_attempts_are_bounded(httpserver, hook):
    httpserver.expect_request("/a").respond_with_data(status=503, headers={"Retry-After": "0"})
    with pytest.raises(RetryableError, match="503"):
        Hook(retries=2).request("GET", "/a")
    assert len(httpserver.log) == 3


def test_a_wait_that_is_too_long_is_left_to_the_task(httpserver, hook):
    httpserver.expect_request("/a").respond_with_data(status=429, headers={"Retry-After": "3600"})
    with pytest.raises(RetryableError) as failure:
        Hook(retries=2).request("GET", "/a")
    assert failure.value.retry_after == 3600
    assert len(httpserver.log) == 1


@pytest.mark.parametrize(
    ("method", "arguments", "attempts"),
    [
        ("GET", {}, 2),
        ("PUT", {}, 2),
        ("DELETE", {}, 2),
        ("POST", {}, 1),
        ("PATCH", {}, 1),
        ("POST", {"headers": {"idempotency-key": "k"}}, 2),
        ("POST", {"retry": True}, 2),
        ("GET", {"retry": False}, 1),
    ],
)
def test_only_what_does_no_harm_is_sent_again(httpserver, hook, method, arguments, attempts):
    httpserver.expect_request("/a").respond_with_data(status=503, headers={"Retry-After": "0"})
    with pytest.raises(RetryableError):
        Hook(retries=1).request(method, "/a", content=b"the same bytes", **arguments)
    assert [request.data for request, _ in httpserver.log] == [b"the same bytes"] * attempts


@pytest.mark.parametrize(
    ("method", "arguments", "headers", "attempts"),
    [
        ("POST", {}, {"Retry-After": "0"}, 2),
        ("PATCH", {}, {"Retry-After": "0"}, 2),
        ("POST", {}, {}, 1),
        ("POST", {"retry": False}, {"Retry-After": "0"}, 1),
    ],
)
def test_what_was_turned_away_is_sent_again_when_it_was_asked_for(
    httpserver, hook, method, arguments, headers, attempts
):
    httpserver.expect_request("/a").respond_with_data(status=429, headers=headers)
    with pytest.raises(RetryableError, match="429"):
        Hook(retries=1).request(method, "/a", content=b"the same bytes", **arguments)
    assert [request.data for request, _ in httpserver.log] == [b"the same bytes"] * attempts


def test_a_request_carries_what_it_was_given(httpserver, hook):
    httpserver.expect_request("/a/b").respond_with_json({})
    hook.request("POST", "/a/b", params={"x": [1, 2], "none": None, "y": "ü&"}, json={"a": [1.5]}, headers={"X-A": "b"})
    request, _ = httpserver.log[0]
    assert request.query_string == b"x=1&x=2&y=%C3%BC%26"
    assert request.get_json() == {"a": [1.5]}
    assert request.headers["X-A"] == "b"
    assert request.headers["Authorization"] == "Bearer the-password"
    assert request.headers["User-Agent"].startswith("airflow-provider-airis/")


def test_login_and_password_are_basic_auth(httpserver, parsed):
    httpserver.expect_request("/a").respond_with_data()
    parsed(host=httpserver.url_for(""), login="ada", password="pässword").request("GET", "/a")
    authorization = httpserver.log[0][0].authorization
    assert (authorization.type, authorization.username, authorization.password) == ("basic", "ada", "pässword")


def test_without_credentials_none_are_sent(httpserver, parsed):
    httpserver.expect_request("/a").respond_with_data()
    parsed(host=httpserver.url_for("")).request("GET", "/a")
    assert "Authorization" not in httpserver.log[0][0].headers


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        ({"host": "hub.example"}, "https://hub.example"),
        ({"host": "hub.example/"}, "https://hub.example"),
        ({"host": " hub.example "}, "https://hub.example"),
        ({"host": "hub.example", "port": 8443}, "https://hub.example:8443"),
        ({"host": "hub.example:8443"}, "https://hub.example:8443"),
        ({"host": "hub.example:8443", "port": 1}, "https://hub.example:8443"),
        ({"host": "hub.example", "schema": "http", "port": 8080}, "http://hub.example:8080"),
        ({"host": "hub.example/a/b/"}, "https://hub.example/a/b"),
        ({"host": "hub.example/a", "port": 8443}, "https://hub.example:8443/a"),
        ({"host": "http://hub.example:8080/a/b/"}, "http://hub.example:8080/a/b"),
        ({"host": "https://hub.example", "schema": "http"}, "https://hub.example"),
        ({"host": "::1", "port": 8443}, "https://[::1]:8443"),
        ({"host": "[::1]:8443"}, "https://[::1]:8443"),
        ({"host": "http://[2001:db8::1]/a"}, "http://[2001:db8::1]/a"),
        ({"host": "127.0.0.1", "schema": "http"}, "http://127.0.0.1"),
        ({"host": "HTTPS://Hub.Example"}, "https://hub.example"),
    ],
)
def test_the_base_url(parsed, fields, url):
    assert parsed(**fields).base_url == url


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"host": ""},
        {"host": "https://"},
        {"host": "ftp://hub.example"},
        {"host": "hub.example", "schema": "ftp"},
        {"host": "https://user:the-secret@hub.example"},
        {"host": "https://hub.example/?key=the-secret"},
        {"host": "https://hub.example/#the-secret"},
        {"host": "https://[::1"},
        {"host": "https://hub.example:port"},
    ],
)
def test_a_base_url_that_is_none(parsed, fields):
    with pytest.raises(PermanentError, match="Example: connection example_default cannot be used, its host") as failure:
        _ = parsed(**fields).base_url
    assert "the-secret" not in str(failure.value)


@pytest.mark.parametrize(
    ("host", "path", "asked"), [("", "/a", "/a"), ("/p", "/a", "/p/a"), ("/p/q/", "/a/b", "/p/q/a/b")]
)
def test_a_path_prefix_is_kept(httpserver, parsed, host, path, asked):
    httpserver.expect_request(asked).respond_with_data("here")
    assert parsed(host=httpserver.url_for("") + host).request("GET", path).text == "here"


@pytest.mark.parametrize(
    "extra",
    [{"timeout": "long"}, {"timeout": -1}, {"timeout": 0}, {"verify": "/no/such/bundle.pem"}, {"timeout": [1]}],
)
def test_extras_that_cannot_be_used_are_named(parsed, extra):
    with pytest.raises(PermanentError, match=f"connection example_default cannot be used, its {next(iter(extra))}"):
        parsed(host="hub.example", extra=extra).request("GET", "/a")


@pytest.mark.parametrize(
    ("extra", "argument", "seconds"), [({}, None, 30), ({"timeout": "4.5"}, None, 4.5), ({"timeout": 4}, 2, 2)]
)
def test_every_request_has_a_timeout(parsed, extra, argument, seconds):
    hook = parsed(host="http://127.0.0.1", extra=extra)
    hook.timeout = argument
    timeout = hook.get_conn().timeout
    assert (timeout.read, timeout.write, timeout.pool, timeout.connect) == (seconds, seconds, seconds, min(10, seconds))


def test_a_peer_that_does_not_answer_is_given_up(parsed):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hook = parsed(host=f"http://127.0.0.1:{silent.getsockname()[1]}", extra={"timeout": 0.2})
        hook.retries = 0
        with pytest.raises(RetryableError, match=r"GET /a got no answer in time .*: check that http://127.0.0.1"):
            hook.request("GET", "/a")
        with pytest.raises(RetryableError, match="no answer in time"):
            Hook(timeout=60, retries=0).request("GET", "/a", timeout=0.2)


def test_a_peer_that_is_not_there(parsed):
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with pytest.raises(RetryableError, match=r"could not connect .*: check that http://127.0.0.1:.* is up"):
        Hook(parsed(host=f"http://127.0.0.1:{port}").conn_id, retries=0).request("GET", "/a")
    with pytest.raises(RetryableError, match="could not connect"):
        Hook(parsed(host="http://no-such-host.invalid").conn_id, retries=0).request("GET", "/a")


def test_a_token_that_no_header_can_carry_is_not_quoted(parsed):
    for token in ("two\nlines", "ünïcode"):
        with pytest.raises(PermanentError, match="its token holds characters") as failure:
            parsed(host="http://127.0.0.1:9", password=token).request("GET", "/a")
        assert token not in str(failure.value)


def test_blanks_around_a_token_do_no_harm(httpserver, parsed):
    httpserver.expect_request("/a").respond_with_data()
    parsed(host=httpserver.url_for(""), password=" the-token\n").request("GET", "/a")
    assert httpserver.log[0][0].headers["Authorization"] == "Bearer the-token"


def test_a_secret_that_the_peer_repeats_is_redacted(httpserver, hook, capfd):
    detail = {"detail": "the token 'the-password' is unknown"}
    httpserver.expect_request("/a").respond_with_json(detail, status=401)
    httpserver.expect_request("/b").respond_with_json(detail, status=503, headers={"Retry-After": "0"})
    httpserver.expect_request("/health").respond_with_json(detail, status=401)
    with pytest.raises(PermanentError, match=r"the token '\*\*\*' is unknown") as failure:
        hook.request("GET", "/a", params={"key": "in-the-query"})
    with pytest.raises(RetryableError):
        Hook(retries=1).request("GET", "/b?key=in-the-query")
    told = "".join([*capfd.readouterr(), str(failure.value), repr(failure.value), failure.value.detail])
    told += hook.test_connection()[1] + repr(hook) + str(vars(hook).keys())
    assert "attempt 2 follows" in told
    assert "the-password" not in told
    assert "in-the-query" not in told
    assert repr(hook) == "Hook('example_default')"


def test_the_http_library_does_not_log_every_url(httpserver, hook, caplog):
    httpserver.expect_request("/a").respond_with_data()
    with caplog.at_level(logging.INFO):
        hook.request("GET", "/a", params={"key": "in-the-query"})
    assert not [record for record in caplog.records if record.name.startswith("http") and "/a" in record.getMessage()]


def test_making_a_hook_looks_nothing_up():
    hook = Hook("there_is_no_such_connection")
    assert repr(hook) == "Hook('there_is_no_such_connection')"


@pytest.mark.parametrize(
    ("health", "works", "said"),
    [
        (Response("fine"), True, "Example answers at http://"),
        (Response(status=401), False, "check the token"),
        (Response(status=503), False, "503"),
        (Response(status=302), False, "redirecting"),
    ],
)
def test_testing_a_connection(httpserver, hook, health, works, said):
    httpserver.expect_request("/health").respond_with_handler(answers(health))
    result = Hook().test_connection()
    assert result[0] is works
    assert said in result[1]
    assert len(httpserver.log) == 1


@pytest.mark.parametrize(
    "fields", [None, {}, {"host": "http://127.0.0.1:9"}, {"host": "https://[::1"}, {"host": "h", "extra": "[1]"}]
)
def test_testing_a_connection_never_raises(connect, fields):
    if fields is not None:
        connect("example_default", conn_type="example", **fields)
    works, said = Hook(timeout=1).test_connection()
    assert not works
    assert said


def test_pages(httpserver, hook):
    pages: dict[str | None, dict[str, Any]] = {
        None: {"rows": [1, 2], "next": "b"},
        "b": {"rows": [], "next": "c"},
        "c": {"rows": [3], "next": None},
    }
    httpserver.expect_request("/rows").respond_with_handler(
        lambda request: Response(json.dumps(pages[request.args.get("next")]))
    )
    assert list(hook.pages("/rows", params={"size": 2}, items="rows", pager=Cursor("next"))) == [1, 2, 3]
    assert all(request.args["size"] == "2" for request, _ in httpserver.log)
    assert len(httpserver.log) == 3


def test_pages_are_read_as_they_are_asked_for(httpserver, hook):
    httpserver.expect_request("/rows").respond_with_json({"rows": [1, 2], "cursor": "x"})
    rows = hook.pages("/rows", items="rows")
    assert next(rows) == 1
    assert len(httpserver.log) == 1


@pytest.mark.parametrize("cursors", [["a"], ["a", "b", "c"]], ids=["itself", "circle"])
def test_cursors_that_lead_nowhere_stop(httpserver, hook, cursors):
    follow = dict(zip([None, *cursors], [*cursors, cursors[0]], strict=True))
    httpserver.expect_request("/rows").respond_with_handler(
        lambda request: Response(json.dumps({"rows": [0], "cursor": follow[request.args.get("cursor")]}))
    )
    with pytest.raises(PermanentError, match="GET /rows pages without an end"):
        list(hook.pages("/rows", items="rows"))
    assert len(httpserver.log) == len(cursors) + 1


def test_cursors_that_are_always_new_stop(hook, monkeypatch):
    monkeypatch.setattr("airflow_provider_airis.hooks.http.MOST_PAGES", 50)
    assert MOST_PAGES == 10_000

    class Endless(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        asked = 0

        def do_GET(self) -> None:
            type(self).asked += 1
            body = json.dumps({"rows": [], "cursor": str(self.asked)}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with serving(Endless) as server:
        hook.__dict__["base_url"] = f"http://127.0.0.1:{server.server_port}"
        with pytest.raises(PermanentError, match="without an end"):
            list(hook.pages("/rows", items="rows"))
    assert Endless.asked == 50


@pytest.mark.parametrize("body", ["", "<html>", "[]", "{}", '{"rows": 3}'])
def test_a_page_that_is_none(httpserver, hook, body):
    httpserver.expect_request("/rows").respond_with_data(body)
    with pytest.raises(PermanentError, match="GET /rows answered"):
        list(hook.pages("/rows", items="rows"))


def test_a_hook_that_was_closed_opens_again(httpserver, hook):
    httpserver.expect_request("/a").respond_with_data()
    hook.request("GET", "/a")
    first = hook.get_conn()
    hook.close()
    assert first.is_closed
    hook.request("GET", "/a")
    assert not hook.get_conn().is_closed


def test_from_an_event_loop(httpserver, hook):
    limited = Response(status=429, headers={"Retry-After": "0"})
    httpserver.expect_request("/a").respond_with_handler(answers(limited, Response("done"), Response(status=404)))

    async def ask() -> str:
        asynchronous = Hook(retries=1)
        async with await asynchronous.asession() as client:
            text = (await asynchronous.arequest(client, "GET", "/a", params={"x": 1})).text
            with pytest.raises(PermanentError, match="404"):
                await asynchronous.arequest(client, "GET", "/a")
        return text

    assert asyncio.run(ask()) == "done"
    assert all(request.headers["Authorization"] == "Bearer the-password" for request, _ in httpserver.log)


class serving:  # noqa: N801
    """A server of the handler, for as long as the block takes."""

    def __init__(self, handler: type[http.server.BaseHTTPRequestHandler], tls: ssl.SSLContext | None = None) -> None:
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        if tls is not None:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        self.server.daemon_threads = True
        self.server.block_on_close = False
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def __enter__(self) -> http.server.ThreadingHTTPServer:
        return self.server

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


class Fine(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that nobody but itself has signed, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + signed.public_bytes(serialization.Encoding.PEM)
    )
    return path


def test_tls_is_verified_unless_the_connection_says_otherwise(parsed, certificate):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    with serving(Fine, tls) as server:
        host = f"127.0.0.1:{server.server_port}"
        for extra in ({}, {"verify": True}, {"verify": "true"}, {"verify": ""}):
            with pytest.raises(
                PermanentError, match=r"certificate is not trusted .*let verify of connection .* CA bundle"
            ):
                parsed(host=host, extra=extra).request("GET", "/a")
        for extra in ({"verify": False}, {"verify": "false"}, {"verify": str(certificate)}):
            assert parsed(host=host, extra=extra).request("GET", "/a").status_code == 204


class WhoAsks(http.server.BaseHTTPRequestHandler):
    """Answers with the name in the client's certificate."""

    def do_GET(self) -> None:
        subject = self.connection.getpeercert()["subject"][0][0][1]  # type: ignore[attr-defined]
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(subject).encode())

    def log_message(self, *_: object) -> None:
        pass


def test_a_client_certificate_is_a_file_or_pem(parsed, certificate):
    """Also as the single line that the field of a form makes of it."""
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(certificate)
    server_side.load_verify_locations(certificate)
    server_side.verify_mode = ssl.CERT_REQUIRED
    pem = certificate.read_text()
    key, cert = (pem[pem.index(f"-----BEGIN {word}") :] for word in ("PRIVATE KEY", "CERTIFICATE"))
    key = key.removesuffix(cert)
    with serving(WhoAsks, server_side) as server:
        shared = {"verify": str(certificate)}
        host = f"127.0.0.1:{server.server_port}"
        for extra in (
            {"client_cert": str(certificate)},
            {"client_cert": cert, "client_private_key": key},
            {"client_cert": " ".join(cert.split("\n")), "client_private_key": key.replace("\n", "\\n")},
        ):
            with parsed(host=host, extra=shared | extra) as hook:
                assert hook.request("GET", "/").json() == "test"
        with pytest.raises(RetryableError):
            Hook(parsed(host=host, extra=shared).conn_id, retries=0).request("GET", "/")


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({"client_cert": "/nowhere.pem"}, "its client_cert is neither PEM nor a file"),
        ({"client_cert": "-----BEGIN CERTIFICATE-----"}, "its client_cert is PEM that is cut off"),
        ({"client_private_key": "s3cret-key"}, "a client_private_key but no client_cert"),
        ({"client_cert": "{pem}", "client_private_key": "{locked}"}, "no pair of PEM without a passphrase"),
        ({"client_cert": "{pem}", "schema": "http"}, "its client_cert needs a host with https"),
        ({"auth_headers": "[1]"}, "its auth_headers are not a JSON object of texts"),
        ({"auth_headers": {"X-Key": 3}}, "its auth_headers are not a JSON object of texts"),
        ({"auth_headers": {"X-Key": "s3cret\r\nHost: x"}}, "its auth_headers hold characters that no HTTP header"),
        ({"auth_headers": {"X Key": "s3cret"}}, "its auth_headers hold characters that no HTTP header"),
        ({"auth_headers": {"Host": "s3cret"}}, "its auth_headers must not hold Host"),
        ({"auth_headers": {"authorization": "s3cret"}}, "Authorization among its auth_headers beside its login or pas"),
    ],
)
def test_what_a_connection_cannot_be_given_is_said_by_its_name(parsed, certificate, extra, said):
    extra = dict(extra)
    locked = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"pass")
    )
    for name, value in extra.items():
        if isinstance(value, str):
            extra[name] = value.format(pem=certificate, locked=locked.decode())
    with pytest.raises(PermanentError, match=f"^Example: connection example_default cannot be used, .*{said}") as error:
        parsed(host="127.0.0.1:9", schema=extra.pop("schema", "https"), password="t", extra=extra).request("GET", "/")
    assert "s3cret" not in str(error.value)


@pytest.mark.parametrize("given", [{"X-Gateway-Key": "k3y-of-theirs"}, '{"X-Gateway-Key": "k3y-of-theirs"}'])
def test_a_connections_headers_are_in_every_request_and_in_no_error(httpserver, parsed, given):
    httpserver.expect_request("/a", headers={"X-Gateway-Key": "k3y-of-theirs"}).respond_with_data(
        '{"detail": "k3y-of-theirs is bad"}', status=403
    )
    hook = parsed(host=httpserver.url_for(""), password="t0ken", extra={"auth_headers": given})
    with pytest.raises(PermanentError, match=r"\*\*\* is bad"):
        hook.request("GET", "/a")
    assert httpserver.log[0][0].headers["Authorization"] == "Bearer t0ken"


def test_the_extras_that_are_secrets_are_in_no_error(httpserver, parsed):
    httpserver.expect_request("/a").respond_with_data('{"detail": "wrong: api-t0ken, k33per"}', status=403)
    extra = {"api_token": "api-t0ken", "consumer": "k33per", "webhook_secret": "wrong-one"}
    hook = parsed(host=httpserver.url_for(""), extra=extra)
    with pytest.raises(PermanentError, match=r"wrong: \*\*\*, k33per"):
        hook.request("GET", "/a")
