"""Which targets are down, and since when: kept at the hub from run to run, so that an outage is one, and is seen."""

from __future__ import annotations

from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from airflow_provider_airis.channels.base import notification_failed
from airflow_provider_airis.dispatch import limits
from airflow_provider_airis.dispatch.queue import Item, TargetQueue
from airflow_provider_airis.errors import AirisError, CheckpointConflictError, LeaseLostError, PermanentError
from airflow_provider_airis.records import iso

if TYPE_CHECKING:
    from collections.abc import Collection

    from airflow_provider_airis.dispatch.lease import RunLease
    from airflow_provider_airis.hooks.airis import AirisHook, Checkpoint


class Outage(msgspec.Struct):
    """A target that is down, as the checkpoint ``<consumer>-<system>`` has it.

    :param since: Unix ms, by the hub's clock; part of the key of the event that says so.
    :param error: what it said last.
    :param retry_at: until when it is left alone, as it refuses everything; 0 if it just does not answer. After another
        refusal, so many times longer than ``pause_s``.
    """

    since: int
    error: str
    retry_at: int = 0
    pause_s: float = 0.0


class Outages:
    """The outages of one system's targets.

    :param outage_s: seconds that a target is silent before that is one.
    """

    def __init__(self, hub: AirisHook, lease: RunLease, system: str, title: str, *, outage_s: float) -> None:
        self.hub = hub
        self.lease = lease
        self.system = system
        self.title = title
        self.outage_s = outage_s
        self.known: dict[str, Outage] = {}
        self._version = 0
        self._written: dict[str, Any] = {}

    def load(self, targets: Collection[str]) -> None:
        """Read what the runs before have left, also those of an earlier version."""
        found = self.hub.checkpoints.get(self.hub.consumer)
        if found is None:
            self.known = _of_an_earlier_version(self.hub, targets, self.lease)
            self.save()
            return
        self._version, self._written = found.version, found.value.get("outages", {})
        with suppress(msgspec.ValidationError):
            self.known = msgspec.convert(self._written, dict[str, Outage])

    def configured(self) -> None:
        """Something can be sent again."""
        if self.known.pop("", None):
            self.save()

    def save(self) -> None:
        """Write down what has changed."""
        outages = msgspec.to_builtins(self.known)
        if self._version and outages == self._written:
            return
        try:
            written = self._put(outages)
        except CheckpointConflictError:
            # Nobody else has the lease: it was this run, whose answer was lost.
            found = self.hub.checkpoints.get(self.hub.consumer)
            self._version = found.version if found else 0
            written = self._put(outages)
        self._version = written.version
        self._written = outages

    def _put(self, outages: dict[str, Any]) -> Checkpoint:
        name, value = self.hub.consumer, {"outages": outages}
        return self.hub.checkpoints.put(name, value, version=self._version, fence=self.hub.fence)

    def resume(self, target: TargetQueue, *, at_once: bool) -> None:
        """Leave a target alone for as long as a run before has said.

        :param at_once: somebody wants it to be tried now.
        """
        outage = self.known.get(target.target)
        if outage is None or not outage.retry_at or at_once:
            return
        pause = target.pause
        pause.error, pause.length = PermanentError(outage.error), outage.pause_s
        # However the clocks were set: never longer than was meant.
        left_s = min((outage.retry_at - self.lease.clock.now()) / 1000, outage.pause_s)
        pause.since, pause.until = monotonic(), monotonic() + left_s

    def is_down(self, target: TargetQueue) -> bool:
        """Whether a target is not just slow."""
        pause = target.pause
        return pause.refused or (pause.error is not None and monotonic() >= pause.since + self.outage_s)

    def report(self, target: TargetQueue, waiting: list[Item]) -> None:
        """Notify the hub of an outage, once, however many runs it lasts.

        :raises RetryableError: the hub does not know it yet.
        """
        error = target.pause.error
        if error is None or not target.asked or target.flying or not waiting or not self.is_down(target):
            return
        now = self.lease.clock.now()
        outage = self.known.setdefault(target.target, Outage(now, str(error)))
        outage.error = str(error)
        if target.pause.refused:
            outage.retry_at = now + round(1000 * (target.pause.until - monotonic()))
            outage.pause_s = target.pause.length
        try:
            # The version is in the event's key, so that must be known before.
            self.save()
            if not target.outage_reported:
                waits = min(item.since for item in waiting)
                data = {"target": target.target, "waiting_since": iso(waits), "error": str(error)}
                key = f"{self.system}/{target.target}/{outage.since}"
                self.hub.event(notification_failed(self.system, key, outage.since, data))
        except LeaseLostError:
            raise
        except PermanentError as unreported:
            self.hub.log.warning("The hub does not know that %s receives nothing: %s", self.title, unreported)
        target.outage_reported, target.recovered = True, False

    def misconfigured(self, text: str) -> float:
        """Notify the hub, once, that nothing can be sent to anybody; returns for how many seconds to wait now."""
        self.load(())
        outage = self.known.get("")
        if outage is None or outage.error != text:
            outage = self.known[""] = Outage(self.lease.clock.now(), text)
        longer = outage.pause_s * limits.REFUSED_PAUSE_GROWS or limits.REFUSED_PAUSE_S
        outage.pause_s = min(longer, limits.LONGEST_REFUSED_PAUSE_S)
        self.save()
        key = f"{self.system}//{outage.since}"
        self.hub.event(notification_failed(self.system, key, outage.since, {"target": "", "error": text}))
        return outage.pause_s

    def recovered(self, target: TargetQueue) -> None:
        """The next outage is another one."""
        if target.recovered:
            return
        self.known.pop(target.target, None)
        with suppress(AirisError):
            self.save()
            target.recovered = True


def _of_an_earlier_version(hub: AirisHook, targets: Collection[str], lease: RunLease) -> dict[str, Outage]:
    """What is kept in a checkpoint now, and in consumers of their own before: read once, and emptied."""

    def emptied(name: str) -> int:
        sequence = hub.committed(name)
        if sequence:
            hub.commit(name, 0, force=True)
        return sequence

    emptied(f"{hub.consumer}-due")
    if emptied(f"{hub.consumer}-at-work"):
        hub.log.info("A run of an earlier version has not ended: what it is sending may still arrive")
        lease.stopped.wait(limits.GRACE_S)
    found = {target: emptied(f"{hub.consumer}-outage-{quote(target, safe='')}") for target in targets}
    return {target: Outage(since, "") for target, since in found.items() if since}
