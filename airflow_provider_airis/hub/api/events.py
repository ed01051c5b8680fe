"""Events: ingest, pages, the feed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from airflow_provider_airis.hub.api.feeds import After, By, Limit, Wait, start_of
from airflow_provider_airis.hub.auth import require
from airflow_provider_airis.hub.requests import (
    answer,
    cursor_of,
    form_of,
    from_store,
    idempotency_key,
    place_behind,
    to_store,
)
from airflow_provider_airis.hub.store import events
from airflow_provider_airis.hub.store.events import EventChange
from airflow_provider_airis.hub.store.feeds import Turn
from airflow_provider_airis.hub.wire import EventChanges, EventsBatch, EventsPage, docs
from airflow_provider_airis.records import EventBody, EventSeverity, IngestAnswer, KeyedEventBody

router = APIRouter(prefix="/api/v1")
_ingest = [Depends(require("ingest"))]
_reader = [Depends(require("read"))]


async def _ingest_events(request: Request, *, batch: bool) -> Response:
    form = form_of(request, batch=batch)
    key = None if batch else idempotency_key(request)
    async with request.app.state.intake.body(request) as content:
        return await to_store(
            request,
            content,
            lambda transaction, document: (200, events.ingest(transaction, document, form, key)),
            turn=Turn.EVENTS,
        )


@router.post("/events/ingest", dependencies=_ingest, **docs(IngestAnswer, EventBody))
async def ingest_event(request: Request) -> Response:
    """Store an event; its ``Idempotency-Key`` identifies it for good."""
    return await _ingest_events(request, batch=False)


@router.post("/events/batch", dependencies=_ingest, **docs(IngestAnswer, EventsBatch, lines=KeyedEventBody))
async def batch_events(request: Request) -> Response:
    """Store many events, each with its own ``idempotency_key``."""
    return await _ingest_events(request, batch=True)


@router.get("/events", dependencies=_reader, **docs(EventsPage))
async def list_events(
    request: Request,
    source: str | None = None,
    event_type: str | None = None,
    category: Annotated[str | None, Query(description="of the events' data.category")] = None,
    severity: Annotated[list[EventSeverity], Query()] = [],  # noqa: B006
    cursor: str | None = None,
    limit: Limit = 100,
) -> Response:
    """Events, those that arrived last first."""
    behind = place_behind(cursor, tuple[int])
    found = await from_store(
        request,
        events.page,
        source=source,
        event_type=event_type,
        category=category,
        severity=severity,
        before=behind[0] if behind else None,
        limit=limit + 1,
    )
    page = found[:limit]
    following = cursor_of(page[-1].sequence) if len(found) > limit else None
    return answer(EventsPage([change.event for change in page], following))


@router.get("/events/changes", dependencies=_reader, **docs(EventChanges))
async def event_changes(
    request: Request,
    after: After = None,
    consumer: By = None,
    category: Annotated[str | None, Query(description="of the events' data.category")] = None,
    limit: Limit = 500,
    wait: Wait = 0,
) -> Response:
    """The same over events."""
    start = await start_of(request, events.FEED, after, consumer)

    async def page(behind: int) -> Sequence[EventChange]:
        return await from_store(request, events.changes, behind, limit, category=category)

    changes = await request.app.state.feeds.read(events.FEED, start, wait, page)
    return answer(EventChanges(list(changes), changes[-1].sequence if changes else start))
