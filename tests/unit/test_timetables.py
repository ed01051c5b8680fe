"""The delay of a source lives in the schedule: no interval is skipped, none is read early, none is read twice."""

from datetime import UTC, datetime
from itertools import pairwise

import pendulum
import pytest
import time_machine
from airflow.serialization.decoders import decode_timetable
from airflow.serialization.encoders import encode_timetable
from airflow.timetables.base import TimeRestriction

from airflow_provider_airis.timetables import DelayedCronDataIntervalTimetable

NO_CATCHUP = TimeRestriction(earliest=None, latest=None, catchup=False)


def at(text: str) -> pendulum.DateTime:
    return pendulum.parse(f"2026-11-20T{text}Z")


def scheduled(timetable, start: str, end: str):
    """What a scheduler that looks every second between two times starts, as (interval, when)."""
    runs, last, now = [], None, at(start)
    while now <= at(end):
        with time_machine.travel(now, tick=False):
            info = timetable.next_dagrun_info(last_automated_data_interval=last, restriction=NO_CATCHUP)
        if info.run_after <= now:
            runs.append((info.data_interval, now))
            last = info.data_interval
        now = now.add(seconds=1)
    return runs


@pytest.mark.parametrize("delay_s", [0, 61, 150, 600])
def test_every_interval_is_run_once_in_order_as_soon_as_its_delay_is_over(delay_s):
    runs = scheduled(DelayedCronDataIntervalTimetable("* * * * *", delay_s=delay_s), "10:00:30", "10:12:00")
    assert len(runs) > 5
    assert all(a.end == b.start for (a, _), (b, _) in pairwise(runs))
    assert all((when - interval.end).total_seconds() == delay_s for interval, when in runs[1:])


def test_the_first_run_without_catchup_is_the_newest_interval_that_is_published():
    interval, _ = scheduled(DelayedCronDataIntervalTimetable("*/5 * * * *", delay_s=120), "10:06:00", "10:06:00")[0]
    assert (interval.start, interval.end) == (at("09:55:00"), at("10:00:00"))


def test_a_backfill_has_the_logical_dates_of_the_cron_expression():
    timetable = DelayedCronDataIntervalTimetable("0 0 * * *", delay_s=1800)
    every = TimeRestriction(
        earliest=pendulum.datetime(2026, 11, 1), latest=pendulum.datetime(2026, 11, 3), catchup=True
    )
    last, days = None, []
    while info := timetable.next_dagrun_info(last_automated_data_interval=last, restriction=every):
        last = info.data_interval
        days.append(last.start.day)
        assert info.run_after == last.end.add(minutes=30)
    assert days == [1, 2, 3]


def test_a_manual_run_reads_the_last_interval_that_is_published():
    timetable = DelayedCronDataIntervalTimetable("*/5 * * * *", delay_s=120)
    assert timetable.infer_manual_data_interval(run_after=at("10:06:59")).end == at("10:00:00")
    assert timetable.infer_manual_data_interval(run_after=at("10:07:00")).end == at("10:05:00")


def test_it_survives_serialization_as_a_plugin_that_airflow_has_found():
    timetable = DelayedCronDataIntervalTimetable("*/5 * * * *", delay_s=120)
    again = decode_timetable(encode_timetable(timetable))
    assert again.serialize() == timetable.serialize()
    assert again.summary == "*/5 * * * * +120 s"
    with time_machine.travel(datetime(2026, 11, 20, 10, 6, tzinfo=UTC), tick=False):
        ask = {"last_automated_data_interval": None, "restriction": NO_CATCHUP}
        assert again.next_dagrun_info(**ask) == timetable.next_dagrun_info(**ask)
