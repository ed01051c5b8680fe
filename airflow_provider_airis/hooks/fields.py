"""What may stand in a connection's fields, whatever the system: pure, and never quoting what may be a secret."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Any

import httpx2
import msgspec

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# These follow from the request.
_OURS = frozenset({"connection", "content-encoding", "content-length", "content-type", "host", "transfer-encoding"})


class Bearer(httpx2.Auth):
    """A token in the header ``Authorization``."""

    def __init__(self, token: str) -> None:
        self._header = f"Bearer {token}"

    def auth_flow(self, request: httpx2.Request) -> Iterator[httpx2.Request]:  # type: ignore[override]
        """See httpx2."""
        request.headers["Authorization"] = self._header
        yield request


class FieldError(ValueError):
    """A field that cannot be used: which, and why."""


def base_url(host: str, scheme: str, port: int | None) -> httpx2.URL:
    """The URL that a host means, with or without scheme.

    :raises FieldError: it is none, or holds what does not belong there.
    """
    named, separator, rest = host.strip().partition("://")
    if not separator:
        named, rest = scheme, host.strip()
        if _is_ipv6(rest):
            rest = f"[{rest}]"
    try:
        url = httpx2.URL(f"{named}://{rest}")
    except httpx2.InvalidURL:
        raise FieldError("its host is not a valid URL") from None
    if not url.host or url.scheme not in ("http", "https"):
        raise FieldError("its host must be a host or a URL with http or https")
    if url.userinfo or url.query or url.fragment:
        raise FieldError("its host must hold no credentials, query or fragment; use login and password")
    return url.copy_with(port=port) if port and url.port is None else url


def headers(given: Any) -> dict[str, str]:
    """Headers as a JSON object, or as its text.

    :raises FieldError: they are something else, or what no request may be given.
    """
    try:
        given = msgspec.json.decode(given) if isinstance(given, str) else given
        found = msgspec.convert(given, dict[str, str])
    except msgspec.MsgspecError:
        raise FieldError("its auth_headers are not a JSON object of texts") from None
    for name, value in found.items():
        if not _TOKEN.fullmatch(name) or not (value.isascii() and value.isprintable()):
            raise FieldError("its auth_headers hold characters that no HTTP header can carry")
        if name.lower() in _OURS:
            raise FieldError(f"its auth_headers must not hold {name}, which follows from the request")
    return found


def short(text: str, most: int = 500) -> str:
    """A text of at most so many characters."""
    return text if len(text) <= most else f"{text[:most]}…"


def without_secrets(url: str) -> str:
    """A URL as it may be shown: without login, query and fragment."""
    try:
        return str(httpx2.URL(url).copy_with(userinfo=b"", query=None, fragment=None))
    except httpx2.InvalidURL:
        return "what is no URL"


def _is_ipv6(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).version == 6
    except ValueError:
        return False
