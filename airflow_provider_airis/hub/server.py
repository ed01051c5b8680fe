"""Runs the application on uvicorn, so that it ends when it is told to, long polls or not."""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
from contextlib import ExitStack
from typing import Any

import uvicorn
from fastapi import FastAPI


class Server(uvicorn.Server):
    """A uvicorn that says where it listens, and at its end lets those go who wait for a change."""

    def __init__(self, app: FastAPI, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self._app = app
        config = uvicorn.Config(
            app, host=host, port=port, ws="none", access_log=False, log_level="warning", timeout_graceful_shutdown=5
        )
        super().__init__(config)

    @property
    def url(self) -> str:
        """Its base URL, once it listens."""
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End; answers what waits."""
        self._app.state.feeds.close()
        await super().shutdown(sockets)


class _Announced(Server):
    words = ""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print(f"ready {self.url}\n{self.words}", flush=True)


def listen(host: str, port: int) -> list[socket.socket]:
    """Sockets that listen at every address of a host.

    :raises OSError: one is taken, or there is none.
    """
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise OSError(f"cannot listen on {host!r}: {error.strerror}") from None
    with ExitStack() as opened:
        sockets = []
        for family, _, _, _, address in dict.fromkeys(found):
            try:
                one = socket.create_server(address, family=family, backlog=2048)
            except OSError as error:
                # A name may have addresses of a kind that this machine has switched off.
                if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT) and len(found) > 1:
                    continue
                where = f"{host or 'every address'} port {port}"
                raise OSError(f"cannot listen on {where}: {os.strerror(error.errno or 0).lower()}") from None
            sockets.append(opened.enter_context(one))
        if not sockets:
            raise OSError(f"cannot listen on {host!r}: none of its addresses is this machine's")
        opened.pop_all()
    return sockets


def serve(app: FastAPI, sockets: list[socket.socket], *, words: str = "") -> None:
    """Serve until SIGTERM or SIGINT; prints ``ready <url>`` once it answers.

    :param sockets: of :func:`listen`; closed at the end.
    :param words: printed behind that.
    """
    # A thread that computes gives way to the event loop sooner than after the usual 5 ms.
    sys.setswitchinterval(0.001)
    # uvicorn raises the signal again when it is done; it has been obeyed then.
    signal.signal(signal.SIGTERM, _ignore)
    signal.signal(signal.SIGINT, _ignore)
    server = _Announced(app)
    server.words = words
    server.run(sockets)


def _ignore(_signal: int, _frame: Any) -> None:
    pass
