"""How every hook meets a peer that refuses, fails, hangs or never ends, and what it may not give away."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_airis.catalog import SYSTEMS, System
from airflow_provider_airis.errors import PermanentError, RetryableError
from tests.contract.peers import Silent, always, load, secrets, shared, typical

# (system, rule) → why its row is excused from that rule.
EXCUSED = {
    ("pagerduty", "refusals"): "the Events API has no request without an effect; test_pagerduty.py sends real ones",
    ("pagerduty", "hangs"): "likewise",
    ("pagerduty", "unreachable"): "likewise",
    ("pagerduty", "pages"): "the Events API has no pages",
    ("teams", "refusals"): "no request posts nothing; test_teams.py sends real ones",
    ("teams", "hangs"): "likewise",
    ("teams", "unreachable"): "likewise",
    ("teams", "pages"): "a workflow has no pages",
    ("webhook", "refusals"): "a receiver has no request without an effect; test_webhook.py sends real ones",
    ("webhook", "hangs"): "likewise",
    ("webhook", "unreachable"): "likewise",
    ("webhook", "pages"): "a receiver has no pages",
    ("email", "pages"): "SMTP has no pages",
    ("servicenow", "pages"): "an incident is looked up by one request for one",
    ("jira", "pages"): "an issue is looked up by one request for one, and its newest comments are one page",
    ("slack", "pages"): "posting and updating have no pages, and the look-up of a message reads one",
}
KINDS = {"retryable": RetryableError, "permanent": PermanentError}


def held_to(rule: str) -> list[System]:
    return [system for system in SYSTEMS if (system.stem, rule) not in EXCUSED]


def each(rule: str) -> Any:
    return pytest.mark.parametrize("system", held_to(rule), ids=lambda system: system.stem)


def opened(system: System, url: str, connect: Any, *, timeout: float = 5) -> Any:
    """The system's hook on its typical connections, leading to ``url``, without repetitions."""
    for conn_id, fields in typical(system).connections(url).items():
        connect(conn_id, **fields)
    return load(system.hook_class)(system.default_conn_id, timeout=timeout, retries=0)


REFUSALS = [
    pytest.param(system, row, id=f"{system.stem}-{row['about']}")
    for system in held_to("refusals")
    for row in shared(system, "errors.json")
]


@pytest.mark.parametrize(("system", "row"), REFUSALS)
def test_what_a_peer_answers_is_passing_or_permanent(system, row, connect, caplog):
    with always(system, row["response"]) as server:
        hook = opened(system, server.url, connect)
        with pytest.raises(KINDS[row["error"]]) as raised:
            hook.check()
        works, told = hook.test_connection()
    assert row["says"] in str(raised.value)
    assert not works
    assert row["says"] in told
    assert getattr(raised.value, "retry_after", None) == row.get("retry_after")
    for secret in secrets(typical(system).connections(server.url)):
        assert secret not in str(raised.value) + told + repr(hook) + repr(vars(raised.value)) + caplog.text


@each("refusals")
def test_the_table_of_refusals_is_complete(system):
    """At the least: bad credentials, lacking rights, too many requests, a fault of theirs."""
    statuses = {row["response"].get("status", 200): row["error"] for row in shared(system, "errors.json")}
    kinds = [row["error"] for row in shared(system, "errors.json")]
    assert kinds.count("permanent") >= 2
    assert kinds.count("retryable") >= 2
    assert statuses.get(429) in (None, "retryable")
    assert statuses.get(503) in (None, "retryable")


@each("hangs")
def test_no_request_waits_for_ever(system, connect):
    with Silent() as peer:
        works, told = opened(system, peer.url, connect, timeout=0.3).test_connection()
    assert not works
    assert told


@each("unreachable")
def test_a_peer_that_is_not_there_is_said_so_and_may_come_back(system, connect):
    with Silent() as peer:
        url = peer.url
    hook = opened(system, url, connect)
    with pytest.raises(RetryableError) as raised:
        hook.check()
    works, told = hook.test_connection()
    assert not works
    for secret in secrets(typical(system).connections(url)):
        assert secret not in str(raised.value) + told


@each("pages")
def test_a_cursor_that_never_ends_is_an_error(system, connect):
    row = shared(system, "endless.json")
    with always(system, row["response"]) as server:
        hook = opened(system, server.url, connect)
        with pytest.raises(PermanentError, match=r"without an end|endless"):
            for _ in getattr(hook, row["reads"])():
                pass
    assert server.asked < 100


@each("missing connection")
def test_a_missing_connection_is_told_not_raised(system):
    works, told = load(system.hook_class)("nobody_made_this").test_connection()
    assert not works
    assert "nobody_made_this" in told


@pytest.fixture
def sockets() -> Iterator[list[str]]:
    """Which connections and look-ups were attempted."""
    seen: list[str] = []
    listening = [True]

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if listening and event in ("socket.connect", "socket.getaddrinfo"):
            seen.append(f"{event} {args[1:]}")

    sys.addaudithook(hook)
    yield seen
    listening.clear()


@each("constructors")
def test_constructors_open_nothing(system, connect, sockets):
    opened(system, "http://127.0.0.1:9", connect)
    for operator in filter(None, (system.collect_class, system.notify_class)):
        load(operator)(task_id="contract", **typical(system).arguments)
    assert sockets == []


def test_every_excuse_is_of_a_row_that_exists():
    assert {stem for stem, _ in EXCUSED} <= {system.stem for system in SYSTEMS}
