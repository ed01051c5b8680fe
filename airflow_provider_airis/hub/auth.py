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
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qsl

from fastapi import Request

from airflow_provider_airis.hub.flow import chunks
from airflow_provider_airis.hub.problems import Problem

SCOPES = ("ingest", "read", "alerts", "admin")
_FORM = "application/x-www-form-urlencoded"


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
        return self._find(token)[1]

    def name(self, token: str) -> str:
        """The name of a token, empty for an unknown one."""
        return self._find(token)[0]

    def _find(self, token: str) -> tuple[str, frozenset[str] | None]:
        digest = _digest(token)
        found: tuple[str, frozenset[str] | None] = "", None
        for name, known, scopes in self._tokens:
            if hmac.compare_digest(known, digest):
                found = name, scopes
        return found


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def require(*wanted: str, form: bool = False) -> Callable[[Request], None]:
    """A dependency that lets only tokens with one of the scopes pass: 401 without a known token, 403 without a scope.

    Without one, any known token passes.

    Browsers may send the token as the password of HTTP Basic, but only to read: they send it without being asked.

    :param form: take what a page's form sends, by Basic too, if its field ``form_key`` is :func:`form_key`; the fields
        are the request's ``state.form`` then.
    """

    async def check(request: Request) -> None:
        token = sent(request)[1]
        if _is_basic(request) and not form and request.method not in ("GET", "HEAD"):
            token = ""
        scopes = request.app.state.tokens.scopes(token) if token else None
        if scopes is None:
            page = not request.url.path.startswith("/api/")
            challenge = 'Basic realm="AIRIS-MON", charset="UTF-8"' if page else 'Bearer realm="AIRIS-MON"'
            detail = "the token is unknown" if token else "a token is needed: Authorization: Bearer <token>"
            raise Problem(401, detail, headers={"WWW-Authenticate": challenge})
        if wanted and scopes.isdisjoint(wanted):
            raise Problem(403, f"the token lacks the scope {' or '.join(map(repr, wanted))}")
        if form:
            request.state.form = await _form(request)

    return check  # type: ignore[return-value]


def sent(request: Request) -> tuple[str, str]:
    """The user's name, which is anybody's word, and the token of a request; empty if there is none."""
    kind, _, value = request.headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return "", value.strip()
    if kind.lower() == "basic":
        with suppress(binascii.Error, UnicodeDecodeError):
            user, _, token = base64.b64decode(value, validate=True).decode().partition(":")
            return user, token
    return "", ""


def form_key(request: Request) -> str:
    """What the forms of a page carry that was asked for with a token: no other site can read it, and send it."""
    return hmac.digest(sent(request)[1].encode("utf-8", "surrogateescape"), b"form", "sha256").hex()


def _is_basic(request: Request) -> bool:
    return request.headers.get("authorization", "").lower().startswith("basic")


async def _form(request: Request) -> dict[str, str]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != _FORM:
        raise Problem(415, f"Content-Type {kind!r} is not taken here: use {_FORM}")
    content = b"".join([chunk async for chunk in chunks(request)])
    try:
        fields = dict(parse_qsl(content.decode(), keep_blank_values=True, max_num_fields=20))
    except ValueError as error:
        raise Problem(400, f"this is no form: {error}") from None
    if not hmac.compare_digest(fields.pop("form_key", "").encode(), form_key(request).encode()):
        raise Problem(
            403, "the form is not from a page of this hub, or from one of before the token changed: reload it"
        )
    return fields
