"""``python -m airflow_provider_airis.hub``, also ``airis hub``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from airflow_provider_airis.hub.api import create_app
from airflow_provider_airis.hub.auth import Tokens
from airflow_provider_airis.hub.problems import StoreUnavailable
from airflow_provider_airis.hub.server import serve
from airflow_provider_airis.hub.store import Store
from airflow_provider_airis.routes.times import parse_duration


def main(argv: Sequence[str] | None = None) -> int:
    """Run the hub until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="airis hub", description="The reference hub of AIRIS-MON.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8080, help="0 takes a free one (default: %(default)s)")
    parser.add_argument(
        "--database", default="sqlite:///airis-hub.db", help="SQLAlchemy URL of the store (default: %(default)s)"
    )
    parser.add_argument(
        "--tokens",
        type=Path,
        default=Path("airis-hub-tokens.json"),
        help="file of tokens and their scopes, made with an admin's token if missing (default: %(default)s)",
    )
    parser.add_argument(
        "--retention",
        type=_duration,
        default="30d",
        help="how long it is known what was shown of alerts that are over, and what silences there were "
        "(default: %(default)s)",
    )
    arguments = parser.parse_args(argv)
    try:
        tokens = Tokens.load(arguments.tokens)
        store = Store(arguments.database, kept_ms=arguments.retention)
    except (OSError, ValueError, StoreUnavailable) as error:
        print(f"airis hub: {error}", file=sys.stderr)
        return 1
    try:
        serve(create_app(store, tokens), host=arguments.host, port=arguments.port)
    finally:
        store.close()
    return 0


def _duration(text: str) -> int:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


if __name__ == "__main__":
    sys.exit(main())
