"""What the demo found: ``report.json``, the tables, and what is not as it must be."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from airflow_provider_airis.catalog import BY_STEM
from sandbox.demo.display import Display
from sandbox.fake import FakeServer
from sandbox.verify import Tally


@dataclass(frozen=True)
class Delivery:
    """What a receiver took.

    :param kind: in the receiver's words.
    :param change: the change of the alert that it tells of; empty for one that tells of none.
    :param at: Unix ms.
    """

    stem: str
    kind: str
    change: str
    at: int


def counted(peers: Iterable[FakeServer], changes: Iterable[str]) -> dict[str, int]:
    """How much each receiver gets of an alert that goes through these changes, by ``<stem>_<what>``."""
    story = list(changes)
    counts: Counter[str] = Counter()
    for peer in peers:
        if peer.inbox:
            counts.update({f"{peer.stem}_{what}": 0 for what in peer.inbox.counts.values()})
            counts.update(f"{peer.stem}_{what}" for change, what in peer.inbox.counts.items() if change in story)
    return dict(counts)


@dataclass
class Report:
    """What ``report.json`` holds; ``deliveries`` are fields of their own there, as ``slack_messages``.

    :param expected: what each of the figures must be, where that is known.
    """

    points_published: int = 0
    points_in_hub: int = 0
    points_missing: int = 0
    points_doubled: int = 0
    backfill_runs: int = 0
    alerts_fired: int = 0
    deliveries: dict[str, int] = field(default_factory=dict)
    dispatch_latency_s: dict[str, float] = field(default_factory=lambda: {"p50": 0.0, "max": 0.0})
    systems: dict[str, dict[str, int]] = field(default_factory=dict)
    setup_s: float = 0.0
    total_s: float = 0.0
    expected: dict[str, int] = field(default_factory=dict)

    @property
    def figures(self) -> dict[str, Any]:
        """As they are written."""
        figures: dict[str, Any] = {}
        for name, value in asdict(self).items():
            figures |= value if name == "deliveries" else {} if name == "expected" else {name: value}
        return figures

    def faults(self) -> list[str]:
        """What is not as it must be, in words."""
        figures = self.figures
        faults = [
            f"{name} is {figures.get(name, 0):,}, not {number}"
            for name, number in {"points_missing": 0, "points_doubled": 0, **self.expected}.items()
            if figures.get(name, 0) != number
        ]
        if self.expected and not self.points_published:
            faults.append("nothing was published")
        for stem, counts in self.systems.items():
            title = BY_STEM[stem].title
            faults += [f"{title}: {counts[wrong]:,} {wrong}" for wrong in ("missing", "doubled") if counts[wrong]]
            faults += [] if counts["published"] else [f"{title} had nothing to read"]
        return faults

    def count(self, tallies: Mapping[str, Tally]) -> None:
        """Take what the comparison found."""
        points = [tally for tally in tallies.values() if tally.points]
        self.points_published = sum(tally.published for tally in points)
        self.points_in_hub = sum(tally.in_hub for tally in points)
        self.points_missing = sum(tally.missing for tally in points)
        self.points_doubled = sum(tally.doubled for tally in points)
        self.systems = {
            stem: {name: getattr(tally, name) for name in ("published", "in_hub", "missing", "doubled")}
            for stem, tally in tallies.items()
        }

    def write(self, directory: Path) -> None:
        """Write ``report.json`` as a whole or not at all."""
        draft = directory / f".report-{os.getpid()}.json"
        draft.write_text(json.dumps(self.figures, indent=2) + "\n")
        draft.replace(directory / "report.json")


def show(display: Display, report: Report, tallies: Mapping[str, Tally]) -> None:
    """The final tables, and what is wrong if anything is."""
    table = Table("figure", "value", title="What the source and the hub say", title_justify="left")
    for name, value in report.figures.items():
        if name == "systems":
            continue
        text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else f"{value:,}"
        table.add_row(name, text)
    display.console.print(table)
    table = Table("system", title="Record for record", title_justify="left")
    for name in ("at the source", "in the hub", "missing", "doubled"):
        table.add_column(name, justify="right")
    for stem, counts in report.systems.items():
        table.add_row(BY_STEM[stem].title, *(f"{count:,}" for count in counts.values()))
    display.console.print(table)
    for fault in [*report.faults(), *(example for tally in tallies.values() for example in tally.examples)]:
        display.say(fault, "bold red")
