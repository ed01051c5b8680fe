"""What a system's way back is made of: whether a request is the system's, and what it asks for."""

from __future__ import annotations

import hashlib
import hmac
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, Literal, TypeVar

import msgspec

T = TypeVar("T")

PREFIX = "airis-mon-"
# How old a request may be whose sender signs the time, and how far its clock may be ahead.
AGE_S = 300


class Refused(Exception):  # noqa: N818 (an answer, like Problem)
    """A request that is not answered with success. The sender is told nothing but the status.

    :param outcome: by which it is counted.
    :param why: for the log; holds no secret.
    """

    def __init__(
        self, outcome: Literal["unsigned", "stale", "malformed", "unsupported", "too_large", "slow"], why: str
    ) -> None:
        super().__init__(why)
        self.outcome = outcome


class Action(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody wants done about an alert.

    :param kind: ``assign`` is only written down, as an event of the hub.
    :param id: by which the system knows the alert: its own, or a group's; empty if :meth:`Handler.complete` finds it.
    :param at: when they wanted it, Unix ms.
    :param by: their name in the system.
    :param email: by which they are known in the hub's directory.
    :param to: whom it was assigned to.
    :param about: the system's own id of what else :meth:`Handler.complete` asks it for.
    :param reply_to: where the system takes an answer for them.
    """

    kind: Literal["acknowledge", "resolve", "silence", "assign"]
    id: str
    at: int
    by: str
    email: str = ""
    to: str = ""
    about: str = ""
    reply_to: str = ""


class Handler(ABC):
    """A system's way back: requests to ``/airis/receive/<stem>``.

    :param conn_id: the connection whose extra holds the secrets.
    """

    content_type: ClassVar[str] = "application/json"
    # Whether the sender is answered at once, and told of a failure by reply().
    replies: ClassVar[bool] = False
    # Whether the sender sends a request again of whose success it does not know.
    repeats: ClassVar[bool] = True
    # The status where the hub does not know the alert.
    unknown: ClassVar[int] = 404

    def __init__(self, conn_id: str) -> None:
        self.conn_id = conn_id

    @abstractmethod
    def verify(self, body: bytes, headers: Mapping[str, str], secrets: Sequence[str], now: float) -> None:
        """Check that the system has sent this, lately.

        :param body: as it was received, byte for byte.
        :param headers: by their names in lower case.
        :param secrets: any of them may have signed.
        :param now: Unix seconds.
        :raises Refused: it has not.
        """

    @abstractmethod
    def read(self, body: bytes) -> list[Action]:
        """What a verified request asks for; nothing if it is about something else.

        :raises Refused: it has another shape.
        """

    def complete(self, action: Action) -> Iterable[Action]:
        """The action with what only the system itself can tell."""
        return [action]

    def reply(self, action: Action, text: str) -> None:  # noqa: B027  few can
        """Tell the person who wanted it, and nobody else."""


def alert_id(key: str | None) -> str:
    """The id that a system's key names, ``airis-mon-<id>``; empty if it is none of ours."""
    return key[len(PREFIX) :] if key and key.startswith(PREFIX) else ""


def mac(secret: str, content: bytes) -> bytes:
    """HMAC-SHA256."""
    return hmac.digest(secret.encode(), content, hashlib.sha256)


def check(given: Iterable[str], expected: Iterable[str]) -> None:
    """Compare each with each, in a time that does not depend on where they differ.

    :raises Refused: none is as expected.
    """
    signatures = [signature.encode("utf-8", "surrogateescape") for signature in given]
    matches = [hmac.compare_digest(one, other.encode()) for one in signatures for other in expected]
    if not any(matches):
        raise Refused("unsigned", "its signature is of none of the secrets" if signatures else "it has no signature")


def check_age(timestamp: str, now: float) -> None:
    """Check the time that was signed, Unix seconds.

    :raises Refused: it is none, or not within five minutes.
    """
    if not (timestamp.isascii() and timestamp.isdecimal() and len(timestamp) <= 12):
        raise Refused("unsigned", "it has no time of signing")
    if abs(now - int(timestamp)) > AGE_S:
        raise Refused("stale", f"it was signed {now - int(timestamp):.0f} s ago")


def decoded(content: bytes | str | msgspec.Raw, shape: type[T]) -> T:
    """JSON as ``shape``.

    :raises Refused: it is something else.
    """
    try:
        return msgspec.json.decode(content, type=shape)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Refused("malformed", f"its body has another shape than the system documents: {error}") from None
