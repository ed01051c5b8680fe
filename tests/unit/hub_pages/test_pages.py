"""The hub's pages, read as a browser gets them from the hub's own process."""

from __future__ import annotations

import html
import json
import re
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.conftest import Hub

MINUTE = 60_000
HOSTILE = "</script><script>alert(1)</script>\"'&"


@pytest.fixture(scope="module")
def api(hub: Hub) -> Iterator[httpx2.Client]:
    headers = {"Authorization": f"Bearer {hub.token}"}
    with httpx2.Client(base_url=f"{hub.url}/api/v1/", headers=headers, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def browser(hub: Hub) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=hub.url, auth=("anybody", hub.token), timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def fired(api: httpx2.Client, empty: str) -> dict[str, Any]:
    """An alert on one of two endpoints, fired on its newest point, acknowledged and delivered."""
    rule = {
        "id": "latency",
        "name": "slow",
        "metric": "modellatency",
        "matchers": [{"tag": "endpoint_name", "op": "=", "value": "ranker"}],
        "aggregation": "last",
        "window_s": 60,
        "comparator": ">",
        "threshold": 500_000,
        "severity": "critical",
        "labels": {"model_id": "{endpoint_name}"},
    }
    api.post("rules", json=rule).raise_for_status()
    now = int(time.time() * 1000)
    for name, values in {"ranker": (120_000, 130_000, 812_000), "other": (77_000, 78_000, 79_000)}.items():
        for age, value in zip((3, 2, 1), values, strict=True):
            point = {
                "name": "modellatency",
                "value": value,
                "unit": "Microseconds",
                "tags": {"endpoint_name": name, "statistic": "p90", "<b>": HOSTILE},
            }
            body = {"timestamp": now - age * MINUTE, "source": f"aws-{name}", "metrics": [point]}
            assert api.post("metrics/ingest", json=body).json()["rejected"] == []
    (alert,) = api.get("alerts").json()["alerts"]
    api.post(f"alerts/{alert['id']}/acknowledge", json={"by": "ana", "comment": HOSTILE}).raise_for_status()
    delivery = {"reference": "C1:17.1", "status": "firing"}
    api.put(f"alerts/{alert['id']}/notifications/slack/%23alerts", json=delivery).raise_for_status()
    return alert


@pytest.fixture(scope="module")
def empty(browser: httpx2.Client) -> str:
    """The overview of a hub that holds nothing yet."""
    return browser.get("/dashboard").raise_for_status().text


def chart(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="chart-data">(.*?)</script>', page, re.S)
    assert found
    return json.loads(found[1])


def words(page: str) -> str:
    """What a reader sees."""
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page)))


def test_an_empty_hub_says_what_to_do(empty: str) -> None:
    assert "No data yet" in empty
    assert "airis_sync_sagemaker" in empty
    assert "No alert is firing" in empty


def test_overview_shows_alerts_and_sources(browser: httpx2.Client, fired: dict[str, Any]) -> None:
    page = browser.get("/dashboard").text
    assert f'href="dashboard?alert={fired["id"]}"' in page
    seen = words(page)
    assert "None firing, 1 acknowledged" in seen
    assert "Critical" in seen
    assert "812 ms" in seen
    assert "> 500 ms" in seen
    assert re.search(r"aws-other 1 3 0\.1 1 min ago", seen)
    assert re.search(r"aws-ranker 1 3 0\.1 1 min ago", seen)


def test_alert_page_draws_its_own_series_in_the_threshold_s_unit(browser: httpx2.Client, fired: dict[str, Any]) -> None:
    drawn = chart(browser.get("/dashboard", params={"alert": fired["id"]}).text)
    (series,) = drawn["series"]
    assert series["label"] == "p90"
    assert [value for _, value in series["points"]] == [120, 130, 812]
    assert (drawn["threshold"], drawn["suffix"]) == (500, " ms")
    assert [mark["change"] for mark in drawn["marks"]] == ["fired", "acknowledged"]
    assert drawn["start"] < series["points"][0][0] < fired["timestamp"] <= drawn["end"]


def test_alert_page_tells_history_and_deliveries(browser: httpx2.Client, fired: dict[str, Any]) -> None:
    seen = words(browser.get("/dashboard", params={"alert": fired["id"]}).text)
    assert re.search(r"Fired at 812 ms .* UTC", seen)
    assert "Acknowledged by ana" in seen
    assert re.search(r"slack #alerts Firing C1:17\.1", seen)


def test_what_others_wrote_stays_text(api: httpx2.Client, browser: httpx2.Client, fired: dict[str, Any]) -> None:
    alert = api.post("alerts", json={"name": HOSTILE, "severity": "info", "tags": {HOSTILE: HOSTILE}}).json()
    for page in (
        browser.get("/dashboard").text,
        browser.get("/dashboard", params={"alert": alert["id"]}).text,
        browser.get("/dashboard", params={"alert": fired["id"]}).text,
        browser.get("/dashboard", params={"alert": HOSTILE}).text,
    ):
        assert "<script>alert" not in page
        assert "<b>" not in page
        assert html.escape("<script>alert(1)</script>") in page


def test_pages_need_a_token_that_may_read(hub: Hub) -> None:
    for auth in (None, ("admin", "wrong")):
        refused = httpx2.get(f"{hub.url}/dashboard", auth=auth)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"].startswith("Basic ")
        assert refused.headers["content-type"].startswith("text/html")
    bearer = httpx2.get(f"{hub.url}/dashboard", headers={"Authorization": f"Bearer {hub.token}"})
    assert bearer.status_code == 200


def test_an_unknown_alert_is_a_page_that_leads_back(browser: httpx2.Client) -> None:
    missing = browser.get("/dashboard", params={"alert": "nope"})
    assert missing.status_code == 404
    assert "No such alert" in missing.text
    assert 'href="dashboard"' in missing.text


def test_pages_load_nothing_from_elsewhere_and_run_nothing_inline(
    hub: Hub, browser: httpx2.Client, fired: dict[str, Any]
) -> None:
    for path in ("/dashboard", f"/dashboard?alert={fired['id']}", "/dashboard?alert=nope", "/silences"):
        answer = browser.get(path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"
        assert not re.search(r"https?://|\sstyle=|\son\w+=", answer.text)
        assert not re.search(r"<script(?![^>]*(src=|application/json))", answer.text)
        files = re.findall(r'(?:src|href)="(dashboard/static/[^"]+)"', answer.text)
        assert files
        for file in files:
            loaded = httpx2.get(f"{hub.url}/{file}")
            assert loaded.status_code == 200
            assert "immutable" in loaded.headers["cache-control"]
            again = httpx2.get(f"{hub.url}/{file}", headers={"If-None-Match": loaded.headers["etag"]})
            assert again.status_code == 304


@pytest.mark.parametrize("name", ["../pages.py", "%2e%2e/pages.py", "nope.js", "vendor/uplot/LICENSE"])
def test_only_the_pages_files_are_served(hub: Hub, name: str) -> None:
    assert httpx2.get(f"{hub.url}/dashboard/static/{name}").status_code == 404
