"""The chart of an alert, looked at pixel by pixel."""

from __future__ import annotations

import struct
import zlib

import pytest

from airflow_provider_airis.channels.chart import HEIGHT, INK, LEFT, RED, RIGHT, WIDTH, png

END = 1795406459603
START = END - 3_600_000


def pixels(content: bytes) -> list[bytes]:
    """The rows of a PNG, whose every chunk is as the standard says."""
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    chunks, rest = {}, content[8:]
    while rest:
        (length,), kind = struct.unpack(">I", rest[:4]), rest[4:8]
        data, checksum = rest[8 : 8 + length], rest[8 + length : 12 + length]
        assert struct.unpack(">I", checksum)[0] == zlib.crc32(kind + data)
        chunks[kind], rest = data, rest[12 + length :]
    assert [*chunks] == [b"IHDR", b"PLTE", b"IDAT", b"IEND"]
    assert struct.unpack(">IIBBBBB", chunks[b"IHDR"]) == (WIDTH, HEIGHT, 8, 3, 0, 0, 0)
    raw = zlib.decompress(chunks[b"IDAT"])
    assert len(raw) == HEIGHT * (WIDTH + 1)
    assert max(raw) < len(chunks[b"PLTE"]) // 3
    return [raw[row * (WIDTH + 1) + 1 : (row + 1) * (WIDTH + 1)] for row in range(HEIGHT)]


def line(*values: float) -> list[tuple[int, float]]:
    """A point a minute, up to the end."""
    return [(END - (len(values) - 1 - at) * 60_000, value) for at, value in enumerate(values)]


def where(rows: list[bytes], ink: int) -> tuple[set[int], set[int]]:
    """The columns and rows of a colour within the chart."""
    found = [(x, y) for y, row in enumerate(rows) for x in range(LEFT, WIDTH) if row[x] == ink]
    return {x for x, _ in found}, {y for _, y in found}


def test_a_line_that_crosses_the_threshold_does_so_in_the_picture():
    rows = pixels(png([line(*range(61))], start=START, end=END, threshold=30))
    columns, heights = where(rows, RED + 1)
    assert min(columns) <= LEFT + 2
    assert max(columns) >= WIDTH - RIGHT - 2
    dashes, at = where(rows, RED)
    assert len(at) == 2
    assert len(dashes) > 300
    assert abs(sum(heights) / len(heights) - min(at)) < 5
    # It rises from left to right.
    assert rows[min(heights) + 1].index(RED + 1) > rows[max(heights) - 1].rindex(RED + 1)


def test_nothing_is_drawn_over_what_nobody_measured():
    values = line(*range(61))
    columns, _ = where(pixels(png([values[:20] + values[40:]], start=START, end=END)), RED + 1)
    gap = {x for x in range(LEFT, WIDTH - RIGHT) if x not in columns}
    assert len(gap) > (WIDTH - LEFT - RIGHT) / 4


def test_each_line_has_a_colour_and_the_axes_have_numbers():
    lines = [line(*[float(n)] * 61) for n in range(8)]
    rows = pixels(png(lines, start=START, end=END))
    assert {value for row in rows for value in row} == {0, 1, INK, *range(RED + 1, RED + 7)}
    assert any(row[x] == INK for row in rows for x in range(LEFT))


@pytest.mark.parametrize("value", [0.0, -1e-9, 1e-3, 2_310_000.0, -1e30, 7.5e11])
@pytest.mark.parametrize("threshold", [None, 0.0, 1e6])
def test_any_number_can_be_drawn(value, threshold):
    rows = pixels(png([line(value)], start=START, end=END, threshold=threshold))
    assert where(rows, RED + 1)[0]


def test_without_a_number_there_is_no_chart():
    with pytest.raises(ValueError, match="no points"):
        png([line(float("nan"), float("inf")), []], start=START, end=END)
