"""Which alerts something is about: labels, matchers, inhibition and silences, with Alertmanager's meaning."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from airflow_provider_airis.records import Alert

Labels = Mapping[str, str]
Operator = Literal["=", "!=", "=~", "!~"]

# Longest first: "=~" is not "=" and a value that begins with "~".
OPERATORS: tuple[Operator, ...] = ("=~", "!~", "!=", "=")
_WORD = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_NAME = re.compile(rf'{_WORD.pattern}|"(?:[^"\\]|\\.)*"', re.DOTALL)
_VALUE = re.compile(r'"(?:[^"\\]|\\.)*"|[^\s{}!=~,\\"\'`]+', re.DOTALL)
_ESCAPE = re.compile(r'\\([n"\\])')
_FLAGS = re.compile(r"\(\?([a-zA-Z]*)(-[a-zA-Z]*)?([:)])")
_COUNT = re.compile(r"\{(\d*)(,?)(\d*)\}")
_CLASS = re.compile(r"\[\^?\]?(?:\\.|\[(?!:)|[^\\\]\[])*\]", re.DOTALL)
_RANGE = re.compile(r"(\\x..|\\.|.)(?:-(\\x..|\\.|.))?", re.DOTALL)
# RE2's.
_ASCII = {"d": "0-9", "s": r"\t\n\f\r ", "w": "0-9A-Za-z_"}
MOST_MATCHERS = 100
MOST_REPETITIONS = 1000
# As linear as it is, the time grows with the expression too, above all with what it repeats.
MOST_PARTS = 2_000
MOST_CHARACTERS = 20_000


def labels(alert: Alert) -> dict[str, str]:
    """What matchers and ``group_by`` see of an alert: its tags, and above them the fields that say what it is about.

    These are ``alertname``, ``alert_id``, ``severity``, ``source``, ``model_id``, ``environment``, ``alert_type``.
    An empty one is no label, which to a matcher is the same.
    """
    fields = {
        "alertname": alert.name,
        "alert_id": alert.id,
        "severity": alert.severity,
        "source": alert.source,
        "model_id": alert.model_id,
        "environment": alert.environment,
        "alert_type": alert.alert_type,
    }
    merged = alert.tags | {name: value for name, value in fields.items() if value}
    return {name: value for name, value in merged.items() if value}


def quoted(text: str) -> str:
    """In double quotes, as Alertmanager writes label values."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def label_name(name: str) -> str:
    """A label's name as matchers and keys have it: in double quotes, unless it is a plain word."""
    return name if _WORD.fullmatch(name) else quoted(name)


@dataclass(frozen=True)
class Matcher:
    """A condition on one label. A label that an alert does not have is the empty string.

    :param operator: ``=~`` and ``!~`` compare the whole value with a regular expression.
    :raises ValueError: the expression is none, or means one thing here and another to Alertmanager.
    """

    name: str
    operator: Operator
    value: str

    def __post_init__(self) -> None:
        if "~" in self.operator:
            linear_regex(self.value)

    def matches(self, labels: Labels) -> bool:
        """Whether the condition holds."""
        value = labels.get(self.name, "")
        equal = linear_regex(self.value)(value) if "~" in self.operator else value == self.value
        return equal is not self.operator.startswith("!")

    def __str__(self) -> str:
        return f"{label_name(self.name)}{self.operator}{quoted(self.value)}"


def alike(alert: Alert) -> list[Matcher]:
    """Conditions that an alert meets, and its like when it comes back, under another id or severity."""
    its = labels(alert)
    return [Matcher(name, "=", its[name]) for name in sorted(its) if name not in ("alert_id", "severity")]


def match_all(matchers: Iterable[Matcher], labels: Labels) -> bool:
    """Whether every condition holds; so it does if there is none."""
    return all(matcher.matches(labels) for matcher in matchers)


def parse_matchers(text: str) -> list[Matcher]:
    r"""Conditions in Alertmanager's syntax: ``severity=~"critical|high", team="ml"``, in braces or not.

    A value is in double quotes, where ``\"``, ``\\`` and ``\n`` are escapes and any other backslash is itself.
    Without quotes it has no blank, and none of ``{}!=~,"'`` or backquote and backslash.

    :raises ValueError: says what is wrong, and what is right.
    """
    rest = text.strip()
    if rest.startswith("{"):
        if not rest.endswith("}"):
            raise ValueError(f"{text!r} opens a brace and does not close it")
        rest = rest[1:-1].strip()
    found = []
    while rest:
        matcher, rest = _one(rest, text)
        found.append(matcher)
        if len(found) > MOST_MATCHERS:
            raise ValueError(f"{text[:50]!r}… has more than {MOST_MATCHERS} matchers")
        if rest and not rest.startswith(","):
            raise ValueError(
                f"{rest!r} in {text!r} is not understood; a value with such characters is in double quotes"
            )
        rest = rest[1:].lstrip()
    if not found:
        raise ValueError(f'{text!r} is no matcher; one looks like severity=~"critical|high"')
    return found


def _one(rest: str, text: str) -> tuple[Matcher, str]:
    example = 'one looks like severity=~"critical|high"'
    name = _NAME.match(rest)
    if name is None:
        _refuse_open_quote(rest, text)
        raise ValueError(f"{text!r} is no matcher, as {rest!r} does not begin with a label's name; {example}")
    rest = rest[name.end() :].lstrip()
    operator = next((operator for operator in OPERATORS if rest.startswith(operator)), None)
    if operator is None:
        raise ValueError(f"{text!r} is no matcher, as after {name[0]!r} comes none of =, !=, =~, !~; {example}")
    rest = rest[len(operator) :].lstrip()
    value = _VALUE.match(rest)
    if value is None:
        _refuse_open_quote(rest, text)
        raise ValueError(
            f'{text!r} is no matcher, as after {operator!r} comes no value; the empty one is "". {example}'
        )
    return Matcher(_unquoted(name[0]), operator, _unquoted(value[0])), rest[value.end() :].lstrip()


def _refuse_open_quote(rest: str, text: str) -> None:
    if rest.startswith('"'):
        raise ValueError(f"{text!r} is no matcher, as the quote at {rest!r} is not closed")


def _unquoted(token: str) -> str:
    if not token.startswith('"'):
        return token
    return _ESCAPE.sub(lambda match: "\n" if match[1] == "n" else match[1], token[1:-1])


@lru_cache(1024)
def linear_regex(pattern: str) -> Callable[[str], bool]:
    """Whether a whole value fits a regular expression, of those that mean the same to Python and to RE2.

    RE2 is Alertmanager's. Like it, and other than Python's, the engine here (Rust's, which pydantic brings along) takes
    a time that is linear in the value's length, whatever the expression is.

    :raises ValueError: names what Python or RE2 does not know.
    """
    from pydantic_core import SchemaError, SchemaValidator, core_schema

    translated = _translated(pattern)
    try:
        re.compile(pattern, re.ASCII)
        schema = core_schema.str_schema(pattern=rf"\A(?:{translated})\z", regex_engine="rust-regex")
        return SchemaValidator(schema).isinstance_python
    except (re.error, RecursionError, SchemaError) as error:
        reason = str(error).splitlines()[-1]
        raise ValueError(f"{pattern!r} is no regular expression: {reason}") from error


def _translated(pattern: str) -> str:
    r"""In the words of Rust's engine, https://docs.rs/regex/latest/regex/#syntax: \d, \w and such are ASCII in RE2."""
    position, text = 0, ""
    sizes, last = [0], 0  # of the groups that are open, and of what a repetition would repeat
    while position < len(pattern):
        character = pattern[position]
        length, word, size = 1, character, 1
        if character == "\\":
            length, word = _escape(pattern, position)
        elif character == "[":
            length, word = _class(pattern, position)
        elif character == "(":
            length = _check_group(pattern, position) if pattern.startswith("(?", position) else 1
            word, size = pattern[position : position + length], 0
            sizes.append(0)
        elif character == ")" and len(sizes) > 1:
            size = sizes.pop()
        elif character in "*+?}" and pattern.startswith("+", position + 1):
            raise ValueError(f"{pattern!r} has the possessive {character}+, which RE2 does not have")
        elif count := _count(pattern, position):
            length, word, size = len(count[0]), count[0], last * max(int(count[1]), int(count[3] or 0))
        elif character in "{}]":
            word = f"\\{character}"
        position, text, last = position + length, text + word, size
        sizes[-1] += size
    most = MOST_PARTS if any(sign in pattern for sign in "*+?{") else MOST_CHARACTERS
    if sum(sizes) > most:
        raise ValueError(
            f"{pattern[:50]!r}… as a regular expression is too long: {most:,} characters, repetitions written out"
        )
    return text


def _escape(pattern: str, position: int) -> tuple[int, str]:
    _check_escape(pattern, position, allowed="BbAdDsSwWnrtfvax")
    escaped = pattern[position + 1 : position + 2]
    inside = _ASCII.get(escaped.lower(), "") if escaped.isalpha() else ""
    if inside:
        return 2, f"[{'^' * escaped.isupper()}{inside}]"
    words = {"b": r"(?-u:\b)", "B": r"(?-u:\B)", "<": "<", ">": ">"}
    return 2, words.get(escaped, f"\\{escaped}")


def _check_escape(pattern: str, position: int, *, allowed: str) -> None:
    escaped = pattern[position + 1 : position + 2]
    if escaped in "123456789" and escaped:
        raise ValueError(f"{pattern!r} has the backreference \\{escaped}, which RE2 does not have")
    if escaped.isalnum() and escaped not in allowed:
        raise ValueError(f"{pattern!r} has \\{escaped}, which is not the same in RE2 and Python")
    if escaped == "x" and not re.match(r"[0-9a-fA-F]{2}", pattern[position + 2 :]):
        raise ValueError(f"{pattern!r} has \\x without two hexadecimal digits, which is not the same in RE2 and Python")


def _class(pattern: str, position: int) -> tuple[int, str]:
    found = _CLASS.match(pattern, position)
    if found is None:
        what = "has [:, a class of POSIX, which Python does not have" if "[:" in pattern else "has a [ without its ]"
        raise ValueError(f"{pattern!r} {what}")
    for escape in re.finditer(r"\\.", found[0], re.DOTALL):
        _check_escape(pattern, position + escape.start(), allowed="dDsSwWnrtfvax")
    opening = "[^" if found[0].startswith("[^") else "["
    inside = found[0][len(opening) : -1]
    return len(found[0]), f"{opening}{_RANGE.sub(lambda its: _range(its[1], its[2]), inside)}]"


def _range(first: str, last: str | None) -> str:
    """One of what a class has. In Rust's, [ and && and such have a meaning of their own."""
    ends = []
    for end in filter(None, (first, last)):
        escaped = end[1:]
        inside = _ASCII.get(escaped.lower(), "") if escaped.isalpha() else ""
        if inside:
            ends.append(f"[^{inside}]" if escaped.isupper() else inside)
        else:
            ends.append(end if escaped.isalnum() else f"\\{end[-1]}" if end[-1] in "\\[]&~-^" else end[-1])
    return "-".join(ends)


def _check_group(pattern: str, position: int) -> int:
    for opening, what in {
        "(?=": "a lookahead",
        "(?!": "a lookahead",
        "(?<=": "a lookbehind",
        "(?<!": "a lookbehind",
        "(?P=": "a backreference",
        "(?(": "a condition",
        "(?>": "an atomic group",
        "(?#": "a comment",
    }.items():
        if pattern.startswith(opening, position):
            raise ValueError(f"{pattern!r} has {what}, which RE2 does not have")
    if pattern.startswith("(?P<", position):
        return 4
    flags = _FLAGS.match(pattern, position)
    if flags is None or not set(flags[1] + (flags[2] or "-")[1:]) <= set("ims"):
        raise ValueError(f"{pattern!r} has a group that begins (? and is not the same in RE2 and Python")
    return len(flags[0])


def _count(pattern: str, position: int) -> re.Match[str] | None:
    count = _COUNT.match(pattern, position)
    if count is None:
        return None
    if not count[1]:
        raise ValueError(f"{pattern!r} has {count[0]}, which is a repetition in Python only; write {{0{count[0][1:]}")
    if max(int(count[1]), int(count[3] or 0)) > MOST_REPETITIONS:
        raise ValueError(f"{pattern!r} has {count[0]}; RE2 repeats {MOST_REPETITIONS:,} times at most")
    if pattern.startswith("+", position + len(count[0])):
        raise ValueError(f"{pattern!r} has the possessive {count[0]}+, which RE2 does not have")
    return count


@dataclass(frozen=True)
class InhibitRule:
    """While an alert fires that fits ``source_matchers``, those that fit ``target_matchers`` are not sent.

    :param equal: only those that have the same values of these labels; no label is the empty value here too.

    An alert that fits both sides is not inhibited by another one that does.
    """

    source_matchers: tuple[Matcher, ...] = ()
    target_matchers: tuple[Matcher, ...] = ()
    equal: tuple[str, ...] = ()

    def inhibits(self, firing: Iterable[Labels]) -> Callable[[Labels], bool]:
        """Whether labels are inhibited while these alerts fire; reads ``firing`` once."""
        every, one_sided = set(), set()
        for source in firing:
            if match_all(self.source_matchers, source):
                every.add(self._values(source))
                if not match_all(self.target_matchers, source):
                    one_sided.add(self._values(source))

        def inhibited(labels: Labels) -> bool:
            if not match_all(self.target_matchers, labels):
                return False
            return self._values(labels) in (one_sided if match_all(self.source_matchers, labels) else every)

        return inhibited

    def _values(self, labels: Labels) -> tuple[str, ...]:
        return tuple(labels.get(name, "") for name in self.equal)


@dataclass(frozen=True)
class Silence:
    """Alerts that fit all ``matchers`` are not sent for a while.

    :param starts_at: Unix ms, and ``ends_at``: the first moment that is not silent any more.
    :raises ValueError: it would silence everything, ends before it starts, or does not say who wanted it and why.
    """

    matchers: tuple[Matcher, ...]
    starts_at: int
    ends_at: int
    created_by: str
    comment: str
    id: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if not any(not matcher.matches({}) for matcher in self.matchers):
            raise ValueError("a silence needs a matcher that does not match the empty value, or it silences everything")
        if self.ends_at <= self.starts_at:
            raise ValueError("a silence ends after it starts")
        if not self.created_by.strip() or not self.comment.strip():
            raise ValueError("a silence says who created it (created_by) and why (comment)")

    def silences(self, labels: Labels, now: int) -> bool:
        """Whether alerts with these labels are not sent at ``now``, Unix ms."""
        return self.starts_at <= now < self.ends_at and match_all(self.matchers, labels)
