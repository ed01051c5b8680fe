"""What a routing file says, once it is read: receivers, routes with what they inherit, and who gets what."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import get_args

from airflow_provider_airis.catalog import SYSTEMS
from airflow_provider_airis.records import AlertSeverity
from airflow_provider_airis.routes.matching import InhibitRule, Labels, Matcher, label_name, match_all, quoted
from airflow_provider_airis.routes.times import TimeInterval, format_duration

ALL = "..."


@dataclass(frozen=True)
class Integration:
    """One of the places that a receiver is told at.

    :param channel: stem of an outbound system of the catalog.
    :param target: whom within it.
    :param send_resolved: whether it is told of an alert's end.
    """

    channel: str
    target: str
    send_resolved: bool = True


@dataclass(frozen=True)
class Receiver:
    """Who is told; nobody, if there is no integration."""

    name: str
    integrations: tuple[Integration, ...] = ()


@dataclass(frozen=True)
class Route:
    """A node of the tree, with what it inherits filled in.

    :param key: the matchers from the root down to it, as Alertmanager writes them; the same in every reading of a file.
    :param group_by: names of labels, sorted; ``("...",)`` for all of them.
    :param group_wait: ms, as are ``group_interval`` and ``repeat_interval``.
    :param goes_on: its ``continue``: whether the siblings after it are asked too.
    :param line: where it stands in its file, from 1.
    """

    key: str
    receiver: Receiver
    group_by: tuple[str, ...]
    group_wait: int
    group_interval: int
    repeat_interval: int
    matchers: tuple[Matcher, ...] = ()
    goes_on: bool = False
    routes: tuple[Route, ...] = ()
    active_time_intervals: tuple[str, ...] = ()
    mute_time_intervals: tuple[str, ...] = ()
    line: int = 1

    def match(self, labels: Labels) -> list[Route]:
        """The deepest routes that fit, in the file's order; of siblings the first only, unless it says ``continue``."""
        if not match_all(self.matchers, labels):
            return []
        found: list[Route] = []
        for route in self.routes:
            below = route.match(labels)
            found += below
            if below and not route.goes_on:
                break
        return found or [self]

    def group_labels(self, labels: Labels) -> dict[str, str]:
        """By which labels, and values of them, an alert is grouped; one that it does not have is none of them."""
        names = labels if self.group_by == (ALL,) else [name for name in self.group_by if name in labels]
        return {name: labels[name] for name in sorted(names)}

    def group_key(self, labels: Labels) -> str:
        """What names an alert's group: the route's key and the group's labels, as Alertmanager writes them."""
        inside = ", ".join(f"{label_name(name)}={quoted(value)}" for name, value in self.group_labels(labels).items())
        return f"{self.key}:{{{inside}}}"

    def walk(self, depth: int = 0) -> Iterator[tuple[int, Route]]:
        """The route and those below it, with their depth, in the file's order."""
        yield depth, self
        for route in self.routes:
            yield from route.walk(depth + 1)


def route_key(parent: str, matchers: Iterable[Matcher]) -> str:
    """A route's key, from its parent's; the root's parent is the empty one."""
    inside = ",".join(
        map(str, sorted(matchers, key=lambda one: (one.name, one.value, ("=", "!=", "=~", "!~").index(one.operator))))
    )
    return f"{parent}/{{{inside}}}" if parent else "{}"


@dataclass(frozen=True)
class Problem:
    """Something in a routing file, at a line from 1, that is wrong, or a warning."""

    name: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.name}:{self.line}: {self.message}"


@dataclass(frozen=True)
class Routes:
    """A routing file, read; see :meth:`match` for where an alert goes.

    :param route: the root, which fits every alert.
    :param warnings: what is allowed, and most likely not meant.
    """

    route: Route
    receivers: Mapping[str, Receiver]
    inhibit_rules: tuple[InhibitRule, ...] = ()
    time_intervals: Mapping[str, tuple[TimeInterval, ...]] | None = None
    warnings: tuple[Problem, ...] = ()

    @classmethod
    def read(cls, path: str | Path) -> Routes:
        """Read a routing file.

        :raises RoutesError: it cannot be read, or says what is not understood; names every such line.
        """
        from airflow_provider_airis.routes.config import read

        return read(path)

    @classmethod
    def parse(cls, text: str, name: str = "routes") -> Routes:
        """Read a routing file's text.

        :param name: what errors call it.
        :raises RoutesError: names every line that is wrong.
        """
        from airflow_provider_airis.routes.config import parse

        return parse(text, name)

    @classmethod
    def default(cls, options: Mapping[str, tuple[str, Iterable[str]]] | None = None) -> Routes:
        """What holds without a file; see :func:`default_text`."""
        return cls.parse(default_text(options), "default")

    def match(self, labels: Labels) -> list[Route]:
        """The routes that an alert with these labels takes, at least one."""
        return self.route.match(labels)

    def muted(self, route: Route, at: datetime) -> bool:
        """Whether a route sends nothing at a time: outside of its active time intervals, or inside one that mutes.

        :param at: an aware datetime.
        """
        active, mute = route.active_time_intervals, route.mute_time_intervals
        return (bool(active) and not self._inside(active, at)) or self._inside(mute, at)

    def _inside(self, names: Iterable[str], at: datetime) -> bool:
        return any(at in interval for name in names for interval in (self.time_intervals or {})[name])

    def inhibits(self, firing: Iterable[Labels]) -> Callable[[Labels], bool]:
        """Whether an alert's labels are inhibited while these alerts fire, to be asked of many alerts."""
        alerts = list(firing)
        asked = [rule.inhibits(alerts) for rule in self.inhibit_rules]
        return lambda labels: any(inhibited(labels) for inhibited in asked)

    def inhibited(self, labels: Labels, firing: Iterable[Labels]) -> bool:
        """Whether an alert with these labels is inhibited while alerts with those fire."""
        return self.inhibits(firing)(labels)

    def __str__(self) -> str:
        """The tree, a route a line, each with what it says and what it has inherited."""
        rows = [(f"{'  ' * depth}{_title(route)}", _settings(route)) for depth, route in self.route.walk()]
        width = max(len(title) for title, _ in rows)
        return "\n".join(f"{title.ljust(width)}  {settings}" for title, settings in rows)


def _title(route: Route) -> str:
    return " ".join(map(str, route.matchers)) or "every alert"


def _settings(route: Route) -> str:
    receiver, places = route.receiver, route.receiver.integrations
    told = ", ".join(f"{place.channel} {place.target}" for place in places) or "nobody"
    grouped = ", ".join(route.group_by) or "nothing"
    times = {"wait": route.group_wait, "interval": route.group_interval, "repeat": route.repeat_interval}
    waits = ", ".join(f"{word} {format_duration(ms)}" for word, ms in times.items())
    more = [
        f"{word} {', '.join(names)}"
        for word, names in (("active", route.active_time_intervals), ("muted", route.mute_time_intervals))
        if names
    ]
    return "; ".join([f"-> {receiver.name} ({told})", f"by {grouped}", waits, *more, *["continue"] * route.goes_on])


def default_text(options: Mapping[str, tuple[str, Iterable[str]]] | None = None) -> str:
    """The routing file for what holds without one: each alert by itself, at once, to the systems of its severity.

    :param options: stem → (target, severities) of outbound systems, where they differ from the catalog.
    """
    rows = {row.stem: (row.channel.target, row.channel.severities) for row in SYSTEMS if row.channel}
    told = {
        stem: (target, [severity for severity in severities if severity in get_args(AlertSeverity)])
        for stem, (target, severities) in (rows | dict(options or {})).items()
    }
    receivers = chain.from_iterable(
        (f"  - name: {stem}", f"    {stem}_configs:", f"      - target: {quoted(target)}")
        for stem, (target, severities) in told.items()
        if severities
    )
    routes = chain.from_iterable(
        (
            f"    - receiver: {stem}",
            f"      matchers: ['severity=~{quoted('|'.join(severities))}']",
            "      continue: true",
        )
        for stem, (_, severities) in told.items()
        if severities
    )
    lines = [
        "route:",
        "  receiver: nobody",
        "  group_by: [alert_id]",
        "  group_wait: 0s",
        "  group_interval: 1s",
        "  repeat_interval: 1y",
        *(["  routes:", *routes] if any(severities for _, severities in told.values()) else []),
        "receivers:",
        "  - name: nobody",
        *receivers,
    ]
    return "\n".join(lines) + "\n"
