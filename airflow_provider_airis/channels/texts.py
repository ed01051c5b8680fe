"""How receivers put into words what does not fit, lasts, or holds what no text should."""

from __future__ import annotations

import re

# Control characters but line breaks, those that Unicode has beside ASCII's too.
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
_BREAKS = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def clean(value: str) -> str:
    """Without control characters, which neither XML nor many databases hold; line breaks stay."""
    return _CONTROL.sub(" ", value.replace("\r\n", "\n"))


def one_line(value: str) -> str:
    """Without line breaks and other control characters, which no header may hold."""
    return _BREAKS.sub(" ", value).strip()


def cut(value: str, most: int) -> str:
    """At most so many characters, the last an ellipsis if there were more."""
    return value if len(value) <= most else value[: most - 1] + "…"


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
