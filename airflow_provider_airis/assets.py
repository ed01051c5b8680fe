"""The hub's alerts, and the data that has come into it, as assets, which Dags are scheduled by.

See https://airflow.apache.org/docs/apache-airflow/stable/authoring-and-scheduling/event-scheduling.html
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import SplitResult

import msgspec
from airflow.sdk import Asset, AssetWatcher

if TYPE_CHECKING:
    from airflow_provider_airis.records import ChangeType

_NAME = re.compile(r"[A-Za-z0-9._-]+")


def alerts(
    name: str,
    matchers: str | Sequence[str] = (),
    *,
    changes: Sequence[ChangeType] = ("fired",),
    airis_conn_id: str | None = None,
    consumer: str | None = None,
    catchup: bool = False,
) -> Asset:
    """The asset ``airis://alerts/<name>``, which has an event for each change of an alert that fits.

    The event's payload is ``{sequence, change, at, alert: {…}, url}``: an
    :class:`~airflow_provider_airis.records.AlertChange` and the page of the alert. Each is told at least once, see
    :class:`~airflow_provider_airis.triggers.alerts.AirisAlertTrigger`.

    Dags that share an asset import it from one place: two of one name with different matchers would take each other's
    alerts.

    :param name: letters, digits, dot, hyphen and underscore.
    :param matchers: Alertmanager's, ``severity=~"critical|high"``: all of them fit the alert as the change left it.
        Without any, every alert does.
    :param changes: of these kinds: ``fired``, ``severity_changed``, ``acknowledged``, ``resolved``.
    :param airis_conn_id: connection of the hub that has the alerts, ``[airis] alerts_conn_id`` unless given.
    :param consumer: whose place in the feed; ``<connection's consumer>-alerts:<name>`` if None.
    :param catchup: whether it begins with the first change that the hub has, when it is watched for the first time;
        else with the next.
    :raises ValueError: names the parameter that is wrong.
    """
    from airflow_provider_airis.settings import alerts_conn_id
    from airflow_provider_airis.triggers.alerts import AirisAlertTrigger

    if not _NAME.fullmatch(name):
        raise ValueError(f"name: {name!r} has something else in it than letters, digits, dot, hyphen and underscore")
    trigger = AirisAlertTrigger(
        airis_conn_id or alerts_conn_id(), consumer, None if consumer else f"alerts:{name}", matchers, changes, catchup
    )
    watcher = AssetWatcher(name=f"airis-alerts-{name}", trigger=trigger)
    return Asset(name=f"airis-alerts-{name}", uri=f"airis://alerts/{name}", group="airis", watchers=[watcher])


def synced(system: str, dag: Literal["sync", "reconcile"] = "sync") -> Asset:
    """The asset ``airis://sync/<system>``, which has an event whenever a task has brought a window into the hub.

    The event's extra is the task's summary ``{window, points, rejected, …}``, and which part of the system it has read,
    ``{part: {region_name: "eu-west-1", …}}``. A task that fails, or a part of which does, has no event. A run may lack
    some of the events that came while it was being created (see https://github.com/apache/airflow/issues/56050): take
    them as a wake-up, and ask the hub for what is there.

    :param system: stem of a source, ``sagemaker``.
    :param dag: ``sync``, or ``reconcile`` for the whole days.
    """
    return Asset(name=f"airis-{dag}-{system}", uri=f"airis://{dag}/{system}", group="airis")


def told(triggering_asset_events: Mapping[Any, Iterable[Any]]) -> list[dict[str, Any]]:
    """The alerts that a run was started for, each once as it was last, in the order in which they were first told.

    :param triggering_asset_events: of the run's context, under this name.
    """
    found: dict[str, dict[str, Any]] = {}
    payloads = [event.extra.get("payload") for events in triggering_asset_events.values() for event in events]
    of_alerts = [payload for payload in payloads if isinstance(payload, dict) and "alert" in payload]
    for payload in sorted(of_alerts, key=lambda payload: int(payload["sequence"])):
        found[payload["alert"]["id"]] = payload["alert"]
    return [*found.values()]


def firing(asset: Asset) -> list[dict[str, Any]]:
    """The alerts that fit an asset of :func:`alerts` and are firing now, oldest first.

    A run may lack some of the events that came while it was being created (see
    https://github.com/apache/airflow/issues/56050): they wait for the next one. A Dag that asks for what is firing, and
    acknowledges what it has done, misses nothing and does nothing twice.
    """
    from airflow_provider_airis.hooks.airis import AirisHook
    from airflow_provider_airis.routes.matching import labels, match_all
    from airflow_provider_airis.triggers.alerts import AirisAlertTrigger, parsed

    (trigger,) = (watcher.trigger for watcher in asset.watchers)
    assert isinstance(trigger, AirisAlertTrigger)
    matchers = parsed(trigger.matchers or ())
    with AirisHook(trigger.airis_conn_id) as hub:
        found = [alert for alert in hub.alerts(status="firing") if match_all(matchers, labels(alert))]
    return [msgspec.to_builtins(alert) for alert in reversed(found)]


def sanitize_uri(uri: SplitResult) -> SplitResult:
    """Accept ``airis://alerts/<name>``, ``airis://sync/<system>`` and ``airis://reconcile/<system>``.

    :raises ValueError: it is something else.
    """
    kind = uri.netloc.lower()
    if kind not in ("alerts", "sync", "reconcile") or not _NAME.fullmatch(uri.path.strip("/")) or uri.query:
        raise ValueError(
            f"{uri.geturl()!r} is no asset of AIRIS-MON; one looks like airis://alerts/<name> or airis://sync/<system>"
        )
    return uri._replace(netloc=kind, path=f"/{uri.path.strip('/')}")
