"""Answers under an ``Idempotency-Key``: a work is done once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from sqlalchemy import select, update

from airflow_provider_airis.hub.problems import Problem
from airflow_provider_airis.hub.store import sql
from airflow_provider_airis.hub.store import tables as db
from airflow_provider_airis.hub.store.writer import Transaction


def once(
    transaction: Transaction,
    token: str,
    key: str | None,
    path: str,
    document: bytes,
    work: Callable[[], tuple[int, bytes]],
) -> tuple[int, bytes, bool]:
    """Status, answer, and whether they are replayed: under a key a work is done once for each that uses it.

    :param token: the name of the token that the request bears, empty for one that bears none.

    :raises Problem: 409, the key was used with another document.
    """
    if key is None:
        return *work(), False
    digest = hashlib.sha256(document).hexdigest()
    table = db.answers.c
    mine = (table.token == token) & (table.key == key) & (table.path == path)
    row = {"token": token, "key": key, "path": path, "digest": digest, "status": 0, "answer": "", "at": transaction.now}
    # First of all: another process that has the same key waits here for this transaction's end.
    if sql.insert_new(transaction.connection, db.answers, [row], ["token", "key", "path"]):
        status, answer = work()
        values = {"status": status, "answer": answer.decode()}
        transaction.connection.execute(update(db.answers).where(mine).values(values))
        return status, answer, False
    first = transaction.connection.execute(select(table.digest, table.status, table.answer).where(mine)).one()
    if first.digest != digest:
        raise Problem(409, f"Idempotency-Key {key!r} was used here with another body")
    return first.status, first.answer.encode(), True
