"""LDAP peers of the contract tests: a real slapd for golden cases, and one that gives any answer for all others."""

from __future__ import annotations

import atexit
import functools
import json
import shutil
import socketserver
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from sandbox.active_directory import Slapd, program

BIND, SEARCH, UNBIND = 0x60, 0x63, 0x42


class LdapPeer:
    """Serves a case's ``directory.ldif`` from a real slapd; once ``_response`` is replaced, only what that says.

    An answer is ``{"bind": {"code": 49, "message": …}, "search": {"code": 0, "cookie": …}}``, success where it is
    silent; every search finds the same entry.
    """

    _response: Callable[[dict[str, Any]], dict[str, Any]] | None = None

    def __init__(self, path: Path) -> None:
        self.path = path
        self.left: list[Any] = []
        self.unexpected: list[Any] = []

    def __enter__(self) -> LdapPeer:
        if self._response is None:
            self.url = slapd(self.path).url
            return self
        peer = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                for number, operation, body in _messages(self.rfile):
                    if operation == UNBIND:
                        return
                    self.wfile.write(peer._answer(number, operation, body))

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"ldap://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._response is not None:
            self._server.shutdown()
            self._server.server_close()

    def _answer(self, number: int, operation: int, body: bytes) -> bytes:
        assert self._response
        base = _parts(body)[0][1] if operation == SEARCH else b""
        response = self._response({"operation": operation, "base": base.decode()})
        if operation == BIND:
            return _message(number, _result(0x61, response.get("bind", {})))
        said = response.get("search", {})
        attributes = {"namingContexts": "dc=example,dc=com"} if not base else {"objectClass": "inetOrgPerson"}
        listed = b"".join(_tlv(0x30, _text(name), _tlv(0x31, _text(value))) for name, value in attributes.items())
        entry = _message(number, _tlv(0x64, _text(base.decode()), _tlv(0x30, listed)))
        control = b""
        if "cookie" in said:
            value = _tlv(0x30, _tlv(0x02, b"\0"), _text(said["cookie"]))
            control = _tlv(0xA0, _tlv(0x30, _text("1.2.840.113556.1.4.319"), _tlv(0x04, value)))
        return entry + _message(number, _result(0x65, said), control)


@functools.cache
def slapd(path: Path) -> Slapd:
    """The slapd that serves a file, as long as the tests run."""
    try:
        program("slapd")
    except FileNotFoundError as error:
        pytest.skip(str(error))
    folder = Path(tempfile.mkdtemp(prefix="slapd-"))
    connection = json.loads((path.parent / "case.json").read_text())["connections"]["ldap_default"]
    server = Slapd(folder, ldif=path, password=connection["password"])
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(server.stop)
    return server


def _messages(stream: Any) -> Iterator[tuple[int, int, bytes]]:
    """Number, operation and body of every request that arrives."""
    while header := stream.read(2):
        length = header[1]
        if length & 0x80:
            length = int.from_bytes(stream.read(length & 0x7F), "big")
        number, operation = _parts(stream.read(length))[:2]
        yield int.from_bytes(number[1], "big"), operation[0], operation[1]


def _parts(content: bytes) -> list[tuple[int, bytes]]:
    """Tag and content of each element (X.690, definite lengths)."""
    parts, at = [], 0
    while at < len(content):
        tag, length, at = content[at], content[at + 1], at + 2
        if length & 0x80:
            size = length & 0x7F
            length, at = int.from_bytes(content[at : at + size], "big"), at + size
        parts.append((tag, content[at : at + length]))
        at += length
    return parts


def _tlv(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def _text(value: str) -> bytes:
    return _tlv(0x04, value.encode())


def _result(tag: int, said: dict[str, Any]) -> bytes:
    return _tlv(tag, _tlv(0x0A, bytes((said.get("code", 0),))), _text(""), _text(said.get("message", "")))


def _message(number: int, operation: bytes, control: bytes = b"") -> bytes:
    return _tlv(0x30, _tlv(0x02, number.to_bytes(4, "big")), operation, control)
