"""What waits to be sent, by target, and how long a target that does not answer is left alone."""

from __future__ import annotations

import heapq
import random
import re
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any

from airflow_provider_airis.dispatch import limits
from airflow_provider_airis.errors import AirisError, PermanentError, RetryableError
from airflow_provider_airis.records import LogEntry, Shown
from airflow_provider_airis.routes import Flush, LogKey

if TYPE_CHECKING:
    from airflow_provider_airis.channels.base import Channel


@dataclass(eq=False)
class Item:
    """A group of which a target is to be notified.

    :param again: an earlier try may have sent it.
    :param given_up: it was, and is due again.
    :param unwritten: what was sent and is not in the log yet.
    :param stale: something may have changed while it was being sent.
    :param refusal: why the target refuses it and nothing else: it is given up.
    :param began: when it was last tried, by the monotonic clock; ``due`` is when it may be tried again.
    :param tries: how often it was tried, ``failures`` of them while the target took others, whose number then was
        ``taken``, and ``refusals`` of them likewise.
    """

    flush: Flush
    again: bool = False
    given_up: bool = False
    unwritten: LogEntry | None = None
    stale: bool = False
    refusal: AirisError | None = None
    tries: int = 0
    failures: int = 0
    refusals: int = 0
    taken: int = -1
    began: float = 0.0
    due: float = 0.0

    @property
    def key(self) -> LogKey:
        """What it is known by."""
        return self.flush.group.key

    @property
    def since(self) -> int:
        """Since when it waits, Unix ms."""
        return min((alert.updated_at for alert in self.flush.alerts), default=0)

    def changed(self, entry: LogEntry | None) -> dict[str, Shown]:
        """The alerts of which the log says something else than is to be sent, as they are."""
        known = entry.alerts if entry else {}
        new = self.flush.sent.alerts if self.flush.sent else {}
        return {alert_id: shown for alert_id, shown in new.items() if known.get(alert_id) != shown}


class Pause:
    """How long to leave somebody alone who does not answer."""

    def __init__(self) -> None:
        self.error: AirisError | None = None
        self.since = 0.0
        self.failed_at = 0.0
        self.until = 0.0
        self.length = 0.0

    @property
    def refused(self) -> bool:
        """Whether everything is refused until somebody mends something."""
        return isinstance(self.error, PermanentError)

    def failed(self, error: AirisError) -> None:
        """Wait, longer than the last time, or for as long as was asked for."""
        self.failed_at = now = monotonic()
        if self.error is None:
            self.since = now
        elif now < self.until:
            return  # of those that were sent side by side, one counts
        was_refused, self.error = self.refused, error
        if isinstance(error, PermanentError):
            longer = self.length * limits.REFUSED_PAUSE_GROWS if was_refused else limits.REFUSED_PAUSE_S
            self.length = min(longer, limits.LONGEST_REFUSED_PAUSE_S)
            self.until = now + self.length
            return
        self.length = min(self.length * 2 or limits.SHORTEST_PAUSE_S, limits.LONGEST_PAUSE_S)
        pause = self.length * random.uniform(0.5, 1)  # noqa: S311
        if isinstance(error, RetryableError) and error.retry_after is not None:
            pause = error.retry_after
        self.until = now + pause

    def worked(self, began: float) -> bool:
        """Wait no more, unless what worked was begun before the last failure; returns whether it was not."""
        if began < self.failed_at:
            return False
        self.error, self.until, self.length = None, 0.0, 0.0
        return True


@dataclass(eq=False)
class TargetQueue:
    """What waits for one target.

    :param routed: whether the routes name it; else an alert was shown there before they changed.
    :param refused: what it refused last: as long as that waits, it is one outage.
    :param suspects: what it has refused since it took something last, with why: the fault may be either's.
    :param alike: it refuses what it is sent for one reason, which may still be those alerts' own: a new one is tried.
    :param outage_reported: the hub knows that it is down; ``recovered``: that it is not.
    :param asked: whether this run has tried it since it was down.
    """

    target: str
    channel: Channel
    routed: bool
    pause: Pause = field(default_factory=Pause)
    queue: list[tuple[int, int, LogKey]] = field(default_factory=list)
    flying: int = 0
    sent: int = 0
    refused: Item | None = None
    suspects: dict[LogKey, tuple[Item, PermanentError]] = field(default_factory=dict)
    alike: bool = False
    outage_reported: bool = False
    recovered: bool = False
    asked: bool = False

    def put(self, item: Item) -> None:
        """Let an item wait: those that were tried least come first, then the oldest."""
        heapq.heappush(self.queue, (item.tries, item.since, item.key))

    def failed(self, item: Item, error: AirisError) -> None:
        """Try an item later that was not taken."""
        item.tries += 1
        self.asked = True
        if isinstance(error, PermanentError):
            item.refusals += item.refusals == 0 or item.taken < self.sent
            self.refused = item
        elif isinstance(error, RetryableError) and error.retry_after is None:
            item.again = True
            item.failures += 0 <= item.taken < self.sent
            item.due = monotonic() + min(limits.SHORTEST_PAUSE_S * 2 ** (item.tries - 1), limits.LONGEST_PAUSE_S)
        item.taken = self.sent
        self.pause.failed(error)
        self.put(item)

    def suspected(self, item: Item, error: PermanentError) -> None:
        """Of an item that was refused for what may be its own fault, decide as soon as others tell more."""
        self.suspects[item.key] = item, error
        same = [one for one, its in self.suspects.values() if _alike(its, error)]
        if len(same) < limits.ALIKE and not self.pause.refused:
            return
        self.alike = True
        for one in same:
            if one.refusal is None:
                self.failed(one, error)
        self.suspects = {key: pair for key, pair in self.suspects.items() if pair[0] not in same}

    def accepted(self, item: Item, count: int) -> bool:
        """Wait no more for a target that has taken something; returns whether its outage is over."""
        if not self.pause.worked(item.began):
            return False
        self.sent += count
        self.alike = False
        self._judge()
        return True

    def acquit(self, item: Item) -> None:
        """Try an item again that was refused, as it is another one now."""
        if self.suspects.pop(item.key, None):
            self.put(item)
        item.refusal = None

    def judge_the_last(self) -> bool:
        """If nothing else can tell whose fault it was: the items'. Returns whether that was so."""
        if not self.suspects or self.queue or self.flying or self.pause.error:
            return False
        self._judge()
        return True

    def _judge(self) -> None:
        for item, error in self.suspects.values():
            if item.refusal is None:
                item.refusal = error
                self.put(item)
        self.suspects = {}


def _alike(one: PermanentError, other: PermanentError) -> bool:
    """Whether two refusals give the same reason, whatever ids and numbers they name."""
    said = [re.sub(r"\b[0-9a-f-]*\d[0-9a-f-]*\b", "#", str(error)) for error in (one, other)]
    return said[0] == said[1] and (one.status, one.pointer) == (other.status, other.pointer)


class Queue:
    """What waits for the targets of one system, by group, and what is under way."""

    def __init__(self) -> None:
        self.items: dict[LogKey, Item] = {}
        self.targets: dict[str, TargetQueue] = {}
        self.flying: dict[Future[Any], Item] = {}

    def want(self, flush: Flush, target: TargetQueue) -> None:
        """Let a group wait to be sent as it is now."""
        key, left = flush.group.key, flush.group.moved_from
        item, before = self.items.get(key), self.items.get(left) if left else None
        if before and (before.unwritten or self.flies(before)):
            before.stale = True
        elif item is None:
            self.items[key] = item = Item(flush)
            target.put(item)
        elif self.flies(item):
            item.stale = True
        else:
            before_sent, item.flush = item.flush.sent, flush
            if before_sent and flush.sent and before_sent.alerts != flush.sent.alerts:
                target.acquit(item)

    def keep(self, wanted: set[LogKey]) -> None:
        """Drop whatever else waited: it is no longer so."""
        for key, item in [*self.items.items()]:
            if key not in wanted and not item.unwritten and not self.flies(item):
                del self.items[key]
                self.targets[key.target].suspects.pop(key, None)

    def flies(self, item: Item) -> bool:
        """Whether it is being sent."""
        return any(item is one for one in self.flying.values())

    def next(self, now: float, *, most: int) -> tuple[TargetQueue, Item] | None:
        """What is to be sent next: the target where the least is under way comes first.

        :param most: how many may be under way to one target.
        """
        for target in sorted(self.targets.values(), key=lambda target: target.flying):
            if target.flying >= (1 if target.pause.error else most):
                continue
            item = self._first(target, now)
            if item is None and target.judge_the_last():
                item = self._first(target, now)
            if item is not None and (now >= target.pause.until or (target.alike and not item.tries)):
                heapq.heappop(target.queue)
                return target, item
        return None

    def _first(self, target: TargetQueue, now: float) -> Item | None:
        while target.queue:
            item = self.items.get(target.queue[0][2])
            if item is None or self.flies(item):
                heapq.heappop(target.queue)  # it no longer waits
                continue
            return None if item.due > now and item.refusal is None else item
        return None

    def waiting(self, target: TargetQueue) -> list[Item]:
        """What waits for a target."""
        return [item for key, item in self.items.items() if key.target == target.target]

    def retries(self, now: float) -> Iterator[float]:
        """When something may be sent again, by the monotonic clock."""
        for target in self.targets.values():
            if target.queue and target.pause.until > now:
                yield target.pause.until
            if target.queue and (item := self.items.get(target.queue[0][2])) and item.due > now:
                yield item.due

    def blocked(self, now: float) -> list[TargetQueue] | None:
        """The targets that refuse all that waits, for longer than is worth waiting; None if other things wait too."""
        found = [self.targets[key.target] for key in self.items]
        ahead = now + limits.STAY_S
        if any(not target.pause.refused or target.flying or target.pause.until <= ahead for target in found):
            return None
        return list(dict.fromkeys(found))
