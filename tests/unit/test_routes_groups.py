"""When a group is sent, held by properties over random histories and by the cases that Alertmanager's words promise."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_airis.records import Alert
from airflow_provider_airis.routes import Flush, LogKey, Matcher, Routes, Sent, Shown, Silence, folded, plan

S = 1000
M = 60 * S
H = 60 * M
FILE = """
route: {receiver: a, group_by: [team], group_wait: 30s, group_interval: 5m, repeat_interval: 4h}
receivers:
  - name: a
    slack_configs: [{target: "#a"}]
inhibit_rules:
  - {source_matchers: [severity=critical], target_matchers: [severity=low], equal: [team]}
"""
ROUTES = Routes.parse(FILE)
QUIET = Routes.parse(FILE.replace('"#a"', '"#a", send_resolved: false'))


def alert(alert_id: str = "1", status: str = "firing", at: int = 0, fired: int = 0, **fields: Any) -> Alert:
    named = {"name": "x", "severity": "high", "tags": {"team": "t"}} | fields
    return Alert(id=alert_id, status=status, timestamp=fired, updated_at=at, **named)


class Place:
    """Does as the dispatch will: asks, sends, writes the log, which travels as JSON."""

    def __init__(self, routes: Routes = ROUTES) -> None:
        self.routes = routes
        self.log: dict[LogKey, Sent] = {}
        self.alerts: dict[str, Alert] = {}
        self.messages: list[tuple[int, Flush]] = []

    def ask(self, now: int, *changed: Alert, silences: tuple[Silence, ...] = ()) -> int | None:
        """Ask once; returns when to ask again."""
        self.alerts |= {one.id: one for one in changed}
        flushes = plan(self.routes, self.alerts.values(), self.log, now=now, silences=silences)
        for flush in flushes:
            if flush.alerts:
                self.messages.append((now, flush))
            if flush.sent is not None:
                if flush.group.moved_from:
                    del self.log[flush.group.moved_from]
                self.log[flush.group.key] = msgspec.json.decode(msgspec.json.encode(flush.sent), type=Sent)
        nexts = [flush.next for flush in flushes if flush.next is not None]
        assert all(at > now for at in nexts)
        return min(nexts, default=None)

    @property
    def told(self) -> list[tuple[int, dict[str, str]]]:
        return [(at, {one.id: one.status for one in flush.alerts}) for at, flush in self.messages]


def test_the_first_waits_for_others_and_changes_for_the_interval() -> None:
    place = Place()
    assert place.ask(0, alert("1")) == 30 * S
    assert place.ask(10 * S, alert("2", at=10 * S, fired=10 * S)) == 30 * S
    assert place.ask(30 * S) == 30 * S + 4 * H
    assert place.ask(40 * S, alert("3", at=40 * S, fired=40 * S)) == 330 * S
    place.ask(330 * S)
    # The group goes on in whole intervals: what changes after three of them is sent at the fourth.
    assert place.ask(330 * S + 16 * M, alert("2", "resolved", at=330 * S + 16 * M, fired=10 * S)) == 330 * S + 20 * M
    place.ask(330 * S + 20 * M)
    assert place.told == [
        (30 * S, {"1": "firing", "2": "firing"}),
        (330 * S, {"1": "firing", "2": "firing", "3": "firing"}),
        (330 * S + 20 * M, {"1": "firing", "2": "resolved", "3": "firing"}),
    ]
    assert place.messages[0][1].group.labels == {"team": "t"}
    assert place.messages[0][1].group.key == LogKey('{}:{team="t"}', "a", "slack", "#a")


def test_what_has_ended_before_the_group_was_sent_is_not() -> None:
    place = Place()
    place.ask(0, alert())
    assert place.ask(29 * S, alert("1", "resolved", at=29 * S)) is None
    assert place.ask(10 * H) is None
    assert (place.told, place.log) == ([], {})


def test_resolved_alerts_leave_after_they_were_sent_and_the_next_begins_anew() -> None:
    place = Place()
    place.ask(30 * S, alert("1"), alert("2"))
    place.ask(330 * S, alert("1", "resolved", at=60 * S))
    assert place.ask(630 * S, alert("2", "resolved", at=400 * S)) is None
    assert [told for _, told in place.told[1:]] == [{"1": "resolved", "2": "firing"}, {"2": "resolved"}]
    assert all(shown.status == "resolved" for sent in place.log.values() for shown in sent.alerts.values())
    place.log.clear()
    assert place.ask(2 * H) is None
    assert place.ask(3 * H, alert("3", at=3 * H, fired=3 * H)) == 3 * H + 30 * S
    # The same alert again.
    assert place.ask(3 * H + 30 * S, alert("2", at=3 * H, fired=0)) == 7 * H + 30 * S
    assert place.told[-1][1] == {"2": "firing", "3": "firing"}


@pytest.mark.parametrize("group_by", ["[alert_id, severity]", "['...']"])
def test_an_alert_by_itself_that_changes_its_labels_goes_on_where_it_was(group_by: str) -> None:
    place = Place(Routes.parse(FILE.replace("[team]", group_by)))
    place.ask(30 * S, alert())
    place.ask(330 * S, alert(severity="critical", at=60 * S))
    assert len(place.log) == 1
    place.ask(400 * S, alert(severity="high", at=400 * S))
    place.ask(630 * S)
    place.ask(930 * S, alert("1", "resolved", severity="low", at=700 * S))
    assert place.told == [(at * S, {"1": "firing"}) for at in (30, 330, 630)] + [(930 * S, {"1": "resolved"})]


def test_an_alert_by_itself_goes_on_where_it_was_when_its_route_has_changed() -> None:
    alone = FILE.replace("[team]", "[alert_id]")
    place = Place(Routes.parse(alone))
    place.ask(30 * S, alert())
    nested = "  routes: [{matchers: [severity=high], group_interval: 1m}]"
    place.routes = Routes.parse(alone.replace("repeat_interval: 4h}", f"repeat_interval: 4h,\n{nested}}}"))
    assert place.ask(60 * S) == 30 * S + 4 * H
    place.ask(90 * S, alert(at=70 * S))
    assert place.told == [(30 * S, {"1": "firing"}), (90 * S, {"1": "firing"})]
    assert [key.group.startswith("{}/{severity=") for key in place.log] == [True]


@pytest.mark.parametrize(("reference", "ended"), [("the same", 0), ("another", 1)])
def test_one_of_two_messages_of_an_alert_ends_unless_both_are_one(reference: str, ended: int) -> None:
    routes = Routes.parse(FILE.replace("[team]", "[alert_id]"))
    here, elsewhere = (LogKey(f'{route}:{{alert_id="1"}}', "a", "slack", "#a") for route in ("{}", "{}/{team=gone}"))
    shown = {"1": Shown("firing", 0)}
    log = {here: Sent(30 * S, shown, "the same"), elsewhere: Sent(30 * S, shown, reference)}
    flushes = plan(routes, [alert()], log, now=2 * H)
    told = {flush.group.key: [one.status for one in flush.alerts] for flush in flushes if flush.alerts}
    assert told == ({elsewhere: ["resolved"]} if ended else {})


def test_repetition_is_rounded_up_to_whole_intervals_and_ends_when_someone_has_it() -> None:
    routes = Routes.parse(FILE.replace("4h", "12m"))
    place = Place(routes)
    assert place.ask(30 * S, alert()) == 30 * S + 15 * M
    assert place.ask(29 * S + 15 * M) == 30 * S + 15 * M
    assert place.ask(30 * S + 15 * M) == 30 * S + 30 * M
    assert len(place.told) == 2
    at = 31 * S + 15 * M
    assert place.ask(at, alert("1", "acknowledged", at=at)) is None
    assert place.told[-1] == (at, {"1": "acknowledged"})
    assert place.ask(10 * H) is None


def test_an_acknowledgement_does_not_wait_for_the_interval_but_for_those_that_follow() -> None:
    place = Place()
    place.ask(30 * S, *map(alert, "123"))
    # Somebody acknowledges the group one by one, as another one fires.
    assert place.ask(60 * S, alert("1", "acknowledged", at=60 * S)) == 63 * S
    assert place.ask(61 * S, alert("2", "acknowledged", at=61 * S)) == 63 * S
    assert place.ask(62 * S, alert("3", "acknowledged", at=62 * S)) is None
    assert place.told[1:] == [(62 * S, dict.fromkeys("123", "acknowledged"))]
    assert place.ask(70 * S, alert("4", at=70 * S, fired=70 * S)) == 362 * S
    # One that the place has not heard of waits with the others of its kind.
    assert place.ask(80 * S, alert("4", "acknowledged", at=80 * S, fired=70 * S)) == 362 * S
    place.ask(362 * S)
    place.ask(400 * S, alert("5", at=400 * S, fired=400 * S))
    place.ask(662 * S)
    assert place.ask(700 * S, alert("6", at=700 * S, fired=700 * S)) == 962 * S
    assert place.ask(701 * S, alert("5", "acknowledged", at=701 * S, fired=400 * S)) == 704 * S
    place.ask(704 * S)
    assert place.told[4:] == [(704 * S, dict.fromkeys("12345", "acknowledged") | {"6": "firing"})]
    assert place.ask(710 * S, alert("1", "resolved", at=710 * S)) == 1004 * S


def test_a_place_that_wants_no_ends_hears_of_none_and_of_the_next_alert() -> None:
    place = Place(QUIET)
    place.ask(30 * S, alert())
    assert place.ask(60 * S, alert("1", "resolved", at=60 * S)) is None
    assert [sent.alerts for sent in place.log.values()] == [{}]
    place.ask(2 * M, alert("2", at=90 * S, fired=90 * S))
    assert place.told == [(30 * S, {"1": "firing"}), (2 * M, {"2": "firing"})]


def test_silenced_and_inhibited_ones_are_held_not_lost() -> None:
    place = Place()
    place.ask(30 * S, alert("1"), alert("2", severity="low"))
    silence = Silence((Matcher("severity", "=", "high"),), 0, H, "ann", "maintenance")
    changes = alert("1", "resolved", at=10 * M), alert("2", "acknowledged", at=10 * M, severity="low")
    place.ask(11 * M, *changes, silences=(silence,))
    assert place.told[1:] == [(11 * M, {"2": "acknowledged"})]
    assert place.ask(20 * M, silences=(silence,)) == H
    place.ask(H, silences=(silence,))
    assert place.told[2:] == [(H, {"1": "resolved", "2": "acknowledged"})]
    critical = alert("3", at=2 * H, fired=2 * H, severity="critical")
    place.ask(3 * H, critical, alert("2", "resolved", at=2 * H, severity="low"))
    assert place.told[3:] == [(3 * H, {"3": "firing"})]
    over = msgspec.structs.replace(critical, status="resolved", updated_at=3 * H + M)
    place.ask(4 * H, over)
    assert place.told[4:] == [(4 * H, {"2": "resolved", "3": "resolved"})]


def test_a_muted_route_sends_afterwards() -> None:
    mute = "\ntime_intervals: [{name: night, time_intervals: [{times: [{start_time: 00:00, end_time: 06:00}]}]}]"
    text = "route: {receiver: n, routes: [{receiver: a, mute_time_intervals: [night]}]}\nreceivers:\n  - name: n"
    place = Place(Routes.parse(text + FILE.partition("receivers:")[2].partition("inhibit")[0] + mute))
    assert place.ask(0, alert()) == 30 * S
    assert place.ask(M) == 30 * S + 5 * M
    assert place.ask(6 * H - 1) == 6 * H + 30 * S
    place.ask(6 * H)
    assert place.told == [(6 * H, {"1": "firing"})]


def test_who_was_shown_an_alert_is_shown_its_end_though_labels_and_routes_change() -> None:
    routes = Routes.parse(
        """
route: {receiver: a, group_by: [severity], group_wait: 0s, routes: [{matchers: [severity=critical], receiver: b}]}
receivers: [{name: a, slack_configs: [{}]}, {name: b, slack_configs: [{}], pagerduty_configs: [{}]}]
"""
    )
    place = Place(routes)
    place.ask(0, alert(severity="critical"))
    assert {flush.group.key.channel for _, flush in place.messages} == {"slack", "pagerduty"}
    place.ask(5 * M, alert(at=M, severity="high"))
    # In Slack it is in another group now, which the old one says; PagerDuty's incident lives on.
    said = {(f.group.key.group, f.group.key.channel): f.alerts[0].status for at, f in place.messages if at}
    assert said == {
        ('{}/{severity="critical"}:{severity="critical"}', "slack"): "resolved",
        ('{}/{severity="critical"}:{severity="critical"}', "pagerduty"): "firing",
        ('{}:{severity="high"}', "slack"): "firing",
    }
    place.routes = Routes.parse("route: {receiver: new}\nreceivers: [{name: new}]")
    place.ask(10 * M, alert("1", "resolved", at=6 * M))
    ended = [
        (f.group.key.channel, f.group.key.receiver, f.alerts[0].status) for at, f in place.messages if at == 10 * M
    ]
    assert sorted(ended) == [("pagerduty", "b", "resolved"), ("slack", "a", "resolved")]
    assert place.ask(5 * H) is None


def test_a_thousand_alerts_in_twenty_groups_are_twenty_messages() -> None:
    place = Place()
    place.ask(30 * S, *(alert(str(n), tags={"team": str(n % 20)}) for n in range(1000)))
    assert [len(flush.alerts) for _, flush in place.messages] == [50] * 20


def test_without_a_file_each_alert_is_told_at_once_by_itself_and_never_again() -> None:
    place = Place(Routes.default())
    place.ask(0, alert("1"), alert("2", severity="low"))
    channels = [(f.group.key.channel, [one.id for one in f.alerts]) for _, f in place.messages]
    assert channels == [("pagerduty", ["1"]), ("slack", ["1"]), ("slack", ["2"])]
    assert place.ask(300 * 24 * H) is not None
    assert len(place.messages) == 3
    # It comes down to a severity that would not be sent there: the incident goes on, and so does the message.
    place.ask(301 * 24 * H, alert("1", at=300 * 24 * H, severity="low"))
    assert [(f.group.key.channel, f.alerts[0].status) for _, f in place.messages[3:]] == [
        ("pagerduty", "firing"),
        ("slack", "firing"),
    ]


def test_the_log_never_goes_back() -> None:
    place = Place()
    place.ask(30 * S, alert("1", "acknowledged", at=20 * S))
    place.ask(10 * M, alert("1", at=10 * S), alert("2", at=5 * M))
    (sent,) = place.log.values()
    assert sent.alerts["1"] == Shown("acknowledged", 20 * S)
    # What was read before the last message was sent is no news.
    assert place.ask(11 * M, alert("1", at=10 * S)) == 10 * M + 4 * H


def test_one_that_is_heard_of_late_waits_for_the_interval_too() -> None:
    place = Place()
    place.ask(30 * S, alert("1"))
    assert place.ask(40 * S, alert("2", fired=-H)) == 330 * S
    assert len(place.told) == 1


# A history: seconds between the changes, which alert, what it becomes.
STEPS = {"firing": ["acknowledged", "resolved", "firing"], "acknowledged": ["resolved"], "resolved": ["firing"]}
HISTORIES = st.lists(
    st.tuples(st.integers(1, 400), st.integers(0, 3), st.integers(0, 2)),
    min_size=1,
    max_size=20,
)
TIMINGS = st.tuples(st.sampled_from([0, 30, 120]), st.sampled_from([1, 60, 300]), st.sampled_from([45, 60, 900]))


def _history(steps: list[tuple[int, int, int]]) -> list[Alert]:
    now, alerts, history = 0, {}, []
    for wait, number, choice in steps:
        now += wait * S
        before = alerts.get(number)
        allowed = STEPS[before.status] if before else ["firing"]
        status = allowed[choice % len(allowed)]
        fired = before.timestamp if before and before.status != "resolved" else now
        alerts[number] = alert(str(number), status, at=now, fired=fired, tags={"team": "ab"[number % 2]})
        history.append(alerts[number])
    return history


def _routes(timings: tuple[int, int, int], text: str = FILE) -> Routes:
    for old, new in zip(("30s", "5m", "4h"), timings, strict=True):
        text = text.replace(old, f"{new}s")
    return Routes.parse(text)


def _run(routes: Routes, history: list[Alert], every: int | None, until: int) -> Place:
    """Ask at each change, and when the answer says so; or, if ``every`` is given, also every so many ms."""
    place, now, ahead = Place(routes), 0, list(history)
    following: int | None = None
    while True:
        times = [t for t in (ahead[0].updated_at if ahead else None, following, now + every if every else None) if t]
        if not times or min(times) > until:
            return place
        now = min(times)
        changed = []
        while ahead and ahead[0].updated_at <= now:
            changed.append(ahead.pop(0))
        following = place.ask(now, *changed)


@settings(max_examples=150, deadline=None)
@given(HISTORIES, TIMINGS)
def test_nothing_is_lost_doubled_or_out_of_order(
    steps: list[tuple[int, int, int]], timings: tuple[int, int, int]
) -> None:
    routes, history = _routes(timings), _history(steps)
    wait, interval, repeat = (one * S for one in timings)
    place = _run(routes, history, None, history[-1].updated_at + 2 * (wait + interval) + repeat)
    final = {one.id: one for one in history}
    shown: dict[str, list[Alert]] = defaultdict(list)
    by_group: dict[LogKey, list[tuple[int, Flush]]] = defaultdict(list)
    for at, flush in place.messages:
        by_group[flush.group.key].append((at, flush))
        for one in flush.alerts:
            shown[one.id].append(one)
    for alert_id, one in final.items():
        states = shown[alert_id]
        # Lost: what the place was shown last is not what is, unless it never heard of an alert that is over.
        last = states[-1].status if states else "resolved"
        assert last == one.status
        # Order: never an older state after a newer one, and no state that there was not.
        times = [state.updated_at for state in states]
        assert times == sorted(times)
        assert all(state in history for state in states)
    for messages in by_group.values():
        for (before, first), (at, second) in pairwise(messages):
            begun = any(one.status != "resolved" for one in first.alerts)
            past = {one.id: one.status for one in first.alerts}
            taken = any(one.status == "acknowledged" != past.get(one.id, "acknowledged") for one in second.alerts)
            assert not begun or taken or (at - before) % interval == 0
            if {(one.id, one.updated_at) for one in second.alerts} <= {
                (one.id, one.updated_at) for one in first.alerts
            }:
                assert at - before >= repeat
                assert any(one.status == "firing" for one in second.alerts)


@settings(max_examples=8, deadline=None)
@given(HISTORIES, TIMINGS)
def test_asking_when_the_answer_says_so_is_enough(
    steps: list[tuple[int, int, int]], timings: tuple[int, int, int]
) -> None:
    routes, history = _routes(timings), _history(steps[:8])
    until = history[-1].updated_at + 1000 * S
    seldom, often = (_run(routes, history, every, until) for every in (None, 7 * S))
    assert seldom.told == often.told


@settings(max_examples=40, deadline=None)
@given(HISTORIES, TIMINGS, st.lists(st.integers(1, 5000), min_size=1, max_size=12))
def test_late_or_never_woken_it_still_ends_at_the_newest_state(
    steps: list[tuple[int, int, int]], timings: tuple[int, int, int], waits: list[int]
) -> None:
    place, history = Place(_routes(timings)), _history(steps)
    now = 0
    for wait in [*waits, 10**6]:
        now += wait * S
        place.ask(now, *[one for one in history if one.updated_at <= now])
    place.ask(now + 10**6 * S)
    last = {one.id: one.status for _, flush in place.messages for one in flush.alerts}
    assert all(last.get(one.id, "resolved") == one.status for one in {one.id: one for one in history}.values())


@settings(max_examples=15, deadline=None)
@given(HISTORIES, st.integers(1, 3000), st.integers(1, 3000))
def test_a_silence_delays_and_loses_nothing(steps: list[tuple[int, int, int]], start: int, length: int) -> None:
    silence = Silence((Matcher("team", "=", "a"),), start * S, (start + length) * S, "ann", "test")
    place, now = Place(_routes((0, 60, 900))), 0
    history = _history(steps)
    ahead = list(history)
    following: int | None = None
    while now < 20_000 * S:
        now = min(t for t in (ahead[0].updated_at if ahead else None, following, 20_000 * S) if t)
        changed = [one for one in ahead if one.updated_at <= now]
        ahead = ahead[len(changed) :]
        following = place.ask(now, *changed, silences=(silence,))
    for at, flush in place.messages:
        assert not (silence.starts_at <= at < silence.ends_at and flush.group.labels == {"team": "a"})
    last = {one.id: one.status for _, flush in place.messages for one in flush.alerts}
    assert all(last.get(one.id, "resolved") == one.status for one in {one.id: one for one in history}.values())


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 400), st.integers(0, 2), st.integers(0, 4)), min_size=1, max_size=20))
def test_an_alert_that_moves_between_groups_is_open_once_and_ends_everywhere(steps: list[tuple[int, int, int]]) -> None:
    routes = Routes.parse(
        """
route:
  {receiver: a, group_by: [severity], group_interval: 60s, routes: [{matchers: [severity=high], receiver: b}]}
receivers: [{name: a, slack_configs: [{}]}, {name: b, slack_configs: [{}], pagerduty_configs: [{}]}]
"""
    )
    place, now = Place(routes), 0
    following: int | None = None
    told: dict[tuple[str, str], set[str]] = defaultdict(set)
    for wait, number, choice in [*steps, (10_000, 0, 9)]:
        until = now + wait * S
        while following is not None and following <= until:
            now = following
            following = place.ask(now)
        now = until
        before = place.alerts.get(str(number))
        if choice == 4 and before:
            following = place.ask(now, msgspec.structs.replace(before, status="resolved", updated_at=now))
        elif choice < 4 and (before is None or before.status != "resolved"):
            fired = before.timestamp if before else now
            severity = ["critical", "high", "low", "high"][choice]
            following = place.ask(now, alert(str(number), at=now, fired=fired, severity=severity))
    for key, sent in place.log.items():
        for alert_id, shown in sent.alerts.items():
            if shown.status != "resolved":
                told[alert_id, key.channel].add(key.group)
    for one in place.alerts.values():
        if one.status == "resolved":
            assert not told[one.id, "slack"]
            assert not told[one.id, "pagerduty"]
        else:
            assert len(told[one.id, "slack"]) == 1
            assert f'severity="{one.severity}"}}' in told[one.id, "slack"].pop()
            # An incident goes on when the severity comes down to one that triggers none.
            assert len(told[one.id, "pagerduty"]) <= 1
            assert told[one.id, "pagerduty"] or one.severity != "high"


def shown(*alerts: Alert) -> Alert:
    place = Place()
    place.ask(60 * S, *alerts)
    ((_, flush),) = place.messages
    return folded(flush.group, flush.alerts)


def test_a_group_is_shown_as_one_alert_that_stands_for_all() -> None:
    one = alert("1", severity="info", model_id="m", environment="prod", tags={"team": "t", "zone": "a"}, at=5)
    two = alert("2", "acknowledged", severity="critical", model_id="m", at=7, fired=3, name="y", acknowledged_by="ada")
    both = shown(one, two)
    assert both.id.startswith("group-")
    assert (both.status, both.severity, both.model_id, both.environment) == ("firing", "critical", "m", None)
    assert (both.name, both.tags, both.timestamp, both.updated_at) == ("2 alerts: team=t", {"team": "t"}, 0, 7)
    assert both.description == (
        "• info: x (m, prod), since 1970-01-01T00:00:00Z\n"
        "• critical: y (m), since 1970-01-01T00:00:00Z, acknowledged by ada"
    )
    assert both.acknowledged_by is None
    assert shown(two).acknowledged_by == "ada"
    assert shown(two).status == "acknowledged"


def test_what_a_group_is_known_by_stays_while_its_oldest_alert_does() -> None:
    one, two = alert("1"), alert("2", fired=1)
    assert shown(one).id == shown(one, two).id != shown(two).id


def test_an_alert_by_itself_is_shown_as_it_is() -> None:
    place = Place(Routes.parse(FILE.replace("[team]", "[alert_id]")))
    place.ask(30 * S, alert("1"))
    ((_, flush),) = place.messages
    assert folded(flush.group, flush.alerts) == alert("1")


def test_what_may_have_been_sent_is_sent_at_once_and_what_was_refused_with_its_next_change() -> None:
    place = Place()
    place.ask(30 * S, alert("1"))
    (key,) = place.log
    place.log[key] = Sent(30 * S, {"1": Shown("sending", 0)})
    place.ask(31 * S)
    assert [at for at, _ in place.messages] == [30 * S, 31 * S]
    place.log[key] = Sent(31 * S, {"1": Shown("failed", 0)})
    place.ask(32 * S, alert("1", "acknowledged", at=32 * S))
    assert place.told[-1] == (32 * S, {"1": "acknowledged"})


def test_what_was_refused_is_due_at_the_next_interval_and_then_ever_more_rarely() -> None:
    place = Place()
    place.ask(30 * S, alert("1"))
    (key,) = place.log
    tries = [30 * S]
    while tries[-1] < 10 * H:
        place.log[key] = Sent(tries[-1], {"1": Shown("failed", 0)})
        due = place.ask(tries[-1] + 1)
        assert due is not None
        place.ask(due)
        assert place.told[-1] == (due, {"1": "firing"})
        tries.append(due)
    waits = [later - earlier for earlier, later in pairwise(tries)]
    assert waits[:5] == [5 * M, 10 * M, 20 * M, 40 * M, 60 * M]
    assert set(waits[4:]) == {60 * M}


def test_nothing_waits_longer_since_the_hubs_clock_was_set_back() -> None:
    place = Place()
    place.ask(H, alert("1", at=2 * H, fired=2 * H))
    assert place.told == [(H, {"1": "firing"})]
    place.ask(H + S, alert("1", "acknowledged", at=2 * H + 1, fired=2 * H))
    assert place.told[-1] == (H + S, {"1": "acknowledged"})
    assert place.ask(H + 2 * S, alert("1", "resolved", at=2 * H + 2, fired=2 * H)) == H + S + 5 * M
    place.ask(H + S + 5 * M)
    assert place.told[-1] == (H + S + 5 * M, {"1": "resolved"})
