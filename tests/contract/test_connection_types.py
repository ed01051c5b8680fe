"""Every connection type of ours as Airflow uses it: its form, its Test button, what it masks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from airflow.api_fastapi.core_api.datamodels.connections import ConnectionResponse
from airflow.models import Connection as ServersConnection
from airflow.sdk import Connection

from airflow_provider_airis.catalog import SYSTEMS, System
from airflow_provider_airis.catalog.system import HTTP_FIELDS
from airflow_provider_airis.hooks.http import HttpHook
from tests.contract.peers import always, load, typical

# What the check of every HTTP system is content with.
FINE = {"status": "ok", "version": "1", "registered_models": [], "result": [], "displayName": "Jane"}
OWN = [system for system in SYSTEMS if system.connection.form]
each_type = pytest.mark.parametrize("system", OWN, ids=lambda system: system.connection.type)


@pytest.fixture
def peers(system: System) -> Iterator[tuple[System, dict[str, Any]]]:
    """A system that answers, and a connection's fields to it."""
    with always(system, {"json": FINE}) as server:
        fields = typical(system).connections(server.url)[system.default_conn_id]
        yield system, fields


@each_type
@pytest.mark.parametrize("kind", [Connection, ServersConnection], ids=["task", "server"])
def test_the_hook_of_a_connection_tests_it(peers, connect, kind):
    system, fields = peers
    connect("mine", **fields)
    if isinstance(fields.get("extra"), dict):
        fields = fields | {"extra": json.dumps(fields["extra"])}
    hook = kind(conn_id="mine", **fields).get_hook()
    assert type(hook) is load(system.hook_class)
    works, said = hook.test_connection()
    assert works, said


@each_type
def test_a_form_has_the_fields_that_its_hook_reads(system):
    assert system.connection.form
    assert system.connection.form.http is issubclass(load(system.hook_class), HttpHook)
    names = [field.name for field in system.form_fields]
    assert len(names) == len(set(names))
    assert {field.name for field in HTTP_FIELDS} <= {*names} or not system.connection.form.http


@each_type
def test_airflow_masks_every_secret_of_a_form(system):
    """As its API shows a connection: by the names of the fields."""
    secret = [field.name for field in system.form_fields if field.secret]
    assert secret or not system.connection.form.http
    extra = {field.name: "s3cret-value" for field in system.form_fields if field.secret} | {"consumer": "shown"}
    connection = ServersConnection(conn_id="c", conn_type=system.connection.type, extra=json.dumps(extra))
    shown = ConnectionResponse.model_validate(connection, from_attributes=True)
    assert json.loads(shown.extra or "") == dict.fromkeys(secret, "***") | {"consumer": "shown"}


# What the API server does with the form's Test button, on a database with the one table that it asks.
ENDPOINT = """
import json, sys
from airflow.api_fastapi.core_api.datamodels.connections import ConnectionBody
from airflow.api_fastapi.core_api.routes.public.connections import test_connection
from airflow.models import Connection
from airflow.models.team import Team, dag_bundle_team_association_table
from airflow.settings import engine

Connection.metadata.create_all(engine)

class Everybody:
    def is_authorized_connection(self, **_):
        return True

for body in json.load(sys.stdin):
    answer = test_connection(ConnectionBody(**body), user=None, auth_manager=Everybody())
    print("ANSWER", json.dumps([answer.status, answer.message]))
"""


def test_the_test_button_of_every_form(tmp_path):
    servers, bodies = ExitStack(), []
    for system in OWN:
        server = servers.enter_context(always(system, {"json": FINE}))
        fields = typical(system).connections(server.url)[system.default_conn_id]
        if isinstance(fields.get("extra"), dict):
            fields["extra"] = json.dumps(fields["extra"])
        bodies.append({"connection_id": system.default_conn_id, **fields})
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "_AIRFLOW_PROCESS_CONTEXT": "server",
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
    }
    command = [sys.executable, "-c", ENDPOINT]
    done = subprocess.run(
        command, input=json.dumps(bodies), capture_output=True, text=True, env=environment, check=False, timeout=240
    )
    servers.close()
    answers = [json.loads(line[7:]) for line in done.stdout.splitlines() if line.startswith("ANSWER ")]
    assert len(answers) == len(bodies) > 0, done.stderr[-2000:]
    assert all(works for works, _ in answers), answers
