"""What the hub is asked to do when somebody has acted on an alert in another system."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from airflow_provider_airis.errors import PermanentError
from airflow_provider_airis.receive.base import Action
from airflow_provider_airis.receive.silences import TooWideError, narrow
from airflow_provider_airis.records import Event, from_ms

if TYPE_CHECKING:
    from airflow_provider_airis.catalog import System
    from airflow_provider_airis.hooks.airis import AirisHook
    from airflow_provider_airis.records import Alert, LogEntry
    from airflow_provider_airis.routes.matching import Matcher

SILENCE_MS = 3_600_000
# How far the system's clock and the hub's may be apart.
CLOCKS_MS = 60_000
NAME_CHARS = 200
THREADS = 8


class UnknownAlertError(Exception):
    """The hub knows no alert by this id."""


def perform(hub: AirisHook, action: Action, system: System) -> str:
    """Do at the hub what an action asks for. Done again, it changes nothing.

    :return: what the person is told where the alert itself does not show it.
    :raises UnknownAlertError: there is no such alert.
    :raises AirisError: the hub does not take it.
    """
    by = person(hub, action)
    try:
        if action.kind == "silence":
            return _silence(hub, action, by, system)
        if action.kind == "assign":
            _assign(hub, action, by, system)
        else:
            _change(hub, action, by, system)
    except PermanentError as error:
        if error.status == 404:
            raise UnknownAlertError(action.id) from error
        raise
    return ""


def person(hub: AirisHook, action: Action) -> str:
    """Who it was: the directory's user with the same e-mail, else as the system names them."""
    known = hub.users(email=action.email, active=True) if action.email else iter(())
    user = next(known, None)
    if user is None:
        return " ".join(action.by.split())[:NAME_CHARS]
    shown = user.get("display_name")
    return f"{shown} ({user['username']})"[:NAME_CHARS] if shown else str(user["username"])


def _change(hub: AirisHook, action: Action, by: str, system: System) -> None:
    change = hub.acknowledge if action.kind == "acknowledge" else hub.resolve
    comment = f"in {system.title}"
    if not action.id.startswith("group-"):
        change(action.id, by, comment)
        return
    meant = _meant(hub, action, _entries(hub, action))
    with ThreadPoolExecutor(THREADS) as pool:
        for done in [pool.submit(change, one.id, by, comment) for one in meant]:
            done.result()


def _meant(hub: AirisHook, action: Action, entries: Iterable[LogEntry]) -> list[Alert]:
    """The open alerts of a group. Whoever acted cannot have meant what fired afterwards."""
    members = {alert_id for entry in entries for alert_id in entry.alerts}
    return [
        alert
        for alert in hub.alerts(status=("firing", "acknowledged"))
        if alert.id in members and alert.timestamp <= action.at + CLOCKS_MS
    ]


def _silence(hub: AirisHook, action: Action, by: str, system: System) -> str:
    ends_at = action.at + SILENCE_MS
    key = f"{system.stem}-{action.id}-{action.at}"
    try:
        matchers = _matchers(hub, action)
    except TooWideError as error:
        return str(error)
    hub.silence(matchers, ends_at, by, f"in {system.title}", key=key)
    return f"Silenced until {from_ms(ends_at):%H:%M} UTC."


def _matchers(hub: AirisHook, action: Action) -> list[Matcher]:
    if not action.id.startswith("group-"):
        return narrow("", [hub.alert(action.id)])
    entries = _entries(hub, action)
    if meant := _meant(hub, action, entries):
        return narrow(entries[0].group, meant)
    raise TooWideError("Nothing is silenced: none of this message's alerts is open any more.")


def _assign(hub: AirisHook, action: Action, by: str, system: System) -> None:
    data = {"alert_id": action.id, "by": by, "to": action.to}
    if not action.id.startswith("group-"):
        data["alert"] = hub.alert(action.id).name
    key = f"{system.stem}-assigned-{action.id}-{action.at}"
    hub.event(Event("alert_assigned", system.stem, "info", action.at, data, key))


def _entries(hub: AirisHook, action: Action) -> list[LogEntry]:
    entries = hub.entries(action.id)
    if not entries:
        raise UnknownAlertError(action.id)
    return entries
