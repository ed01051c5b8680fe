"""The hub over a bench's store, on a socket, with a count of what it asks the database."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
from sqlalchemy import event

from airflow_provider_airis.hub.api.app import create_app
from airflow_provider_airis.hub.auth import Tokens
from airflow_provider_airis.hub.server import Server
from airflow_provider_airis.hub.store.store import Store

TOKEN = "a-token-that-may-do-it-all"
OTHER = "another-one-that-may-as-well"
_SCOPES = frozenset({"ingest", "read", "alerts", "admin"})


@contextmanager
def served(store: Store) -> Iterator[httpx2.Client]:
    """A client of the hub's, with a token for everything."""
    app = create_app(store, Tokens({"first": (TOKEN, _SCOPES), "second": (OTHER, _SCOPES)}))
    server = Server(app)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        with httpx2.Client(base_url=server.url, headers=headers, timeout=60) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def statements(store: Store) -> Iterator[list[str]]:
    """What the store's database is asked within."""
    asked: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        asked.append(statement)

    engine = store._engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield asked
    finally:
        event.remove(engine, "before_cursor_execute", note)


def until(holds: Callable[[], object], seconds: float = 60) -> None:
    """Wait for something to hold."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never did"
        time.sleep(0.01)
