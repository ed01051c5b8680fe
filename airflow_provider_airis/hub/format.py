"""How the pages write quantities and times: the source's units in the size that a person reads."""

from __future__ import annotations

from collections.abc import Sequence

from airflow_provider_airis.records import from_ms

# unit as CloudWatch and friends name it → (size in the base unit, steps of the base unit)
_SECONDS = ((86400.0, " d"), (3600.0, " h"), (60.0, " min"), (1.0, " s"), (1e-3, " ms"), (1e-6, " µs"))
_BYTES = ((2.0**40, " TiB"), (2.0**30, " GiB"), (2.0**20, " MiB"), (2.0**10, " KiB"), (1.0, " B"))
_SCALES: dict[str, tuple[float, tuple[tuple[float, str], ...]]] = {
    "nanoseconds": (1e-9, _SECONDS),
    "microseconds": (1e-6, _SECONDS),
    "milliseconds": (1e-3, _SECONDS),
    "seconds": (1.0, _SECONDS),
    "bytes": (1.0, _BYTES),
    "kilobytes": (2.0**10, _BYTES),
    "megabytes": (2.0**20, _BYTES),
    "gigabytes": (2.0**30, _BYTES),
}
_PLAIN = {"": "", "none": "", "count": "", "percent": " %", "count/second": "/s"}


def scale(unit: str, largest: float) -> tuple[float, str]:
    """What makes values up to ``largest`` readable, factor and suffix: ``("Microseconds", 8e5)`` → 1e-3, ``" ms"``."""
    if known := _SCALES.get(unit.lower()):
        base, steps = known
        size, suffix = next((step for step in steps if abs(largest or 1) * base >= step[0]), steps[-1])
        return base / size, suffix
    return 1.0, _PLAIN.get(unit.lower(), f" {unit}")


def quantity(value: float | None, unit: str = "") -> str:
    """A value with its unit, to four digits; empty without a value."""
    if value is None:
        return ""
    factor, suffix = scale(unit, value)
    return number(value * factor) + suffix


def number(value: float) -> str:
    """``1234567`` → ``1.235M``; four digits are kept."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if letter == 'k' else size):.4g}{letter}"
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"


def clock(timestamp: int, style: str = "long") -> str:
    """``2026-11-23 03:01:05 UTC``, or ``23 Nov, 03:01 UTC`` where room is short."""
    at = from_ms(timestamp)
    return f"{at:%Y-%m-%d %H:%M:%S} UTC" if style == "long" else f"{at.day} {at:%b, %H:%M} UTC"


def duration(seconds: float | None) -> str:
    """``4 min 10 s``: the two largest units."""
    if seconds is None:
        return "-"
    left = max(0, round(seconds))
    parts = []
    for size, name in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        if count := left // size:
            parts.append(f"{count} {name}")
        elif parts:
            break
        left %= size
    return " ".join(parts[:2]) or "0 s"


def age(timestamp: int, now: int) -> str:
    """``14 min ago``."""
    seconds = (now - timestamp) / 1000
    if seconds < 1:
        return "just now"
    steps = ((2 * 86400, 86400, "d"), (2 * 3600, 3600, "h"), (60, 60, "min"), (0, 1, "s"))
    size, name = next((size, name) for least, size, name in steps if seconds >= least)
    return f"{seconds // size:.0f} {name} ago"


def sparkline(counts: Sequence[int], width: int = 120, height: int = 24) -> str:
    """The SVG path of a small line over equal steps."""
    top, step = max([*counts, 1]), width / max(len(counts) - 1, 1)
    points = (f"{i * step:.4g} {height - 2 - count / top * (height - 4):.4g}" for i, count in enumerate(counts))
    return "M" + "L".join(points)
