"""What every inbound system must do: its golden cases through real sockets, into the real hub."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import msgspec
import pytest
import time_machine
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_airis.catalog import BY_STEM, SYSTEMS
from airflow_provider_airis.errors import AirisError, PartialError
from airflow_provider_airis.hooks.airis import AirisHook
from airflow_provider_airis.records import Event, Metric, User, to_ms
from tests.conftest import DocumentHub
from tests.contract.peers import load, secrets
from tests.replay import Case, Replay, cases

INBOUND = [system.stem for system in SYSTEMS if system.source]
CASES = [case for case in cases() if case.system in INBOUND]
# Who reads from the hub what it was told, and does not tell it again.
REMEMBERS = {"mlflow"}
# System → why the times of its records are not those of the window.
OWN_TIMES = {"mlflow": "a registry shows what is there now; its events and metrics bear times of their own"}
pytestmark = pytest.mark.usefixtures("airis")
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.system}-{case.name}")


def operator(case: Case) -> Any:
    return load(BY_STEM[case.system].collect_class)(task_id="contract", **case.arguments)


def collect(case: Case, connect: Any) -> tuple[list[Metric | Event | User], Any, Replay]:
    """The records of a case, read through a socket, with the operator that read them and the server."""
    reader, records = operator(case), []
    with case.serve() as server, time_machine.travel(case.now):
        for conn_id, fields in case.connections(server.url).items():
            connect(conn_id, **fields)
        try:
            for record in reader.collect(reader.window({})):
                records.append(record)  # noqa: PERF402 - what came before an error counts
        except AirisError as error:
            reader.failures["collect"] = error
    return records, reader, server


def plain(records: list[Metric | Event | User]) -> list[dict[str, Any]]:
    found = [msgspec.to_builtins(record) for record in records]
    # The time at which a user was read is the case's now, and a little.
    return [{name: value for name, value in record.items() if name != "sync_timestamp"} for record in found]


@pytest.mark.parametrize("stem", INBOUND)
def test_the_golden_cases_are_there(stem):
    assert {"typical", "empty", "partial"} <= {case.name for case in CASES if case.system == stem}


@each_case
def test_a_case_gives_exactly_its_records(case, connect):
    records, reader, server = collect(case, connect)
    assert plain(records) == case.expected
    assert server.unexpected == []
    assert server.left == []
    told = "; ".join(f"{part}: {error}" for part, error in reader.failures.items())
    if case.fails:
        assert re.search(case.fails, told), told
    else:
        assert not told


@each_case
def test_reading_again_gives_the_same_records(case, connect):
    assert plain(collect(case, connect)[0]) == plain(collect(case, connect)[0])


@each_case
def test_every_record_is_declared_and_inside_its_window(case, connect):
    records, reader, _ = collect(case, connect)
    window, row = reader.window({}), BY_STEM[case.system]
    units = {metric.name: metric.unit for metric in row.metrics}
    events = {event.event_type for event in row.events}
    for record in records:
        if isinstance(record, User):
            assert record.sync_timestamp >= to_ms(datetime.fromisoformat(case.now))
            continue
        assert record.timestamp in window or case.system in OWN_TIMES
        if isinstance(record, Metric):
            assert record.unit == units[record.name]
        else:
            assert record.event_type in events


@each_case
def test_a_case_reaches_the_hub_whole_and_again_changes_nothing(case, connect, airis):
    """Twice through the engine: the hub then holds each record once, and a failed part fails the task by name."""
    start, end = (to_ms(datetime.fromisoformat(case.arguments[edge])) for edge in ("start", "end"))
    deliver_twice(case, connect)
    stored = []
    with AirisHook() as hub:
        for source, name in {(record["source"], record["name"]) for record in case.expected if "name" in record}:
            for series in hub.query(name=name, source=source, start=start, end=end):
                labels = {field: series[field] for field in ("source", "name", "unit", "tags")}
                stored += [{**labels, "timestamp": at, "value": value} for at, value in series["points"]]
        stored += plain([_user(row) for row in hub.users(source=case.arguments.get("source", case.system))])
    # A directory comes into force as a whole or not at all.
    held = [row for row in case.expected if "name" in row or ("username" in row and not case.fails)]
    assert ordered(stored) == ordered(held)


@each_case
def test_a_case_reaches_a_hub_of_the_documents_four_calls(case, connect, four_calls, variables):
    """The same with a hub that has nothing else: it is told each record, in the words of its document."""
    connect("airis_default", conn_type="airis", host=four_calls.url, password=four_calls.token)
    before = {kind: len(taken) for kind, taken in four_calls.taken().items() if isinstance(taken, list)}
    deliver_twice(case, connect)
    taken = {kind: four_calls.taken()[kind][count:] for kind, count in before.items()}
    # It may be told twice, and has then no more than before.
    told = {
        repr(_sorted({**point, "source": body["source"], "timestamp": body["timestamp"]})): None
        for body in taken["metrics"]
        for point in body["metrics"]
    }
    assert sorted(told) == ordered([row for row in case.expected if "name" in row])
    events = [{name: value for name, value in row.items() if name != "key"} for row in case.expected if "key" in row]
    # Of a directory the records are its users; that it was read is an event besides.
    heard = [event for event in taken["events"] if event["event_type"] != "directory_synced"]
    assert sorted({repr(_sorted(event)) for event in heard}) == ordered(events)
    users = [row for row in case.expected if "username" in row and not case.fails]
    assert [sorted(user["username"] for user in body["data"]["users"]) for body in taken["users"]] == (
        [sorted(user["username"] for user in users)] * 2 if users else []
    )


@pytest.fixture(scope="module")
def four_calls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DocumentHub]:
    hub = DocumentHub(tmp_path_factory.mktemp("document"))
    yield hub
    hub.server.stop()


def deliver_twice(case: Case, connect: Any) -> None:
    for again in (False, True):
        with case.serve(again=again) as server, time_machine.travel(case.now):
            for conn_id, fields in case.connections(server.url).items():
                connect(conn_id, **fields)
            if case.fails:
                with pytest.raises((AirflowFailException, PartialError), match=case.fails) as failure:
                    operator(case).execute({})
                for secret in secrets(case.connections("")):
                    assert secret not in str(failure.value)
            else:
                summary = operator(case).execute({})
                assert sum(summary.get(kind, 0) for kind in ("points", "events", "users")) == (
                    0 if again and case.system in REMEMBERS else len(case.expected)
                )
                assert summary["rejected"] == 0


def ordered(records: list[dict[str, Any]]) -> list[str]:
    return sorted(repr(_sorted(record)) for record in records)


def _user(row: dict[str, Any]) -> User:
    assert row["active"]
    return msgspec.convert({name: row[name] for name in User.__struct_fields__ if name in row}, User)


def _sorted(record: dict[str, Any]) -> list[Any]:
    return sorted((key, sorted(value.items()) if isinstance(value, dict) else value) for key, value in record.items())
