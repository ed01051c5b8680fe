"""What waits to be sent, by target, and how long whoever does not answer is left alone."""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, field
from time import monotonic

from airflow_provider_airis.channels.base import Channel
from airflow_provider_airis.dispatch import limits
from airflow_provider_airis.errors import AirisError, PermanentError, RetryableError
from airflow_provider_airis.records import LogEntry, Shown
from airflow_provider_airis.routes import Flush, LogKey


@dataclass(eq=False)
class Item:
    """A group of which a target is to be told something.

    :param again: an earlier try may have sent it.
    :param unwritten: what was sent and is not in the log yet.
    :param stale: something may have changed while it was being sent.
    :param began: when it was last tried, by the monotonic clock; ``due`` is when it may be tried again.
    :param tries: how often it was tried, ``failures`` of them while the target took others, whose number then was
        ``taken``, and ``refusals`` of them likewise.
    """

    flush: Flush
    again: bool = False
    unwritten: LogEntry | None = None
    stale: bool = False
    tries: int = 0
    failures: int = 0
    refusals: int = 0
    taken: int = -1
    began: float = 0.0
    due: float = 0.0

    def changed(self, entry: LogEntry | None) -> dict[str, Shown]:
        """The alerts of which the log says something else than is to be sent, as they are."""
        known = entry.alerts if entry else {}
        new = self.flush.sent.alerts if self.flush.sent else {}
        return {alert_id: shown for alert_id, shown in new.items() if known.get(alert_id) != shown}

    @property
    def since(self) -> int:
        """Since when it waits, Unix ms."""
        return min((alert.updated_at for alert in self.flush.alerts), default=0)


class Pause:
    """How long to leave somebody alone who does not answer."""

    def __init__(self) -> None:
        self.error: AirisError | None = None
        self.since = 0.0
        self.failed_at = 0.0
        self.until = 0.0
        self._length = 0.0

    def failed(self, error: AirisError) -> None:
        """Wait, longer than the last time, or for as long as was asked for."""
        self.failed_at = now = monotonic()
        if self.error is None:
            self.since = now
        elif now < self.until:
            return  # of those that were sent side by side, one counts
        self.error = error
        self._length = min(self._length * 2 or limits.SHORTEST_PAUSE_S, limits.LONGEST_PAUSE_S)
        pause = self._length * random.uniform(0.5, 1)  # noqa: S311
        if isinstance(error, PermanentError):
            pause = limits.REFUSED_PAUSE_S
        elif isinstance(error, RetryableError) and error.retry_after is not None:
            pause = error.retry_after
        self.until = now + pause

    def worked(self, began: float) -> bool:
        """Wait no more, unless what worked was begun before the last failure; returns whether it was not."""
        if began < self.failed_at:
            return False
        self.error, self.until, self._length = None, 0.0, 0.0
        return True


@dataclass(eq=False)
class Lane:
    """What waits for one target.

    :param refused: what it refused last: as long as that waits, it is one outage.
    :param told: the hub knows that it is down; ``well``: that it is not.
    """

    target: str
    channel: Channel
    routed: bool
    pause: Pause = field(default_factory=Pause)
    queue: list[tuple[int, int, LogKey]] = field(default_factory=list)
    flying: int = 0
    sent: int = 0
    refused: Item | None = None
    told: bool = False
    well: bool = False

    def put(self, item: Item) -> None:
        """Let an item wait: those that were tried least come first, then the oldest."""
        heapq.heappush(self.queue, (item.tries, item.since, item.flush.group.key))
