"""Finds what the hub lacks although its source must have had it, and names the runs that read it again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from statistics import median_low
from typing import TYPE_CHECKING, Any

import msgspec
from airflow.sdk import BaseOperator, timezone
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_airis.catalog import SYSTEMS, System
from airflow_provider_airis.errors import PermanentError
from airflow_provider_airis.records import Window, iso, to_ms

if TYPE_CHECKING:
    from airflow.sdk.definitions.context import Context

_DAY = 86_400_000
_STEP_S = 300
# A silence before midnight that is longer counts like any other.
_EDGE = 3_600_000
_NOTE = 1000


class Series(msgspec.Struct, frozen=True):
    """Where the hub holds points of a series: windows ``[[from, to], …]`` in Unix ms, ascending."""

    source: str
    name: str
    tags: dict[str, str]
    windows: list[tuple[int, int]]


class Gap(msgspec.Struct, frozen=True, order=True):
    """A stretch in which everything that is read together lacks points.

    :param of: what is read together: a source, or a tag that its series share, ``region=eu-west-1``.
    """

    window: Window
    of: str

    def __str__(self) -> str:
        return f"{self.of} {self.window}"


def gaps(series: Iterable[Series], within: Window, *, min_gap_s: int = 900) -> list[Gap]:
    """The gaps that an outage of the collection has left, of one system's series.

    What is read together falls silent together: the system as a whole, each source, and, of both, the series that
    share a tag (a region, a variant) if every metric is among them. Such a group has a gap where *none* of its series
    has a point for longer than ``min_gap_s``, with points before and after. So an endpoint without traffic has none:
    its load is still measured.

    A group that falls silent in its normal course says nothing: its longest silence, on more than half of the days
    that have points, is longer than ``min_gap_s`` too. It is left out.

    At the end of a day a shorter silence is a gap already, on every day or on one, where it is longer than those in
    the middle of a usual day: what was published after its day had been read leaves such ones.

    :param within: the stretch of time that the windows were asked for.
    """
    found: set[Gap] = set()
    for of, windows in _groups(series).items():
        merged = list(_merged(windows))
        silences = [(a[1], b[0]) for a, b in pairwise(merged)]
        edges = [silence for silence in silences if _at_a_days_end(*silence)]
        usual = _usual(merged, [silence for silence in silences if silence not in edges], within)
        if usual <= min_gap_s * 1000:
            found |= {Gap(Window(*silence), of) for silence in silences if silence[1] - silence[0] > min_gap_s * 1000}
            found |= {Gap(Window(*edge), of) for edge in edges if edge[1] - edge[0] > max(usual, _STEP_S * 1000)}
    return sorted(found)


def _at_a_days_end(start: int, end: int) -> bool:
    """Whether a silence within an hour of midnight ends with the day, to the step of what the hub was asked."""
    midnight = end // _DAY * _DAY
    return end - midnight < _STEP_S * 1000 and midnight - _EDGE <= start < midnight


def _groups(series: Iterable[Series]) -> dict[str, list[tuple[int, int]]]:
    """The windows of what is read together, by what that is."""
    windows: dict[tuple[str, ...], list[tuple[int, int]]] = defaultdict(list)
    names: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for one in series:
        for scope in ("", one.source):
            for group in ((scope,), *((scope, f"{key}={value}") for key, value in one.tags.items())):
                windows[group] += one.windows
                names[group].add(one.name)
    return {
        " ".join(filter(None, group)) or "everything": windows[group]
        for group in windows
        if names[group] == names[group[:1]]
    }


def _merged(windows: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    opens, closes = None, 0
    for start, end in sorted(windows):
        if opens is None:
            opens, closes = start, end
        elif start <= closes:
            closes = max(closes, end)
        else:
            yield opens, closes
            opens, closes = start, end
    if opens is not None:
        yield opens, closes


def _usual(held: Sequence[tuple[int, int]], silences: Sequence[tuple[int, int]], within: Window) -> int:
    """The longest silence of a usual day, among the days that have points."""
    longest = dict.fromkeys((day for window in held for day in _days(*window)), 0)
    around = [(within.start, held[0][0]), (held[-1][1], within.end)] if held else []
    for start, end in (*silences, *around):
        for day in longest.keys() & set(_days(start, end)):
            longest[day] = max(longest[day], min(end, day + _DAY) - max(start, day))
    return median_low(longest.values()) if longest else 0


def _days(start: int, end: int) -> range:
    """The UTC days, as their first millisecond, that a stretch touches."""
    return range(start // _DAY * _DAY, end, _DAY)


class AirisFindGapsOperator(BaseOperator):
    """Asks the hub for the gaps of the last days, see :func:`gaps`, and returns which days to reconcile again.

    An element a system and UTC day, the arguments of a ``TriggerDagRunOperator``: the run ``gapfill__<day>`` of
    ``airis_reconcile_<system>``, whose configuration names the window. Every system of the catalog that reconciles
    metrics is looked after. The day that is not over is left alone.

    A day is filled once: what its run could not read, the source does not have. So days whose run ``gapfill__<day>``
    has succeeded, or has not ended yet, are left out; one that has failed is named again.

    :param airis_conn_id: connection of the hub.
    :param days: how many days before today to look at.
    :param min_gap_s: the shortest gap that counts; shorter ones are left to the daily run.
    """

    template_fields: Sequence[str] = ("airis_conn_id",)
    ui_color = "#e8f4f8"

    def __init__(
        self, *, airis_conn_id: str = "airis_default", days: int = 14, min_gap_s: int = 900, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.airis_conn_id = airis_conn_id
        self.days = days
        self.min_gap_s = min_gap_s

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Return the runs to start."""
        now = to_ms(timezone.utcnow())
        today = now // _DAY * _DAY
        looked = Window(today - self.days * _DAY, now)
        try:
            found = self._coverage(looked)
        except PermanentError as error:
            raise AirflowFailException(str(error)) from None
        runs = []
        for system, series in found.items():
            days: dict[int, list[Gap]] = defaultdict(list)
            for gap in gaps(series, looked, min_gap_s=self.min_gap_s):
                self.log.info("%s: gap of %s", system.title, gap)
                for day in _days(gap.window.start, min(gap.window.end, today)):
                    days[day].append(gap)
            for day in sorted(days):
                run = _run(system, day, days[day])
                if not self._done(context, run):
                    runs.append(run)
        return runs

    def _coverage(self, window: Window) -> dict[System, list[Series]]:
        """Every series of every system that reconciles metrics, asked for day by day."""
        from airflow_provider_airis.hooks.airis import AirisHook

        by_name = defaultdict(list)
        for system in SYSTEMS:
            if "reconcile" in system.dags:
                for metric in system.metrics:
                    by_name[metric.name].append(system)
        held: dict[tuple[str, str, tuple[tuple[str, str], ...]], list[tuple[int, int]]] = defaultdict(list)
        with AirisHook(self.airis_conn_id) as hub:
            for part in window.split(_DAY // 1000):
                for row in hub.coverage(start=part.start, end=part.end, step=_STEP_S):
                    if row["name"] in by_name:
                        key = row["source"], row["name"], tuple(row["tags"].items())
                        held[key] += map(tuple, row["windows"])
        found: dict[System, list[Series]] = defaultdict(list)
        for (source, name, tags), windows in held.items():
            for system in by_name[name]:
                found[system].append(Series(source, name, dict(tags), windows))
        return found

    def _done(self, context: Context, run: Mapping[str, Any]) -> bool:
        task: Any = context["ti"]
        states = ["queued", "running", "success"]
        known: int = task.get_dr_count(run["trigger_dag_id"], run_ids=[run["trigger_run_id"]], states=states)
        if known:
            self.log.info("%s has %s already", run["trigger_dag_id"], run["trigger_run_id"])
        return known > 0


def _run(system: System, day: int, found: Sequence[Gap]) -> dict[str, Any]:
    start = datetime.fromtimestamp(day / 1000, UTC)
    return {
        "trigger_dag_id": f"airis_reconcile_{system.stem}",
        "trigger_run_id": f"gapfill__{start.date()}",
        "conf": {"start": iso(day), "end": iso(to_ms(start + timedelta(days=1)))},
        "note": "; ".join(map(str, found))[:_NOTE],
    }
