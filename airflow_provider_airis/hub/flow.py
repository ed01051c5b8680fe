"""What bounds the requests that come in, and wakes those that wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

from fastapi import Request

from airflow_provider_airis.hub.ingest import MAX_BODY, too_large
from airflow_provider_airis.hub.problems import Overloaded
from airflow_provider_airis.hub.store.store import Store

T = TypeVar("T")


class Feeds:
    """Wakes those who wait for a feed to grow, at once and without polling. Belongs to the event loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._waiting: set[asyncio.Event] = set()
        self.closing = False
        store.listen(self._grown)

    def _grown(self) -> None:
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._wake)

    def close(self) -> None:
        """Let everybody go: the hub ends."""
        self.closing = True
        self._wake()

    def _wake(self) -> None:
        for event in self._waiting:
            event.set()

    async def read(
        self, feed: str, after: int, wait: float, page: Callable[[int], Awaitable[Sequence[T]]]
    ) -> Sequence[T]:
        """A page behind a sequence, as soon as there is one or the wait is over."""
        deadline = time.monotonic() + wait
        event = asyncio.Event()
        self._waiting.add(event)
        try:
            while True:
                seen = self._store.last[feed]
                # Another process may have committed something of which this one has not heard yet.
                if changes := await page(after):
                    return changes
                while self._store.last[feed] == seen:
                    left = deadline - time.monotonic()
                    if left <= 0 or self.closing:
                        return ()
                    with suppress(TimeoutError):
                        await asyncio.wait_for(event.wait(), left)
                    event.clear()
        finally:
            self._waiting.discard(event)


class Intake:
    """The ingest requests in memory, from their first byte to their answer; beyond a bound new ones are refused."""

    def __init__(self, max_requests: int, max_bytes: int) -> None:
        self._max_requests = max_requests
        self._max_bytes = max_bytes
        self._requests = 0
        self._bytes = 0

    @asynccontextmanager
    async def body(self, request: Request) -> AsyncIterator[bytes]:
        """The body as it was sent, held until the request is answered.

        :raises Overloaded: others hold too much already.
        """
        if self._requests >= self._max_requests:
            raise Overloaded
        self._requests += 1
        held = 0
        try:
            content = bytearray()
            async for chunk in chunks(request):
                held += len(chunk)
                self._bytes += len(chunk)
                if self._bytes > self._max_bytes:
                    raise Overloaded
                content += chunk
            yield bytes(content)
        finally:
            self._requests -= 1
            self._bytes -= held


async def chunks(request: Request) -> AsyncIterator[bytes]:
    """The body as it comes in.

    :raises Problem: 413, it is larger than ``MAX_BODY``.
    """
    if int(request.headers.get("content-length") or 0) > MAX_BODY:
        raise too_large()
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > MAX_BODY:
            raise too_large()
        yield chunk
