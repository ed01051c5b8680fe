"""The routing file that is the hub's own."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request, Response
from sqlalchemy import delete, select

from airflow_provider_airis.hub.auth import require
from airflow_provider_airis.hub.flow import chunks
from airflow_provider_airis.hub.problems import FieldError, Problem
from airflow_provider_airis.hub.requests import checked, from_store, to_store
from airflow_provider_airis.hub.store import sql
from airflow_provider_airis.hub.store import tables as db
from airflow_provider_airis.hub.store.writer import Transaction
from airflow_provider_airis.hub.wire import docs
from airflow_provider_airis.routes import Routes, RoutesError

YAML = "application/yaml"
MOST_YAML = 1 << 20

router = APIRouter(prefix="/api/v1")
_reader = [Depends(require("read"))]
_admin = [Depends(require("admin"))]


@router.get("/routes", dependencies=_reader, **docs(YAML))
async def get_routes(request: Request) -> Response:
    """The hub's own routing file, as it was put."""
    text = await from_store(request, lambda connection: connection.scalar(select(db.routes.c.text)))
    if text is None:
        raise Problem(404, "this hub has no routes of its own")
    return Response(text, media_type=YAML)


@router.put("/routes", dependencies=_admin, **docs(body=YAML, status=204))
async def put_routes(request: Request) -> Response:
    """Take a routing file, in YAML; the empty one removes it."""
    kind = request.headers.get("content-type", YAML).partition(";")[0].strip().lower()
    if kind != YAML:
        raise Problem(415, f"Content-Type {kind!r} is not taken here: use {YAML}")

    content = b"".join([chunk async for chunk in chunks(request)])
    text = await checked(request, content, _routes)

    def work(transaction: Transaction, _document: bytes) -> tuple[int, None]:
        if text.strip():
            row = {"name": "routes", "text": text, "updated_at": transaction.now}
            sql.upsert(transaction.connection, db.routes, [row])
        else:
            transaction.connection.execute(delete(db.routes))
        return 204, None

    return await to_store(request, content, work)


def _routes(document: bytes) -> str:
    """The text of a routing file without mistakes, or of none."""
    if len(document) > MOST_YAML:
        raise Problem(413, f"a routing file may have {MOST_YAML >> 20} MiB, decompressed")
    try:
        text = document.decode()
    except UnicodeDecodeError as error:
        raise Problem(400, f"the file is not UTF-8: {error}") from None
    try:
        if text.strip():
            Routes.parse(text)
    except RoutesError as error:
        errors = [FieldError("", str(problem)) for problem in error.problems]
        raise Problem(400, str(error), errors=errors) from None
    return text
