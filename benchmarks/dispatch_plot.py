"""The picture of where an alert's time goes: ``python -m benchmarks.dispatch_plot``, from benchmarks/results.json.

It writes docs/images/latency-light.svg; ``python -m docs.tables`` makes the dark one of it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from html import escape
from pathlib import Path

WIDTH, LEFT, TOP, ROW = 720, 262, 40, 34
PARTS = {
    "trigger": ("the trigger hears of it", "hub"),
    "triggerer": ("the triggerer ends wait", "airflow"),
    "scheduler": ("the scheduler queues deliver", "airflow"),
    "start": ("a worker starts its process", "airflow"),
    "import": ("the process reads the Dag file", "airflow"),
    "request": ("it asks the hub, then the receiver", "hub"),
}
STYLE = """text { font: 13px -apple-system, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; fill: #1f2328 }
.s { fill: #59636e } .l { stroke: #d0d7de } .airflow { fill: #1f4fbf } .hub { fill: #b3431a }"""


def picture(parts: Mapping[str, float]) -> str:
    """Each part a bar that begins where the one before ends; blue is Airflow's share, red ours."""
    total = sum(parts.values())
    seconds = max(1, math.ceil(total))
    scale = (WIDTH - LEFT - 60) / seconds
    bottom = TOP + ROW * len(PARTS)
    said = "; ".join(f"{PARTS[name][0]}: {value:.2f} s" for name, value in parts.items())
    box = f'viewBox="0 0 {WIDTH} {bottom + 46}" role="img" aria-labelledby="t d"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {box}>',
        '<title id="t">Where the time of an alert goes while the loop sleeps</title>',
        f'<desc id="d">Medians, one after the other. {escape(said)}; together {total:.1f} s.</desc>',
        f"<style>\n{STYLE}\n</style>",
    ]
    for second in range(seconds + 1):
        x = LEFT + second * scale
        lines.append(f'<line class="l" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 8}" y2="{bottom}"/>')
        lines.append(f'<text class="s" x="{x:.1f}" y="{TOP - 16}" text-anchor="middle">{second} s</text>')
    at = float(LEFT)
    for row, (name, value) in enumerate(parts.items()):
        label, whose = PARTS[name]
        y, width = TOP + row * ROW, max(2.0, value * scale)
        lines.append(f'<text x="{LEFT - 14}" y="{y + 18}" text-anchor="end">{escape(label)}</text>')
        lines.append(f'<rect class="{whose}" x="{at:.1f}" y="{y + 2}" width="{width:.1f}" height="{ROW - 12}" rx="3"/>')
        lines.append(f'<text class="s" x="{at + width + 7:.1f}" y="{y + 18}">{value:.2f}</text>')
        at += value * scale
    lines.append(f'<rect class="airflow" x="{LEFT}" y="{bottom + 22}" width="14" height="14" rx="3"/>')
    lines.append(f'<text x="{LEFT + 21}" y="{bottom + 34}">Airflow</text>')
    lines.append(f'<rect class="hub" x="{LEFT + 92}" y="{bottom + 22}" width="14" height="14" rx="3"/>')
    lines.append(f'<text x="{LEFT + 113}" y="{bottom + 34}">this package and the hub</text>')
    return "\n".join([*lines, "</svg>", ""])


if __name__ == "__main__":
    root = Path(__file__).resolve().parents[1]
    found = json.loads((root / "benchmarks/results.json").read_text())
    (root / "docs/images/latency-light.svg").write_text(picture(found["dispatch"]["asleep"]["parts"]))
