"""How receivers put into words what does not fit, or lasts."""

from __future__ import annotations

from airflow_provider_airis.operators.deliver import cut


def cut_lines(value: str, most: int) -> str:
    """At most so many characters; of many lines, as of a group of alerts, whole ones and how many more there are."""
    if len(value) <= most:
        return value
    lines = value.split("\n")
    left = most - len(f"\n… and {len(lines):,} more lines")
    kept = 0
    while left >= len(lines[kept]):
        left -= len(lines[kept]) + 1
        kept += 1
    if not kept or left > most // 4:
        return cut(value, most)  # the next line alone is what is too long
    return "\n".join([*lines[:kept], f"… and {len(lines) - kept:,} more lines"])


def lasting(milliseconds: int) -> str:
    """A stretch of time in its largest unit that makes two or more, ``90 s``, ``12 min``, ``30 h``, ``2 d``."""
    seconds = max(0, milliseconds) // 1000
    for factor, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * factor:
            return f"{seconds // factor} {unit}"
    return f"{seconds} s"
