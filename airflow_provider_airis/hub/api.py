"""The hub's HTTP contract: what each call takes, which scope it needs, what it answers."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from airflow_provider_airis.hub import alerts as transitions
from airflow_provider_airis.hub import foreign, inbound, pages, routing, state, users
from airflow_provider_airis.hub.alerts import Acknowledgement, AlertDetail, Delivery, ManualAlert
from airflow_provider_airis.hub.auth import Tokens, require
from airflow_provider_airis.hub.flow import Feeds, Intake
from airflow_provider_airis.hub.ingest import Form
from airflow_provider_airis.hub.problems import MEDIA_TYPE, Problem, explain
from airflow_provider_airis.hub.requests import change, cursor_of, from_store, idempotency_key, place_behind, to_store
from airflow_provider_airis.hub.rules import AGGREGATION, Rule, RuleBody
from airflow_provider_airis.hub.state import StateName
from airflow_provider_airis.hub.store import EVENTS_FEED, Consumer, EventChange, Store
from airflow_provider_airis.hub.users import UsersPage, UserSyncAnswer, UserSyncBody
from airflow_provider_airis.hub.wire import (
    CAPABILITIES,
    MAX_WAIT_S,
    AlertChanges,
    AlertsPage,
    Capabilities,
    CoverageAnswer,
    EventChanges,
    EventsBatch,
    EventsPage,
    Health,
    Limits,
    MetricsBatch,
    Place,
    QueryAnswer,
    RulesAnswer,
    docs,
    openapi,
)
from airflow_provider_airis.hub.writer import Transaction
from airflow_provider_airis.records import (
    Alert,
    AlertChange,
    AlertSeverity,
    AlertStatus,
    EventBody,
    EventSeverity,
    IngestAnswer,
    KeyedEventBody,
    MetricsBody,
    Notification,
)

T = TypeVar("T")
log = logging.getLogger(__name__)

MAX_REQUESTS = 1024
MAX_HELD = 128 << 20
TEND_S = 30


def create_app(store: Store, tokens: Tokens, *, max_requests: int = MAX_REQUESTS, max_bytes: int = MAX_HELD) -> FastAPI:
    """The hub as an ASGI application; the store stays the caller's to close.

    :param max_requests: ingest requests held at a time before further ones are answered 429, and ``max_bytes`` of them.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.feeds = Feeds(store)
        app.state.readers = ThreadPoolExecutor(4, "hub-reader")
        tending = asyncio.create_task(_tend(store))
        yield
        tending.cancel()
        app.state.readers.shutdown()

    app = FastAPI(
        title="AIRIS-MON hub", version=_version(), lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None
    )
    app.state.store = store
    app.state.tokens = tokens
    app.state.intake = Intake(max_requests, max_bytes)
    app.include_router(router)
    app.include_router(routing.router)
    app.include_router(state.router)
    app.include_router(inbound.router)
    app.include_router(pages.router)
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _crash)
    app.openapi = lambda: openapi(app)  # type: ignore[method-assign]
    return app


async def _tend(store: Store) -> None:
    while True:
        await asyncio.sleep(TEND_S)
        try:
            await asyncio.wrap_future(store.submit(store.tend))
            # A part at a time, so that nobody waits for all of it.
            while await asyncio.wrap_future(
                store.submit(lambda transaction: routing.prune(transaction, store.kept_ms))
            ):
                pass
        except Exception:  # the next turn may do better
            log.exception("tending the store failed")


def _version() -> str:
    try:
        return version("airflow-provider-airis")
    except PackageNotFoundError:
        return "0"


# Answers and errors


def _answer(content: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(content), status, media_type="application/json")


async def _problem(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return Response(msgspec.json.encode(error.document()), error.status, error.headers, MEDIA_TYPE)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = "/".join(str(part) for part in first["loc"][1:])
    problem = Problem(400, f"{first['loc'][0]} parameter {place}: {first['msg']}", pointer=f"/{place}")
    return await _problem(request, problem)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = f"{request.method} {request.url.path}: {error.detail}"
    return await _problem(request, Problem(error.status_code, detail, headers=dict(error.headers or {})))


async def _crash(request: Request, _error: Exception) -> Response:
    return await _problem(request, Problem(500, "the hub failed; its log says why"))


# Requests


def _form(request: Request, *, batch: bool) -> Form:
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if batch and kind in ("application/x-ndjson", "application/ndjson"):
        return "lines"
    if kind != "application/json":
        offered = "application/json or application/x-ndjson" if batch else "application/json"
        raise Problem(415, f"Content-Type {kind!r} is not taken here: use {offered}")
    return "batch" if batch else "single"


def _time(value: str, pointer: str) -> int:
    if re.fullmatch(r"-?\d{1,18}", value):
        return int(value)
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise Problem(400, f"{value!r} is neither Unix milliseconds nor ISO 8601 with a zone", pointer=pointer)
    return round(at.timestamp() * 1000)


def _span(start: str | None, end: str | None) -> tuple[int, int]:
    window = (0 if start is None else _time(start, "/from")), (1 << 62 if end is None else _time(end, "/to"))
    if window[1] < window[0]:
        raise Problem(400, "to is before from", pointer="/to")
    return window


router = APIRouter(prefix="/api/v1")
_ingest = [Depends(require("ingest"))]
_reader = [Depends(require("read"))]
_alerts = [Depends(require("alerts"))]
_admin = [Depends(require("admin"))]

_After = Annotated[int | None, Query(ge=0, description="sequence of the last change that was read")]
_By = Annotated[str | None, Query(description="start behind what this consumer has committed")]
_Limit = Annotated[int, Query(ge=1, le=5000)]
_Wait = Annotated[float, Query(ge=0, le=MAX_WAIT_S, description="seconds to wait for a change")]
_From = Annotated[str | None, Query(alias="from", description="Unix ms or ISO 8601")]
_To = Annotated[str | None, Query(description="Unix ms or ISO 8601, exclusive")]
_Step = Annotated[int | None, Query(ge=1, le=366 * 86_400, description="seconds")]


# Ingest


async def _ingest_metrics(request: Request, *, batch: bool) -> Response:
    store: Store = request.app.state.store
    form = _form(request, batch=batch)
    async with request.app.state.intake.body(request) as content:
        return await to_store(
            request,
            content,
            lambda transaction, document: (200, store.ingest_metrics(transaction, document, form)),
        )


async def _ingest_events(request: Request, *, batch: bool) -> Response:
    store: Store = request.app.state.store
    form = _form(request, batch=batch)
    key = None if batch else idempotency_key(request)
    async with request.app.state.intake.body(request) as content:
        return await to_store(
            request,
            content,
            lambda transaction, document: (200, store.ingest_events(transaction, document, form, key)),
        )


@router.post("/metrics/ingest", dependencies=_ingest, **docs(IngestAnswer, MetricsBody))
async def ingest_metrics(request: Request) -> Response:
    """Store points of one timestamp and source."""
    return await _ingest_metrics(request, batch=False)


@router.post("/metrics/batch", dependencies=_ingest, **docs(IngestAnswer, MetricsBatch, lines=MetricsBody))
async def batch_metrics(request: Request) -> Response:
    """Store many bodies of ``/metrics/ingest``."""
    return await _ingest_metrics(request, batch=True)


@router.post("/events/ingest", dependencies=_ingest, **docs(IngestAnswer, EventBody))
async def ingest_event(request: Request) -> Response:
    """Store an event; its ``Idempotency-Key`` identifies it for good."""
    return await _ingest_events(request, batch=False)


@router.post("/events/batch", dependencies=_ingest, **docs(IngestAnswer, EventsBatch, lines=KeyedEventBody))
async def batch_events(request: Request) -> Response:
    """Store many events, each with its own ``idempotency_key``."""
    return await _ingest_events(request, batch=True)


# Metrics


@router.get("/metrics/query", dependencies=_reader, **docs(QueryAnswer))
async def query_metrics(
    request: Request,
    start: _From = None,
    to: _To = None,
    name: str | None = None,
    source: str | None = None,
    tag: Annotated[list[str], Query(description="key:value, each must be there")] = [],  # noqa: B006
    step: _Step = None,
    agg: Annotated[str, Query(pattern=AGGREGATION)] = "avg",
) -> Response:
    """Points within ``[from, to)``, raw or aggregated over steps."""
    store: Store = request.app.state.store
    begin, end = _span(start, to)
    if bad := [pair for pair in tag if ":" not in pair]:
        raise Problem(400, f"{bad[0]!r} is not key:value", pointer="/tag")
    tags = dict(pair.split(":", 1) for pair in tag)
    milliseconds = None if step is None else step * 1000

    def read() -> bytes:
        found = store.query(
            start=begin, end=end, name=name, source=source, tags=tags, step=milliseconds, aggregation=agg
        )
        return msgspec.json.encode(QueryAnswer(found))

    return Response(await from_store(request, read), media_type="application/json")


@router.get("/metrics/coverage", dependencies=_reader, **docs(CoverageAnswer))
async def cover_metrics(
    request: Request,
    start: _From = None,
    to: _To = None,
    source: str | None = None,
    name: str | None = None,
    step: _Step = None,
) -> Response:
    """Per series, the windows that hold points, in steps of a minute unless said otherwise."""
    store: Store = request.app.state.store
    begin, end = _span(start, to)

    def read() -> bytes:
        found = store.coverage(start=begin, end=end, step=(step or 60) * 1000, source=source, name=name)
        return msgspec.json.encode(CoverageAnswer(found))

    return Response(await from_store(request, read), media_type="application/json")


# Alerts


@router.get("/alerts", dependencies=_reader, **docs(AlertsPage))
async def list_alerts(
    request: Request,
    status: Annotated[list[AlertStatus], Query()] = [],  # noqa: B006
    severity: Annotated[list[AlertSeverity], Query()] = [],  # noqa: B006
    model_id: str | None = None,
    fingerprint: str | None = None,
    cursor: str | None = None,
    limit: _Limit = 100,
) -> Response:
    """Alerts, newest first."""
    store: Store = request.app.state.store
    before = place_behind(cursor, tuple[int, str])
    found = await from_store(
        request,
        lambda: store.alerts(
            status=status,
            severity=severity,
            model_id=model_id,
            fingerprint=fingerprint,
            before=before,
            limit=limit + 1,
        ),
    )
    page = found[:limit]
    return _answer(AlertsPage(page, cursor_of(page[-1].timestamp, page[-1].id) if len(found) > limit else None))


@router.get("/alerts/changes", dependencies=_reader, **docs(AlertChanges))
async def alert_changes(
    request: Request, after: _After = None, consumer: _By = None, limit: _Limit = 500, wait: _Wait = 0
) -> Response:
    """The change feed: every transition once, in order."""
    store: Store = request.app.state.store
    start = await _start(request, transitions.FEED, after, consumer)

    async def page(behind: int) -> Sequence[AlertChange]:
        return await from_store(request, lambda: store.changes(behind, limit))

    changes = await request.app.state.feeds.read(transitions.FEED, start, wait, page)
    return _answer(AlertChanges(list(changes), changes[-1].sequence if changes else start))


@router.get("/events", dependencies=_reader, **docs(EventsPage))
async def list_events(
    request: Request,
    source: str | None = None,
    event_type: str | None = None,
    category: Annotated[str | None, Query(description="of the events' data.category")] = None,
    severity: Annotated[list[EventSeverity], Query()] = [],  # noqa: B006
    cursor: str | None = None,
    limit: _Limit = 100,
) -> Response:
    """Events, those that arrived last first."""
    store: Store = request.app.state.store
    behind = place_behind(cursor, tuple[int])
    found = await from_store(
        request,
        lambda: store.events(
            source=source,
            event_type=event_type,
            category=category,
            severity=severity,
            before=behind[0] if behind else None,
            limit=limit + 1,
        ),
    )
    page = found[:limit]
    following = cursor_of(page[-1].sequence) if len(found) > limit else None
    return _answer(EventsPage([change.event for change in page], following))


@router.get("/events/changes", dependencies=_reader, **docs(EventChanges))
async def event_changes(
    request: Request,
    after: _After = None,
    consumer: _By = None,
    category: Annotated[str | None, Query(description="of the events' data.category")] = None,
    limit: _Limit = 500,
    wait: _Wait = 0,
) -> Response:
    """The same over events."""
    store: Store = request.app.state.store
    start = await _start(request, EVENTS_FEED, after, consumer)

    async def page(behind: int) -> Sequence[EventChange]:
        return await from_store(request, lambda: store.event_changes(behind, limit, category=category))

    changes = await request.app.state.feeds.read(EVENTS_FEED, start, wait, page)
    return _answer(EventChanges(list(changes), changes[-1].sequence if changes else start))


async def _start(request: Request, feed: str, after: int | None, consumer: str | None) -> int:
    if after is not None and consumer is not None:
        raise Problem(400, "give after or consumer, not both", pointer="/consumer")
    store: Store = request.app.state.store
    start = after or 0
    if consumer is not None:
        found = await from_store(request, lambda: store.consumer(consumer))
        start = 0 if found is None else found.sequence
    if start > (end := store.last[feed]):
        raise Problem(
            409,
            f"feed was restored from an older backup: it ends at {end}, and {start} was read already; read it anew "
            "from where it should go on",
            pointer="/consumer" if after is None else "/after",
        )
    return start


@router.get("/alerts/{alert_id}", dependencies=_reader, **docs(AlertDetail))
async def get_alert(request: Request, alert_id: str) -> Response:
    """One alert with its ledger, history, rule and series."""
    found = await from_store(request, lambda: request.app.state.store.alert(alert_id))
    if found is None:
        raise Problem(404, f"there is no alert {alert_id!r}")
    return _answer(found)


@router.post("/alerts", dependencies=_alerts, **docs(Alert, ManualAlert, status=201))
async def post_alert(request: Request) -> Response:
    """Raise an alert: 201, or 200 with the one that is open under the same fingerprint.

    With ``origin`` it is another system's: 201 for a new episode, 200 with the newest one for all that is said of it.
    """

    def work(transaction: Transaction, body: ManualAlert) -> tuple[int, Alert]:
        new, alert = (foreign if body.origin else transitions).post(transaction, body)
        return (201 if new else 200), alert

    return await change(request, ManualAlert, work)


@router.post("/alerts/{alert_id}/acknowledge", dependencies=_alerts, **docs(Alert, Acknowledgement))
async def acknowledge_alert(request: Request, alert_id: str) -> Response:
    """Somebody looks after it. Changes firing alerts only."""
    return await change(request, Acknowledgement, lambda t, body: (200, transitions.acknowledge(t, alert_id, body)))


@router.post("/alerts/{alert_id}/resolve", dependencies=_alerts, **docs(Alert, Acknowledgement))
async def resolve_alert(request: Request, alert_id: str) -> Response:
    """It is over. Changes open alerts only; a rule whose condition still holds fires anew."""
    return await change(request, Acknowledgement, lambda t, body: (200, transitions.resolve(t, alert_id, body)))


@router.put(
    "/alerts/{alert_id}/notifications/{channel}/{target:path}",
    dependencies=_alerts,
    **docs(Notification, Delivery),
)
async def put_notification(request: Request, alert_id: str, channel: str, target: str) -> Response:
    """Write the delivery ledger."""
    return await change(
        request, Delivery, lambda t, body: (200, transitions.deliver(t, alert_id, channel, target, body))
    )


@router.get("/consumers/{name}", dependencies=_reader, **docs(Consumer))
async def get_consumer(request: Request, name: str) -> Response:
    """How far a reader has come."""
    found = await from_store(request, lambda: request.app.state.store.consumer(name))
    if found is None:
        raise Problem(404, f"the consumer {name!r} has committed nothing yet")
    return _answer(found)


@router.put("/consumers/{name}", dependencies=_alerts, **docs(Consumer, Place))
async def put_consumer(request: Request, name: StateName) -> Response:
    """Commit an offset; a lower one changes nothing unless forced. Answers what is in force."""
    store: Store = request.app.state.store

    def work(transaction: Transaction, body: Place) -> tuple[int, Consumer]:
        return 200, store.commit(transaction, name, body.sequence, force=body.force, wake_at=body.wake_at)

    return await change(request, Place, work)


# Rules


@router.get("/rules", dependencies=_reader, **docs(RulesAnswer))
async def list_rules(request: Request) -> Response:
    """All rules."""
    return _answer(RulesAnswer(await from_store(request, request.app.state.store.rules)))


@router.get("/rules/{rule_id}", dependencies=_reader, **docs(Rule))
async def get_rule(request: Request, rule_id: str) -> Response:
    """One rule."""
    found = await from_store(request, lambda: request.app.state.store.rule(rule_id))
    if found is None:
        raise Problem(404, f"there is no rule {rule_id!r}")
    return _answer(found)


def _rule(body: RuleBody, rule_id: str | None) -> Rule:
    if rule_id is not None and body.id not in (None, rule_id):
        raise Problem(400, f"the address says {rule_id!r}", pointer="/id")
    fields = {name: getattr(body, name) for name in body.__struct_fields__}
    return Rule(**fields | {"id": rule_id or body.id or secrets.token_hex(8)})


@router.post("/rules", dependencies=_admin, **docs(Rule, RuleBody, status=201))
async def post_rule(request: Request) -> Response:
    """Add a rule; it gets an id unless it has one."""
    store: Store = request.app.state.store

    def work(transaction: Transaction, body: RuleBody) -> tuple[int, Rule]:
        rule = _rule(body, None)
        store.put_rule(transaction, rule, replace=False)
        return 201, rule

    return await change(request, RuleBody, work)


@router.put("/rules/{rule_id}", dependencies=_admin, **docs(Rule, RuleBody))
async def put_rule(request: Request, rule_id: str) -> Response:
    """Set a rule: 201 where there was none, 200 where it replaces one."""
    store: Store = request.app.state.store

    def work(transaction: Transaction, body: RuleBody) -> tuple[int, Rule]:
        rule = _rule(body, rule_id)
        return (201 if store.put_rule(transaction, rule, replace=True) else 200), rule

    return await change(request, RuleBody, work)


@router.delete("/rules/{rule_id}", dependencies=_admin, **docs(status=204))
async def delete_rule(request: Request, rule_id: str) -> Response:
    """Delete a rule and resolve its alerts."""
    store: Store = request.app.state.store

    def work(transaction: Transaction, _document: bytes) -> tuple[int, None]:
        store.delete_rule(transaction, rule_id)
        return 204, None

    return await to_store(request, b"", work)


# Users


@router.post("/integrations/user-sync", dependencies=_ingest, **docs(UserSyncAnswer, UserSyncBody))
async def sync_users(request: Request) -> Response:
    """Take a directory's users, whole or in parts; a full sync deactivates whom it does not name, once it is whole."""

    def work(transaction: Transaction, document: bytes) -> tuple[int, UserSyncAnswer]:
        try:
            body = msgspec.json.decode(document, type=UserSyncBody)
        except (msgspec.MsgspecError, RecursionError) as error:
            pointer, detail = explain(error)
            raise Problem(400, detail, pointer=pointer) from None
        return 200, users.sync(transaction, body)

    _form(request, batch=False)
    async with request.app.state.intake.body(request) as content:
        return await to_store(request, content, work)


@router.get("/users", dependencies=_reader, **docs(UsersPage))
async def list_users(
    request: Request,
    source: str | None = None,
    active: bool | None = None,
    email: str | None = None,
    cursor: str | None = None,
    limit: _Limit = 1000,
) -> Response:
    """Users of all directories, by source and id; ``email`` in capitals or not."""
    store: Store = request.app.state.store
    behind = place_behind(cursor, tuple[str, str])

    def read() -> bytes:
        found, total = store.users(source=source, active=active, email=email, behind=behind, limit=limit + 1)
        page = found[:limit]
        following = cursor_of(page[-1].source, page[-1].id) if len(found) > limit else None
        return msgspec.json.encode(UsersPage(page, following, total))

    return Response(await from_store(request, read), media_type="application/json")


# The hub itself


@router.get("/health", **docs(Health))
async def health(request: Request) -> Response:
    """Alive, and able to write: 503 when it is not. Needs no token."""
    store: Store = request.app.state.store
    try:
        await asyncio.wrap_future(store.submit(lambda _transaction: None))
    except Problem as problem:
        content = Health("unavailable", problem.detail)
        return Response(msgspec.json.encode(content), problem.status, problem.headers, "application/json")
    return _answer(Health("ok", "ok"))


@router.get("/capabilities", dependencies=[Depends(require())], **docs(Capabilities))
async def capabilities(request: Request) -> Response:
    """What this hub offers."""
    return _answer(Capabilities(request.app.version, CAPABILITIES, ["gzip"], Limits()))


@router.get("/openapi.json", dependencies=_reader, include_in_schema=False)
async def openapi_document(request: Request) -> Response:
    """The contract as an OpenAPI document."""
    return _answer(request.app.openapi())
