"""The engine under every ``<System>ToAirisOperator``: a window in, a stream of records through, a summary out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import product
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import msgspec
from airflow.sdk import Asset, BaseOperator, timezone
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_airis.catalog import BY_STEM, System
from airflow_provider_airis.errors import AirisError, PartialError, PermanentError, SetupError
from airflow_provider_airis.records import Event, Metric, Window

if TYPE_CHECKING:
    from airflow.sdk.definitions.context import Context

    from airflow_provider_airis.hooks.airis import AirisHook


class Reading(msgspec.Struct, frozen=True):
    """What reading one window takes.

    :param period_s: width of its points; None where the source has deleted them.
    :param series: series that are asked for.
    :param points: at most: a series has no point where nothing happened.
    :param calls: requests to the source, listing included.
    :param dollars: at most, by the source's price list.
    """

    window: Window
    period_s: int | None = None
    series: int = 0
    points: int = 0
    calls: int = 0
    dollars: float = 0.0


class Delivered(NamedTuple):
    """What became of a delivery: ``records`` that the hub took, and figures, ``rejected`` among them."""

    records: int
    figures: dict[str, Any]
    refusals: Sequence[str]


class CollectOperator(BaseOperator):
    """Reads one window of a system and delivers it into the hub, record by record, in flat memory.

    A subclass names its ``system`` and implements :meth:`collect`; nothing passes through XCom but the summary
    ``{window, points, series, events, duplicates, rejected, calls, …}``.

    The window is ``[start, end)`` in UTC: the explicit ``start`` and ``end`` if given, else those of the run's
    configuration (``{"start": "2026-11-20T09:30:00Z", "end": "2026-11-20T11:00:00Z"}``), else the run's data interval,
    else (a manual run has none) the last full period before the run, less the delay with which the source publishes.

    :param airis_conn_id: connection of the hub.
    :param start: ISO 8601 with a zone; with ``end``, the window to read instead of the run's data interval.
    :param end: exclusive.
    :param lookback_s: how much earlier to begin than the window does: what was published late comes with the next
        runs, and points that are there already are overwritten with equal or better values.
    :param max_rejected: share of the records that the hub may refuse before the task fails. Refused records are
        logged with the reason in any case.

    Records that a source could give are delivered even if a part of it fails: the task then raises
    :class:`~airflow_provider_airis.errors.PartialError`, which names the parts, and Airflow retries it. An error
    that no retry mends fails the task at once.
    """

    system: ClassVar[str]
    template_fields: Sequence[str] = ("airis_conn_id", "start", "end")
    ui_color = "#e8f4f8"

    def __init__(
        self,
        *,
        airis_conn_id: str = "airis_default",
        start: str | None = None,
        end: str | None = None,
        lookback_s: int = 0,
        max_rejected: float = 0.01,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.airis_conn_id = airis_conn_id
        self.start = start
        self.end = end
        self.lookback_s = lookback_s
        self.max_rejected = max_rejected
        self.failures: dict[str, AirisError] = {}

    @property
    def row(self) -> System:
        """The system's row in the catalog."""
        return BY_STEM[self.system]

    @abstractmethod
    def collect(self, window: Window) -> Iterator[Metric | Event]:
        """Yield every record of ``window``, in bounded memory, the same ones whenever it is asked.

        Wrap what may fail alone in :meth:`part`.
        """

    def plan(self, windows: Sequence[Window]) -> Iterator[Reading]:
        """What reading each of these windows, consecutive and ascending, would take; reads nothing that is billed.

        :raises NotImplementedError: the system has no history of points to read.
        """
        raise NotImplementedError(f"{self.row.title} keeps no history that could be backfilled")

    def summary(self) -> dict[str, Any]:
        """Figures of the system's own, added to the summary after the delivery."""
        return {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Record that a part of the source failed, by name, and go on with the others.

        :raises SetupError: no part can be read.
        """
        try:
            yield
        except SetupError:
            raise
        except AirisError as error:
            self.log.error("%s: %s", name, error)
            self.failures[name] = error

    def window(self, context: Context) -> Window:
        """The window that this run reads, with what it looks back."""
        window = self._window(context)
        return Window(window.start - self.lookback_s * 1000, window.end)

    def _window(self, context: Context) -> Window:
        run = context.get("dag_run")
        conf = (run and run.conf) or {}
        asked = (self.start, self.end) if self.start or self.end else (conf.get("start"), conf.get("end"))
        if all(asked):
            begin, end = _parse("start", asked[0]), _parse("end", asked[1])
            if begin >= end:
                raise PermanentError(f"{self.task_id}: start must be before end, got {asked[0]!r} and {asked[1]!r}")
            return Window.between(begin, end)
        if any(asked):
            raise PermanentError(f"{self.task_id}: give both start and end, got {asked[0]!r} and {asked[1]!r}")
        interval = context.get("data_interval_start"), context.get("data_interval_end")
        if interval[0] is not None and interval[1] is not None and interval[0] < interval[1]:
            return Window.between(interval[0], interval[1])
        at = (run.run_after if run else None) or timezone.utcnow()
        assert self.row.source
        return Window.last_full(at, self.row.source.period_s, delay_s=self.row.source.delay_s)

    def execute(self, context: Context) -> dict[str, Any]:
        """Deliver the window and return the summary."""
        from airflow_provider_airis.hooks.airis import AirisHook

        self.failures = {}
        try:
            window = self.window(context)
            self.log.info("Reading %s %s", self.row.title, window)
            with AirisHook(self.airis_conn_id) as hub:
                delivered = self.deliver(hub, window, _delivery(context))
        except PermanentError as error:
            raise AirflowFailException(str(error)) from None
        summary = {"window": str(window), **delivered.figures, **self.summary()}
        figures = " ".join(f"{name}={value}" for name, value in summary.items() if name != "window")
        self.log.info("%s %s: %s", self.row.title, window, figures)
        for refusal in delivered.refusals:
            self.log.warning("Refused: %s", refusal)
        self._judge(delivered.records, delivered.figures["rejected"])
        self._announce(context, summary)
        return summary

    def _announce(self, context: Context, summary: dict[str, Any]) -> None:
        """Say in the event of each ``airis://`` outlet what was brought."""
        source = self.row.source
        names = [option.argument or option.name for option in source.options if option.maps] if source else []
        for outlet in self.outlets:
            if isinstance(outlet, Asset) and outlet.uri.startswith("airis://"):
                part = {name: getattr(self, name) for name in names}
                context["outlet_events"][outlet].extra.update(summary | {"part": part})

    @classmethod
    def mapped(cls, common: dict[str, Any], mapped: dict[str, list[Any]]) -> list[dict[str, Any]]:  # noqa: ARG003
        """The arguments of each mapped task of the shipped Dags, from the options that map: every combination.

        :param common: arguments that all tasks have; what is mapped instead is taken out.
        """
        return [dict(zip(mapped, row, strict=True)) for row in product(*mapped.values())]

    def deliver(self, hub: AirisHook, window: Window, delivery: str) -> Delivered:
        """Send what :meth:`collect` yields; a system whose records are no metrics and events has its own way.

        :param delivery: names this try of this task.
        """
        series: set[int] = set()
        sent = hub.ingest(self._counted(window, series), delivery=delivery)
        figures = {
            "points": sent.points,
            "series": len(series),
            "events": sent.events,
            "duplicates": sent.duplicates,
            "rejected": sent.rejected,
            "calls": sent.calls,
        }
        return Delivered(sent.points + sent.events, figures, sent.refusals)

    def _counted(self, window: Window, series: set[int]) -> Iterator[Metric | Event]:
        for record in self.collect(window):
            if isinstance(record, Metric):
                series.add(hash((record.source, record.name, *record.tags.items())))
            yield record

    def _judge(self, delivered: int, rejected: int) -> None:
        if self.failures:
            reasons = {name: str(error) for name, error in self.failures.items()}
            message = f"{len(reasons)} part(s) of {self.row.title} failed, the rest was delivered: " + "; ".join(
                f"{name}: {reason}" for name, reason in reasons.items()
            )
            if all(isinstance(error, PermanentError) for error in self.failures.values()):
                raise AirflowFailException(message)
            raise PartialError(message, reasons)
        if rejected > self.max_rejected * (delivered + rejected):
            raise AirflowFailException(
                f"The hub refused {rejected} of {delivered + rejected} records of {self.row.title}, more than "
                f"max_rejected={self.max_rejected:.2%}; the task's log names the first of them with the reason"
            )


def _parse(field: str, value: Any) -> datetime:
    try:
        at = datetime.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise PermanentError(f"{field}={value!r} is not an ISO 8601 time", pointer=f"/{field}") from error
    if at.tzinfo is None:
        raise PermanentError(f"{field}={value!r} has no time zone; append Z for UTC", pointer=f"/{field}")
    return at


def _delivery(context: Context) -> str:
    """Names one try of one task instance; without one (a bare ``execute({})``) every call is a delivery of its own."""
    task = context.get("ti")
    if task is None:
        return f"{timezone.utcnow().timestamp()}"
    return f"{task.dag_id}/{task.run_id}/{task.task_id}/{task.map_index}/{task.try_number}"
