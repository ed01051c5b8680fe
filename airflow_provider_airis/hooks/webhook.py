"""A POST to a URL of the user's: signed, and without telling anybody the URL's path, which often is a secret."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
from collections.abc import Iterator
from functools import cached_property
from time import time
from typing import TYPE_CHECKING

import httpx2

from airflow_provider_airis.errors import PermanentError
from airflow_provider_airis.hooks.base import SHORTEST_SECRET
from airflow_provider_airis.hooks.http import HttpHook

if TYPE_CHECKING:
    from airflow.sdk import Connection

SIGNATURE = "X-Airis-Signature"

# At DEBUG it logs the headers of answers, and where one redirects to may hold the secret that the URL is.
logging.getLogger("httpcore2").setLevel(logging.INFO)


def signature(secret: str, body: bytes, at: int) -> str:
    """The header ``X-Airis-Signature``, as the hub signs: ``t=<at>,v1=<hex HMAC-SHA256 of "<at>.<body>">``.

    :param body: the very bytes that are sent.
    :param at: Unix seconds.
    """
    digest = hmac.new(secret.encode(), b"%d.%b" % (at, body), hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


class WebhookHook(HttpHook):
    """Posts to the URL of an Airflow connection of type ``webhook``, whose password is the secret to sign with.

    The connection's host is the URL, with or without scheme (``https``), with path and query. Errors and logs name its
    host only.
    """

    default_conn_name = "webhook_default"
    conn_type = "webhook"
    hook_name = "Webhook"

    @cached_property
    def url(self) -> httpx2.URL:
        """Where to post."""
        try:
            url = httpx2.URL(self._address())
        except httpx2.InvalidURL as error:
            raise self._misconfigured("its URL is none") from error
        if not url.host or url.scheme not in ("http", "https"):
            raise self._misconfigured("its URL must be one with http or https")
        if url.userinfo:
            raise self._misconfigured('its URL must hold no login; use the extra auth_headers, {"Authorization": "…"}')
        return url

    @cached_property
    def base_url(self) -> str:
        """Scheme, host and port of the URL: all that may be told of it."""
        return str(self.url.copy_with(path="/", query=None, fragment=None)).rstrip("/")

    def authenticate(self, connection: Connection) -> httpx2.Auth | None:  # noqa: ARG002
        """None: each request is signed, or its URL itself is the secret."""
        return None

    def send(self, body: bytes, *, key: str) -> None:
        """Post JSON, signed.

        :param key: sent as ``Idempotency-Key``, so that the receiver knows a repetition by it.
        :raises RetryableError: the receiver asks for patience, fails, or does not answer.
        :raises PermanentError: it refuses.
        """
        headers = {SIGNATURE: signature(self._secret, body, int(time())), "Idempotency-Key": key}
        self.post(body, headers)

    def post(self, body: bytes, headers: dict[str, str]) -> None:
        """Post JSON to the URL; redirections are not followed."""
        try:
            self.request("POST", str(self.url), content=body, headers={"Content-Type": "application/json", **headers})
        except PermanentError as error:
            if error.status is None or not 300 <= error.status < 400:
                raise
            # Without the new address, which may hold the same secret.
            raise PermanentError(
                f"{self._asked('POST', '')} answered {error.status}, a redirection, which is not followed: put the "
                f"final address into connection {self.conn_id}",
                status=error.status,
            ) from None

    def check(self) -> str:
        """Look at the connection only: there is no request without an effect on the receiver."""
        _ = self.url, self._secret, self._headers
        return f"{self.hook_name}: there is a URL and a secret; {self.base_url} is asked with the first alert"

    def _address(self) -> str:
        host = (self.connection.host or "").strip()
        if not host:
            raise self._misconfigured("it has no URL as its host")
        url = host if "://" in host else f"{self.connection.schema or 'https'}://{host}"
        port = self.connection.port
        return re.sub(r"^(\w+://[^/?#:]+)(?=[/?#]|$)", rf"\g<1>:{port}", url) if port else url

    @property
    def _secret(self) -> str:
        secret = self.connection.password or ""
        if not secret:
            raise self._misconfigured("it has no password, the secret that its receiver checks signatures with")
        return secret

    def _asked(self, method: str, path: str) -> str:  # noqa: ARG002
        return f"{self.hook_name} (connection {self.conn_id}): {method}"

    def _secrets(self) -> Iterator[str]:
        yield from super()._secrets()
        if url := self.__dict__.get("url"):
            every = (str(url), url.raw_path.decode(), *url.params.values())
            yield from (secret for secret in every if len(secret) >= SHORTEST_SECRET)
