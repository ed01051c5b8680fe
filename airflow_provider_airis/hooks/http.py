"""What every system with an HTTP API needs of a hook: a session, timeouts, retries, pages, errors without secrets."""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import httpx2
import msgspec
import tenacity

from airflow_provider_airis import __version__
from airflow_provider_airis.errors import AirisError, PermanentError, RetryableError
from airflow_provider_airis.hooks import fields, retrying, tls
from airflow_provider_airis.hooks.base import RETRIES, SHORTEST_SECRET, SystemHook
from airflow_provider_airis.hooks.pagers import Cursor, Page, Pager, member

if TYPE_CHECKING:
    from airflow.sdk import Connection

T = TypeVar("T")

CONNECT_TIMEOUT_S = 10.0
MOST_PAGES = 10_000
RETRYABLE = frozenset({408, 425, 429, 500, 502, 503, 504})

_ADVICE = {
    400: "the request itself is at fault",
    401: "check the token or password of connection {conn_id}",
    403: "the credentials of connection {conn_id} lack the permission or scope for this",
    404: "check the base URL of connection {conn_id} and that what was asked for exists",
    405: "check the base URL of connection {conn_id}",
    409: "it contradicts what is there already",
    413: "send less at once",
    415: "check the compression or format that connection {conn_id} names",
    422: "the request itself is at fault",
    429: "it asks to be called less often; the same request may succeed later",
}

# At INFO the library logs the whole URL of every request, query included. Airflow quiets its predecessor the same way.
logging.getLogger("httpx2").setLevel(logging.WARNING)


class HttpHook(SystemHook):
    """Transport to one HTTP API. Opens nothing until the first request.

    The connection's host is the base URL, with or without scheme (https unless its schema says http), port and path
    prefix. Extras: ``verify`` (true, false or the path of a CA bundle), ``timeout`` (seconds), ``client_cert`` and
    ``client_private_key`` (paths of PEM files, or PEM) and ``auth_headers`` (a JSON object of headers that every
    request has). Airflow masks the latter two by their names.

    A subclass sets the class attributes (``default_host`` is where the system is unless the connection says so), calls
    :meth:`request` and :meth:`pages`, and may override :meth:`authenticate`, :meth:`check` and :meth:`problem`.

    :param conn_id: the Airflow connection.
    :param timeout: seconds to wait for the peer to accept, read or answer; over the connection's own.
    :param retries: how often a request that may succeed later is sent again before the error is raised.
    """

    health_path: ClassVar[str] = "/"
    default_host: ClassVar[str] = ""

    def __init__(self, conn_id: str | None = None, *, timeout: float | None = None, retries: int = RETRIES) -> None:
        super().__init__(conn_id, timeout=timeout, retries=retries)
        self._lock = threading.Lock()
        self._client: httpx2.Client | None = None

    def close(self) -> None:
        """Close the connections. The hook opens new ones if it is used again."""
        if self._client is not None:
            self._client.close()
            self._client = None

    @cached_property
    def base_url(self) -> str:
        """The base URL, without a slash at its end and without credentials."""
        connection = self.connection
        try:
            url = fields.base_url(connection.host or self.default_host, connection.schema or "https", connection.port)
        except fields.FieldError as error:
            raise self._misconfigured(str(error)) from None
        return str(url).rstrip("/")

    def authenticate(self, connection: Connection) -> httpx2.Auth | None:
        """How requests prove who they are: here the password as bearer token, or login and password."""
        if connection.login:
            return httpx2.BasicAuth(connection.login, connection.password or "")
        token = (connection.password or "").strip()
        if not token:
            return None
        if not token.isascii() or not token.isprintable():
            raise self._misconfigured("its token holds characters that no HTTP header can carry")
        return fields.Bearer(token)

    def get_conn(self) -> httpx2.Client:
        """The session, opened at the first call. It may be used from several threads."""
        with self._lock:
            if self._client is None:
                self._client = httpx2.Client(**self._session())
            return self._client

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        retry: bool | None = None,
        timeout: float | None = None,
        stop: threading.Event | None = None,
    ) -> httpx2.Response:
        """Send a request and return its successful answer.

        :param path: below the base URL. It is named in errors: put nothing secret into it.
        :param params: the query; those that are None are left out.
        :param json: anything that msgspec encodes; or ``content`` as it is.
        :param retry: whether sending it twice does no harm. By default all but a POST or PATCH without an
            ``Idempotency-Key``, which is sent again only if it was turned away with 429 and a ``Retry-After``. Every
            attempt sends the same bytes; ``Retry-After`` is honoured.
        :param timeout: seconds, for this request only.
        :param stop: once it is set, no further attempt is waited for.
        :raises RetryableError: timeouts, broken connections, HTTP 408, 425, 429, 500, 502, 503, 504.
        :raises PermanentError: any other answer that is not 2xx, with its ``status``, ``detail`` and ``pointer``.
        """
        client = self.get_conn()
        request = self._build(client, method, path, params, json, content, headers, timeout)

        def attempt() -> httpx2.Response:
            try:
                response = client.send(request)
            except httpx2.RequestError as error:
                raise self._broken(request, path, error) from error
            return self._checked(response, path)

        harmless = retrying.harmless(request) if retry is None else retry
        policy = retrying.policy(self.retries if harmless or retry is None else 0, self.log)
        if retry is None and not harmless:
            policy["retry"] = tenacity.retry_if_exception(retrying.turned_away)
        if stop is not None:
            policy |= {
                "sleep": tenacity.sleep_using_event(stop),
                "stop": policy["stop"] | tenacity.stop_when_event_set(stop),
            }
        return tenacity.Retrying(**policy)(attempt)

    async def arequest(
        self,
        client: httpx2.AsyncClient,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        timeout: float | None = None,
    ) -> httpx2.Response:
        """Send a request from an event loop, on a client of :meth:`asession`; as :meth:`request`."""
        request = self._build(client, method, path, params, json, None, None, timeout)

        async def attempt() -> httpx2.Response:
            try:
                response = await client.send(request)
            except httpx2.RequestError as error:
                raise self._broken(request, path, error) from error
            return self._checked(response, path)

        call: Callable[[], Awaitable[httpx2.Response]] = attempt
        policy = retrying.policy(self.retries if retrying.harmless(request) else 0, self.log)
        return await tenacity.AsyncRetrying(**policy)(call)

    async def asession(self) -> httpx2.AsyncClient:
        """A session for an event loop; the caller closes it."""
        await self.aconnection()
        return httpx2.AsyncClient(**self._session())

    def pages(
        self,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        items: str,
        pager: Pager | None = None,
    ) -> Iterator[Any]:
        """Yield the items of every page, a page in memory.

        :param items: the answer's member that lists them, dotted where it lies deeper (``data.rows``); empty if the
            answer itself is the list.
        :param pager: how the list goes on; by default the answer's member ``cursor`` is the next page's parameter.
        :raises PermanentError: the answers have another shape, or the pages come again or do not end.
        :raises RetryableError: the list has changed underneath, and is to be read anew.
        """
        pager = pager or Cursor()
        asked: set[tuple[str, str]] = set()
        query = {**(params or {}), **pager.first}
        url, shown = path, b""
        while len(asked) < MOST_PAGES and (key := (url, repr(query))) not in asked:
            asked.add(key)
            try:
                response = self.request("GET", url, params=query, headers=headers)
            except PermanentError as error:
                if error.status in pager.expires and len(asked) > 1:
                    raise RetryableError(f"{error}. The list has changed underneath, read it anew") from error
                raise
            document = self.decode(response, Any)
            found = member(document, items)
            if not isinstance(found, list):
                raise PermanentError(f"{self._asked('GET', path)} answered without the list {items!r}")
            if pager.counts and found and response.content == shown:
                break
            shown = response.content
            yield from found
            step = pager.following(Page(response.headers, document, len(found), query))
            if step is None:
                return
            if isinstance(step, str):
                url, query = self._next_url(response, step), {}
            else:
                query = {**query, **step}
        raise PermanentError(
            f"{self._asked('GET', path)} pages without an end: page {len(asked) + 1} leads back or still on. "
            "This is a fault of that system"
        )

    def decode(self, response: httpx2.Response, shape: type[T]) -> T:
        """The answer's JSON as ``shape``.

        :raises PermanentError: it is something else, as from a proxy's login page.
        """
        try:
            return msgspec.json.decode(response.content, type=shape)
        except msgspec.MsgspecError as error:
            asked = self._asked(response.request.method, self._path(response))
            raise PermanentError(
                f"{asked} answered {response.status_code}, but with something else than its API does ({error}): "
                f"check the base URL of connection {self.conn_id}",
                status=response.status_code,
            ) from error

    def check(self) -> str:
        """Ask the system whether it is well; returns what to tell the user."""
        self.request("GET", self.health_path, retry=False)
        return f"{self.hook_name} answers at {self.base_url}"

    def advice(self, status: int) -> str:
        """What somebody who reads the error can do about it."""
        known = _ADVICE.get(status) or ("the same request may succeed later" if status in RETRYABLE else "")
        return known.format(conn_id=self.conn_id)

    def problem(self, response: httpx2.Response) -> tuple[str, str]:
        """The error's detail in the system's own words and the JSON pointer of the field.

        Here of RFC 9457, or of ``{error: {code, message, detail}}``.
        """
        try:
            document = msgspec.json.decode(response.content)
        except msgspec.MsgspecError:
            return "", ""
        if not isinstance(document, dict):
            return "", ""
        first = next(iter(document.get("errors") or []), None) if isinstance(document.get("errors"), list) else None
        pointer = str(first.get("pointer") or "") if isinstance(first, dict) else ""
        error = document.get("error")
        own = [error.get(name) for name in ("code", "message", "detail")] if isinstance(error, dict) else [error]
        rfc = document.get("detail") or document.get("title") or document.get("message")
        said = [rfc] if rfc else own
        if isinstance(first, dict) and first.get("detail") not in (None, said[0]):
            said.append(first["detail"])
        return ": ".join(part for part in said if isinstance(part, str)), pointer

    def _session(self) -> dict[str, Any]:
        auth = self.authenticate(self.connection)
        if auth is not None and "authorization" in {name.lower() for name in self._headers}:
            raise self._misconfigured("it has Authorization among its auth_headers beside its login or password")
        return {
            "base_url": self.base_url,
            "auth": auth,
            "verify": self._tls,
            "timeout": self._timeout(self._timeout_s),
            "headers": {
                "User-Agent": f"airflow-provider-airis/{__version__}",
                "Accept": "application/json",
                **self._headers,
            },
        }

    @cached_property
    def _tls(self) -> ssl.SSLContext | bool:
        cert, key = (str(self.extra.get(name) or "") for name in ("client_cert", "client_private_key"))
        if self.base_url.startswith("http://"):
            if cert or key:
                raise self._misconfigured("its client_cert needs a host with https")
            return False
        try:
            return tls.context(self.extra.get("verify", True), cert, key)
        except fields.FieldError as error:
            raise self._misconfigured(str(error)) from error.__cause__

    @cached_property
    def _headers(self) -> dict[str, str]:
        """The headers that the connection adds to every request."""
        try:
            return fields.headers(self.extra.get("auth_headers") or {})
        except fields.FieldError as error:
            raise self._misconfigured(str(error)) from None

    def _secrets(self) -> Iterator[str]:
        yield from super()._secrets()
        values = self.__dict__.get("_headers", {}).values()
        yield from (value for value in values if len(value) >= SHORTEST_SECRET)

    def _next_url(self, response: httpx2.Response, link: str) -> str:
        """Where a page's link leads: credentials are sent to the connection's own host only."""
        url = response.url.join(link)
        here = httpx2.URL(self.base_url)
        if (url.scheme, url.host, url.port) != (here.scheme, here.host, here.port):
            raise PermanentError(
                f"{self._asked('GET', self._path(response))} continues at another address, "
                f"{fields.without_secrets(str(url))}, which is not followed: check connection {self.conn_id}'s host"
            )
        return str(url)

    def _timeout(self, seconds: float) -> httpx2.Timeout:
        return httpx2.Timeout(seconds, connect=min(seconds, CONNECT_TIMEOUT_S))

    def _build(
        self,
        client: httpx2.Client | httpx2.AsyncClient,
        method: str,
        path: str,
        params: Mapping[str, Any] | None,
        json: Any,
        content: bytes | None,
        headers: Mapping[str, str] | None,
        timeout: float | None,
    ) -> httpx2.Request:
        sent = dict(headers or {})
        if json is not None:
            content = msgspec.json.encode(json)
            sent.setdefault("Content-Type", "application/json")
        query = {name: value for name, value in (params or {}).items() if value is not None}
        limit = httpx2.USE_CLIENT_DEFAULT if timeout is None else self._timeout(timeout)
        return client.build_request(method, path, params=query or None, content=content, headers=sent, timeout=limit)

    def _checked(self, response: httpx2.Response, path: str) -> httpx2.Response:
        status = response.status_code
        if 200 <= status < 300:
            return response
        detail, pointer = (self._redacted(text) for text in self.problem(response))
        answer = f"{status} {httpx2.codes.get_reason_phrase(status)}".rstrip()
        message = f"{self._asked(response.request.method, path)} answered {answer}"
        if detail or pointer:
            message += f" ({'; '.join(filter(None, (fields.short(detail), pointer and f'at {pointer}')))})"
        if 300 <= status < 400:
            target = fields.without_secrets(response.headers.get("location", ""))
            raise PermanentError(
                f"{message}, redirecting to {target}: put the final address into connection {self.conn_id}",
                status=status,
            )
        advice = self.advice(status)
        message += f": {advice}" if advice else ""
        if status in RETRYABLE:
            raise RetryableError(
                message, retry_after=retrying.retry_after(response.headers.get("retry-after", "")), status=status
            )
        raise PermanentError(message, pointer=pointer, detail=detail, status=status)

    def _broken(self, request: httpx2.Request, path: str, error: httpx2.RequestError) -> AirisError:
        asked = self._asked(request.method, path)
        if isinstance(error, httpx2.LocalProtocolError | httpx2.UnsupportedProtocol):
            # Its message may quote a header.
            return PermanentError(f"{asked} could not be sent: check the fields of connection {self.conn_id}")
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ssl.SSLCertVerificationError):
                return PermanentError(
                    f"{asked} was not sent, its certificate is not trusted ({cause.verify_message}): "
                    f"let verify of connection {self.conn_id} name the CA bundle"
                )
            cause = cause.__cause__ or cause.__context__
        kind = "got no answer in time" if isinstance(error, httpx2.TimeoutException) else "broke off"
        if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
            kind = "could not connect"
        said = self._redacted(fields.short(str(error)) or type(error).__name__)
        return RetryableError(f"{asked} {kind} ({said}): check that {self.base_url} is up and can be reached from here")

    def _asked(self, method: str, path: str) -> str:
        return f"{self.hook_name} (connection {self.conn_id}): {method} {path.partition('?')[0]}"

    def _path(self, response: httpx2.Response) -> str:
        return response.request.url.path
