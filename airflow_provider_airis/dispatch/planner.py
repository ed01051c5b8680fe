"""What is known of the alerts and of what was sent of them, and when to ask the routes what is to be sent."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from time import monotonic

from msgspec.structs import replace

from airflow_provider_airis.dispatch import limits
from airflow_provider_airis.dispatch.lease import HubClock
from airflow_provider_airis.dispatch.state import State
from airflow_provider_airis.records import Alert, LogEntry
from airflow_provider_airis.routes import Flush, Group, LogKey, Routes, Sent, Silence, plan
from airflow_provider_airis.routes.groups import AHEAD_MS, RESOLVED


class Planner:
    """Plans for one system, by the hub's clock.

    :ivar entries: what the log says, by the group and its target.
    :ivar next: when something is due though nothing changes, Unix ms.
    """

    def __init__(self, routes: Routes, system: str, clock: HubClock) -> None:
        self.routes = routes
        self.system = system
        self.clock = clock
        self.alerts: dict[str, Alert] = {}
        self.entries: dict[LogKey, LogEntry] = {}
        self.next: int | None = None
        # By the monotonic clock: since when there is something to plan, and until when the last plan lasts.
        self._plan_at: float | None = None
        self._planned_until = 0.0
        self._steps = clock.steps

    @property
    def targets(self) -> set[str]:
        """Whom the routes name."""
        integrations = (one for receiver in self.routes.receivers.values() for one in receiver.integrations)
        return {one.target for one in integrations if one.channel == self.system}

    def begin(self, state: State) -> None:
        """Take over what a run begins with."""
        self.entries, self.alerts = state.entries, state.alerts

    def changed(self, alerts: Iterable[Alert] = ()) -> None:
        """There is something to plan."""
        self.alerts |= {alert.id: alert for alert in alerts}
        self._plan_at = self._plan_at or monotonic()

    @property
    def waits(self) -> bool:
        """Whether there is something to plan, if not yet."""
        return self._plan_at is not None

    def is_due(self, now: float) -> bool:
        """Whether to plan now."""
        stepped, self._steps = self.clock.steps != self._steps, self.clock.steps
        if stepped or (self.next is not None and self.next <= self.clock.now()):
            self.changed()
        return self._plan_at is not None and now >= max(self._plan_at, self._planned_until)

    def soon(self) -> bool:
        """Whether something is due before a task's start would be worth it."""
        return self.next is not None and self.next <= self.clock.now() + limits.STAY_S * 1000

    def times(self, now: float) -> list[float]:
        """When there is something to do though nothing changes, by the monotonic clock."""
        due = [] if self.next is None else [now + (self.next - self.clock.now()) / 1000]
        return due if self._plan_at is None else [*due, max(self._plan_at, self._planned_until)]

    def plan(self, silences: Collection[Silence]) -> list[Flush]:
        """What is to be sent now."""
        began = monotonic()
        self._plan_at = self.next = None
        log = {key: Sent(entry.at, entry.alerts, entry.reference) for key, entry in self.entries.items()}
        at = self.clock.now()
        flushes = plan(self.routes, self.alerts.values(), log, now=at, silences=silences, channel=self.system)
        self.due(*(flush.next for flush in flushes if flush.sent is None))
        # However many alerts there are, most of the time is left for sending.
        self._planned_until = monotonic() + 4 * (monotonic() - began)
        return [flush for flush in flushes if flush.sent is not None]

    def due(self, *times: int | None) -> None:
        """Plan then, too."""
        self.next = min((at for at in (*times, self.next) if at is not None), default=None)

    def set_back(self) -> list[LogEntry]:
        """What was sent later than now, since the hub's clock was set back: its intervals begin now."""
        at = self.clock.now()
        ahead = {key: replace(entry, at=at) for key, entry in self.entries.items() if entry.at > at + AHEAD_MS}
        self.entries |= ahead
        return [*ahead.values()]

    def keep(self, waiting: Iterable[Alert]) -> None:
        """Forget what is over and was said to be, but what waits to be said."""
        shown = {i for entry in self.entries.values() for i, one in entry.alerts.items() if one.status != RESOLVED}
        shown |= {alert.id for alert in waiting}
        self.alerts = {i: alert for i, alert in self.alerts.items() if alert.status != RESOLVED or i in shown}

    def known(self, group: Group) -> LogEntry | None:
        """What the log says of a group."""
        known = self.entries.get(group.key)
        return self.entries.get(group.moved_from) if known is None and group.moved_from else known

    def written(self, group: Group, entry: LogEntry) -> None:
        """What the log says of a group now."""
        self.entries[group.key] = entry
        if group.moved_from:
            self.entries.pop(group.moved_from, None)
        if all(shown.status == RESOLVED for shown in entry.alerts.values()):
            del self.entries[group.key]
