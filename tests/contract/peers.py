"""Peers that behave badly on purpose, and what a contract test needs to meet them."""

from __future__ import annotations

import importlib
import json
import socket
import threading
from types import TracebackType
from typing import Any

from airflow_provider_airis.catalog import System
from tests.replay import FIXTURES, Case


def always(system: System, response: dict[str, Any]) -> Any:
    """A peer of the kind that the system's cases have, which gives every request the same answer; ``asked`` counts."""
    peer = typical(system).serve()
    peer.asked = 0

    def answer(_: dict[str, Any]) -> dict[str, Any]:
        peer.asked += 1
        return response

    peer._response = answer
    return peer


class Silent:
    """Accepts connections and never answers."""

    def __enter__(self) -> Silent:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._held: list[socket.socket] = []
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def _accept(self) -> None:
        while True:
            try:
                self._held.append(self._socket.accept()[0])
            except OSError:
                return

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Closing alone leaves the port open until accept() returns.
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for held in self._held:
            held.close()


def load(path: str) -> Any:
    """The class that an import path names."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def typical(system: System) -> Case:
    """The case whose connections and arguments serve wherever only the answers differ."""
    return Case.read(FIXTURES / system.stem / "typical")


def shared(system: System, name: str) -> Any:
    """A file of the system's folder of fixtures."""
    return json.loads((FIXTURES / system.stem / name).read_text())


def secrets(connections: dict[str, dict[str, Any]]) -> list[str]:
    """What must be seen nowhere."""
    return [fields["password"] for fields in connections.values() if fields.get("password")]
