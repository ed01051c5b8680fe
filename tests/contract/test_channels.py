"""What every channel must be, and the operator that is made from its row."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_provider_airis.catalog import SYSTEMS, System
from airflow_provider_airis.channels.base import Channel, open_channel
from airflow_provider_airis.channels.view import AlertView
from airflow_provider_airis.errors import RetryableError
from airflow_provider_airis.records import Alert
from airflow_provider_airis.settings import ChannelOptions
from tests.contract.peers import Silent, load, typical

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
@pytest.mark.parametrize(("connections", "channels"), [(0.2, 600.0), (None, 0.2)], ids=["connection's", "default"])
def test_a_receiver_is_waited_for_as_long_as_its_connection_says(system: System, connect, connections, channels):
    case = typical(system)
    with Silent() as peer:
        for conn_id, fields in case.connections(peer.url).items():
            extra = {**fields.pop("extra", {}), **({"timeout": connections} if connections else {})}
            connect(conn_id, **fields, extra=extra)
        target = system.default_conn_id if system.target_is_connection else case.arguments["target"]
        channel = open_channel(system, target, options=ChannelOptions(system), retries=0)
        channel.timeout_s = channels
        with pytest.raises(RetryableError, match=r"in time|gave no answer|got no answer"):
            channel.send(VIEW, None, maybe_sent=False)
        channel.close()
