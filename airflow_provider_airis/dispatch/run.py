"""One execution of the dispatch: read, plan, send, commit."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_airis.catalog import BY_STEM
from airflow_provider_airis.dispatch import limits
from airflow_provider_airis.dispatch.deliveries import Deliveries
from airflow_provider_airis.dispatch.lease import SUPERSEDED
from airflow_provider_airis.dispatch.planner import Planner
from airflow_provider_airis.dispatch.queue import TargetQueue
from airflow_provider_airis.dispatch.reading import Offset, Reading
from airflow_provider_airis.dispatch.state import Reader, State
from airflow_provider_airis.errors import LeaseLostError, RetryableError
from airflow_provider_airis.routes import Routes
from airflow_provider_airis.routes.groups import RESOLVED

if TYPE_CHECKING:
    from airflow_provider_airis.dispatch.lease import RunLease
    from airflow_provider_airis.hooks.airis import AirisHook


class Run:
    """All of its state is the main thread's; the others read the feed, deliver, and renew the lease.

    :param hub: with the system; asks once, and never again by itself.
    :param lease: taken.
    :param linger_s: seconds without a change after which it ends, and ``max_run_s``: in any case.
    :param nobody: why the routes may lead to none of the system's targets.
    :param at_once: try targets that refused everything now, whatever was said of when.
    """

    def __init__(
        self,
        hub: AirisHook,
        lease: RunLease,
        routes: Routes,
        system: str,
        *,
        linger_s: float,
        max_run_s: float,
        nobody: str = "",
        at_once: bool = False,
    ) -> None:
        self.hub = hub
        self.log = hub.log
        self.lease = lease
        self.clock = lease.clock
        self.stopped = lease.stopped
        self.planner = Planner(routes, system, lease.clock)
        self.row = BY_STEM[system]
        self.nobody = nobody
        self.end = monotonic() + max_run_s
        self.linger_s = linger_s
        self.quiet = monotonic() + max(linger_s, limits.SHORT_LOOK_S)  # it looks at least once
        self.reading = Reading(Reader(hub, routes, system))
        self.offset = Offset()
        outage_s = min(limits.OUTAGE_S, max_run_s / 2)
        self.deliveries = Deliveries(hub, lease, self.row, self.planner, at_once=at_once, outage_s=outage_s)
        self.queue = self.deliveries.queue

    def go(self) -> dict[str, int]:
        """Until there is nothing more to do; returns ``{sequence, sent}``."""
        with ThreadPoolExecutor(limits.MOST_DELIVERIES + 1, "dispatch") as pool:
            while True:
                self.lease.turn()
                now = monotonic()
                more = now < self.end and not self.stopped.is_set()
                if more:
                    self._plan(now)
                    self._read(pool, now)
                    self.deliveries.start(pool, now)
                if not self.queue.flying and self.reading.future is None and not (more and self._stays(now)):
                    break
                futures: set[Future[Any]] = {*self.queue.flying, *self.reading.futures}
                if futures:
                    wait(futures, self._idle(now), FIRST_COMPLETED)
                else:
                    self.stopped.wait(self._idle(now))
                self._take()
                self.deliveries.finish()
                self._commit(now)
        return self._ended()

    def close(self) -> None:
        """End the sessions with the receivers."""
        self.deliveries.close()

    def _stays(self, now: float) -> bool:
        waits = bool(self.queue.items) and self.deliveries.blocked(now) is None
        return waits or self.planner.waits or self.planner.soon() or now < self.quiet

    def _plan(self, now: float) -> None:
        """Ask the routes what is to be sent, if something has changed or has become due."""
        if self.deliveries.sender is None or not self.planner.is_due(now):
            return
        if ahead := self.planner.set_back():
            self.log.warning("The hub's clock was set back: the intervals of %d groups begin anew", len(ahead))
            if self.deliveries.sender.keeps_log:
                with suppress(RetryableError, LeaseLostError):
                    self.hub.log_notifications(ahead)
        wanted = self.planner.plan(self.reading.silences)
        self.deliveries.want(wanted)
        self.planner.keep(alert for item in self.queue.items.values() for alert in item.flush.alerts)

    def _read(self, pool: ThreadPoolExecutor, now: float) -> None:
        """Read on, if that is worth it."""
        wanted = self.queue.items or self.planner.soon() or now < self.quiet
        if self.reading.future is None and wanted and now >= max(self.reading.look_at, self.deliveries.hub_pause.until):
            self.reading.start(pool, now, max(0.0, self._look(now) - now))

    def _look(self, now: float) -> float:
        """Until when the feed is waited for: not for long, as who is stopped or superseded waits for the answer."""
        until = [now + limits.LOOK_S, self.end]
        if now < self.quiet:
            until.append(self.quiet)
        elif not any(target.pause.error for target in self.queue.targets.values()):
            until.append(now + limits.SHORT_LOOK_S)
        return min(until + self.planner.times(now))

    def _idle(self, now: float) -> float:
        """Seconds until there may be something to do even if nothing happens."""
        times = [self.end, now + limits.LOOK_S, *self.queue.retries(now), *self.planner.times(now)]
        if self.deliveries.hub_pause.until > now:
            times.append(self.deliveries.hub_pause.until)
        if not self.queue.items and self.quiet > now:
            times.append(self.quiet)
        if self.reading.future is None and self.reading.look_at > now:
            times.append(self.reading.look_at)
        if self.offset.is_behind and self.offset.due > now:
            times.append(self.offset.due)
        return max(0.01, min(times) - now)

    def _take(self) -> None:
        """Take in what was read."""
        try:
            read = self.reading.result()
            if read is None:
                return
            if read.state:
                self._begin(read.state)
        except (RetryableError, LeaseLostError) as error:
            self.deliveries.hub_failed(error)
            return
        self.deliveries.hub_pause.worked(self.reading.looked_at)
        self.reading.after, self.offset.read = read.sequence, read.sequence
        if self.queue.items:
            self.reading.look_at = monotonic() + limits.BETWEEN_LOOKS_S
        if read.state or read.alerts:
            self.quiet = monotonic() + self.linger_s
        if read.state or read.alerts or read.silences != self.reading.silences:
            self.planner.changed(read.alerts)
        self.reading.silences = read.silences

    def _begin(self, state: State) -> None:
        self.deliveries.begin(keeps_log=state.keeps_log)
        self.planner.begin(state)
        self.offset.committed, self.offset.wake_at = state.committed, state.wake_at
        left = sum(alert.status != RESOLVED for alert in state.alerts.values())
        if left and not self.planner.targets:
            self.log.warning("Nothing is sent to %s, and %d alerts are open: %s", self.row.title, left, self.nobody)

    def _commit(self, now: float, *, over: bool = False) -> None:
        """Once all that was read is shown, or waits for its time: write down how far that is, and that time."""
        if self.deliveries.sender is None or self.lease.lost or self.planner.waits:
            return
        if now < self.offset.due and not over:
            return
        blocked: Iterable[TargetQueue] = ()
        if self.queue.items:
            found = self.deliveries.blocked(now)
            if found is None:
                return
            blocked = found
        due = [self.planner.next, *(self.clock.now() + round(1000 * (target.pause.until - now)) for target in blocked)]
        if self.reading.silences:
            due.append(self.clock.now() + round(limits.SILENCED_S * 1000))
        wake_at = min((at for at in due if at is not None), default=None)
        try:
            self.offset.commit(self.hub, wake_at, over=over)
        except (RetryableError, LeaseLostError) as error:
            self.deliveries.hub_failed(error)
        self.offset.due = now + limits.COMMIT_S

    def _ended(self) -> dict[str, int]:
        if self.deliveries.sender:
            self._commit(monotonic(), over=True)
            self.deliveries.report()
        if self.lease.lost:
            raise AirflowFailException(SUPERSEDED)
        self.deliveries.fail_if_down()
        if failed := [*self.deliveries.failed.values()]:
            raise AirflowFailException(
                f"{len(failed)} deliveries failed, {self.deliveries.sent} did not; they are tried again ever more "
                f"rarely: {'; '.join(failed[:10])}"
            )
        return {"sequence": self.offset.committed, "sent": self.deliveries.sent}
