"""What every receiver shows of a group of 1,000 alerts: its labels, whole lines, and how many more there are."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from airflow_provider_airis.catalog import SYSTEMS
from airflow_provider_airis.channels import email, jira, pagerduty, servicenow, slack, teams, webhook
from airflow_provider_airis.channels.texts import cut, cut_lines, lasting, utf16
from airflow_provider_airis.channels.view import AlertView
from airflow_provider_airis.records import Alert
from airflow_provider_airis.routes import Routes, folded
from airflow_provider_airis.routes.groups import groups

URL = "https://hub.example.com/dashboard?alert=0"
ROUTES = """
route:
  receiver: all
  group_by: [alertname, environment]
receivers:
  - name: all
    slack_configs:
      - target: "#alerts"
"""
ALERTS = [
    Alert(
        id=f"{number}",
        name="Latency is high",
        severity="high" if number else "critical",
        status="firing",
        model_id=f"fraud-{number:03}",
        environment="production",
        tags={"team": "risk"},
        timestamp=1795406459603 + number,
        updated_at=1795406459603 + number,
    )
    for number in range(1_000)
]
(GROUP,) = groups(Routes.parse(ROUTES, "routes"), ALERTS, {})
ALL = folded(GROUP, ALERTS)
LINE = re.compile(r"• \w+: Latency is high \(fraud-(\d{3}), production\), since 2026-11-23T04:0\d:\d\dZ")


def texts(part: Any) -> list[str]:
    """Every text in a document."""
    if isinstance(part, str):
        return part.split("\n")
    return [text for value in (part.values() if isinstance(part, dict) else part) for text in texts(value)]


@dataclass(frozen=True)
class Shown:
    """What a receiver is told of an alert, and at least how many of a thousand lines it has room for."""

    of: Callable[[Alert], Any]
    lines: int


SHOWN = {
    "slack": Shown(
        lambda alert: slack.message(AlertView(alert, URL))["attachments"][0]["blocks"][1]["text"]["text"], 30
    ),
    "pagerduty": Shown(
        lambda alert: pagerduty.event(AlertView(alert, URL))["payload"]["custom_details"]["description"], 200
    ),
    "teams": Shown(lambda alert: [b["inlines"][0]["text"] for b in teams.card(AlertView(alert, URL))["body"][2:]], 60),
    "email": Shown(lambda alert: body(alert), 100),
    "servicenow": Shown(lambda alert: servicenow.incident(AlertView(alert, URL))["description"], 40),
    "jira": Shown(lambda alert: jira.text(AlertView(alert, URL)), 300),
    "webhook": Shown(
        lambda alert: json.loads(webhook.body(AlertView(alert, URL), shown=False))["alert"]["description"], 1_000
    ),
}
each = pytest.mark.parametrize("stem", SHOWN)


def body(alert: Alert) -> str:
    text = email.mail(AlertView(alert, URL), sender="a@example.com", to="b@example.com", first=None).get_payload()[0]
    return text.get_payload(decode=True).decode()


def test_every_receiver_is_here():
    assert set(SHOWN) == {system.stem for system in SYSTEMS if system.channel}


@each
def test_a_thousand_alerts_are_whole_lines_and_how_many_more(stem):
    lines = texts(SHOWN[stem].of(ALL))
    listed = [line for line in lines if "•" in line]
    assert all(LINE.fullmatch(line) for line in listed)
    assert [int(LINE.fullmatch(line)[1]) for line in listed] == [*range(len(listed))]
    assert len(listed) >= SHOWN[stem].lines
    more = [line for line in lines if line.startswith("… and ")]
    assert more == ([f"… and {1_000 - len(listed)} more lines"] if len(listed) < 1_000 else [])


def test_a_group_is_known_by_its_id_and_shows_its_labels():
    assert re.fullmatch("group-[0-9a-f]{16}", ALL.id)
    assert pagerduty.event(AlertView(ALL, URL))["dedup_key"] == f"airis-mon-{ALL.id}"
    details = pagerduty.event(AlertView(ALL, URL))["payload"]["custom_details"]
    assert details["tags"] == {"alertname": "Latency is high", "environment": "production", "team": "risk"}
    buttons = slack.message(AlertView(ALL, URL))["attachments"][0]["blocks"][-1]["elements"]
    assert {button.get("value") for button in buttons} == {ALL.id, None}
    assert servicenow.correlation_id(AlertView(ALL, URL)) == jira.label(AlertView(ALL, URL)) == f"airis-mon-{ALL.id}"
    for told in (
        slack.text(AlertView(ALL, URL)),
        pagerduty.event(AlertView(ALL, URL))["payload"]["summary"],
        servicenow.incident(AlertView(ALL, URL))["short_description"],
        jira.issue(AlertView(ALL, URL), project="OPS", issue_type="Task")["summary"],
        " ".join(texts(teams.card(AlertView(ALL, URL))["body"][1])),
        body(ALL),
    ):
        assert "1000 alerts: Latency is high, environment=production" in told


@pytest.mark.parametrize(
    ("value", "most", "shown"),
    [
        ("a\nb", 3, "a\nb"),
        ("x" * 30, 10, "x" * 9 + "…"),
        ("\n".join("abcde" * 4 for _ in range(100)), 85, "\n".join(["abcde" * 4] * 3 + ["… and 97 more lines"])),
        ("short\n" + "x" * 300, 100, "short\n" + "x" * 93 + "…"),
        ("a\n" * 3_000, 40, "\n".join(["a"] * 9 + ["… and 2,992 more lines"])),
    ],
)
def test_text_is_cut_between_lines_where_there_are_many(value, most, shown):
    assert cut_lines(value, most) == shown
    assert len(shown) <= most


@pytest.mark.parametrize("value", ["x" * 30, "🚨" * 30, "x🚨" * 20, "🚨x\n" * 20])
@pytest.mark.parametrize("most", [30, 31, 40])
def test_text_is_cut_to_what_java_and_javascript_count(value, most):
    for cutting in (cut, cut_lines):
        shown = cutting(value, most, utf16)
        assert len(shown.encode("utf-16-le")) // 2 == utf16(shown) <= most
        assert utf16(shown) >= most - 2 or "\n" in value or shown == value


@pytest.mark.parametrize("of", [jira.label, servicenow.correlation_id, lambda v: pagerduty.event(v)["dedup_key"]])
def test_alerts_of_long_ids_are_told_apart(of):
    keys = {
        of(AlertView(msgspec.structs.replace(ALERTS[0], id=f"{'🚨' * 200}{'x' * length}"), URL)) for length in range(9)
    }
    assert len(keys) == 9
    assert all(len(key) <= 255 and key.isascii() for key in keys)


@pytest.mark.parametrize("stem", sorted(SHOWN.keys() - {"webhook"}))
def test_no_receiver_is_sent_control_characters(stem):
    """A webhook's body is the hub's own record."""
    hostile = "a\x00b\x1b[31mc\x9bd\u202ee\u2066f\rg"
    alert = msgspec.structs.replace(ALERTS[0], name=hostile, description=hostile, model_id=hostile)
    for text in texts(json.loads(json.dumps(SHOWN[stem].of(alert)))):
        assert not {*"\x00\x1b\x9b\u202e\u2066\r"} & {*text}


@pytest.mark.parametrize(
    ("milliseconds", "said"), [(0, "0 s"), (-5, "0 s"), (119_999, "119 s"), (120_000, "2 min"), (172_800_000, "2 d")]
)
def test_a_stretch_of_time_has_one_unit(milliseconds, said):
    assert lasting(milliseconds) == said
