"""Reads a routing file: Alertmanager's words, every mistake with its line."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import yaml  # type: ignore[import-untyped]

from airflow_provider_airis.catalog import SYSTEMS
from airflow_provider_airis.errors import PermanentError
from airflow_provider_airis.routes.matching import InhibitRule, Matcher, parse_matchers
from airflow_provider_airis.routes.times import TimeInterval, format_duration, parse_duration, parse_range, parse_time
from airflow_provider_airis.routes.tree import ALL, Integration, Problem, Receiver, Route, Routes, route_key

Node = Any
T = TypeVar("T")

CHANNELS = {system.stem: system.channel for system in SYSTEMS if system.channel}
DURATIONS = ("group_wait", "group_interval", "repeat_interval")
INTERVALS = ("active_time_intervals", "mute_time_intervals")
_FILE = ("route", "receivers", "inhibit_rules", "time_intervals")
_ROUTE = ("receiver", "group_by", *DURATIONS, "matchers", "continue", "routes", *INTERVALS)
_INHIBIT = ("source_matchers", "target_matchers", "equal")
_TIMES = ("times", "weekdays", "days_of_month", "months", "years", "location")
_BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_HINTS = {
    "match": "write matchers: ['name=\"value\"']",
    "match_re": "write matchers: ['name=~\"regex\"']",
    "source_match": "write source_matchers",
    "source_match_re": "write source_matchers",
    "target_match": "write target_matchers",
    "target_match_re": "write target_matchers",
    "global": "connections hold what is said there",
    "templates": "the messages are not templates here",
}
MOST_ROUTES = 10_000
MOST_NODES = 200_000
MOST_PROBLEMS = 100


class RoutesError(PermanentError):
    """A routing file that cannot be used.

    :param problems: all that is wrong with it, in the order of lines.
    """

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


def read(path: str | Path) -> Routes:
    """Read a routing file.

    :raises RoutesError: it cannot be read, or says what is not understood; names every such line.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RoutesError((Problem(str(path), 1, f"the file cannot be read: {reason}"),)) from error
    return parse(text, str(path))


def parse(text: str, name: str = "routes") -> Routes:
    """Read a routing file's text.

    :param name: what errors call it.
    :raises RoutesError: names every line that is wrong.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        message = f"this is no YAML: {getattr(error, 'problem', None) or error}"
        raise RoutesError((Problem(name, mark.line + 1 if mark else 1, message),)) from error
    except RecursionError as error:
        raise RoutesError((Problem(name, 1, "this is nested deeper than any route is"),)) from error
    reader = _Reader(name)
    routes = reader.file(root)
    if reader.problems or routes is None:
        raise RoutesError(tuple(sorted(reader.problems, key=lambda problem: problem.line)))
    return replace(routes, warnings=tuple(reader.warnings))


@dataclass
class _Reader:
    """Walks YAML's nodes, which know their lines. What is wrong is written down, and reading goes on without it."""

    name: str
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    receivers: dict[str, Receiver] = field(default_factory=dict)
    intervals: dict[str, tuple[TimeInterval, ...]] = field(default_factory=dict)
    keys: dict[str, int] = field(default_factory=dict)
    above: list[int] = field(default_factory=list)
    count: int = 0
    nodes: int = 0

    def wrong(self, node: Node, message: str) -> None:
        """Write down what is wrong at a node."""
        problem = Problem(self.name, node.start_mark.line + 1 if node else 1, message)
        if problem not in self.problems and len(self.problems) < MOST_PROBLEMS:
            self.problems.append(problem)

    def warn(self, node: Node, message: str) -> None:
        """Write down what is most likely not meant."""
        self.warnings.append(Problem(self.name, node.start_mark.line + 1, message))

    # What YAML has

    def mapping(self, node: Node, what: str, allowed: tuple[str, ...]) -> dict[str, Node]:
        """Key → node of a mapping whose keys are known; without those that are empty."""
        if not isinstance(node, yaml.MappingNode):
            self.wrong(node, f"{what} is a mapping of {', '.join(allowed)}")
            return {}
        found: dict[str, Node] = {}
        for key, value in node.value:
            word = str(key.value) if isinstance(key, yaml.ScalarNode) else "?"
            if word not in allowed:
                hint = f"; {_HINTS[word]}" if word in _HINTS else ""
                self.wrong(key, f"{what} has no {word!r}{hint}. It has {', '.join(allowed)}")
            elif word in found:
                self.wrong(key, f"{what} has {word!r} twice")
            else:
                found[word] = value
        return {word: value for word, value in found.items() if not _empty(value)}

    def sequence(self, node: Node, what: str) -> list[Node]:
        """The nodes of a list."""
        if node is None:
            return []
        if not isinstance(node, yaml.SequenceNode):
            self.wrong(node, f"{what} is a list, written [a, b] or a line - each")
            return []
        self.nodes += len(node.value)
        if self.nodes > MOST_NODES:  # which takes aliases of aliases
            self.wrong(node, f"the file has more than {MOST_NODES:,} entries in its lists")
            return []
        return list(node.value)

    def text(self, node: Node, what: str) -> str:
        """A word; empty, and written down, where it is none."""
        if isinstance(node, yaml.ScalarNode) and not _empty(node) and node.value:
            return str(node.value)
        self.wrong(node, f"{what} is a word that is not empty")
        return ""

    def texts(self, node: Node, what: str) -> list[tuple[Node, str]]:
        """The words of a list, each with its node."""
        return [(item, word) for item in self.sequence(node, what) if (word := self.text(item, f"each of {what}"))]

    def boolean(self, node: Node, what: str, *, default: bool) -> bool:
        """True or false."""
        if node is None:
            return default
        if not isinstance(node, yaml.ScalarNode) or node.tag != "tag:yaml.org,2002:bool":
            self.wrong(node, f"{what} is true or false")
            return default
        return _BOOLEANS[node.value.lower()]

    def parsed(self, node: Node, what: str, parser: Callable[[str], T]) -> T | None:
        """What a parser makes of a word; None, and written down, if it refuses."""
        try:
            word = self.text(node, what)
            return parser(word) if word else None
        except ValueError as error:
            self.wrong(node, f"{what}: {error}")
            return None

    def named(self, node: Node, what: str, allowed: tuple[str, ...]) -> Iterator[tuple[str, Node, dict[str, Node]]]:
        """The mappings of a list that have a name, which is unique."""
        names: set[str] = set()
        for item in self.sequence(node, f"{what}s"):
            fields = self.mapping(item, f"a {what}", allowed)
            if "name" not in fields:
                self.wrong(item, f"a {what} needs a name")
                continue
            name = self.text(fields["name"], f"a {what}'s name")
            if name in names:
                self.wrong(fields["name"], f"there is another {what} {name!r}")
            names.add(name)
            yield name, item, fields

    # What Alertmanager has

    def file(self, node: Node) -> Routes | None:
        """The whole file."""
        if _empty(node):
            self.wrong(node, "the file is empty; it needs a route with a receiver, and receivers")
            return None
        fields = self.mapping(node, "the file", _FILE)
        for name, item, interval in self.named(
            fields.get("time_intervals"), "time interval", ("name", "time_intervals")
        ):
            if "time_intervals" not in interval:
                self.wrong(item, f"the time interval {name!r} needs time_intervals, a list of {', '.join(_TIMES)}")
            parts = self.sequence(interval.get("time_intervals"), "time_intervals")
            self.intervals[name] = tuple(self.interval(part) for part in parts)
        configs = tuple(f"{stem}_configs" for stem in CHANNELS)
        for name, _, receiver in self.named(fields.get("receivers"), "receiver", ("name", *configs)):
            self.receivers[name] = Receiver(name, tuple(self.integrations(name, receiver)))
        rules = self.sequence(fields.get("inhibit_rules"), "inhibit_rules")
        inhibit_rules = tuple(self.inhibit_rule(rule) for rule in rules)
        if "route" not in fields:
            self.wrong(node, "the file needs a route: the root, with a receiver, that every alert takes")
            return None
        root = self.root(fields["route"])
        return None if root is None else Routes(root, self.receivers, inhibit_rules, self.intervals)

    def integrations(self, name: str, fields: Mapping[str, Node]) -> Iterator[Integration]:
        """Where a receiver is told."""
        seen: set[tuple[str, str]] = set()
        for stem, channel in CHANNELS.items():
            what = f"{stem}_configs"
            for item in self.sequence(fields.get(what), what):
                config = self.mapping(item, f"each of {what}", ("target", "send_resolved"))
                target = self.text(config["target"], "target") if "target" in config else channel.target
                if (stem, target) in seen:
                    self.wrong(item, f"the receiver {name!r} has {stem} with the target {target!r} twice")
                seen.add((stem, target))
                yield Integration(
                    stem, target, self.boolean(config.get("send_resolved"), "send_resolved", default=True)
                )

    def inhibit_rule(self, node: Node) -> InhibitRule:
        """A rule of inhibition."""
        fields = self.mapping(node, "an inhibit rule", _INHIBIT)
        source, target = (self.matchers(fields.get(side), side) for side in _INHIBIT[:2])
        if not source or not target:
            self.warn(
                node, "an inhibit rule without source_matchers or target_matchers takes every alert for that side"
            )
        return InhibitRule(source, target, tuple(word for _, word in self.texts(fields.get("equal"), "equal")))

    def matchers(self, node: Node, what: str) -> tuple[Matcher, ...]:
        """A list of matchers."""
        parsed = [self.parsed(item, what, parse_matchers) for item in self.sequence(node, what)]
        return tuple(matcher for matchers in parsed for matcher in matchers or ())

    def interval(self, node: Node) -> TimeInterval:
        """One entry of a time interval."""
        fields = self.mapping(node, "each of time_intervals", _TIMES)
        times = []
        for item in self.sequence(fields.get("times"), "times"):
            ends = self.mapping(item, "each of times", ("start_time", "end_time"))
            if len(ends) < 2:
                self.wrong(item, "each of times needs start_time and end_time, both HH:MM")
                continue
            begin, end = (self.parsed(ends[key], key, parse_time) for key in ("start_time", "end_time"))
            if begin is not None and end is not None:
                times.append((begin, end))
                if begin >= end:
                    self.wrong(item, "start_time is before end_time; a night is two: 22:00 to 24:00, 00:00 to 06:00")
        ranges = {kind: tuple(self.ranges(fields.get(kind), kind)) for kind in _TIMES[1:-1]}
        zone = self.parsed(fields["location"], "location", _zone) if "location" in fields else None
        return TimeInterval(tuple(times), location=zone, **ranges)

    def ranges(self, node: Node, kind: str) -> Iterator[tuple[int, int]]:
        """The ranges of one kind."""
        for item in self.sequence(node, kind):
            ends = self.parsed(item, kind, lambda text: parse_range(text, kind))
            if ends is not None:
                yield ends

    def root(self, node: Node) -> Route | None:
        """The root, and the tree below it."""
        given = {key.value for key, _ in node.value} if isinstance(node, yaml.MappingNode) else set()
        for word in ("matchers", "continue", *INTERVALS):
            if word in given:
                at = next(key for key, _ in node.value if key.value == word)
                self.wrong(at, f"the root route has no {word}, since every alert takes it")
        if "receiver" not in given:
            self.wrong(node, "the root route needs a receiver")
        nobody = Receiver("")
        wait, interval, repeat = 30_000, 300_000, 14_400_000
        return self.route(node, Route("", nobody, (), wait, interval, repeat))

    def route(self, node: Node, parent: Route) -> Route | None:
        """A route that inherits from its parent what it does not say."""
        self.count += 1
        if id(node) in self.above or self.count > MOST_ROUTES:
            self.wrong(node, f"a route is inside of itself, or there are more than {MOST_ROUTES:,} routes")
            return None
        fields = self.mapping(node, "a route", _ROUTE)
        matchers = self.matchers(fields.get("matchers"), "matchers")
        route = replace(
            parent,
            key=route_key(parent.key, matchers),
            matchers=matchers,
            goes_on=self.boolean(fields.get("continue"), "continue", default=False),
            receiver=self.receiver(fields["receiver"]) if "receiver" in fields else parent.receiver,
            group_by=self.group_by(fields.get("group_by")) or parent.group_by,
            active_time_intervals=self.interval_names(fields, INTERVALS[0]),
            mute_time_intervals=self.interval_names(fields, INTERVALS[1]),
            line=node.start_mark.line + 1,
            **self.durations(fields, parent),
        )
        if route.repeat_interval < route.group_interval and {"repeat_interval", "group_interval"} & fields.keys():
            self.warn(
                fields.get("repeat_interval") or fields["group_interval"],
                f"repeat_interval ({format_duration(route.repeat_interval)}) is shorter than group_interval "
                f"({format_duration(route.group_interval)}), so that it repeats every group_interval",
            )
        if route.key in self.keys and not (matchers == () and parent.key == ""):
            self.warn(node, f"the route at line {self.keys[route.key]} has the same matchers; they share their groups")
        self.keys.setdefault(route.key, route.line)
        self.above.append(id(node))
        below = [self.route(item, route) for item in self.sequence(fields.get("routes"), "routes")]
        self.above.pop()
        return replace(route, routes=tuple(child for child in below if child))

    def receiver(self, node: Node) -> Receiver:
        """The receiver of a name."""
        name = self.text(node, "receiver")
        if name and name not in self.receivers:
            self.wrong(node, f"there is no receiver {name!r}. There are: {', '.join(self.receivers) or 'none'}")
        return self.receivers.get(name, Receiver(name))

    def group_by(self, node: Node) -> tuple[str, ...]:
        """Names of labels."""
        names = [name for _, name in self.texts(node, "group_by")]
        if ALL in names and len(names) > 1:
            self.wrong(node, f"group_by is {ALL} alone, or names of labels")
        for name in sorted({name for name in names if names.count(name) > 1}):
            self.wrong(node, f"group_by has {name!r} twice")
        return tuple(sorted(names))

    def durations(self, fields: Mapping[str, Node], parent: Route) -> dict[str, Any]:
        """What a route says of times, in ms, or inherits."""
        said: dict[str, Any] = {}
        for word in DURATIONS:
            value = self.parsed(fields[word], word, parse_duration) if word in fields else None
            if value == 0 and word != "group_wait":
                self.wrong(fields[word], f"{word} is longer than 0s")
            said[word] = int(getattr(parent, word)) if value is None else value
        return said

    def interval_names(self, fields: Mapping[str, Node], word: str) -> tuple[str, ...]:
        """Names of time intervals that there are."""
        names = self.texts(fields.get(word), word)
        for node, name in names:
            if name not in self.intervals:
                self.wrong(
                    node, f"there is no time interval {name!r}. There are: {', '.join(self.intervals) or 'none'}"
                )
        return tuple(name for _, name in names)


def _empty(node: Node) -> bool:
    return node is None or node.tag == "tag:yaml.org,2002:null"


def _zone(name: str) -> ZoneInfo:
    # Alertmanager takes "Local", the zone of its machine; workers may have several.
    if not re.fullmatch(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*", name):
        raise ValueError(f"{name!r} is no time zone; one looks like Europe/Berlin or UTC")
    try:
        return ZoneInfo(name)
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(f"{name!r} is no time zone; one looks like Europe/Berlin or UTC") from error
