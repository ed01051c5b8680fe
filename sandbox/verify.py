"""Compares, point for point, what the SageMaker stand-in has published with what the hub holds."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import httpx2
import msgspec

from airflow_provider_airis.records import Window, iso

Series = tuple[str, str, frozenset[tuple[str, str]]]
EXAMPLES = 5
SLICE_S = 6 * 3600


@dataclass
class Tally:
    """What the comparison found; ``examples`` names the first points that are wrong.

    :param missing: published, and not in the hub with this value.
    :param doubled: in the hub once more, or never published.
    """

    published: int = 0
    in_hub: int = 0
    missing: int = 0
    doubled: int = 0
    series: int = 0
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


def compare(stand_in: str, hub: httpx2.Client, windows: Iterable[Window]) -> Tally:
    """Compare every series over every window.

    :param stand_in: address of ``sandbox.sagemaker``.
    :param hub: a client of the hub with a token that may read.
    """
    tally = Tally()
    with httpx2.Client(base_url=stand_in, timeout=300) as source:
        for window in (part for whole in windows for part in whole.split(SLICE_S)):
            span = {"from": iso(window.start), "to": iso(window.end)}
            with source.stream("GET", "/_sandbox/truth", params=span) as lines:
                truth = dict(map(_published, lines.iter_lines()))
            held: dict[Series, list[tuple[int, float]]] = defaultdict(list)
            for series, points in _held(hub, window):
                held[series] += points
            for series in truth.keys() | held.keys():
                tally.add(series, truth.get(series, {}), held[series])
    return tally


def _published(line: str) -> tuple[Series, dict[int, float]]:
    series = msgspec.json.decode(line)
    dimensions = series["dimensions"]
    tags = {
        **{re.sub(r"\B([A-Z])", r"_\1", name).lower(): value for name, value in dimensions.items()},
        "dimensions": "/".join(dimensions),
        "account_id": series["account"],
        "cloud_provider": "aws",
        "service": "sagemaker",
        "region": series["region"],
        "statistic": series["statistic"],
        "period_s": "60",
    }
    owner = dimensions.get("EndpointName") or dimensions["InferenceComponentName"]
    key = f"aws-sagemaker-{owner}", series["metric"].lower(), frozenset(tags.items())
    return key, dict(series["points"])


def _held(hub: httpx2.Client, window: Window) -> Iterator[tuple[Series, list[tuple[int, float]]]]:
    answer = hub.get("/api/v1/metrics/query", params={"from": window.start, "to": window.end}, timeout=300)
    if answer.is_error:
        raise RuntimeError(f"the hub answered a query of {window} with {answer.status_code}: {answer.text[:500]}")
    for series in msgspec.json.decode(answer.content)["series"]:
        key = series["source"], series["name"], frozenset(series["tags"].items())
        yield key, [(at, value) for at, value in series["points"]]
