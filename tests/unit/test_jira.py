"""The Jira issue of an alert: its limits, its markup, its label; and how it is looked for."""

from __future__ import annotations

import pytest

from airflow_provider_airis.channels.jira import issue, mark, text
from airflow_provider_airis.channels.texts import utf16
from airflow_provider_airis.channels.view import AlertView
from airflow_provider_airis.hooks.jira import JiraHook
from sandbox.jira import _check
from tests.views import URL, alert


@pytest.mark.parametrize("filler", ["x", "🚨", "\x00", "\n", "{noformat}", " "])
def test_text_of_any_length_makes_an_issue_that_jira_takes(filler):
    long = filler * 50_000
    subject = alert(id=f"a{filler}1" * 100, name=long, description=long, model_id=long)
    _check(issue(AlertView(subject, URL), project="OPS", issue_type="Task"))
    assert utf16(text(AlertView(subject, URL))) <= 32_767


def test_an_issue_shows_the_alert():
    fields = issue(
        AlertView(alert(name="Latency\nis high", description="p90 over 2 s"), URL), project="OPS", issue_type="Incident"
    )
    assert fields["project"] == {"key": "OPS"}
    assert fields["issuetype"] == {"name": "Incident"}
    assert fields["summary"] == "[HIGH] Latency is high"
    assert fields["labels"] == ["airis-mon", "airis-mon-a1"]
    assert "p90 over 2 s" in fields["description"]
    assert fields["description"].endswith(f"[View Dashboard|{URL}] (airis-mon-a1, firing, 0)")


def test_what_an_alert_says_is_no_markup():
    shown = text(
        AlertView(alert(description="{noformat} [~admin] !http://evil.example.com/x.png! {NOFORMAT:title=x}"), URL)
    )
    before, inside, after = shown.split("{noformat}")
    assert before == ""
    assert "[~admin]" in inside
    assert "admin" not in after


def test_every_state_has_its_mark():
    states = [alert(), alert(status="acknowledged", updated_at=1), alert(status="resolved", updated_at=2)]
    assert len({mark(AlertView(state, URL)) for state in states}) == 3


def test_a_query_cannot_be_broken_out_of(httpserver, connect):
    httpserver.expect_request("/rest/api/2/serverInfo").respond_with_json({"deploymentType": "DataCenter"})
    httpserver.expect_request("/rest/api/2/search").respond_with_json({"issues": []})
    connect("jira_default", conn_type="airis_jira", host=httpserver.url_for(""), password="a-personal-token")
    with JiraHook() as hook:
        assert hook.find('OPS" OR project = "HR', "a\\") is None
    request, _ = httpserver.log[-1]
    assert request.args["jql"] == 'project = "OPS\\" OR project = \\"HR" AND labels = "a\\\\" ORDER BY created DESC'
    assert request.headers["Authorization"] == "Bearer a-personal-token"
