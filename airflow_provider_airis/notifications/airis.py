"""Alerts of the hub about Airflow's own tasks and Dags."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any, Literal

from airflow.sdk import BaseNotifier
from airflow.sdk.exceptions import AirflowNotFoundException

from airflow_provider_airis.errors import AirisError
from airflow_provider_airis.settings import alerts_conn_id

if TYPE_CHECKING:
    from airflow_provider_airis.hooks.airis import AirisHook
    from airflow_provider_airis.records import AlertSeverity

# It runs within the task: a hub that is down should not keep the worker.
TIMEOUT_S = 10.0
RETRIES = 2
LONGEST = 2_000


class AirisNotifier(BaseNotifier):
    """A callback that fires an alert at the hub, or resolves it: one for each task, however often it fails.

    ``on_failure_callback=AirisNotifier()`` fires, ``on_success_callback=AirisNotifier(status="resolved")`` resolves.
    It does for a task's and a Dag's callbacks, and for a deadline's. What goes wrong with it is logged as an error,
    and changes nothing for the task.

    :param airis_conn_id: connection of the hub that has the alerts, ``[airis] alerts_conn_id`` unless given;
        its token needs the scopes read and alerts.
    :param status: ``firing`` or ``resolved``.
    :param name: the alert's; says which task or Dag failed unless given.
    :param severity: the alert's.
    :param description: the exception and the log's address unless given.
    :param model_id: the model that it is about, as ``environment`` and ``alert_type`` for routes to match.
    :param tags: beside ``dag_id``, ``task_id`` and ``run_id``.
    :param fingerprint: what makes it the same alert: ``<connection's consumer>:<dag_id>.<task_id>``, with the map index
        of a mapped task, unless given. Give a callback that resolves the same as the one that fires.
    :raises ValueError: names the parameter that is wrong.
    """

    template_fields: Sequence[str] = (
        "airis_conn_id",
        "name",
        "severity",
        "description",
        "model_id",
        "environment",
        "alert_type",
        "tags",
        "fingerprint",
    )

    def __init__(
        self,
        *,
        airis_conn_id: str | None = None,
        status: Literal["firing", "resolved"] = "firing",
        name: str | None = None,
        severity: AlertSeverity = "high",
        description: str | None = None,
        model_id: str | None = None,
        environment: str | None = None,
        alert_type: str | None = "airflow",
        tags: dict[str, str] | None = None,
        fingerprint: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if status not in ("firing", "resolved"):
            raise ValueError(f"status: {status!r} is neither 'firing' nor 'resolved'")
        self.airis_conn_id = airis_conn_id or alerts_conn_id()
        self.status = status
        self.name = name
        self.severity = severity
        self.description = description
        self.model_id = model_id
        self.environment = environment
        self.alert_type = alert_type
        self.tags = tags
        self.fingerprint = fingerprint

    def __call__(self, *args: Any) -> None:
        """Notify."""
        # Rendering is for good, and the Dag processor may call the same object for several tasks.
        BaseNotifier.__call__(copy(self), *args)

    def notify(self, context: Any) -> None:
        """Tell the hub, or log why not."""
        try:
            with self._hook() as hub:
                self._tell(hub, context)
        except (AirisError, AirflowNotFoundException) as error:
            self._failed(error)

    async def async_notify(self, context: Any) -> None:
        """Tell the hub, or log why not, from an event loop: for deadlines."""
        try:
            with self._hook() as hub:
                await hub.aconnection()
                await asyncio.to_thread(self._tell, hub, context)
        except (AirisError, AirflowNotFoundException) as error:
            self._failed(error)

    def _hook(self) -> AirisHook:
        from airflow_provider_airis.hooks.airis import AirisHook

        return AirisHook(self.airis_conn_id, timeout=TIMEOUT_S, retries=RETRIES)

    def _failed(self, error: Exception) -> None:
        self.log.error("The hub was not told that the alert is %s: %s", self.status, error)

    def _tell(self, hub: AirisHook, context: Mapping[str, Any]) -> None:
        about = _about(context)
        what = ".".join(about[key] for key in ("dag_id", "task_id", "map_index") if key in about)
        fingerprint = self.fingerprint or f"{hub.consumer}:{what}"
        if self.status == "resolved":
            for alert in hub.alerts(status=("firing", "acknowledged"), fingerprint=fingerprint):
                hub.resolve(alert.id, by=hub.consumer, comment=f"{about.get('run_id', what)} succeeded")
                self.log.info("Resolved the alert %s", hub.dashboard_url(alert.id))
            return
        fields = {
            "description": self.description or _description(context),
            "source": hub.consumer,
            "model_id": self.model_id,
            "environment": self.environment,
            "alert_type": self.alert_type,
            "tags": about | (self.tags or {}),
            "fingerprint": fingerprint,
        }
        happened = "missed its deadline" if context.get("deadline") else "failed"
        alert = hub.fire(self.name or f"{what} {happened}", self.severity, **fields)
        self.log.info("Told the hub: %s", hub.dashboard_url(alert.id))


def _about(context: Mapping[str, Any]) -> dict[str, str]:
    """Which task, or which Dag if it is a Dag's callback."""
    task = context.get("ti") if "reason" not in context else None
    run = context.get("dag_run")
    found = {
        key: _of(task, key) or _of(run, key) or (_of(context.get("dag"), key) if key == "dag_id" else None)
        for key in ("dag_id", "task_id", "run_id")
        if key != "task_id" or task is not None
    }
    found["run_id"] = found["run_id"] or context.get("run_id")
    if (index := _of(task, "map_index")) is not None and index >= 0:
        found["map_index"] = index
    return {key: str(value) for key, value in found.items() if value is not None}


def _of(thing: Any, name: str) -> Any:
    # A deadline's context holds mere dictionaries.
    return thing.get(name) if isinstance(thing, Mapping) else getattr(thing, name, None)


def _description(context: Mapping[str, Any]) -> str:
    from airflow.sdk.log import redact  # type: ignore[attr-defined]  # what Airflow hides in logs

    error = context.get("exception") or context.get("reason")
    said = f"{type(error).__name__}: {error}" if isinstance(error, BaseException) else str(error or "")
    if context.get("deadline"):
        said = said or f"It was due at {_of(context['deadline'], 'deadline_time')}."
    log_url = _of(context.get("ti"), "log_url")
    return "\n".join(filter(None, (str(redact(said))[:LONGEST], log_url)))
