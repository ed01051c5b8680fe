"""The stand-in's server: gRPC, and ``/_sandbox`` (:mod:`sandbox.vertex_ai.control`) over HTTP/1.1, on one port."""

from __future__ import annotations

import argparse
import asyncio
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

import grpc
import msgspec

from sandbox.vertex_ai.control import Control, seconds
from sandbox.vertex_ai.fleet import Fleet
from sandbox.vertex_ai.google import Google


class Handler(BaseHTTPRequestHandler):
    """Serves the control calls."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    control: Control

    def do_POST(self) -> None:
        """Answer a control call."""
        url = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            request = dict(parse_qsl(url.query)) | msgspec.json.decode(body or b"{}")
            answer = self.control.call(self.command, url.path.removeprefix("/_sandbox/"), request)
        except (KeyError, ValueError) as error:
            self._send(404, msgspec.json.encode({"error": repr(error)}))
            return
        if not isinstance(answer, Iterator):
            self._send(200, msgspec.json.encode(answer))
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for line in answer:
            data = msgspec.json.encode(line) + b"\n"
            self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.wfile.write(b"0\r\n\r\n")

    do_GET = do_DELETE = do_POST  # noqa: N815

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Nothing: the counters tell."""


async def front(host: str, port: int, grpc_port: int, http_port: int) -> None:
    """Lead a connection to gRPC if it begins as HTTP/2 does, else to HTTP/1.1, until SIGTERM."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 18):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            first = await reader.readexactly(3)
            inner = await asyncio.open_connection("127.0.0.1", grpc_port if first == b"PRI" else http_port)
            inner[1].write(first)
            await asyncio.gather(pump(reader, inner[1]), pump(inner[0], writer))
        writer.close()

    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    server = await asyncio.start_server(serve, host, port)
    print(f"ready http://{host}:{server.sockets[0].getsockname()[1]}", flush=True)
    await stopped.wait()
    server.close()


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(
        prog="python -m sandbox.vertex_ai", description="Cloud Monitoring and Vertex AI stand-in"
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--project", default="airis-sandbox")
    parser.add_argument("--endpoints", type=int, default=10)
    parser.add_argument("--locations", nargs="+", default=["us-central1"])
    parser.add_argument("--history-from", type=seconds, default=0, metavar="ISO")
    parser.add_argument("--history-until", type=seconds, default=0, metavar="ISO")
    parser.add_argument("--live-from", type=seconds, default=0, metavar="ISO")
    parser.add_argument("--ingest-delay-s", type=float, help="of every metric, in place of Google's own")
    parser.add_argument("--now", type=seconds, metavar="ISO", help="a clock that stands still")
    options = vars(parser.parse_args())
    host, port = options.pop("host"), options.pop("port")
    google = Google(Fleet(**options))
    Handler.control = Control(google.fleet, google)
    web = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    web.daemon_threads = True
    threading.Thread(target=web.serve_forever, daemon=True).start()
    server = grpc.server(
        ThreadPoolExecutor(8), handlers=google.handlers(), options=[("grpc.max_send_message_length", -1)]
    )
    grpc_port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    asyncio.run(front(host, port, grpc_port, web.server_address[1]))
    server.stop(0)


if __name__ == "__main__":
    main()
