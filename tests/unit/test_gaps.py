"""What is a gap: everything that is read together lacks points, with points before and after; quiet is none."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_airis.operators import gaps as fill
from airflow_provider_airis.operators.gaps import Gap, Series
from airflow_provider_airis.records import Window

HOUR = 3_600_000
DAY = 24 * HOUR
STEP = 300_000
START = 1_793_577_600_000  # 2026-11-02T00:00:00Z
END = START + 14 * DAY
DAYS = range(START, END, DAY)

Windows = list[tuple[int, int]]
hours = st.integers(0, 14 * 24 - 1).map(lambda hour: START + hour * HOUR)


def gaps(held: list[Series]) -> list[Gap]:
    return fill.gaps(held, Window(START, END))


def series(source: str, name: str, windows: Windows, region: str = "eu") -> Series:
    return Series(source, name, {"region": region, "statistic": "Sum" if name == "requests" else "Average"}, windows)


def without(held: Windows, *outages: tuple[int, int]) -> Windows:
    """What is held of these windows where nobody collected for a while."""
    for opens, closes in outages:
        held = [
            part
            for start, end in held
            for part in ((start, min(end, opens)), (max(start, closes), end))
            if part[0] < part[1]
        ]
    return held


@st.composite
def traffic(draw: st.DrawFn) -> Windows:
    """Requests whenever they like, in whole steps."""
    starts = sorted(draw(st.sets(st.integers(0, 14 * 288 - 1), max_size=60)))
    return [(START + step * STEP, START + step * STEP + STEP) for step in starts]


@st.composite
def outages(draw: st.DrawFn) -> Windows:
    """Stretches of which most days see nothing, each with points before and after it."""
    days = sorted(draw(st.sets(st.integers(1, 12), max_size=5)))
    found = []
    for day in days:
        opens = draw(st.integers(1, 200))
        closes = draw(st.integers(opens + 4, 280))
        found.append((START + day * DAY + opens * STEP, START + day * DAY + closes * STEP))
    return found


def windows(found: list[Gap], of: str) -> Windows:
    return [(gap.window.start, gap.window.end) for gap in found if gap.of == of]


@given(outages(), st.lists(traffic(), max_size=3))
@settings(max_examples=100, deadline=None)
def test_what_a_collector_that_was_down_left_out_is_found_exactly(lost, requests):
    load = without([(START, END)], *lost)
    held = [series("one", "load", load)] + [series("one", "requests", without(some, *lost)) for some in requests]
    found = gaps(held)
    assert windows(found, "one") == windows(found, "everything") == lost
    assert {(gap.window.start, gap.window.end) for gap in found} == set(lost)


@given(st.lists(traffic(), min_size=1, max_size=4))
@settings(max_examples=100, deadline=None)
def test_no_traffic_is_no_gap_while_load_goes_on(requests):
    held = [series("one", "requests", some) for some in requests]
    assert gaps([series("one", "load", [(START, END)]), *held]) == []


@given(st.integers(0, 13), st.integers(1, 13))
@settings(max_examples=50, deadline=None)
def test_traffic_alone_that_ceases_every_night_has_no_gap(first, hours_a_day):
    daily = [(day, day + hours_a_day * HOUR) for day in DAYS[first:]]
    assert gaps([series("one", "requests", daily)]) == []


@given(hours, hours)
@settings(max_examples=50, deadline=None)
def test_before_its_first_point_and_after_its_last_a_source_has_no_gap(first, last):
    lived = [(min(first, last), max(first, last) + HOUR)]
    assert gaps([series("one", "load", lived), series("two", "load", [(START, END)])]) == []


@given(st.integers(1, 900_000), hours)
@settings(max_examples=50, deadline=None)
def test_a_short_gap_is_none(length, at):
    assert gaps([series("one", "load", without([(START, END)], (at + 1, at + 1 + length)))]) == []


def test_ten_minutes_at_the_end_of_every_day_are_gaps():
    """What was published after its day had been read: as usual as can be, and lost all the same."""
    lost = [(day + DAY - 600_000, day + DAY) for day in DAYS[:-1]]
    assert {gap.window for gap in gaps([series("one", "load", without([(START, END)], *lost))])} == {
        Window(*silence) for silence in lost
    }
    [once] = {gap.window for gap in gaps([series("one", "load", without([(START, END)], lost[3]))])}
    assert once == Window(*lost[3])


def test_silences_as_long_as_those_of_the_day_are_no_gaps_at_its_end():
    half_hours = [(at, at + HOUR / 2) for at in range(START, END, HOUR)]
    held = [(int(opens), int(closes)) for opens, closes in half_hours]
    assert gaps([series("one", "requests", held)]) == []


def test_an_outage_of_several_days_is_one_gap():
    lost = (START + 3 * DAY + 7 * HOUR, START + 11 * DAY + HOUR)
    held = [series("one", "load", without([(START, END)], lost))]
    assert {gap.window for gap in gaps(held)} == {Window(*lost)}


def test_a_region_that_was_denied_is_found_though_the_others_went_on():
    lost = (START + 3 * DAY, START + 4 * DAY + HOUR)
    held = [
        series(source, name, without([(START, END)], *([lost] if region == "us" else [])), region)
        for region in ("eu", "us")
        for source in ("one", "two")
        for name in ("load", "requests")
    ]
    assert gaps(held) == [Gap(Window(*lost), of) for of in ("one region=us", "region=us", "two region=us")]


def test_a_source_that_alone_was_left_out_is_found():
    lost = (START + 3 * DAY, START + 3 * DAY + 2 * HOUR)
    held = [
        series("one", "load", without([(START, END)], lost)),
        series("one", "requests", without([(START, END)], lost)),
        series("two", "load", [(START, END)]),
        series("two", "requests", [(START, END)]),
    ]
    assert gaps(held) == [Gap(Window(*lost), "one"), Gap(Window(*lost), "one region=eu")]


def test_many_sources_that_are_quiet_at_times_are_watched_together():
    lost = (START + 5 * DAY, START + 5 * DAY + 3 * HOUR)
    held = [
        series(f"number {n}", "requests", without([(day + n * HOUR, day + (n + 1) * HOUR) for day in DAYS], lost))
        for n in range(24)
    ]
    found = gaps(held)
    assert {gap.window for gap in found} == {Window(*lost)}
    assert {gap.of for gap in found} == {"everything", "region=eu", "statistic=Sum"}


def test_nothing_has_no_gap():
    assert gaps([]) == []
    assert gaps([series("one", "load", [])]) == []
