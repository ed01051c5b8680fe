"""Metrics: ingest, queries, coverage."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, TypeVar

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response
from sqlalchemy import Connection

from airflow_provider_airis.hub.alerting.rules import AGGREGATION
from airflow_provider_airis.hub.auth import require
from airflow_provider_airis.hub.problems import Problem
from airflow_provider_airis.hub.requests import form_of, to_store
from airflow_provider_airis.hub.store import metrics, points
from airflow_provider_airis.hub.store.feeds import Turn
from airflow_provider_airis.hub.store.store import Store
from airflow_provider_airis.hub.wire import CoverageAnswer, MetricsBatch, QueryAnswer, docs
from airflow_provider_airis.records import IngestAnswer, MetricsBody

T = TypeVar("T")

router = APIRouter(prefix="/api/v1")
_ingest = [Depends(require("ingest"))]
_reader = [Depends(require("read"))]
_From = Annotated[str | None, Query(alias="from", description="Unix ms or ISO 8601")]
_To = Annotated[str | None, Query(description="Unix ms or ISO 8601, exclusive")]
_Step = Annotated[int | None, Query(ge=1, le=366 * 86_400, description="seconds")]


async def _ingest_metrics(request: Request, *, batch: bool) -> Response:
    form = form_of(request, batch=batch)
    async with request.app.state.intake.body(request) as content:
        return await to_store(
            request,
            content,
            lambda transaction, document: (200, points.ingest(transaction, document, form)),
            turn=Turn.POINTS,
        )


@router.post("/metrics/ingest", dependencies=_ingest, **docs(IngestAnswer, MetricsBody))
async def ingest_metrics(request: Request) -> Response:
    """Store points of one timestamp and source."""
    return await _ingest_metrics(request, batch=False)


@router.post("/metrics/batch", dependencies=_ingest, **docs(IngestAnswer, MetricsBatch, lines=MetricsBody))
async def batch_metrics(request: Request) -> Response:
    """Store many bodies of ``/metrics/ingest``."""
    return await _ingest_metrics(request, batch=True)


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
    begin, end = _span(start, to)
    if bad := [pair for pair in tag if ":" not in pair]:
        raise Problem(400, f"{bad[0]!r} is not key:value", pointer="/tag")
    tags = dict(pair.split(":", 1) for pair in tag)
    milliseconds = None if step is None else step * 1000

    def read(connection: Connection) -> bytes:
        found = metrics.query(
            connection, start=begin, end=end, name=name, source=source, tags=tags, step=milliseconds, aggregation=agg
        )
        return msgspec.json.encode(QueryAnswer(found))

    return Response(await _scan(request, read), media_type="application/json")


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
    begin, end = _span(start, to)

    def read(connection: Connection) -> bytes:
        found = metrics.coverage(connection, start=begin, end=end, step=(step or 60) * 1000, source=source, name=name)
        return msgspec.json.encode(CoverageAnswer(found))

    return Response(await _scan(request, read), media_type="application/json")


async def _scan(request: Request, what: Callable[[Connection], T]) -> T:
    """Read what may be much, without holding up who reads little."""
    store: Store = request.app.state.store
    return await asyncio.get_running_loop().run_in_executor(request.app.state.scanners, store.scan, what)


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
