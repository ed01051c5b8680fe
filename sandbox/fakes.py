"""Several fake servers that only answer HTTP, in one process: ``python -m sandbox.fakes slack --port 0 -- jira …``.

Each has its own port and options, as ``python -m sandbox.<stem>`` takes them. It prints ``at <stem> <url>`` for each,
and ``ready <url>`` once all of them answer.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module

from sandbox.web import listen, parse, serve_all


def groups(arguments: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Stem and options of each server."""
    group: list[str] = []
    for argument in [*arguments, "--"]:
        if argument != "--":
            group.append(argument)
        elif group:
            yield group[0], group[1:]
            group = []


def main() -> None:
    """Serve until SIGTERM."""
    parser_arguments = sys.argv[1:]
    # Compose gives the address once, for all of them.
    host = [word for word in parser_arguments if word.startswith("--host=")]
    servers = {}
    for stem, options in groups([word for word in parser_arguments if word not in host]):
        module = import_module(f"sandbox.{stem}")
        application, address, port = parse(module.__doc__ or stem, module.make, [*host, *options])
        servers[stem] = application, listen(address, port)
    asyncio.run(serve_all(servers))


if __name__ == "__main__":
    main()
