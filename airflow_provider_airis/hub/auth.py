"""Bearer tokens with scopes, from a file that only its owner may read."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path

from fastapi import Request

from airflow_provider_airis.hub.problems import Problem

SCOPES = ("ingest", "read", "alerts", "admin")


class Tokens:
    """The tokens that the hub knows, kept as digests.

    :param tokens: name → (token, scopes).
    """

    def __init__(self, tokens: dict[str, tuple[str, frozenset[str]]]) -> None:
        self._tokens = [(name, _digest(token), scopes) for name, (token, scopes) in tokens.items()]

    @classmethod
    def load(cls, path: Path) -> Tokens:
        """Read ``{"<name>": {"token": "…", "scopes": [...]}}``; a missing file is made, with one token for everything.

        :raises ValueError: the file has another shape; the message holds no token.
        """
        try:
            # Exclusive, so that the rights are there before the content is.
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, stat.S_IRUSR | stat.S_IWUSR)
        except FileExistsError:
            pass
        else:
            with os.fdopen(handle, "w") as file:
                json.dump({"admin": {"token": secrets.token_urlsafe(32), "scopes": SCOPES}}, file, indent=2)
        try:
            entries = json.loads(path.read_text()).items()
            tokens = {name: (entry["token"], frozenset(entry["scopes"])) for name, entry in entries}
        except (AttributeError, KeyError, TypeError, ValueError):
            tokens = {}
        for name, (token, scopes) in tokens.items():
            if not isinstance(token, str) or len(token) < 16:
                raise ValueError(f"{path}: the token of {name!r} is no string of at least 16 characters")
            if unknown := scopes - set(SCOPES):
                raise ValueError(f"{path}: {name!r} has unknown scopes {sorted(map(str, unknown))}, not of {SCOPES}")
        if not tokens:
            raise ValueError(f'{path} must hold {{"<name>": {{"token": "…", "scopes": ["{SCOPES[0]}", …]}}}}')
        return cls(tokens)

    def scopes(self, token: str) -> frozenset[str] | None:
        """The scopes of a token, None for an unknown one; takes as long for either."""
        digest = _digest(token)
        found = None
        for _, known, scopes in self._tokens:
            if hmac.compare_digest(known, digest):
                found = scopes
        return found


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def require(scope: str | None) -> Callable[[Request], None]:
    """A dependency that lets only tokens with a scope pass: 401 without a known token, 403 without the scope.

    Without one, any known token passes.

    Browsers may send the token as the password of HTTP Basic, but only to read: they send it without being asked.
    """

    async def check(request: Request) -> None:
        token = _sent(request)
        scopes = request.app.state.tokens.scopes(token) if token else None
        if scopes is None:
            page = not request.url.path.startswith("/api/")
            challenge = 'Basic realm="AIRIS-MON", charset="UTF-8"' if page else 'Bearer realm="AIRIS-MON"'
            detail = "the token is unknown" if token else "a token is needed: Authorization: Bearer <token>"
            raise Problem(401, detail, headers={"WWW-Authenticate": challenge})
        if scope is not None and scope not in scopes:
            raise Problem(403, f"the token lacks the scope {scope!r}")

    return check  # type: ignore[return-value]


def _sent(request: Request) -> str | None:
    kind, _, value = request.headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return value.strip()
    if kind.lower() == "basic" and request.method in ("GET", "HEAD"):
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return None
    return None
