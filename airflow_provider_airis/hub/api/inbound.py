"""Signed webhooks by which another AIRIS-MON tells this hub of its alerts."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import time
from typing import Annotated, Any, cast

import msgspec
from fastapi import APIRouter, Depends, Path, Request, Response
from sqlalchemy import Connection, delete, select

from airflow_provider_airis.hub.alerting import alerts, foreign
from airflow_provider_airis.hub.alerting.alerts import Acknowledgement, ManualAlert, Milliseconds
from airflow_provider_airis.hub.auth import require
from airflow_provider_airis.hub.problems import Problem, explain
from airflow_provider_airis.hub.requests import change, from_store, to_store
from airflow_provider_airis.hub.store import sql
from airflow_provider_airis.hub.store import tables as db
from airflow_provider_airis.hub.store.writer import Transaction
from airflow_provider_airis.hub.wire import docs
from airflow_provider_airis.records import Alert

log = logging.getLogger(__name__)

SIGNATURE = "X-Airis-Signature"
WINDOW_S = 300
MAX_ALERTS = 1_000
_SIGNATURE = re.compile(r"t=(\d{1,15})((?:,v1=[0-9a-f]{64}){1,5})", re.ASCII)
_STATES = {"resolved": "resolved", "closed": "resolved", "acknowledged": "acknowledged"}
_Secret = Annotated[str, msgspec.Meta(min_length=24, max_length=300, pattern=r"^[!-~]+$")]
_Name = Annotated[str, Path(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9._-]+$")]


class InboundSecret(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of ``PUT /api/v1/inbound-webhooks/{name}``: 24 to 300 printable characters without blanks."""

    secret: _Secret


class InboundWebhook(msgspec.Struct, frozen=True):
    """Whose signed posts are taken, and under which path; the secret is never shown."""

    name: str
    path: str
    updated_at: int


class InboundWebhooks(msgspec.Struct, frozen=True):
    """All of them, by name."""

    inbound_webhooks: list[InboundWebhook]


class TakenAlerts(msgspec.Struct, frozen=True):
    """Answer to a signed post: the ids of the hub's own alerts."""

    alerts: list[str]


class PostedAlert(msgspec.Struct, frozen=True, kw_only=True):
    """An alert as an AIRIS-MON has it. More fields may be there.

    ``fingerprint``, or else ``id``, tells it from others; ``timestamp`` is when it began to fire, Unix ms.
    """

    id: str | int | None = None
    fingerprint: str | None = None
    name: str
    severity: str
    status: str | None = None
    description: str | None = None
    source: str | None = None
    model_id: str | None = None
    environment: str | None = None
    alert_type: str | None = None
    threshold: float | None = None
    current_value: float | None = None
    timestamp: Milliseconds | None = None
    updated_at: Milliseconds | None = None
    acknowledged_by: str | None = None
    tags: dict[str, str] | None = None


def take(transaction: Transaction, system: str, document: bytes) -> TakenAlerts:
    """Take what a webhook says of alerts: one as it is, or under ``alert`` or ``data``, or a list under ``alerts``.

    :raises Problem: 400, that is no alert.
    """
    try:
        body = msgspec.json.decode(document, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise Problem(400, explain(error)[1]) from None
    kind = next((str(body[key]) for key in ("change", "event_type", "event", "type") if body.get(key)), "")
    said_at = body.get("timestamp")
    pointer, found = "", cast("Any", body)
    for key in ("data", "alert", "alerts"):
        if (
            isinstance(found, dict)
            and isinstance(found.get(key), dict | list)
            and not {"name", "severity"} <= set(found)
        ):
            pointer, found = f"{pointer}/{key}", found[key]
    every = found if isinstance(found, list) else [found]
    if not 1 <= len(every) <= MAX_ALERTS:
        raise Problem(400, f"a webhook has 1 to {MAX_ALERTS} alerts, this one {len(every)}", pointer=pointer)
    taken = []
    for place, one in enumerate(every):
        where = f"{pointer}/{place}" if isinstance(found, list) else pointer
        taken.append(_take(transaction, system, _convert(one, PostedAlert, where), kind, said_at, where))
    return TakenAlerts([alert.id for alert in taken])


def _take(transaction: Transaction, system: str, said: PostedAlert, kind: str, said_at: object, pointer: str) -> Alert:
    starts_at = said.timestamp if said.timestamp is not None else said_at
    fields = {name: getattr(said, name) for name in PostedAlert.__struct_fields__ if hasattr(ManualAlert, name)}
    fields |= {"severity": said.severity.lower(), "fingerprint": None}
    origin = {
        "system": system,
        "fingerprint": said.fingerprint or ("" if said.id is None else str(said.id)),
        "starts_at": starts_at,
        "updated_at": said.updated_at if said.updated_at is not None else said_at,
    }
    status = said.status or _STATES.get(kind.rpartition(".")[2].lower(), "firing")
    if status == "resolved":
        fields["ends_at"] = max((at for at in (starts_at, origin["updated_at"]) if isinstance(at, int)), default=None)
    present = {name: value for name, value in fields.items() if value is not None}
    _, alert = foreign.post(transaction, _convert(present | {"origin": origin}, ManualAlert, pointer))
    if status == "acknowledged":
        by = said.acknowledged_by or system
        alert = alerts.acknowledge(transaction, alert.id, Acknowledgement(by=by))
    return alert


def _convert(value: object, kind: Any, pointer: str) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        field, detail = explain(error)
        raise Problem(400, detail, pointer=pointer + field) from None


def _is_signed(header: str, body: bytes, secrets: list[str]) -> bool:
    match = _SIGNATURE.fullmatch(header)
    if match is None or abs(time.time() - int(match[1])) > WINDOW_S:
        return False
    signed = match[1].encode() + b"." + body
    wanted = [hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest() for secret in secrets]
    given = match[2].split(",v1=")[1:]
    # Every pair is compared, so that the time tells nothing.
    return sum(hmac.compare_digest(one, other) for one in wanted for other in given) > 0


def _known(connection: Connection, name: str) -> list[str]:
    table = db.inbound_webhooks.c
    row = connection.execute(select(table.secret, table.previous).where(table.name == name)).first()
    return [secret for secret in row or () if secret]


def _shown(name: str, updated_at: int) -> InboundWebhook:
    return InboundWebhook(name, f"/api/v1/inbound-webhooks/{name}/alerts", updated_at)


router = APIRouter(prefix="/api/v1")
_admin = [Depends(require("admin"))]


@router.get("/inbound-webhooks", dependencies=_admin, **docs(InboundWebhooks))
async def list_inbound(request: Request) -> Response:
    """Whose signed posts are taken."""
    table = db.inbound_webhooks.c

    def find(connection: Connection) -> bytes:
        rows = connection.execute(select(table.name, table.updated_at).order_by(table.name))
        return msgspec.json.encode(InboundWebhooks([_shown(row.name, row.updated_at) for row in rows]))

    return Response(await from_store(request, find), media_type="application/json")


@router.put("/inbound-webhooks/{name}", dependencies=_admin, **docs(InboundWebhook, InboundSecret))
async def put_inbound(request: Request, name: _Name) -> Response:
    """Take posts signed with a secret: 201, or 200 where it replaces one, which stays valid until the next change."""

    def work(transaction: Transaction, body: InboundSecret) -> tuple[int, InboundWebhook]:
        before = _known(transaction.connection, name)
        previous = before[0] if before and before[0] != body.secret else before[1] if len(before) > 1 else None
        row = {"name": name, "secret": body.secret, "previous": previous, "updated_at": transaction.now}
        sql.upsert(transaction.connection, db.inbound_webhooks, [row])
        return (200 if before else 201), _shown(name, transaction.now)

    return await change(request, InboundSecret, work)


@router.delete("/inbound-webhooks/{name}", dependencies=_admin, **docs(status=204))
async def delete_inbound(request: Request, name: _Name) -> Response:
    """Take no more of them."""

    def work(transaction: Transaction, _document: bytes) -> tuple[int, None]:
        table = db.inbound_webhooks.c
        if not transaction.connection.execute(delete(db.inbound_webhooks).where(table.name == name)).rowcount:
            raise Problem(404, f"there is no inbound webhook {name!r}")
        return 204, None

    return await to_store(request, b"", work)


@router.post("/inbound-webhooks/{name}/alerts", **docs(TakenAlerts, PostedAlert))
async def post_inbound(request: Request, name: _Name) -> Response:
    """Alerts of another AIRIS-MON, signed ``X-Airis-Signature: t=<unix s>,v1=<hex HMAC-SHA256 of "t.body">``.

    Needs no token. 200 once they are stored; the same again, or what is older, changes nothing.
    """
    secrets = await from_store(request, _known, name)

    def work(transaction: Transaction, document: bytes) -> tuple[int, TakenAlerts]:
        try:
            return 200, take(transaction, name, document)
        except Problem as problem:
            log.warning("a webhook of %s was refused: %s", name, problem.detail)
            raise

    async with request.app.state.intake.body(request) as content:
        if not _is_signed(request.headers.get(SIGNATURE, ""), content, secrets):
            raise Problem(401, f"{SIGNATURE} is wrong, or more than {WINDOW_S} s off the hub's clock")
        return await to_store(request, content, work)
