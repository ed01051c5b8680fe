"""Takes the answers of LDAP searches off the wire (RFC 4511, basic encoding rules): entries alone, and quickly."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from airflow_provider_airis.hooks.ldap_entries import Entry

PAGED = "1.2.840.113556.1.4.319"
DIRSYNC = "1.2.840.113556.1.4.841"
_READ = 1 << 18
_LONGEST = 1 << 28
_LARGEST = 1 << 30
_ENTRY, _DONE, _REFERENCE, _INTERMEDIATE, _EXTENDED = 0x64, 0x65, 0x73, 0x79, 0x78


class Answer(NamedTuple):
    """What a search was answered with.

    :param messages: its entries, not decoded yet: each lies in a buffer, from a place on.
    :param controls: by OID, the paged search's ``cookie``, DirSync's ``more_results`` and ``cookie``.
    """

    messages: list[tuple[bytes, int]]
    code: int
    message: str
    controls: dict[str, dict[str, Any]]

    def entries(self) -> Iterator[Entry]:
        """Decode the entries, one after the other."""
        names: dict[bytes, str] = {}
        for buffer, at in self.messages:
            yield _entry(buffer, at, names)


class Answers:
    """The answers that arrive on a connection; several searches may wait for theirs at once."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self._buffer, self._at = b"", 0
        self._waiting: dict[int, list[tuple[bytes, int]]] = {}
        self._done: dict[int, Answer] = {}

    def expect(self, number: int) -> None:
        """Say that a search with that message number was sent."""
        self._waiting[number] = []

    def receive(self, number: int) -> Answer:
        """Wait for the answer to the search with that message number.

        :raises OSError: the server closed the connection, or says that it will.
        :raises ValueError: what came is no LDAP, or larger than any answer.
        """
        self._waiting.setdefault(number, [])
        size = 0
        while number not in self._done:
            end = self._message()
            size += end - self._at
            if size > _LARGEST:
                raise ValueError(f"an answer of more than {_LARGEST} bytes")
            self._take(self._buffer, self._at, end)
            self._at = end
        return self._done.pop(number)

    def _message(self) -> int:
        """Where the next message ends, once all of it is here."""
        buffer, at = self._buffer, self._at
        end = _end(buffer, at)
        while end is None or end > len(buffer):
            content = self._sock.recv(_READ)
            if not content:
                raise ConnectionResetError("the server closed the connection")
            buffer, at = buffer[at:] + content, 0
            end = _end(buffer, at)
        self._buffer, self._at = buffer, at
        return end

    def _take(self, buffer: bytes, at: int, end: int) -> None:
        begin = at
        _, at = _length(buffer, at + 1)
        size, at = _length(buffer, at + 1)
        number, at = int.from_bytes(buffer[at : at + size], "big"), at + size
        kind = buffer[at]
        if number == 0 and kind == _EXTENDED:
            raise ConnectionResetError("the server ends the session")
        if number not in self._waiting or kind not in (_ENTRY, _DONE, _REFERENCE, _INTERMEDIATE):
            raise ValueError(f"a message {kind:#x} to request {number}, which was none")
        if kind == _ENTRY:
            self._waiting[number].append((buffer, at))
        elif kind == _DONE:
            self._done[number] = _done(buffer[begin:end], self._waiting.pop(number))


def _entry(buffer: bytes, at: int, names: dict[bytes, str]) -> Entry:
    """Decode an entry; lengths of one byte, which most are, are read where they stand."""
    size = buffer[at + 1]
    at = at + 2 if size < 0x80 else at + 2 + (size & 0x7F)
    size, at = _length(buffer, at + 1)
    dn = buffer[at : at + size].decode("utf-8", "replace")
    at += size
    size, at = _length(buffer, at + 1)
    end = at + size
    values: dict[str, list[bytes]] = {}
    while at < end:
        size = buffer[at + 1]
        at = at + 2 if size < 0x80 else at + 2 + (size & 0x7F)
        size, at = buffer[at + 1], at + 2
        if size > 0x7F:
            size, at = _length(buffer, at - 1)
        raw = buffer[at : at + size]
        at += size
        size, at = buffer[at + 1], at + 2
        if size > 0x7F:
            size, at = _length(buffer, at - 1)
        last, found = at + size, []
        while at < last:
            size, at = buffer[at + 1], at + 2
            if size > 0x7F:
                size, at = _length(buffer, at - 1)
            found.append(buffer[at : at + size])
            at += size
        name = names.get(raw)
        if name is None:
            name = names[raw] = raw.decode("ascii", "replace").lower()
        values[name] = found
    return Entry(dn, values)


def _done(message: bytes, messages: list[tuple[bytes, int]]) -> Answer:
    operation, *more = _parts(_parts(message)[0][1])[1:]
    code, _, text, *_ = _parts(operation[1])
    controls: dict[str, dict[str, Any]] = {}
    for tag, content in more:
        for _, control in _parts(content) if tag == 0xA0 else ():
            oid, *rest = _parts(control)
            values = [content for tag, content in rest if tag == 0x04]
            name = oid[1].decode("ascii", "replace")
            if name in (PAGED, DIRSYNC) and values:
                value = _parts(_parts(values[0])[0][1])
                controls[name] = {"more_results": any(value[0][1]), "cookie": value[-1][1]}
    return Answer(messages, int.from_bytes(code[1], "big"), text[1].decode("utf-8", "replace"), controls)


def _parts(content: bytes) -> list[tuple[int, bytes]]:
    """Tag and content of each element."""
    parts, at = [], 0
    while at < len(content):
        tag = content[at]
        size, at = _length(content, at + 1)
        parts.append((tag, content[at : at + size]))
        at += size
    return parts


def _length(buffer: bytes, at: int) -> tuple[int, int]:
    """An element's length, and where its content begins."""
    size = buffer[at]
    if size < 0x80:
        return size, at + 1
    after = at + 1 + (size & 0x7F)
    return int.from_bytes(buffer[at + 1 : after], "big"), after


def _end(buffer: bytes, at: int) -> int | None:
    """Where the message that begins there ends, None if that has not arrived."""
    if len(buffer) < at + 6:
        return None
    if buffer[at] != 0x30:
        raise ValueError("it does not begin as LDAP does")
    size, at = _length(buffer, at + 1)
    if size > _LONGEST:
        raise ValueError(f"a message of {size} bytes")
    return at + size
