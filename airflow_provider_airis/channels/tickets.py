"""What ticket systems have in common: one ticket an alert, found again, told of its changes, closed with it."""

from __future__ import annotations

from abc import abstractmethod
from typing import Generic, Protocol, TypeVar

from airflow_provider_airis.channels.base import Channel
from airflow_provider_airis.channels.texts import cut, cut_lines, utf16
from airflow_provider_airis.channels.view import AlertView
from airflow_provider_airis.errors import PermanentError

FIELD_CHARS = 300


class Ticket(Protocol):
    """What is known of a ticket.

    ``closed_at`` is when it was closed, Unix ms; None if it is open.
    """

    @property
    def reference(self) -> str:
        """By which it is asked for again."""

    @property
    def name(self) -> str:
        """What people call it."""

    @property
    def closed_at(self) -> int | None:
        """When it was closed, Unix ms; None if it is open."""


T = TypeVar("T", bound=Ticket)


class TicketChannel(Channel, Generic[T]):
    """A ticket an alert, whose reference it is.

    One that was deleted is made anew, but not for its alert's end. One that somebody has closed, while the alert fires
    on, is reopened within ``reopen_within_s``; later, or if the system does not let it, a new one names it.
    """

    updates = True
    finds = True

    @abstractmethod
    def get(self, sent: str) -> T | None:
        """The ticket of a reference; None if it is deleted."""

    @abstractmethod
    def find(self, view: AlertView) -> T | None:
        """The newest ticket of an alert; None if there is none."""

    @abstractmethod
    def create(self, view: AlertView, follows: T | None) -> T:
        """A new ticket, which names the one that it follows."""

    @abstractmethod
    def knows(self, ticket: T, view: AlertView) -> bool:
        """Whether a ticket has this state of the alert already."""

    @abstractmethod
    def update(self, ticket: T, view: AlertView) -> None:
        """Tell a ticket the alert's state, unless it has it, and close it with the alert."""

    @abstractmethod
    def reopen(self, ticket: T, view: AlertView) -> None:
        """Open a ticket that is closed, and tell it why."""

    def send(self, view: AlertView, sent: str | None, *, maybe_sent: bool) -> str | None:
        """Create, update, reopen or close the alert's ticket."""
        ticket = self.get(sent) if sent else None
        if maybe_sent and (ticket is None or ticket.closed_at is not None):
            ticket = self.find(view) or ticket
        if ticket is None:
            return sent if view.over else self.create(view, None).reference
        if view.alert.status != "firing" or ticket.closed_at is None or self.knows(ticket, view):
            self.update(ticket, view)
            return ticket.reference
        return self._again(ticket, view, ticket.closed_at)

    def _again(self, ticket: T, view: AlertView, closed_at: int) -> str:
        """The alert fires on, and somebody has closed its ticket."""
        if view.alert.updated_at < closed_at + int(self.options["reopen_within_s"]) * 1000:
            try:
                self.reopen(ticket, view)
            except PermanentError as error:
                self.log.warning(
                    "%s cannot be reopened, so alert %s gets a new one: %s", ticket.name, view.alert.id, error
                )
            else:
                return ticket.reference
        return self.create(view, ticket).reference


def described(view: AlertView, most: int, *, follows: str = "") -> str:
    """An alert's state as text of at most so many characters, in UTF-16; the description is what is cut.

    :param follows: the closed ticket that this one follows, in words.
    """
    fields = {**view.facts, **view.measured, **view.history, **({"Follows": follows} if follows else {})}
    lines = [view.title, "", *(f"{name}: {cut(value, FIELD_CHARS, utf16)}" for name, value in fields.items()), "", ""]
    head, tail = "\n".join(lines), f"\n\nDashboard: {view.url}"
    return f"{head}{cut_lines(view.description, max(1, most - utf16(head) - utf16(tail)), utf16)}{tail}"
