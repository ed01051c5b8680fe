"""The users of directories: a sync is staged part by part, and comes into force as a whole."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    delete,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
    true,
    tuple_,
    update,
)

from airflow_provider_airis.hub.ingest import MAX_AHEAD_MS, MAX_TEXT
from airflow_provider_airis.hub.problems import Problem, explain
from airflow_provider_airis.hub.store import feeds, sql
from airflow_provider_airis.hub.store import tables as db
from airflow_provider_airis.hub.store.writer import Transaction
from airflow_provider_airis.records import IngestAnswer, Refusal, User

STAGED_MS = 86_400_000
_CHUNK = 500


class SyncedUser(User, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A user in a sync. One without an id is identified by the username."""

    id: str = ""
    sync_timestamp: int = 0


class UserSync(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a sync brings. Without ``sync_id`` it is the whole of it; otherwise its ``part``, from 1 up to the ``last``.

    :param deleted: usernames or ids, in a delta.
    :param max_deactivate: how many a full sync may deactivate, in each of its parts. Any number unless given, but then
        a sync that names nobody deactivates nobody.
    """

    users: list[Any]
    sync_type: Literal["full", "delta"]
    sync_id: str | None = None
    part: int = 1
    last: bool = True
    deleted: list[str] = []
    max_deactivate: Annotated[int, msgspec.Meta(ge=0, le=(1 << 53) - 1)] | None = None


class UserSyncBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of ``POST /api/v1/integrations/user-sync``."""

    event_type: Literal["user_sync"]
    source: str
    timestamp: int
    data: UserSync


class UserSyncAnswer(IngestAnswer, frozen=True, kw_only=True):
    """``duplicates`` are users that were the same already. What follows is counted once the sync is in force.

    :param applied: whether it is: all parts are there.
    """

    applied: bool
    created: int = 0
    updated: int = 0
    deactivated: int = 0


class KnownUser(SyncedUser, frozen=True, kw_only=True, omit_defaults=False):
    """A user as the hub has them.

    :param active: whether the directory still names them.
    :param updated_at: when anything of them changed last, Unix ms.
    """

    source: str
    active: bool
    updated_at: int


class UsersPage(msgspec.Struct):
    """Users by source and id; ``cursor`` asks for the next page, null on the last. ``total`` is of all pages."""

    users: list[KnownUser]
    cursor: str | None
    total: int


def sync(transaction: Transaction, body: UserSyncBody) -> UserSyncAnswer:
    """Stage a part of a sync, and put the sync into force if it was the one that was missing.

    :raises Problem: 400, the fields contradict each other; 409, the directory was read before what is in force; 422,
        it would deactivate too many. Then the directory stays as it was.
    """
    data = body.data
    _check(body, transaction.now)
    connection, sync_id = transaction.connection, data.sync_id or ""
    feeds.lock(transaction, f"users:{body.source}")
    _check_age(connection, body)
    if data.sync_id is None:
        _discard(connection, body.source, sync_id)
    refusals = _stage(connection, body, sync_id)
    part = {"source": body.source, "sync_id": sync_id, "part": data.part, "last": data.last}
    sql.upsert(connection, db.user_sync_parts, [{**part, "sync_type": data.sync_type, "at": transaction.now}])
    accepted = len(data.users) - len(refusals)
    if not _complete(connection, body.source, sync_id):
        return UserSyncAnswer(accepted=accepted, rejected=refusals, applied=False)
    full = data.sync_type == "full"
    counts = _apply(transaction, body.source, sync_id, full=full)
    if full:
        _check_deactivated(connection, body, sync_id, counts["deactivated"])
        sql.upsert(connection, db.user_syncs, [{"source": body.source, "timestamp": body.timestamp}])
    _discard(connection, body.source, sync_id)
    return UserSyncAnswer(accepted=accepted, rejected=refusals, applied=True, **counts)


def _check(body: UserSyncBody, now: int) -> None:
    if not 1 <= len(body.source) <= MAX_TEXT:
        raise Problem(400, f"it has 1 to {MAX_TEXT} characters", pointer="/source")
    if not 0 <= body.timestamp <= now + MAX_AHEAD_MS:
        # Nothing would ever be newer than it.
        detail = (
            f"{body.timestamp} is before 1970, or more than {MAX_AHEAD_MS // 60_000} minutes ahead of the hub's clock"
        )
        raise Problem(400, f"{detail}, {now}", pointer="/timestamp")
    if body.data.part < 1:
        raise Problem(400, "parts are counted from 1", pointer="/data/part")
    if body.data.deleted and body.data.sync_type == "full":
        detail = "a full sync deactivates whom it does not name: deleted is for a delta"
        raise Problem(400, detail, pointer="/data/deleted")


def _check_age(connection: Connection, body: UserSyncBody) -> None:
    table = db.user_syncs.c
    newest = connection.scalar(select(table.timestamp).where(table.source == body.source))
    if newest is not None and body.timestamp < newest:
        raise Problem(
            409,
            f"the directory {body.source!r} was read at {body.timestamp}, the full sync in force is of {newest}: "
            "a newer one is not undone by an older one. Read the directory again",
            pointer="/timestamp",
        )


def _check_deactivated(connection: Connection, body: UserSyncBody, sync_id: str, deactivated: int) -> None:
    most = body.data.max_deactivate
    if most is None:
        staged = db.synced_users.c
        mine = select(staged.id).where(staged.source == body.source, staged.sync_id == sync_id)
        if not deactivated or connection.execute(mine.limit(1)).first():
            return
        why = "the full sync names nobody. If they have really left, give max_deactivate"
    elif deactivated > most:
        why = f"more than max_deactivate={most:,}"
    else:
        return
    active = select(func.count()).select_from(db.users).where(db.users.c.source == body.source, db.users.c.active)
    known = (connection.scalar(active) or 0) + deactivated
    raise Problem(
        422,
        f"Refusing to deactivate: {deactivated:,} of {known:,} users of {body.source} are missing, {why}",
        pointer="/data/max_deactivate",
    )


def _stage(connection: Connection, body: UserSyncBody, sync_id: str) -> list[Refusal]:
    """Keep a part's users until the other parts are there: whom it refuses."""
    staged: dict[str, dict[str, Any]] = {}
    refusals: list[Refusal] = []
    row: dict[str, Any] = {"source": body.source, "sync_id": sync_id, "deleted": False, "email": None}
    for index, content in enumerate(body.data.users):
        try:
            user = _user(content)
        except Problem as problem:
            refusals.append(Refusal(index, f"/data/users/{index}{problem.errors[0].pointer}", problem.detail))
            # Who is named must not be deactivated for a field that is wrong.
            for name in _names(content):
                staged.setdefault(name, {**row, "id": name, "username": name, "user": None, "synced_at": 0})
            continue
        fields = msgspec.to_builtins(user)
        synced_at = fields.pop("sync_timestamp", body.timestamp)
        text = msgspec.json.encode(fields, order="sorted").decode()
        known = {"id": user.id, "username": user.username, "user": text, "synced_at": synced_at}
        staged[user.id] = {**row, **known, "email": _address(user.email)}
    for name in body.data.deleted:
        gone = {**row, "id": name, "username": name, "user": None, "synced_at": body.timestamp}
        staged[name] = {**gone, "deleted": True}
    if staged:
        sql.upsert(connection, db.synced_users, list(staged.values()))
    return refusals


def _user(content: Any) -> SyncedUser:
    try:
        user = msgspec.convert(content, SyncedUser)
    except msgspec.ValidationError as error:
        pointer, detail = explain(error)
        raise Problem(400, detail, pointer=pointer) from None
    user = msgspec.structs.replace(user, id=user.id or user.username)
    for field in ("username", "id"):
        if not 1 <= len(getattr(user, field)) <= MAX_TEXT:
            raise Problem(400, f"it has 1 to {MAX_TEXT} characters", pointer=f"/{field}")
    return user


def _address(email: str | None) -> str | None:
    """An address as it is looked up."""
    return email.lower() if email else None


def _names(content: Any) -> list[str]:
    named = [content.get(field) for field in ("id", "username")] if isinstance(content, dict) else []
    return [name for name in named if isinstance(name, str) and name]


def _complete(connection: Connection, source: str, sync_id: str) -> bool:
    table = db.user_sync_parts.c
    parts = connection.execute(
        select(table.part, table.last).where(table.source == source, table.sync_id == sync_id)
    ).all()
    last = [part for part, is_last in parts if is_last]
    return bool(last) and {part for part, _ in parts} >= set(range(1, max(last) + 1))


def _discard(connection: Connection, source: str, sync_id: str) -> None:
    for table in (db.synced_users, db.user_sync_parts):
        connection.execute(delete(table).where(table.c.source == source, table.c.sync_id == sync_id))


def _apply(transaction: Transaction, source: str, sync_id: str, *, full: bool) -> dict[str, int]:
    """Put a staged sync into force, in the database itself, however many users it has."""
    connection, now = transaction.connection, transaction.now
    users, staged = db.users.c, db.synced_users.c
    mine = and_(staged.source == source, staged.sync_id == sync_id)
    brought = and_(mine, staged.user.is_not(None))
    same = and_(users.source == source, users.id == staged.id)
    known = exists(select(users.id).where(same)).correlate(db.synced_users)
    unchanged = exists(select(users.id).where(same, users.user == staged.user, users.active)).correlate(db.synced_users)
    counts = {
        name: connection.scalar(select(func.count()).select_from(db.synced_users).where(brought, condition)) or 0
        for name, condition in (
            ("created", ~known),
            ("updated", and_(known, ~unchanged)),
            ("duplicates", unchanged),
        )
    }
    fresh = select(staged.user, staged.username, staged.synced_at, staged.email).where(mine, staged.id == users.id)
    changed = select(staged.id).where(brought, ~unchanged)
    connection.execute(
        update(db.users)
        .where(users.source == source, users.id.in_(changed))
        .values(
            user=fresh.with_only_columns(staged.user).scalar_subquery(),
            username=fresh.with_only_columns(staged.username).scalar_subquery(),
            email=fresh.with_only_columns(staged.email).scalar_subquery(),
            active=True,
            updated_at=now,
        )
    )
    values = {
        "source": staged.source,
        "id": staged.id,
        "username": staged.username,
        "active": true(),
        "user": staged.user,
        "synced_at": staged.synced_at,
        "updated_at": literal(now),
        "email": staged.email,
    }
    new = select(*values.values()).where(brought, ~known)
    connection.execute(insert(db.users).from_select(list(values), new))
    seen = fresh.with_only_columns(staged.synced_at).scalar_subquery()
    connection.execute(
        update(db.users)
        .where(users.source == source, users.id.in_(select(staged.id).where(brought)))
        .values(synced_at=seen)
    )
    named = select(staged.id).where(mine)
    if full:
        gone = and_(users.id.not_in(named), users.username.not_in(select(staged.id).where(mine, staged.user.is_(None))))
    else:
        deleted = named.where(staged.deleted)
        gone = or_(users.id.in_(deleted), users.username.in_(deleted))
    counts["deactivated"] = connection.execute(
        update(db.users).where(users.source == source, users.active, gone).values(active=False, updated_at=now)
    ).rowcount
    return counts


def expire(transaction: Transaction) -> None:
    """Drop the parts of syncs that were never completed."""
    table = db.user_sync_parts.c
    connection = transaction.connection
    stale = select(table.source, table.sync_id).group_by(table.source, table.sync_id)
    for source, sync_id in connection.execute(stale.having(func.max(table.at) < transaction.now - STAGED_MS)).all():
        _discard(connection, source, sync_id)


def read(
    connection: Connection,
    *,
    source: str | None,
    active: bool | None,
    email: str | None,
    behind: tuple[str, str] | None,
    limit: int,
) -> tuple[list[KnownUser], int]:
    """A page of users by source and id, and how many there are in all.

    :param email: the field of that name, in capitals or not.
    :param behind: source and id of the user behind whom the page starts.
    """
    table = db.users.c
    conditions: list[ColumnElement[bool]] = [true()]
    if source is not None:
        conditions.append(table.source == source)
    if active is not None:
        conditions.append(table.active == active)
    if email is not None:
        conditions.append(table.email == _address(email))
    total = connection.scalar(select(func.count()).select_from(db.users).where(*conditions)) or 0
    if behind is not None:
        conditions.append(tuple_(table.source, table.id) > tuple_(*map(literal, behind)))
    query = select(db.users).where(*conditions).order_by(table.source, table.id).limit(limit)
    return [
        msgspec.convert(
            msgspec.json.decode(row.user)
            | {
                "sync_timestamp": row.synced_at,
                "source": row.source,
                "active": row.active,
                "updated_at": row.updated_at,
            },
            KnownUser,
        )
        for row in connection.execute(query)
    ], total
