"""MLflow's tracking server: its model registry, and the runs behind the versions, as MLflow's own records."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx2
import msgspec

from airflow_provider_airis.errors import PermanentError
from airflow_provider_airis.hooks.http import HttpHook, T
from airflow_provider_airis.hooks.pagers import Cursor

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlflow.utils.rest_utils import MlflowHostCreds

API = "/api/2.0/mlflow"
PAGE = 1_000
WORKSPACE = "X-MLFLOW-WORKSPACE"


class MLflowHook(HttpHook):
    """Reads the registry of an MLflow server, 2.9 or later, or of whatever mlflow's own client reaches.

    Requests are sent by that client (``mlflow-skinny``), which brings its logins, certificates and plugins. The host is
    the server's URL, or a tracking URI (``databricks``, ``databricks://<profile>``, an ARN of SageMaker's, …). The
    connection has login and password, or a token as password. Extras, beside ``verify`` and ``timeout``:

    - ``workspace``: the workspace to read, of a server that has them.
    - ``client_cert``, ``client_private_key``: paths of PEM files.
    - ``auth``: name of an authentication plugin; ``aws_sigv4``: whether to sign requests for AWS.
    - ``request_header_providers``: names of header plugins that must be installed.
    - ``environment``: variables for the time that the hook is open, for plugins and logins that read them there, as
      ``DATABRICKS_CLIENT_ID`` and ``DATABRICKS_CLIENT_SECRET``.

    See https://mlflow.org/docs/latest/rest-api.html
    """

    default_conn_name = "mlflow_default"
    conn_type = "mlflow"
    hook_name = "MLflow"

    def models(self) -> Iterator[dict[str, Any]]:
        """Every registered model with its aliases, by name, 1,000 a call.

        ``{name, creation_timestamp, last_updated_timestamp, aliases: [{alias, version}], tags: [{key, value}]}``; times
        are Unix ms. Setting an alias or a tag leaves the last update as it was.
        """
        params = {"max_results": PAGE, "order_by": "name ASC"}
        yield from self._search("registered-models", params)

    def versions(
        self, *, model: str | None = None, tag: str | None = None, at_once: int | None = None
    ) -> Iterator[dict[str, Any]]:
        """Every version, of one model or of all, those changed last first.

        ``{name, version, creation_timestamp, last_updated_timestamp, current_stage, status, status_message, run_id,
        source, tags}``.

        :param tag: only versions that have this tag.
        :param at_once: how many a call.
        """
        params: dict[str, Any] = {"max_results": at_once or PAGE, "order_by": "last_updated_timestamp DESC"}
        if model is not None:
            params["filter"] = f"name{_equals(model)}"
        if tag is not None:
            params["filter"] = f"tags.`{tag}` LIKE '%'"
        for row in self._search("model-versions", params):
            # The filter may let others pass, too.
            if model in (None, row["name"]):
                yield row

    def model(self, name: str) -> dict[str, Any] | None:
        """A registered model as :meth:`models` shows it; None if it is gone, or has another name now."""
        return self._one("registered-models/get", "registered_model", name=name)

    def version(self, name: str, version: str) -> dict[str, Any] | None:
        """A version as :meth:`versions` shows it; None if it is gone."""
        return self._one("model-versions/get", "model_version", name=name, version=version)

    def run(self, run_id: str) -> dict[str, Any] | None:
        """A run's last metrics, ``{info: {status}, data: {metrics: [{key, value, timestamp, step}]}, outputs:
        {model_outputs: [{model_id}]}}``; None if it is gone.
        """
        return self._one("runs/get", "run", run_id=run_id)

    def logged_model(self, model_id: str) -> dict[str, Any] | None:
        """A logged model of MLflow 3, ``{info: {status}, data: {metrics: […]}}``; None if it is gone."""
        return self._one(f"logged-models/{quote(model_id, safe='')}", "model")

    def check(self) -> str:
        """Read one registered model; returns what to tell the user."""
        answer = self.request("GET", f"{API}/registered-models/search", params={"max_results": 1}, retry=False)
        self.decode(answer, dict[str, Any])
        return f"{self.hook_name} at {self.base_url} shows its model registry"

    def problem(self, response: httpx2.Response) -> tuple[str, str]:
        """MLflow's own words: ``{error_code, message}``."""
        try:
            document = self.decode(response, dict[str, Any])
        except PermanentError:
            return "", ""
        return ": ".join(str(document[name]) for name in ("error_code", "message") if document.get(name)), ""

    def close(self) -> None:
        """Close the connections, and take away what the environment was given."""
        super().close()
        self._open.close()
        self.__dict__.pop("_credentials", None)

    @cached_property
    def base_url(self) -> str:
        """The server's URL; that of a tracking URI is mlflow's to know."""
        return super().base_url if self._is_url else self._credentials().host.rstrip("/")

    @property
    def registry(self) -> str:
        """Names the registry: host and path, or the tracking URI, and the workspace."""
        host = (self.connection.host or "").strip()
        name = self.base_url.partition("://")[2] if self._is_url else host
        workspace = self._workspace
        return f"{name}#{workspace}" if workspace else name

    @cached_property
    def _is_url(self) -> bool:
        host = (self.connection.host or "").strip()
        scheme = host.partition(":")[0].lower()
        return scheme in ("http", "https") or ("://" not in host and scheme not in _URIS)

    @property
    def _workspace(self) -> str:
        return str(self.extra.get("workspace") or "").strip()

    @cached_property
    def _open(self) -> ExitStack:
        return ExitStack()

    @cached_property
    def _credentials(self) -> Callable[[], MlflowHostCreds]:
        """Whom to ask as: the connection's login, or what mlflow finds for a tracking URI."""
        from airflow_provider_airis.hooks import mlflow_transport as transport

        given = self.extra.get("environment") or {}
        if not isinstance(given, dict):
            raise self._misconfigured("its environment is not a JSON object of variables")
        variables = {str(name): str(value) for name, value in given.items()}
        try:
            with transport.environment({} if "mlflow" in sys.modules else {**variables, **_QUIET}):
                from mlflow.utils.rest_utils import MlflowHostCreds
        except ModuleNotFoundError as error:
            raise PermanentError(
                f"{self.hook_name} needs the package {error.name}, which is not installed: "
                "pip install 'airflow-provider-airis[mlflow]'"
            ) from None
        self._open.enter_context(transport.environment(variables))
        auth = str(self.extra.get("auth") or "")
        providers = str(self.extra.get("request_header_providers") or "").replace(",", " ").split()
        transport.check_plugins(auth, providers)
        if not self._is_url:
            return transport.store_credentials((self.connection.host or "").strip())
        # They refuse what no header can carry, and files that are not there.
        _ = self.authenticate(self.connection), self._tls
        login, password = self.connection.login or None, (self.connection.password or "")
        cert, key = (str(self.extra.get(name) or "") for name in ("client_cert", "client_private_key"))
        insecure, bundle = _verify(self.extra.get("verify", True))
        made = MlflowHostCreds(
            super().base_url,
            username=login,
            password=password if login else None,
            token=None if login else password.strip() or None,
            aws_sigv4=self.extra.get("aws_sigv4") in (True, "true", "True", "1", 1),
            auth=auth or None,
            ignore_tls_verification=insecure,
            client_cert_path=((cert, key) if key else cert) if cert else None,
            server_cert_path=bundle,
        )
        if self._workspace:
            self._check_workspaces(made)
        return lambda: made

    def _check_workspaces(self, credentials: MlflowHostCreds) -> None:
        """A server without workspaces would answer with what it has: another registry than the one that was meant."""
        from mlflow.exceptions import MlflowException
        from mlflow.store.model_registry.rest_store import RestStore

        try:
            supported = RestStore(lambda: credentials).supports_workspaces
        except MlflowException as error:
            raise self._misconfigured(f"its server does not say whether it has workspaces ({error})") from error
        if not supported:
            raise self._misconfigured(f"its server has no workspaces, so not {self._workspace!r} either")

    def _session(self) -> dict[str, Any]:
        from airflow_provider_airis.hooks.mlflow_transport import MLflowTransport

        prefix = httpx2.URL(self.base_url).raw_path.decode().rstrip("/")
        headers = {WORKSPACE: self._workspace} if self._workspace else {}
        return {
            "base_url": self.base_url,
            "transport": MLflowTransport(self._credentials, prefix, headers),
            "timeout": self._timeout(self._timeout_s),
            "headers": {"Accept": "application/json"},
        }

    def _one(self, path: str, member: str, **params: str) -> dict[str, Any] | None:
        try:
            response = self.request("GET", f"{API}/{path}", params=params)
        except PermanentError as error:
            if error.status == 404:
                return None
            raise
        found: dict[str, Any] = self.decode(response, dict[str, Any]).get(member) or {}
        return found

    def _search(self, what: str, params: dict[str, Any]) -> Iterator[dict[str, Any]]:
        items = what.replace("-", "_")
        pager = Cursor("next_page_token", "page_token")
        yield from self.pages(f"{API}/{what}/search", params=params, items=items, pager=pager)

    def decode(self, response: httpx2.Response, shape: type[T]) -> T:
        """As :meth:`HttpHook.decode`; of an empty list MLflow leaves even the name out."""
        if response.request.url.path.endswith("/search") and response.content.strip() == b"{}":
            return msgspec.convert({"registered_models": [], "model_versions": []}, shape)
        return super().decode(response, shape)


# What of a tracking URI may stand without "://".
_URIS = frozenset({"arn", "databricks", "databricks-uc", "uc"})
# mlflow reports its own use to its makers unless it is told not to when it is imported.
_QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true"}


def _equals(text: str) -> str:
    """The filter for a name. MLflow's filters escape nothing, so what holds both quotes is asked for with wildcards."""
    for mark in ("'", '"'):
        if mark not in text:
            return f" = {mark}{text}{mark}"
    return f""" LIKE '{text.replace("'", "_")}'"""


def _verify(value: object) -> tuple[bool, str | None]:
    """Whether to trust any certificate, and the path of a CA bundle."""
    word = str(value).strip()
    if word.lower() in ("false", "0", "no"):
        return True, None
    return False, None if word.lower() in ("true", "1", "yes", "") else word
