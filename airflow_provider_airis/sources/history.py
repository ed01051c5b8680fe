"""Sources that can be asked for any stretch of the past: how old points may be, how wide, and what reading costs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any, ClassVar, NamedTuple

from airflow.sdk import timezone

from airflow_provider_airis.catalog import MetricSpec
from airflow_provider_airis.errors import PermanentError
from airflow_provider_airis.records import Window, from_ms, to_ms
from airflow_provider_airis.sources.base import CollectOperator, Reading

# The source judges the age of a window's start anew in each call: a long read must not outgrow its period on the way.
READING_TIME = timedelta(hours=1)


class Retention(NamedTuple):
    """For how long a source keeps its points.

    :param said: in a sentence, ``CloudWatch keeps metrics for 455 days``.
    :param periods: ascending: up to which age, and how wide points of that age are, in seconds.
    """

    said: str
    periods: tuple[tuple[timedelta, int], ...]

    def finest(self, start: datetime, now: datetime) -> tuple[int, datetime]:
        """The finest period in seconds that there still is for points as old as ``start``, and since when there is.

        :raises PermanentError: retention has deleted them.
        """
        for age, period in self.periods:
            oldest = now - age + READING_TIME
            if start >= oldest:
                return period, oldest
        raise PermanentError(
            f"{self.said}: those of {start:%Y-%m-%d %H:%M} are deleted; "
            f"start no earlier than {now - self.periods[-1][0] + READING_TIME:%Y-%m-%dT%H:%MZ}"
        )


class Inventory(NamedTuple):
    """What a source has, for a plan: how many series, and by the number of periods how many calls and dollars."""

    series: int
    cost: Callable[[int], tuple[int, float]]


class HistoryOperator(CollectOperator):
    """Reads windows of a source that keeps its points.

    :param endpoints: names or patterns (``fraud-*``) of what to read; all unless given. One that nothing has is a
        failed part.
    :param metrics: names to read, as the hub has them; all of the catalog unless given.
    """

    retention: ClassVar[Retention]
    template_fields: Sequence[str] = (*CollectOperator.template_fields, "endpoints", "metrics")

    def __init__(self, *, endpoints: Sequence[str] = (), metrics: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.endpoints = endpoints
        self.metrics = metrics
        self._matched: set[str] = set()

    @abstractmethod
    def inventory(self, windows: Sequence[Window]) -> Inventory:
        """What there is to read in these windows, by the source's free calls."""

    def plan(self, windows: Sequence[Window]) -> Iterator[Reading]:
        """What each window would ask the source for; makes only the calls that list what there is."""
        now = timezone.utcnow()
        there = self.inventory(windows)
        for window in windows:
            try:
                period, _ = self.retention.finest(from_ms(window.start), now)
            except PermanentError:
                yield Reading(window)
                continue
            periods = (window.end - window.start) // (period * 1000)
            calls, dollars = there.cost(periods)
            points = there.series * periods
            yield Reading(window, period_s=period, series=there.series, points=points, calls=calls, dollars=dollars)

    def periods(self, window: Window, now: datetime) -> tuple[Window, int]:
        """The whole periods that start within the window, each of which belongs to one window, and how wide they are.

        To look back makes no points wider, and asks for none that are deleted.
        """
        wanted = min(window.start + self.looks_back_ms, window.end)
        period, oldest = self.retention.finest(from_ms(wanted), now)
        step = period * 1000
        start = window.start if window.start == wanted else max(window.start, to_ms(oldest))
        return Window(-(-start // step) * step, -(-window.end // step) * step), period

    @property
    def looks_back_ms(self) -> int:
        """By how much the window begins before the run's own does."""
        return self.lookback_s * 1000

    def specs(self) -> list[MetricSpec]:
        """The metrics to read.

        :raises PermanentError: one is not in the catalog.
        """
        known = {spec.name: spec for spec in self.row.metrics}
        self.known("metrics", self.metrics, known)
        return [known[name] for name in self.metrics or known]

    @staticmethod
    def known(option: str, names: Any, allowed: Any) -> None:
        """Check what an option names.

        :raises PermanentError: the catalog does not have it.
        """
        if unknown := sorted(set(names) - set(allowed)):
            text = f"{option} names {', '.join(unknown)}, which the catalog does not have"
            raise PermanentError(f"{text}; it has {', '.join(allowed)}", pointer=f"/{option}")

    def wanted(self, *names: str) -> bool:
        """Whether ``endpoints`` names one that has these names."""
        found = {pattern for pattern in self.endpoints for name in names if fnmatchcase(name, pattern)}
        self._matched |= found
        return bool(found) or not self.endpoints

    def check_matched(self, where: str) -> None:
        """Once everything was listed: what ``endpoints`` names and nothing has is a failed part of its own."""
        if missing := sorted(set(self.endpoints) - self._matched):
            names = ", ".join(map(repr, missing))
            self.failures[f"{where}/endpoints"] = PermanentError(
                f"endpoints names {names}, which nothing in {where} has; check the spelling, the region or project, "
                "and the connection",
                pointer="/endpoints",
            )
