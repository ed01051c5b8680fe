"""What routing needs of the hub: the log of what was sent, the silences, and routes of the hub's own."""

from __future__ import annotations

import secrets
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response
from sqlalchemy import Connection, Row, delete, exists, select, tuple_

from airflow_provider_airis.hub import database as db
from airflow_provider_airis.hub.alerts import fingerprint
from airflow_provider_airis.hub.auth import require
from airflow_provider_airis.hub.flow import chunks
from airflow_provider_airis.hub.problems import FieldError, Problem
from airflow_provider_airis.hub.requests import change, checked, cursor_of, from_store, place_behind, to_store
from airflow_provider_airis.hub.store import Store
from airflow_provider_airis.hub.wire import docs
from airflow_provider_airis.hub.writer import Transaction
from airflow_provider_airis.records import LogEntry, Shown, from_ms, to_ms
from airflow_provider_airis.routes import Matcher, Routes, RoutesError, Silence
from airflow_provider_airis.routes.matching import MOST_MATCHERS, Operator

MOST_ENTRIES = 1_000
KEPT_MS = 5 * 86_400_000
YAML = "application/yaml"
MOST_YAML = 1 << 20
_CHUNK = 500
_At = Annotated[datetime, msgspec.Meta(tz=True)]


class LogEntries(msgspec.Struct, forbid_unknown_fields=True):
    """Body of ``PUT /api/v1/notification-log``."""

    entries: Annotated[list[LogEntry], msgspec.Meta(max_length=MOST_ENTRIES)]


class LogPage(msgspec.Struct):
    """Entries of the notification log; ``next_cursor`` asks for the next page, null on the last."""

    entries: list[LogEntry]
    next_cursor: str | None


class Showing(msgspec.Struct, frozen=True):
    """That a target was shown an alert, in which state and in which group.

    :param entry: as the log has it now.
    :param at: ``updated_at`` of the alert as shown, Unix ms, and ``sent_at``: when that was sent first.
    """

    entry: LogEntry
    status: str
    at: int
    sent_at: int


class SilenceMatcher(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A condition on a label, in Alertmanager's words."""

    name: Annotated[str, msgspec.Meta(min_length=1)]
    value: str
    isRegex: bool = False  # noqa: N815 (Alertmanager's)
    isEqual: bool = True  # noqa: N815

    @classmethod
    def of(cls, matcher: Matcher) -> SilenceMatcher:
        """What the routes call so."""
        return cls(matcher.name, matcher.value, "~" in matcher.operator, "!" not in matcher.operator)

    def record(self) -> Matcher:
        """The same in the routes' words.

        :raises ValueError: it is a bad regular expression.
        """
        operators: tuple[Operator, ...] = ("!=", "=", "!~", "=~")
        return Matcher(self.name, operators[2 * self.isRegex + self.isEqual], self.value)


class SilenceBody(msgspec.Struct, frozen=True, kw_only=True):
    """Body of ``POST /api/v1/silences``: a new silence, or with the id of one that has not ended, what it becomes.

    The words are those of Alertmanager's API v2,
    https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml.

    :param startsAt: now, unless given; a silence does not begin in the past.
    """

    matchers: Annotated[list[SilenceMatcher], msgspec.Meta(max_length=MOST_MATCHERS)]
    startsAt: _At | None = None  # noqa: N815 (Alertmanager's)
    endsAt: _At  # noqa: N815
    createdBy: str  # noqa: N815
    comment: str
    id: str | None = None


class SilenceStatus(msgspec.Struct, frozen=True):
    """Whether it silences now."""

    state: Literal["pending", "active", "expired"]


class KnownSilence(SilenceBody, frozen=True, kw_only=True):
    """A silence as the hub has it."""

    id: str
    startsAt: _At  # noqa: N815
    updatedAt: _At  # noqa: N815
    status: SilenceStatus


class _Kept(SilenceBody, frozen=True, kw_only=True):
    id: str
    startsAt: _At  # noqa: N815
    updatedAt: _At  # noqa: N815


class SilenceAnswer(msgspec.Struct, frozen=True, rename={"silence_id": "silenceID"}):
    """Answer to ``POST /api/v1/silences``."""

    silence_id: str


def log(transaction: Transaction, entries: list[LogEntry]) -> None:
    """Write entries of the log, and into the ledger of each alert that the hub knows what they say of it."""
    connection = transaction.connection
    known = _known(connection, list({alert_id for entry in entries for alert_id in entry.alerts}))
    rows: dict[str, dict[str, Any]] = {}
    ledger: dict[tuple[str, str, str], dict[str, Any]] = {}
    shown = []
    for entry in entries:
        row = msgspec.structs.asdict(entry)
        key = row["key"] = fingerprint(*(row[name] for name in ("group", "receiver", "channel", "target")))
        row["alerts"] = msgspec.json.encode(entry.alerts).decode()
        row["open"] = any(one.status != "resolved" for one in entry.alerts.values())
        rows[key] = row
        for alert_id, one in entry.alerts.items():
            if one.status == "sending" or alert_id not in known:
                continue
            state = {"alert_id": alert_id, "status": one.status, "at": one.at}
            place = {"channel": entry.channel, "target": entry.target}
            ledger[alert_id, entry.channel, entry.target] = state | place | {"reference": entry.reference}
            shown.append(state | {"key": key, "sent_at": entry.at})
    for table, written in ((db.notification_log, rows), (db.notifications, ledger)):
        if written:
            db.upsert(connection, table, list(written.values()))
    db.insert_new(connection, db.shown, shown)


def _known(connection: Connection, ids: list[str]) -> set[str]:
    table = db.alerts.c
    found: set[str] = set()
    for start in range(0, len(ids), _CHUNK):
        found |= set(connection.scalars(select(table.id).where(table.id.in_(ids[start : start + _CHUNK]))))
    return found


def entries(
    connection: Connection, *, channel: str | None, known_by: str | None, is_open: bool | None, after: str, limit: int
) -> list[tuple[str, LogEntry]]:
    """Entries of the log, each with its key, by which they are sorted.

    :param after: key of the entry behind which the page starts.
    """
    table = db.notification_log.c
    query = select(db.notification_log).where(table.key > after).order_by(table.key).limit(limit)
    for column, wanted in ((table.channel, channel), (table.id, known_by), (table.open, is_open)):
        if wanted is not None:
            query = query.where(column == wanted)
    return [(row.key, _entry(row)) for row in connection.execute(query)]


def _entry(row: Row[Any]) -> LogEntry:
    fields = {name: getattr(row, name) for name in LogEntry.__struct_fields__}
    return LogEntry(**fields | {"alerts": msgspec.json.decode(row.alerts, type=dict[str, Shown])})


def showings(connection: Connection, alert_id: str) -> list[Showing]:
    """To whom an alert was shown, what was sent last first."""
    table = db.shown.c
    columns = (table.status.label("shown_status"), table.at.label("shown_at"), table.sent_at)
    query = select(db.notification_log, *columns).join(db.shown, table.key == db.notification_log.c.key)
    rows = connection.execute(query.where(table.alert_id == alert_id).order_by(table.sent_at.desc(), table.at.desc()))
    return [Showing(_entry(row), row.shown_status, row.shown_at, row.sent_at) for row in rows]


def put_silence(transaction: Transaction, body: SilenceBody) -> str:
    """Set a silence: its id.

    A silence that has begun and is to have other matchers is ended, and a new one begins, so that it stays known what
    was silent.

    :raises Problem: it says nothing that can be done, or names one that has ended or never was.
    """
    now = from_ms(transaction.now)
    body = msgspec.structs.replace(body, startsAt=max(body.startsAt or now, now))
    _check(body, matchers_of(body), now)
    old = None if body.id is None else _silence(transaction, body.id)
    if old and old.status.state == "expired":
        raise Problem(409, f"the silence {old.id!r} has ended: make a new one", pointer="/id")
    if old and old.status.state == "active":
        if old.matchers == body.matchers:
            body = msgspec.structs.replace(body, startsAt=old.startsAt)
        else:
            expire_silence(transaction, old.id)
            old = None
    silence_id = old.id if old else secrets.token_hex(8)
    _put(transaction, msgspec.structs.replace(body, id=silence_id))
    return silence_id


def matchers_of(body: SilenceBody) -> list[Matcher]:
    """What a silence says, in the routes' words.

    :raises Problem: one is a bad regular expression.
    """
    matchers = []
    for place, matcher in enumerate(body.matchers):
        try:
            matchers.append(matcher.record())
        except ValueError as error:
            raise Problem(400, str(error), pointer=f"/matchers/{place}/value") from None
    return matchers


def _check(body: SilenceBody, matchers: list[Matcher], now: datetime) -> None:
    for field in ("createdBy", "comment"):
        if not getattr(body, field).strip():
            raise Problem(400, "it says who wants the silence, and why", pointer=f"/{field}")
    if body.endsAt <= now:
        raise Problem(400, "a silence ends in the future", pointer="/endsAt")
    starts_at, ends_at = to_ms(body.startsAt or now), to_ms(body.endsAt)
    if ends_at <= starts_at:
        raise Problem(400, "a silence ends after it starts", pointer="/endsAt")
    try:
        Silence(tuple(matchers), starts_at, ends_at, body.createdBy, body.comment)
    except ValueError as error:
        raise Problem(400, str(error), pointer="/matchers") from None


def _put(transaction: Transaction, body: SilenceBody) -> None:
    kept = {name: getattr(body, name) for name in SilenceBody.__struct_fields__}
    text = msgspec.json.encode(kept | {"updatedAt": from_ms(transaction.now)}).decode()
    row = {"id": body.id, "ends_at": to_ms(body.endsAt), "silence": text}
    db.upsert(transaction.connection, db.silences, [row])


def _silence(transaction: Transaction, silence_id: str) -> KnownSilence:
    text = transaction.connection.scalar(select(db.silences.c.silence).where(db.silences.c.id == silence_id))
    if text is None:
        raise Problem(404, f"there is no silence {silence_id!r}")
    return _decoded(text, transaction.now)


def _decoded(text: str, now: int) -> KnownSilence:
    body, at = msgspec.json.decode(text, type=_Kept), from_ms(now)
    state: Literal["pending", "active", "expired"] = (
        "expired" if body.endsAt <= at else "pending" if body.startsAt > at else "active"
    )
    return KnownSilence(**msgspec.structs.asdict(body), status=SilenceStatus(state))


def expire_silence(transaction: Transaction, silence_id: str) -> None:
    """End a silence now; one that has ended stays as it is.

    :raises Problem: 404.
    """
    silence = _silence(transaction, silence_id)
    if silence.status.state != "expired":
        now = from_ms(transaction.now)
        _put(transaction, msgspec.structs.replace(silence, startsAt=min(silence.startsAt, now), endsAt=now))


def silences(connection: Connection, now: int) -> list[KnownSilence]:
    """All that have not ended, and those that have lately, the one that ends last first."""
    table = db.silences.c
    query = select(table.silence).where(table.ends_at > now - KEPT_MS).order_by(table.ends_at.desc(), table.id)
    return [_decoded(text, now) for text in connection.scalars(query)]


def prune(transaction: Transaction, kept_ms: int) -> bool:
    """Forget what was over so long ago, a part of it: whether there is more.

    What is open stays, and so does to whom an alert was shown until it has been resolved for so long.
    """
    before = transaction.now - kept_ms
    entry, state, alert, silence = (t.c for t in (db.notification_log, db.shown, db.alerts, db.silences))
    row = (state.alert_id, state.key, state.at, state.status)
    ended = (alert.status == "resolved") & (alert.updated_at < before)
    shown = select(*row).join_from(db.shown, db.alerts).where((state.sent_at < before) & ended)
    unused = ~exists().where(state.key == entry.key)
    closed = select(entry.key).where(entry.open.is_not(True) & (entry.at < before) & unused)
    gone = [
        transaction.connection.execute(delete(table).where(key.in_(over.limit(_CHUNK)))).rowcount
        for table, key, over in (
            (db.shown, tuple_(*row), shown),
            (db.notification_log, entry.key, closed),
            (db.silences, silence.id, select(silence.id).where(silence.ends_at < before)),
        )
    ]
    return max(gone) == _CHUNK


router = APIRouter(prefix="/api/v1")
_reader = [Depends(require("read"))]
_alerts = [Depends(require("alerts"))]
_admin = [Depends(require("admin"))]


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
    store: Store = request.app.state.store

    def find(connection: Connection) -> bytes:
        found = entries(connection, channel=channel, known_by=known_by, is_open=is_open, after=after, limit=limit + 1)
        following = cursor_of(found[limit - 1][0]) if len(found) > limit else None
        return msgspec.json.encode(LogPage([entry for _, entry in found[:limit]], following))

    return Response(await from_store(request, lambda: store.reading(find)), media_type="application/json")


@router.put("/notification-log", dependencies=_alerts, **docs(body=LogEntries, status=204))
async def put_notifications(request: Request) -> Response:
    """Write down what was sent, or is about to be; also into the ledger of each alert."""

    def work(transaction: Transaction, body: LogEntries) -> tuple[int, None]:
        log(transaction, body.entries)
        return 204, None

    return await change(request, LogEntries, work)


@router.get("/silences", dependencies=_reader, **docs(list[KnownSilence]))
async def list_silences(request: Request) -> Response:
    """The silences, the one that ends last first; expired ones for five days."""
    store: Store = request.app.state.store
    found = await from_store(request, lambda: store.reading(lambda connection: silences(connection, store.now())))
    return Response(msgspec.json.encode(found), media_type="application/json")


@router.post("/silences", dependencies=_alerts, **docs(SilenceAnswer, SilenceBody))
async def post_silence(request: Request) -> Response:
    """Silence the alerts that fit all matchers, or change a silence that has not ended."""
    return await change(
        request, SilenceBody, lambda t, body: (200, SilenceAnswer(put_silence(t, body))), check=matchers_of
    )


@router.delete("/silences/{silence_id}", dependencies=_alerts, **docs(status=204))
async def delete_silence(request: Request, silence_id: str) -> Response:
    """End a silence now."""

    def work(transaction: Transaction, _document: bytes) -> tuple[int, None]:
        expire_silence(transaction, silence_id)
        return 204, None

    return await to_store(request, b"", work)


@router.get("/routes", dependencies=_reader, **docs(YAML))
async def get_routes(request: Request) -> Response:
    """The hub's own routing file, as it was put."""
    store: Store = request.app.state.store
    text = await from_store(request, lambda: store.reading(lambda one: one.scalar(select(db.routes.c.text))))
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
            db.upsert(transaction.connection, db.routes, [row])
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
