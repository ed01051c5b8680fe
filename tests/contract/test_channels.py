"""What every channel must be, and the operator that is made from its row."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from airflow_provider_airis.catalog import SYSTEMS, System
from airflow_provider_airis.channels.base import Channel, open_channel
from airflow_provider_airis.channels.view import AlertView
from airflow_provider_airis.errors import PermanentError, RetryableError
from airflow_provider_airis.records import Alert
from airflow_provider_airis.settings import ChannelOptions
from sandbox.airflow import free_port
from tests.contract.peers import Silent, always, load, secrets, shared, typical
from tests.replay import FIXTURES

CHANNELS = [system for system in SYSTEMS if system.channel_class]
each = pytest.mark.parametrize("system", CHANNELS, ids=lambda system: system.stem)
FOLDER = Path(inspect.getfile(Channel)).parent
VIEW = AlertView(
    Alert(id="a1", name="n", severity="high", status="firing", timestamp=0, updated_at=0), "https://hub.example.com"
)
IMPORTS = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(f"airflow_provider_airis.channels.{name}")
kept = ("airflow_provider_airis.channels", "airflow_provider_airis.catalog")
known = {"airflow_provider_airis", "airflow_provider_airis.errors", "airflow_provider_airis.records"}
print([n for n in sys.modules if n == "airflow" or n.startswith(("airflow.", "slack_sdk", "httpx"))
       or n.startswith("airflow_provider_airis") and not n.startswith(kept) and n not in known])
"""


def test_channels_know_neither_airflow_nor_who_calls_them():
    modules = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")
    assert {system.stem for system in CHANNELS} < set(modules)
    done = subprocess.run([sys.executable, "-c", IMPORTS, *modules], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@each
def test_a_channel_is_made_from_its_row_and_opens_nothing(system: System):
    channel = open_channel(system, system.channel.target, options=ChannelOptions(system))
    assert isinstance(channel, Channel)
    assert channel.conn_id == system.default_conn_id
    assert {*ChannelOptions(system)} == {option.name for option in system.channel.options}
    assert "hook" not in vars(channel)


@each
def test_an_operator_takes_what_its_row_declares(system: System):
    operator = load(str(system.notify_class))
    declared = [option.name for option in system.channel.options]
    conn = [] if system.target_is_connection else [f"{system.default_conn_id.removesuffix('_default')}_conn_id"]
    taken = inspect.signature(operator.__init__).parameters
    assert [name for name in taken if name not in ("self", "kwargs")] == conn + declared
    given = dict.fromkeys([*conn, *declared], "given")
    arguments = typical(system).arguments
    made = operator(task_id="made", **{**arguments, **given})
    assert {name: made.channel.options[name] for name in declared} == dict.fromkeys(declared, "given")
    assert made.channel.conn_id == ("given" if conn else made.target)
    assert operator(task_id="default", **arguments).channel.retries == type(made.channel).hook_retries
    operator.partial(task_id="mapped", **given).expand(alert_id=["1", "2"])
    with pytest.raises(TypeError, match="unheard_of"):
        operator(task_id="wrong", **arguments, unheard_of=1)


@each
def test_a_check_says_which_option_is_none_of_its_type_and_asks_nobody(system: System, monkeypatch, connect):
    for option in system.channel.options:
        wrong = {"json": "[1]", "boolean": "perhaps", "integer": "many"}.get(option.type)
        if wrong:
            monkeypatch.setenv(f"AIRFLOW__{system.section}__{option.name}".upper(), wrong)
            with pytest.raises(PermanentError, match=rf"{option.name} in section \[{system.section}\] is n"):
                opened(system, "http://127.0.0.1:9", connect).check()
            monkeypatch.undo()


def opened(system: System, url: str, connect: Any, **extra: Any) -> Channel:
    """The system's channel on its typical connections, leading to ``url``, without repetitions."""
    case = typical(system)
    for conn_id, fields in case.connections(url).items():
        connect(conn_id, **fields | {"extra": {**fields.get("extra", {}), **extra}})
    target = system.default_conn_id if system.target_is_connection else case.arguments["target"]
    return open_channel(system, target, options=ChannelOptions(system), retries=0)


def told(error: Exception, caplog: pytest.LogCaptureFixture, system: System, url: str) -> str:
    """All that could be read of an error, in which no secret may be, nor a part of one that is a URL."""
    text = str(error) + repr(vars(error)) + caplog.text
    for secret in secrets(typical(system).connections(url)):
        parts = urlsplit(secret)
        assert not [
            part for part in (secret, parts.path, *dict(parse_qsl(parts.query)).values()) if part[12:] and part in text
        ]
    return text


REFUSALS = [
    pytest.param(system, row, id=f"{system.stem}-{row['about']}")
    for system in CHANNELS
    if (FIXTURES / system.stem / "refusals.json").exists()
    for row in (*shared(system, "refusals.json"), *json.loads((FIXTURES / "refusals.json").read_text()))
]


@pytest.mark.parametrize(("system", "row"), REFUSALS)
def test_what_a_receiver_answers_is_passing_or_permanent(system: System, row, connect, caplog):
    caplog.set_level("DEBUG")
    with always(system, row["response"]) as server:
        channel = opened(system, server.url, connect)
        with pytest.raises({"retryable": RetryableError, "permanent": PermanentError}[row["error"]]) as raised:
            channel.send(VIEW, None, maybe_sent=False)
        channel.close()
    assert row["says"] in told(raised.value, caplog, system, server.url)
    assert getattr(raised.value, "retry_after", None) == row.get("retry_after")


@each
def test_a_receiver_that_is_not_there_may_come_back(system: System, connect, caplog):
    caplog.set_level("DEBUG")
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(RetryableError, match=r"could not connect|got no answer|gave no answer") as absent:
        opened(system, url, connect).send(VIEW, None, maybe_sent=False)
    told(absent.value, caplog, system, url)


MISTAKES = [
    pytest.param(system, row, id=f"{system.stem}-{row['says'][:40]}")
    for system in CHANNELS
    if (FIXTURES / system.stem / "mistakes.json").exists()
    for row in shared(system, "mistakes.json")
]


@pytest.mark.parametrize(("system", "row"), MISTAKES)
def test_a_connection_that_cannot_be_used_says_why(system: System, row, connect):
    connect(system.default_conn_id, conn_type=system.connection.type, **row["fields"])
    works, why = load(system.hook_class)().test_connection()
    assert not works
    assert row["says"] in why
    assert "topsecret" not in why


@each
@pytest.mark.parametrize(("connections", "channels"), [(0.2, 600.0), (None, 0.2)], ids=["connection's", "default"])
def test_a_receiver_is_waited_for_as_long_as_its_connection_says(
    system: System, connect, caplog, connections, channels
):
    caplog.set_level("DEBUG")
    with Silent() as peer:
        channel = opened(system, peer.url, connect, **({"timeout": connections} if connections else {}))
        channel.timeout_s = channels
        with pytest.raises(RetryableError, match=r"in time|gave no answer|got no answer") as silent:
            channel.send(VIEW, None, maybe_sent=False)
        channel.close()
    told(silent.value, caplog, system, peer.url)
