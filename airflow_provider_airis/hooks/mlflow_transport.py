"""Requests to MLflow sent by mlflow's own client, so that whoever can log in with it can with the hook.

Credentials, client certificates, AWS signatures, plugins for headers and authentication, Databricks' logins are that
client's; timeouts, repetitions, pages and errors are the hook's, which sees httpx2 only.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

import httpx2

from airflow_provider_airis.errors import PermanentError, RetryableError

if TYPE_CHECKING:
    from mlflow.utils.rest_utils import MlflowHostCreds

MAX_ANSWER = 512 << 20
_CHUNK = 1 << 20
# What of an answer speaks of its encoding, which requests has undone.
_ENCODING = frozenset({"content-encoding", "content-length", "transfer-encoding", "connection"})
_SENT = frozenset({"accept", "content-type"})
# Scheme of a tracking URI → the package that brings it.
_PACKAGES = {"arn": "sagemaker-mlflow", "azureml": "azureml-mlflow"}
_WAIT_S = 60.0
_environment = threading.Lock()


class MLflowTransport(httpx2.BaseTransport):
    """Sends each request by ``mlflow.utils.rest_utils.http_request``, once.

    :param credentials: whom to ask as; asked for before each request, as they may expire.
    :param prefix: path of the hook's base URL, below which the API is.
    :param headers: of every request, beside those of mlflow's plugins.

    See https://mlflow.org/docs/latest/ml/plugins/
    """

    def __init__(self, credentials: Callable[[], MlflowHostCreds], prefix: str, headers: Mapping[str, str]) -> None:
        self._credentials = credentials
        self._prefix = len(prefix)
        self._headers = headers

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send it and read the answer, up to :data:`MAX_ANSWER`."""
        import requests
        from mlflow.exceptions import MlflowException
        from mlflow.utils.rest_utils import http_request

        credentials = self._credentials()
        limits = request.extensions.get("timeout", {})
        timeout: Any = (limits.get("connect"), limits.get("read"))
        sent = {name: value for name, value in request.headers.items() if name in _SENT}
        try:
            with http_request(
                credentials,
                request.url.raw_path.decode()[self._prefix :],
                request.method,
                max_retries=0,
                raise_on_status=False,
                extra_headers={**self._headers, **sent},
                timeout=limits.get("read") if credentials.use_databricks_sdk else timeout,
                allow_redirects=False,
                stream=True,
                data=request.read() or None,
            ) as answer:
                headers = {name: value for name, value in answer.headers.items() if name.lower() not in _ENCODING}
                return httpx2.Response(answer.status_code, headers=headers, content=_body(answer), request=request)
        except (MlflowException, requests.RequestException, ValueError) as error:
            raise _translated(error, request) from error


def _body(answer: Any) -> bytes:
    content = bytearray()
    for chunk in answer.iter_content(_CHUNK):
        content += chunk
        if len(content) > MAX_ANSWER:
            raise PermanentError(f"MLflow answered with more than {MAX_ANSWER >> 20} MiB, which is not read")
    return bytes(content)


def _translated(error: Exception, request: httpx2.Request) -> Exception:
    """As httpx2 would have said it."""
    import requests

    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, requests.RequestException):
        cause = cause.__cause__ or cause.__context__
    kinds: dict[type[requests.RequestException], type[httpx2.RequestError]] = {
        requests.ConnectTimeout: httpx2.ConnectTimeout,
        requests.Timeout: httpx2.ReadTimeout,
        requests.exceptions.ChunkedEncodingError: httpx2.ReadError,
        requests.exceptions.InvalidHeader: httpx2.LocalProtocolError,
    }
    for theirs, ours in kinds.items():
        if isinstance(cause, theirs):
            return ours(str(cause), request=request)
    if isinstance(cause, requests.ConnectionError):
        # Requests says both with one class.
        broken = "Connection aborted" in str(cause) or "Read timed out" in str(cause)
        timed_out = "Read timed out" in str(cause)
        kind = httpx2.ReadTimeout if timed_out else httpx2.ReadError if broken else httpx2.ConnectError
        return kind(str(cause), request=request)
    return PermanentError(f"MLflow's client cannot send {request.method} {request.url.path}: {error}")


def store_credentials(uri: str) -> Callable[[], MlflowHostCreds]:
    """The credentials of mlflow's own store for a tracking URI that is no URL, as ``databricks`` or an ARN.

    :raises PermanentError: no package that is installed knows such a URI, or it has no REST API.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.store.model_registry.base_rest_store import BaseRestStore
    from mlflow.tracking._model_registry.utils import _get_store

    try:
        store = _get_store(uri, uri)
    except MlflowException as error:
        package = _PACKAGES.get(uri.partition(":")[0])
        missing = f"pip install {package}" if package else "install the plugin that knows it"
        raise PermanentError(f"MLflow's client does not know the tracking URI {uri!r} ({error}): {missing}") from error
    if not isinstance(store, BaseRestStore):
        raise PermanentError(f"The tracking URI {uri!r} leads to no server: {type(store).__name__} has no REST API")
    credentials: Callable[[], MlflowHostCreds] = store.get_host_creds
    return credentials


def check_plugins(auth: str, providers: list[str]) -> None:
    """Accept that the plugins which a connection names are installed: mlflow itself only warns, and asks without.

    :param auth: of an authentication plugin; none if empty.
    :param providers: of request header plugins.
    :raises PermanentError: one is missing; what there is is named.
    """
    from mlflow.tracking.request_auth import registry

    if auth and auth not in (there := [provider.get_name() for provider in registry._request_auth_provider_registry]):
        raise PermanentError(_missing("request_auth_provider", auth, there))
    installed = {point.name for point in entry_points(group="mlflow.request_header_provider")}
    for name in providers:
        if name not in installed:
            raise PermanentError(_missing("request_header_provider", name, sorted(installed)))


def _missing(kind: str, name: str, there: list[str]) -> str:
    return (
        f"MLflow's plugin {name!r} (mlflow.{kind}) is not installed here: install the package that brings it. "
        f"Installed are: {', '.join(there) or 'none'}"
    )


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Variables for what mlflow and its plugins read from the process' environment, taken away again afterwards.

    One at a time: it is the whole process'.

    :raises RetryableError: another one has not ended in time.
    """
    if not variables:
        yield
        return
    if not _environment.acquire(timeout=_WAIT_S):
        raise RetryableError("Another MLflow connection of this process is using the environment")
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if (client := sys.modules.get("mlflow.utils.rest_utils")) is not None:
            client.get_workspace_client.cache_clear()  # Databricks' clients keep the login that they were made with
        _environment.release()
