"""An empty Airflow home for every test run, connections through the environment, and servers on sockets."""

from __future__ import annotations

import json
import os
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# Airflow reads these when it is first imported, so they are set before any test module is.
_HOME = tempfile.TemporaryDirectory(prefix="airflow-home-")
os.environ["AIRFLOW_HOME"] = _HOME.name
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
for name in [name for name in os.environ if name.startswith(("AIRFLOW_CONN_", "AIRFLOW__AIRIS", "AWS_"))]:
    del os.environ[name]

from sandbox.process import Server  # noqa: E402
from tests.databases import Databases, PostgresDatabases, postgres_databases  # noqa: E402


class Hub:
    """A reference hub in a process of its own."""

    def __init__(self, folder: Path, database: str | None = None) -> None:
        self.folder = folder
        self.database = database or f"sqlite:///{folder}/hub.db"
        self.server = self.start()
        self.token = json.loads((folder / "tokens.json").read_text())["admin"]["token"]

    def start(self, port: int = 0) -> Server:
        """Start it on the store that is there."""
        return Server(
            "airflow_provider_airis.hub",
            *(
                "--port",
                str(port),
                "--database",
                self.database,
                "--tokens",
                f"{self.folder}/tokens.json",
            ),
            log=self.folder / "hub.log",
        )

    @property
    def url(self) -> str:
        """Its base URL."""
        return self.server.url


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Each bears its folder's marker; the longest come first."""
    for item in items:
        folder = item.path.relative_to(Path(__file__).parent).parts[0]
        item.add_marker(folder)
    items.sort(key=lambda item: item.get_closest_marker("e2e") is None)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresDatabases]:
    """Fresh databases for the hub's store in PostgreSQL."""
    with postgres_databases() as databases:
        yield databases


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def databases(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Databases:
    """Fresh databases for the hub's store; what asks for them runs once with each kind."""
    if request.param == "sqlite":
        return Databases(tmp_path_factory.mktemp("databases"))
    found: Databases = request.getfixturevalue("postgresql")
    return found


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    hub = Hub(tmp_path_factory.mktemp("hub"))
    yield hub
    hub.server.stop()


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Defines a connection: ``connect("airis_default", conn_type="airis", host=…, extra={…})``."""

    def connect(conn_id: str, **fields: Any) -> str:
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(fields))
        return conn_id

    return connect


class Comms:
    """Airflow's supervisor as a task has it: Variables, and no connections but those of the environment."""

    def __init__(self) -> None:
        self.variables: dict[str, str] = {}

    def send(self, message: Any) -> Any:
        """Answer a task."""
        from airflow.sdk.execution_time import comms

        match message:
            case comms.GetVariable(key=key):
                if key in self.variables:
                    return comms.VariableResult(key=key, value=self.variables[key])
                return comms.ErrorResponse(error=comms.ErrorType.VARIABLE_NOT_FOUND, detail={"key": key})
            case comms.PutVariable(key=key, value=value):
                self.variables[key] = str(value)
            case comms.DeleteVariable(key=key):
                self.variables.pop(key, None)
            case comms.GetVariableKeys(prefix=prefix, limit=limit, offset=offset):
                keys = sorted(key for key in self.variables if key.startswith(prefix or ""))
                return comms.VariableKeysResult(keys=keys[offset : offset + limit], total_entries=len(keys))
            case comms.GetConnection(conn_id=conn_id):
                return comms.ErrorResponse(error=comms.ErrorType.CONNECTION_NOT_FOUND, detail={"conn_id": conn_id})
            case _:
                raise AssertionError(f"Airflow was asked {message!r}")
        return comms.OKResponse(ok=True)


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Airflow's Variables, as a task has them."""
    comms = Comms()
    monkeypatch.setattr("airflow.sdk.execution_time.task_runner.SUPERVISOR_COMMS", comms, raising=False)
    return comms.variables


class DocumentHub:
    """The AIRIS-MON of the integration document in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.token = "token-of-the-document"
        (folder / "token").write_text(self.token)
        self.server = Server("sandbox.airis_document", "--token-file", str(folder / "token"), log=folder / "hub.log")

    @property
    def url(self) -> str:
        """Its base URL."""
        return self.server.url

    def taken(self) -> dict[str, Any]:
        """What it took."""
        with urllib.request.urlopen(f"{self.url}/_sandbox/taken") as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def tell(self, what: str, **body: Any) -> dict[str, Any]:
        """Make an alert (``alerts``), script a failure (``faults``), or set a rate (``limit``)."""
        request = urllib.request.Request(f"{self.url}/_sandbox/{what}", json.dumps(body).encode())
        with urllib.request.urlopen(request) as answer:
            found: dict[str, Any] = json.load(answer)
        return found


@pytest.fixture
def document(tmp_path: Path, connect: Callable[..., str], variables: dict[str, str]) -> Iterator[DocumentHub]:
    """The document's hub, as the connection ``airis_default``; Airflow keeps its checkpoints."""
    hub = DocumentHub(tmp_path)
    connect("airis_default", conn_type="airis", host=hub.url, password=hub.token)
    yield hub
    hub.server.stop()


@pytest.fixture
def airis(hub: Hub, connect: Callable[..., str]) -> str:
    """The connection ``airis_default`` to the module's hub."""
    return connect("airis_default", conn_type="airis", host=hub.url, password=hub.token)
