from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_airis.records import Window, iso, to_ms

MINUTE = 60_000
times = st.integers(0, 4_000_000_000_000)
periods = st.sampled_from([1, 60, 300, 3600, 86400])


def test_a_window_ends_before_its_end():
    window = Window(0, MINUTE)
    assert 0 in window
    assert MINUTE - 1 in window
    assert MINUTE not in window
    assert -1 not in window


def test_a_window_that_ends_before_it_starts_is_refused():
    with pytest.raises(ValueError, match="ends before it starts"):
        Window(1, 0)


@given(times, periods, st.integers(0, 7200))
def test_the_last_full_period_is_over_and_published(at, period_s, delay_s):
    moment = datetime.fromtimestamp(at / 1000, UTC)
    window = Window.last_full(moment, period_s, delay_s=delay_s)
    assert window.end - window.start == period_s * 1000
    assert window.start % (period_s * 1000) == 0
    assert window.end + delay_s * 1000 <= to_ms(moment)
    assert to_ms(moment) - (window.end + delay_s * 1000) < period_s * 1000


@given(times, st.integers(0, 10**9), periods)
def test_aligned_is_the_smallest_window_of_whole_periods_around_it(start, length, period_s):
    window, period = Window(start, start + length), period_s * 1000
    aligned = window.aligned(period_s)
    assert aligned.start % period == 0
    assert aligned.end % period == 0
    assert window.start - period < aligned.start <= window.start
    assert window.end <= aligned.end < window.end + period


@given(times, st.integers(1, 10**7), st.integers(60, 5000))
def test_the_parts_of_a_split_are_the_window(start, length, seconds):
    window = Window(start, start + length)
    parts = list(window.split(seconds))
    assert parts[0].start == window.start
    assert parts[-1].end == window.end
    assert all(a.end == b.start for a, b in pairwise(parts))
    assert all(0 < part.end - part.start <= seconds * 1000 for part in parts)


def test_a_time_without_a_zone_is_refused():
    with pytest.raises(ValueError, match="no time zone"):
        to_ms(datetime(2026, 11, 1))  # noqa: DTZ001


def test_times_are_utc_whatever_zone_they_came_in():
    berlin = datetime(2026, 11, 1, 1, tzinfo=timezone(timedelta(hours=1)))
    assert iso(to_ms(berlin)) == "2026-11-01T00:00:00Z"
