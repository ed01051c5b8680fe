"""MLflow's tracking server: its model registry, and the runs behind the versions, as MLflow's own records."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_provider_airis.errors import PermanentError
from airflow_provider_airis.hooks.http import HttpHook, T
from airflow_provider_airis.hooks.pagers import Cursor

if TYPE_CHECKING:
    import httpx2

API = "/api/2.0/mlflow"
PAGE = 1_000


class MLflowHook(HttpHook):
    """Reads the registry of an MLflow server, 2.9 or later, or of a Databricks workspace, over its REST API.

    The connection has login and password, or a token as password; for Databricks the workspace's URL and a token.
    MLflow's own client takes its credentials from the environment of the process, for all servers alike.

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

    def versions(self, *, model: str | None = None, at_once: int = PAGE) -> Iterator[dict[str, Any]]:
        """Every version, of one model or of all, those changed last first.

        ``{name, version, creation_timestamp, last_updated_timestamp, current_stage, status, status_message, run_id,
        source, tags}``.

        :param at_once: how many a call.
        :raises PermanentError: the model's name holds both kinds of quotes, for which MLflow's filters have no form.
        """
        params: dict[str, Any] = {"max_results": at_once, "order_by": "last_updated_timestamp DESC"}
        if model is not None:
            quote = '"' if "'" in model else "'"
            if quote in model:
                raise PermanentError(
                    f"MLflow cannot be asked for the versions of {model!r}: it holds both kinds of quotes"
                )
            params["filter"] = f"name={quote}{model}{quote}"
        yield from self._search("model-versions", params)

    def model(self, name: str) -> dict[str, Any] | None:
        """A registered model as :meth:`models` shows it; None if it is gone, or has another name now."""
        return self._one("registered-models", "registered_model", name=name)

    def run(self, run_id: str) -> dict[str, Any] | None:
        """A run's last metrics, ``{data: {metrics: [{key, value, timestamp, step}]}}``; None if it is gone."""
        return self._one("runs", "run", run_id=run_id)

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

    def _one(self, what: str, member: str, **params: str) -> dict[str, Any] | None:
        try:
            response = self.request("GET", f"{API}/{what}/get", params=params)
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
