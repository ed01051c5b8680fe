"""What every system with an HTTP API needs of a hook: a session, timeouts, retries, paging, errors without secrets."""

from __future__ import annotations

import ipaddress
import logging
import re
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from functools import cached_property
from pathlib import Path
from time import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import httpx2
import msgspec
import tenacity
from airflow.sdk import BaseHook

from airflow_provider_airis import __version__
from airflow_provider_airis.errors import AirisError, PermanentError, RetryableError

if TYPE_CHECKING:
    from typing import Self

    from airflow.sdk import Connection

T = TypeVar("T")

TIMEOUT_S = 30.0
CONNECT_TIMEOUT_S = 10.0
RETRIES = 5
LONGEST_WAIT_S = 60.0
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


class HttpHook(BaseHook):
    """Transport to one HTTP API. Opens nothing until the first request.

    The connection's host is the base URL, with or without scheme (https unless its schema says http), port and path
    prefix. Extras: ``verify`` (true, false or the path of a CA bundle) and ``timeout`` (seconds).

    A subclass sets the class attributes (``default_host`` is where the system is unless the connection says so), calls
    :meth:`request` and :meth:`pages`, and may override :meth:`authenticate`, :meth:`check` and :meth:`problem`.

    :param conn_id: the Airflow connection.
    :param timeout: seconds to wait for the peer to accept, read or answer; over the connection's own.
    :param retries: how often a request that may succeed later is sent again before the error is raised.
    """

    conn_name_attr: ClassVar[str] = "conn_id"
    default_conn_name: ClassVar[str]
    conn_type: ClassVar[str]
    hook_name: ClassVar[str]
    health_path: ClassVar[str] = "/"
    default_host: ClassVar[str] = ""

    def __init__(self, conn_id: str | None = None, *, timeout: float | None = None, retries: int = RETRIES) -> None:
        super().__init__()
        self.conn_id = conn_id or self.default_conn_name
        self.timeout = timeout
        self.retries = retries
        self._lock = threading.Lock()
        self._client: httpx2.Client | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.conn_id!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. The hook opens new ones if it is used again."""
        if self._client is not None:
            self._client.close()
            self._client = None

    @cached_property
    def connection(self) -> Connection:
        """The Airflow connection, looked up once."""
        return self.get_connection(self.conn_id)

    @cached_property
    def extra(self) -> dict[str, Any]:
        """The connection's extras."""
        # Not Connection.extra_dejson: it calls the supervisor, which on a triggerer's event loop can deadlock.
        try:
            return msgspec.json.decode(self.connection.extra or "{}", type=dict[str, Any])
        except msgspec.MsgspecError as error:
            raise self._misconfigured("its extra is not a JSON object") from error

    @cached_property
    def base_url(self) -> str:
        """The base URL, without a slash at its end and without credentials."""
        connection = self.connection
        host = (connection.host or self.default_host).strip()
        scheme, separator, rest = host.partition("://")
        if not separator:
            scheme, rest = connection.schema or "https", host
            if _is_ipv6(rest):
                rest = f"[{rest}]"
        try:
            url = httpx2.URL(f"{scheme}://{rest}")
        except httpx2.InvalidURL as error:
            raise self._misconfigured("its host is no URL") from error
        if not url.host or url.scheme not in ("http", "https"):
            raise self._misconfigured("its host must be a host or a URL with http or https")
        if url.userinfo or url.query or url.fragment:
            raise self._misconfigured("its host must hold no credentials, query or fragment; use login and password")
        if connection.port and url.port is None:
            url = url.copy_with(port=connection.port)
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
        return _Bearer(token)

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

        policy = self._policy(_harmless(request) if retry is None else retry)
        if retry is None and not _harmless(request):
            policy |= {"retry": tenacity.retry_if_exception(_turned_away), "stop": self._last_attempt}
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
        return await tenacity.AsyncRetrying(**self._policy(_harmless(request)))(call)

    async def asession(self) -> httpx2.AsyncClient:
        """A session for an event loop; the caller closes it."""
        await self.aconnection()
        return httpx2.AsyncClient(**self._session())

    async def aconnection(self) -> Connection:
        """The Airflow connection, looked up once; on an event loop, before anything that asks for it."""
        if "connection" not in self.__dict__:
            self.__dict__["connection"] = await self.aget_connection(self.conn_id)
        return self.connection

    def pages(
        self,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        items: str,
        cursor: str = "cursor",
        parameter: str | None = None,
    ) -> Iterator[Any]:
        """Yield the items of every page.

        :param items: the answer's member that lists them.
        :param cursor: the answer's member that names the next page, and the parameter that asks for it.
        :param parameter: that parameter, if it has another name.
        :raises PermanentError: the answers have another shape, or the cursors lead nowhere.
        """
        query, seen = dict(params or {}), set()
        for _ in range(MOST_PAGES):
            page = self.decode(self.request("GET", path, params=query), dict[str, Any])
            if not isinstance(page.get(items), list):
                raise PermanentError(f"{self._asked('GET', path)} answered without the list {items!r}")
            yield from page[items]
            following = page.get(cursor)
            if following is None or following == "":
                return
            if following in seen:
                break
            seen.add(following)
            query[parameter or cursor] = following
        raise PermanentError(
            f"{self._asked('GET', path)} pages without an end: after {len(seen)} pages its {cursor} "
            "still leads on or back. This is a fault of that system"
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

    def test_connection(self) -> tuple[bool, str]:
        """Whether the system can be reached and accepts the credentials, and what it said. Never raises."""
        try:
            return True, self.check()
        except Exception as error:  # noqa: BLE001  the form shows any reason: no connection, bad host, refused token
            said = str(error) if isinstance(error, AirisError) else f"{type(error).__name__}: {error}"
            return False, self._redacted(said)
        finally:
            self.close()

    def check(self) -> str:
        """Ask the system whether it is well; returns what to tell the user."""
        self.request("GET", self.health_path, retry=False)
        return f"{self.hook_name} answers at {self.base_url}"

    def advice(self, status: int) -> str:
        """What somebody who reads the error can do about it."""
        known = _ADVICE.get(status) or ("the same request may succeed later" if status in RETRYABLE else "")
        return known.format(conn_id=self.conn_id)

    def problem(self, response: httpx2.Response) -> tuple[str, str]:
        """The error's detail in the system's own words and the JSON pointer of the field, here of RFC 9457."""
        try:
            document = msgspec.json.decode(response.content)
        except msgspec.MsgspecError:
            return "", ""
        if not isinstance(document, dict):
            return "", ""
        first = next(iter(document.get("errors") or []), None) if isinstance(document.get("errors"), list) else None
        pointer = str(first.get("pointer") or "") if isinstance(first, dict) else ""
        said = [document.get("detail") or document.get("title") or document.get("message") or document.get("error")]
        if isinstance(first, dict) and first.get("detail") not in (None, said[0]):
            said.append(first["detail"])
        return ": ".join(part for part in said if isinstance(part, str)), pointer

    def _session(self) -> dict[str, Any]:
        return {
            "base_url": self.base_url,
            "auth": self.authenticate(self.connection),
            "verify": self._tls,
            "timeout": self._timeout(self._timeout_s),
            "headers": {"User-Agent": f"airflow-provider-airis/{__version__}", "Accept": "application/json"},
        }

    @cached_property
    def _timeout_s(self) -> float:
        wanted = self.extra.get("timeout") if self.timeout is None else self.timeout
        try:
            seconds = TIMEOUT_S if wanted in (None, "") else float(wanted)
        except (TypeError, ValueError) as error:
            raise self._misconfigured("its timeout is no number of seconds") from error
        if not 0 < seconds < 86_400:
            raise self._misconfigured("its timeout must be a positive number of seconds")
        return seconds

    @cached_property
    def _tls(self) -> ssl.SSLContext | bool:
        verify = self.extra.get("verify", True)
        word = str(verify).strip()
        if word.lower() in ("false", "0", "no") or self.base_url.startswith("http://"):
            return False
        if word.lower() in ("", "true", "1", "yes", "none"):
            return httpx2.create_ssl_context()
        path = Path(word)
        try:
            if path.is_dir():
                return ssl.create_default_context(capath=word)
            return ssl.create_default_context(cafile=word)
        except OSError as error:
            raise self._misconfigured(f"its verify names no readable CA bundle: {word}") from error

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

    @property
    def _last_attempt(self) -> tenacity.stop.stop_base:
        return tenacity.stop_after_attempt(self.retries + 1)

    def _policy(self, retry: bool) -> dict[str, Any]:
        return {
            "retry": tenacity.retry_if_exception(_worth_waiting),
            "stop": self._last_attempt if retry else tenacity.stop_after_attempt(1),
            "wait": _wait,
            "before_sleep": self._announce,
            "reraise": True,
        }

    def _announce(self, state: tenacity.RetryCallState) -> None:
        error = state.outcome and state.outcome.exception()
        self.log.warning("%s; attempt %d follows in %.1f s", error, state.attempt_number + 1, state.upcoming_sleep)

    def _checked(self, response: httpx2.Response, path: str) -> httpx2.Response:
        status = response.status_code
        if 200 <= status < 300:
            return response
        detail, pointer = (self._redacted(text) for text in self.problem(response))
        answer = f"{status} {httpx2.codes.get_reason_phrase(status)}".rstrip()
        message = f"{self._asked(response.request.method, path)} answered {answer}"
        if detail or pointer:
            message += f" ({'; '.join(filter(None, (_short(detail), pointer and f'at {pointer}')))})"
        if 300 <= status < 400:
            target = _without_secrets(response.headers.get("location", ""))
            raise PermanentError(
                f"{message}, redirecting to {target}: put the final address into connection {self.conn_id}",
                status=status,
            )
        advice = self.advice(status)
        message += f": {advice}" if advice else ""
        if status in RETRYABLE:
            raise RetryableError(message, retry_after=_retry_after(response), status=status)
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
        said = self._redacted(_short(str(error)) or type(error).__name__)
        return RetryableError(f"{asked} {kind} ({said}): check that {self.base_url} is up and can be reached from here")

    def _asked(self, method: str, path: str) -> str:
        return f"{self.hook_name} (connection {self.conn_id}): {method} {path.partition('?')[0]}"

    def _path(self, response: httpx2.Response) -> str:
        return response.request.url.path

    def _misconfigured(self, what: str) -> PermanentError:
        return PermanentError(f"{self.hook_name}: connection {self.conn_id} cannot be used, {what}")

    def _redacted(self, text: str) -> str:
        if "connection" in self.__dict__:
            for secret in filter(None, (self.connection.password, (self.connection.password or "").strip())):
                text = text.replace(secret, "***")
        return text


class _Bearer(httpx2.Auth):
    def __init__(self, token: str) -> None:
        self._header = f"Bearer {token}"

    def auth_flow(self, request: httpx2.Request) -> Iterator[httpx2.Request]:  # type: ignore[override]
        request.headers["Authorization"] = self._header
        yield request


def _without_secrets(url: str) -> str:
    try:
        return str(httpx2.URL(url).copy_with(userinfo=b"", query=None, fragment=None))
    except httpx2.InvalidURL:
        return "what is no URL"


def _is_ipv6(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).version == 6
    except ValueError:
        return False


def _harmless(request: httpx2.Request) -> bool:
    return request.method not in ("POST", "PATCH") or "Idempotency-Key" in request.headers


def _worth_waiting(error: BaseException) -> bool:
    return isinstance(error, RetryableError) and (error.retry_after or 0) <= LONGEST_WAIT_S


def _turned_away(error: BaseException) -> bool:
    """Whether the system has refused it unseen, and said when to come again."""
    throttled = isinstance(error, RetryableError) and error.status == 429 and error.retry_after is not None
    return throttled and _worth_waiting(error)


_backoff = tenacity.wait_exponential(multiplier=0.5, max=LONGEST_WAIT_S) + tenacity.wait_random(0, 0.5)


def _wait(state: tenacity.RetryCallState) -> float:
    error = state.outcome and state.outcome.exception()
    asked = error.retry_after if isinstance(error, RetryableError) else None
    return _backoff(state) if asked is None else asked


def _retry_after(response: httpx2.Response) -> float | None:
    """Seconds of ``Retry-After``, which is a number or a date (RFC 9110)."""
    value = response.headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d+(\.\d+)?", value):
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time())
    except ValueError:
        return None


def _short(text: str, most: int = 500) -> str:
    return text if len(text) <= most else f"{text[:most]}…"
