"""A proxy before any HTTP peer that fails as it is told: late, refused, cut off, cut off after the peer has applied it.

In a test: ``with FaultProxy(hub.url) as proxy: proxy.order(Fault("status", status=429, retry_after=1, times=2))``.
As a process: ``python -m sandbox.faults --upstream URL --port 0 --fault "action=reset path=/metrics/batch times=3"``;
then ``/_faults`` takes more:

``POST /_faults`` ``{action, times?, path?, method?, after?, status?, retry_after?, seconds?}``
    Orders one more. ``DELETE`` forgets those that are left; ``GET`` shows them and the requests that were seen.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import re
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import sleep
from types import TracebackType
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

Action = Literal["latency", "status", "reset", "reset_answer", "reset_applied"]
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host"}


class Fault(msgspec.Struct, forbid_unknown_fields=True):
    """What happens to the next requests that match.

    ``latency``: the peer gets it ``seconds`` later. ``status``: it is answered with ``status``, the peer sees nothing.
    ``reset``: the connection is reset, the peer sees nothing. ``reset_answer``: it is reset in the middle of the peer's
    answer. ``reset_applied``: the peer answers, and nothing of it arrives.

    :param times: how many requests.
    :param path: regular expression that is searched in path and query; ``method`` likewise by name.
    :param after: how many matching requests pass before.
    :param retry_after: seconds, with ``status``.
    """

    action: Action
    times: int = 1
    path: str = ""
    method: str = ""
    after: int = 0
    status: int = 503
    retry_after: float | None = None
    seconds: float = 0


class Seen(msgspec.Struct, frozen=True):
    """A request as it came in; ``body`` is its SHA-256."""

    method: str
    path: str
    headers: dict[str, str]
    body: str
    fault: Action | None


class FaultProxy:
    """The proxy, listening from construction to :meth:`close`.

    :param upstream: base URL of the peer. May be set anew, as when the peer restarts on another port.
    :param faults: ordered from the start.
    :param prefix: the path under which the peer is, as behind a gateway; anything else is answered with 404.
    """

    def __init__(
        self, upstream: str, faults: Sequence[Fault] = (), *, prefix: str = "", host: str = "127.0.0.1", port: int = 0
    ) -> None:
        self.upstream = upstream
        self.prefix = prefix
        self.faults = list(faults)
        self.seen: list[Seen] = []
        self._lock = threading.Lock()
        self._server = _Server((host, port), type("Handler", (_Handler,), {"proxy": self}))
        self.url = f"http://{host}:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def order(self, *faults: Fault) -> None:
        """Let these happen, in this order where several match."""
        with self._lock:
            self.faults += faults

    def clear(self) -> None:
        """Forget what is left."""
        with self._lock:
            self.faults.clear()

    def due(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Fault | None:
        """Note a request and take the fault that it meets."""
        with self._lock:
            met = next((fault for fault in self.faults if self._meets(fault, method, path)), None)
            if met is not None:
                met.times -= 1
                if met.times < 1:
                    self.faults.remove(met)
            digest = hashlib.sha256(body).hexdigest()
            self.seen.append(Seen(method, path, headers, digest, met.action if met else None))
            return met

    @staticmethod
    def _meets(fault: Fault, method: str, path: str) -> bool:
        if fault.method not in ("", method) or not re.search(fault.path, path):
            return False
        if fault.after > 0:
            fault.after -= 1
            return False
        return True

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> FaultProxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a long poll or an idle connection must not hold up the end
    request_queue_size = 128

    def shutdown_request(self, request: socket.socket | tuple[bytes, socket.socket]) -> None:
        """Close without the FIN that would come before a reset."""
        self.close_request(request)

    def handle_error(self, request: socket.socket | tuple[bytes, socket.socket], client_address: Any) -> None:
        """A client that went away is nothing to report."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16
    proxy: FaultProxy

    def _serve(self) -> None:
        body = self._body()
        if self.path == "/_faults":
            self._control(body)
            return
        fault = self.proxy.due(self.command, self.path, dict(self.headers.items()), body)
        match fault and fault.action:
            case "reset":
                self._reset()
                return
            case "status":
                assert fault is not None
                headers = {} if fault.retry_after is None else {"Retry-After": f"{fault.retry_after:g}"}
                self._answer(fault.status, headers, b"a fault was ordered\n")
                return
            case "latency":
                assert fault is not None
                sleep(fault.seconds)
        if not self.path.startswith(f"{self.proxy.prefix}/"):
            self._answer(404, {}, b"nothing is here\n")
            return
        try:
            status, headers, answer = self._forward(body)
        except OSError as error:
            self._answer(502, {}, f"upstream: {error}\n".encode())
            return
        match fault and fault.action:
            case "reset_applied":
                self._reset()
            case "reset_answer":
                self._answer(status, headers, answer, cut=True)
                self._reset()
            case _:
                self._answer(status, headers, answer)

    def __getattr__(self, name: str) -> Callable[[], None]:
        if name.startswith("do_"):
            return self._serve
        raise AttributeError(name)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return body

    def _forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        upstream = urlsplit(self.proxy.upstream)
        kind = http.client.HTTPSConnection if upstream.scheme == "https" else http.client.HTTPConnection
        connection = kind(upstream.hostname or "", upstream.port, timeout=120)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
        try:
            path = upstream.path.rstrip("/") + self.path.removeprefix(self.proxy.prefix)
            connection.request(self.command, path, body or None, headers)
            response = connection.getresponse()
            kept = {name: value for name, value in response.getheaders() if name.lower() not in _HOP_BY_HOP}
            return response.status, kept, response.read()
        except http.client.HTTPException as error:
            raise ConnectionError(repr(error)) from error
        finally:
            connection.close()

    def _answer(self, status: int, headers: dict[str, str], answer: bytes, *, cut: bool = False) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status >= 200 and status not in (204, 304):
            self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer[: len(answer) // 2] if cut else answer)
        self.wfile.flush()

    def _reset(self) -> None:
        # Lingering for no time makes close() send RST instead of FIN.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    def _control(self, body: bytes) -> None:
        if self.command == "POST":
            try:
                self.proxy.order(msgspec.json.decode(body, type=Fault))
            except msgspec.MsgspecError as error:
                self._answer(400, {}, f"{error}\n".encode())
                return
        elif self.command == "DELETE":
            self.proxy.clear()
        state = msgspec.json.encode({"left": self.proxy.faults, "seen": self.proxy.seen})
        self._answer(200, {"Content-Type": "application/json"}, state)

    def log_message(self, *_: object) -> None:
        """Say nothing: what was seen can be asked for."""


def _fault(text: str) -> Fault:
    try:
        return msgspec.convert(dict(pair.split("=", 1) for pair in text.split()), Fault, strict=False)
    except (ValueError, msgspec.ValidationError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is none: {error}") from error


def main() -> None:
    """Run it until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.faults", description="A proxy that fails as it is told.")
    parser.add_argument("--upstream", required=True, help="base URL of the peer")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: a free one")
    parser.add_argument(
        "--fault",
        type=_fault,
        action="append",
        default=[],
        help='e.g. "action=status status=429 retry_after=1 times=2"',
    )
    options = parser.parse_args()
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    with FaultProxy(options.upstream, options.fault, host=options.host, port=options.port) as proxy:
        print(f"ready {proxy.url}", flush=True)
        ended.wait()


if __name__ == "__main__":
    main()
