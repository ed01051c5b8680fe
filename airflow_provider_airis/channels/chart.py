"""What made an alert fire as a line chart, a PNG that is drawn with the standard library alone."""

from __future__ import annotations

import math
import statistics
import struct
import zlib
from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_airis.channels.texts import lasting
from airflow_provider_airis.records import Alert, from_ms

if TYPE_CHECKING:
    from airflow_provider_airis.hooks.airis import AirisHook

# How long before the alert fired the chart begins, and what a point of it covers.
BEFORE_MS = 3_600_000
STEP_S = 60
WIDTH, HEIGHT = 960, 360
LEFT, RIGHT, TOP, BOTTOM = 130, 24, 24, 48
LINES = 6
# Height of a character, of which the font has five rows.
DOTS = 4
PAPER, GRID, INK, RED = range(4)
_PALETTE = "ffffff e1e4e8 59636e c62828 1f4fbf b3431a 146c2e 7a3fb3 8a5300 00727a"

# Three columns, five rows, a digit a row.
_FONT = {
    "0": "75557",
    "1": "26227",
    "2": "71747",
    "3": "71717",
    "4": "55711",
    "5": "74717",
    "6": "74757",
    "7": "71122",
    "8": "75757",
    "9": "75717",
    ".": "00002",
    ":": "02020",
    "-": "00700",
    "+": "02720",
    "e": "07747",
    "k": "55655",
    "M": "57755",
    "G": "74557",
    "T": "72222",
}

Line = Sequence[tuple[int, float]]


def draw(hub: AirisHook, alert: Alert) -> tuple[str, bytes] | None:
    """Title and picture of what an alert's rule was evaluated over; None if the hub has no points of it.

    Of a group it is the series of its first alerts that are of the same rule.
    """
    start, end = alert.timestamp - BEFORE_MS, alert.timestamp + STEP_S * 1000
    found = [hub.evaluation(alert_id) for alert_id in islice(hub.alert_ids(alert.id), LINES)]
    rule = found[0].rule if found else None
    series = [ref for one in found if one.rule == rule for ref in one.series]
    if not rule or not series:
        return None
    step, how = _resolution(rule)
    lines = []
    for ref in series[:LINES]:
        answer = hub.query(ref.name, source=ref.source, tags=ref.tags, start=start, end=end, step=step, agg=how)
        # Others may have the same tags and more.
        lines += [[(at, value) for at, value in one["points"]] for one in answer if one["tags"] == ref.tags]
    if not any(lines):
        return None
    title = f"{series[0].name} in {series[0].unit or '1'}, {how} over {lasting(step * 1000)}"
    return title, png(lines, start=start, end=end, threshold=rule.get("threshold"))


def _resolution(rule: dict[str, Any]) -> tuple[int, str]:
    """The step in seconds and the aggregation by which points can be compared with the threshold."""
    if rule.get("aggregation") in ("sum", "count"):
        return max(1, int(rule["window_s"])), str(rule["aggregation"])
    return STEP_S, "min" if str(rule.get("comparator")).startswith("<") else "max"


def png(lines: Sequence[Line], *, start: int, end: int, threshold: float | None = None) -> bytes:
    """The lines over the time ``[start, end]``, with the threshold, broken where points are missing.

    :param lines: points ``(Unix ms, value)`` in order of time; the first six lines are drawn.
    :raises ValueError: there are no points.
    """
    parts = [[*_unbroken(line)] for line in lines[:LINES]]
    values = [value for line in parts for part in line for _, value in part]
    if not values:
        raise ValueError("there are no points")
    limits = [] if threshold is None else [threshold]
    scale = _Scale(start, end, min(values + limits), max(values + limits))
    canvas = _Canvas()
    _axes(canvas, scale, threshold)
    for number, line in enumerate(parts):
        for part in line:
            points = [(scale.x(at), scale.y(value)) for at, value in part]
            for one, other in pairwise([points[0], *points]):
                canvas.line(*one, *other, RED + 1 + number, thick=3)
    return canvas.png()


class _Scale(NamedTuple):
    """Where a time and a value are, in pixels."""

    start: int
    end: int
    low: float
    high: float

    def x(self, at: int) -> int:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * (at - self.start) / max(1, self.end - self.start))

    def y(self, value: float) -> int:
        pad = (self.high - self.low) * 0.06 or abs(self.high) * 0.1 or 1.0
        share = (value - self.low + pad) / (self.high - self.low + 2 * pad)
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share)


def _axes(canvas: _Canvas, scale: _Scale, threshold: float | None) -> None:
    for share in range(5):
        height = TOP + (HEIGHT - TOP - BOTTOM) * share // 4
        canvas.line(LEFT, height, WIDTH - RIGHT, height, GRID)
    for number, at in enumerate((scale.start, (scale.start + scale.end) // 2, scale.end)):
        canvas.text(f"{from_ms(at):%H:%M}", scale.x(at), HEIGHT - BOTTOM + 16, INK, share=number / 2)
    labels = {scale.y(value): (value, INK) for value in (scale.high, scale.low)}
    if threshold is not None:
        height = scale.y(threshold)
        labels = {other: label for other, label in labels.items() if abs(height - other) > 6 * DOTS}
        labels[height] = threshold, RED
        for left in range(LEFT, WIDTH - RIGHT, 16):
            canvas.line(left, height, min(left + 9, WIDTH - RIGHT), height, RED, thick=2)
    for height, (value, ink) in labels.items():
        canvas.text(_short(value), LEFT - 12, height - 5 * DOTS // 2, ink, share=1)


class _Canvas:
    """Pixels, each a colour of the palette."""

    def __init__(self) -> None:
        self.rows = [bytearray(WIDTH) for _ in range(HEIGHT)]

    def box(self, left: int, top: int, width: int, height: int, ink: int) -> None:
        left, right = max(0, left), min(WIDTH, left + width)
        if left < right:
            for row in self.rows[max(0, top) : max(0, top + height)]:
                row[left:right] = bytes([ink]) * (right - left)

    def line(self, x0: int, y0: int, x1: int, y1: int, ink: int, *, thick: int = 1) -> None:
        if y0 == y1:
            self.box(min(x0, x1), y0 - thick // 2, abs(x1 - x0) + 1, thick, ink)
        steps = max(abs(x1 - x0), abs(y1 - y0)) if y0 != y1 else 0
        for step in range(steps + 1):
            share = step / max(1, steps)
            at = round(x0 + (x1 - x0) * share), round(y0 + (y1 - y0) * share)
            self.box(at[0] - thick // 2, at[1] - thick // 2, thick, thick, ink)

    def text(self, text: str, x: int, y: int, ink: int, *, share: float) -> None:
        """Write so that this share of the text is left of ``x``."""
        x -= round((len(text) * 4 - 1) * DOTS * share)
        for character in text:
            for row, bits in enumerate(map(int, _FONT[character])):
                for column in range(3):
                    if bits & 4 >> column:
                        self.box(x + column * DOTS, y + row * DOTS, DOTS, DOTS, ink)
            x += 4 * DOTS

    def png(self) -> bytes:
        """See https://www.w3.org/TR/png-3/"""
        header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 3, 0, 0, 0)
        pixels = zlib.compress(b"".join(b"\0" + row for row in self.rows), 9)
        chunks = {b"IHDR": header, b"PLTE": bytes.fromhex(_PALETTE), b"IDAT": pixels, b"IEND": b""}
        return b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in chunks.items()
        )


def _unbroken(line: Line) -> Iterator[list[tuple[int, float]]]:
    """The parts of a line, so that nothing is drawn over what nobody has measured."""
    usual = statistics.median(after[0] - before[0] for before, after in pairwise(line)) if len(line) > 1 else 0
    part: list[tuple[int, float]] = []
    for at, value in line:
        gone = not math.isfinite(value)
        if part and (gone or at - part[-1][0] > 2.5 * usual):
            yield part
            part = []
        if not gone:
            part.append((at, value))
    if part:
        yield part


def _short(value: float) -> str:
    """A number in at most seven characters."""
    for factor, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if factor <= abs(value) < 1e15:
            return f"{value / factor:.3g}{suffix}"
    return f"{value:.3g}" if 1e-3 <= abs(value) < 1e3 or value == 0 else f"{value:.1e}"
