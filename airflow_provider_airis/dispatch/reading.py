"""What is being read of the feed, and how far it is written down that it was read."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from airflow_provider_airis.dispatch.state import Read, Reader

if TYPE_CHECKING:
    from airflow_provider_airis.hooks.airis import AirisHook
    from airflow_provider_airis.routes import Silence


class Reading:
    """What is being read of the feed, from a thread."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.future: Future[Read] | None = None
        self.after: int | None = None
        self.looked_at = self.look_at = 0.0
        self.silences: list[Silence] = []

    @property
    def futures(self) -> list[Future[Read]]:
        """What is to be waited for."""
        return [self.future] if self.future else []

    def start(self, pool: ThreadPoolExecutor, now: float, seconds: float) -> None:
        """Look at the feed, for at most so many seconds."""
        self.looked_at = now
        self.future = pool.submit(self.reader.look, self.after, seconds)

    def result(self) -> Read | None:
        """What a look has brought that is over."""
        if self.future is None or not self.future.done():
            return None
        future, self.future = self.future, None
        return future.result()


class Offset:
    """How far the feed is read, and how far that is written down, with the time to wake the next run at."""

    def __init__(self) -> None:
        self.read = 0
        self.committed = 0
        self.wake_at: int | None = None
        self.due = 0.0

    @property
    def is_behind(self) -> bool:
        """Whether something was read that is not committed."""
        return self.read != self.committed

    def commit(self, hub: AirisHook, wake_at: int | None, *, over: bool) -> None:
        """Write it down, if anything is to be: the time alone only at the end."""
        if self.is_behind or (over and wake_at != self.wake_at):
            # It lies behind what was committed only if the hub was restored from a backup.
            hub.commit(hub.consumer, self.read, force=self.read < self.committed, wake_at=wake_at)
            self.committed, self.wake_at = self.read, wake_at
