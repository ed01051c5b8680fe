"""Errors as RFC 9457 problem documents, and JSON pointers from what msgspec says."""

from __future__ import annotations

import re
from http import HTTPStatus

import msgspec

MEDIA_TYPE = "application/problem+json"


class FieldError(msgspec.Struct, frozen=True):
    """What is wrong with one field. ``pointer`` is a JSON pointer (RFC 6901); empty for the document itself."""

    pointer: str
    detail: str


class ProblemDocument(msgspec.Struct, frozen=True, rename={"kind": "type"}):
    """The body of every error."""

    title: str
    status: int
    detail: str
    kind: str = "about:blank"
    errors: list[FieldError] = []


class Problem(Exception):  # noqa: N818 (the RFC's own word)
    """An answer other than success.

    :param pointer: JSON pointer of the offending field.
    :param errors: what is wrong, if that is more than one field.
    :param headers: what the answer carries besides, e.g. ``Retry-After``.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        pointer: str | None = None,
        errors: list[FieldError] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = (errors or []) if pointer is None else [FieldError(pointer, detail)]
        self.headers = headers or {}

    def document(self) -> ProblemDocument:
        """The problem as its wire form."""
        return ProblemDocument(HTTPStatus(self.status).phrase, self.status, self.detail, errors=self.errors)


class StoreUnavailable(Problem):
    """The store cannot be reached or cannot write; nothing of the request was kept."""

    def __init__(self, detail: str) -> None:
        super().__init__(503, f"the store is not reachable: {detail}", headers={"Retry-After": "2"})


class Overloaded(Problem):
    """More is waiting to be written than the hub takes on."""

    def __init__(self) -> None:
        super().__init__(429, "more is waiting to be stored than the hub takes on", headers={"Retry-After": "1"})


def escape(token: str) -> str:
    """One reference token of a JSON pointer."""
    return token.replace("~", "~0").replace("/", "~1")


def explain(error: Exception) -> tuple[str, str]:
    """Pointer and detail of a msgspec error."""
    message, _, path = str(error).partition(" - at `$")
    # msgspec does not say under which of a mapping's keys, `[...]`: the mapping is as far as it goes.
    known, mapping, _ = path.partition("[...]")
    pointer = "".join(f"/{name or index}" for name, index in re.findall(r"\.(\w+)|\[(\d+)\]", known))
    field = re.search(r"(?:missing required|unknown) field `(.+)`", message)
    if field and not mapping:
        pointer += f"/{escape(field[1])}"
    return pointer, message
