"""Users: directories that are synced, and pages of them."""

from __future__ import annotations

import msgspec
from fastapi import APIRouter, Depends, Request, Response
from sqlalchemy import Connection

from airflow_provider_airis.hub.api.feeds import Limit
from airflow_provider_airis.hub.auth import require
from airflow_provider_airis.hub.problems import Problem, explain
from airflow_provider_airis.hub.requests import cursor_of, form_of, from_store, place_behind, to_store
from airflow_provider_airis.hub.store import users
from airflow_provider_airis.hub.store.users import UsersPage, UserSyncAnswer, UserSyncBody
from airflow_provider_airis.hub.store.writer import Transaction
from airflow_provider_airis.hub.wire import docs

router = APIRouter(prefix="/api/v1")
_ingest = [Depends(require("ingest"))]
_reader = [Depends(require("read"))]


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

    form_of(request, batch=False)
    async with request.app.state.intake.body(request) as content:
        return await to_store(request, content, work)


@router.get("/users", dependencies=_reader, **docs(UsersPage))
async def list_users(
    request: Request,
    source: str | None = None,
    active: bool | None = None,
    email: str | None = None,
    cursor: str | None = None,
    limit: Limit = 1000,
) -> Response:
    """Users of all directories, by source and id; ``email`` in capitals or not."""
    behind = place_behind(cursor, tuple[str, str])

    def read(connection: Connection) -> bytes:
        found, total = users.read(connection, source=source, active=active, email=email, behind=behind, limit=limit + 1)
        page = found[:limit]
        following = cursor_of(page[-1].source, page[-1].id) if len(found) > limit else None
        return msgspec.json.encode(UsersPage(page, following, total))

    return Response(await from_store(request, read), media_type="application/json")
