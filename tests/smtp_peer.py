"""The SMTP peer of the contract tests: the mail server of the sandbox, or one that gives any answer."""

from __future__ import annotations

import asyncio
import json
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from sandbox.email import MailServer, tls_context
from sandbox.web import Fault


class SmtpPeer:
    """A mail server whose password its file names; once ``_response`` is replaced, one that answers what that says.

    An answer is ``{"verb": "AUTH", "status": 535, "text": …}``: what this verb is refused with. All else succeeds.
    """

    _response: Callable[[dict[str, Any]], dict[str, Any]] | None = None

    def __init__(self, path: Path) -> None:
        self.left: list[Any] = []
        self.unexpected: list[Any] = []
        folder = tempfile.TemporaryDirectory()
        with folder:
            tls = tls_context(Path(folder.name) / "certificate.pem")
        self.server = MailServer(json.loads(path.read_text())["password"], tls)

    def __enter__(self) -> SmtpPeer:
        if self._response is not None:
            answer = self._response({})
            self.server.faults.scripted = [Fault(answer["verb"], 100, answer["status"], {"text": answer["text"]})]
        self._loop = asyncio.new_event_loop()
        listener = self._loop.run_until_complete(asyncio.start_server(self.server.serve, "127.0.0.1", 0))
        self.url = f"smtp://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
