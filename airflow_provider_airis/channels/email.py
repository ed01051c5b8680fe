"""Alerts as mail: a thread an alert, a mail for each of its changes."""

from __future__ import annotations

import html
import re
from email.header import Header
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from email.policy import Compat32
from email.utils import format_datetime, formataddr, parseaddr
from typing import Any

from airflow_provider_airis.channels.base import Channel
from airflow_provider_airis.channels.texts import cut, cut_lines, one_line
from airflow_provider_airis.channels.view import AlertView
from airflow_provider_airis.errors import PermanentError
from airflow_provider_airis.records import from_ms

SUBJECT_CHARS = 200
FIELD_CHARS = 500
DESCRIPTION_CHARS = 10_000

_COLOURS = {"bad": "#b3261e", "warning": "#8a5300", "resolved": "#146c2e"}
_PAGE = """\
<html><body style="font-family: sans-serif">
<h2 style="color: {colour}">{title}</h2>
<table cellpadding="4">{rows}</table>
<p style="white-space: pre-wrap">{description}</p>
<p><a href="{url}">View Dashboard</a></p>
</body></html>
"""


class _Policy(Compat32):
    """Folds no header of ids: before a long one it would do so at its blank, which not every server takes."""

    def fold(self, name: str, value: str) -> str:
        """A header as it is written."""
        whole = name in ("Message-ID", "In-Reply-To", "References")
        return f"{name}: {value}{self.linesep}" if whole else super().fold(name, value)

    def fold_binary(self, name: str, value: str) -> bytes:
        """The same in bytes."""
        return self.fold(name, value).encode("ascii", "surrogateescape")


def mail(view: AlertView, *, sender: str, to: str, first: str | None) -> MIMEMultipart:
    """The mail of an alert's state, as text and as HTML.

    All mails of an alert refer to one that is never sent, ``<airis-mon-<alert id>@…>``, and later ones to the first:
    so they are one thread also where the first was lost. The subject stays the same, or some clients begin another. A
    repetition of the same state has the same ``Message-ID``.

    :param first: ``Message-ID`` of the alert's first mail; None if this is it.
    """
    domain = parseaddr(sender)[1].rpartition("@")[2]
    thread = re.sub(r"[^\w.-]", "_", view.key, flags=re.ASCII)
    root = f"<{thread}@{domain}>"
    fields = {name: cut(value, FIELD_CHARS) for name, value in {**view.facts, **view.history}.items()}
    description = cut_lines(view.description, DESCRIPTION_CHARS)

    # EmailMessage, the newer class, loses and doubles blanks where it folds a subject that is not ASCII.
    message = MIMEMultipart("alternative", policy=_Policy())
    subject = f"{'Re: ' if first else ''}{cut(f'AIRIS-MON Alert: {view.name}', SUBJECT_CHARS)}"
    message["Subject"] = Header(subject, None if subject.isascii() else "utf-8")  # type: ignore[assignment]
    message["From"] = formataddr(parseaddr(sender))
    message["To"] = to
    message["Date"] = format_datetime(from_ms(view.alert.updated_at))
    message["Message-ID"] = f"<{thread}.{view.alert.updated_at}@{domain}>"
    message["In-Reply-To"] = first or root
    message["References"] = f"{root} {first}" if first else root
    message["Auto-Submitted"] = "auto-generated"
    message["X-Airis-Alert-Id"] = one_line(view.alert.id)
    rows = "\n".join(f"{name}: {value}" for name, value in fields.items())
    text = f"{view.title}\n\n{rows}\n\n{description}\n\nView Dashboard: {view.url}\n"
    cells = "".join(
        f"<tr><th align='left'>{name}</th><td>{html.escape(value)}</td></tr>" for name, value in fields.items()
    )
    page = _PAGE.format(
        colour=_COLOURS.get(view.tone, "#1d1c1d"),
        title=view.title,
        rows=cells,
        description=html.escape(description),
        url=html.escape(view.url),
    )
    # The last one is what a client prefers.
    message.attach(MIMEText(text, "plain", "utf-8"))
    message.attach(MIMEText(page, "html", "utf-8"))
    return message


class EmailChannel(Channel):
    """Mails to an address, or several, separated by commas; the reference is the ``Message-ID`` of the first.

    No server tells whether it has sent a mail: after a try whose answer was lost there are two, of one ``Message-ID``,
    which many mailboxes show once.

    See https://www.rfc-editor.org/rfc/rfc5322#section-3.6.4
    """

    deduplicates = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Who still lacks a mail that the others have, by its Message-ID.
        self._lacking: dict[str, tuple[str, ...]] = {}

    def refuses_all(self, error: PermanentError) -> bool:
        """552 and 554 are said of a mail, unless of all addresses; any other code is of the server or the login."""
        from airflow_provider_airis.hooks.email import NOBODY, PARTLY

        if error.detail in (NOBODY, PARTLY):
            return error.detail == NOBODY
        return error.status not in (552, 554) and super().refuses_all(error)

    def send(self, view: AlertView, sent: str | None, *, maybe_sent: bool) -> str:  # noqa: ARG002
        """Mail the state; after a try in which some addresses were turned away for now, to these alone."""
        from airflow_provider_airis.hooks.email import PARTLY, DeferredError

        message = mail(view, sender=self.hook.sender, to=self.target, first=sent)
        key = str(message["Message-ID"])
        try:
            self.hook.send(message, self._lacking.pop(key, ()))
        except DeferredError as error:
            if self.retries:
                # Who lets the hook try again does not come back with this channel, and would mail to all.
                raise PermanentError(str(error), detail=PARTLY) from error
            self._lacking[key] = error.addresses
            raise
        return sent or key
