"""The notification log: what was sent to whom."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response
from sqlalchemy import Connection

from airflow_provider_airis.hub.alerting import notification_log
from airflow_provider_airis.hub.alerting.notification_log import LogEntries, LogPage
from airflow_provider_airis.hub.auth import require
from airflow_provider_airis.hub.requests import change, cursor_of, from_store, place_behind
from airflow_provider_airis.hub.store.writer import Transaction
from airflow_provider_airis.hub.wire import docs

router = APIRouter(prefix="/api/v1")
_reader = [Depends(require("read"))]
_alerts = [Depends(require("alerts"))]


@router.get("/notification-log", dependencies=_reader, **docs(LogPage))
async def list_notifications(
    request: Request,
    channel: str | None = None,
    known_by: Annotated[str | None, Query(alias="id")] = None,
    is_open: Annotated[bool | None, Query(alias="open", description="of an alert that is not resolved")] = None,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=5000)] = 1000,
) -> Response:
    """What was sent to whom, a group of alerts an entry."""
    (after,) = place_behind(cursor, tuple[str]) or ("",)

    def find(connection: Connection) -> bytes:
        found = notification_log.entries(
            connection, channel=channel, known_by=known_by, is_open=is_open, after=after, limit=limit + 1
        )
        following = cursor_of(found[limit - 1][0]) if len(found) > limit else None
        return msgspec.json.encode(LogPage([entry for _, entry in found[:limit]], following))

    return Response(await from_store(request, find), media_type="application/json")


@router.put("/notification-log", dependencies=_alerts, **docs(body=LogEntries, status=204))
async def put_notifications(request: Request) -> Response:
    """Write down what was sent, or is about to be; also into the ledger of each alert."""

    def work(transaction: Transaction, body: LogEntries) -> tuple[int, None]:
        notification_log.log(transaction, body.entries)
        return 204, None

    return await change(request, LogEntries, work)
