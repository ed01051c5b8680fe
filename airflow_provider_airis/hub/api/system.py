"""The hub itself: health, capabilities, the contract."""

from __future__ import annotations

import asyncio

import msgspec
from fastapi import APIRouter, Depends, Request, Response

from airflow_provider_airis.hub.auth import require
from airflow_provider_airis.hub.problems import Problem
from airflow_provider_airis.hub.requests import answer
from airflow_provider_airis.hub.store.store import Store
from airflow_provider_airis.hub.wire import CAPABILITIES, Capabilities, Health, Limits, docs

router = APIRouter(prefix="/api/v1")
_reader = [Depends(require("read"))]


@router.get("/health", **docs(Health))
async def health(request: Request) -> Response:
    """Alive, and able to write: 503 when it is not. Needs no token."""
    store: Store = request.app.state.store
    try:
        await asyncio.wrap_future(store.submit(lambda _transaction: None))
    except Problem as problem:
        content = Health("unavailable", problem.detail)
        return Response(msgspec.json.encode(content), problem.status, problem.headers, "application/json")
    return answer(Health("ok", "ok"))


@router.get("/capabilities", dependencies=[Depends(require())], **docs(Capabilities))
async def capabilities(request: Request) -> Response:
    """What this hub offers."""
    return answer(Capabilities(request.app.version, CAPABILITIES, ["gzip"], Limits()))


@router.get("/openapi.json", dependencies=_reader, include_in_schema=False)
async def openapi_document(request: Request) -> Response:
    """The contract as an OpenAPI document."""
    return answer(request.app.openapi())
