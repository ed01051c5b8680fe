"""The pictures of the docs: what is written in a box stays inside it, whatever font a reader has."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

ROOT = Path(__file__).resolve().parents[2]
SVG = "{http://www.w3.org/2000/svg}"
# Of DejaVu Sans, among the widest that browsers fall back to: em a character of plain English.
EM = {"t": 0.69, "s": 0.54, "m": 0.602}
PICTURES = sorted((ROOT / "docs" / "images").glob("*.svg"))


def boxes_and_texts(
    picture: Path,
) -> tuple[list[tuple[float, float, float, float]], list[tuple[str, ET.Element, float]]]:
    root = ET.parse(picture).getroot()
    style = root.findtext(f"{SVG}style") or ""
    sizes = {name: float(size) for name, size in re.findall(r"\.(\w+) \{ font-size: ([\d.]+)px", style)}
    boxes = [
        (x, y, x + width, y + height)
        for x, y, width, height in (
            [float(rect.get(name, "0")) for name in ("x", "y", "width", "height")] for rect in root.iter(f"{SVG}rect")
        )
    ]
    return boxes, [
        (text.text or "", text, EM[kind] * sizes[kind])
        for text in root.iter(f"{SVG}text")
        if (kind := text.get("class", "")) in EM and kind in sizes
    ]


@pytest.mark.parametrize("picture", [p for p in PICTURES if "latency" not in p.name], ids=lambda picture: picture.stem)
def test_what_is_written_in_a_box_stays_inside_it(picture: Path) -> None:
    boxes, texts = boxes_and_texts(picture)
    assert texts
    for words, text, character in texts:
        x, y = float(text.get("x", "0")), float(text.get("y", "0"))
        width = len(words) * character
        left = x - width if text.get("text-anchor") == "end" else x
        around = [box for box in boxes if box[0] <= x <= box[2] and box[1] <= y <= box[3]]
        assert around, words
        inner = min(around, key=lambda box: (box[2] - box[0]) * (box[3] - box[1]))
        assert inner[0] <= left, words
        assert left + width <= inner[2], words


@pytest.mark.parametrize("name", ["flow", "inside"])
def test_a_phone_has_a_picture_in_which_the_hub_is_whole_and_letters_are_legible(name: str) -> None:
    for scheme in ("light", "dark"):
        root = ET.parse(ROOT / "docs" / "images" / f"{name}-narrow-{scheme}.svg").getroot()
        assert int(root.get("viewBox", "").split()[2]) <= 360
        assert {"AIRIS-MON", "Hub"} & {text.text for text in root.iter(f"{SVG}text")}
    css = (ROOT / "docs" / "_static" / "pages.css").read_text()
    assert re.search(r"max-width: [\d.]+em\) \{ article \.picture img\.wide \{ display: none !important; \} \}", css)
