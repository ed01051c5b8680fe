"""How receivers put into words what does not fit, lasts, or holds what no text should."""

from __future__ import annotations

import re
from collections.abc import Callable
from hashlib import blake2b

Unit = Callable[[str], int]

# Control characters but line breaks, those that Unicode has beside ASCII's, and those that turn the direction of text.
_CONTROLS = r"\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069"
_CONTROL = re.compile(f"[{_CONTROLS}]")
_BREAKS = re.compile(rf"[\s{_CONTROLS}\u2028\u2029]+")


def clean(value: str) -> str:
    """Without control characters, which neither XML nor many databases hold; line breaks stay."""
    return _CONTROL.sub(" ", re.sub(r"\r\n?|\u2028|\u2029", "\n", value))


def one_line(value: str) -> str:
    """Without line breaks and other control characters, which no header may hold."""
    return _BREAKS.sub(" ", value).strip()


def utf16(value: str) -> int:
    """How long Java and JavaScript take a text to be."""
    return len(value) + sum(character > "\uffff" for character in value)


def cut(value: str, most: int, unit: Unit = len) -> str:
    """At most so long, and an ellipsis at the end if there was more.

    :param unit: how long a text is to the receiver.
    """
    if unit(value) <= most:
        return value
    kept = value[: most - 1]
    while (over := unit(kept) - most + 1) > 0:
        kept = kept[: -((over + 1) // 2)]
    return f"{kept}…"


def identity(value: str, most: int) -> str:
    """A key of at most so many characters of any unit; what is longer is cut, and told apart by a digest."""
    if len(value) <= most and value.isascii():
        return value
    plain = value.encode("ascii", "replace").decode().replace("?", "_")
    return f"{plain[: most - 17]}-{blake2b(value.encode(), digest_size=8).hexdigest()}"


def cut_lines(value: str, most: int, unit: Unit = len) -> str:
    """At most so long; of many lines, as of a group of alerts, whole ones and how many more there are."""
    if unit(value) <= most:
        return value
    lines = value.split("\n")
    left = most - len(f"\n… and {len(lines):,} more lines")
    kept = 0
    while left >= unit(lines[kept]):
        left -= unit(lines[kept]) + 1
        kept += 1
    if not kept or left > most // 4:
        return cut(value, most, unit)  # the next line alone is what is too long
    return "\n".join([*lines[:kept], f"… and {len(lines) - kept:,} more lines"])


def lasting(milliseconds: int) -> str:
    """A stretch of time in its largest unit that makes two or more, ``90 s``, ``12 min``, ``30 h``, ``2 d``."""
    seconds = max(0, milliseconds) // 1000
    for factor, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * factor:
            return f"{seconds // factor} {unit}"
    return f"{seconds} s"
