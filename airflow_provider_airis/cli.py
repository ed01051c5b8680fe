"""The command ``airis``."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from datetime import date
from importlib import import_module

from airflow_provider_airis import __version__
from airflow_provider_airis.catalog import BY_STEM, SYSTEMS, System

_PLAN = """\
Lists what the source has, by its free calls, and prints what a backfill of these UTC days would read: runs, series,
calls, points, dollars, how wide the points still are, and what the source has deleted. Reads no data.
Exit status 0: planned; 1: not, or not completely, and the answer says why."""
_REGISTER = """\
Makes a secret, tells it to the companion, and registers the companion's address at AIRIS-MON by
POST /api/v1/integrations/webhooks. The companion's token needs the scope admin.
Exit status 0: AIRIS-MON posts its alerts there; 1: it does not, and the answer says why."""
_CHECK = """\
Asks the system behind a connection whether it can be reached and accepts the credentials. The connection is looked up
as Airflow does: in secrets backends, AIRFLOW_CONN_<CONN_ID>, then the metadata database of AIRFLOW_HOME.
Exit status 0: it works; 1: it does not, and the answer says why."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status, as a shell has it for a command that a signal ended."""
    try:
        try:
            return _run(arguments)
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # Whoever read has gone; what is left in the buffer must not be written at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def _run(arguments: Sequence[str] | None) -> int:
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments[:1] == ["hub"]:
        return _hub(arguments[1:])
    options = parser().parse_args(arguments)
    if options.command == "plan-backfill":
        return _plan_backfill(options)
    if options.command in ("routes", "silence"):
        from airflow_provider_airis.routes.command import ACTIONS

        if options.action not in ("check", "test"):
            _prepare()
        return ACTIONS[options.command, options.action](options)
    if options.command == "webhooks":
        from airflow_provider_airis.companion import register

        _prepare()
        return register(options)
    return _systems() if options.command == "systems" else _check(options.conn_id)


def parser() -> argparse.ArgumentParser:
    """What the command takes; those of ``hub`` are its own."""
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
    routes = commands.add_parser(
        "routes", help="check a routing file, and whom an alert reaches", description="Routing files of alerts."
    ).add_subparsers(dest="action", metavar="ACTION", required=True)
    tree = routes.add_parser(
        "check",
        help="print the tree of a routing file, or all that is wrong with it",
        description="Exit status 0: the file is right; 1: it is not, and every mistake is printed with its line.",
    )
    reached = routes.add_parser(
        "test",
        help="print the receivers that an alert reaches, each with its group",
        description="Follows an alert through a routing file. Exit status 1: the file is wrong.",
    )
    push = routes.add_parser(
        "push",
        help="make a routing file the hub's own",
        description="The Dags without [airis] routes_file take it from there. Exit status 1: it is wrong, or refused.",
    )
    for action in (tree, reached, push):
        action.add_argument("file", metavar="FILE", help="the routing file, YAML")
    reached.add_argument(
        "--alert",
        nargs="+",
        action="extend",
        default=[],
        type=_label,
        metavar="LABEL=VALUE",
        help="the alert's labels: alertname=x severity=critical model_id=y, and its tags",
    )
    reached.add_argument("--json", action="store_true", help="print the answer as JSON")
    silence = commands.add_parser(
        "silence", help="silence alerts for a while", description="Silences of alerts, which the hub keeps."
    ).add_subparsers(dest="action", metavar="ACTION", required=True)
    add = silence.add_parser("add", help="silence the alerts that fit all matchers, and print the silence's id")
    add.add_argument("matchers", nargs="+", metavar="MATCHER", help="alertname=x, 'severity=~\"low|info\"'")
    add.add_argument("--for", dest="lasting", default="1h", metavar="DURATION", help="30m, 2d (default: %(default)s)")
    add.add_argument("--comment", required=True, help="why")
    add.add_argument("--by", default=os.environ.get("USER", "airis"), help="who wants it (default: %(default)s)")
    listed = silence.add_parser("list", help="print the silences that hold now, or will")
    expire = silence.add_parser("expire", help="end a silence now")
    expire.add_argument("id", metavar="ID", help="the silence's id")
    for action in (push, add, listed, expire):
        action.add_argument(
            "--conn-id", metavar="CONN_ID", help="connection of the hub that has the alerts, if not the configured one"
        )
    register = (
        commands.add_parser(
            "webhooks", help="let AIRIS-MON post its alerts to a companion hub", description="Webhooks of AIRIS-MON."
        )
        .add_subparsers(dest="action", metavar="ACTION", required=True)
        .add_parser(
            "register",
            help="register a companion's address, with a new secret, at an AIRIS-MON without a change feed",
            description=_REGISTER,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
    )
    register.add_argument(
        "--conn-id",
        metavar="CONN_ID",
        default=BY_STEM["airis"].default_conn_id,
        help="connection of the AIRIS-MON whose alerts are meant (default: %(default)s)",
    )
    register.add_argument(
        "--companion", metavar="CONN_ID", help="connection of the companion hub, if not [airis] alerts_conn_id"
    )
    register.add_argument(
        "--url", help="base URL at which AIRIS-MON reaches the companion, if not the companion's own (a proxy's, say)"
    )
    register.add_argument("--name", help="what the companion calls AIRIS-MON (default: CONN_ID)")
    register.add_argument("--again", action="store_true", help="register once more, with a new secret")
    backfill = commands.add_parser(
        "plan-backfill",
        help="what a backfill would read and cost, before it does",
        description=_PLAN,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sources = [system.stem for system in SYSTEMS if "reconcile" in system.dags and system.metrics]
    backfill.add_argument("--source", required=True, choices=sources, help="the system to read")
    backfill.add_argument("--from", dest="first", required=True, type=_day, metavar="DAY", help="first day, 2026-11-01")
    backfill.add_argument("--to", dest="last", required=True, type=_day, metavar="DAY", help="last day, inclusive")
    backfill.add_argument("--conn-id", metavar="CONN_ID", help="connection of the source, if not the Dag's")
    for name in ("region", "project"):
        backfill.add_argument(
            f"--{name}", action="append", metavar=name.upper(), help="read only this one; may be given several times"
        )
    backfill.add_argument("--json", action="store_true", help="print the plan as JSON")
    backfill.set_defaults(error=backfill.error)
    return parser


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a day like 2026-11-01") from None


def _label(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is no label like severity=critical")
    return name, value


def _hub(arguments: list[str]) -> int:
    try:
        from airflow_provider_airis.hub.__main__ import main as hub
    except ModuleNotFoundError as error:
        print(f"airis hub needs the package {error.name!r}: pip install 'airflow-provider-airis[hub]'", file=sys.stderr)
        return 1
    return hub(arguments) or 0


def _systems() -> int:
    rows = [("SYSTEM", "FACETS", "CONNECTION TYPE", "DEFAULT CONNECTION", "WHAT IT CARRIES")]
    rows += [(s.stem, ",".join(s.facets) or "hub", s.connection.type, s.default_conn_id, s.summary) for s in SYSTEMS]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _plan_backfill(options: argparse.Namespace) -> int:
    if options.first > options.last:
        options.error(f"--from {options.first} is after --to {options.last}")
    # What goes wrong is in the plan; a log beside it would break what reads --json.
    _prepare("CRITICAL")
    from airflow_provider_airis.errors import AirisError
    from airflow_provider_airis.planning import plan

    parts = {name: value for name in ("region", "project") if (value := getattr(options, name))}
    try:
        planned = plan(BY_STEM[options.source], options.first, options.last, conn_id=options.conn_id, parts=parts)
    except AirisError as error:
        print(error, file=sys.stderr)
        return 1
    missing = [f"{name}: {reason}" for part in planned.parts for name, reason in part.missing.items()]
    print("\n".join(missing), end="\n" if missing else "", file=sys.stderr)
    if options.json:
        print(planned.json())
    else:
        from rich.console import Console

        Console(highlight=False, soft_wrap=True).print(*planned.tables(), sep="\n")
    return 1 if missing else 0


def _prepare(level: str = "ERROR") -> None:
    # As `airflow connections test` does: the metadata database is looked up only in this context.
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    os.environ.setdefault("AIRFLOW__LOGGING__LOGGING_LEVEL", level)


def _check(conn_id: str) -> int:
    _prepare()
    from airflow_provider_airis.errors import AirisError
    from airflow_provider_airis.hooks import connections

    try:
        connection = connections.find(conn_id)
    except AirisError as error:
        print(error, file=sys.stderr)
        return 1
    types = {kind: system for system in SYSTEMS for kind in system.connection.types}
    system = types.get(connection.conn_type or "")
    if system is None:
        known = ", ".join(sorted(types))
        print(f"{conn_id}: has type {connection.conn_type!r}; this provider connects {known}", file=sys.stderr)
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
