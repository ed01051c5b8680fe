"""The hub itself: health, capabilities, the contract."""

from __future__ import annotations

import msgspec
from fastapi import APIRouter, Depends, Request, Response

from airflow_provider_airis.hub.auth import require
from airflow_provider_airis.hub.readiness import Readiness
from airflow_provider_airis.hub.requests import answer
from airflow_provider_airis.hub.wire import CAPABILITIES, Capabilities, Health, Limits, Liveness, docs

router = APIRouter(prefix="/api/v1")
_reader = [Depends(require("read"))]


@router.get("/health", **docs(Health))
async def health(request: Request) -> Response:
    """Ready: able to read and to write, as of a second ago; 503 when it is not. Needs no token."""
    readiness: Readiness = request.app.state.readiness
    if fault := await readiness.fault():
        content = msgspec.json.encode(Health("unavailable", fault))
        return Response(content, 503, {"Retry-After": "2"}, "application/json")
    return answer(Health("ok", "ok"))


@router.get("/health/live", **docs(Liveness))
async def liveness() -> Response:
    """Alive: it answers, and asks nobody. Needs no token."""
    return answer(Liveness())


@router.get("/capabilities", dependencies=[Depends(require())], **docs(Capabilities))
async def capabilities(request: Request) -> Response:
    """What this hub offers."""
    return answer(Capabilities(request.app.version, CAPABILITIES, ["gzip"], Limits()))


@router.get("/openapi.json", dependencies=_reader, include_in_schema=False)
async def openapi_document(request: Request) -> Response:
    """The contract as an OpenAPI document."""
    return answer(request.app.openapi())
