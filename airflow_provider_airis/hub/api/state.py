"""The readers' state over HTTP: checkpoints, leases, and the last point of each series."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from sqlalchemy import Connection

from airflow_provider_airis.hub.auth import require
from airflow_provider_airis.hub.problems import Problem
from airflow_provider_airis.hub.requests import change, cursor_of, from_store, place_behind, to_store
from airflow_provider_airis.hub.store import checkpoints, latest, leases
from airflow_provider_airis.hub.store.checkpoints import (
    CheckpointBody,
    CheckpointsPage,
    CheckpointVersion,
    KnownCheckpoint,
)
from airflow_provider_airis.hub.store.latest import LastPoints
from airflow_provider_airis.hub.store.leases import MAX_NAME, HeldLease, LeaseBody
from airflow_provider_airis.hub.store.store import Store
from airflow_provider_airis.hub.store.writer import Transaction
from airflow_provider_airis.hub.wire import docs

StateName = Annotated[str, Path(min_length=1, max_length=MAX_NAME, pattern=r"^[^\x00]*$")]
_Text = Annotated[str | None, Query(max_length=MAX_NAME, pattern=r"^[^\x00]*$")]
_Limit = Annotated[int, Query(ge=1, le=5000)]
_IfMatch = Annotated[str | None, Header(description="version that was read; 0: it must not be there")]
_MAX_VERSION = (1 << 63) - 1

router = APIRouter(prefix="/api/v1")
# A source's token has `ingest`, a dispatch's `alerts`: each keeps its state with the token that it has.
_reader = [Depends(require("read", "ingest", "alerts"))]
_writer = [Depends(require("ingest", "alerts"))]


def _version(header: str | None) -> int | None:
    """What ``If-Match`` says, bare or as an entity tag; None without it."""
    if header is None:
        return None
    digits = header.strip().removeprefix('"').removesuffix('"')
    if not digits.isascii() or not digits.isdecimal() or len(digits) > 19 or int(digits) > _MAX_VERSION:
        raise Problem(400, "If-Match is the version that was read, or 0", pointer="/If-Match")
    return int(digits)


@router.get("/checkpoints", dependencies=_reader, **docs(CheckpointsPage))
async def list_checkpoints(
    request: Request, prefix: _Text = None, cursor: str | None = None, limit: _Limit = 1000
) -> Response:
    """Checkpoints by name; a page ends early once it holds 8 MiB."""
    (after,) = place_behind(cursor, tuple[str]) or (None,)

    def find(connection: Connection) -> bytes:
        found, more = checkpoints.read_page(connection, prefix or "", after, limit)
        return msgspec.json.encode(CheckpointsPage(found, cursor_of(found[-1].name) if more else None))

    return Response(await from_store(request, find), media_type="application/json")


@router.get("/checkpoints/{name:path}", dependencies=_reader, **docs(KnownCheckpoint))
async def get_checkpoint(request: Request, name: StateName) -> Response:
    """One checkpoint; its version is the ``ETag`` as well."""
    found = await from_store(request, checkpoints.read, name)
    return Response(msgspec.json.encode(found), headers={"ETag": f'"{found.version}"'}, media_type="application/json")


@router.put("/checkpoints/{name:path}", dependencies=_writer, **docs(CheckpointVersion, CheckpointBody))
async def put_checkpoint(request: Request, name: StateName, if_match: _IfMatch = None) -> Response:
    """Write a checkpoint whose version is ``If-Match``; 0, or none, for a new one. 412 if another was faster."""
    expected = _version(if_match) or 0
    return await change(
        request,
        CheckpointBody,
        lambda transaction, body: (200, checkpoints.put(transaction, name, body, expected)),
        check=checkpoints.check,
    )


@router.delete("/checkpoints/{name:path}", dependencies=_writer, **docs(status=204))
async def delete_checkpoint(request: Request, name: StateName, if_match: _IfMatch = None) -> Response:
    """Delete a checkpoint; with ``If-Match`` only at that version."""
    expected = _version(if_match)

    def work(transaction: Transaction, _document: bytes) -> tuple[int, None]:
        checkpoints.remove(transaction, name, expected)
        return 204, None

    return await to_store(request, b"", work)


@router.get("/leases/{name:path}", dependencies=_reader, **docs(HeldLease))
async def get_lease(request: Request, name: StateName) -> Response:
    """Who holds a lease; 404 while nobody does."""
    store: Store = request.app.state.store
    now = store.now()
    found = await from_store(request, leases.read, name, now)
    if found is None:
        raise Problem(404, f"nobody holds the lease {name!r}")
    return Response(msgspec.json.encode(found), media_type="application/json")


@router.post("/leases/{name:path}", dependencies=_writer, **docs(HeldLease, LeaseBody))
async def post_lease(request: Request, name: StateName) -> Response:
    """Take a lease, or renew it; 409, with the holder, while it is somebody else's."""
    return await change(request, LeaseBody, lambda transaction, body: (200, leases.acquire(transaction, name, body)))


@router.delete("/leases/{name:path}", dependencies=_writer, **docs(status=204))
async def delete_lease(
    request: Request, name: StateName, token: Annotated[int, Query(ge=1, le=_MAX_VERSION)]
) -> Response:
    """Give a lease back; one that was lost meanwhile stays with whoever has it."""

    def work(transaction: Transaction, _document: bytes) -> tuple[int, None]:
        leases.release(transaction, name, token)
        return 204, None

    return await to_store(request, b"", work)


@router.get("/metrics/last", dependencies=[Depends(require("read", "ingest"))], **docs(LastPoints))
async def last_points(
    request: Request,
    source: str | None = None,
    name: str | None = None,
    tag: Annotated[list[str], Query(description="key:value, each must be there")] = [],  # noqa: B006
    cursor: str | None = None,
    limit: _Limit = 5000,
) -> Response:
    """Each series' newest point."""
    if bad := [pair for pair in tag if ":" not in pair]:
        raise Problem(400, f"{bad[0]!r} is not key:value", pointer="/tag")
    tags = dict(pair.split(":", 1) for pair in tag)
    (after,) = place_behind(cursor, tuple[int]) or (0,)

    def find(connection: Connection) -> bytes:
        found, last = latest.read(connection, source=source, name=name, tags=tags, after=after, limit=limit)
        return msgspec.json.encode(LastPoints(found, None if last is None else cursor_of(last)))

    return Response(await from_store(request, find), media_type="application/json")
