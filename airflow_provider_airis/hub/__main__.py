"""``python -m airflow_provider_airis.hub``, also ``airis hub``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from sqlalchemy.engine import URL

from airflow_provider_airis.hub.api.app import create_app
from airflow_provider_airis.hub.auth import Tokens
from airflow_provider_airis.hub.problems import StoreUnavailable
from airflow_provider_airis.hub.server import listen, serve
from airflow_provider_airis.hub.store.engine import locate
from airflow_provider_airis.hub.store.retention import Retention
from airflow_provider_airis.hub.store.store import Store
from airflow_provider_airis.routes.times import parse_duration


def main(argv: Sequence[str] | None = None) -> int:
    """Run the hub until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="airis hub", description="The reference hub of AIRIS-MON.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=8080, help="0 takes a free one (default: %(default)s)")
    parser.add_argument(
        "--database",
        default=os.environ.get("AIRIS_HUB_DATABASE_URL", "sqlite:///airis-hub.db"),
        metavar="URL",
        help="sqlite:////path/hub.db, or postgresql://user@host/database, which several processes may share (default: "
        "the environment's AIRIS_HUB_DATABASE_URL, else sqlite:///airis-hub.db)",
    )
    parser.add_argument(
        "--database-password-file",
        type=Path,
        metavar="FILE",
        help="file with PostgreSQL's password, which is not in the URL then; PGPASSFILE and PGPASSWORD work too",
    )
    parser.add_argument(
        "--tokens",
        type=Path,
        default=Path("airis-hub-tokens.json"),
        help="file of tokens and their scopes, made with an admin's token if missing (default: %(default)s)",
    )
    _add_retention(parser)
    arguments = parser.parse_args(argv)
    retention = _retention(arguments)
    made = not arguments.tokens.exists()
    with ExitStack() as opened:
        try:
            database = _database(arguments)
            # Before anything is written: a hub that cannot start leaves nothing behind.
            sockets = [opened.enter_context(one) for one in listen(arguments.host, arguments.port)]
            tokens = Tokens.load(arguments.tokens)
            try:
                store = opened.enter_context(closing(Store(database, retention=retention)))
            except (OSError, ValueError, StoreUnavailable):
                if made:
                    arguments.tokens.unlink(missing_ok=True)
                raise
        except (OSError, ValueError, StoreUnavailable) as error:
            print(f"airis hub: {error}", file=sys.stderr)
            return 1
        serve(create_app(store, tokens), sockets, words=str(retention))
    return 0


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port, 0 to 65535")
    return int(text)


def _database(arguments: argparse.Namespace) -> URL:
    file = arguments.database_password_file
    return locate(arguments.database, file.read_text().rstrip("\n") if file else None)


def _add_retention(parser: argparse.ArgumentParser) -> None:
    options = parser.add_argument_group("retention", "How long what is kept, e.g. 90d; for good unless said otherwise.")
    options.add_argument(
        "--retention-points",
        type=_points,
        action="append",
        default=[],
        metavar="[SOURCE=]DURATION",
        help="points, by their timestamps; given again with a source, or a pattern such as 'aws-*', for its points",
    )
    for name, what in (
        ("events", "events, by their timestamps, but those of the category security"),
        ("audit", "events of the category security"),
        ("alerts", "alerts, since they were resolved, with all that belongs to them"),
    ):
        options.add_argument(f"--retention-{name}", type=_duration, metavar="DURATION", help=what)
    options.add_argument(
        "--retention-answers",
        type=_duration,
        default="7d",
        metavar="DURATION",
        help="what was answered under an Idempotency-Key (default: %(default)s)",
    )
    options.add_argument(
        "--retention-notifications",
        type=_duration,
        default="30d",
        metavar="DURATION",
        help="what was shown of alerts that are over, and silences that have ended (default: %(default)s)",
    )


def _retention(arguments: argparse.Namespace) -> Retention:
    names = ("events", "audit", "alerts", "answers", "notifications")
    ages = {name: getattr(arguments, f"retention_{name}") for name in names}
    points = arguments.retention_points
    everywhere = [age for source, age in points if not source]
    sources = tuple((source, age) for source, age in points if source)
    return Retention(points=everywhere[-1] if everywhere else None, sources=sources, **ages)


def _points(text: str) -> tuple[str, int]:
    source, _, age = text.rpartition("=")
    return source, _duration(age)


def _duration(text: str) -> int:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


if __name__ == "__main__":
    sys.exit(main())
