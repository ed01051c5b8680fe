"""What LDAP entries hold: values as text, ids, names, and how each may stand in a filter."""

from __future__ import annotations

import base64
import binascii
import re
import uuid
from functools import cache
from typing import NamedTuple

# Attributes of 16 bytes of which Microsoft stores the first 8 little-endian, and of binary security identifiers:
# https://learn.microsoft.com/windows/win32/adschema/a-ms-ds-consistencyguid
# https://learn.microsoft.com/openspecs/windows_protocols/ms-dtyp/f992ad60-0fe4-4b87-9fed-beb478836861
_GUIDS = frozenset({"objectguid", "ms-ds-consistencyguid", "invocationid", "parentguid"})
_SIDS = frozenset({"objectsid", "sidhistory", "securityidentifier"})
_SEPARATORS = re.compile(r"\s*(?<!\\)([,;+=])\s*")
_HEX = re.compile(r"\\([0-9a-f]{2})")
_SPECIAL = frozenset(',+"\\<>;= #')


class Entry(NamedTuple):
    """An entry as the directory has it: attribute name in lower case → its values.

    Where a name is asked for, commas separate several, of which the first that has a value counts.
    """

    dn: str
    values: dict[str, list[bytes]]

    def found(self, names: str) -> tuple[str, list[bytes]]:
        """The attribute that counts, in lower case, and its values; the last one and none if no one has any."""
        name = ""
        for name in split(names):
            if values := self.values.get(name):
                return name, values
        return name, []

    def text(self, names: str) -> str | None:
        """The first value, None if there is none."""
        values = self.found(names)[1]
        return values[0].decode("utf-8", "replace") if values else None

    def texts(self, names: str) -> list[str]:
        """All values."""
        return [value.decode("utf-8", "replace") for value in self.found(names)[1]]

    def id(self, names: str) -> str | None:
        """The entry's stable id as text, see :func:`id_text`."""
        name, values = self.found(names)
        return id_text(name, values[0]) if values and values[0] else None


class Root(NamedTuple):
    """What a server says about itself.

    :param server: the one that answered, a URL.
    :param base: where to search unless told otherwise, and ``partition``, the naming context above it.
    :param usn: the highest update sequence number it has committed; Active Directory only.
    :param invocation_id: names the copy of the database that counts those; another one counts anew.
    :param vendor: who made it, where it says so: ``389 Project``.
    """

    server: str
    active_directory: bool
    base: str
    partition: str
    usn: int | None
    invocation_id: str | None
    vendor: str = ""


@cache
def split(names: str) -> tuple[str, ...]:
    """The attributes that a comma separates, in lower case."""
    return tuple(name for part in names.lower().split(",") if (name := part.strip()))


def id_text(name: str, value: bytes) -> str:
    """An id as text: GUIDs and security identifiers in their written form, other binary values as base64.

    :param name: of the attribute, in lower case.
    """
    if name in _GUIDS and len(value) == 16:
        return str(uuid.UUID(bytes_le=value))
    if name in _SIDS and len(value) >= 8 and value[0] == 1 and len(value) == 8 + 4 * value[1]:
        numbers = (int.from_bytes(value[at : at + 4], "little") for at in range(8, len(value), 4))
        return "-".join(("S-1", str(int.from_bytes(value[2:8], "big")), *map(str, numbers)))
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return base64.b64encode(value).decode()
    return text if text.isprintable() else base64.b64encode(value).decode()


def id_filter(names: str, one: str) -> str:
    """A filter that meets the entries with an id as :func:`id_text` wrote it."""
    tests = [f"({name}={value})" for name in split(names) for value in dict.fromkeys(_id_values(name, one))]
    return tests[0] if len(tests) == 1 else f"(|{''.join(tests)})"


def _id_values(name: str, one: str) -> list[str]:
    if name in _GUIDS:
        try:
            return [escape_bytes(uuid.UUID(one).bytes_le)]
        except ValueError:
            pass
    if name in _SIDS and re.fullmatch(r"S-1(-\d+){1,16}", one):
        authority, *numbers = map(int, one.split("-")[2:])
        parts = (number.to_bytes(4, "little") for number in numbers if number < 1 << 32)
        return [escape_bytes(bytes((1, len(numbers))) + authority.to_bytes(6, "big") + b"".join(parts))]
    values = [escape(one)]
    try:
        raw = base64.b64decode(one, validate=True)
    except (binascii.Error, ValueError):
        return values
    return [*values, escape_bytes(raw)] if raw and id_text(name, raw) == one else values


def escape(value: str) -> str:
    """A value as it may stand in a filter (RFC 4515, 3)."""
    return "".join(f"\\{ord(char):02x}" if char in "\\*()\x00" else char for char in value)


def escape_bytes(value: bytes) -> str:
    """Bytes as they may stand in a filter."""
    return "".join(f"\\{byte:02x}" for byte in value)


def normalized(dn: str) -> str:
    """A distinguished name as it compares with others: capitals, spaces and ways to escape do not count (RFC 4514)."""
    dn = dn.strip().lower()
    if "\\" in dn:
        dn = _HEX.sub(_unescaped, dn)
    return _SEPARATORS.sub(r"\1", dn)


def is_below(dn: str, context: str) -> bool:
    """Whether a name is another's, or below it."""
    dn, context = normalized(dn), normalized(context)
    return not context or dn == context or dn.endswith(f",{context}")


def _unescaped(match: re.Match[str]) -> str:
    char = chr(int(match[1], 16))
    if char in _SPECIAL:
        return f"\\{char}"
    return char.lower() if char.isascii() and char.isprintable() else match[0]
