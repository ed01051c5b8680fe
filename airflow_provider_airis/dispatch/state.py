"""What is open at the hub now, and what of it was shown to whom."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from airflow_provider_airis.dispatch import limits
from airflow_provider_airis.errors import PermanentError
from airflow_provider_airis.records import Alert, LogEntry, Notification, Shown
from airflow_provider_airis.routes import LogKey, Routes, Silence, labels
from airflow_provider_airis.routes.groups import FAILED, RESOLVED, SENDING
from airflow_provider_airis.routes.matching import quoted

if TYPE_CHECKING:
    from airflow_provider_airis.hooks.airis import AirisHook

ABSENT = (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED)


@dataclass
class State:
    """What a run begins with.

    :param keeps_log: whether the hub has a notification log; what was shown is otherwise known from the alerts' ledger.
    :param sequence: up to which the feed is read, and ``committed``: what was committed before.
    :param wake_at: when the run before wanted the next one to be woken, Unix ms by the hub's clock.
    """

    keeps_log: bool = True
    entries: dict[LogKey, LogEntry] = field(default_factory=dict)
    alerts: dict[str, Alert] = field(default_factory=dict)
    committed: int = 0
    sequence: int = 0
    wake_at: int | None = None


class Read(NamedTuple):
    """What one look at the feed has brought; ``state`` if it was the first that did."""

    state: State | None
    alerts: list[Alert]
    sequence: int
    silences: list[Silence]


class Reader:
    """Reads the feed for one run, from a thread."""

    def __init__(self, hub: AirisHook, routes: Routes, system: str) -> None:
        self.hub = hub
        self.routes = routes
        self.system = system

    def look(self, after: int | None, seconds: float) -> Read:
        """The next changes; at first all that there is.

        :param after: sequence; None until then.
        """
        if after is None:
            state = self._load()
            return Read(state, [], state.sequence, self._silences())
        changes, sequence = self.hub.changes(after=after, limit=limits.PAGE, wait=seconds)
        return Read(None, [change.alert for change in changes], sequence, self._silences())

    def _load(self) -> State:
        """The state, with the feed read to its end, so that nothing is sent that is past."""
        state = State()
        try:
            for entry in self.hub.notification_log(self.system):
                state.entries[LogKey(entry.group, entry.receiver, entry.channel, entry.target)] = entry
        except PermanentError as error:
            if error.status not in ABSENT:
                raise
            self._check_groups(error)
            state.keeps_log = False
        offset = self.hub.place()
        state.committed = state.sequence = offset.sequence
        state.wake_at = offset.wake_at
        if not state.committed:
            state.entries = {key: _again(entry) for key, entry in state.entries.items()}
        told: dict[str, set[str]] = {}
        for key, entry in state.entries.items():
            for alert_id in entry.alerts:
                told.setdefault(alert_id, set()).add(key.target)
        for alert in self._everything(state):
            known = state.alerts.get(alert.id)
            if known is None or known.updated_at <= alert.updated_at:
                self._take(state, told, alert)
        self._find_ended(state)
        return state

    def _find_ended(self, state: State) -> None:
        """Those that have ended before the committed place, and wait for their time to be told so."""
        shown = [pair for entry in state.entries.values() for pair in entry.alerts.items()]
        for alert_id in {alert_id for alert_id, last in shown if last.status != RESOLVED} - state.alerts.keys():
            try:
                state.alerts[alert_id] = self.hub.alert(alert_id)
            except PermanentError as error:
                if error.status != HTTPStatus.NOT_FOUND:
                    raise
                self.hub.log.info("The hub knows alert %s no more", alert_id)

    def _everything(self, state: State) -> Iterator[Alert]:
        """What is open, and then all that has changed since the committed place, as the last change left it."""
        yield from self.hub.alerts(status="firing", limit=5_000)
        yield from self.hub.alerts(status="acknowledged", limit=5_000)
        last: dict[str, Alert] = {}
        while True:
            try:
                changes, state.sequence = self.hub.changes(after=state.sequence, limit=limits.PAGE)
            except PermanentError as error:
                if error.status != HTTPStatus.CONFLICT or not state.sequence:
                    raise
                self.hub.log.warning("The hub was restored from a backup; its feed is read anew. %s", error)
                state.sequence = 0
                continue
            if not changes:
                break
            last |= {change.alert.id: change.alert for change in changes}
        yield from last.values()

    def _take(self, state: State, told: dict[str, set[str]], alert: Alert) -> None:
        shown = [n for n in alert.notifications if n.channel == self.system]
        if alert.status == RESOLVED and alert.id not in told:
            state.alerts.pop(alert.id, None)
            if state.keeps_log and not shown:
                return
            alert = self.hub.alert(alert.id)  # the feed has the ledger as it was before this change
            shown = [n for n in alert.notifications if n.channel == self.system and n.status != RESOLVED]
            if not shown:
                return
        for notification in shown:
            if notification.target not in told.setdefault(alert.id, set()):
                self._adopt(state.entries, alert, notification)
                told[alert.id].add(notification.target)
        state.alerts[alert.id] = alert

    def _adopt(self, entries: dict[LogKey, LogEntry], alert: Alert, shown: Notification) -> None:
        """Into the log what only the alert itself says: an operator of its own has shown it, or an earlier version."""
        its = labels(alert)
        places = (
            (route.group_key(its), route.receiver.name)
            for route in self.routes.match(its)
            for place in route.receiver.integrations
            if (place.channel, place.target) == (self.system, shown.target)
        )
        alone = (f"{self.routes.route.key}:{{alert_id={quoted(alert.id)}}}", self.system)
        group, receiver = next(places, alone)
        key = LogKey(group, receiver, self.system, shown.target)
        entry = entries.get(key) or LogEntry(
            group=group,
            receiver=receiver,
            channel=self.system,
            target=shown.target,
            id=alert.id,
            reference=shown.reference,
            at=shown.at,
            alerts={},
        )
        entries[key] = replace(entry, alerts=entry.alerts | {alert.id: Shown(shown.status, shown.at)})

    def _check_groups(self, error: PermanentError) -> None:
        """Only what is told by itself is known from the alerts' ledger."""
        for _, route in self.routes.route.walk():
            if "alert_id" not in route.group_by and route.group_by != ("...",) and route.receiver.integrations:
                raise PermanentError(
                    f"The route at line {route.line} groups alerts, which needs a hub that keeps a notification log: "
                    f"group by alert_id, or give it another hub. {error}"
                ) from error

    def _silences(self) -> list[Silence]:
        try:
            return self.hub.silences()
        except PermanentError as error:
            if error.status not in ABSENT:
                raise
            return []


def _again(entry: LogEntry) -> LogEntry:
    """What was refused for good is tried again by whoever sets the place back."""
    alerts = {
        i: replace(shown, status=SENDING) if shown.status == FAILED else shown for i, shown in entry.alerts.items()
    }
    return replace(entry, alerts=alerts)
