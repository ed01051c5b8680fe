"""Airflow's connections: one that does not exist is told from one that could not be looked up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException

from airflow_provider_airis.errors import AirisError, RetryableError, SetupError

if TYPE_CHECKING:
    from airflow.sdk import Connection


def find(conn_id: str) -> Connection:
    """Look a connection up, where Airflow does: secrets backends, ``AIRFLOW_CONN_<CONN_ID>``, the metadata database.

    :raises SetupError: there is none of that name, or it cannot be read; what to do is said.
    :raises RetryableError: a secrets backend or Airflow's database did not answer.
    """
    try:
        return BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        raise _reason(conn_id, _comms_answer(conn_id)) from None
    except PermissionError as error:
        raise SetupError(f"Connection {conn_id}: Airflow denies it to this task ({error})") from None


async def afind(conn_id: str) -> Connection:
    """:func:`find` on an event loop."""
    try:
        return await BaseHook.aget_connection(conn_id)
    except AirflowNotFoundException:
        raise _reason(conn_id, await _acomms_answer(conn_id)) from None
    except PermissionError as error:
        raise SetupError(f"Connection {conn_id}: Airflow denies it to this task ({error})") from None


def exists(conn_id: str) -> bool:
    """Whether there is a connection of that name.

    :raises AirisError: that could not be found out.
    """
    try:
        find(conn_id)
    except NoConnectionError:
        return False
    return True


class NoConnectionError(SetupError):
    """There is no connection of that name."""


def _reason(conn_id: str, answer: Any) -> AirisError:
    """Why Airflow has not found a connection: it calls any failure of its backends "isn't defined"."""
    from airflow.sdk.exceptions import ErrorType
    from airflow.sdk.execution_time.supervisor import ensure_secrets_backend_loaded

    failed = f"Connection {conn_id} could not be looked up"
    said = getattr(answer, "error", None)
    if said not in (None, ErrorType.CONNECTION_NOT_FOUND):
        return RetryableError(
            f"{failed}, Airflow's API server said {said.value}: check that it and its database are up"
        )
    for backend in ensure_secrets_backend_loaded():
        try:
            # A worker's way to the API server has been asked already, and an event loop must not wait for it.
            found = None if type(backend).__name__ == "ExecutionAPISecretsBackend" else backend.get_connection(conn_id)
        except (TypeError, ValueError) as error:
            # Its message may quote the connection.
            return SetupError(
                f"Connection {conn_id} cannot be read: {type(backend).__name__} has it in no form that Airflow knows "
                f"({type(error).__name__}); give it as JSON or as a URI"
            )
        except Exception as error:  # noqa: BLE001  whatever a backend raises
            lines = str(getattr(error, "orig", None) or error).splitlines() or [type(error).__name__]
            if "no such table" in lines[0]:  # a database that was never used holds no connection
                continue
            return RetryableError(f"{failed}, {type(backend).__name__} failed ({lines[0][:300]}): check that it is up")
        if found:
            return RetryableError(f"{failed} at the first try")
    return NoConnectionError(
        f"Connection {conn_id} does not exist: create it in Airflow's UI under Admin, Connections, or set "
        f"AIRFLOW_CONN_{conn_id.upper()}"
    )


def _comms() -> Any:
    from airflow.sdk.execution_time import task_runner

    return getattr(task_runner, "SUPERVISOR_COMMS", None)


def _comms_answer(conn_id: str) -> Any:
    """What Airflow's API server says of a connection, asked from within a task; None elsewhere."""
    from airflow.sdk.exceptions import AirflowRuntimeError
    from airflow.sdk.execution_time.comms import GetConnection

    if (comms := _comms()) is None:
        return None
    try:
        return comms.send(GetConnection(conn_id=conn_id))
    except AirflowRuntimeError as error:
        return error.error


async def _acomms_answer(conn_id: str) -> Any:
    from airflow.sdk.exceptions import AirflowRuntimeError
    from airflow.sdk.execution_time.comms import GetConnection

    if (comms := _comms()) is None:
        return None
    try:
        return await comms.asend(GetConnection(conn_id=conn_id))
    except AirflowRuntimeError as error:
        return error.error
