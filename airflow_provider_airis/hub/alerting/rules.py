"""Threshold rules: what they match, how they aggregate, when they hold. Pure; the store decides when to ask them."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Annotated, Literal

import msgspec

from airflow_provider_airis.records import AlertSeverity
from airflow_provider_airis.routes.matching import linear_regex

AGGREGATION = r"^(avg|max|min|sum|count|last|p\d{1,2}(\.\d{1,3})?|p100)$"
Comparator = Literal[">", ">=", "<", "<=", "==", "!="]

# Points older than this, beyond the rule's window, change no alert: a backfill is history, not news.
FRESH_MS = 900_000
# Tags that tell apart aggregates of one thing, not things.
_NOT_GROUPING = frozenset({"statistic", "period_s"})

_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}
_AGGREGATE: dict[str, Callable[[Sequence[float]], float]] = {
    "avg": lambda values: sum(values) / len(values),
    "max": max,
    "min": min,
    "sum": sum,
    "count": len,
    "last": lambda values: values[-1],
}

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
_Seconds = Annotated[int, msgspec.Meta(ge=0, le=7 * 86_400)]


class SourceMatcher(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A condition on the source. ``=~`` is a regular expression that must match the whole."""

    op: Literal["=", "!=", "=~"]
    value: str

    def __post_init__(self) -> None:
        if self.op == "=~":
            linear_regex(self.value)

    def holds(self, value: str) -> bool:
        """Whether a value satisfies it."""
        if self.op == "=~":
            return linear_regex(self.value)(value)
        return (value == self.value) == (self.op == "=")


class Matcher(SourceMatcher, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A condition on a tag; a tag that is not there is empty."""

    tag: str


class RuleBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A rule as it is sent.

    :param window_s: the values within so many seconds up to the newest point are aggregated.
    :param for_s: seconds, in the points' own time, that the condition must hold before it fires.
    :param by: tags, and ``source``, that make a group; all but ``statistic`` and ``period_s`` unless given.
    :param labels: the alert's ``environment``, ``model_id``, ``alert_type`` and ``description``, further tags;
        ``{tag}`` stands for a tag's value, ``{source}``, ``{value}`` and ``{threshold}`` for what they say.
    """

    id: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{1,128}$")] | None = None
    name: _Name
    metric: _Name
    matchers: list[Matcher] = []
    source: SourceMatcher | None = None
    aggregation: Annotated[str, msgspec.Meta(pattern=AGGREGATION)]
    window_s: Annotated[int, msgspec.Meta(ge=1, le=7 * 86_400)]
    comparator: Comparator
    threshold: float
    for_s: _Seconds = 0
    severity: AlertSeverity
    by: list[str] | None = None
    labels: dict[str, str] = {}


class Rule(RuleBody, frozen=True, forbid_unknown_fields=True, kw_only=True, dict=True):
    """A rule that has its id."""

    id: str

    @cached_property
    def window_ms(self) -> int:
        """The window in milliseconds."""
        return self.window_s * 1000

    @cached_property
    def horizon_ms(self) -> int:
        """Age from which on points change no alert."""
        return FRESH_MS + self.window_ms

    def matches(self, source: str, name: str, tags: Mapping[str, str]) -> bool:
        """Whether a series is meant."""
        return (
            name == self.metric
            and (self.source is None or self.source.holds(source))
            and all(matcher.holds(tags.get(matcher.tag, "")) for matcher in self.matchers)
        )

    def group(self, source: str, tags: Mapping[str, str]) -> tuple[str, dict[str, str]]:
        """Source and tags of the group that a series belongs to; each group has an alert of its own."""
        if self.by is None:
            return source, {key: value for key, value in tags.items() if key not in _NOT_GROUPING}
        return source if "source" in self.by else "", {key: tags[key] for key in sorted(self.by) if key in tags}

    def holds(self, value: float) -> bool:
        """Whether the condition holds for an aggregate."""
        return _COMPARE[self.comparator](value, self.threshold)

    def label(self, name: str, values: Mapping[str, str]) -> str | None:
        """A label with its placeholders filled in; an unknown placeholder stays as it is."""
        text = self.labels.get(name)
        return text if text is None else re.sub(r"\{(\w+)\}", lambda found: values.get(found[1], found[0]), text)


def aggregate(values: Sequence[float], aggregation: str) -> float:
    """One number from the values of a window, oldest first; a percentile is interpolated between neighbours."""
    if aggregation in _AGGREGATE:
        return float(_AGGREGATE[aggregation](values))
    ordered = sorted(values)
    place = (len(ordered) - 1) * float(aggregation[1:]) / 100
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)
