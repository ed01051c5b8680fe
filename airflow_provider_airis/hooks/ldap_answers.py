"""Takes the answers of LDAP searches off the wire (RFC 4511, basic encoding rules): entries alone, and quickly."""

from __future__ import annotations

from typing import Any, NamedTuple

PAGED = "1.2.840.113556.1.4.319"
DIRSYNC = "1.2.840.113556.1.4.841"
_READ = 1 << 18
_LONGEST = 1 << 28
_ENTRY, _DONE, _REFERENCE, _INTERMEDIATE, _EXTENDED = 0x64, 0x65, 0x73, 0x79, 0x78


class Answer(NamedTuple):
    """What a search was answered with.

    :param entries: name, and attribute in lower case → its values, of each.
    :param controls: by OID, the paged search's ``cookie``, DirSync's ``more_results`` and ``cookie``.
    """

    entries: list[tuple[str, dict[str, list[bytes]]]]
    code: int
    message: str
    controls: dict[str, dict[str, Any]]


def receive(sock: Any, number: int) -> Answer:
    """Read the answer to the search request of that message number.

    :raises OSError: the server closed the connection, or says that it will.
    :raises ValueError: what came is no LDAP.
    """
    entries: list[tuple[str, dict[str, list[bytes]]]] = []
    names: dict[bytes, str] = {}
    buffer, at = b"", 0
    while True:
        end = _end(buffer, at)
        while end is None or end > len(buffer):
            content = sock.recv(_READ)
            if not content:
                raise ConnectionResetError("the server closed the connection")
            buffer, at = buffer[at:] + content, 0
            end = _end(buffer, at)
        _, at = _length(buffer, at + 1)
        size, at = _length(buffer, at + 1)
        answers, at = int.from_bytes(buffer[at : at + size], "big"), at + size
        kind = buffer[at]
        if answers == 0 and kind == _EXTENDED:
            raise ConnectionResetError("the server ends the session")
        if answers != number or kind not in (_ENTRY, _DONE, _REFERENCE, _INTERMEDIATE):
            raise ValueError(f"a message {kind:#x} to request {answers}, not to {number}")
        if kind == _ENTRY:
            entries.append(_entry(buffer, at, names))
        elif kind == _DONE:
            return _done(buffer[at:end], entries)
        at = end


def _entry(buffer: bytes, at: int, names: dict[bytes, str]) -> tuple[str, dict[str, list[bytes]]]:
    _, at = _length(buffer, at + 1)
    size, at = _length(buffer, at + 1)
    dn, at = buffer[at : at + size].decode("utf-8", "replace"), at + size
    size, at = _length(buffer, at + 1)
    end, values = at + size, {}
    while at < end:
        _, at = _length(buffer, at + 1)
        size, at = _length(buffer, at + 1)
        raw, at = buffer[at : at + size], at + size
        name = names.get(raw)
        if name is None:
            name = names[raw] = raw.decode("ascii", "replace").lower()
        size, at = _length(buffer, at + 1)
        last, found = at + size, []
        while at < last:
            size, at = _length(buffer, at + 1)
            found.append(buffer[at : at + size])
            at += size
        values[name] = found
    return dn, values


def _done(message: bytes, entries: list[tuple[str, dict[str, list[bytes]]]]) -> Answer:
    operation, *more = _parts(message)
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
    return Answer(entries, int.from_bytes(code[1], "big"), text[1].decode("utf-8", "replace"), controls)


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
    behind = at + 1 + (size & 0x7F)
    return int.from_bytes(buffer[at + 1 : behind], "big"), behind


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
