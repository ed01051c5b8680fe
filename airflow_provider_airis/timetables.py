"""The schedule of a Dag that reads windows of a source which publishes with a delay."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import timezone
from airflow.timetables.base import DagRunInfo, DataInterval, TimeRestriction
from airflow.timetables.interval import CronDataIntervalTimetable
from airflow.timetables.simple import ContinuousTimetable

if TYPE_CHECKING:
    from pendulum import DateTime


class DelayedCronDataIntervalTimetable(CronDataIntervalTimetable):
    """Data intervals by cron in UTC; each run starts ``delay_s`` after its interval has ended.

    A run for ``[10:00, 10:05)`` of a source that shows its values two minutes late starts at 10:07 and reads
    exactly ``[10:00, 10:05)``. Logical dates, and so backfill ranges, stay those of the cron expression.

    See https://airflow.apache.org/docs/apache-airflow/stable/howto/timetable.html
    """

    def __init__(self, cron: str, *, delay_s: int = 0) -> None:
        super().__init__(cron, timezone="UTC")
        self.delay = timedelta(seconds=delay_s)

    @property
    def summary(self) -> str:
        """What the Dag list shows."""
        delay = int(self.delay.total_seconds())
        return f"{self._expression} +{delay} s" if delay else self._expression

    def serialize(self) -> dict[str, Any]:
        """Keep the cron expression and the delay."""
        return {"cron": self._expression, "delay_s": int(self.delay.total_seconds())}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> DelayedCronDataIntervalTimetable:
        """Undo :meth:`serialize`."""
        return cls(data["cron"], delay_s=data["delay_s"])

    def infer_manual_data_interval(self, *, run_after: DateTime) -> DataInterval:
        """The last interval that the source had shown completely at ``run_after``."""
        return super().infer_manual_data_interval(run_after=run_after - self.delay)

    def next_dagrun_info(
        self, *, last_automated_data_interval: DataInterval | None, restriction: TimeRestriction
    ) -> DagRunInfo | None:
        """The next interval, due when its delay is over too.

        Without catchup, Airflow's own rule goes on with the interval that has just ended by the clock. While that
        one's delay still runs, an earlier one may be due; it must not be skipped.
        """
        if not restriction.catchup:
            newest = self.infer_manual_data_interval(run_after=timezone.coerce_datetime(timezone.utcnow())).start
            earliest = newest if restriction.earliest is None else max(newest, restriction.earliest)
            restriction = TimeRestriction(earliest, restriction.latest, catchup=True)
        info = super().next_dagrun_info(
            last_automated_data_interval=last_automated_data_interval, restriction=restriction
        )
        if info is None:
            return None
        return info._replace(run_after=info.run_after + self.delay)


class StandbyContinuousTimetable(ContinuousTimetable):
    """As ``@continuous``, with as many runs at a time as ``max_active_runs`` says: one works, the others stand by.

    Airflow's own allows one, whose successor begins only when Airflow has noticed that its worker has died.
    """

    description = "As frequently as possible, with others that stand by."
    active_runs_limit = 16

    @property
    def summary(self) -> str:
        """What the Dag list shows."""
        return "@continuous, with a standby"
