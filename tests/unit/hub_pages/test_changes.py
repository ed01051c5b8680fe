"""Alerts acknowledged and resolved from their pages, as a browser without JavaScript does; the overview by source."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.conftest import Hub
from tests.unit.hub_pages.test_pages import HOSTILE, words
from tests.unit.hub_pages.test_silences import OTHER, READER, alert, api, browser, form, hub

__all__ = ["alert", "api", "browser", "hub"]


def row(page: str, alert: dict[str, Any]) -> str:
    """What the overview says of an alert."""
    (found,) = [one for one in re.findall(r"<tr.*?</tr>", page, re.S) if f'alert={alert["id"]}"' in one]
    return words(found)


def test_an_alert_is_acknowledged_and_resolved_from_its_page(
    api: httpx2.Client, browser: httpx2.Client, alert: dict[str, Any]
) -> None:
    page = f"/dashboard?alert={alert['id']}"
    fields = form(browser.get(page).text, "Acknowledge")
    assert fields["by"] == "ana"
    answer = browser.post(page, data=fields | {"by": "Jane Doe", "comment": "I look", "change": "acknowledge"})
    assert (answer.status_code, answer.headers["location"]) == (303, page.removeprefix("/"))
    seen = browser.get(page).text
    assert "Acknowledged by Jane Doe I look" in words(seen)
    assert ">Acknowledge</button>" not in seen
    assert re.search(r"Acknowledged by Jane Doe", row(browser.get("/dashboard").text, alert))

    fields = form(seen, "Resolve")
    assert fields["change"] == "resolve"
    assert browser.post(page, data=fields).status_code == 303
    seen = browser.get(page).text
    assert "Resolved by ana" in words(seen)
    assert "<form" not in seen
    now = api.get(f"alerts/{alert['id']}").json()
    assert [(e["change"], e.get("by"), e.get("comment")) for e in now["history"][1:]] == [
        ("acknowledged", "Jane Doe", "I look"),
        ("resolved", "ana", None),
    ]


def test_who_acknowledged_an_alert_has_not_resolved_it(
    api: httpx2.Client, browser: httpx2.Client, alert: dict[str, Any]
) -> None:
    api.post(f"alerts/{alert['id']}/acknowledge", json={"by": "Jane Doe"}).raise_for_status()
    api.post(f"alerts/{alert['id']}/resolve", json={"by": "a rule"}).raise_for_status()
    said = row(browser.get("/dashboard").text, alert)
    assert "Resolved acknowledged by Jane Doe" in said
    assert "Resolved by" not in said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"by": " "}, "say who wants to resolve the alert"),
        ({"change": "delete"}, "'delete' is no change of an alert: acknowledge or resolve"),
        ({"change": HOSTILE}, "is no change of an alert"),
    ],
)
def test_what_is_wrong_is_said_and_changes_nothing(
    api: httpx2.Client, browser: httpx2.Client, alert: dict[str, Any], change: dict[str, str], said: str
) -> None:
    page = f"/dashboard?alert={alert['id']}"
    answer = browser.post(page, data=form(browser.get(page).text, "Resolve") | {"comment": HOSTILE} | change)
    assert answer.status_code == 400
    assert said in words(answer.text)
    assert "<script>alert" not in answer.text
    assert form(answer.text, "Resolve")["comment"] == HOSTILE
    assert api.get(f"alerts/{alert['id']}").json()["status"] == "firing"


def test_no_other_site_can_change_an_alert(
    hub: Hub, api: httpx2.Client, browser: httpx2.Client, alert: dict[str, Any]
) -> None:
    page = f"/dashboard?alert={alert['id']}"
    fields = form(browser.get(page).text, "Resolve")
    with httpx2.Client(base_url=hub.url, auth=("ana", OTHER), timeout=30) as other:
        foreign = form(other.get(page).text, "Resolve")["form_key"]
    for key in ("", "0" * 64, foreign, hub.token):
        assert browser.post(page, data=fields | {"form_key": key}).status_code == 403
    assert browser.post(page, json=fields).status_code == 415
    assert httpx2.post(f"{hub.url}{page}", data=fields).status_code == 401
    with httpx2.Client(base_url=hub.url, auth=("ana", READER), timeout=30) as reader:
        assert ">Resolve<" not in reader.get(page).text
        assert reader.post(page, data=fields).status_code == 403
    assert browser.post("/dashboard?alert=none", data=fields).status_code == 404
    assert api.get(f"alerts/{alert['id']}").json()["status"] == "firing"


def test_a_source_is_a_link_to_what_is_of_it(api: httpx2.Client, browser: httpx2.Client) -> None:
    rule = {"id": "each", "name": "high", "metric": "m", "aggregation": "last", "window_s": 60, "comparator": ">"}
    api.post("rules", json=rule | {"threshold": 1, "severity": "high", "by": ["model"]}).raise_for_status()
    for source in ("aws-churn & co", "gcp-fraud"):
        body = {"timestamp": int(time.time() * 1000) - 60_000, "source": source}
        point = {"name": "m", "value": 7.0, "unit": "", "tags": {"model": source[:3]}}
        assert api.post("metrics/ingest", json=body | {"metrics": [point]}).json()["rejected"] == []
    page = browser.get("/dashboard").text
    for source in ("aws-churn & co", "gcp-fraud"):
        (link,) = re.findall(rf'<a href="(dashboard\?source={source[:3]}[^"]*)">', page)
        page_of_it = browser.get(f"/{link}").text
        (shown,) = re.findall(r'<table class="sources">.*?<tbody>(.*?)</tbody>', page_of_it, re.S)
        assert words(shown).strip().startswith(source)
        assert shown.count("<tr>") == 1
        assert f'value="{source.replace("&", "&amp;")}"' in page_of_it
        # An alert over several sources names none itself, and is found by the series that it was evaluated over.
        assert "1 high alert firing" in words(page_of_it)
    assert browser.get("/dashboard", params={"source": "-"}).text.count("dashboard?source=") == 2
    assert browser.get("/dashboard", params={"source": "GCP"}).text.count("dashboard?source=") == 1
    nothing = browser.get("/dashboard", params={"source": HOSTILE}).text
    assert "No source has" in words(nothing)
    assert "No alert is firing" in words(nothing)
    assert "<script>alert" not in nothing


def test_the_page_says_in_plain_words_that_the_hub_works(browser: httpx2.Client) -> None:
    assert "Hub is working" in words(browser.get("/dashboard").text)


def test_columns_of_deliveries_fit_a_phone() -> None:
    """At 390 px the table has 358 px: what a cell holds without a break, and its padding, fits its column."""
    css = (Path(__file__).parents[3] / "airflow_provider_airis" / "hub" / "static" / "hub.css").read_text()
    narrow = css[css.index("@media (max-width: 720px)") :]
    shown, as_of = (int(re.search(rf"\.{name} {{ width: (\d+)px", narrow)[1]) for name in ("c-shown", "c-as-of"))  # type: ignore[index]
    assert shown >= 15 + 85 + 20
    assert 358 - shown - as_of >= 120
    assert re.search(r"\.deliveries \.num { white-space: normal; }", narrow)
