"""The vocabulary that systems, hub and Dags share, and its wire form (the hub's HTTP contract). Imports no Airflow.

Times are integer Unix milliseconds, UTC, everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec

EventSeverity = Literal["info", "warning", "error", "critical"]
AlertSeverity = Literal["critical", "high", "medium", "low", "warning", "info"]
AlertStatus = Literal["firing", "acknowledged", "resolved"]
ChangeType = Literal["fired", "severity_changed", "acknowledged", "resolved"]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
_Time = Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]


class Metric(msgspec.Struct, frozen=True, gc=False):
    """One point of one series. (source, name, tags, timestamp) identify it; the last value delivered wins.

    :param source: where it was read, e.g. ``aws-sagemaker-<endpoint>``.
    :param name: as declared in the catalog, lower case.
    :param value: a finite number.
    :param unit: the source's own word, e.g. ``Microseconds``.
    :param tags: string to string.
    :param timestamp: start of the period that the value covers, Unix ms.
    """

    source: str
    name: str
    value: float
    unit: str
    tags: dict[str, str]
    timestamp: int


class Event(msgspec.Struct, frozen=True):
    """Something that happened once at a source.

    :param key: identifies the event for good: the same key is the same event, however often it is delivered.
    """

    event_type: str
    source: str
    severity: EventSeverity
    timestamp: int
    data: dict[str, Any]
    key: str


class MetricPoint(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """A point inside a :class:`MetricsBody`."""

    name: str
    value: float
    unit: str
    tags: dict[str, str]


class MetricsBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of ``POST /api/v1/metrics/ingest`` and one line of ``/metrics/batch``."""

    timestamp: int
    source: str
    metrics: list[MetricPoint]


class EventBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of ``POST /api/v1/events/ingest``: there the event's key travels as ``Idempotency-Key``."""

    timestamp: int
    event_type: str
    source: str
    severity: EventSeverity
    data: dict[str, Any]


class KeyedEventBody(EventBody, frozen=True, forbid_unknown_fields=True):
    """One line of ``/events/batch``, where one header cannot carry every event's key."""

    idempotency_key: str


class Refusal(msgspec.Struct, frozen=True):
    """A record that the hub refused.

    :param index: its place among the request's records, counted through all bodies.
    :param pointer: JSON pointer from the request's document, ``/batches/0/metrics/2/value``.
    """

    index: int
    pointer: str
    detail: str


class IngestAnswer(msgspec.Struct, frozen=True):
    """The hub's answer to an ingest call. ``duplicates`` were there already and are part of ``accepted``."""

    accepted: int
    duplicates: int = 0
    rejected: list[Refusal] = []


class User(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A person or service account of a directory, as the hub is told of them.

    :param id: what stays when everything else changes: ``objectGUID`` or ``entryUUID``.
    :param username: what they log in with: ``sAMAccountName`` or ``uid``.
    :param groups: distinguished names of the groups they belong to.
    :param manager: distinguished name.
    :param enabled: whether the directory lets them log in.
    :param expires_at: when the account expires, Unix ms; never if None.
    :param changed_at: when the directory changed the entry last, Unix ms.
    :param sync_timestamp: when the entry was read, Unix ms.
    :param attributes: whatever else was asked for, by name; a list where there are several values. Also all values of a
        field of one value that has several: ``{"email": ["ada@example.com", "ada.l@example.com"]}``.
    """

    id: str
    username: str
    email: str | None = None
    display_name: str | None = None
    department: str | None = None
    title: str | None = None
    dn: str | None = None
    groups: list[str] = []
    manager: str | None = None
    enabled: bool = True
    expires_at: int | None = None
    changed_at: int | None = None
    sync_timestamp: int
    attributes: dict[str, str | list[str]] = {}


class Notification(msgspec.Struct, frozen=True):
    """A row of the delivery ledger: which state of an alert a receiver was last shown.

    :param channel: the system's stem, e.g. ``slack``.
    :param target: whom within it: a channel's name, a routing key's connection.
    :param reference: what a later change updates: Slack ``<channel id>:<ts>``, PagerDuty ``dedup_key``.
    :param status: the alert's status as delivered, or ``failed``.
    :param at: ``updated_at`` of the alert as delivered, Unix ms.
    """

    channel: str
    target: str
    reference: str
    status: str
    at: int


class Shown(msgspec.Struct, frozen=True):
    """What was last sent of an alert: its status and its ``updated_at``.

    The status is ``sending`` if nobody knows whether it was sent, and ``failed`` if it was refused for good.
    """

    status: _Name
    at: _Time


class LogEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An entry of the notification log: what one target was shown of a group of alerts.

    :param group: the route's key and the group's labels, as Alertmanager writes them; ``receiver`` is the route's.
    :param channel: stem of the system, and ``target``: whom within it.
    :param id: by which the target knows the group: the alert's, or ``group-`` and a digest.
    :param reference: what a later change updates, as in :class:`Notification`.
    :param at: when it was sent, Unix ms.
    :param alerts: by the alert's id.
    """

    group: Annotated[str, msgspec.Meta(min_length=1)]
    receiver: Annotated[str, msgspec.Meta(min_length=1)]
    channel: _Name
    target: Annotated[str, msgspec.Meta(min_length=1)]
    id: _Name
    reference: str
    at: _Time
    alerts: dict[str, Shown]


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """An alert of the hub, as ``GET /api/v1/alerts/{id}`` answers it.

    :param duration: seconds since it fired, or until it was resolved.
    :param timestamp: when it fired, Unix ms.
    """

    id: str
    name: str
    description: str = ""
    severity: AlertSeverity
    status: AlertStatus
    source: str = ""
    model_id: str | None = None
    environment: str | None = None
    alert_type: str | None = None
    threshold: float | None = None
    current_value: float | None = None
    duration: float | None = None
    timestamp: int
    updated_at: int
    acknowledged_by: str | None = None
    fingerprint: str = ""
    tags: dict[str, str] = {}
    notifications: list[Notification] = []


class AlertChange(msgspec.Struct, frozen=True, kw_only=True):
    """One transition of an alert in the change feed.

    :param sequence: only ever grows; a reader that stores the last one misses nothing.
    :param alert: the alert as it was right after the change.
    """

    sequence: int
    change: ChangeType
    at: int
    alert: Alert


class Window(msgspec.Struct, frozen=True, order=True):
    """The half-open stretch of time ``[start, end)`` that one run reads, Unix ms."""

    start: int
    end: int

    def __post_init__(self) -> None:
        if self.end < self.start:
            raise ValueError(f"window ends before it starts: {self}")

    @classmethod
    def between(cls, start: datetime, end: datetime) -> Window:
        """The window between two aware datetimes."""
        return cls(to_ms(start), to_ms(end))

    @classmethod
    def last_full(cls, at: datetime, period_s: int, *, delay_s: int = 0) -> Window:
        """The last full period that a source with a publication delay has shown completely at ``at``."""
        period = period_s * 1000
        end = (to_ms(at) - delay_s * 1000) // period * period
        return cls(end - period, end)

    def aligned(self, period_s: int) -> Window:
        """The smallest window of whole periods that contains this one."""
        period = period_s * 1000
        return Window(self.start // period * period, -(-self.end // period) * period)

    def split(self, seconds: int) -> Iterator[Window]:
        """Consecutive windows of at most ``seconds`` that together are this one."""
        step = seconds * 1000
        for start in range(self.start, self.end, step):
            yield Window(start, min(start + step, self.end))

    def __contains__(self, timestamp: int) -> bool:
        return self.start <= timestamp < self.end

    def __str__(self) -> str:
        return f"[{iso(self.start)}, {iso(self.end)})"


def to_ms(at: datetime) -> int:
    """Unix milliseconds of an aware datetime; a naive one is refused, since its zone would be a guess."""
    if at.tzinfo is None:
        raise ValueError(f"{at!r} has no time zone")
    return round(at.timestamp() * 1000)


def from_ms(timestamp: int) -> datetime:
    """The aware UTC datetime of Unix milliseconds."""
    return datetime.fromtimestamp(timestamp / 1000, UTC)


def iso(timestamp: int) -> str:
    """Unix milliseconds as ISO 8601 in UTC, for logs and messages."""
    return from_ms(timestamp).isoformat(timespec="seconds").replace("+00:00", "Z")
