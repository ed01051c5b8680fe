"""What routing needs of the hub, by the hook: the log of what was sent, silences, and the hub's own routes."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import count
from pathlib import Path
from typing import Any

import httpx2
import pytest
from msgspec.structs import replace
from sqlalchemy import insert, select, text, update

from airflow_provider_airis import cli
from airflow_provider_airis.errors import AirisError, PermanentError
from airflow_provider_airis.hooks.airis import AirisHook
from airflow_provider_airis.hub.alerting import notification_log
from airflow_provider_airis.hub.store import engine as engines
from airflow_provider_airis.hub.store import tables as db
from airflow_provider_airis.hub.store.migrations import migrate
from airflow_provider_airis.records import LogEntry, Notification, Shown
from airflow_provider_airis.routes import Matcher, Silence, parse_matchers
from tests.conftest import Hub
from tests.databases import Databases, as_before_migrations

HOUR = 3_600_000
ROUTES = "route:\n  receiver: nobody\nreceivers:\n  - name: nobody\n"
_numbers = count()


@pytest.fixture(scope="module")
def hub(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    folder = tmp_path_factory.mktemp("hub")
    hub = Hub(folder, databases.fresh(folder))
    yield hub
    hub.server.stop()
    databases.drop(hub.database)


@pytest.fixture
def hook(airis: str) -> Iterator[AirisHook]:
    with AirisHook(airis) as hook:
        yield hook


@pytest.fixture
def channel() -> str:
    """A channel of the test's own, since the hub is the module's."""
    return f"channel-{next(_numbers)}"


@pytest.fixture
def client(hub: Hub) -> Iterator[httpx2.Client]:
    headers = {"Authorization": f"Bearer {hub.token}"}
    with httpx2.Client(base_url=f"{hub.url}/api/v1", headers=headers, timeout=30) as client:
        yield client


def now() -> int:
    return int(time.time() * 1000)


def entry(channel: str, **fields: Any) -> LogEntry:
    known = {"group": '{}:{alertname="a"}', "receiver": "r", "channel": channel, "target": "t", "id": "group-1"}
    return LogEntry(**known | {"reference": "C1:1.2", "at": 5, "alerts": {"a": Shown("firing", 4)}} | fields)


def raise_alert(hook: AirisHook) -> str:
    body = {"name": "drift", "severity": "low", "fingerprint": f"routing-{next(_numbers)}"}
    return str(json.loads(hook.request("POST", "/api/v1/alerts", json=body, retry=True).content)["id"])


def refused(answer: httpx2.Response, status: int = 400) -> list[str]:
    """The pointers of a refusal."""
    assert answer.status_code == status, answer.text
    return [error["pointer"] for error in answer.json()["errors"]]


# The log


def test_an_entry_is_kept_by_its_key_until_all_of_it_is_resolved(hook, channel):
    first, other = entry(channel), entry(channel, target="u", id="group-2")
    hook.log_notifications([first, other])
    assert sorted(hook.notification_log(channel), key=lambda e: e.target) == [first, other]
    second = entry(channel, at=9, reference="C1:9", alerts={"a": Shown("resolved", 8), "b": Shown("sending", 8)})
    hook.log_notifications([second])
    assert sorted(hook.notification_log(channel), key=lambda e: e.target) == [second, other]
    ended = replace(second, alerts={name: Shown("resolved", 9) for name in "ab"})
    hook.log_notifications([ended])
    assert hook.notification_log(channel) == [other]
    assert sorted(hook.notification_log(channel, open=False), key=lambda e: e.target) == [ended, other]


def test_an_id_is_an_alert_or_the_members_of_a_group(hook, channel):
    known_by = f"group-{channel}"
    members = {"x": Shown("firing", 1), "y": Shown("resolved", 1)}
    hook.log_notifications(
        [
            entry(channel, id=known_by, alerts=members),
            entry(channel, id=known_by, target="u", alerts={"z": Shown("firing", 1)}),
        ]
    )
    assert set(hook.alert_ids(known_by)) == {"x", "y", "z"}
    assert hook.alert_ids("8aa1") == ["8aa1"]
    assert hook.alert_ids("group-of-nobody") == []


def test_the_log_writes_the_ledger_of_the_alerts_that_are_known(hook, channel):
    ids = [raise_alert(hook) for _ in range(3)]
    alerts = dict(zip(ids, (Shown("firing", 11), Shown("sending", 12), Shown("failed", 13)), strict=True))
    hook.log_notifications([entry(channel, alerts=alerts | {"unheard-of": Shown("firing", 14)})])
    assert [hook.alert(alert_id).notifications for alert_id in ids] == [
        [Notification(channel, "t", "C1:1.2", "firing", 11)],
        [],
        [Notification(channel, "t", "C1:1.2", "failed", 13)],
    ]
    assert hook.notification_log(channel)[0].alerts.keys() == {*ids, "unheard-of"}


def test_a_thousand_entries_are_one_call_and_come_back_in_pages(hook, channel, client):
    ids = [raise_alert(hook) for _ in range(20)]
    entries = [entry(channel, group=f"g{i}", alerts={ids[i % 20]: Shown("firing", i)}) for i in range(1_000)]
    answer = client.put("/notification-log", json={"entries": [as_json(one) for one in entries]})
    assert (answer.status_code, answer.content) == (204, b"")
    assert {one.group: one for one in hook.notification_log(channel)} == {one.group: one for one in entries}
    seen, cursor, pages = [], None, 0
    while pages == 0 or cursor:
        params = {"channel": channel, "open": "true", "limit": 300} | ({"cursor": cursor} if cursor else {})
        page = client.get("/notification-log", params=params).json()
        seen += [one["group"] for one in page["entries"]]
        cursor, pages = page["next_cursor"], pages + 1
    assert (pages, len(seen), len(set(seen))) == (4, 1_000, 1_000)
    assert refused(client.put("/notification-log", json={"entries": [as_json(entries[0])] * 1_001})) == ["/entries"]
    hook.log_notifications(replace(one, at=6) for one in [*entries, entry(channel, group="one more")])
    assert {one.at for one in hook.notification_log(channel)} == {6}


def as_json(one: LogEntry) -> dict[str, Any]:
    alerts = {name: {"status": shown.status, "at": shown.at} for name, shown in one.alerts.items()}
    return {name: getattr(one, name) for name in one.__struct_fields__} | {"alerts": alerts}


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"channel": ""}, "/channel"),
        ({"id": "x" * 257}, "/id"),
        ({"group": 3}, "/group"),
        ({"at": -1}, "/at"),
        ({"at": 1 << 63}, "/at"),
        ({"alerts": []}, "/alerts"),
        ({"alerts": {"a": {"status": "", "at": 1}}}, "/alerts"),
        ({"alerts": {"a": {"status": "firing"}}}, "/alerts"),
        ({"more": 1}, "/more"),
    ],
)
def test_a_bad_entry_is_named_and_nothing_is_written(client, channel, change, pointer):
    good = as_json(entry(channel))
    answer = client.put("/notification-log", json={"entries": [good, good | change]})
    assert refused(answer) == [f"/entries/1{pointer}"]
    assert client.get("/notification-log", params={"channel": channel}).json() == {"entries": [], "next_cursor": None}


@pytest.mark.parametrize(
    ("params", "pointer"), [({"cursor": "!"}, "/cursor"), ({"open": "x"}, "/open"), ({"limit": 0}, "/limit")]
)
def test_a_bad_question_names_the_parameter(client, params, pointer):
    assert refused(client.get("/notification-log", params=params)) == [pointer]


def test_two_writers_of_one_key_leave_what_one_of_them_wrote(hook, channel, airis):
    alert_id = raise_alert(hook)

    def write(number: int) -> None:
        with AirisHook(airis) as own:
            for turn in range(20):
                at = number * 1_000 + turn
                shown = {alert_id: Shown(("firing", "acknowledged")[number], at)}
                own.log_notifications([entry(channel, reference=f"r{at}", at=at, alerts=shown)])

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, range(2)))
    (left,) = hook.notification_log(channel)
    assert left.at in (19, 1_019)
    shown = left.alerts[alert_id]
    assert hook.alert(alert_id).notifications == [Notification(channel, "t", left.reference, shown.status, shown.at)]
    assert (left.reference, shown.at) == (f"r{left.at}", left.at)


def test_what_was_answered_survives_sigkill(tmp_path, connect):
    hub, written, enough = Hub(tmp_path), [], threading.Event()
    connect("killed", conn_type="airis", host=hub.url, password=hub.token)
    try:
        with AirisHook("killed", retries=0) as hook:
            alert_id = raise_alert(hook)
            silence_id = hook.silence(parse_matchers("a=b"), now() + HOUR, "me", "why")
            hook.put_routes(ROUTES)

            def write() -> None:
                with suppress(AirisError):
                    for number in range(100_000):
                        group = {"group": f"g{number}", "reference": str(number)}
                        hook.log_notifications([entry("c", **group, alerts={alert_id: Shown("firing", number)})])
                        written.append(f"g{number}")
                        if len(written) > 50:
                            enough.set()

            with ThreadPoolExecutor(1) as pool:
                writing = pool.submit(write)
                assert enough.wait(30)
                hub.server.kill()
                writing.result(60)
        hub.server = hub.start()
        connect("killed", conn_type="airis", host=hub.url, password=hub.token)
        with AirisHook("killed") as hook:
            held = [one.group for one in hook.notification_log("c")]
            assert set(written) <= set(held)
            assert len(held) - len(written) <= 1
            # The ledger is written with the log, or neither is.
            (row,) = hook.alert(alert_id).notifications
            assert int(row.reference) == len(held) - 1
            assert [silence.id for silence in hook.silences()] == [silence_id]
            assert hook.routes() == ROUTES
    finally:
        hub.server.stop()


def test_an_old_database_is_upgraded(tmp_path, connect):
    engine = as_before_migrations(f"sqlite:///{tmp_path}/hub.db")
    with engine.execution_options(writes=True).begin() as connection:
        for name in ("shown", "notification_log", "silences", "routes"):  # which were not there at first
            connection.execute(text(f"DROP TABLE {name}"))
        texts = dict.fromkeys(("fingerprint", "name", "description", "source"), "")
        state = {"severity": "low", "status": "firing", "timestamp": 1, "updated_at": 1, "tags": "{}", "series": "[]"}
        connection.execute(insert(db.alerts), texts | state | {"id": "a"})
        told = {"alert_id": "a", "channel": "slack", "target": "#a", "reference": "C:1", "status": "firing", "at": 1}
        connection.execute(insert(db.notifications), told)
    engine.dispose()
    hub = Hub(tmp_path)
    try:
        connect("old", conn_type="airis", host=hub.url, password=hub.token)
        with AirisHook("old") as hook:
            assert hook.alert("a").notifications == [Notification("slack", "#a", "C:1", "firing", 1)]
            assert (hook.notification_log("slack"), hook.silences(), hook.routes()) == ([], [], None)
            hook.log_notifications([entry("slack", target="#a", alerts={"a": Shown("acknowledged", 2)})])
            assert hook.alert("a").notifications == [Notification("slack", "#a", "C1:1.2", "acknowledged", 2)]
    finally:
        hub.server.stop()


@pytest.mark.parametrize(
    ("asked", "index"),
    [
        ({"known_by": "group-1"}, "notification_log_id (id=? AND key>?)"),
        ({"channel": "c", "is_open": True}, "notification_log_open (open=? AND channel=? AND key>?)"),
        ({"is_open": True}, "notification_log_open (open=?)"),
    ],
)
def test_the_log_is_asked_by_an_index(tmp_path: Path, asked: dict[str, Any], index: str) -> None:
    engine = engines.connect(f"sqlite:///{tmp_path}/hub.db")
    migrate(engine)
    question = {"channel": None, "known_by": None, "is_open": None, "after": "x", "limit": 5} | asked
    statements = []
    with engine.connect() as connection:
        raw = connection.connection.dbapi_connection
        raw.set_trace_callback(statements.append)
        notification_log.entries(connection, **question)
        raw.set_trace_callback(None)
        (statement,) = [one for one in statements if one.startswith("SELECT")]
        plan = " ".join(row[3] for row in raw.execute(f"EXPLAIN QUERY PLAN {statement}"))
    assert f"USING INDEX {index}" in plan
    engine.dispose()


@pytest.mark.parametrize(
    "ask",
    [
        lambda hook: hook.notification_log("slack"),
        lambda hook: hook.silences(),
        lambda hook: hook.log_notifications([entry("c")]),
    ],
)
def test_a_hub_that_has_none_of_it_says_so(connect, ask):
    class Old(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_PUT = do_GET  # noqa: N815 (http.server's)

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Old) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        connect("old", conn_type="airis", host=f"http://127.0.0.1:{server.server_port}", password="x")
        with AirisHook("old") as hook:
            with pytest.raises(PermanentError) as failure:
                ask(hook)
            assert failure.value.status == 404
            assert hook.routes() is None
        server.shutdown()


# Silences


def silence_body(**fields: Any) -> dict[str, Any]:
    known = {"matchers": [{"name": "team", "value": "ml"}], "createdBy": "me", "comment": "why"}
    return known | {"endsAt": iso(now() + HOUR)} | fields


def iso(at: int) -> str:
    return datetime.fromtimestamp(at / 1000, UTC).isoformat()


def state_of(client: httpx2.Client, silence_id: str) -> dict[str, Any]:
    (found,) = [one for one in client.get("/silences").json() if one["id"] == silence_id]
    return found


def test_a_silence_begins_and_is_ended(hook, client):
    matchers = [Matcher("a", "=", "1"), Matcher("b", "!=", "2"), Matcher("c", "=~", "3|4"), Matcher("d", "!~", "5.*")]
    ends_at, before = now() + HOUR, now()
    silence_id = hook.silence(matchers, ends_at, "me", "why")
    (found,) = [one for one in hook.silences() if one.id == silence_id]
    assert found == Silence(tuple(matchers), found.starts_at, ends_at, "me", "why")
    assert before <= found.starts_at <= now()
    shape = state_of(client, silence_id)
    assert shape["status"] == {"state": "active"}
    assert shape["matchers"][1] == {"name": "b", "value": "2", "isRegex": False, "isEqual": False}
    for _ in range(2):
        hook.expire_silence(silence_id)
        assert silence_id not in [one.id for one in hook.silences()]
    assert state_of(client, silence_id)["status"] == {"state": "expired"}
    with pytest.raises(PermanentError) as failure:
        hook.expire_silence("none")
    assert failure.value.status == 404


def test_the_same_key_makes_one_silence(hook):
    ends_at = now() + HOUR
    made = {hook.silence(parse_matchers("a=b"), ends_at, "me", "why", key="pressed-once") for _ in range(2)}
    assert len(made) == 1


def test_a_silence_may_begin_later_and_not_earlier(hook, client):
    later, past = now() + HOUR, now() - HOUR
    pending = hook.silence(parse_matchers("a=b"), later + HOUR, "me", "why", starts_at=later)
    assert state_of(client, pending)["status"] == {"state": "pending"}
    at_once = hook.silence(parse_matchers("a=b"), later, "me", "why", starts_at=past)
    shape = state_of(client, at_once)
    assert shape["status"] == {"state": "active"}
    assert datetime.fromisoformat(shape["startsAt"]).timestamp() * 1000 > past + HOUR / 2
    hook.expire_silence(pending)
    assert state_of(client, pending)["status"] == {"state": "expired"}


def test_a_silence_is_changed_and_what_was_silent_stays_known(hook, client):
    first = client.post("/silences", json=silence_body()).json()["silenceID"]
    began = state_of(client, first)["startsAt"]
    longer = silence_body(id=first, comment="longer", endsAt=iso(now() + 2 * HOUR))
    assert client.post("/silences", json=longer).json() == {"silenceID": first}
    shape = state_of(client, first)
    assert (shape["comment"], shape["startsAt"]) == ("longer", began)
    other = silence_body(id=first, matchers=[{"name": "team", "value": "other"}])
    second = client.post("/silences", json=other).json()["silenceID"]
    assert second != first
    assert (state_of(client, first)["status"]["state"], state_of(client, second)["status"]["state"]) == (
        "expired",
        "active",
    )
    assert state_of(client, first)["matchers"][0]["value"] == "ml"
    assert refused(client.post("/silences", json=silence_body(id=first)), 409) == ["/id"]
    assert refused(client.post("/silences", json=silence_body(id="none")), 404) == []


def test_silences_that_ended_long_ago_are_not_listed(hub, hook, client):
    silence_id = hook.silence(parse_matchers("a=b"), now() + HOUR, "me", "why")
    hook.expire_silence(silence_id)
    engine = engines.connect(hub.database, busy_timeout=10)
    mine = db.silences.c.id == silence_id
    with engine.execution_options(writes=True).begin() as connection:
        connection.execute(update(db.silences).where(mine).values(ends_at=now() - 5 * 24 * HOUR - 1))
    assert silence_id not in [one["id"] for one in client.get("/silences").json()]
    with engine.connect() as connection:
        assert len(connection.execute(select(db.silences.c.id).where(mine)).all()) == 1
    engine.dispose()


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        (
            {"matchers": [{"name": "a", "value": "b"}, {"name": "a", "value": "(", "isRegex": True}]},
            "/matchers/1/value",
        ),
        ({"matchers": [{"name": "a", "value": "(?=x)", "isRegex": True}]}, "/matchers/0/value"),
        ({"matchers": [{"name": "", "value": "b"}]}, "/matchers/0/name"),
        ({"matchers": [{"name": "a", "value": 1}]}, "/matchers/0/value"),
        ({"matchers": [{"name": "a", "value": ""}]}, "/matchers"),
        ({"matchers": [{"name": "a", "value": ".*", "isRegex": True}]}, "/matchers"),
        ({"matchers": []}, "/matchers"),
        ({"endsAt": "2020-01-01T00:00:00Z"}, "/endsAt"),
        ({"endsAt": "2030-01-01T00:00:00"}, "/endsAt"),
        ({"startsAt": "2031-01-01T00:00:00Z", "endsAt": "2030-01-01T00:00:00Z"}, "/endsAt"),
        ({"createdBy": " "}, "/createdBy"),
        ({"comment": ""}, "/comment"),
    ],
)
def test_a_bad_silence_names_the_field(client, change, pointer):
    assert refused(client.post("/silences", json=silence_body(**change))) == [pointer]


# Routes


def test_the_hub_has_routes_of_its_own(hook, client):
    assert hook.routes() is None
    hook.put_routes(ROUTES)
    assert hook.routes() == ROUTES
    answer = client.get("/routes")
    assert re.match("application/yaml", answer.headers["Content-Type"])
    bad = ROUTES.replace("receiver: nobody", "receiver: somebody\n  group_wait: 30")
    answer = client.put("/routes", content=bad, headers={"Content-Type": "application/yaml"})
    assert len(refused(answer)) == 2
    assert [re.match(r"routes:\d+", error["detail"])[0] for error in answer.json()["errors"]] == [
        "routes:2",
        "routes:3",
    ]
    with pytest.raises(PermanentError, match="routes:3: group_wait: '30' is no duration"):
        hook.put_routes(bad)
    assert client.put("/routes", content=b"\xff", headers={"Content-Type": "application/yaml"}).status_code == 400
    assert client.put("/routes", json={}).status_code == 415
    assert hook.routes() == ROUTES
    hook.put_routes("")
    assert hook.routes() is None


def test_nobody_waits_for_a_routing_file_to_be_read(hook, client):
    routes = "".join(f"    - {{receiver: nobody, matchers: [team=t{n}]}}\n" for n in range(700))
    text = f"route:\n  receiver: nobody\n  routes:\n{routes}receivers:\n  - name: nobody\n"
    with ThreadPoolExecutor(1) as pool:
        put = pool.submit(hook.put_routes, text)
        written = 0
        while not put.done():
            raise_alert(hook)
            written += 1
        put.result()
    assert written > 3
    hook.put_routes("")
    headers = {"Content-Type": "application/yaml"}
    assert client.put("/routes", content="[" * 2_000, headers=headers).status_code == 400
    assert client.put("/routes", content="#" * 1_100_000, headers=headers).status_code == 413


def test_no_regex_of_a_silence_or_a_rule_takes_the_hub(hub, hook, client):
    body = {"name": "drift", "severity": "low", "fingerprint": "long", "tags": {"long": "a" * 1_000}}
    alert_id = json.loads(hook.request("POST", "/api/v1/alerts", json=body, retry=True).content)["id"]
    evil = {"name": "long", "value": "((a+)+|(a|aa)*)+b", "isRegex": True}
    silence_id = client.post("/silences", json=silence_body(matchers=[evil])).json()["silenceID"]
    for page in ("silences", f"dashboard?alert={alert_id}"):
        assert client.get(f"{hub.url}/{page}").status_code == 200
    rule = {"name": "r", "metric": "m", "aggregation": "avg", "window_s": 60, "comparator": ">", "threshold": 1}
    rule |= {"severity": "low", "matchers": [{"tag": "long", "op": "=~", "value": evil["value"]}]}
    rule_id = client.post("/rules", json=rule).raise_for_status().json()["id"]
    point = {"name": "m", "value": 2, "unit": "", "tags": body["tags"]}
    metrics = {"timestamp": now(), "source": "s", "metrics": [point]}
    assert client.post("/metrics/ingest", json=metrics).json()["accepted"] == 1
    client.delete(f"/rules/{rule_id}").raise_for_status()
    hook.expire_silence(silence_id)
    assert refused(client.post("/alerts", json=body | {"tags": {"long": "a" * 1_025}})) == ["/tags"]
    assert refused(client.post("/silences", json=silence_body(matchers=[evil] * 101))) == ["/matchers"]


# The command


def airis_command(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = cli.main(arguments)
    return status, *capsys.readouterr()


def test_the_command_sets_the_hubs_routes(hook, hub, capsys, tmp_path):
    file = tmp_path / "routes.yaml"
    file.write_text(ROUTES)
    assert airis_command(capsys, "routes", "push", str(file)) == (
        0,
        f"{file}: these are the routes of {hub.url} now\n",
        "",
    )
    assert hook.routes() == ROUTES
    file.write_text("route: {}")
    status, out, err = airis_command(capsys, "routes", "push", str(file))
    assert (status, out, err.startswith(f"{file}:1: ")) == (1, "", True)
    assert hook.routes() == ROUTES
    hook.put_routes("")


def test_the_command_silences_lists_and_ends(hook, capsys):
    words = "silence", "add", "team=ml", 'severity=~"low|info"', "--for", "90m", "--by", "ana", "--comment", "a rollout"
    status, out, _ = airis_command(capsys, *words)
    silence_id = out.strip()
    (made,) = [one for one in hook.silences() if one.id == silence_id]
    assert (status, made.matchers) == (0, tuple(parse_matchers('team=ml, severity=~"low|info"')))
    assert 5_400_000 <= made.ends_at - made.starts_at + 5_000 <= 5_410_000
    status, out, _ = airis_command(capsys, "silence", "list")
    (line,) = [line for line in out.splitlines() if line.startswith(silence_id)]
    until = iso(made.ends_at // 1000 * 1000).replace("+00:00", "Z")
    assert line == f'{silence_id}  until {until}  team="ml", severity=~"low|info"  ana: a rollout'
    assert airis_command(capsys, "silence", "expire", silence_id) == (0, "", "")
    assert silence_id not in airis_command(capsys, "silence", "list")[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("add", "team", "--comment", "x"), "'team' is no matcher"),
        (("add", "a=b", "--for", "soon", "--comment", "x"), "'soon' is no duration"),
        (("add", "a=", "--comment", "x"), "is no matcher"),
        (("add", 'a=~".*"', "--comment", "x"), "it silences everything"),
        (("add", "a=b", "--comment", ""), "/comment"),
        (("expire", "none"), "there is no silence 'none'"),
    ],
)
def test_the_command_says_what_is_wrong(airis, capsys, arguments, said):
    status, out, err = airis_command(capsys, "silence", *arguments)
    assert (status, out) == (1, "")
    assert said in err
    assert "Traceback" not in err
