"""The right to export, which one run at a time has: renewed while it lives, lost soon after its death."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING
from uuid import uuid4

from airflow_provider_airis.errors import AirisError, LeaseLostError, LeaseTakenError, PermanentError, RetryableError

if TYPE_CHECKING:
    from airflow_provider_airis.hooks.airis import AirisHook, Lease

LEASE_S = 60.0


class ExportLease:
    """A lease of the hub, renewed from a thread of its own; as a context manager, held within.

    While it is held it is the hub's ``fence``: what is written after somebody else has taken it, is refused.

    :param name: the lease's; the consumer of the feed.
    :param run: who wants it, for people.
    """

    def __init__(self, hub: AirisHook, name: str, run: str, *, lease_s: float = LEASE_S) -> None:
        self._hub = hub
        self._name = name
        self._holder = f"{run[:200]} on {socket.gethostname()[:60]}, process {os.getpid()}, {uuid4().hex[:8]}"
        self._lease_s = lease_s
        self._lost: AirisError | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def __enter__(self) -> ExportLease:
        """Take it.

        :raises LeaseTakenError: another run has it.
        :raises PermanentError: the hub has no leases.
        """
        self._lease = self._acquire()
        self._hub.fence = self._lease
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()
        self._hub.fence = None
        with suppress(AirisError):
            self._hub.leases.release(self._lease)

    def check(self) -> None:
        """Go on only while it is held.

        :raises LeaseLostError: somebody else has it, or may have had it.
        :raises RetryableError: it could not be renewed in time.
        """
        if self._lost:
            raise self._lost
        if monotonic() > self._until:
            raise RetryableError("The hub did not answer in time for this run to keep its lease")

    def _acquire(self) -> Lease:
        asked_at = monotonic()
        lease = self._hub.leases.acquire(self._name, self._holder, self._lease_s)
        self._until = asked_at + self._lease_s
        return lease

    def _renew(self) -> None:
        while not self._ended.wait(self._lease_s / 4) and not self._lost:
            try:
                lease = self._acquire()
            except (LeaseTakenError, LeaseLostError) as error:
                self._lost = LeaseLostError(f"Superseded by another run: this one did not renew its lease. {error}")
            except PermanentError as error:
                self._lost = error
            except RetryableError as error:
                self._hub.log.warning("The lease is not renewed yet: %s", error)
            else:
                if lease.token != self._lease.token:
                    # It had lapsed, and another run may have had it: what this one knows is past.
                    self._lost = LeaseLostError("Superseded by another run: this one's lease had lapsed")
                    self._lease = lease
