"""Silences: alerts that fit all matchers of one send no notifications while it is active."""

from __future__ import annotations

import secrets
from datetime import datetime
from typing import Annotated, Literal

import msgspec
from sqlalchemy import Connection, select

from airflow_provider_airis.hub.problems import Problem
from airflow_provider_airis.hub.store import sql
from airflow_provider_airis.hub.store import tables as db
from airflow_provider_airis.hub.store.writer import Transaction
from airflow_provider_airis.records import from_ms, to_ms
from airflow_provider_airis.routes import Matcher, Silence
from airflow_provider_airis.routes.matching import MOST_MATCHERS, Operator

KEPT_MS = 5 * 86_400_000
_At = Annotated[datetime, msgspec.Meta(tz=True)]


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


def put(transaction: Transaction, body: SilenceBody) -> str:
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
            expire(transaction, old.id)
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
    sql.upsert(transaction.connection, db.silences, [row])


def _silence(transaction: Transaction, silence_id: str) -> KnownSilence:
    text = transaction.connection.scalar(
        select(db.silences.c.silence).where(db.silences.c.id == silence_id).with_for_update()
    )
    if text is None:
        raise Problem(404, f"there is no silence {silence_id!r}")
    return _decoded(text, transaction.now)


def _decoded(text: str, now: int) -> KnownSilence:
    body, at = msgspec.json.decode(text, type=_Kept), from_ms(now)
    state: Literal["pending", "active", "expired"] = (
        "expired" if body.endsAt <= at else "pending" if body.startsAt > at else "active"
    )
    return KnownSilence(**msgspec.structs.asdict(body), status=SilenceStatus(state))


def expire(transaction: Transaction, silence_id: str) -> None:
    """End a silence now; one that has ended stays as it is.

    :raises Problem: 404.
    """
    silence = _silence(transaction, silence_id)
    if silence.status.state != "expired":
        now = from_ms(transaction.now)
        _put(transaction, msgspec.structs.replace(silence, startsAt=min(silence.startsAt, now), endsAt=now))


def read(connection: Connection, now: int) -> list[KnownSilence]:
    """All that have not ended, and those that have lately, the one that ends last first."""
    table = db.silences.c
    query = select(table.silence).where(table.ends_at > now - KEPT_MS).order_by(table.ends_at.desc(), table.id)
    return [_decoded(text, now) for text in connection.scalars(query)]
