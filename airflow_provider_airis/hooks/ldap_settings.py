"""What an Airflow connection of type ldap says: servers, login, encryption."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_provider_airis.errors import PermanentError

if TYPE_CHECKING:
    from airflow.sdk import Connection

CONNECT_TIMEOUT_S = 10.0
_LDAPS_PORTS = (636, 3269)


class LdapSettings:
    """A connection, read field by field.

    :param extra: the connection's extras.
    :param misconfigured: makes the error of a field that is of no use from what is wrong with it.
    """

    def __init__(
        self, connection: Connection, extra: dict[str, Any], misconfigured: Callable[[str], PermanentError]
    ) -> None:
        self.connection = connection
        self.extra = extra
        self._misconfigured = misconfigured

    @cached_property
    def tls(self) -> str:
        """``starttls``, ``ldaps`` or ``none``.

        Unless ``tls`` says so, a connection that was given as ``ldaps://…``, and a port of LDAPS, mean ``ldaps``.
        """
        tls = str(self.extra.get("tls") or "")
        if tls not in ("", "starttls", "ldaps", "none"):
            raise self._misconfigured("its tls must be starttls, ldaps or none")
        if self.connection.conn_type == "ldaps":
            if tls not in ("", "ldaps"):
                raise self._misconfigured(f"its type says ldaps and its tls says {tls}")
            return "ldaps"
        return tls or ("ldaps" if self.connection.port in _LDAPS_PORTS else "starttls")

    @cached_property
    def servers(self) -> list[str]:
        """The servers' URLs, in the order in which they are tried."""
        urls = []
        said = str(self.extra.get("tls") or "")
        for name in filter(None, (part.strip() for part in (self.connection.host or "").split(","))):
            url = urlsplit(name if "://" in name else f"{'ldaps' if self.tls == 'ldaps' else 'ldap'}://{name}")
            try:
                port = url.port or self.connection.port or (636 if url.scheme == "ldaps" else 389)
            except ValueError as error:
                raise self._misconfigured(f"the port of {name!r} is not a number up to 65535") from error
            if url.scheme not in ("ldap", "ldaps") or not url.hostname or url.username or url.path.strip("/"):
                raise self._misconfigured(f"its host names {name!r}: give hosts, or URLs with ldap:// or ldaps://")
            if (url.scheme, self.tls) == ("ldap", "ldaps") or (url.scheme, said) == ("ldaps", "starttls"):
                raise self._misconfigured(f"its host says {url.scheme}:// and its tls says {said or self.tls}")
            host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
            urls.append(f"{url.scheme}://{host}:{port}")
        if not urls:
            raise self._misconfigured("its host is empty: name one server or several, separated by commas")
        return urls

    @cached_property
    def credentials(self) -> dict[str, Any]:
        """How to bind, as arguments of ``ldap3.Connection``."""
        import ldap3  # type: ignore[import-untyped]

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
    def dereference(self) -> str:
        """Which aliases the server follows in a search, in ldap3's words; none unless ``dereference_aliases`` asks.

        See https://datatracker.ietf.org/doc/html/rfc4511#section-4.5.1.3
        """
        import ldap3

        words = {
            "never": ldap3.DEREF_NEVER,
            "searching": ldap3.DEREF_SEARCH,
            "finding": ldap3.DEREF_BASE,
            "always": ldap3.DEREF_ALWAYS,
        }
        word = str(self.extra.get("dereference_aliases") or "never").lower()
        if word not in words:
            raise self._misconfigured(f"its dereference_aliases must be one of {', '.join(words)}")
        return str(words[word])

    @cached_property
    def context(self) -> ssl.SSLContext:
        """How the encryption is verified."""
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

    def client(self, url: str, timeout_s: float) -> Any:
        """An ``ldap3.Connection`` to one server, not opened yet. Its searches return the number of their message."""
        import ldap3

        parts = urlsplit(url)
        tls = ldap3.Tls()
        tls.wrap_socket = self._wrap
        server = ldap3.Server(
            parts.hostname,
            port=parts.port,
            use_ssl=parts.scheme == "ldaps",
            tls=tls,
            get_info=ldap3.NONE,
            connect_timeout=min(timeout_s, CONNECT_TIMEOUT_S),
        )
        client = ldap3.Connection(
            server,
            **self.credentials,
            auto_referrals=False,
            auto_range=False,
            check_names=False,
        )

        def sent(number: int) -> int:
            # ldap3 would decode every value twice, which takes most of the time of a large reading.
            client.strategy._outstanding.pop(number, None)
            return number

        client.post_send_search = sent
        return client

    def _wrap(self, connection: Any, do_handshake: bool = True) -> None:  # noqa: ARG002  ldap3 passes it
        connection.socket = self.context.wrap_socket(connection.socket, server_hostname=connection.server.host)
