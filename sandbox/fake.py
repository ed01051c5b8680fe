"""What a fake server says of itself: every ``sandbox/<stem>.py`` has its own as ``PEER``.

How it is started, its secrets and connection, what it holds (``truth``), and what it can do in the demo's story. The
demo, compose and the tests know a system by nothing else.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import httpx2

    from airflow_provider_airis.records import Window
    from sandbox.verify import Tally

# What a fake server of a history is told of the demo's times.
TIMES = ("--history-from", "{history_from}", "--history-until", "{history_until}", "--live-from", "{live_from}")


def token() -> str:
    """A secret."""
    return secrets.token_urlsafe(48)


@dataclass(frozen=True)
class Running:
    """A fake server that runs.

    :param url: its address.
    :param secrets: the directory of all secrets, as this process sees it.
    """

    url: str
    secrets: Path


class Incident(Protocol):
    """What can go wrong at a source, and right again.

    :ivar rule: of the hub's, that the incident and nothing else makes fire.
    """

    rule: dict[str, Any]

    def begin(self) -> str:
        """Let it go wrong; returns what to say."""

    def end(self) -> str:
        """Let it recover; returns what to say."""


class Scene(Protocol):
    """Something that happens at a source once it was read, and must reach the hub."""

    def begin(self) -> str:
        """Let it happen; returns what to say."""

    def arrived(self, hub: httpx2.Client) -> str:
        """What the hub knows of it; empty as long as it knows nothing."""


@dataclass(frozen=True)
class Inbox:
    """What a fake receiver shows of one alert.

    :param counts: of which change of the alert it is sent what, e.g. ``{"fired": "messages", "resolved": "updates"}``.
    :param change: of which change a request of ``/_sandbox/requests`` tells; empty for one that tells of none.
    :param acknowledge: lets a person acknowledge the alert there; returns what to say.
    """

    counts: Mapping[str, str]
    change: Callable[[dict[str, Any]], str]
    acknowledge: Callable[[httpx2.Client], str] | None = None


Truth = Callable[[Running, "httpx2.Client", "Sequence[Window]"], "Tally"]


@dataclass(frozen=True)
class FakeServer:
    """A server in the place of an external system, named by the system's stem.

    :param port: where compose has it, and ``published`` whether people look at it.
    :param connections: from its address and the secrets, connection ids to fields.
    :param arguments: what it is given beside host and port; :func:`sandbox.topology.arguments` fills the braces in.
    :param settings: of its section of ``airflow.cfg``.
    :param secrets: file names to what makes them.
    :param needs: a program that may not be there.
    :param scheme: of its address.
    :param shares: whether its module has ``make()`` and it only answers HTTP: such servers are one process.
    :param writes: whether it writes into the directory of secrets.
    :param truth: compares what it holds of some windows with what the hub does.
    :param incident: of a source whose history a backfill reads, the story that leads to an alert.
    :param scene: what else happens at a source.
    :param inbox: of a receiver.
    """

    stem: str
    port: int
    connections: Callable[[str, Mapping[str, str]], dict[str, dict[str, str]]]
    arguments: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, Callable[[], str]] = field(default_factory=dict)
    published: bool = False
    needs: str | None = None
    scheme: str = "http"
    shares: bool = False
    writes: bool = False
    truth: Truth | None = None
    incident: Callable[[Running, Window], Incident] | None = None
    scene: Callable[[Running], Scene] | None = None
    inbox: Inbox | None = None

    @property
    def missing(self) -> bool:
        """Whether this machine lacks the program that it needs."""
        return self.needs is not None and shutil.which(self.needs, path=f"{os.environ['PATH']}:/usr/sbin") is None

    @property
    def module(self) -> str:
        """What ``python -m`` runs."""
        return f"sandbox.{self.stem}"


def by_word(words: Iterable[tuple[str, str]], otherwise: str) -> Callable[[str], str]:
    """Tells a change by the first word that a text holds, in capitals or not."""
    known = [(word.lower(), change) for word, change in words]

    def change(text: str) -> str:
        return next((change for word, change in known if word in text.lower()), otherwise)

    return change


state_of = by_word((("resolved", "resolved"), ("acknowledged", "acknowledged")), "fired")
