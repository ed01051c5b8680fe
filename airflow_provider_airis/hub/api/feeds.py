"""What the change feeds have in common, and the consumers that read them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from airflow_provider_airis.hub.api.state import StateName
from airflow_provider_airis.hub.auth import require
from airflow_provider_airis.hub.problems import Problem
from airflow_provider_airis.hub.requests import answer, change, from_store
from airflow_provider_airis.hub.store import consumers, feeds
from airflow_provider_airis.hub.store.consumers import Consumer
from airflow_provider_airis.hub.store.writer import Transaction
from airflow_provider_airis.hub.wire import MAX_WAIT_S, Place, docs

router = APIRouter(prefix="/api/v1")
_reader = [Depends(require("read"))]
_alerts = [Depends(require("alerts"))]
After = Annotated[int | None, Query(ge=0, description="sequence of the last change that was read")]
By = Annotated[str | None, Query(description="start behind what this consumer has committed")]
Limit = Annotated[int, Query(ge=1, le=5000)]
Wait = Annotated[float, Query(ge=0, le=MAX_WAIT_S, description="seconds to wait for a change")]


async def start_of(request: Request, feed: str, after: int | None, consumer: str | None) -> int:
    """The sequence behind which a reader wants to read.

    :raises Problem: 409, the feed does not reach that far.
    """
    if after is not None and consumer is not None:
        raise Problem(400, "give after or consumer, not both", pointer="/consumer")
    start = after or 0
    if consumer is not None:
        found = await from_store(request, consumers.read, consumer)
        start = 0 if found is None else found.sequence
    if start > request.app.state.store.last[feed] and start > (end := (await from_store(request, feeds.ends))[feed]):
        raise Problem(
            409,
            f"feed was restored from an older backup: it ends at {end}, and {start} was read already; read it anew "
            "from where it should go on",
            pointer="/consumer" if after is None else "/after",
        )
    return start


@router.get("/consumers/{name}", dependencies=_reader, **docs(Consumer))
async def get_consumer(request: Request, name: str) -> Response:
    """How far a reader has come."""
    found = await from_store(request, consumers.read, name)
    if found is None:
        raise Problem(404, f"the consumer {name!r} has committed nothing yet")
    return answer(found)


@router.put("/consumers/{name}", dependencies=_alerts, **docs(Consumer, Place))
async def put_consumer(request: Request, name: StateName) -> Response:
    """Commit an offset; a lower one changes nothing unless forced. Answers what is in force."""

    def work(transaction: Transaction, body: Place) -> tuple[int, Consumer]:
        return 200, consumers.commit(transaction, name, body.sequence, force=body.force, wake_at=body.wake_at)

    return await change(request, Place, work)
