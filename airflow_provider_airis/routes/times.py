"""Durations and times of the week, in the syntax of Prometheus and Alertmanager."""

from __future__ import annotations

import re
from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

_UNITS = {"y": 31_536_000_000, "w": 604_800_000, "d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
_DURATION = re.compile("".join(rf"(?:([0-9]+){unit})?" for unit in _UNITS))
_TIME = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])|24:00")

WEEKDAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
MONTHS = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)


def parse_duration(text: str) -> int:
    """Milliseconds of a duration as Prometheus writes it: ``30s``, ``1h30m``, ``0s``, the units from large to small.

    :raises ValueError: it is none.
    """
    match = _DURATION.fullmatch(text)
    if text == "0":
        return 0
    if not text or match is None:
        raise ValueError(f"{text!r} is no duration; one looks like 30s, 5m or 1h30m, in {', '.join(_UNITS)}")
    return sum(int(number) * size for number, size in zip(match.groups(), _UNITS.values(), strict=True) if number)


def format_duration(ms: int) -> str:
    """A duration as Prometheus writes it."""
    text, rest = "", ms
    for unit, size in _UNITS.items():
        # Prometheus writes years, weeks and days only where nothing is left over.
        if rest >= size and (unit not in ("y", "w", "d") or rest % size == 0):
            text, rest = f"{text}{rest // size}{unit}", rest % size
    return text or "0s"


def parse_time(text: str) -> int:
    """Minutes since midnight of ``HH:MM``, up to ``24:00``.

    :raises ValueError: it is none.
    """
    if _TIME.fullmatch(text) is None:
        raise ValueError(f"{text!r} is no time of the day; one looks like 09:00, from 00:00 to 24:00")
    hours, minutes = text.split(":")
    return int(hours) * 60 + int(minutes)


def parse_range(text: str, kind: str) -> tuple[int, int]:
    """Both ends, inclusive, of ``monday:friday``, ``1:15``, ``-3:-1``, ``january:3``, ``2026`` and the like.

    :param kind: ``weekdays`` (0 is Sunday), ``days_of_month``, ``months`` or ``years``.
    :raises ValueError: says what is allowed.
    """
    first, colon, last = (part.strip() for part in text.lower().partition(":"))
    begin = _member(first, kind, text)
    end = _member(last, kind, text) if colon else begin
    lowest = 28 + begin if begin < 0 else begin
    highest = 28 + end if end < 0 else end
    if kind == "days_of_month" and begin < 0 < end:
        raise ValueError(f"{text!r} begins at the month's end, so it ends there too: its end is negative")
    if lowest > highest:
        raise ValueError(f"{text!r} ends before it begins")
    return begin, end


def _member(word: str, kind: str, text: str) -> int:
    if kind == "weekdays":
        if word not in WEEKDAYS:
            raise ValueError(f"{text!r} is no range of weekdays; one looks like monday:friday or saturday")
        return WEEKDAYS.index(word)
    if kind == "months" and word in MONTHS:
        return MONTHS.index(word) + 1
    number = int(word) if re.fullmatch(r"-?[0-9]{1,4}", word) else 0
    allowed = {
        "days_of_month": (1 <= abs(number) <= 31, "1:7, or from the month's end -3:-1"),
        "months": (1 <= number <= 12, "january:march or 1:3"),
        "years": (number > 0, "2026:2028 or 2026"),
    }
    valid, example = allowed[kind]
    if not valid:
        raise ValueError(f"{text!r} is no range of {kind}; one looks like {example}")
    return number


@dataclass(frozen=True)
class TimeInterval:
    """Some of all times; a part that is empty is no condition.

    :param times: minutes since midnight, the end not included.
    :param weekdays: 0 is Sunday, the end included, as it is for ``months`` and ``years``.
    :param days_of_month: negative ones from the month's end, which is -1.
    :param location: the zone of all these; UTC if None.
    """

    times: tuple[tuple[int, int], ...] = ()
    weekdays: tuple[tuple[int, int], ...] = ()
    days_of_month: tuple[tuple[int, int], ...] = ()
    months: tuple[tuple[int, int], ...] = ()
    years: tuple[tuple[int, int], ...] = ()
    location: ZoneInfo | None = None

    def __contains__(self, at: datetime) -> bool:
        """Whether an aware datetime is inside.

        :raises ValueError: it is naive.
        """
        if at.tzinfo is None:
            raise ValueError(f"{at!r} has no time zone")
        local = at.astimezone(self.location or UTC)
        length = monthrange(local.year, local.month)[1]
        minute = local.hour * 60 + local.minute
        weekday = local.isoweekday() % 7
        return (
            (not self.times or any(begin <= minute < end for begin, end in self.times))
            and (not self.days_of_month or any(_in_month(local.day, days, length) for days in self.days_of_month))
            and all(
                not ranges or any(begin <= value <= end for begin, end in ranges)
                for value, ranges in ((weekday, self.weekdays), (local.month, self.months), (local.year, self.years))
            )
        )


def _in_month(day: int, days: tuple[int, int], length: int) -> bool:
    begin, end = (length + 1 + day if day < 0 else day for day in days)
    return begin <= day <= end
