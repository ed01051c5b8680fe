"""What a backfill would read, before anybody pays for it: behind ``airis plan-backfill``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_provider_airis.catalog import BY_STEM, System
from airflow_provider_airis.errors import AirisError, PermanentError
from airflow_provider_airis.records import Window, from_ms

if TYPE_CHECKING:
    from airflow_provider_airis.sources.base import CollectOperator, Reading

DAY_S = 86_400


class Stretch(msgspec.Struct, frozen=True):
    """Consecutive days whose points have the same period: dates inclusive, ``period_s`` None where deleted."""

    first: date
    last: date
    days: int
    period_s: int | None


class Part(msgspec.Struct, frozen=True):
    """What one mapped task of each run reads.

    :param reads: the arguments that are its own, e.g. ``{"region_name": "eu-west-1"}``.
    :param series: in the run that asks for most.
    :param missing: parts of the source that could not be listed, with the reason; the figures lack them.
    """

    reads: dict[str, Any]
    series: int
    calls: int
    points: int
    dollars: float
    stretches: list[Stretch]
    missing: dict[str, str]


class Plan(msgspec.Struct, frozen=True):
    """A backfill of whole UTC days, both inclusive, with one run a day.

    :param command: creates it, without the days that are deleted; None if nothing is left.
    """

    source: str
    dag_id: str
    first: date
    last: date
    runs: int
    deleted: int
    parts: list[Part]
    command: str | None

    def json(self) -> str:
        """The plan with the sums over all parts, for machines."""
        sums = {name: self._sum(name) for name in ("series", "calls", "points", "dollars")}
        return msgspec.json.format(msgspec.json.encode({**msgspec.to_builtins(self), **sums})).decode()

    def tables(self) -> Iterator[Any]:
        """The plan for people: what rich prints."""
        from rich import box
        from rich.table import Table

        title = f"{BY_STEM[self.source].title}, {_days(self.first, self.last)}: {_many(self.runs, 'run')} of a day each"
        several = len(self.parts) > 1
        table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, show_footer=several)
        table.add_column("Reads", "together")
        for name, text in (("series", "{:,}"), ("calls", "{:,}"), ("points", "{:,}"), ("dollars", "${:,.4f}")):
            most = ", at most" if name in ("points", "dollars") else ""
            table.add_column(f"{name.title()}{most}", text.format(self._sum(name)), justify="right")
        for part in self.parts:
            reads = ", ".join(str(value) for value in part.reads.values() if value) or "the connection's"
            table.add_row(reads, f"{part.series:,}", f"{part.calls:,}", f"{part.points:,}", f"${part.dollars:,.4f}")
        yield table
        ages = Table("Days", "Runs", "Points are", box=box.SIMPLE_HEAD)
        for stretch in dict.fromkeys(stretch for part in self.parts for stretch in part.stretches):
            width = "deleted by the source" if stretch.period_s is None else f"{_wide(stretch.period_s)} wide"
            runs = "none" if stretch.period_s is None else f"{stretch.days}"
            style = "yellow" if stretch.period_s is None else ""
            ages.add_row(_days(stretch.first, stretch.last), runs, width, style=style)
        yield ages
        yield self.command or "Nothing is left to read."

    def _sum(self, name: str) -> Any:
        return round(sum(getattr(part, name) for part in self.parts), 6)


@dataclass(frozen=True)
class Task:
    """An operator of the system's Dag with the arguments that are mapped."""

    operator: CollectOperator
    mapped: Mapping[str, Any]


def plan(
    system: System, first: date, last: date, *, conn_id: str | None = None, parts: Mapping[str, Sequence[str]]
) -> Plan:
    """Plan the backfill of a system's days, ``first`` to ``last``.

    :param conn_id: connection of the source, in place of the Dag's.
    :param parts: what to read in place of what is configured, by the mapped argument's beginning: ``{"region": […]}``.
    :raises PermanentError: it cannot be planned, and why.
    """
    if first > last:
        raise PermanentError(f"--from {first} is after --to {last}")
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    if last > yesterday:
        raise PermanentError(f"--to {last} is not over yet (UTC): end with {yesterday} or earlier")
    dag_id = system.dags.get("reconcile")
    if dag_id is None or not system.metrics:
        raise PermanentError(f"{system.title} has no history of metrics that could be backfilled")
    start, end = (datetime(day.year, day.month, day.day, tzinfo=UTC) for day in (first, last + timedelta(days=1)))
    windows = list(Window.between(start, end).split(DAY_S))
    planned, kept = [], set[date]()
    for task in _tasks(system, conn_id, parts):
        readings = _planned(system, task, windows)
        kept |= {_day(reading) for reading in readings if reading.period_s}
        planned.append(_part(task, readings))
    if not any(part.stretches for part in planned):
        raise PermanentError("; ".join(reason for part in planned for reason in part.missing.values()))
    command = None
    if kept:
        command = (
            f"airflow backfill create --dag-id {dag_id} --from-date {min(kept)} --to-date {max(kept)} "
            f"--max-active-runs {min(4, len(kept))}"
        )
    return Plan(system.stem, dag_id, first, last, len(kept), len(windows) - len(kept), planned, command)


def _planned(system: System, task: Task, windows: Sequence[Window]) -> list[Reading]:
    """What a task would read; nothing if its part of the source cannot be asked, which is then among its failures."""
    try:
        return list(task.operator.plan(windows))
    except NotImplementedError as error:
        raise PermanentError(f"{system.title} cannot be planned: {error}") from error
    except AirisError as error:
        task.operator.failures["/".join(map(str, task.mapped.values()))] = error
        return []


def _part(task: Task, readings: Sequence[Reading]) -> Part:
    stretches = []
    for period_s, group in groupby(readings, key=lambda reading: reading.period_s):
        days = [_day(reading) for reading in group]
        stretches.append(Stretch(days[0], days[-1], len(days), period_s))
    missing = {name: str(error) for name, error in task.operator.failures.items()}
    return Part(
        dict(task.mapped),
        max((reading.series for reading in readings), default=0),
        sum(reading.calls for reading in readings),
        sum(reading.points for reading in readings),
        round(sum(reading.dollars for reading in readings), 6),
        stretches,
        missing,
    )


def _day(reading: Reading) -> date:
    return from_ms(reading.window.start).date()


def _tasks(system: System, conn_id: str | None, parts: Mapping[str, Sequence[str]]) -> Iterator[Task]:
    """The tasks that a run of the shipped Dag would map, as its configuration says."""
    from airflow.sdk import DAG

    from airflow_provider_airis.shipped import collect

    with DAG(dag_id=system.dags["reconcile"], schedule=None):
        task = collect(system, "reconcile")
    unused = set(parts)
    mapped = getattr(task, "expand_input", None)
    for row in [{}] if mapped is None else _rows(mapped.value, parts, unused):
        operator: Any = task if mapped is None else task.unmap(row)
        if conn_id is not None:
            (name,) = {field for field in operator.template_fields if field.endswith("conn_id")} - {"airis_conn_id"}
            setattr(operator, name, conn_id)
        yield Task(operator, row)
    if unused:
        raise PermanentError(f"{system.dags['reconcile']} does not read by {', '.join(sorted(unused))}")


def _rows(value: list[dict[str, Any]], parts: Mapping[str, Sequence[str]], unused: set[str]) -> list[dict[str, Any]]:
    """The mapped arguments, a row a task, with what is asked for in place of what is configured."""
    for option, wanted in parts.items():
        names = {name for row in value for name in row if name.startswith(option)}
        if names:
            unused.discard(option)
            rest = [{name: row[name] for name in row if name not in names} for row in value]
            distinct = [row for place, row in enumerate(rest) if row not in rest[:place]]
            value = [{**row, name: item} for row in distinct for name in names for item in wanted]
    return value


def _days(first: date, last: date) -> str:
    return f"{first}" if first == last else f"{first} to {last}"


def _many(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _wide(seconds: int) -> str:
    for size, word in ((3600, "hour"), (60, "minute")):
        if seconds % size == 0:
            return _many(seconds // size, word)
    return f"{seconds} s"
