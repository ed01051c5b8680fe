"""The hub's HTTP contract: what each call takes, which scope it needs, what it answers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from importlib.metadata import PackageNotFoundError, version

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from airflow_provider_airis.hub import pages
from airflow_provider_airis.hub.activity import Activity
from airflow_provider_airis.hub.api import (
    alerts,
    events,
    feeds,
    inbound,
    metrics,
    notification_log,
    routes,
    rules,
    silences,
    state,
    system,
    users,
)
from airflow_provider_airis.hub.auth import Tokens
from airflow_provider_airis.hub.flow import Feeds, Intake
from airflow_provider_airis.hub.problems import MEDIA_TYPE, Problem, StoreUnavailable
from airflow_provider_airis.hub.readiness import Readiness
from airflow_provider_airis.hub.store.store import Store
from airflow_provider_airis.hub.wire import openapi

log = logging.getLogger(__name__)

MAX_REQUESTS = 1024
MAX_HELD = 128 << 20
MAINTAIN_S = 30
PRUNE_S = 600
# Those who read many points have threads of their own: nobody else waits for one of them.
READERS = 12
SCANNERS = 6
_ROUTERS = (
    metrics,
    events,
    alerts,
    feeds,
    rules,
    users,
    notification_log,
    silences,
    routes,
    state,
    inbound,
    system,
    pages,
)


def create_app(store: Store, tokens: Tokens, *, max_requests: int = MAX_REQUESTS, max_bytes: int = MAX_HELD) -> FastAPI:
    """The hub as an ASGI application; the store stays the caller's to close.

    :param max_requests: ingest requests held at a time before further ones are answered 429, and ``max_bytes`` of them.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.feeds = Feeds(store)
        app.state.readiness = Readiness(store)
        app.state.readers = ThreadPoolExecutor(READERS, "hub-reader")
        app.state.scanners = ThreadPoolExecutor(SCANNERS, "hub-scanner")
        maintaining = asyncio.create_task(_maintain(store))
        # Who looks first need not wait until all is counted.
        counting = app.state.readers.submit(_count, app.state.activity)
        yield
        maintaining.cancel()
        counting.cancel()
        app.state.scanners.shutdown()
        app.state.readers.shutdown()

    app = FastAPI(
        title="AIRIS-MON hub", version=_version(), lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None
    )
    app.state.store = store
    app.state.tokens = tokens
    app.state.activity = Activity(store)
    app.state.intake = Intake(max_requests, max_bytes)
    for module in _ROUTERS:
        app.include_router(module.router)
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _crash)
    app.openapi = lambda: openapi(app)  # type: ignore[method-assign]
    return app


def _count(activity: Activity) -> None:
    with suppress(StoreUnavailable):
        activity.look()


async def _maintain(store: Store) -> None:
    due = 0.0
    while True:
        await asyncio.sleep(MAINTAIN_S)
        try:
            await asyncio.wrap_future(store.submit(store.maintain))
            if time.monotonic() >= due:
                due = time.monotonic() + PRUNE_S
                await asyncio.to_thread(store.prune)
        except Exception:  # the next turn may do better
            log.exception("the store could not be maintained")


def _version() -> str:
    try:
        return version("airflow-provider-airis")
    except PackageNotFoundError:
        return "0"


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
