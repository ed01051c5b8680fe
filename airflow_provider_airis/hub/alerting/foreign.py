"""Alerts that another system evaluates. What it says comes late, twice and out of order; each episode is one alert."""

from __future__ import annotations

from msgspec.structs import replace
from sqlalchemy import select, update

from airflow_provider_airis.hub.alerting import alerts
from airflow_provider_airis.hub.alerting.alerts import Acknowledgement, ManualAlert, Origin
from airflow_provider_airis.hub.ingest import MAX_AHEAD_MS
from airflow_provider_airis.hub.problems import Problem
from airflow_provider_airis.hub.store import feeds, sql
from airflow_provider_airis.hub.store import tables as db
from airflow_provider_airis.hub.store.writer import Transaction
from airflow_provider_airis.records import Alert


def post(transaction: Transaction, body: ManualAlert) -> tuple[bool, Alert]:
    """What a system says of an alert of its own: the newest episode's alert as it is then, and whether it is new.

    Nothing changes by what is older than what is known: an earlier episode, an earlier ``updated_at``, or an episode
    that is over. A new episode ends the one before. What somebody has resolved here stays so until the next episode.

    :raises Problem: 400, it contradicts itself.
    """
    origin = body.origin
    assert origin is not None
    _check(body, origin, transaction.now)
    body = replace(body, source=body.source or origin.system)
    feeds.hold(transaction, feeds.ALERTS)
    connection, table = transaction.connection, db.origins.c
    first = {"system": origin.system, "fingerprint": origin.fingerprint, "starts_at": -1, "ended": True}
    sql.insert_missing(connection, db.origins, first)
    this = (table.system == origin.system) & (table.fingerprint == origin.fingerprint)
    # Locked, so that of two processes of the hub one waits until the other has committed.
    known = connection.execute(select(db.origins).where(this).with_for_update()).one()
    held = None if known.alert_id is None else alerts.get(connection, known.alert_id, transaction.now)
    if held is not None and _is_older(origin, known):
        return False, held
    new = held is None or origin.starts_at > known.starts_at
    if new or held is None:
        if held is not None and held.status != "resolved":
            alerts.resolve(transaction, held.id, Acknowledgement(by=origin.system, comment="it fires anew"))
        mark = alerts.fingerprint(origin.system, origin.fingerprint)
        held = alerts.fire(transaction, mark, timestamp=origin.starts_at, **alerts.content(body))
    elif held.status != "resolved" and body.ends_at is None:
        held = alerts.describe(transaction, held, body)
    if body.ends_at is not None:
        held = alerts.resolve(transaction, held.id, Acknowledgement(by=origin.system))
    said = {"starts_at": origin.starts_at, "updated_at": origin.updated_at, "ended": body.ends_at is not None}
    connection.execute(update(db.origins).where(this).values(**said, alert_id=held.id))
    return new, held


def _is_older(origin: Origin, known: object) -> bool:
    starts_at, updated_at, ended = (getattr(known, name) for name in ("starts_at", "updated_at", "ended"))
    if origin.starts_at != starts_at:
        return bool(origin.starts_at < starts_at)
    if ended:
        return True
    return None not in (origin.updated_at, updated_at) and origin.updated_at < updated_at


def _check(body: ManualAlert, origin: Origin, now: int) -> None:
    if body.fingerprint is not None:
        raise Problem(400, "an alert with origin is told by that", pointer="/fingerprint")
    if origin.starts_at > now + MAX_AHEAD_MS:
        raise Problem(400, f"{origin.starts_at} is ahead of the hub's clock, {now}", pointer="/origin/starts_at")
    if body.ends_at is not None and body.ends_at < origin.starts_at:
        raise Problem(400, "it ends before it starts", pointer="/ends_at")
