"""Active Directory and other LDAP directories, as their own entries."""

from __future__ import annotations

import re
import ssl
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from airflow_provider_airis.errors import AirisError, PermanentError, RetryableError
from airflow_provider_airis.hooks.base import SystemHook
from airflow_provider_airis.hooks.ldap_answers import DIRSYNC, PAGED, receive

T = TypeVar("T")

PAGE_SIZE = 1000
SMALLEST_PAGE = 10
CONNECT_TIMEOUT_S = 10.0
EMPTY_PAGES = 1000
DIRSYNC_BYTES = 1 << 20
SHOW_DELETED = "1.2.840.113556.1.4.417"
IN_CHAIN = "1.2.840.113556.1.4.1941"
_ACTIVE_DIRECTORY = b"1.2.840.113556.1.4.800"
_RANGE = re.compile(r"(.+);range=(\d+)-(\d+|\*)")
# What Active Directory says in the text of invalidCredentials.
_REFUSED = {
    "525": "there is no such user",
    "530": "not at this time",
    "531": "not from this machine",
    "532": "the password has expired",
    "533": "the account is disabled",
    "701": "the account has expired",
    "773": "the password must be changed first",
    "775": "the account is locked",
}
# timeLimitExceeded, busy, unavailable, other
_PASSING = frozenset({3, 51, 52, 80})
# timeLimitExceeded, sizeLimitExceeded, adminLimitExceeded
_LIMITS = frozenset({3, 4, 11})
_ADVICE = {
    1: "a directory that asks for a bind before a search says so: give the connection a login and a password",
    4: "it gives no more than that in all; let its administrator lift the limit for this login",
    7: "let authentication of the connection name another",
    8: "it wants encryption: let tls of the connection be starttls or ldaps",
    10: "another server holds that part: name that one as the host, or another base",
    11: "it gives no more than that in all; let its administrator lift the limit for this login",
    12: "the server lacks a control that this needs",
    13: "it wants encryption: let tls of the connection be starttls or ldaps",
    32: "there is no such base, or the login may not see it",
    34: "the base is no distinguished name",
    48: "give the connection a login and a password",
    49: "check the login and password of the connection",
    50: "the login may not read this: give it the right",
    53: "the server does not do this for this login",
}


class Entry(NamedTuple):
    """An entry as the directory has it: attribute name in lower case → its values."""

    dn: str
    values: dict[str, list[bytes]]

    def text(self, name: str) -> str | None:
        """The first value of an attribute, None if there is none; a comma separates names to try in order."""
        for one in name.lower().split(","):
            if values := self.values.get(one.strip()):
                return values[0].decode("utf-8", "replace")
        return None

    def texts(self, name: str) -> list[str]:
        """All values of an attribute."""
        return [value.decode("utf-8", "replace") for value in self.values.get(name.lower(), ())]

    def id(self, name: str) -> str | None:
        """The entry's stable id; ``objectGUID`` is 16 bytes, of which Microsoft stores the first 8 little-endian."""
        values = self.values.get(name.lower())
        if not values or not values[0]:
            return None
        if name.lower() == "objectguid":
            return str(uuid.UUID(bytes_le=values[0]))
        return values[0].decode("utf-8", "replace")


class Root(NamedTuple):
    """What a server says about itself.

    :param server: the one that answered, a URL.
    :param base: where to search unless told otherwise, and ``partition``, the naming context above it.
    :param usn: the highest update sequence number it has committed; Active Directory only.
    :param invocation_id: names the copy of the database that counts those; another one counts anew.
    """

    server: str
    active_directory: bool
    base: str
    partition: str
    usn: int | None
    invocation_id: str | None


class ActiveDirectoryHook(SystemHook):
    """Reads a directory over LDAP. Opens nothing before the first call, and then stays with the server it has reached.

    The connection's host is one server or several, separated by commas and tried in order:
    ``dc1.example.com, dc2.example.com`` or URLs with ``ldap://`` or ``ldaps://``. Login is a distinguished name or
    ``user@domain``; without one the bind is anonymous. Extras:

    - ``tls``: ``starttls`` (the default), ``ldaps`` or ``none``, which alone sends a password unencrypted.
    - ``verify``: whether the server's certificate is checked, true; ``ca_certs_file``: against which CA bundle.
    - ``authentication``: ``simple``, ``anonymous``, ``gssapi`` (Kerberos) or ``external`` (the certificate of
      ``cert_file`` and ``key_file``).
    - ``base_dn``: where to search; what the server names as its naming context unless given.
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
        self._conn: Any = None

    def close(self) -> None:
        """Close the connection. The hook opens a new one, to the same server, if it is used again."""
        conn, self._conn = self._conn, None
        if conn is not None:
            with suppress(Exception):
                conn.unbind()

    @cached_property
    def servers(self) -> list[str]:
        """The servers' URLs, in the order in which they are tried."""
        tls = str(self.extra.get("tls") or "")
        if tls not in ("", "starttls", "ldaps", "none"):
            raise self._misconfigured("its tls must be starttls, ldaps or none")
        urls = []
        for name in filter(None, (part.strip() for part in (self.connection.host or "").split(","))):
            url = urlsplit(name if "://" in name else f"{'ldaps' if tls == 'ldaps' else 'ldap'}://{name}")
            try:
                port = url.port or self.connection.port or (636 if url.scheme == "ldaps" else 389)
            except ValueError as error:
                raise self._misconfigured(f"the port of {name!r} is none") from error
            if url.scheme not in ("ldap", "ldaps") or not url.hostname or url.username or url.path.strip("/"):
                raise self._misconfigured(f"its host names {name!r}: give hosts, or URLs with ldap:// or ldaps://")
            if (url.scheme, tls) in (("ldap", "ldaps"), ("ldaps", "starttls")):
                raise self._misconfigured(f"its host says {url.scheme}:// and its tls says {tls}")
            host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
            urls.append(f"{url.scheme}://{host}:{port}")
        if not urls:
            raise self._misconfigured("its host is empty: name one server or several, separated by commas")
        return urls

    @property
    def base_url(self) -> str:
        """The server that has been reached, else the first to be tried."""
        return self.server or self.servers[0]

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
        )
        found = next(iter(self._read("", wanted)), Entry("", {}))
        contexts = found.texts("namingContexts")
        default = found.text("defaultNamingContext") or next(iter(contexts), "")
        base = str(self.extra.get("base_dn") or default)
        above = [context for context in (default, *contexts) if context and _is_below(base, context)]
        usn, service = found.text("highestCommittedUSN"), found.text("dsServiceName")
        invocation = None
        if service:
            with suppress(PermanentError):
                for settings in self._read(service, ("invocationId",)):
                    raw = settings.values.get("invocationid")
                    invocation = str(uuid.UUID(bytes_le=raw[0])) if raw else None
        return Root(
            server=self.base_url,
            active_directory=_ACTIVE_DIRECTORY in found.values.get("supportedcapabilities", ()),
            base=base,
            partition=max(above, key=len, default=base),
            usn=int(usn) if usn else None,
            invocation_id=invocation,
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
        """Every entry below ``base`` that the filter meets, page by page, one page in memory.

        A server that limits the page gets smaller ones. Every page's result is checked: what ends early raises.

        :param attributes: what is read of them; only the name unless given.
        :param show_deleted: also what was deleted from Active Directory and is still kept as a tombstone.
        :raises RetryableError: the server is busy or gone; what was yielded before is not all.
        :raises PermanentError: it refuses, or gives less than there is.

        See https://datatracker.ietf.org/doc/html/rfc2696
        """
        base = self.root().base if base is None else base
        controls = [(SHOW_DELETED, True, None)] if show_deleted else []
        cookie: bytes | None = None
        read = empty = 0
        first = None
        while True:
            try:
                page, answer = self._search(
                    base, search_filter, attributes, controls, again=cookie is None, size=page_size, cookie=cookie
                )
            except AirisError as error:
                if getattr(error, "status", None) not in _LIMITS:
                    raise
                if cookie is None and page_size > SMALLEST_PAGE:
                    page_size = max(page_size // 2, SMALLEST_PAGE)
                    self.log.info("%s; asking for %d a page", error, page_size)
                    continue
                raise PermanentError(f"{error} (after {read} entries, {page_size} a page)") from error
            for entry in page:
                yield self._whole(entry)
            cookie = answer.get(PAGED, {}).get("cookie")
            if not cookie:
                return
            read, empty = read + len(page), 0 if page else empty + 1
            if empty > EMPTY_PAGES or (page and page[0].dn == first):
                raise PermanentError(
                    f"{self._asked(f'a search below {base!r}')} pages without an end, given up after {read} entries. "
                    "This is a fault of that system"
                )
            first = page[0].dn if page else first

    def dirsync(
        self, partition: str, search_filter: str, attributes: Sequence[str], cookie: bytes
    ) -> Iterator[tuple[list[Entry], bytes]]:
        """What Active Directory has changed since a cookie, deletions included: entries and the cookie after them.

        An entry has only its id and what of ``attributes`` has changed, a deleted one ``isDeleted``. Needs the right
        *Replicating Directory Changes* on the partition.

        :param cookie: the last one; empty to begin.

        See https://learn.microsoft.com/windows/win32/ad/polling-for-changes-using-the-dirsync-control
        """
        from ldap3.protocol.microsoft import dir_sync_control  # type: ignore[import-untyped]

        while True:
            control = dir_sync_control(True, False, False, False, False, DIRSYNC_BYTES, cookie)
            page, answer = self._search(partition, search_filter, attributes, [control], again=False)
            if DIRSYNC not in answer:
                raise PermanentError(f"{self._asked('DirSync')} was answered without a cookie")
            more, cookie = answer[DIRSYNC]["more_results"], bytes(answer[DIRSYNC]["cookie"])
            yield page, cookie
            if not more:
                return

    def groups_above(self, dn: str) -> list[str]:
        """The groups that a group or user belongs to, through groups in groups; Active Directory only.

        See https://learn.microsoft.com/windows/win32/adsi/search-filter-syntax
        """
        found = self.entries(self.root_once.partition, f"(member:{IN_CHAIN}:={escape(dn)})")
        return sorted(entry.dn for entry in found)

    @cached_property
    def root_once(self) -> Root:
        """:meth:`root` as it was when first asked for."""
        return self.root()

    def check(self) -> str:
        """Bind and read the base; returns what to tell the user."""
        root = self.root()
        self._read(root.base, ("objectClass",))
        kind = "Active Directory" if root.active_directory else "The directory"
        return (
            f"{kind} at {root.server} accepts {self.connection.login or 'an anonymous bind'}; its base is {root.base}"
        )

    def _read(self, base: str, attributes: Sequence[str]) -> list[Entry]:
        from ldap3 import BASE  # type: ignore[import-untyped]

        return self._search(base, "(objectClass=*)", attributes, [], again=True, scope=BASE)[0]

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

    def _search(
        self,
        base: str,
        search_filter: str,
        attributes: Sequence[str],
        controls: list[Any],
        *,
        again: bool,
        size: int | None = None,
        cookie: bytes | None = None,
        scope: str = "SUBTREE",
    ) -> tuple[list[Entry], dict[str, Any]]:
        """One search request: its entries, and by OID the values of the controls it was answered with."""
        asked = f"a search below {base!r}" if base else "its root"

        def attempt() -> tuple[list[Entry], dict[str, Any]]:
            conn = self.get_conn()
            self._called(
                asked,
                lambda: conn.search(
                    base,
                    search_filter,
                    scope,
                    attributes=list(attributes) or None,
                    controls=list(controls),
                    paged_size=size,
                    paged_cookie=cookie,
                    paged_criticality=True,
                ),
            )
            page, result = conn.response, conn.result
            conn.response = None
            if result["result"] != 0:
                raise self._refused(asked, result)
            return page, result["controls"]

        return self._retried(attempt) if again else attempt()

    def _retried(self, attempt: Callable[[], T]) -> T:
        for number in range(self.retries + 1):
            try:
                return attempt()
            except RetryableError as error:
                if number == self.retries or getattr(error, "status", None) in _LIMITS:
                    raise
                wait = 0.5 * 2**number
                self.log.warning("%s; attempt %d follows in %.1f s", error, number + 2, wait)
                time.sleep(wait)
        raise AssertionError("unreachable")

    def _connected(self) -> Any:
        failures: list[AirisError] = []
        # Marks and cookies are one server's: once reached, it is not exchanged for another.
        for url in [self.server] if self.server else self.servers:
            try:
                conn = self._bound(url)
            except (RetryableError, _UntrustedError) as error:
                failures.append(error)
                if url != self.servers[-1]:
                    self.log.warning("%s", error)
                continue
            self.server = url
            return conn
        if all(isinstance(error, PermanentError) for error in failures):
            raise PermanentError("; ".join(map(str, failures)))
        raise RetryableError("; ".join(map(str, failures)))

    def _bound(self, url: str) -> Any:
        import ldap3

        parts = urlsplit(url)
        encrypted = parts.scheme == "ldaps" or self.extra.get("tls") != "none"
        tls = ldap3.Tls()
        tls.wrap_socket = self._wrap
        seconds = self._timeout_s
        server = ldap3.Server(
            parts.hostname,
            port=parts.port,
            use_ssl=parts.scheme == "ldaps",
            tls=tls,
            get_info=ldap3.NONE,
            connect_timeout=min(seconds, CONNECT_TIMEOUT_S),
        )
        conn = ldap3.Connection(
            server,
            **self._credentials,
            auto_referrals=False,
            auto_range=False,
            check_names=False,
        )
        conn.post_send_search = lambda number: self._received(conn, number)
        try:
            self._called("to connect", lambda: conn.open(read_server_info=False), url)
            conn.socket.settimeout(seconds)
            if encrypted and parts.scheme != "ldaps":
                self._called("for StartTLS", lambda: conn.start_tls(read_server_info=False), url)
            self._called("to bind", lambda: conn.bind(read_server_info=False), url)
            if not conn.bound:
                raise self._refused("to bind", conn.result, url)
        except BaseException:
            with suppress(Exception):
                conn.unbind()
            raise
        return conn

    def _received(self, conn: Any, number: int) -> list[Entry]:
        """The entries of a search. ldap3 decodes every value twice, which takes most of the time of a large reading."""
        from ldap3.core.results import RESULT_CODES  # type: ignore[import-untyped]

        conn.strategy._outstanding.pop(number, None)
        answer = receive(conn.socket, number)
        conn.response = page = [Entry(dn, values) for dn, values in answer.entries]
        conn.result = {
            "type": "searchResDone",
            "result": answer.code,
            "description": RESULT_CODES.get(answer.code, "unknown"),
            "message": answer.message,
            "controls": answer.controls,
        }
        return page

    @cached_property
    def _credentials(self) -> dict[str, Any]:
        import ldap3

        login, password = self.connection.login or "", self.connection.password or ""
        how = str(self.extra.get("authentication") or ("simple" if login else "anonymous")).lower()
        if how == "anonymous":
            return {"authentication": ldap3.ANONYMOUS}
        if how == "simple":
            # A name with an empty password is a bind that succeeds as nobody (RFC 4513, 5.1.2).
            if not login or not password:
                raise self._misconfigured("a simple bind needs a login and a password")
            return {"authentication": ldap3.SIMPLE, "user": login, "password": password}
        if how == "gssapi":
            return {"authentication": ldap3.SASL, "sasl_mechanism": ldap3.KERBEROS, "user": login or None}
        if how == "external":
            return {"authentication": ldap3.SASL, "sasl_mechanism": ldap3.EXTERNAL, "sasl_credentials": login}
        raise self._misconfigured("its authentication must be simple, anonymous, gssapi or external")

    @cached_property
    def _context(self) -> ssl.SSLContext:
        bundle = self.extra.get("ca_certs_file") or None
        try:
            context = ssl.create_default_context(cafile=bundle)
            if self.extra.get("cert_file"):
                context.load_cert_chain(self.extra["cert_file"], self.extra.get("key_file") or None)
        except OSError as error:
            raise self._misconfigured(
                "its ca_certs_file, cert_file or key_file names no readable certificate"
            ) from error
        if str(self.extra.get("verify", True)).lower() in ("false", "0", "no"):
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context

    def _wrap(self, connection: Any, do_handshake: bool = True) -> None:  # noqa: ARG002  ldap3 passes it
        connection.socket = self._context.wrap_socket(connection.socket, server_hostname=connection.server.host)

    def _called(self, asked: str, call: Callable[[], Any], url: str | None = None) -> None:
        """Call ldap3, and translate what it raises."""
        from ldap3.core import exceptions as ldap  # type: ignore[import-untyped]

        try:
            call()
        except AirisError:
            raise
        except (ldap.LDAPInvalidFilterError, ldap.LDAPInvalidDnError, ldap.LDAPAttributeError) as error:
            raise PermanentError(f"{self._asked(asked, url)} cannot be sent, it is malformed ({error})") from error
        except (ldap.LDAPPackageUnavailableError, ImportError) as error:
            raise PermanentError(
                f"{self._asked(asked, url)} needs a package that is not installed ({error}): "
                "install gssapi, or let authentication be simple"
            ) from error
        except Exception as error:
            self._conn = None
            said = self._redacted(str(error) or type(error).__name__)
            if "CERTIFICATE_VERIFY_FAILED" in said:
                raise _UntrustedError(
                    f"{self._asked(asked, url)} was not sent, its certificate is not trusted "
                    f"({said.partition('certificate verify failed: ')[2].partition(' (_ssl')[0]}): "
                    f"let ca_certs_file of connection {self.conn_id} name the CA bundle, and host the name in it"
                ) from error
            if isinstance(error, ldap.LDAPStartTLSError) and "startTLS failed" in said:
                raise _UntrustedError(
                    f"{self._asked(asked, url)} was refused ({said}): "
                    "let the server have a certificate, or tls of the connection be ldaps"
                ) from error
            if not isinstance(error, (ldap.LDAPExceptionError, OSError)):
                raise PermanentError(f"{self._asked(asked, url)} was answered with no LDAP ({said})") from error
            raise RetryableError(
                f"{self._asked(asked, url)} got no answer ({said}): check that it is up and can be reached from here"
            ) from error

    def _refused(self, asked: str, result: dict[str, Any], url: str | None = None) -> AirisError:
        """The error of a result that is not success."""
        code, name = int(result["result"]), result["description"]
        said = self._redacted(" ".join((result.get("message") or "").replace("\x00", "").split()))[:300]
        message = f"{self._asked(asked, url)} was answered {code} {name}" + (f" ({said})" if said else "")
        if code in _PASSING:
            return RetryableError(f"{message}: the same may succeed later", status=code)
        advice = _ADVICE.get(code, "")
        if code == 49 and (match := re.search(r"\bdata ([0-9a-f]{3})\b", said)) and match[1] in _REFUSED:
            advice = _REFUSED[match[1]]
        return PermanentError(f"{message}: {advice}" if advice else message, detail=said, status=code)

    def _asked(self, asked: str, url: str | None = None) -> str:
        return f"{self.hook_name} (connection {self.conn_id}): {url or self.base_url}, asked {_for(asked)},"


class _UntrustedError(PermanentError):
    """A server's encryption is not to be trusted; another one's may be."""


def escape(value: str) -> str:
    """A value as it may stand in a filter (RFC 4515, 3)."""
    return "".join(f"\\{ord(char):02x}" if char in "\\*()\x00" else char for char in value)


def escape_bytes(value: bytes) -> str:
    """Bytes as they may stand in a filter."""
    return "".join(f"\\{byte:02x}" for byte in value)


def _for(asked: str) -> str:
    return asked if asked.startswith(("to ", "for ")) else f"for {asked}"


def _is_below(dn: str, context: str) -> bool:
    dn, context = ("".join(part.lower().split()) for part in (dn, context))
    return dn == context or dn.endswith(f",{context}")
