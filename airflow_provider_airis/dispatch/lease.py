"""The right to send, which one run at a time has: renewed while it lives, lost within seconds of its death."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress
from time import monotonic, time
from typing import TYPE_CHECKING
from uuid import uuid4

from airflow_provider_airis.dispatch import limits
from airflow_provider_airis.errors import AirisError, LeaseLostError, LeaseTakenError, PermanentError, RetryableError
from airflow_provider_airis.routes.groups import AHEAD_MS

if TYPE_CHECKING:
    from airflow_provider_airis.hooks.airis import AirisHook, Lease

# How a holder is called that has reserved the lease for a run that is being started. That run, or any other, takes it.
STARTING = "starting "
SUPERSEDED = "Superseded by another run: this one did not renew its lease in time"


class HubClock:
    """The hub's clock, by which alerts and what is due are dated. Nobody sets it back but the hub."""

    def __init__(self) -> None:
        self._ahead = time() * 1000 - monotonic() * 1000
        self.steps = 0  # how often it was set

    def now(self) -> int:
        """Unix ms."""
        return round(monotonic() * 1000 + self._ahead)

    def set(self, now: int, asked_at: float) -> None:
        """Take over what the hub has said, unless its answer has taken too long to be worth more than what is known.

        :param asked_at: when it was asked, by the monotonic clock.
        """
        ahead = now - asked_at * 1000
        stepped = abs(ahead - self._ahead) > AHEAD_MS
        self.steps += stepped
        if monotonic() - asked_at < 1 or stepped:
            self._ahead = ahead


class RunLease:
    """A run's lease. It is renewed from a thread of its own; whoever has lost it begins nothing more.

    :param name: the lease's; a system's consumer.
    :param run: who wants it, for people.
    :param stopped: set when the lease is lost.
    """

    def __init__(self, hub: AirisHook, name: str, run: str, stopped: threading.Event) -> None:
        self.hub = hub
        self.name = name
        self.holder = f"{run[:200]} on {socket.gethostname()[:60]}, process {os.getpid()}, {uuid4().hex[:8]}"
        self.clock = HubClock()
        self.stopped = stopped
        self.lost = False
        self._until = 0.0
        self._turned = monotonic()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def take(self) -> bool:
        """Take the lease, also from a run that was only being started; returns False if another run sends.

        :raises PermanentError: the hub has no leases.
        """
        for _ in range(3):
            try:
                self._acquire()
            except LeaseTakenError:
                held = self.hub.leases.get(self.name)
                if held is not None and not held.holder.startswith(STARTING):
                    self.hub.log.info("Another run delivers (%s); there is nothing to do for this one", held.holder)
                    return False
                if held is not None:
                    self.hub.leases.release(held)
            else:
                self._thread.start()
                return True
        return False

    def turn(self) -> None:
        """The run has not hung."""
        self._turned = monotonic()

    def lasts(self) -> bool:
        """Whether what is begun now ends before another run may begin."""
        return not self.lost and monotonic() < self._until - limits.SENDING_TAKES * limits.LEASE_S

    def give_back(self) -> None:
        """Let the next run begin at once."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        if self.hub.fence is not None and not self.lost:
            with suppress(AirisError):
                self.hub.leases.release(self.hub.fence)
        self.hub.fence = None

    def reserve(self, seconds: float) -> None:
        """Let the next run wait for so long, unless somebody starts its task by hand."""
        self.give_back()
        self.hub.leases.acquire(self.name, f"{STARTING}again", seconds)

    def lose(self) -> None:
        """Begin nothing more."""
        self.lost = True
        self.stopped.set()

    def refused(self, error: LeaseLostError) -> LeaseLostError | RetryableError:
        """What a write's refusal means: another run has the lease, or this one has taken it anew meanwhile."""
        try:
            self._acquire()
        except (LeaseTakenError, LeaseLostError):
            self.lose()
            return error
        except RetryableError as unknown:
            return unknown
        return RetryableError("The lease of this run had lapsed, and is renewed")

    def _acquire(self) -> None:
        with self._lock:
            asked_at, before = monotonic(), self.hub.fence
            lease: Lease = self.hub.leases.acquire(self.name, self.holder, limits.LEASE_S)
            if before is not None and lease.token > before.token + 1:
                # It had lapsed, and another run had it: what this one knows is past. Its writes stay refused, and what
                # it has taken lapses.
                raise LeaseLostError("another run has delivered meanwhile", status=409)
            self.hub.fence = lease
            self._until = asked_at + limits.LEASE_S
            self.clock.set(lease.expires_at - round(limits.LEASE_S * 1000), asked_at)

    def _renew(self) -> None:
        while not self._ended.wait(limits.LEASE_S / limits.RENEWALS) and not self.lost:
            if monotonic() - self._turned > limits.HANGS_S:
                self.hub.log.error("This run has hung for %.0f s: another may go on", limits.HANGS_S)
                self.lose()
                return
            try:
                self._acquire()
            except (LeaseTakenError, LeaseLostError):
                self.lose()
            except RetryableError:
                pass  # the hub is asked again before the lease lapses, and nothing is begun if that takes too long
            except PermanentError as error:
                self.hub.log.error("%s", error)
                self.lose()
            except Exception:
                self.hub.log.exception("The lease is not renewed")
                self.lose()
