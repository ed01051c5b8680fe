"""When a run of the dispatch begins: there is something to do, and no other run that lives does it."""

from __future__ import annotations

import asyncio
import math
from time import monotonic
from typing import TYPE_CHECKING

from airflow_provider_airis.dispatch import limits
from airflow_provider_airis.dispatch.lease import STARTING
from airflow_provider_airis.errors import LeaseTakenError, PermanentError
from airflow_provider_airis.routes.groups import AHEAD_MS

if TYPE_CHECKING:
    from airflow_provider_airis.hooks.airis import AirisHook

POLL_S = 50.0
# Seconds between two looks whether the run that delivers has ended, or died.
HELD_S = 1.0


class DispatchWait:
    """Waits until the feed holds something behind the committed offset, or the time has come that the run before has
    named; then until no run that lives holds the lease, which is reserved for the run that waits here.

    So of the runs of one Dag that wait, one begins; another stands by, and takes over when that one's lease lapses.

    :param hook: of the hub, with the system; asks once.
    :param run: names the run that waits.
    """

    def __init__(self, hook: AirisHook, run: str) -> None:
        self.hook = hook
        self.holder = f"{STARTING}{run[:250]}"
        self._known: tuple[int, int] | None = None
        self._wake_at = 0.0
        self._earlier: int | None = None

    async def poll(self) -> bool:
        """Wait for a while; returns whether the run is to begin.

        :raises RetryableError: the hub does not answer.
        :raises PermanentError: it refuses, or has no leases.
        """
        await self.hook.aconnection()
        held = await self.hook.leases.aget(self.hook.consumer)
        if held is not None and held.holder != self.holder:
            await asyncio.sleep(HELD_S)
            return False
        left = await self._left()
        if left > 0 and not await self._changed(min(POLL_S, left)):
            return False
        try:
            await self.hook.leases.aacquire(self.hook.consumer, self.holder, limits.LEASE_S)
        except LeaseTakenError:
            return False
        return True

    async def _changed(self, seconds: float) -> bool:
        try:
            changes, _ = await self.hook.achanges(limit=1, wait=seconds)
        except PermanentError as error:
            if error.status == 409:  # the feed ends before the offset: the hub was restored, and the run begins anew
                return True
            raise
        return bool(changes)

    async def _left(self) -> float:
        """Seconds until the run before wants the next one to be woken though nothing changes."""
        offset = await self.hook.aplace(self.hook.consumer)
        wake_at = offset.wake_at or await self._due()
        if not wake_at:
            return math.inf
        left = (wake_at - offset.now) / 1000
        if (known := (wake_at, offset.updated_at)) != self._known:
            # If the hub's clock was set back since, nobody knows how long it still is.
            set_back = offset.now < offset.updated_at - AHEAD_MS
            self._known, self._wake_at = known, monotonic() + (0 if set_back else left)
        return min(left, self._wake_at - monotonic())

    async def _due(self) -> int:
        """When a run of an earlier version wanted the next one to be woken; it is read once."""
        if self._earlier is None:
            self._earlier = (await self.hook.aplace(f"{self.hook.consumer}-due")).sequence
        return self._earlier
