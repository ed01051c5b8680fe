"""What every export must be, read off its row."""

from __future__ import annotations

import inspect
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from airflow_provider_airis.catalog import SYSTEMS, System
from airflow_provider_airis.errors import PermanentError, RetryableError
from airflow_provider_airis.exports.base import EventExport, Item, open_export
from airflow_provider_airis.hooks.airis import AirisHook
from airflow_provider_airis.operators.export import ExportOperator
from airflow_provider_airis.records import Event
from sandbox.airflow import free_port
from tests.contract.peers import always, secrets, typical

EXPORTS = [system for system in SYSTEMS if system.export]
each = pytest.mark.parametrize("system", EXPORTS, ids=lambda system: system.stem)
FOLDER = Path(inspect.getfile(EventExport)).parent
IMPORTS = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(f"airflow_provider_airis.exports.{name}")
print([n for n in sys.modules if n == "airflow" or n.startswith(("airflow.", "httpx", "airflow_provider_airis.hooks"))])
"""


def sample(export: EventExport, key: str = "contract/1", **data: str) -> Event:
    """An event that the export wants, of a type that some row declares."""
    kinds = [event.event_type for system in SYSTEMS for event in system.events]
    made = [Event(kind, "contract", "info", round(time.time() * 1000), data, key) for kind in kinds]
    wanted = [event for event in made if export.wants(event)]
    assert wanted, f"no row declares an event that {type(export).__name__} wants"
    return wanted[0]


def test_exports_know_neither_airflow_nor_who_calls_them():
    modules = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")
    assert {system.stem for system in EXPORTS} < set(modules)
    done = subprocess.run([sys.executable, "-c", IMPORTS, *modules], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@each
def test_an_export_is_made_from_its_row_and_opens_nothing(system: System):
    export = open_export(system)
    assert isinstance(export, EventExport)
    assert export.conn_id == system.default_conn_id
    assert export.limits.items > 0
    assert export.limits.bytes > 0
    assert "hook" not in vars(export)


@each
def test_what_is_sent_is_the_same_each_time_and_bears_the_events_key(system: System):
    export = open_export(system)
    body = export.encode(sample(export))
    assert b"contract/1" in body
    event = sample(export, model_name="fraud", text="ü")
    assert export.encode(event) == export.encode(event)
    for filler in ("x", "🚨", "\x00"):
        large = sample(export, filler * 250, **{f"{filler}{n}": filler * 100_000 for n in range(60)})
        assert export.encode(large)


@each
@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_of_the_caller_is_none_of_the_event(system: System, status, connect):
    with always(system, {"status": status, "json": {}}) as peer:
        for conn_id, fields in typical(system).connections(peer.url).items():
            connect(conn_id, **fields)
        export = open_export(system)
        event = sample(export)
        with closing(export), pytest.raises(PermanentError) as failure:
            export.send([Item(1, event, export.encode(event))])
        assert peer.asked
        assert export.refuses_all(failure.value)


@each
def test_nobody_there_holds_the_offset_and_says_how_much_waits(system: System, hub, connect, caplog):
    connections = typical(system).connections(f"http://127.0.0.1:{free_port()}")
    for conn_id, fields in connections.items():
        connect(conn_id, **fields)
    name = f"contract-{system.stem}"
    connect("airis_default", conn_type="airis", host=hub.url, password=hub.token, extra={"consumer": name})
    with AirisHook() as hook:
        hook.event(sample(open_export(system), f"contract/{system.stem}"))
    with pytest.raises(RetryableError, match=r" wait, the oldest for \d+ s") as failure:
        ExportOperator(task_id="export", system=system.stem).execute({})
    for secret in secrets(connections):
        assert secret not in str(failure.value) + caplog.text
    assert system.export
    with AirisHook(system=f"{system.stem}-{system.export.what}") as hook:
        assert hook.committed() == 0
        assert hook.leases.get(hook.consumer) is None
