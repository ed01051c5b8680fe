"""An empty Airflow home for every test run, connections through the environment, and servers on sockets."""

from __future__ import annotations

import json
import os
import tempfile
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


class Hub:
    """A reference hub in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
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
                f"sqlite:///{self.folder}/hub.db",
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
    """The longest first."""
    items.sort(key=lambda item: item.get_closest_marker("e2e") is None)


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


@pytest.fixture
def airis(hub: Hub, connect: Callable[..., str]) -> str:
    """The connection ``airis_default`` to the module's hub."""
    return connect("airis_default", conn_type="airis", host=hub.url, password=hub.token)
