"""Whether the hub can do its work: found out once for all who ask within a second, and never waited for long."""

from __future__ import annotations

import asyncio
import time

from airflow_provider_airis.hub.problems import Problem
from airflow_provider_airis.hub.store.store import Store

FRESH_S = 1.0
PATIENCE_S = 3.0


class Readiness:
    """Tries to read and to write the store. Belongs to the event loop.

    One try at a time, however many ask: strangers may, and must not keep the writer busy.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._began = 0.0
        self._trying: asyncio.Task[str] | None = None
        self._found = ""
        self._found_at = float("-inf")

    async def fault(self) -> str:
        """Why the store cannot be used, empty if it can."""
        # What was committed since a failure may have ended it.
        if time.monotonic() < self._found_at + FRESH_S and not (self._found and self._store.committed > self._found_at):
            return self._found
        if self._trying is None:
            self._began = time.monotonic()
            self._trying = asyncio.create_task(self._try())
        trying = self._trying
        await asyncio.wait({trying}, timeout=max(0, self._began + PATIENCE_S - time.monotonic()))
        if trying.done():
            return trying.result()
        return f"what was to be written has waited for {time.monotonic() - self._began:.0f} s"

    async def _try(self) -> str:
        found = ""
        try:
            await asyncio.to_thread(self._store.verify)
            await asyncio.wrap_future(self._store.submit(self._store.beat))
        except Problem as problem:
            found = problem.detail
        finally:
            self._trying = None
        self._found, self._found_at = found, time.monotonic()
        return found
