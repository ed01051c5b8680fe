"""Bodies and answers beyond the records, and the OpenAPI document that all of them make."""

from __future__ import annotations

from typing import Annotated, Any, get_args, get_origin

import msgspec
from fastapi import FastAPI, Response
from fastapi.openapi.utils import get_openapi

from airflow_provider_airis.hub.alerting.rules import Rule
from airflow_provider_airis.hub.ingest import (
    MAX_AHEAD_MS,
    MAX_BODY,
    MAX_TAG_KEY,
    MAX_TAG_VALUE,
    MAX_TAGS,
    MAX_TEXT,
)
from airflow_provider_airis.hub.problems import MEDIA_TYPE, ProblemDocument
from airflow_provider_airis.hub.store.events import EventChange, FeedEvent
from airflow_provider_airis.hub.store.leases import FENCE
from airflow_provider_airis.hub.store.metrics import MAX_POINTS, SeriesCoverage, SeriesPoints
from airflow_provider_airis.records import (
    Alert,
    AlertChange,
    KeyedEventBody,
    MetricsBody,
)

MAX_WAIT_S = 60
CAPABILITIES = {
    "metrics.ingest": True,
    "metrics.batch": True,
    "metrics.query": True,
    "metrics.coverage": True,
    "metrics.last": True,
    "events.ingest": True,
    "events.batch": True,
    "events.changes": True,
    "events.query": True,
    "alerts": True,
    "alerts.changes": True,
    "alerts.origin": True,
    "inbound_webhooks": True,
    "consumers": True,
    "checkpoints": True,
    "leases": True,
    "notifications": True,
    "notification_log": True,
    "silences": True,
    "routes": True,
    "rules": True,
    "idempotency": True,
    "ndjson": True,
    "integrations.webhooks": False,
    "integrations.user-sync": True,
    "integrations.user-sync.max_deactivate": True,
    "users": True,
}


class MetricsBatch(msgspec.Struct):
    """Body of ``POST /api/v1/metrics/batch``; as NDJSON one :class:`MetricsBody` a line."""

    batches: list[MetricsBody]


class EventsBatch(msgspec.Struct):
    """Body of ``POST /api/v1/events/batch``; as NDJSON one event a line. An event without a key is always new."""

    events: list[KeyedEventBody]


class AlertsPage(msgspec.Struct):
    """Alerts, newest first; ``cursor`` asks for the next page, null on the last."""

    alerts: list[Alert]
    cursor: str | None


class AlertChanges(msgspec.Struct):
    """A page of the feed; ``sequence`` is where the next one starts."""

    changes: list[AlertChange]
    sequence: int


class EventChanges(msgspec.Struct):
    """A page of the feed of events."""

    changes: list[EventChange]
    sequence: int


class EventsPage(msgspec.Struct):
    """Events, those that arrived last first; ``cursor`` asks for the next page, null on the last."""

    events: list[FeedEvent]
    cursor: str | None


class Place(msgspec.Struct, forbid_unknown_fields=True):
    """Body of ``PUT /api/v1/consumers/{name}``.

    :param wake_at: when the reader wants to be woken, though nothing came, Unix ms; null for never. As it was, unless
        given.
    """

    sequence: int
    force: bool = False
    wake_at: Annotated[int, msgspec.Meta(ge=0, le=(1 << 53) - 1)] | msgspec.UnsetType | None = msgspec.UNSET


class QueryAnswer(msgspec.Struct):
    """The series that have points, and their points."""

    series: list[SeriesPoints]


class CoverageAnswer(msgspec.Struct):
    """The series that have points, and where."""

    series: list[SeriesCoverage]


class RulesAnswer(msgspec.Struct):
    """All rules."""

    rules: list[Rule]


class Health(msgspec.Struct):
    """``ok``, or ``unavailable`` while the store is."""

    status: str
    store: str


class Liveness(msgspec.Struct):
    """What answers is alive."""

    status: str = "ok"


class Limits(msgspec.Struct):
    """What is refused beyond."""

    body_bytes: int = MAX_BODY
    text_characters: int = MAX_TEXT
    tag_key_characters: int = MAX_TAG_KEY
    tag_value_characters: int = MAX_TAG_VALUE
    tags: int = MAX_TAGS
    ahead_ms: int = MAX_AHEAD_MS
    query_points: int = MAX_POINTS
    wait_s: int = MAX_WAIT_S


class Capabilities(msgspec.Struct):
    """What this hub offers."""

    version: str
    capabilities: dict[str, bool]
    compression: list[str]
    limits: Limits


_FENCE = {
    "name": FENCE,
    "in": "header",
    "required": False,
    "description": "`<lease's name, percent-encoded>;<token>`: 409 if somebody else has taken that lease since",
    "schema": {"type": "string"},
}
# What the routes say that they take and answer.
_models: dict[str, type] = {"ProblemDocument": ProblemDocument}


def _schema(model: Any) -> dict[str, Any]:
    if isinstance(model, str):
        return {model: {"schema": {"type": "string"}}}
    if get_origin(model) is list:
        (item,) = get_args(model)
        return {"application/json": {"schema": {"type": "array", "items": _reference(item)}}}
    return {"application/json": {"schema": _reference(model)}}


def _reference(model: type) -> dict[str, str]:
    _models[model.__name__] = model
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def docs(
    answer: type | str | None = None, body: type | str | None = None, *, status: int = 200, lines: type | None = None
) -> dict[str, Any]:
    """What a route says of itself: its answer, its body, and what is a line of the body as NDJSON.

    Either is a struct, or the media type of a text.
    """
    documented: dict[str, Any] = {"response_class": Response, "status_code": status}
    documented["responses"] = {
        status: {"description": "Done", "content": _schema(answer) if answer else {}},
        "default": {
            "description": "Problem",
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}},
        },
    }
    if body is not None:
        content = _schema(body)
        if lines is not None:
            content["application/x-ndjson"] = {"schema": _reference(lines)}
        documented["openapi_extra"] = {"requestBody": {"required": True, "content": content}}
    return documented


def openapi(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document; its models are the structs themselves."""
    document = get_openapi(title=app.title, version=app.version, routes=app.routes)
    _, components = msgspec.json.schema_components(_models.values(), ref_template="#/components/schemas/{name}")
    document.setdefault("components", {})["schemas"] = components
    for operations in document["paths"].values():
        for method, operation in operations.items():
            if method != "get":
                operation.setdefault("parameters", []).append(_FENCE)
    document["components"]["securitySchemes"] = {"BearerAuth": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{"BearerAuth": []}]
    return document
