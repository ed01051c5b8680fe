"""What is sent to the targets of one system, what becomes of it, and who is down."""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import TYPE_CHECKING

from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_airis.catalog import System
from airflow_provider_airis.channels.base import open_channel
from airflow_provider_airis.dispatch import limits
from airflow_provider_airis.dispatch.outages import Outages
from airflow_provider_airis.dispatch.planner import Planner
from airflow_provider_airis.dispatch.queue import Item, Pause, Queue, TargetQueue
from airflow_provider_airis.dispatch.sending import Outcome, Sender
from airflow_provider_airis.errors import LeaseLostError, PermanentError, RetryableError
from airflow_provider_airis.records import iso
from airflow_provider_airis.routes import Flush, LogKey
from airflow_provider_airis.settings import ChannelOptions

if TYPE_CHECKING:
    from airflow_provider_airis.dispatch.lease import RunLease
    from airflow_provider_airis.hooks.airis import AirisHook


class Deliveries:
    """All of its state is the main thread's; the sender works in others.

    :param at_once: try targets that refused everything now, whatever was said of when.
    :param outage_s: seconds that a target is silent before that is an outage.
    """

    def __init__(
        self, hub: AirisHook, lease: RunLease, row: System, planner: Planner, *, at_once: bool, outage_s: float
    ) -> None:
        self.hub = hub
        self.log = hub.log
        self.lease = lease
        self.clock = lease.clock
        self.row = row
        self.planner = planner
        self.at_once = at_once
        self.queue = Queue()
        self.outages = Outages(hub, lease, row.stem, row.title, outage_s=outage_s)
        self.hub_pause = Pause()
        self.sender: Sender | None = None
        self.sent = 0
        self.failed: dict[LogKey, str] = {}

    def begin(self, *, keeps_log: bool) -> None:
        """The log is read."""
        self.outages.load(self.planner.targets)
        self.outages.configured()
        self.sender = Sender(self.hub, self.row, self.lease, keeps_log=keeps_log)

    def want(self, flushes: Collection[Flush]) -> None:
        """Let these groups wait to be sent, and no others."""
        for flush in flushes:
            self.queue.want(flush, self._target(flush.group.key.target))
        self.queue.keep({flush.group.key for flush in flushes})

    def start(self, pool: ThreadPoolExecutor, now: float) -> None:
        """Send what may be sent."""
        if self.sender is None or now < self.hub_pause.until:
            return
        most = 1 if self.hub_pause.error else limits.DELIVERIES
        while len(self.queue.flying) < limits.MOST_DELIVERIES and (found := self.queue.next(now, most=most)):
            target, item = found
            item.began = now
            target.flying += 1
            known = self.planner.known(item.flush.group)
            self.queue.flying[pool.submit(self.sender.deliver, item, target, known, target.pause.refused)] = item

    def finish(self) -> None:
        """Take in what became of what was sent, and notify the hub of outages."""
        for future in [future for future in self.queue.flying if future.done()]:
            self._done(self.queue.flying.pop(future), future.result())
        self.report()

    def close(self) -> None:
        """End the sessions with the receivers."""
        for target in self.queue.targets.values():
            target.channel.close()

    def blocked(self, now: float) -> list[TargetQueue] | None:
        """The targets that refuse all that waits, if the next run may try them; None if this one goes on."""
        if self.sender is None or not self.sender.keeps_log:
            return None  # what has ended meanwhile would be known from the feed alone
        return self.queue.blocked(now)

    def hub_failed(self, error: RetryableError | LeaseLostError) -> None:
        """Leave the hub alone for a while, unless another run has taken over."""
        if isinstance(error, LeaseLostError):
            meant = self.lease.refused(error)
            if isinstance(meant, LeaseLostError):
                return
            error = meant
        if not self.hub_pause.error:
            self.log.warning("%s; waiting for it", error)
        self.hub_pause.failed(error)

    def report(self) -> None:
        """Notify the hub of outages."""
        for target in self.queue.targets.values():
            try:
                self.outages.report(target, self.queue.waiting(target))
            except (RetryableError, LeaseLostError) as error:
                self.hub_failed(error)

    def fail_if_down(self) -> None:
        """Say what waits, and fail if that is as somebody is down."""
        items = self.queue.items.values()
        waiting = {alert.id: alert.updated_at for item in items for alert in item.flush.alerts}
        since = iso(min(waiting.values(), default=self.clock.now()))
        for target in self.queue.targets.values():
            if not self.queue.waiting(target) or not self.outages.is_down(target):
                continue
            text = f"{len(waiting)} alerts wait for {self.row.title} ({target.target}) since {since}"
            if target.asked:
                raise AirflowFailException(f"{text}; the next run goes on. {target.pause.error}")
            at = self.clock.now() + round(1000 * (target.pause.until - monotonic()))
            self.log.warning("%s; it is tried again at %s. %s", text, iso(at), target.pause.error)
        if self.hub_pause.error:
            text = f"{len(waiting)} alerts wait since {since}" if items else "The hub does not answer"
            raise AirflowFailException(f"{text}; the next run goes on. {self.hub_pause.error}")
        if items:
            self.log.info("%d alerts wait since %s; the next run goes on", len(waiting), since)

    def _done(self, item: Item, outcome: Outcome) -> None:
        key = item.key
        target = self.queue.targets[key.target]
        target.flying -= 1
        if outcome.entry:
            self.planner.written(item.flush.group, outcome.entry)
        if outcome.failed:
            self.failed[key] = outcome.failed
            self.planner.changed()  # it is due again
        if outcome.sent:
            self.sent += outcome.sent
            self.failed.pop(key, None)
            self._accepted(item, target, outcome.sent)
        if outcome.error is None:
            self.hub_pause.worked(item.began)
            del self.queue.items[key]
            self.planner.due(item.flush.next)
        # What was sent before the log could be written may be past by now.
        past = outcome.entry and item.flush.sent and outcome.entry.alerts != item.flush.sent.alerts
        if item.stale or past:
            item.stale = False
            self.planner.changed()
        if outcome.error is not None:
            self._not_taken(item, target, outcome)

    def _accepted(self, item: Item, target: TargetQueue, count: int) -> None:
        refused = target.refused
        if not target.accepted(item, count):
            return
        # As long as what it has refused last waits, that is one outage.
        if refused is None or refused is item or self.queue.items.get(refused.key) is not refused:
            target.outage_reported, target.refused = False, None
            self.outages.recovered(target)

    def _not_taken(self, item: Item, target: TargetQueue, outcome: Outcome) -> None:
        error = outcome.error
        if outcome.whose == "hub" and isinstance(error, RetryableError):
            self.hub_failed(error)
            target.put(item)
        elif outcome.whose == "hub":
            target.put(item)  # another run has taken over
        elif outcome.whose == "group" and isinstance(error, PermanentError):
            target.suspected(item, error)
        elif error is not None:
            if not target.pause.error:
                self.log.warning("%s; its deliveries wait", error)
            target.failed(item, error)

    def _target(self, name: str) -> TargetQueue:
        if name not in self.queue.targets:
            channel = open_channel(self.row, name, options=ChannelOptions(self.row), retries=0)
            target = self.queue.targets[name] = TargetQueue(name, channel, routed=name in self.planner.targets)
            self.outages.resume(target, at_once=self.at_once)
        return self.queue.targets[name]
