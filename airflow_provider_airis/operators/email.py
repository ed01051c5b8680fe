"""Alerts as mail: a thread an alert, a mail for each of its changes."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from email.header import Header
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from email.utils import format_datetime, formataddr, parseaddr
from typing import Any, ClassVar

from airflow_provider_airis.errors import PermanentError
from airflow_provider_airis.operators.deliver import AirisToOperator, cut
from airflow_provider_airis.operators.texts import cut_lines
from airflow_provider_airis.records import Alert, from_ms, iso

SUBJECT_CHARS = 200
FIELD_CHARS = 500
DESCRIPTION_CHARS = 10_000

_COLOURS = {"critical": "#b3261e", "high": "#b3261e", "medium": "#8a5300", "warning": "#8a5300"}
_PAGE = """\
<html><body style="font-family: sans-serif">
<h2 style="color: {colour}">{title}</h2>
<table cellpadding="4">{rows}</table>
<p style="white-space: pre-wrap">{description}</p>
<p><a href="{url}">View Dashboard</a></p>
</body></html>
"""


def mail(alert: Alert, url: str, *, sender: str, to: str, first: str | None) -> MIMEMultipart:
    """The mail of an alert's state, as text and as HTML.

    All mails of an alert refer to one that is never sent, ``<airis-mon-<alert id>@…>``, and later ones to the first:
    so they are one thread also where the first was lost. The subject stays the same, or some clients begin another. A
    repetition of the same state has the same ``Message-ID``.

    :param first: ``Message-ID`` of the alert's first mail; None if this is it.
    """
    domain = parseaddr(sender)[1].rpartition("@")[2]
    thread = "airis-mon-" + re.sub(r"[^\w.-]", "_", alert.id, flags=re.ASCII)
    root = f"<{thread}@{domain}>"
    word = f"{alert.severity.upper()} Alert"
    title = {"firing": word, "acknowledged": f"{word} (acknowledged)", "resolved": f"Resolved: {word}"}[alert.status]
    fields = {
        "Alert": alert.name,
        "Severity": alert.severity,
        "Model": alert.model_id or "N/A",
        "Environment": alert.environment or "N/A",
        "Triggered at": iso(alert.timestamp),
    }
    if alert.acknowledged_by:
        fields["Acknowledged by"] = alert.acknowledged_by
    if alert.status == "resolved":
        fields["Resolved at"] = iso(alert.updated_at)
    fields = {name: cut(_line(value), FIELD_CHARS) for name, value in fields.items()}
    description = re.sub(r"[^\S\n]|[\x00-\x09\x0b-\x1f\x7f]", " ", alert.description or "N/A")
    description = cut_lines(description, DESCRIPTION_CHARS)

    # EmailMessage, the newer class, loses and doubles blanks where it folds a subject that is not ASCII.
    message = MIMEMultipart("alternative")
    subject = f"{'Re: ' if first else ''}{cut(_line(f'AIRIS-MON Alert: {alert.name}'), SUBJECT_CHARS)}"
    message["Subject"] = Header(subject, None if subject.isascii() else "utf-8")  # type: ignore[assignment]
    message["From"] = formataddr(parseaddr(sender))
    message["To"] = to
    message["Date"] = format_datetime(from_ms(alert.updated_at))
    message["Message-ID"] = f"<{thread}.{alert.updated_at}@{domain}>"
    message["In-Reply-To"] = first or root
    message["References"] = f"{root} {first}" if first else root
    message["Auto-Submitted"] = "auto-generated"
    message["X-Airis-Alert-Id"] = _line(alert.id)
    rows = "\n".join(f"{name}: {value}" for name, value in fields.items())
    text = f"{title}\n\n{rows}\n\n{description}\n\nView Dashboard: {url}\n"
    cells = "".join(
        f"<tr><th align='left'>{name}</th><td>{html.escape(value)}</td></tr>" for name, value in fields.items()
    )
    colour = "#146c2e" if alert.status == "resolved" else _COLOURS.get(alert.severity, "#1d1c1d")
    page = _PAGE.format(
        colour=colour, title=title, rows=cells, description=html.escape(description), url=html.escape(url)
    )
    # The last one is what a client prefers.
    message.attach(MIMEText(text, "plain", "utf-8"))
    message.attach(MIMEText(page, "html", "utf-8"))
    return message


class AirisToEmailOperator(AirisToOperator):
    """Mails an alert, and each of its changes into the same thread.

    :param alert_id: the alert's id at the hub.
    :param target: the address, or several, separated by commas.
    :param smtp_conn_id: connection of type ``smtp``, with ``from_email`` in its extra.

    See https://www.rfc-editor.org/rfc/rfc5322#section-3.6.4
    """

    system: ClassVar[str] = "email"
    template_fields: Sequence[str] = (*AirisToOperator.template_fields, "smtp_conn_id")

    def __init__(self, *, smtp_conn_id: str = "smtp_default", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.smtp_conn_id = smtp_conn_id

    @property
    def receiver_conn_id(self) -> str:
        """The receiver's connection."""
        return self.smtp_conn_id

    def refuses_all(self, error: PermanentError) -> bool:
        """552 and 554 are said of a mail, unless of all addresses; any other code is of the server or the login."""
        from airflow_provider_airis.hooks.email import NOBODY, PARTLY

        if error.detail in (NOBODY, PARTLY):
            return error.detail == NOBODY
        return error.status not in (552, 554) and super().refuses_all(error)

    def send(self, alert: Alert, reference: str | None, *, url: str, again: bool) -> str:  # noqa: ARG002
        """Mail the state; returns the ``Message-ID`` of the alert's first mail.

        No server tells whether it has sent a mail: after a try whose answer was lost there are two, of one
        ``Message-ID``, which many mailboxes show once.
        """
        message = mail(alert, url, sender=self.hook.sender, to=self.target, first=reference)
        self.hook.send(message)
        return reference or str(message["Message-ID"])


def _line(value: str) -> str:
    """Without line breaks and other control characters, which no header may hold."""
    return re.sub(r"[\x00-\x1f\x7f\u0085\u2028\u2029]+", " ", value)
