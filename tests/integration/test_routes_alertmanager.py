"""The same routing file, alerts and silences to the real Alertmanager and to ours: who gets what, in which group, when.

Alertmanager is Debian's package prometheus-alertmanager. All trees are below one root, told apart by a label ``case``,
so that one process and one configuration serve them; alerts of all cases fire and end together.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from airflow_provider_airis.records import Alert, from_ms, iso
from airflow_provider_airis.routes import LogKey, Routes, RoutesError, Sent, Silence, labels, parse_matchers, plan
from sandbox.airflow import free_port

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus-alertmanager") is None,
    reason="needs Alertmanager: apt-get install --no-install-recommends prometheus-alertmanager",
)

SEED = 20261123
TREES = 40
RECEIVERS = [f"r{number}" for number in range(6)]
VALUES = {
    "alertname": ["drift", "latency", "errors"],
    "severity": ["critical", "high", "low"],
    "team": ["ml", "infra", ""],
    "model_id": ["fraud-1", "fraud-2", "churn", ""],
    "region": ["eu", "us", ""],
}
REGEXES = [
    "critical|high",
    "fraud-.*",
    "",
    ".+",
    "(ml|infra)?",
    "[a-m]+",
    "e.",
    "(?i)EU",
    r"fraud-\d",
    "drift.*|lat.{4}",
]
# A matcher, and values of the label v; it is the same text to both.
MATCHERS = [
    ('v="a"', ["a", "A", ""]),
    ("v=a", ["a", "b"]),
    (" v != a ", ["a", ""]),
    ('v=""', ["", "a"]),
    ('v!=""', ["", "a"]),
    (r'v="say \"hi\""', ['say "hi"', "say hi"]),
    (r'v="back\\slash"', ["back\\slash", "back\\\\slash"]),
    (r'v="line\nbreak"', ["line\nbreak", "linenbreak"]),
    (r'v=~"a\.b"', ["a.b", "axb"]),
    (r'v=~"a\\.b"', ["a.b", "axb"]),
    ('v=~"a,b|c"', ["a,b", "c", "a"]),
    ('{v=~"a.*",region="eu"}', ["ab", "b"]),
    ('v="a", region!="us",', ["a"]),
    ('v=~"a|b"', ["a", "ab", "b"]),
    ('v!~"a|b"', ["a", "ab", ""]),
    ('v=~"^a$"', ["a", "ba"]),
    ('v=~"(?i)abc"', ["ABC", "aBd"]),
    ('v=~"(?s)a.b"', ["a\nb"]),
    ('v=~"a.b"', ["a\nb", "a-b"]),
    ('v=~"a{2,3}"', ["a", "aa", "aaaa"]),
    ('v=~"[]a]+"', ["a]", "b"]),
    (r'v=~"[\\w-]+"', ["a-b", "ä"]),
    (r'v=~"\\d+"', ["12", "\u0661"]),
    ('v="größe 1,5"', ["größe 1,5", "grosse"]),
    ('v=~"größ."', ["größe", "größ"]),
    ('v=~"x*?"', ["", "xx"]),
    ('v="=~"', ["=~"]),
    ('v=~"(a(?:b)?)+(?P<n>c)"', ["aabc", "ab"]),
    ('v="a b"', ["a b", "ab"]),
    ('v="}"', ["}", "{"]),
]


class Peer:
    """Receives Alertmanager's webhooks; the path names the receiver."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, dict[str, Any]]] = []
        peer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                peer.messages.append((self.path.strip("/"), body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            # All groups are sent at once; a connection that is not taken would be tried again a second later.
            request_queue_size = 1024

        self.server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@dataclass
class Cases:
    """What both are given."""

    routes: list[dict[str, Any]] = field(default_factory=list)
    inhibit_rules: list[dict[str, Any]] = field(default_factory=list)
    time_intervals: list[dict[str, Any]] = field(default_factory=list)
    silences: list[str] = field(default_factory=list)
    alerts: dict[str, dict[str, str]] = field(default_factory=dict)

    def tree(self, case: str, alerts: list[dict[str, str]], **route: Any) -> None:
        self.routes.append({"matchers": [f'case="{case}"'], **route})
        for number, one in enumerate(alerts):
            given = {name: value for name, value in one.items() if value}
            self.alerts[f"{case}.{number}"] = {"alertname": "x", "severity": "low", "case": case, **given}

    def text(self, address: str | None) -> str:
        """The file: Alertmanager's with webhooks at an address, or ours with Slack's channels of the same names."""
        receivers: list[dict[str, Any]] = []
        for name in RECEIVERS:
            resolved = {"send_resolved": name not in ("r1", "r4")}
            config = {"url": f"{address}/{name}"} if address else {"target": name}
            receivers.append({"name": name, f"{'webhook' if address else 'slack'}_configs": [{**config, **resolved}]})
        route = {"receiver": "r0", "group_wait": "2s", "group_interval": "3s", "routes": self.routes}
        rest = {"inhibit_rules": self.inhibit_rules, "time_intervals": self.time_intervals}
        return json.dumps({"route": route, "receivers": receivers, **rest}, indent=1, ensure_ascii=False)


def _matcher(chance: random.Random) -> str:
    name = chance.choice(list(VALUES))
    if chance.random() < 0.5:
        return f"{name}{chance.choice(['=', '!='])}{json.dumps(chance.choice(VALUES[name]))}"
    return f"{name}{chance.choice(['=~', '!~'])}{json.dumps(chance.choice(REGEXES))}"


def _route(chance: random.Random, depth: int, intervals: list[str]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    if chance.random() < 0.8:
        made["receiver"] = chance.choice(RECEIVERS)
    if chance.random() < 0.6:
        made["group_by"] = chance.choice([[], ["..."], ["team"], ["severity", "alertname"], ["model_id", "team", "no"]])
    if chance.random() < 0.2:
        made[chance.choice(["mute_time_intervals", "active_time_intervals"])] = chance.sample(intervals, 2)
    if depth:
        below: dict[str, Any] = {}
        for _ in range(chance.randint(0, 4)):
            matchers = sorted(_matcher(chance) for _ in range(chance.randint(0, 2)))
            # Two siblings of the same matchers share their groups, in Alertmanager too: one of them stays silent.
            below[str(sorted(str(one) for text in matchers for one in parse_matchers(text)))] = {
                **_route(chance, depth - 1, intervals),
                "matchers": matchers,
                "continue": chance.random() < 0.5,
            }
        made["routes"] = list(below.values())
    return made


def _interval(chance: random.Random, now: datetime) -> dict[str, Any]:
    made: dict[str, Any] = {}
    days = ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"]
    if chance.random() < 0.5:
        hours = sorted(chance.sample(range(25), 4))
        made["times"] = [
            {"start_time": f"{begin:02}:00", "end_time": f"{end:02}:00"} for begin, end in (hours[:2], hours[2:])
        ]
    if chance.random() < 0.4:
        begin, end = sorted(chance.choices(range(7), k=2))
        made["weekdays"] = [f"{days[begin]}:{days[end].title()}", days[chance.randrange(7)]]
    if chance.random() < 0.4:
        begin, end = sorted(chance.choices(range(1, 32), k=2))
        made["days_of_month"] = chance.choice([[f"{begin}:{end}"], [f"{-end}:{-begin}"], [str(now.day), "-1"]])
        if made["days_of_month"][0].startswith("-") and end > 27:
            made["days_of_month"] = ["-27:-1"]
    if chance.random() < 0.3:
        made["months"] = chance.choice([["1:6"], ["july:december"], [str(now.month)], ["february"]])
    if chance.random() < 0.2:
        made["years"] = chance.choice([[str(now.year)], ["2020:2099"], ["1999"]])
    if chance.random() < 0.5:
        made["location"] = chance.choice(["Europe/Berlin", "Asia/Tokyo", "America/Los_Angeles", "UTC"])
    return made or {"years": ["2020:2099"]}


def _cases() -> Cases:
    chance = random.Random(SEED)
    cases = Cases()
    always, never = {"name": "always", "time_intervals": [{"years": ["2020:2199"]}]}, {"years": ["1999"]}
    cases.time_intervals += [always, {"name": "never", "time_intervals": [never]}]
    for number in range(40):
        parts = [_interval(chance, datetime.now(UTC)) for _ in range(chance.randint(1, 2))]
        cases.time_intervals.append({"name": f"t{number}", "time_intervals": parts})
        muting = {chance.choice(["mute_time_intervals", "active_time_intervals"]): [f"t{number}"]}
        cases.tree(f"time{number}", [{}], receiver="r2", **muting)
    for number, (text, values) in enumerate(MATCHERS):
        alerts = [{"v": value, "region": "eu"} for value in values]
        below = [{"receiver": "r2", "matchers": [text], "group_by": ["v"]}]
        cases.tree(f"matcher{number}", alerts, receiver="r3", group_by=["..."], routes=below)
    for number in range(TREES):
        case = f"tree{number}"
        alerts = [{name: chance.choice(values) for name, values in VALUES.items()} for _ in range(12)]
        cases.tree(case, alerts, **_route(chance, 3, ["always", "never", "t1", "t2"]))
        if number % 2:
            for _ in range(2):
                sides = {f"{side}_matchers": [f'case="{case}"', _matcher(chance)] for side in ("source", "target")}
                equal = chance.choice([[], ["team"], ["model_id", "no"], ["region", "case"]])
                cases.inhibit_rules.append({**sides, "equal": equal})
        if number % 5 == 0:
            cases.silences.append(f'{{case="{case}", {_matcher(chance)}}}')
    both = [{"severity": word, "team": team} for word in ("critical", "high", "low") for team in ("ml", "infra")]
    cases.tree("both", [*both[2:], both[0]], receiver="r5", group_by=["..."])
    two_sided = {"source_matchers": ['severity=~"critical|high"'], "target_matchers": ['severity=~"high|low"']}
    two_sided = {side: ["case=both", *matchers] for side, matchers in two_sided.items()}
    cases.inhibit_rules.append({**two_sided, "equal": ["team"]})
    often = {"receiver": "r2", "group_by": ["team"], "repeat_interval": "4s", "group_wait": "2s"}
    cases.tree("when", [{"team": "w"}] * 3 + [{"team": "z"}], **often)
    return cases


@dataclass
class Played:
    """What both have made of it. A message: its alerts' ids and statuses."""

    theirs: dict[tuple[str, str], list[dict[str, str]]]
    ours: dict[tuple[str, str], list[dict[str, str]]]


def _wait(condition: Any, seconds: float = 15) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.05)


def _now() -> int:
    return time.time_ns() // 1_000_000


@pytest.fixture(scope="module")
def alertmanager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Starts Alertmanager with a configuration; answers its URL."""
    folder = tmp_path_factory.mktemp("alertmanager")
    processes = []

    def start(text: str) -> str:
        (folder / "alertmanager.yml").write_text(text)
        port = free_port()
        processes.append(
            subprocess.Popen(
                [
                    "prometheus-alertmanager",
                    f"--config.file={folder}/alertmanager.yml",
                    f"--storage.path={folder}/data",
                    f"--web.listen-address=127.0.0.1:{port}",
                    "--cluster.listen-address=",
                ],
                stdout=subprocess.DEVNULL,
                stderr=(folder / "log").open("w"),
            )
        )
        url = f"http://127.0.0.1:{port}"

        def ready() -> bool:
            assert processes[0].poll() is None, (folder / "log").read_text()
            try:
                return httpx.get(f"{url}/-/ready").status_code == 200
            except httpx.TransportError:
                return False

        _wait(ready)
        return url

    yield start
    for process in processes:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="module")
def played(alertmanager: Any) -> Played:
    print(f"seed {SEED}")
    cases = _cases()
    routes = Routes.parse(cases.text(None))
    peer = Peer()
    url = alertmanager(cases.text(peer.url))
    begin = _now()
    silences = [Silence(tuple(parse_matchers(text)), begin, begin + 3_600_000, "t", "t") for text in cases.silences]
    silences = [one for one in silences if len(one.matchers) > 1]
    for silence in silences:
        body = {
            "matchers": [
                {"name": m.name, "value": m.value, "isRegex": "~" in m.operator, "isEqual": m.operator[0] != "!"}
                for m in silence.matchers
            ],
            "startsAt": iso(begin),
            "endsAt": iso(begin + 3_600_000),
            "createdBy": "t",
            "comment": "t",
        }
        httpx.post(f"{url}/api/v2/silences", json=body).raise_for_status()

    alerts: dict[str, Alert] = {}
    history: list[list[Alert]] = []
    chance = random.Random(SEED + 1)

    def change(ids: list[str], status: str) -> None:
        at = _now()
        for alert_id in ids:
            rest = dict(cases.alerts[alert_id])
            fields = {
                "name": rest.pop("alertname"),
                "severity": rest.pop("severity"),
                "model_id": rest.pop("model_id", None),
            }
            fired = alerts[alert_id].timestamp if alert_id in alerts else at
            alerts[alert_id] = Alert(id=alert_id, status=status, timestamp=fired, updated_at=at, tags=rest, **fields)
        posted = []
        for alert_id in ids:
            one = alerts[alert_id]
            ends = at if status == "resolved" else at + 3_600_000
            times = {"startsAt": _rfc3339(one.timestamp), "endsAt": _rfc3339(ends)}
            posted.append({"labels": labels(one), **times})
        httpx.post(f"{url}/api/v2/alerts", json=posted).raise_for_status()
        history.append([alerts[alert_id] for alert_id in ids])

    static = [alert_id for alert_id in cases.alerts if not alert_id.startswith("when")]
    ending = [alert_id for alert_id in static if chance.random() < 0.4]
    # Ticks of "when" are 2, 5, 8, 11 and 14 seconds after its first alert; what happens, happens between them.
    for seconds, ids, status in (
        (0.0, [*static, "when.0", "when.3"], "firing"),
        (1.0, ["when.1"], "firing"),
        (1.0, ["when.3"], "resolved"),
        (3.5, ["when.2"], "firing"),
        (6.5, ["when.1", *ending], "resolved"),
    ):
        time.sleep(max(0.0, begin / 1000 + seconds - time.time()))
        if seconds == 0:
            begin = _now()
        change(ids, status)
    time.sleep(max(0.0, begin / 1000 + 15.5 - time.time()))
    theirs: dict[tuple[str, str], list[dict[str, str]]] = defaultdict(list)
    for receiver, body in list(peer.messages):
        sent = {one["labels"]["alert_id"]: one["status"] for one in body["alerts"]}
        theirs[receiver, body["groupKey"]].append(sent)
    peer.server.shutdown()
    return Played(theirs, _ours(routes, history, silences, begin + 15_500))


def _rfc3339(ms: int) -> str:
    return from_ms(ms).isoformat(timespec="milliseconds")


def _ours(
    routes: Routes, history: list[list[Alert]], silences: list[Silence], until: int
) -> dict[tuple[str, str], list[dict[str, str]]]:
    messages: dict[tuple[str, str], list[dict[str, str]]] = defaultdict(list)
    log: dict[LogKey, Sent] = {}
    alerts: dict[str, Alert] = {}
    following: int | None = None
    ahead = list(history)
    while True:
        now = min(at for at in (ahead[0][0].updated_at if ahead else None, following, until + 1) if at is not None)
        if now > until:
            return messages
        while ahead and ahead[0][0].updated_at <= now:
            alerts |= {one.id: one for one in ahead.pop(0)}
        flushes = plan(routes, alerts.values(), log, now=now, silences=silences)
        for flush in flushes:
            if flush.alerts:
                key = flush.group.key
                messages[key.receiver, key.group].append({one.id: one.status for one in flush.alerts})
            if flush.sent is not None:
                log[flush.group.key] = flush.sent
        following = min((flush.next for flush in flushes if flush.next is not None), default=None)


def _union(messages: dict[tuple[str, str], list[dict[str, str]]]) -> set[tuple[str, str, str, str]]:
    return {(*key, *one) for key, sent in messages.items() for message in sent for one in message.items()}


def test_who_gets_what_in_which_group(played: Played) -> None:
    theirs, ours = _union(played.theirs), _union(played.ours)
    # A message of Alertmanager also lists what has ended before the receiver ever heard of it; ours does not.
    theirs = {one for one in theirs if one[3] == "firing" or (*one[:3], "firing") in theirs}
    print(f"{len(theirs)} deliveries of alerts in {len(played.theirs)} groups")
    assert len(theirs) > 400
    assert (sorted(theirs - ours), sorted(ours - theirs)) == ([], []), f"seed {SEED}"


def test_when_and_how_often(played: Played) -> None:
    of = [{key: sent for key, sent in side.items() if 'case="when"' in key[1]} for side in (played.theirs, played.ours)]
    assert of[0] == of[1]
    # when.3 fires and ends inside group_wait: nothing. Then a new one, an end, and the repetition.
    firing = {f"when.{number}": "firing" for number in range(3)}
    assert list(of[1].values()) == [
        [
            {"when.0": "firing", "when.1": "firing"},
            firing,
            {**firing, "when.1": "resolved"},
            {"when.0": "firing", "when.2": "firing"},
        ]
    ]


RIGHT = """
route: {receiver: a, ROUTE}
inhibit_rules: [{INHIBIT}]
time_intervals: [{name: t, time_intervals: [{TIME}]}]
receivers:
  - {name: a}
"""
# Where a word of RIGHT stands, what is wrong there. What ours alone refuses is in the unit tests.
WRONG = {
    "receiver: a, ROUTE": ["receiver: b", "group_by: [x]", "receiver: a, receiver: a"],
    "ROUTE": [
        *("matchers: [a=b]", "continue: true", "mute_time_intervals: [t]", "active_time_intervals: [t]", "who: b"),
        *("group_wait: 30", "group_wait: 1m1h", "group_wait: -1s", "group_interval: 0s", "repeat_interval: 0s"),
        *("group_by: [x, x]", "group_by: [..., x]", "routes: {}", "routes: [{matchers: [severity]}]"),
        *(f"routes: [{{matchers: ['a=~\"{regex}\"']}}]" for regex in ("(", "x(?=y)", r"(x)\\1", "x{1001}", "a**")),
        *("""routes: [{matchers: ['a="b']}]""", "routes: [{continue: maybe}]", "routes: [{mute_time_intervals: [no]}]"),
    ],
    "INHIBIT": ["source: [a=b]", "source_matchers: [a]", "equal: a"],
    "TIME": [
        *("weekdays: [mon]", "weekdays: ['friday:monday']", "days_of_month: [0]", "days_of_month: ['-1:1']"),
        *("days_of_month: ['5:1']", "days_of_month: [32]", "months: ['may:march']", "months: [mai]", "hours: []"),
        *("years: ['2026:2025']", "location: Nowhere/Land", "times: [{start_time: '09:00'}]"),
        *("times: [{start_time: '9:00', end_time: '10:00'}]", "times: [{start_time: '10:00', end_time: '10:00'}]"),
        *("times: [{start_time: '22:00', end_time: '06:00'}]", "times: [{start_time: '22:00', end_time: '24:01'}]"),
    ],
    "{name: a}": ["{name: ''}", "{other: a}", "{name: a}\n  - {name: a}"],
}


def _right(text: str) -> bool:
    try:
        return bool(Routes.parse(text))
    except RoutesError:
        return False


def test_what_alertmanager_refuses_is_refused(tmp_path: Path) -> None:
    texts = [RIGHT, *(RIGHT.replace(place, wrong, 1) for place, all_wrong in WRONG.items() for wrong in all_wrong)]
    texts = [text.replace(", ROUTE", "").replace("INHIBIT", "").replace("TIME", "") for text in texts]
    files = [tmp_path / f"{number:02}.yml" for number in range(len(texts))]
    for file, text in zip(files, texts, strict=True):
        file.write_text(text)
    said = subprocess.run(["amtool", "check-config", *files], capture_output=True, text=True, check=False).stdout
    theirs = [answer.lstrip().startswith("SUCCESS") for answer in re.split(r"Checking '[^']*'", said)[1:]]
    ours = [_right(text) for text in texts]
    assert theirs == ours, [text for text, *both in zip(texts, theirs, ours, strict=True) if both[0] != both[1]]
    assert ours == [True] + [False] * (len(texts) - 1)
