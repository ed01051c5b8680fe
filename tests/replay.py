"""Golden cases: what a vendor answered, served again over a real socket. Their format is in fixtures/README.md."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.ldap_peer import LdapPeer
from tests.smtp_peer import SmtpPeer

FIXTURES = Path(__file__).parent / "fixtures"


@dataclass(frozen=True)
class Case:
    """A folder of fixtures, read."""

    system: str
    name: str
    now: str
    arguments: dict[str, Any]
    fails: str | None
    folder: Path
    expected: list[dict[str, Any]]
    _connections: str

    @classmethod
    def read(cls, folder: Path) -> Case:
        """Read the case in a folder."""
        case = json.loads((folder / "case.json").read_text())
        return cls(
            system=folder.parent.name,
            name=folder.name,
            now=case["now"],
            arguments=case["arguments"],
            fails=case.get("fails"),
            folder=folder,
            expected=json.loads((folder / "expected.json").read_text()),
            _connections=json.dumps(case["connections"]),
        )

    def serve(self, *, again: bool = False) -> AbstractContextManager[Any]:
        """The peer that this case plays, with ``url``, ``unexpected`` and ``left``; which one, its file says.

        :param again: what it plays when the records have been delivered once, if that is something else.
        """
        if again and (self.folder / "again.json").exists():
            return PEERS["exchanges.json"](self.folder / "again.json")
        for name, peer in PEERS.items():
            if (self.folder / name).exists():
                return peer(self.folder / name)
        raise FileNotFoundError(f"{self.folder} has none of {', '.join(PEERS)}")

    def connections(self, url: str) -> dict[str, dict[str, Any]]:
        """Connection id to its fields, leading to ``url``."""
        text = self._connections.replace("{{url}}", url).replace("{{address}}", url.partition("://")[2])
        connections: dict[str, dict[str, Any]] = json.loads(text)
        return connections


def cases(system: str | None = None) -> Iterator[Case]:
    """Every case there is, or those of one system."""
    for path in sorted(FIXTURES.glob(f"{system or '*'}/*/case.json")):
        yield Case.read(path.parent)


class Replay:
    """A server that answers each exchange once; use it as a context manager.

    A request gets the first exchange left that asks for it. ``unexpected`` are requests that found none (they are
    answered 501), ``left`` are exchanges that nobody asked for.
    """

    def __init__(self, exchanges: list[dict[str, Any]]) -> None:
        self.left = list(exchanges)
        self.unexpected: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self._listen()

    def _listen(self) -> None:
        replay = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                replay._answer(self)

            do_GET = do_PUT = do_PATCH = do_DELETE = do_POST  # noqa: N815

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0)).decode()
        url = urlsplit(handler.path)
        request = {
            "method": handler.command,
            "path": url.path,
            "query": dict(parse_qsl(url.query)),
            "headers": {name.lower(): value for name, value in handler.headers.items()},
            "text": body,
        }
        if body.startswith(("{", "[")):
            request["json"] = json.loads(body)
        response = self._response(request)
        content = json.dumps(response["json"]) if "json" in response else response.get("text", "")
        handler.send_response(response.get("status", 200))
        for name, value in {"Content-Type": "application/json", **response.get("headers", {})}.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(content.encode())))
        handler.end_headers()
        handler.wfile.write(content.encode())

    def _response(self, request: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            for index, exchange in enumerate(self.left):
                if _asks(exchange["request"], request):
                    return dict(self.left.pop(index)["response"])
            self.unexpected.append({name: value for name, value in request.items() if name != "headers"})
            return {"status": 501, "text": "no exchange of this case asks for it"}

    def __enter__(self) -> Replay:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


# A case's file → what serves it.
PEERS: dict[str, Callable[[Path], AbstractContextManager[Any]]] = {
    "exchanges.json": lambda path: Replay(json.loads(path.read_text())),
    "directory.ldif": LdapPeer,
    "smtp.json": SmtpPeer,
    "grpc.json": lambda path: _grpc(json.loads(path.read_text())),
}


def _grpc(exchanges: list[dict[str, Any]]) -> Replay:
    # Google's messages take seconds to import, so only those who serve them do.
    from tests.grpc_replay import GrpcReplay

    return GrpcReplay(exchanges)


def _asks(wanted: dict[str, Any], request: dict[str, Any]) -> bool:
    return all(
        wanted.get(part, request.get(part)) == request.get(part) for part in ("method", "path", "query", "json", "text")
    ) and all(request["headers"].get(name.lower()) == value for name, value in wanted.get("headers", {}).items())
