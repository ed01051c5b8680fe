"""The stand-ins of Teams, ServiceNow, Jira, mail and webhooks refuse what the real ones refuse."""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from sandbox.process import serve

SECRET = "the-secret-of-all-of-them"
WORKFLOW = "/workflows/sandbox/triggers/manual/paths/invoke"
SIGNED = f"{WORKFLOW}?api-version=1&sig={'s' * 43}"
TABLE = "/api/now/table/incident"
USER = ("airis", SECRET)


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    secret = tmp_path_factory.mktemp("secrets") / "secret"
    secret.write_text(SECRET)
    options = {"webhook": "secret", "teams": "", "email": "password", "servicenow": "password", "jira": "token"}
    commands = {
        stem: (f"sandbox.{stem}", *((f"--{option}-file", str(secret)) if option else ()))
        for stem, option in options.items()
    }
    with serve(commands) as running:
        yield {stem: server.url for stem, server in running.items()}


@pytest.mark.parametrize("signature", ["", "t=1,v1=" + "0" * 64, f"t=99999999999,v1={'0' * 64}"])
def test_a_webhook_that_is_not_signed_now_is_refused(urls, signature):
    answer = httpx2.post(f"{urls['webhook']}/alerts", content=b"{}", headers={"X-Airis-Signature": signature})
    assert answer.status_code == 401


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (f"{WORKFLOW}?sig={'s' * 43}", {}, 400),
        (f"{WORKFLOW}?api-version=1", {}, 401),
        (SIGNED.replace("sandbox", "gone"), {}, 404),
        (SIGNED, {"text": "no card"}, 400),
        (SIGNED, {"text": "x" * 28 * 1024}, 413),
    ],
)
def test_a_workflow_refuses_what_is_no_card_or_not_signed(urls, path, body, status):
    assert httpx2.post(f"{urls['teams']}{path}", json=body).status_code == status


@pytest.mark.parametrize(
    ("auth", "body", "status", "says"),
    [
        (("airis", "wrong"), {"short_description": "x"}, 401, "not authenticated"),
        (USER, {}, 403, "mandatory: Short description"),
        (USER, {"short_description": "x", "state": "6"}, 403, "mandatory: Resolution code, Resolution notes"),
    ],
)
def test_servicenow_refuses_what_its_policies_refuse(urls, auth, body, status, says):
    answer = httpx2.post(f"{urls['servicenow']}{TABLE}", json=body, auth=auth)
    assert (answer.status_code, says in answer.text) == (status, True)


def test_servicenow_cuts_ignores_and_leaves_out(urls):
    url = f"{urls['servicenow']}{TABLE}"
    made = httpx2.post(url, json={"short_description": "x" * 500, "unheard_of": 1}, auth=USER).json()["result"]
    assert len(made["short_description"]) == 160
    assert "unheard_of" not in made
    found = httpx2.get(url, params={"sysparm_query": "unheard_of=1"}, auth=USER).json()["result"]
    assert made in found
    assert httpx2.get(f"{url}/none", auth=USER).status_code == 404


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"project": {"key": "HR"}}, "valid project is required"),
        ({"issuetype": {"name": "Epic"}}, "issue type selected is invalid"),
        ({"summary": "two\nlines"}, "Summary must be one line"),
        ({"description": "x" * 32_768}, "32,767"),
        ({"labels": ["a b"]}, "contains spaces"),
        ({"colour": "red"}, "cannot be set"),
    ],
)
def test_jira_refuses_fields(urls, fields, says):
    good: dict[str, Any] = {"project": {"key": "OPS"}, "issuetype": {"name": "Task"}, "summary": "x", "labels": []}
    answer = httpx2.post(f"{urls['jira']}/rest/api/2/issue", json={"fields": good | fields}, auth=USER)
    assert (answer.status_code, says in answer.text) == (400, True)


def test_jira_cloud_and_data_center_search_at_addresses_of_their_own(urls):
    search = f"{urls['jira']}/rest/api/2/search"
    token = {"Authorization": f"Bearer {SECRET}"}
    jql = {"jql": 'project = "OPS" AND labels = "x" ORDER BY created DESC'}
    assert [httpx2.get(url, params=jql, auth=USER).status_code for url in (search, f"{search}/jql")] == [410, 200]
    assert [httpx2.get(url, params=jql, headers=token).status_code for url in (search, f"{search}/jql")] == [200, 404]
    assert httpx2.get(search, params=jql).status_code == 401


def test_a_mail_server_wants_encryption_then_a_login_then_a_whole_mail(urls):
    address = urlsplit(urls["email"])
    with smtplib.SMTP(address.hostname or "", address.port or 0, timeout=10) as client:
        client.ehlo()
        assert not client.has_extn("auth")
        assert client.docmd("AUTH", "PLAIN AGEAYg==")[0] == 538
        client.starttls(context=ssl._create_unverified_context())
        client.ehlo()
        assert client.mail("a@example.com")[0] == 530
        with pytest.raises(smtplib.SMTPAuthenticationError):
            client.login("airis", "wrong")
        client.login("airis", SECRET)
        with pytest.raises(smtplib.SMTPDataError, match="no From, To, Date, Message-ID"):
            client.sendmail("a@example.com", ["b@example.com"], "Subject: x\r\n\r\nbody")
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            client.sendmail("a@example.com", ["b@nowhere.example.com"], "Subject: x\r\n\r\nbody")
