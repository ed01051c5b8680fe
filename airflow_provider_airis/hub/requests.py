"""What every call of the hub's API does with a request: read or write the store, once, and page."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

import msgspec
from fastapi import Request, Response
from sqlalchemy import Connection

from airflow_provider_airis.hub.auth import sent
from airflow_provider_airis.hub.flow import chunks
from airflow_provider_airis.hub.ingest import MAX_TEXT, Form, unpack
from airflow_provider_airis.hub.problems import Problem, explain
from airflow_provider_airis.hub.store import answers, leases
from airflow_provider_airis.hub.store.feeds import Turn
from airflow_provider_airis.hub.store.store import Store
from airflow_provider_airis.hub.store.writer import Transaction

T = TypeVar("T")
P = ParamSpec("P")


def answer(content: Any, status: int = 200) -> Response:
    """A record, or what holds some, as JSON."""
    return Response(msgspec.json.encode(content), status, media_type="application/json")


def form_of(request: Request, *, batch: bool) -> Form:
    """What a document of records is made of, by its ``Content-Type``.

    :raises Problem: 415.
    """
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if batch and kind in ("application/x-ndjson", "application/ndjson"):
        return "lines"
    if kind != "application/json":
        offered = "application/json or application/x-ndjson" if batch else "application/json"
        raise Problem(415, f"Content-Type {kind!r} is not taken here: use {offered}")
    return "batch" if batch else "single"


async def in_thread(request: Request, what: Callable[[], T]) -> T:
    """Do what may take a while without holding others up."""
    return await asyncio.get_running_loop().run_in_executor(request.app.state.readers, what)


async def from_store(
    request: Request, what: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Do a read of the store in a thread: a function over a connection, with its further arguments."""
    store: Store = request.app.state.store
    return await in_thread(request, lambda: store.read(what, *args, **kwargs))


async def to_store(
    request: Request,
    content: bytes,
    work: Callable[[Transaction, bytes], tuple[int, Any]],
    *,
    turn: Turn = Turn.ANY,
) -> Response:
    """Do a write of the store, once under an ``Idempotency-Key``, and answer when it is durable."""
    store: Store = request.app.state.store
    key = idempotency_key(request)
    fence = leases.fence_of(request)
    encoding = _encoding(request)
    path = request.url.path
    owner = request.app.state.tokens.name(sent(request)[1])

    def once(transaction: Transaction) -> tuple[int, bytes, bool]:
        leases.check_fence(transaction, fence)
        document = unpack(content, encoding)

        def do() -> tuple[int, bytes]:
            status, result = work(transaction, document)
            return status, b"" if result is None else msgspec.json.encode(result)

        return answers.once(transaction, owner, key, path, document, do)

    status, answered, replayed = await asyncio.wrap_future(store.submit(once, size=len(content), turn=turn))
    headers = {"Idempotency-Replayed": "true"} if replayed else None
    return Response(answered, status, headers, "application/json" if answered else None)


async def change(
    request: Request,
    kind: type[T],
    work: Callable[[Transaction, T], tuple[int, Any]],
    *,
    check: Callable[[T], object] | None = None,
) -> Response:
    """The same with a body that must be of a kind; no body is an empty object.

    :param check: what may take a while, and is done before, while others write.
    """

    def decode(document: bytes) -> T:
        try:
            return msgspec.json.decode(document or b"{}", type=kind)
        except (msgspec.MsgspecError, RecursionError) as error:
            pointer, detail = explain(error)
            raise Problem(400, detail, pointer=pointer) from None

    content = b"".join([chunk async for chunk in chunks(request)])
    if check:
        await checked(request, content, lambda document: check(decode(document)))
    return await to_store(request, content, lambda transaction, document: work(transaction, decode(document)))


async def checked(request: Request, content: bytes, check: Callable[[bytes], T]) -> T:
    """What comes of a look at the document, in a thread that nobody else has to wait for."""
    return await in_thread(request, lambda: check(unpack(content, _encoding(request))))


def _encoding(request: Request) -> str:
    return request.headers.get("content-encoding", "").strip().lower()


def idempotency_key(request: Request) -> str | None:
    """What makes a repeated POST or PUT harmless."""
    key = request.headers.get("idempotency-key") if request.method in ("POST", "PUT") else None
    if key is not None and not 1 <= len(key) <= MAX_TEXT:
        raise Problem(400, f"an Idempotency-Key has 1 to {MAX_TEXT} characters")
    return key


def cursor_of(*place: str | int) -> str:
    """What asks for the page behind a place."""
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode().rstrip("=")


def place_behind(cursor: str | None, shape: type[T]) -> T | None:
    """The place that a cursor stands for."""
    if cursor is None:
        return None
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)), type=shape)
    except (binascii.Error, msgspec.MsgspecError, ValueError):
        raise Problem(400, "the cursor is none of this hub's", pointer="/cursor") from None
