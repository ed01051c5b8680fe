"""Compares, record for record, what a system holds with what the hub does."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx2
import msgspec

from airflow_provider_airis.records import Window, iso

Series = tuple[str, str, frozenset[tuple[str, str]]]
Record = tuple[str, ...]
EXAMPLES = 5
SLICE_S = 6 * 3600


@dataclass
class Tally:
    """What the comparison found; ``examples`` names the first records that are wrong.

    :param missing: published, and not in the hub with this value.
    :param doubled: in the hub once more, or never published.
    :param points: whether points were compared, else other records.
    """

    published: int = 0
    in_hub: int = 0
    missing: int = 0
    doubled: int = 0
    series: int = 0
    points: bool = True
    examples: list[str] = field(default_factory=list)

    def add(self, series: Series, truth: dict[int, float], held: list[tuple[int, float]]) -> None:
        """Count one series."""
        stored = dict(held)
        self.series += 1
        self.published += len(truth)
        self.in_hub += len(held)
        self._note("missing", series, [at for at, value in truth.items() if stored.get(at) != value])
        often = Counter(at for at, _ in held)
        self._note("doubled", series, [at for at, n in often.items() for _ in range(n - (at in truth))])

    def _note(self, fault: str, series: Series, times: list[int]) -> None:
        setattr(self, fault, getattr(self, fault) + len(times))
        source, name, tags = series
        for at in times[: EXAMPLES - len(self.examples)]:
            self.examples.append(f"{fault}: {source} {name} {dict(sorted(tags))} {iso(at)}")


def compare_points(
    hub: httpx2.Client,
    prefix: str,
    windows: Iterable[Window],
    published: Callable[[Window], Iterable[tuple[str, str, dict[str, str], dict[int, float]]]],
) -> Tally:
    """Compare every series of a system over every window.

    :param hub: a client with a token that may read.
    :param prefix: of the system's sources in the hub.
    :param published: source, name, tags and points of the series that the system has in a window.
    """
    tally = Tally()
    for window in (part for whole in windows for part in whole.split(SLICE_S)):
        truth = {(source, name, frozenset(tags.items())): points for source, name, tags, points in published(window)}
        held: dict[Series, list[tuple[int, float]]] = defaultdict(list)
        for series, points in _held(hub, window, prefix):
            held[series] += points
        for series in truth.keys() | held.keys():
            tally.add(series, truth.get(series, {}), held[series])
    return tally


def compare_records(truth: Collection[Record], held: Collection[Record]) -> Tally:
    """What is in one and not in the other, or twice."""
    wanted = set(truth)
    tally = Tally(published=len(wanted), in_hub=len(held), series=len(wanted), points=False)
    missing = wanted.difference(held)
    tally.missing, tally.doubled = len(missing), len(held) - len(wanted & set(held))
    tally.examples = [f"missing: {record}" for record in sorted(missing)[:EXAMPLES]]
    return tally


def lines(url: str, window: Window) -> Iterator[dict[str, Any]]:
    """What ``/_sandbox/truth`` of a fake server has of a window, a series a line."""
    span = {"from": iso(window.start), "to": iso(window.end)}
    with (
        httpx2.Client(base_url=url, timeout=300) as source,
        source.stream("GET", "/_sandbox/truth", params=span) as answer,
    ):
        yield from map(msgspec.json.decode, answer.raise_for_status().iter_lines())


def events(hub: httpx2.Client, prefix: str) -> Iterator[dict[str, Any]]:
    """The feed of events of the sources with a prefix, oldest first."""
    sequence = 0
    while True:
        page = hub.get("/api/v1/events/changes", params={"after": sequence, "limit": 5000}).raise_for_status().json()
        if not page["changes"]:
            return
        sequence = page["sequence"]
        yield from (c["event"] for c in page["changes"] if c["event"]["source"].startswith(prefix))


def _held(hub: httpx2.Client, window: Window, prefix: str) -> Iterator[tuple[Series, list[tuple[int, float]]]]:
    answer = hub.get("/api/v1/metrics/query", params={"from": window.start, "to": window.end}, timeout=300)
    if answer.is_error:
        raise RuntimeError(f"the hub answered a query of {window} with {answer.status_code}: {answer.text[:500]}")
    for series in msgspec.json.decode(answer.content)["series"]:
        if not series["source"].startswith(prefix):
            continue
        key = series["source"], series["name"], frozenset(series["tags"].items())
        yield key, [(at, value) for at, value in series["points"]]
