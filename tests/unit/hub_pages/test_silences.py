"""Silences from the pages, as a browser without JavaScript makes them; and to whom an alert was shown."""

from __future__ import annotations

import html
import json
import re
import time
from collections.abc import Iterator
from itertools import count
from typing import Any

import httpx2
import pytest

from tests.conftest import Hub
from tests.unit.hub_pages.test_pages import HOSTILE, words

READER = "a token that may read"
OTHER = "another one with all scopes"
_numbers = count()


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    folder = tmp_path_factory.mktemp("hub")
    scopes = ["ingest", "read", "alerts", "admin"]
    tokens = {name: {"token": token, "scopes": scopes} for name, token in (("admin", "x" * 16), ("other", OTHER))}
    (folder / "tokens.json").write_text(json.dumps(tokens | {"reader": {"token": READER, "scopes": ["read"]}}))
    hub = Hub(folder)
    yield hub
    hub.server.stop()


@pytest.fixture(scope="module")
def api(hub: Hub) -> Iterator[httpx2.Client]:
    headers = {"Authorization": f"Bearer {hub.token}"}
    with httpx2.Client(base_url=f"{hub.url}/api/v1/", headers=headers, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def browser(hub: Hub) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=hub.url, auth=("ana", hub.token), timeout=30) as client:
        yield client


@pytest.fixture
def alert(api: httpx2.Client) -> dict[str, Any]:
    tags = {"team": "ml", "number": str(next(_numbers))}
    body = {"name": 'it "drifts"', "severity": "high", "model_id": "churn", "tags": tags}
    made: dict[str, Any] = api.post("alerts", json=body).raise_for_status().json()
    return made


def form(page: str, button: str) -> dict[str, str]:
    """What the form with a button sends if nothing is changed in it."""
    (text,) = [one for one in re.findall(r"<form.*?</form>", page, re.S) if f">{button}</button>" in one]
    inputs = [re.search(r'name="(\w+)" value="(.*?)"', tag) for tag in re.findall(r"<(?:input|button) [^>]*>", text)]
    fields = {found[1]: html.unescape(found[2]) for found in inputs if found}
    fields |= {
        name: html.unescape(said) for name, said in re.findall(r'<textarea name="(\w+)".*?>(.*?)</textarea>', text)
    }
    chosen = re.search(r'<select name="(\w+)">.*?value="(\w+)" selected', text)
    return fields | ({chosen[1]: chosen[2]} if chosen else {})


def silences(api: httpx2.Client) -> list[dict[str, Any]]:
    return [one for one in api.get("silences").json() if one["status"]["state"] != "expired"]


def test_an_alert_is_silenced_from_its_page_and_the_silence_ended(
    api: httpx2.Client, browser: httpx2.Client, alert: dict[str, Any]
) -> None:
    page = f"/dashboard?alert={alert['id']}"
    fields = form(browser.get(page).text, "Silence")
    assert fields["by"] == "ana"
    before = time.time()
    answer = browser.post("/silences", data=fields | {"comment": "a rollout"})
    assert (answer.status_code, answer.headers["location"]) == (303, page.removeprefix("/"))
    (silence,) = silences(api)
    assert {(m["name"], m["value"]) for m in silence["matchers"]} == {
        ("alertname", 'it "drifts"'),
        ("model_id", "churn"),
        *alert["tags"].items(),
    }
    assert {m["isRegex"] or not m["isEqual"] for m in silence["matchers"]} == {False}
    assert (silence["createdBy"], silence["comment"]) == ("ana", "a rollout")
    lasting = time.mktime(time.strptime(silence["endsAt"][:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone - before
    assert 3_595 <= lasting <= 3_700
    shown = browser.get(page).text
    assert re.search(r"Silenced until .* UTC by ana: a rollout", words(shown))
    assert "Silence 1 h" not in words(shown)
    assert re.search(r"silenced", words(browser.get("/dashboard").text))
    listed = browser.get("/silences").text
    assert re.search(
        r"1 silence is active .* alertname=\"it \\\"drifts\\\"\" .* ana a rollout 1 (59 min|1 h) ", words(listed)
    )
    fields = form(listed, "Expire")
    assert fields["expire"] == silence["id"]
    answer = browser.post("/silences", data=fields)
    assert (answer.status_code, answer.headers["location"]) == (303, "silences")
    assert silences(api) == []
    assert re.search(
        r"No silence is active .* Recently ended .* ana a rollout \S ", words(browser.get("/silences").text)
    )
    assert "Silence 1 h" in words(browser.get(page).text)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"matchers": "team"}, "'team' is no matcher"),
        ({"matchers": 'team=~"("'}, "is no regular expression"),
        ({"matchers": 'team=~".*"'}, "it silences everything"),
        ({"matchers": ""}, "is no matcher"),
        ({"for": "soon"}, "'soon' is no duration"),
        ({"for": "0s"}, "a silence ends in the future"),
        ({"by": " "}, "who wants the silence"),
        ({"comment": HOSTILE, "matchers": HOSTILE}, "is no matcher"),
    ],
)
def test_what_is_wrong_is_said_beside_the_form_which_stays_filled_in(
    api: httpx2.Client, browser: httpx2.Client, change: dict[str, str], said: str
) -> None:
    fields = form(browser.get("/silences").text, "Silence")
    filled = fields | {"matchers": "team=ml", "comment": "it is why", "for": "4h"} | change
    answer = browser.post("/silences", data=filled)
    assert answer.status_code == 400
    assert said in words(answer.text)
    assert "<script>alert" not in answer.text
    again = form(answer.text, "Silence")
    assert {name: again[name] for name in ("matchers", "comment", "by")} == {
        name: filled[name] for name in ("matchers", "comment", "by")
    }
    assert silences(api) == []


def test_no_other_site_can_send_the_form(hub: Hub, api: httpx2.Client, browser: httpx2.Client) -> None:
    fields = form(browser.get("/silences").text, "Silence") | {"matchers": "team=ml", "comment": "why"}
    with httpx2.Client(base_url=hub.url, auth=("ana", OTHER), timeout=30) as other:
        foreign = form(other.get("/silences").text, "Silence")["form_key"]
        assert other.post("/silences", data=fields).status_code == 403
    for key in ("", "0" * 64, "ü", foreign, hub.token):
        answer = browser.post("/silences", data=fields | {"form_key": key})
        assert (answer.status_code, "reload it" in answer.text) == (403, True)
    assert browser.post("/silences", data={k: v for k, v in fields.items() if k != "form_key"}).status_code == 403
    assert browser.post("/silences", json=fields).status_code == 415
    assert browser.post("/api/v1/silences", json={}).status_code == 401
    assert httpx2.post(f"{hub.url}/silences", data=fields).status_code == 401
    assert hub.token not in browser.get("/silences").text
    assert silences(api) == []
    assert browser.post("/silences", data=fields).status_code == 303
    assert browser.post("/silences", data=fields | {"expire": "none"}).status_code == 404
    (silence,) = silences(api)
    api.delete(f"silences/{silence['id']}").raise_for_status()


def test_who_may_only_read_sees_no_form(hub: Hub, api: httpx2.Client, alert: dict[str, Any]) -> None:
    with httpx2.Client(base_url=hub.url, auth=("ana", READER), timeout=30) as reader:
        for page in ("/silences", f"/dashboard?alert={alert['id']}"):
            shown = reader.get(page)
            assert (shown.status_code, "<form" in shown.text) == (200, False)
        assert reader.post("/silences", data={"matchers": "a=b"}).status_code == 403
    assert silences(api) == []


def test_an_alert_s_page_tells_to_whom_it_was_shown_as_what_and_in_which_group(
    api: httpx2.Client, browser: httpx2.Client, alert: dict[str, Any]
) -> None:
    now, alert_id = int(time.time() * 1000), alert["id"]

    def log(group: str, receiver: str, known_by: str, sent: int, alerts: dict[str, tuple[str, int]]) -> None:
        shown = {name: {"status": status, "at": at} for name, (status, at) in alerts.items()}
        entry = {"group": group, "receiver": receiver, "channel": "slack", "target": f"#{receiver}", "id": known_by}
        entry |= {"reference": f"C:{receiver}", "at": sent, "alerts": shown}
        api.put("notification-log", json={"entries": [entry]}).raise_for_status()

    group = '{}/{severity="high"}:{alertname="<b>", model_id="churn"}'
    log(group, "on-call", "group-1", now - 3_600_000, {alert_id: ("firing", now - 9_000_000)})
    log(group, "on-call", "group-1", now - 1_800_000, {alert_id: ("firing", now - 9_000_000)})
    log("{}:{}", "everybody", alert_id, now - 1_200_000, {alert_id: ("sending", now)})
    log("{}:{}", "everybody", alert_id, now - 600_000, {alert_id: ("failed", now)})
    log(group, "on-call", "group-1", now - 300_000, {alert_id: ("resolved", now - 400_000)})
    # The alert has left the group since.
    log(group, "on-call", "group-1", now - 200_000, {"another": ("firing", now)})
    page = browser.get(f"/dashboard?alert={alert_id}").text
    assert "<b>" not in page
    (table,) = re.findall(r'<table class="deliveries">.*?</table>', page, re.S)
    (rows,) = re.findall(r"<tbody>(.*?)</tbody>", table, re.S)
    told = [
        words(re.sub(r'<span class="sub narrow">.*?</span>', "", row)).split(" UTC")[0] for row in rows.split("</tr>")
    ]
    told = [re.sub(r" \d+ \w+, \d\d:\d\d$", "", row).strip() for row in told if row.strip()]
    assert told == [
        'slack #on-call Resolved on-call alertname="<b>", model_id="churn" C:on-call 5 min ago',
        "slack #everybody Failed everybody by itself C:everybody 10 min ago",
        'slack #on-call Firing on-call alertname="<b>", model_id="churn" 60 min ago',
    ]
