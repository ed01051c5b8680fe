from __future__ import annotations

import pytest

from airflow_provider_airis.hub.format import age, clock, duration, number, quantity, sparkline


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (812_345, "Microseconds", "812.3 ms"),
        (1_180_000, "Microseconds", "1.18 s"),
        (85, "Microseconds", "85 µs"),
        (0, "Milliseconds", "0 ms"),
        (-2.5, "Seconds", "-2.5 s"),
        (3 * 2**20, "Bytes", "3 MiB"),
        (91.26, "Percent", "91.26 %"),
        (17, "None", "17"),
        (1_234_567, "Count", "1.235M"),
        (3, "widgets", "3 widgets"),
        (None, "Percent", ""),
    ],
)
def test_quantity(value: float | None, unit: str, expected: str) -> None:
    assert quantity(value, unit) == expected


def test_number_keeps_four_digits() -> None:
    assert [number(n) for n in (0.123456, 1234, 12_345, 3.2e9)] == ["0.1235", "1,234", "12.35k", "3.2G"]


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0, "0 s"), (59.6, "1 min"), (250, "4 min 10 s"), (3605, "1 h"), (90_000, "1 d 1 h")]
)
def test_duration(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(-5, "just now"), (0, "just now"), (59, "59 s ago"), (61, "1 min ago"), (7199, "119 min ago"), (7200, "2 h ago")],
)
def test_age(seconds: int, expected: str) -> None:
    assert age(0, seconds * 1000) == expected


def test_times_name_their_zone() -> None:
    assert clock(0) == "1970-01-01 00:00:00 UTC"
    assert clock(0, "short") == "1 Jan, 00:00 UTC"


@pytest.mark.parametrize("counts", [[], [0], [0, 0], [1, 5, 3]])
def test_sparkline_stays_inside_its_box(counts: list[int]) -> None:
    path = sparkline(counts)
    assert path.startswith("M")
    for point in path[1:].split("L") if counts else []:
        x, y = map(float, point.split())
        assert 0 <= x <= 120
        assert 0 <= y <= 24
