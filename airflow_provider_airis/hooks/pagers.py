"""How a system's list goes on, a class a way. :meth:`~airflow_provider_airis.hooks.http.HttpHook.pages` follows them.

That stops with an error where a page was asked for already, or after 10,000 of them; a pager only says what is next.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

_PARAMETER = r"\s*;\s*([\w*-]+)\s*=\s*(\"[^\"]*\"|[^\s;,\"]+)"
_WHOLE = _PARAMETER.replace("(", "(?:")


class Page(NamedTuple):
    """A page that was read.

    :param items: how many it has.
    :param asked: the query that it answers.
    """

    headers: Mapping[str, str]
    document: Any
    items: int
    asked: Mapping[str, Any]


class Pager:
    """A way to page.

    :cvar counts: whether a page follows from how much was read, so that a server which does not know the parameter
        answers with the same page again.
    :cvar expires: the statuses that say that the list has changed underneath.
    """

    counts: bool = False
    expires: frozenset[int] = frozenset()

    @property
    def first(self) -> dict[str, Any]:
        """What the first request asks for beside the caller's query."""
        return {}

    def following(self, page: Page) -> Mapping[str, Any] | str | None:
        """The next page: parameters over those of this page, or a URL, which has its own; None if there is none."""
        raise NotImplementedError


@dataclass(frozen=True)
class Cursor(Pager):
    """The answer has a token, which a parameter sends back.

    :param member: where it is in the answer, dotted where it lies deeper (``response_metadata.next_cursor``).
    :param parameter: the parameter that sends it, if it has another name.
    """

    member: str = "cursor"
    parameter: str = ""

    def following(self, page: Page) -> Mapping[str, Any] | None:
        """See :meth:`Pager.following`."""
        token = member(page.document, self.member)
        return None if token in (None, "") else {self.parameter or self.member: token}


@dataclass(frozen=True)
class ContinueToken(Cursor):
    """Kubernetes' way: ``metadata.continue``, which expires within minutes and is then answered with 410.

    :param limit: how many a page.

    See https://kubernetes.io/docs/reference/using-api/api-concepts/#retrieving-large-results-sets-in-chunks
    """

    member: str = "metadata.continue"
    parameter: str = "continue"
    limit: int = 500
    expires = frozenset({410})

    @property
    def first(self) -> dict[str, Any]:
        """See :attr:`Pager.first`."""
        return {"limit": self.limit}


@dataclass(frozen=True)
class LinkHeader(Pager):
    """The answer's header ``Link`` has the next page's URL, as GitHub and GitLab do (RFC 8288)."""

    relation: str = "next"

    def following(self, page: Page) -> str | None:
        """See :meth:`Pager.following`."""
        for target, rest in re.findall(rf"<([^>]*)>((?:{_WHOLE})*)", page.headers.get("link", "")):
            for name, value in re.findall(_PARAMETER, rest):
                if name.lower() == "rel" and self.relation in value.strip('"').lower().split():
                    return str(target)
        return None


@dataclass(frozen=True)
class Offset(Pager):
    """A parameter says how many to skip. Pages may be smaller than asked for; only what says so ends the list.

    :param limit: how many to ask for.
    :param more: the answer's member that says whether there are more; ``total``: how many there are in all. Without
        either an empty page is the end.
    """

    limit: int = 100
    parameter: str = "offset"
    limit_parameter: str = "limit"
    more: str = ""
    total: str = ""
    counts = True

    @property
    def first(self) -> dict[str, Any]:
        """See :attr:`Pager.first`."""
        return {self.limit_parameter: self.limit, self.parameter: 0}

    def following(self, page: Page) -> Mapping[str, Any] | None:
        """See :meth:`Pager.following`."""
        read = int(page.asked[self.parameter]) + page.items
        total = member(page.document, self.total) if self.total else None
        ends = not page.items
        ends |= bool(self.more) and member(page.document, self.more) is not True
        ends |= isinstance(total, int) and read >= total
        return None if ends else {self.parameter: read}


@dataclass(frozen=True)
class PageNumber(Pager):
    """A parameter is the page's number; an empty page, or the last of ``pages``, is the end.

    :param start: the first page's number.
    :param size: how many to ask for, by ``size_parameter``.
    :param pages: the answer's member that says how many pages there are.
    """

    start: int = 1
    size: int = 100
    parameter: str = "page"
    size_parameter: str = "per_page"
    pages: str = ""
    counts = True

    @property
    def first(self) -> dict[str, Any]:
        """See :attr:`Pager.first`."""
        return {self.size_parameter: self.size, self.parameter: self.start}

    def following(self, page: Page) -> Mapping[str, Any] | None:
        """See :meth:`Pager.following`."""
        number = int(page.asked[self.parameter])
        pages = member(page.document, self.pages) if self.pages else None
        last = isinstance(pages, int) and number - self.start + 1 >= pages
        return None if last or not page.items else {self.parameter: number + 1}


def member(document: Any, path: str) -> Any:
    """A document's member by its dotted path, the document itself if that is empty; None if there is none."""
    for name in filter(None, path.split(".")):
        document = document.get(name) if isinstance(document, Mapping) else None
    return document
