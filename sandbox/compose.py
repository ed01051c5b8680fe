"""Writes the parts of ``docker-compose.yaml`` that follow from the fake servers: ``python -m sandbox.compose``.

They stand between ``# begin NAME`` and ``# end NAME``; everything else in the file is written by hand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from sandbox.fake import FakeServer
from sandbox.process import ROOT
from sandbox.topology import PEERS, commands

FILE = ROOT / "docker-compose.yaml"
PLACES = {
    "secrets": "/secrets",
    "api": "http://api-server:8080",
    "history_from": "$$(date --utc --date='2 days ago' +%F)",
    "history_until": "$$(date --utc +%F)",
    "live_from": "$$(date --utc +%FT%H:%MZ)",
}


def host(peer: FakeServer) -> str:
    """The service that a fake server is in."""
    return "fakes" if peer.shares else peer.stem.replace("_", "-")


def services() -> dict[str, list[FakeServer]]:
    """The fake servers by service."""
    found: dict[str, list[FakeServer]] = {}
    for peer in PEERS:
        found.setdefault(host(peer), []).append(peer)
    return found


def command(peers: list[FakeServer]) -> list[str]:
    """What a service runs."""
    ((module, *rest),) = commands(peers, lambda peer: peer.port, **PLACES).values()
    return ["python", "-m", module, "--host=0.0.0.0", *rest]


def _settings() -> Iterator[str]:
    for peer in PEERS:
        for name, value in peer.settings.items():
            yield f"    AIRFLOW__AIRIS_{peer.stem}__{name}".upper() + f": {json.dumps(value)}"


def _addresses() -> Iterator[str]:
    for peer in PEERS:
        yield f"      - --{peer.stem}={peer.scheme}://{host(peer)}:{peer.port}"


def _servers() -> Iterator[str]:
    for name, peers in services().items():
        words = command(peers)
        yield f"  {name}:"
        yield "    <<: *service"
        yield "    command:"
        if any("$$(" in word for word in words):
            # A shell fills in the times.
            line = " ".join(f'"{word}"' if "$$(" in word else word for word in words)
            yield from ("      - bash", "      - -c", "      - >-", f"        exec {line}")
        else:
            yield from (
                f"      - {word if re.fullmatch(r'[^-:0-9][^: ]*', word) else json.dumps(word)}" for word in words
            )
        if ports := [peer.port for peer in peers if peer.published]:
            yield "    ports:"
            yield from (f'      - "127.0.0.1:{port}:{port}"' for port in ports)
        if any("/secrets" in word for word in words):
            yield "    volumes:"
            yield "      - secrets:/secrets" + ("" if any(peer.writes for peer in peers) else ":ro")
        yield ""


def written(text: str) -> str:
    """The file as it should be.

    :param text: as it is.
    """
    for name, lines in {"settings": _settings(), "addresses": _addresses(), "servers": _servers()}.items():
        body = "".join(f"{line}\n" for line in lines)
        parts = re.split(rf"(?<=# begin {name}\n)[\s\S]*?(?= *# end {name}\n)", text, maxsplit=1)
        if len(parts) != 2:
            raise ValueError(f"{FILE.name} has no lines between '# begin {name}' and '# end {name}'")
        text = body.join(parts)
    return text


if __name__ == "__main__":
    FILE.write_text(written(FILE.read_text()))
