"""The command ``airis``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from airflow_provider_airis import __version__
from airflow_provider_airis.catalog import BY_STEM, SYSTEMS, System

_CHECK = """\
Asks the system behind a connection whether it can be reached and accepts the credentials. The connection is looked up
as Airflow does: in secrets backends, AIRFLOW_CONN_<CONN_ID>, then the metadata database of AIRFLOW_HOME.
Exit status 0: it works; 1: it does not, and the answer says why."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(
        prog="airis",
        description="AIRIS-MON with Apache Airflow: collects metrics and events into the hub, carries its alerts out.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    commands.add_parser("hub", help="run the reference hub (airis hub --help names its options)", add_help=False)
    commands.add_parser(
        "systems", help="list the systems that this provider connects", description="One line a system."
    )
    check = commands.add_parser(
        "check",
        help="test a configured connection",
        description=_CHECK,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    check.add_argument(
        "conn_id",
        metavar="CONN_ID",
        nargs="?",
        default=BY_STEM["airis"].default_conn_id,
        help="id of the connection (default: %(default)s)",
    )
    if arguments[:1] == ["hub"]:
        return _hub(arguments[1:])
    options = parser.parse_args(arguments)
    return _systems() if options.command == "systems" else _check(options.conn_id)


def _hub(arguments: list[str]) -> int:
    try:
        from airflow_provider_airis.hub.__main__ import main as hub
    except ModuleNotFoundError as error:
        print(f"airis hub needs the package {error.name!r}: pip install 'airflow-provider-airis[hub]'", file=sys.stderr)
        return 1
    return hub(arguments) or 0


def _systems() -> int:
    rows = [("SYSTEM", "DIRECTION", "CONNECTION TYPE", "DEFAULT CONNECTION", "WHAT IT CARRIES")]
    rows += [
        (system.stem, system.flow, system.connection_type, system.default_conn_id, system.summary) for system in SYSTEMS
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _check(conn_id: str) -> int:
    # As `airflow connections test` does: the metadata database is looked up only in this context.
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    os.environ.setdefault("AIRFLOW__LOGGING__LOGGING_LEVEL", "ERROR")
    from airflow.sdk import BaseHook
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        connection = BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        print(
            f"{conn_id}: there is no such connection. Create it in Airflow's UI under Admin, Connections, or set "
            f"AIRFLOW_CONN_{conn_id.upper()}",
            file=sys.stderr,
        )
        return 1
    system = next((system for system in SYSTEMS if system.connection_type == connection.conn_type), None)
    if system is None:
        types = ", ".join(sorted({system.connection_type for system in SYSTEMS}))
        print(f"{conn_id}: has type {connection.conn_type!r}; this provider connects {types}", file=sys.stderr)
        return 1
    works, answer = _hook(system)(conn_id).test_connection()
    print(f"{conn_id} ({system.title}): {answer}", file=sys.stdout if works else sys.stderr)
    return 0 if works else 1


def _hook(system: System) -> type:
    module, _, name = system.hook_class.rpartition(".")
    hook: type = getattr(import_module(module), name)
    return hook


if __name__ == "__main__":
    sys.exit(main())
