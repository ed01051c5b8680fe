"""Leases: at most one holder a name at a time, each under a token that only grows, by which late writes are refused."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import unquote

import msgspec
from fastapi import Request
from sqlalchemy import Connection, Row, Select, select, update

from airflow_provider_airis.hub.problems import Problem, ProblemDocument
from airflow_provider_airis.hub.store import sql
from airflow_provider_airis.hub.store import tables as db
from airflow_provider_airis.hub.store.writer import Transaction
from airflow_provider_airis.records import from_ms

FENCE = "X-Airis-Fence"
MAX_NAME = 300
MAX_TTL_S = 86_400


class LeaseBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of ``POST /api/v1/leases/{name}``.

    :param holder: who wants it; the same holder renews, so two programs must not share a name.
    :param ttl_s: seconds from now after which it lapses unless it is renewed.
    """

    holder: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME, pattern=r"^[^\x00]*$")]
    ttl_s: Annotated[float, msgspec.Meta(gt=0, le=MAX_TTL_S)]


class HeldLease(msgspec.Struct, frozen=True):
    """A lease that is taken.

    :param token: grows with every holder, also after a release or a lapse; a renewal keeps it.
    :param expires_at: Unix ms.
    """

    name: str
    holder: str
    token: int
    expires_at: int


class LeaseTakenDocument(ProblemDocument, frozen=True, kw_only=True):
    """The problem of a lease that somebody else holds."""

    holder: str
    expires_at: int


class LeaseTaken(Problem):
    """409: somebody else holds it."""

    def __init__(self, lease: HeldLease) -> None:
        until = from_ms(lease.expires_at).isoformat(timespec="milliseconds")
        super().__init__(409, f"the lease {lease.name!r} is held by {lease.holder!r} until {until}")
        self.lease = lease

    def document(self) -> ProblemDocument:
        """The problem as its wire form."""
        known = msgspec.structs.asdict(super().document())
        return LeaseTakenDocument(**known, holder=self.lease.holder, expires_at=self.lease.expires_at)


def acquire(transaction: Transaction, name: str, body: LeaseBody) -> HeldLease:
    """Take a lease, or renew it.

    :raises LeaseTaken: somebody else holds it.
    """
    first = {"name": name, "holder": body.holder, "token": 0, "expires_at": 0}
    sql.insert_missing(transaction.connection, db.leases, first)
    # Locked, so that of two processes of the hub one waits until the other has committed.
    row = transaction.connection.execute(_query(name).with_for_update()).one()
    open_ = row.expires_at > transaction.now
    if open_ and row.holder != body.holder:
        raise LeaseTaken(_held(row))
    token = row.token if open_ else row.token + 1
    lease = HeldLease(name, body.holder, token, transaction.now + round(body.ttl_s * 1000))
    table = db.leases.c
    values = {"holder": lease.holder, "token": lease.token, "expires_at": lease.expires_at}
    transaction.connection.execute(update(db.leases).where(table.name == name).values(**values))
    return lease


def release(transaction: Transaction, name: str, token: int) -> None:
    """Give a lease back; one that was lost meanwhile stays with whoever has it."""
    table = db.leases.c
    mine = (table.name == name) & (table.token == token)
    transaction.connection.execute(update(db.leases).where(mine).values(expires_at=0))


def read(connection: Connection, name: str, now: int) -> HeldLease | None:
    """Who holds a lease, None if nobody does."""
    row = connection.execute(_query(name)).first()
    return _held(row) if row is not None and row.expires_at > now else None


def fence_of(request: Request) -> tuple[str, int] | None:
    """Name and token that a request carries as ``X-Airis-Fence: <lease's name, percent-encoded>;<token>``.

    :raises Problem: 400, it says something else.
    """
    header = request.headers.get(FENCE)
    if header is None:
        return None
    quoted, separator, token = header.rpartition(";")
    if not separator or not quoted or not token.isascii() or not token.isdecimal() or len(token) > 18:
        raise Problem(400, f"{FENCE} is <lease's name, percent-encoded>;<token>", pointer=f"/{FENCE}")
    name = unquote(quoted, errors="replace")
    if len(name) > MAX_NAME or "\0" in name:
        raise Problem(400, f"{FENCE} names no lease", pointer=f"/{FENCE}")
    return name, int(token)


def check_fence(transaction: Transaction, fence: tuple[str, int] | None) -> None:
    """Let a write pass whose lease nobody has taken since; a lapsed one that nobody took is as good.

    :raises Problem: 409, somebody has, or the hub has never given that token.
    """
    if fence is None:
        return
    name, token = fence
    # Shared with other writes; whoever takes the lease waits until this one is committed.
    row = transaction.connection.execute(_query(name).with_for_update(read=True)).first()
    if row is None or token > row.token:
        raise Problem(409, f"the lease {name!r} never had the token {token}", pointer=f"/{FENCE}")
    if token < row.token:
        detail = f"the lease {name!r} was taken by {row.holder!r} since: its token is {row.token}, not {token}"
        raise Problem(409, detail, pointer=f"/{FENCE}")


def _held(row: Row[tuple[str, str, int, int]]) -> HeldLease:
    return HeldLease(row.name, row.holder, row.token, row.expires_at)


def _query(name: str) -> Select[tuple[str, str, int, int]]:
    table = db.leases.c
    return select(table.name, table.holder, table.token, table.expires_at).where(table.name == name)
