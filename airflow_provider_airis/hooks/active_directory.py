"""Active Directory and other LDAP directories, as their own entries."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property, partial
from typing import Any, TypeVar

from airflow_provider_airis.errors import AirisError, PermanentError, RetryableError
from airflow_provider_airis.hooks.base import SystemHook
from airflow_provider_airis.hooks.ldap_answers import DIRSYNC, PAGED, Answer, Answers
from airflow_provider_airis.hooks.ldap_entries import Entry, Root, escape, is_below
from airflow_provider_airis.hooks.ldap_errors import LIMITS, UntrustedError, failed, refused
from airflow_provider_airis.hooks.ldap_settings import LdapSettings

T = TypeVar("T")

PAGE_SIZE = 1000
SMALLEST_PAGE = 10
EMPTY_PAGES = 1000
DIRSYNC_BYTES = 1 << 20
SHOW_DELETED = "1.2.840.113556.1.4.417"
IN_CHAIN = "1.2.840.113556.1.4.1941"
_ACTIVE_DIRECTORY = b"1.2.840.113556.1.4.800"
_RANGE = re.compile(r"(.+);range=(\d+)-(\d+|\*)")


class ActiveDirectoryHook(SystemHook):
    """Reads a directory over LDAP. Opens nothing before the first call, and then stays with the server it has reached.

    The connection's host is one server or several, separated by commas and tried in order:
    ``dc1.example.com, dc2.example.com`` or URLs with ``ldap://`` or ``ldaps://``. Login is a distinguished name or
    ``user@domain``; without one the bind is anonymous. Extras:

    - ``tls``: ``starttls`` (the default), ``ldaps`` or ``none``, which alone sends a password unencrypted. A connection
      given as ``ldaps://…``, and the ports 636 and 3269, mean ``ldaps``.
    - ``verify``: whether the server's certificate is checked, true; ``ca_certs_file``: against which CA bundle.
    - ``authentication``: ``simple``, ``anonymous``, ``gssapi`` (Kerberos) or ``external`` (the certificate of
      ``cert_file`` and ``key_file``).
    - ``base_dn``: where to search; what the server names as its naming context unless given.
    - ``dereference_aliases``: ``never`` (the default), ``searching``, ``finding`` or ``always``.
    - ``timeout``: seconds.

    Referrals are not followed.

    :param conn_id: connection of type ``ldap``.
    :param timeout: seconds to wait for a server to accept or answer; over the connection's own.
    :param retries: how often all servers are tried again before what passes is raised.

    Errors that pass (nobody answers, busy) are :class:`~airflow_provider_airis.errors.RetryableError`, others
    :class:`~airflow_provider_airis.errors.PermanentError`.

    See https://datatracker.ietf.org/doc/html/rfc4511
    """

    default_conn_name = "ldap_default"
    conn_type = "ldap"
    hook_name = "Active Directory / LDAP"

    def __init__(self, conn_id: str | None = None, *, timeout: float | None = None, retries: int = 2) -> None:
        super().__init__(conn_id, timeout=timeout, retries=retries)
        self.server: str | None = None
        self.requests = 0
        self._conn: Any = None
        self._answers: Any = None

    def close(self) -> None:
        """Close the connection. The hook opens a new one, to the same server, if it is used again."""
        conn, self._conn = self._conn, None
        if conn is not None:
            with suppress(Exception):
                conn.unbind()

    @cached_property
    def settings(self) -> LdapSettings:
        """What the connection says."""
        return LdapSettings(self.connection, self.extra, self._misconfigured)

    @property
    def base_url(self) -> str:
        """The server that has been reached, else the first to be tried."""
        return self.server or self.settings.servers[0]

    def get_conn(self) -> Any:
        """An ``ldap3.Connection`` that is bound, to the first server that takes it.

        :raises RetryableError: no server could be reached.
        :raises PermanentError: the login is refused, or a certificate is not trusted.
        """
        if self._conn is None:
            with self.importing():
                self._conn = self._retried(self._connected)
        return self._conn

    def root(self) -> Root:
        """What the server says about itself.

        See https://learn.microsoft.com/windows/win32/adschema/rootdse
        """
        wanted = (
            "namingContexts",
            "defaultNamingContext",
            "highestCommittedUSN",
            "dsServiceName",
            "supportedCapabilities",
            "vendorName",
        )
        found = next(self._read("", wanted), Entry("", {}))
        contexts = found.texts("namingContexts")
        default = found.text("defaultNamingContext") or next(iter(contexts), "")
        base = str(self.extra.get("base_dn") or default)
        above = [context for context in (default, *contexts) if context and is_below(base, context)]
        usn, service = found.text("highestCommittedUSN"), found.text("dsServiceName")
        invocation = None
        if service:
            with suppress(PermanentError):
                invocation = next(self._read(service, ("invocationId",)), found).id("invocationId")
        return Root(
            server=self.base_url,
            active_directory=_ACTIVE_DIRECTORY in found.values.get("supportedcapabilities", ()),
            base=base,
            partition=max(above, key=len, default=base),
            usn=int(usn) if usn else None,
            invocation_id=invocation,
            vendor=found.text("vendorName") or "",
        )

    def entries(
        self,
        base: str | None = None,
        search_filter: str = "(objectClass=*)",
        attributes: Sequence[str] = (),
        *,
        page_size: int = PAGE_SIZE,
        show_deleted: bool = False,
    ) -> Iterator[Entry]:
        """Every entry below ``base`` that the filter meets, page by page, two pages in memory.

        The next page is asked for while this one is decoded. A server that limits the page gets smaller ones. Every
        page's result is checked: what ends early raises.

        :param attributes: what is read of them; only the name unless given.
        :param show_deleted: also what was deleted from Active Directory and is still kept as a tombstone.
        :raises RetryableError: the server is busy or gone; what was yielded before is not all.
        :raises PermanentError: it refuses, or gives less than there is.

        See https://datatracker.ietf.org/doc/html/rfc2696
        """
        base = self.root().base if base is None else base
        asked = _below(base)
        controls = [(SHOW_DELETED, True, None)] if show_deleted else []

        def send(size: int, cookie: bytes | None) -> int:
            return self._send(base, search_filter, attributes, controls, size, cookie)

        answer, page_size = self._first_page(asked, send, page_size)
        read = empty = 0
        first = number = None
        try:
            while True:
                cookie = answer.controls.get(PAGED, {}).get("cookie")
                number = send(page_size, cookie) if cookie else None
                leader = None
                for entry in answer.entries():
                    leader = leader or entry.dn
                    yield self._whole(entry)
                if number is None:
                    return
                read, empty = read + len(answer.messages), 0 if answer.messages else empty + 1
                if empty > EMPTY_PAGES or (leader is not None and leader == first):
                    raise PermanentError(
                        f"{self._asked(asked)} pages without an end, given up after {read} entries. "
                        "This is a fault of that system"
                    )
                first = leader or first
                answer, number = self._next_page(asked, number, read, page_size), None
        finally:
            if number is not None:  # its answer would be in the way of the next one's
                self.close()

    def _first_page(self, asked: str, send: Callable[[int, None], int], size: int) -> tuple[Answer, int]:
        """The first page, and of how many entries it and the next ones are."""
        while True:
            try:
                return self._retried(partial(self._asked_page, asked, send, size)), size
            except AirisError as error:
                if getattr(error, "status", None) not in LIMITS:
                    raise
                if size <= SMALLEST_PAGE:
                    raise PermanentError(f"{error} (after 0 entries, {size} a page)") from error
                size = max(size // 2, SMALLEST_PAGE)
                self.log.info("%s; asking for %d a page", error, size)

    def _asked_page(self, asked: str, send: Callable[[int, None], int], size: int) -> Answer:
        return self._answer(asked, send(size, None))

    def _next_page(self, asked: str, number: int, read: int, size: int) -> Answer:
        try:
            return self._answer(asked, number)
        except AirisError as error:
            if getattr(error, "status", None) not in LIMITS:
                raise
            raise PermanentError(f"{error} (after {read} entries, {size} a page)") from error

    def dirsync(
        self, partition: str, search_filter: str, attributes: Sequence[str], cookie: bytes
    ) -> Iterator[tuple[Iterator[Entry], bytes]]:
        """What Active Directory has changed since a cookie, deletions included: entries and the cookie after them.

        An entry has only its id and what of ``attributes`` has changed, a deleted one ``isDeleted``. Needs the right
        *Replicating Directory Changes* on the partition.

        :param cookie: the last one; empty to begin.

        See https://learn.microsoft.com/windows/win32/ad/polling-for-changes-using-the-dirsync-control
        """
        from ldap3.protocol.microsoft import dir_sync_control  # type: ignore[import-untyped]

        asked = _below(partition)
        while True:
            control = dir_sync_control(True, False, False, False, False, DIRSYNC_BYTES, cookie)
            answer = self._answer(asked, self._send(partition, search_filter, attributes, [control]))
            if DIRSYNC not in answer.controls:
                raise PermanentError(f"{self._asked('DirSync')} was answered without a cookie")
            found = answer.controls[DIRSYNC]
            cookie = bytes(found["cookie"])
            yield answer.entries(), cookie
            if not found["more_results"]:
                return

    def groups_above(self, dn: str) -> list[str]:
        """The groups that a group or user belongs to: through groups in groups in Active Directory, else directly."""
        if not self.root_once.active_directory:
            return next(self._read(dn, ("memberOf",), missing_ok=True), Entry(dn, {})).texts("memberOf")
        # https://learn.microsoft.com/windows/win32/adsi/search-filter-syntax
        found = self.entries(self.root_once.partition, f"(member:{IN_CHAIN}:={escape(dn)})")
        return sorted(entry.dn for entry in found)

    @cached_property
    def root_once(self) -> Root:
        """:meth:`root` as it was when first asked for."""
        return self.root()

    def check(self) -> str:
        """Bind and read the base; returns what to tell the user."""
        root = self.root()
        next(self._read(root.base, ("objectClass",)), None)
        kind = "Active Directory" if root.active_directory else "The directory"
        return (
            f"{kind} at {root.server} accepts {self.connection.login or 'an anonymous bind'}; its base is {root.base}"
        )

    def _read(self, base: str, attributes: Sequence[str], *, missing_ok: bool = False) -> Iterator[Entry]:
        asked = _below(base)
        try:
            answer = self._retried(
                lambda: self._answer(asked, self._send(base, "(objectClass=*)", attributes, [], scope="BASE"))
            )
        except PermanentError as error:
            if missing_ok and error.status == 32:
                return iter(())
            raise
        return answer.entries()

    def _whole(self, entry: Entry) -> Entry:
        """The entry with all values of attributes of which Active Directory gives 1,500 at a time."""
        for name in [name for name in entry.values if ";range=" in name]:
            values = entry.values.pop(name)
            while (match := _RANGE.fullmatch(name)) and match[3] != "*":
                wanted = f"{match[1]};range={int(match[3]) + 1}-*"
                rest = next(iter(self._read(entry.dn, (wanted,))), Entry(entry.dn, {})).values
                name = next((key for key in rest if key.startswith(f"{match[1]};range=")), "")
                if not name or not rest[name]:
                    raise RetryableError(f"{self._asked(f'{wanted} of {entry.dn!r}')} was answered without it")
                values += rest[name]
            entry.values[name.partition(";")[0]] = values
        return entry

    def _send(
        self,
        base: str,
        search_filter: str,
        attributes: Sequence[str],
        controls: list[Any],
        size: int | None = None,
        cookie: bytes | None = None,
        scope: str = "SUBTREE",
    ) -> int:
        """Send a search; returns the number of its message, by which :meth:`_answer` knows the answer."""
        conn = self.get_conn()
        number = self._called(
            _below(base),
            lambda: conn.search(
                base,
                search_filter,
                scope,
                self.settings.dereference,
                attributes=list(attributes) or None,
                controls=list(controls),
                paged_size=size,
                paged_cookie=cookie,
                paged_criticality=True,
            ),
        )
        self.requests += 1
        self._answers.expect(number)
        return int(number)

    def _answer(self, asked: str, number: int) -> Answer:
        from ldap3.core.results import RESULT_CODES  # type: ignore[import-untyped]

        answer: Answer = self._called(asked, lambda: self._answers.receive(number))
        if answer.code:
            raise self._refused(asked, answer.code, RESULT_CODES.get(answer.code, "unknown"), answer.message)
        return answer

    def _retried(self, attempt: Callable[[], T]) -> T:
        for number in range(self.retries + 1):
            try:
                return attempt()
            except RetryableError as error:
                if number == self.retries or getattr(error, "status", None) in LIMITS:
                    raise
                wait = 0.5 * 2**number
                self.log.warning("%s; attempt %d follows in %.1f s", error, number + 2, wait)
                time.sleep(wait)
        raise AssertionError("unreachable")

    def _connected(self) -> Any:
        failures: list[AirisError] = []
        # Update numbers and cookies are one server's: once reached, it is not exchanged for another.
        for url in [self.server] if self.server else self.settings.servers:
            try:
                conn = self._bound(url)
            except (RetryableError, UntrustedError) as error:
                failures.append(error)
                if url != self.settings.servers[-1]:
                    self.log.warning("%s", error)
                continue
            self.server = url
            return conn
        if all(isinstance(error, PermanentError) for error in failures):
            raise PermanentError("; ".join(map(str, failures)))
        raise RetryableError("; ".join(map(str, failures)))

    def _bound(self, url: str) -> Any:
        conn = self.settings.client(url, self._timeout_s)
        ldaps = url.startswith("ldaps:")
        try:
            self._called("to connect", lambda: conn.open(read_server_info=False), url)
            conn.socket.settimeout(self._timeout_s)
            if self.settings.tls != "none" and not ldaps:
                self._called("for StartTLS", lambda: conn.start_tls(read_server_info=False), url)
            self._called("to bind", lambda: conn.bind(read_server_info=False), url)
            if not conn.bound:
                result = conn.result
                raise self._refused("to bind", result["result"], result["description"], result["message"], url)
        except BaseException:
            with suppress(Exception):
                conn.unbind()
            raise
        self._answers = Answers(conn.socket)
        return conn

    def _called(self, asked: str, call: Callable[[], T], url: str | None = None) -> T:
        """Call ldap3, and translate what it raises."""
        try:
            return call()
        except AirisError:
            raise
        except Exception as error:
            self._conn = None
            said = self._redacted(str(error) or type(error).__name__)
            raise failed(self._asked(asked, url), error, said, self.conn_id, url or self.base_url) from error

    def _refused(self, asked: str, code: int, name: str, said: str | None, url: str | None = None) -> AirisError:
        text = self._redacted(" ".join((said or "").replace("\x00", "").split()))[:300]
        return refused(self._asked(asked, url), int(code), name, text)

    def _asked(self, asked: str, url: str | None = None) -> str:
        return f"{self.hook_name} (connection {self.conn_id}): {url or self.base_url}, asked {_for(asked)},"


def _below(base: str) -> str:
    return f"a search below {base!r}" if base else "its root"


def _for(asked: str) -> str:
    return asked if asked.startswith(("to ", "for ")) else f"for {asked}"
