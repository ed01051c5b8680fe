"""Silences: set, changed, ended."""

from __future__ import annotations

import msgspec
from fastapi import APIRouter, Depends, Request, Response

from airflow_provider_airis.hub.alerting import silences
from airflow_provider_airis.hub.alerting.silences import KnownSilence, SilenceAnswer, SilenceBody
from airflow_provider_airis.hub.auth import require
from airflow_provider_airis.hub.requests import change, from_store, to_store
from airflow_provider_airis.hub.store.store import Store
from airflow_provider_airis.hub.store.writer import Transaction
from airflow_provider_airis.hub.wire import docs

router = APIRouter(prefix="/api/v1")
_reader = [Depends(require("read"))]
_alerts = [Depends(require("alerts"))]


@router.get("/silences", dependencies=_reader, **docs(list[KnownSilence]))
async def list_silences(request: Request) -> Response:
    """The silences, the one that ends last first; expired ones for five days."""
    store: Store = request.app.state.store
    found = await from_store(request, silences.read, store.now())
    return Response(msgspec.json.encode(found), media_type="application/json")


@router.post("/silences", dependencies=_alerts, **docs(SilenceAnswer, SilenceBody))
async def post_silence(request: Request) -> Response:
    """Silence the alerts that fit all matchers, or change a silence that has not ended."""
    return await change(
        request, SilenceBody, lambda t, body: (200, SilenceAnswer(silences.put(t, body))), check=silences.matchers_of
    )


@router.delete("/silences/{silence_id}", dependencies=_alerts, **docs(status=204))
async def delete_silence(request: Request, silence_id: str) -> Response:
    """End a silence now."""

    def work(transaction: Transaction, _document: bytes) -> tuple[int, None]:
        silences.expire(transaction, silence_id)
        return 204, None

    return await to_store(request, b"", work)
