"""Routing files: what is read, what is refused, whom an alert reaches; and `airis routes`, as the page shows it."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_airis import cli
from airflow_provider_airis.catalog import SYSTEMS
from airflow_provider_airis.records import Alert
from airflow_provider_airis.routes import (
    InhibitRule,
    Integration,
    Matcher,
    Routes,
    RoutesError,
    Silence,
    TimeInterval,
    default_text,
    format_duration,
    labels,
    parse_duration,
    parse_matchers,
)

PAGE = (Path(__file__).resolve().parents[2] / "docs/routing.md").read_text()
BLOCKS = {language: re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) for language in ("yaml", "text", "sh")}


def test_nothing_of_airflow_is_imported() -> None:
    script = "import sys, airflow_provider_airis.routes; assert 'airflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_the_page_shows_what_the_command_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    example, default = BLOCKS["yaml"]
    Path("routes.yaml").write_text(example)
    shown = []
    for command in BLOCKS["sh"]:
        assert cli.main(shlex.split(command)[1:]) == 0
        shown.append(capsys.readouterr().out)
    Path("routes.yaml").write_text(example.replace("group_wait: 30s", "group_wait: 30"))
    assert cli.main(["routes", "check", "routes.yaml"]) == 1
    assert [shown[0], capsys.readouterr().err, shown[1]] == BLOCKS["text"]
    assert default == default_text()


def test_the_words_of_the_page_are_those_of_the_file() -> None:
    every = {f"{row.stem}_configs" for row in SYSTEMS if row.channel}
    with pytest.raises(RoutesError) as refused:
        Routes.parse("{route: {no: 1, receiver: a}, receivers: [{no: 1, name: a}], inhibit_rules: [{no: 1}]}")
    said = [word for problem in refused.value.problems for word in problem.message.partition("It has ")[2].split(", ")]
    assert every <= set(said)
    assert [word for word in said if word not in every and f"`{word}`" not in PAGE] == []


def test_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "routes.yaml"
    file.write_text(BLOCKS["yaml"][0])
    alert = ["--alert", "team=fraud", "--alert", "alert_type=drift"]
    assert cli.main(["routes", "test", str(file), *alert, "--json"]) == 0
    (reached,) = json.loads(capsys.readouterr().out)
    assert reached["integrations"] == [{"channel": "slack", "target": "#fraud", "send_resolved": True}]
    assert reached["active_time_intervals"] == ["office-hours"]
    assert (reached["receiver"], reached["group_labels"]) == ("fraud-team", {})


def test_labels_are_the_fields_above_the_tags_and_nothing_empty() -> None:
    tags = {"severity": "tag", "team": "ml", "empty": ""}
    alert = Alert(id="7", name="drift", severity="high", status="firing", timestamp=0, updated_at=0, tags=tags)
    assert labels(alert) == {"alertname": "drift", "alert_id": "7", "severity": "high", "team": "ml"}


WRONG = """
foo: 1
route:
  continue: true
  group_wait: 30
  receiver: x
  group_by: [..., a, a]
  routes:
    - match: {a: b}
      matchers: [a=b c, 'b=~"(?=x)"']
      mute_time_intervals: [never]
      repeat_interval: 0s
receivers:
  - name: y
    pigeon_configs: []
    slack_configs: [{target: "#a"}, {target: "#a"}, {channel: b}]
  - slack_configs: {}
time_intervals:
  - name: w
    time_intervals:
      - weekdays: [mon, 'friday:monday']
        times: [{start_time: '9:00', end_time: 25:00}]
        location: Nowhere
"""


def test_every_mistake_is_named_with_its_line() -> None:
    with pytest.raises(RoutesError) as refused:
        Routes.parse(WRONG, "file.yaml")
    expected = [
        (2, "the file has no 'foo'. It has route, receivers, inhibit_rules, time_intervals"),
        (4, "the root route has no continue"),
        (5, "group_wait: '30' is no duration"),
        (6, "there is no receiver 'x'. There are: y"),
        (7, "group_by is ... alone"),
        (7, "group_by has 'a' twice"),
        (9, "a route has no 'match'; write matchers"),
        (10, "in double quotes"),
        (10, "has a lookahead, which RE2 does not have"),
        (11, "there is no time interval 'never'. There are: w"),
        (12, "repeat_interval is longer than 0s"),
        (15, "a receiver has no 'pigeon_configs'. It has name, slack_configs, pagerduty_configs"),
        (16, "the target '#a' twice"),
        (16, "each of slack_configs has no 'channel'. It has target, send_resolved"),
        (17, "a receiver needs a name"),
        (21, "'mon' is no range of weekdays"),
        (21, "'friday:monday' ends before it begins"),
        (22, "'9:00' is no time of the day"),
        (22, "'25:00' is no time of the day"),
        (23, "'Nowhere' is no time zone"),
    ]
    problems = refused.value.problems
    assert [problem.line for problem in problems] == [line for line, _ in expected]
    for line, words in expected:
        assert any(problem.line == line and words in problem.message for problem in problems), words
    assert str(refused.value).startswith("file.yaml:2: ")


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 1, "the file is empty"),
        ("- a", 1, "the file is a mapping of"),
        ("a: b: c", 1, "this is no YAML"),
        ("route: {receiver: a}\n---\nroute: 2", 2, "this is no YAML"),
        ("\x00", 1, "this is no YAML"),
        ("receivers: []", 1, "the file needs a route"),
        ("route: a", 1, "a route is a mapping of"),
        ("receivers: [{name: a}]\nroute: &r {receiver: a, routes: [*r]}", 2, "a route is inside of itself"),
        ("receivers: [{name: a}]\nroute:\n  receiver: a\n  receiver: a", 4, "a route has 'receiver' twice"),
        ("receivers: [{name: a}]\nroute:\n  receiver: [a]", 3, "receiver is a word"),
        ("receivers: [{name: a}]\nroute: {receiver: a}\ntime_intervals:\n- name: x", 4, "needs time_intervals"),
    ],
)
def test_what_is_no_file(text: str, line: int, message: str) -> None:
    with pytest.raises(RoutesError) as refused:
        Routes.parse(text)
    assert any(problem.line == line and message in problem.message for problem in refused.value.problems)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RoutesError, match="cannot be read: No such file"):
        Routes.read(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe4")
    with pytest.raises(RoutesError, match="cannot be read: 'utf-8'"):
        Routes.read(tmp_path / "latin.yaml")


@settings(deadline=None)
@given(st.recursive(st.sampled_from(["a", 1, None, True, "..."]), lambda inner: st.lists(inner, max_size=3)), st.data())
def test_whatever_the_file_is_it_is_read_or_refused(value: object, data: st.DataObject) -> None:
    """No file makes it fail in another way."""
    places = ["route", "receivers", "inhibit_rules", "time_intervals"]
    words = ["receiver", "name", "group_by", "matchers", "routes", "times", "slack_configs", "equal", "group_wait"]
    text: dict[str, object] = {"route": {"receiver": "a"}, "receivers": [{"name": "a"}]}
    place = data.draw(st.sampled_from(places))
    text[place] = value if data.draw(st.booleans()) else [{data.draw(st.sampled_from(words)): value}]
    with contextlib.suppress(RoutesError):
        assert str(Routes.parse(yaml.safe_dump(text)))


def test_what_is_most_likely_not_meant_is_a_warning() -> None:
    routes = Routes.parse(
        """
route:
  receiver: a
  routes:
    - {matchers: [x=y], repeat_interval: 1m}
    - {matchers: [x=y]}
receivers: [{name: a}]
inhibit_rules: [{source_matchers: [a=b]}]
"""
    )
    assert [(warning.line, warning.message.partition(" (")[0]) for warning in routes.warnings] == [
        (8, "an inhibit rule without source_matchers or target_matchers takes every alert for that side"),
        (5, "repeat_interval"),
        (6, "the route at line 5 has the same matchers; they share their groups"),
    ]


@pytest.mark.parametrize(
    "regex",
    [
        *("a(?=b)", "a(?!b)", "(?<=a)b", "(?<!a)b", r"(a)\1", "(?P<n>a)(?P=n)", "(a)?(?(1)b|c)", "(?>a)", "a(?#b)"),
        *("a*+", "a++", "a?+", "a{2}+", "a{,3}", "a{1001}", "[[:alpha:]]", r"\pL", r"\Qa\E", r"\Z", r"\z", r"[\b]"),
        *("(?x)a", "(?U)a", "(?a)b", "a(?i)b", "(", "[a", "*", r"\u00e4", r"\x{41}", "a**", "(?<n>a)"),
    ],
)
def test_a_regex_that_means_something_else_to_alertmanager_is_refused(regex: str) -> None:
    with pytest.raises(ValueError, match=r"RE2|regular expression|Python|without its"):
        Matcher("a", "=~", regex)


_PIECES = (
    *(
        "a",
        "b",
        "A",
        "_",
        "-",
        "é",
        " ",
        "\n",
        ".",
        "^",
        "$",
        "|",
        "(",
        ")",
        "(?:",
        "(?i:",
        "(?s:",
        "[",
        "[^",
        "]",
        "&&",
        "~",
    ),
    *(
        "*",
        "+",
        "?",
        "*?",
        "{2}",
        "{1,}",
        "{0,2}",
        "{",
        "}",
        "{a}",
        r"\d",
        r"\W",
        r"\s",
        r"\b",
        r"\B",
        r"\.",
        r"\-",
        r"\<",
        r"\x41",
    ),
)


@pytest.mark.filterwarnings("ignore:Possible")
@settings(max_examples=1500, deadline=None)
@given(st.lists(st.sampled_from(_PIECES), max_size=8).map("".join), st.text("abA_-é .<&~{}", max_size=5))
def test_a_regex_means_what_it_means_to_python(regex: str, value: str) -> None:
    try:
        fits = Matcher("a", "=~", regex).matches({"a": value})
    except ValueError:
        return
    # Of the empty text Python says, other than RE2, that it has no place that is no word's end.
    assert fits is (re.fullmatch(regex, value, re.ASCII) is not None) or (value == "" and r"\B" in regex)


@pytest.mark.filterwarnings("ignore:Possible")
@pytest.mark.parametrize(
    ("regex", "fits", "other"),
    [
        (r"[a&&b]+", "&ab", "c"),
        (r"[[a]+", "[a", "]"),
        (r"[]a-]+", "]-a", "b"),
        (r"[^\W\d]+", "ab", "1"),
        (r"[\S\n]+", "ab\n", " "),
        (r"[+--]+", "+,-", "."),
        (r"\d\w\s", "1a ", "٣a "),
        (r"(?i)ﬀ|K", "k", "l"),
        (r"a{b}]\<\>", "a{b}]<>", "ab"),
    ],
)
def test_a_regex_means_what_it_means_to_alertmanager(regex: str, fits: str, other: str) -> None:
    assert [Matcher("a", "=~", regex).matches({"a": value}) for value in (fits, other)] == [True, False]


def test_a_file_that_would_take_for_ever_is_refused() -> None:
    targets = ", ".join(f"{{target: t{n}}}" for n in range(450))
    receivers = "".join(f"  - {{name: n{n}, slack_configs: *all}}\n" for n in range(450))
    aliases = f"route: {{receiver: a}}\nreceivers:\n  - {{name: a, slack_configs: &all [{targets}]}}\n{receivers}"
    with pytest.raises(RoutesError, match="more than 200,000 entries"):
        Routes.parse(aliases)
    for deep in ("[" * 2_000, "{a: " * 2_000):
        with pytest.raises(RoutesError, match=r"routes:1: this is nested deeper"):
            Routes.parse(deep)
    with pytest.raises(RoutesError) as failure:
        Routes.parse("".join(f"a{n}: b\n" for n in range(500)))
    assert len(failure.value.problems) == 100


@pytest.mark.parametrize("regex", ["(a+)+b", "(a|a)*b", "(a|aa)*b", "a*a*a*a*a*a*a*a*b", "(.*a.*)*b", "(a{0,9}){0,9}b"])
def test_a_regex_takes_no_more_than_a_moment(regex: str) -> None:
    assert not Matcher("a", "=~", regex).matches({"a": "a" * 5_000})


@pytest.mark.parametrize(
    "regex", ["(a{0,100}){100}b", "a{1000}" * 3, "a?" * 1_001, "(" * 9_999 + ")" * 9_999, "a" * 20_001]
)
def test_a_regex_that_is_too_long_is_refused(regex: str) -> None:
    with pytest.raises(ValueError, match="regular expression"):
        Matcher("a", "=~", regex)


@settings(max_examples=50, deadline=None)
@given(st.text(), st.sampled_from(["=", "!="]), st.text())
def test_a_matcher_is_read_as_it_is_written(name: str, operator: str, value: str) -> None:
    one = Matcher(name, operator, value)  # type: ignore[arg-type]
    assert parse_matchers(str(one)) == [one]
    assert one.matches({name: value}) is (operator == "=")


@given(st.integers(0, 10**13))
def test_a_duration_is_read_as_it_is_written(ms: int) -> None:
    assert parse_duration(format_duration(ms)) == ms


def test_times_are_of_their_zone_and_the_months_end_is_the_months() -> None:
    office = TimeInterval(times=((540, 1020),), weekdays=((1, 5),), location=ZoneInfo("Europe/Berlin"))
    # 2026-03-27 is a Friday; the clocks go forward on the 29th.
    assert datetime(2026, 3, 27, 8, 0, tzinfo=UTC) in office
    assert datetime(2026, 3, 27, 7, 59, tzinfo=UTC) not in office
    assert datetime(2026, 3, 30, 7, 0, tzinfo=UTC) in office
    assert datetime(2026, 3, 30, 15, 0, tzinfo=UTC) not in office
    assert datetime(2026, 3, 29, 10, 0, tzinfo=UTC) not in office
    last = TimeInterval(days_of_month=((-2, -1),))
    days = [at for n in range(365) if (at := datetime(2028, 1, 1, tzinfo=UTC) + timedelta(n)) in last]
    assert [day.day for day in days[:6]] == [30, 31, 28, 29, 30, 31]
    with pytest.raises(ValueError, match="has no time zone"):
        assert datetime(2026, 1, 1) in last  # noqa: DTZ001


def test_inhibition_needs_equal_labels_and_not_both_sides() -> None:
    rule = InhibitRule(
        tuple(parse_matchers('severity=~"critical|high"')), tuple(parse_matchers('severity=~"high|low"')), ("team",)
    )
    critical, high, low = ({"severity": word, "team": "a"} for word in ("critical", "high", "low"))
    assert [rule.inhibits([high])(one) for one in (critical, high, low)] == [False, False, True]
    assert [rule.inhibits([critical])(one) for one in (critical, high, low)] == [False, True, True]
    assert not rule.inhibits([critical])({"severity": "low"})
    assert rule.inhibits([{"severity": "high"}])({"severity": "low", "team": ""})


def test_siblings_are_asked_until_one_fits_that_does_not_go_on() -> None:
    routes = Routes.parse(
        """
route:
  receiver: a
  routes:
    - {receiver: b, matchers: [x="1"]}
    - {receiver: c, matchers: ['y=~"\\\\d"'], continue: true}
    - {receiver: d, matchers: [x="2"], routes: [{receiver: e, matchers: [y="3"]}]}
    - {receiver: f}
receivers: [{name: a}, {name: b}, {name: c}, {name: d}, {name: e}, {name: f}]
"""
    )
    cases = {("1", "1"): "b", ("2", "1"): "cd", ("2", "3"): "ce", ("2", ""): "d", ("", "\u0663"): "f", ("", "3"): "cf"}
    for (x, y), names in cases.items():
        assert "".join(route.receiver.name for route in routes.match({"x": x, "y": y})) == names


def test_what_is_written_once_is_wrong_once() -> None:
    with pytest.raises(RoutesError) as refused:
        Routes.parse("route: {receiver: a, routes: [&r {matchers: [x]}, *r]}\nreceivers: [{name: a}]")
    assert len(refused.value.problems) == 1


def test_a_silence_is_of_something_by_someone() -> None:
    team = Matcher("team", "=", "ml")
    silence = Silence((team,), 10, 20, "ann", "why")
    assert [silence.silences({"team": "ml"}, now) for now in (9, 10, 19, 20)] == [False, True, True, False]
    for wrong in (((), 0, 1, "a", "b"), ((Matcher("team", "!=", "x"),), 0, 1, "a", "b"), ((team,), 1, 1, "a", "b")):
        with pytest.raises(ValueError, match="a silence"):
            Silence(*wrong)
    with pytest.raises(ValueError, match="created_by"):
        Silence((team,), 0, 1, "", "b")


def test_without_a_file_it_is_the_catalogs_severities_or_the_configurations() -> None:
    def told(severity: str, routes: Routes) -> list[Integration]:
        return [place for route in routes.match({"severity": severity}) for place in route.receiver.integrations]

    rows = [row for row in SYSTEMS if row.channel]
    for severity in ("critical", "high", "medium", "low", "warning", "info"):
        expected = [Integration(row.stem, row.channel.target) for row in rows if severity in row.channel.severities]
        assert told(severity, Routes.default()) == expected
    other = Routes.default({"slack": ('#"a\\b', ["low", "typo"]), "pagerduty": ("p", [])})
    assert (told("low", other), told("critical", other)) == ([Integration("slack", '#"a\\b')], [])
    assert Routes.default({row.stem: ("", []) for row in rows}).match({})[0].receiver.integrations == ()
