"""What a receiver of the hub's records is: which it wants, how one is written, and what it says of each.

It knows no scheduler and no offset: :mod:`~airflow_provider_airis.exports.run` reads, sends, asks again and commits. It
imports neither Airflow nor an SDK; its hook, which does, is loaded at the first use.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from airflow_provider_airis.channels.base import OF_THE_ALERT, load

if TYPE_CHECKING:
    from airflow_provider_airis.catalog import System
    from airflow_provider_airis.errors import PermanentError
    from airflow_provider_airis.records import Event

DAY_S = 86_400


class Limits(NamedTuple):
    """What one request to the receiver holds at most.

    :param items: how many.
    :param bytes: of their bodies together, and of one alone.
    """

    items: int
    bytes: int


class Item(NamedTuple):
    """One event on its way.

    :param sequence: in the hub's feed.
    :param event: its ``key`` identifies it to the receiver too: the same whenever it is sent again.
    :param body: as the receiver gets it.
    """

    sequence: int
    event: Event
    body: bytes


class Outcome(NamedTuple):
    """What the receiver said of one item.

    :param status: ``unknown`` if it did not prove that it has it: the item is sent again under the same key.
    :param reason: the receiver's own words, unless it was accepted.
    """

    status: Literal["accepted", "refused", "unknown"]
    reason: str = ""


ACCEPTED = Outcome("accepted")


class EventExport(ABC):
    """One receiver of the hub's events.

    :param row: the system's row in the catalog.
    :param conn_id: the receiver's connection, the row's default unless given.
    :param options: the options of the row's export facet, by name.

    Class attributes:

    - ``limits``: of one request;
    - ``noun``: what its items are called, in the plural;
    - ``first_s``: how old, in seconds, an event may be that is sent when there is no offset yet.
    """

    limits: ClassVar[Limits]
    noun: ClassVar[str] = "events"
    first_s: ClassVar[int] = DAY_S

    def __init__(self, row: System, conn_id: str = "", options: Mapping[str, Any] | None = None) -> None:
        self.row = row
        self.conn_id = conn_id or row.default_conn_id
        self.options = options or {}

    @cached_property
    def hook(self) -> Any:
        """The receiver's hook, of which one session serves a run."""
        return load(self.row.hook_class)(self.conn_id)

    def close(self) -> None:
        """End the session."""
        hook = self.__dict__.pop("hook", None)
        if hasattr(hook, "close"):
            hook.close()

    @abstractmethod
    def wants(self, event: Event) -> bool:
        """Whether it is for this receiver."""

    @abstractmethod
    def encode(self, event: Event) -> bytes:
        """The item's body: pure, the same for the same event, with the event's key in it. No secret."""

    @abstractmethod
    def send(self, items: Sequence[Item]) -> Sequence[Outcome]:
        """Send one request within the limits; returns what the receiver said of each item, in their order.

        Accepted is only what the receiver has proved to have.

        :raises RetryableError: nothing is known of any of them.
        :raises PermanentError: it refuses the request. Unless it :meth:`refuses_all`, the items are sent in halves
            until those that it refuses are found.
        """

    def refuses_all(self, error: PermanentError) -> bool:
        """Whether it is the receiver that has to be mended, its token or its URL, and not one of these items."""
        if error.status is not None and error.status not in OF_THE_ALERT:
            return True
        try:
            self.hook.check()
        except Exception:  # noqa: BLE001  a missing connection, too
            return True
        return False


def open_export(row: System, conn_id: str = "", options: Mapping[str, Any] | None = None) -> EventExport:
    """The export of a system's row. Opens nothing yet."""
    found: EventExport = load(str(row.export_class))(row, conn_id, options)
    return found
