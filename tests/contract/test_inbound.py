"""What every inbound system must do: its golden cases through real sockets, into the real hub."""

from __future__ import annotations

import re
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
    stored = []
    with AirisHook() as hub:
        for source, name in {(record["source"], record["name"]) for record in case.expected if "name" in record}:
            for series in hub.query(name=name, source=source, start=start, end=end):
                labels = {field: series[field] for field in ("source", "name", "unit", "tags")}
                stored += [{**labels, "timestamp": at, "value": value} for at, value in series["points"]]
        stored += plain([_user(row) for row in hub.users(source=case.arguments.get("source", case.system))])
    # A directory comes into force as a whole or not at all.
    held = [row for row in case.expected if "name" in row or ("username" in row and not case.fails)]
    assert sorted(map(repr, map(_sorted, stored))) == sorted(map(repr, map(_sorted, held)))


def _user(row: dict[str, Any]) -> User:
    assert row["active"]
    return msgspec.convert({name: row[name] for name in User.__struct_fields__ if name in row}, User)


def _sorted(record: dict[str, Any]) -> list[Any]:
    return sorted((key, sorted(value.items()) if isinstance(value, dict) else value) for key, value in record.items())
