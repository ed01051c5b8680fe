"""A connection that is not there, one that cannot be looked up, and a package that is not installed."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import traceback
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import ErrorResponse

from airflow_provider_airis.errors import AirisError, PermanentError, RetryableError, SetupError
from airflow_provider_airis.hooks import connections
from airflow_provider_airis.hooks.airis import AirisHook

MISSING = (
    "Connection nosuch does not exist: create it in Airflow's UI under Admin, Connections, or set AIRFLOW_CONN_NOSUCH"
)


def _told(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def test_a_connection_that_does_not_exist_is_one_sentence():
    with pytest.raises(SetupError) as caught:
        AirisHook("nosuch").request("GET", "/")
    assert str(caught.value) == MISSING
    assert "AirflowNotFoundException" not in _told(caught.value)
    with pytest.raises(SetupError) as caught:
        asyncio.run(AirisHook("nosuch").aconnection())
    assert str(caught.value) == MISSING
    assert AirisHook("nosuch").test_connection() == (False, MISSING)
    assert not connections.exists("nosuch")


@pytest.mark.parametrize("text", ['{"conn_type": "airis", "password": "s3cret"', '{"nonsense": "s3cret"}'])
def test_a_connection_that_is_malformed_is_not_called_missing_nor_quoted(monkeypatch, text):
    monkeypatch.setenv("AIRFLOW_CONN_NOSUCH", text)
    with pytest.raises(PermanentError, match=r"^Connection nosuch cannot be read: EnvironmentVariables") as caught:
        _ = AirisHook("nosuch").connection
    assert "s3cret" not in _told(caught.value)


def test_a_database_that_does_not_answer_is_no_missing_connection(tmp_path):
    url = f"sqlite:///{tmp_path}/nowhere/airflow.db"
    environment = {**os.environ, "AIRFLOW_HOME": str(tmp_path), "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url}
    command = [sys.executable, "-m", "airflow_provider_airis.cli", "check", "nosuch"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=240)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("Connection nosuch could not be looked up, MetastoreBackend failed (unable to open database")
    assert "SELECT" not in last


class Supervisor:
    """What a task's process sees of its supervisor, which asks Airflow's API server."""

    def __init__(self, error: ErrorType, *, raises: bool) -> None:
        self.answer = ErrorResponse(error=error, detail={"status_code": 500})
        self.raises = raises

    def send(self, message: Any) -> Any:
        assert message.conn_id == "nosuch"
        if self.raises:
            raise AirflowRuntimeError(self.answer)
        return self.answer

    async def asend(self, message: Any) -> Any:
        return self.send(message)


NO_ANSWER = "Connection nosuch could not be looked up, Airflow's API server said"


@pytest.mark.parametrize(
    ("said", "raises", "kind", "text"),
    [
        (ErrorType.CONNECTION_NOT_FOUND, True, PermanentError, MISSING),
        (ErrorType.CONNECTION_NOT_FOUND, False, PermanentError, MISSING),
        (ErrorType.API_SERVER_ERROR, True, RetryableError, f"{NO_ANSWER} API_SERVER_ERROR"),
        (ErrorType.API_SERVER_ERROR, False, RetryableError, f"{NO_ANSWER} API_SERVER_ERROR"),
        (ErrorType.GENERIC_ERROR, True, RetryableError, f"{NO_ANSWER} GENERIC_ERROR"),
        (ErrorType.PERMISSION_DENIED, False, PermanentError, "Connection nosuch: Airflow denies it to this task"),
    ],
)
def test_within_a_task_what_the_api_server_says_decides(monkeypatch, said, raises, kind, text):
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", Supervisor(said, raises=raises), raising=False)
    for look in (lambda: connections.find("nosuch"), lambda: asyncio.run(connections.afind("nosuch"))):
        with pytest.raises(AirisError) as caught:
            look()
        assert isinstance(caught.value, kind)
        assert text in str(caught.value)


def test_a_package_that_is_not_installed_names_its_extra(connect, monkeypatch):
    from airflow_provider_airis.hooks.vertex_ai import VertexAIHook

    connect("google_cloud_default", conn_type="google_cloud_platform", extra={"project": "p"})
    for name in [name for name in sys.modules if name.startswith("airflow.providers.google")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "google.auth", None)
    with pytest.raises(SetupError) as caught:
        VertexAIHook().check()
    assert str(caught.value) == (
        "Google Vertex AI needs the package google.auth, which is not installed: "
        "pip install 'airflow-provider-airis[vertex_ai]'"
    )
    assert "ModuleNotFoundError" not in _told(caught.value)
