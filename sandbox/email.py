"""A mail server of ``smtplib``'s dialogue: checks what a submission server checks, and shows the mails at ``/``.

It speaks SMTP with STARTTLS (a certificate of its own, ``--certificate`` names where to write it), takes a login only
when encrypted, and mail only from who has logged in: any login with the password in ``--password-file``. Mail to
``…@nowhere.example.com`` is refused. The page, ``GET /_sandbox/requests``, which lists what was taken with the time in
Unix ms, and ``POST /_sandbox/faults`` are on the next port. A fault's ``call`` is an SMTP verb, ``CONNECT`` or ``END``
(of the mail); its answer is ``status`` and ``json.text``; ``applied`` takes the mail and then hangs up.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import email
import email.policy
import hmac
import html
import json
import re
import socket
import ssl
import tempfile
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.fake import FakeServer, token
from sandbox.web import Fault, Faults, application, now_ms, page

LARGEST = 10 * 1024 * 1024
REFUSED = "@nowhere.example.com"


class MailServer:
    """Takes mail."""

    def __init__(self, password: str, tls: ssl.SSLContext) -> None:
        self.password = password
        self.tls = tls
        self.requests: list[dict[str, Any]] = []
        self.faults = Faults()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Hold one dialogue."""
        try:
            await Dialogue(self, reader, writer).hold()
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            writer.close()

    def take(self, sender: str, recipients: list[str], content: bytes, *, encrypted: bool) -> str | None:
        """Keep a mail; returns why not."""
        message = email.message_from_bytes(content, policy=email.policy.default)
        assert isinstance(message, EmailMessage)
        missing = [name for name in ("From", "To", "Date", "Message-ID", "Subject") if not message[name]]
        if missing:
            return f"554 5.6.0 the mail has no {', '.join(missing)}"
        if not re.fullmatch(r"<[^<>\s@]+@[^<>\s@]+>", str(message["Message-ID"])):
            return "554 5.6.0 the Message-ID is none"
        if any(len(line) > 998 for line in content.split(b"\r\n")):
            return "554 5.6.0 a line is over 998 bytes"
        parts = {part.get_content_type(): part.get_content() for part in message.walk() if not part.is_multipart()}
        repeated = any(taken["headers"]["Message-ID"] == message["Message-ID"] for taken in self.requests)
        self.requests.append(
            {
                "at": now_ms(),
                "kind": "mail",
                "encrypted": encrypted,
                "repeated": repeated,
                "from": sender,
                "to": recipients,
                "headers": {name: str(value) for name, value in message.items()},
                "text": parts.get("text/plain", ""),
                "html": parts.get("text/html", ""),
            }
        )
        return None

    async def seen(self, request: Request) -> Response:  # noqa: ARG002
        """Every mail that was taken."""
        return JSONResponse(self.requests)

    async def show(self, request: Request) -> Response:  # noqa: ARG002
        """The mails."""
        shown = "".join(
            f"<article><h2>{html.escape(taken['headers']['Subject'])}</h2>"
            f"<pre>{html.escape(taken['text'])}</pre></article>"
            for taken in reversed(self.requests)
        )
        return page("Mail", "A mail server: what it was given.", shown or '<p class="dim">No mail yet.</p>')


class Dialogue:
    """One connection."""

    def __init__(self, server: MailServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.server, self.reader, self.writer = server, reader, writer
        self.encrypted = self.known = self.greeted = False
        self.sender: str | None = None
        self.recipients: list[str] = []

    async def hold(self) -> None:
        """Answer line by line until the client leaves."""
        if fault := self.server.faults.next("CONNECT"):
            await self.say(_said(fault))
            return
        await self.say("220 sandbox ESMTP")
        while line := await self.reader.readline():
            verb, _, rest = line.decode(errors="replace").strip().partition(" ")
            verb = verb.upper()
            if fault := self.server.faults.next(verb):
                await self.say(_said(fault))
            elif verb == "QUIT":
                await self.say("221 2.0.0 bye")
                return
            elif verb in ("EHLO", "HELO"):
                self.greeted = True
                await self.say(*self._extensions())
            elif not self.greeted:
                await self.say("503 5.5.1 EHLO first")
            elif verb == "STARTTLS" and not self.encrypted:
                await self.say("220 2.0.0 ready")
                await self.writer.start_tls(self.server.tls)
                self.encrypted, self.greeted = True, False
            elif verb == "DATA" and self.recipients:
                if not await self._data():
                    return
            else:
                await self.say(await self._answer(verb, rest))

    async def say(self, *lines: str) -> None:
        """Answer."""
        for line in lines:
            self.writer.write(f"{line}\r\n".encode())
        await self.writer.drain()

    def _extensions(self) -> list[str]:
        offered = ["AUTH PLAIN LOGIN"] if self.encrypted else ["STARTTLS"]
        return ["250-sandbox", f"250-SIZE {LARGEST}", "250-8BITMIME", "250-SMTPUTF8", f"250 {offered[0]}"]

    async def _answer(self, verb: str, rest: str) -> str:
        if verb == "NOOP":
            return "250 2.0.0 ok"
        if verb == "RSET":
            self.sender, self.recipients = None, []
            return "250 2.0.0 ok"
        if verb == "AUTH":
            return await self._auth(rest) if self.encrypted else "538 5.7.11 encryption first"
        if verb not in ("MAIL", "RCPT", "DATA"):
            return "500 5.5.2 unknown"
        if not self.known:
            return "530 5.7.0 authentication required"
        if verb == "MAIL" and (match := re.match(r"FROM:<([^<>\s]+@[^<>\s]+)>", rest, re.IGNORECASE)):
            self.sender, self.recipients = match[1], []
            return "250 2.1.0 ok"
        if verb == "RCPT" and self.sender and (match := re.match(r"TO:<([^<>\s]+@[^<>\s]+)>", rest, re.IGNORECASE)):
            if match[1].endswith(REFUSED):
                return "550 5.1.1 nobody of that name"
            self.recipients.append(match[1])
            return "250 2.1.5 ok"
        return "503 5.5.1 not now, or not like that"

    async def _auth(self, rest: str) -> str:
        mechanism, _, initial = rest.partition(" ")
        if mechanism.upper() == "PLAIN":
            given = initial or await self._ask("")
            password = base64.b64decode(given).split(b"\0")[-1]
        elif mechanism.upper() == "LOGIN":
            if not initial:
                await self._ask("VXNlcm5hbWU6")
            password = base64.b64decode(await self._ask("UGFzc3dvcmQ6"))
        else:
            return "504 5.5.4 unknown mechanism"
        self.known = hmac.compare_digest(password, self.server.password.encode())
        return "235 2.7.0 welcome" if self.known else "535 5.7.8 authentication failed"

    async def _ask(self, what: str) -> str:
        await self.say(f"334 {what}")
        return (await self.reader.readline()).decode().strip()

    async def _data(self) -> bool:
        """Take a mail; returns whether the dialogue goes on."""
        await self.say("354 go ahead")
        lines: list[bytes] = []
        while (line := await self.reader.readline()) != b".\r\n":
            if not line:
                return False
            lines.append(line.removeprefix(b"."))
        fault = self.server.faults.next("END")
        if fault and not fault.applied:
            await self.say(_said(fault))
            return True
        assert self.sender is not None
        refusal = self.server.take(self.sender, self.recipients, b"".join(lines), encrypted=self.encrypted)
        self.sender, self.recipients = None, []
        if fault:
            return False
        await self.say(refusal or "250 2.0.0 taken")
        return True


def _said(fault: Fault) -> str:
    return f"{fault.status} {fault.json.get('text', 'as scripted')}"


def tls_context(certificate: Path) -> ssl.SSLContext:
    """A context for 127.0.0.1 and localhost; the certificate, which vouches for itself, is written to a file."""
    from sandbox.active_directory import _certificate

    with tempfile.TemporaryDirectory() as folder:
        made = _certificate(Path(folder), ())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(made, Path(folder) / "key.pem")
        certificate.write_bytes(made.read_bytes())
    return context


def mailboxes(host: str, port: int) -> tuple[socket.socket, socket.socket]:
    """Sockets on a port and on the next one; any free two for port 0."""
    while True:
        first = socket.create_server((host, port))
        try:
            return first, socket.create_server((host, first.getsockname()[1] + 1))
        except OSError:
            first.close()
            if port:
                raise


async def run(server: MailServer, host: str, port: int) -> None:
    """Serve until SIGTERM."""
    mail, web = mailboxes(host, port)
    routes = [Route("/", server.show), Route("/_sandbox/requests", server.seen)]
    config = uvicorn.Config(application(routes, server.faults), log_level="warning", timeout_graceful_shutdown=1)
    pages = uvicorn.Server(config)
    serving = asyncio.create_task(pages.serve(sockets=[web]))
    while not pages.started and not serving.done():
        await asyncio.sleep(0.01)
    listener = await asyncio.start_server(server.serve, sock=mail)
    print(f"ready smtp://{host}:{mail.getsockname()[1]}", flush=True)
    await serving
    listener.close()


PEER = FakeServer(
    "email",
    8798,
    lambda url, made: {
        "smtp_default": {
            "conn_type": "smtp",
            "host": urlsplit(url).hostname or "",
            "port": str(urlsplit(url).port),
            "login": "airis",
            "password": made["smtp_password"],
            # STARTTLS, with a certificate that nobody vouches for.
            "extra": json.dumps(
                {"from_email": "AIRIS-MON <airis@example.com>", "disable_ssl": True, "ssl_context": "none"}
            ),
        }
    },
    arguments=("--password-file", "{secrets}/smtp_password"),
    secrets={"smtp_password": token},
    scheme="smtp",
)


def main() -> None:
    """Serve until asked to end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 for a free one")
    parser.add_argument("--password-file", type=Path, required=True)
    parser.add_argument("--certificate", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tls = tls_context(options.certificate or Path(folder) / "certificate.pem")
    server = MailServer(options.password_file.read_text().strip(), tls)
    asyncio.run(run(server, options.host, options.port))


if __name__ == "__main__":
    main()
