"""Alerts: pages, one, the change feed, transitions, the delivery ledger."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from airflow_provider_airis.hub.alerting import alerts, foreign, reads
from airflow_provider_airis.hub.alerting.alerts import Acknowledgement, Delivery, ManualAlert
from airflow_provider_airis.hub.alerting.reads import AlertDetail
from airflow_provider_airis.hub.api.feeds import After, By, Limit, Wait, start_of
from airflow_provider_airis.hub.auth import require
from airflow_provider_airis.hub.problems import Problem
from airflow_provider_airis.hub.requests import answer, change, cursor_of, from_store, place_behind
from airflow_provider_airis.hub.store.writer import Transaction
from airflow_provider_airis.hub.wire import AlertChanges, AlertsPage, docs
from airflow_provider_airis.records import Alert, AlertChange, AlertSeverity, AlertStatus, Notification

router = APIRouter(prefix="/api/v1")
_reader = [Depends(require("read"))]
_alerts = [Depends(require("alerts"))]


@router.get("/alerts", dependencies=_reader, **docs(AlertsPage))
async def list_alerts(
    request: Request,
    status: Annotated[list[AlertStatus], Query()] = [],  # noqa: B006
    severity: Annotated[list[AlertSeverity], Query()] = [],  # noqa: B006
    model_id: str | None = None,
    fingerprint: str | None = None,
    cursor: str | None = None,
    limit: Limit = 100,
) -> Response:
    """Alerts, newest first."""
    before = place_behind(cursor, tuple[int, str])
    found = await from_store(
        request,
        reads.page,
        request.app.state.store.now(),
        status=status,
        severity=severity,
        model_id=model_id,
        fingerprint=fingerprint,
        before=before,
        limit=limit + 1,
    )
    page = found[:limit]
    return answer(AlertsPage(page, cursor_of(page[-1].timestamp, page[-1].id) if len(found) > limit else None))


@router.get("/alerts/changes", dependencies=_reader, **docs(AlertChanges))
async def alert_changes(
    request: Request, after: After = None, consumer: By = None, limit: Limit = 500, wait: Wait = 0
) -> Response:
    """The change feed: every transition once, in order."""
    start = await start_of(request, alerts.FEED, after, consumer)

    async def page(behind: int) -> Sequence[AlertChange]:
        return await from_store(request, reads.changes, behind, limit)

    changes = await request.app.state.feeds.read(alerts.FEED, start, wait, page)
    return answer(AlertChanges(list(changes), changes[-1].sequence if changes else start))


@router.get("/alerts/{alert_id}", dependencies=_reader, **docs(AlertDetail))
async def get_alert(request: Request, alert_id: str) -> Response:
    """One alert with its ledger, history, rule and series."""
    found = await from_store(request, reads.detail, alert_id, request.app.state.store.now())
    if found is None:
        raise Problem(404, f"there is no alert {alert_id!r}")
    return answer(found)


@router.post("/alerts", dependencies=_alerts, **docs(Alert, ManualAlert, status=201))
async def post_alert(request: Request) -> Response:
    """Raise an alert: 201, or 200 with the one that is open under the same fingerprint.

    With ``origin`` it is another system's: 201 for a new episode, 200 with the newest one for all that is said of it.
    """

    def work(transaction: Transaction, body: ManualAlert) -> tuple[int, Alert]:
        new, alert = (foreign if body.origin else alerts).post(transaction, body)
        return (201 if new else 200), alert

    return await change(request, ManualAlert, work)


@router.post("/alerts/{alert_id}/acknowledge", dependencies=_alerts, **docs(Alert, Acknowledgement))
async def acknowledge_alert(request: Request, alert_id: str) -> Response:
    """Somebody looks after it. Changes firing alerts only."""
    return await change(request, Acknowledgement, lambda t, body: (200, alerts.acknowledge(t, alert_id, body)))


@router.post("/alerts/{alert_id}/resolve", dependencies=_alerts, **docs(Alert, Acknowledgement))
async def resolve_alert(request: Request, alert_id: str) -> Response:
    """It is over. Changes open alerts only; a rule whose condition still holds fires anew."""
    return await change(request, Acknowledgement, lambda t, body: (200, alerts.resolve(t, alert_id, body)))


@router.put(
    "/alerts/{alert_id}/notifications/{channel}/{target:path}",
    dependencies=_alerts,
    **docs(Notification, Delivery),
)
async def put_notification(request: Request, alert_id: str, channel: str, target: str) -> Response:
    """Write the delivery ledger."""
    return await change(request, Delivery, lambda t, body: (200, alerts.deliver(t, alert_id, channel, target, body)))
