"""The hub's client: streams records in, reads alerts and the change feed, keeps the ledger."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from time import time
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote
from uuid import uuid4

import msgspec
from msgspec.structs import replace

from airflow_provider_airis.errors import LeaseLostError, PermanentError
from airflow_provider_airis.hooks.airis.checkpoints import Checkpoints
from airflow_provider_airis.hooks.airis.leases import FENCE, Lease, Leases
from airflow_provider_airis.hooks.airis.metrics import Metrics
from airflow_provider_airis.hooks.airis.offers import describe, lacking
from airflow_provider_airis.hooks.airis.users import Users, UserSyncSummary
from airflow_provider_airis.hooks.airis.webhooks import Webhooks
from airflow_provider_airis.hooks.base import RETRIES
from airflow_provider_airis.hooks.delivery import API, GZIP_LEVEL, Delivery, IngestSummary
from airflow_provider_airis.hooks.http import HttpHook, T
from airflow_provider_airis.hooks.pagers import Cursor
from airflow_provider_airis.records import (
    Alert,
    AlertChange,
    AlertSeverity,
    AlertStatus,
    Event,
    LogEntry,
    Metric,
    Notification,
    User,
    from_ms,
    to_ms,
)

if TYPE_CHECKING:
    import httpx2

    from airflow_provider_airis.routes.matching import Matcher, Operator, Silence

LOG_ENTRIES = 1_000


class _Changes(msgspec.Struct):
    changes: list[AlertChange]
    sequence: int


class Place(msgspec.Struct, frozen=True):
    """A consumer's place in the change feed.

    :param updated_at: when it was committed, Unix ms.
    :param wake_at: when it wants to be woken though nothing came, Unix ms.
    :param now: the hub's clock as it answered, Unix ms, at worst two seconds off.
    """

    sequence: int = 0
    updated_at: int = 0
    now: int = 0
    wake_at: int | None = None


class _Matcher(msgspec.Struct):
    name: str
    value: str
    isRegex: bool  # noqa: N815 (Alertmanager's)
    isEqual: bool = True  # noqa: N815


class _Silence(msgspec.Struct):
    matchers: list[_Matcher]
    startsAt: datetime  # noqa: N815 (Alertmanager's)
    endsAt: datetime  # noqa: N815
    createdBy: str  # noqa: N815
    comment: str
    id: str
    status: dict[str, str]

    def record(self) -> Silence:
        from airflow_provider_airis.routes.matching import Matcher, Silence

        operators: tuple[Operator, ...] = ("!=", "=", "!~", "=~")
        matchers = tuple(Matcher(m.name, operators[2 * m.isRegex + m.isEqual], m.value) for m in self.matchers)
        return Silence(matchers, to_ms(self.startsAt), to_ms(self.endsAt), self.createdBy, self.comment, self.id)


class SeriesRef(msgspec.Struct, frozen=True):
    """A series, by what identifies it, and its unit."""

    source: str
    name: str
    tags: dict[str, str]
    unit: str = ""


class Evaluation(msgspec.Struct, frozen=True):
    """What made an alert fire: the hub's rule as it was then, and the series it was asked of; both empty if neither."""

    rule: dict[str, Any] | None = None
    series: list[SeriesRef] = []


class EventChange(msgspec.Struct, frozen=True):
    """An event in the hub's feed of them."""

    sequence: int
    event: Event


class _EventChanges(msgspec.Struct):
    changes: list[EventChange]
    sequence: int


class AirisHook(HttpHook):
    """An AIRIS-MON hub.

    Extras of the connection beside :class:`~airflow_provider_airis.hooks.http.HttpHook`'s: ``compression`` (``gzip``,
    the default, or ``none``), ``consumer`` (whose place in the change feed is kept, ``airflow``) and
    ``dashboard_url`` (base of the links to the dashboard, if not the base URL).

    :param system: stem of an outbound system whose place in the change feed is meant: ``<consumer>-<system>``.
    :ivar fence: a lease under which everything is written from now on: once somebody else has it, every write raises
        :class:`~airflow_provider_airis.errors.LeaseLostError`.
    """

    conn_type = "airis"
    default_conn_name = "airis_default"
    hook_name = "AIRIS-MON"
    health_path = f"{API}/health"

    def __init__(
        self,
        conn_id: str | None = None,
        *,
        timeout: float | None = None,
        retries: int = RETRIES,
        system: str | None = None,
    ) -> None:
        super().__init__(conn_id, timeout=timeout, retries=retries)
        self.system = system
        self.fence: Lease | None = None

    def check(self) -> str:
        """Ask for its health, and with the token for what it offers; if it has neither call, deliver nothing."""
        try:
            health = self.decode(self.request("GET", self.health_path, retry=False), dict[str, Any]).get("status", "up")
        except PermanentError as error:
            if error.status not in (404, 405):
                raise
            health = ""
        answer: dict[str, Any] = {}
        try:
            answer = self.capabilities(retry=False)
        except PermanentError as error:
            if error.status != 403:  # a token for ingest alone may not ask
                raise
        else:
            if not answer:
                self._deliver_nothing()
        about = f"{self.hook_name} {answer.get('version', '')}".rstrip() + f" at {self.base_url}"
        said = f"{about} is {health}, accepts the token" if health else f"{about} accepts the token"
        if answer or not health:
            offered = self.converted(answer["capabilities"], dict[str, bool]) if "capabilities" in answer else None
            said += f". {more}" if (more := describe(offered)) else ""
        return said

    def _deliver_nothing(self) -> None:
        body = {"timestamp": round(time() * 1000), "source": "airflow", "metrics": []}
        try:
            self.request("POST", f"{API}/metrics/ingest", json=body, retry=False)
        except PermanentError as error:
            if error.status not in (400, 422):  # it may want a point, and has then seen the token
                raise

    @property
    def consumer(self) -> str:
        """Whose place in the change feed is kept."""
        named = str(self.extra.get("consumer") or "airflow")
        return f"{named}-{self.system}" if self.system else named

    def dashboard_url(self, alert_id: str | None = None) -> str:
        """The page of an alert that notifications link to; the overview if it is None."""
        base = str(self.extra.get("dashboard_url") or self.base_url).rstrip("/")
        return f"{base}/dashboard" + (f"?alert={quote(alert_id, safe='')}" if alert_id else "")

    def capabilities(self, *, retry: bool | None = None) -> dict[str, Any]:
        """What the hub offers, ``{"version", "capabilities": {…}}``; empty if it does not say."""
        try:
            return self.decode(self.request("GET", f"{API}/capabilities", retry=retry), dict[str, Any])
        except PermanentError as error:
            if error.status in (404, 405):
                return {}
            raise

    @cached_property
    def checkpoints(self) -> Checkpoints:
        """What readers know of their systems."""
        return Checkpoints(self)

    @cached_property
    def leases(self) -> Leases:
        """Who may do what only one may do at a time."""
        return Leases(self)

    @cached_property
    def metrics(self) -> Metrics:
        """What the hub knows of metrics."""
        return Metrics(self)

    @cached_property
    def webhooks(self) -> Webhooks:
        """Who is told of what happens, and whose posts are taken."""
        return Webhooks(self)

    @cached_property
    def _offered(self) -> dict[str, bool] | None:
        answer = self.capabilities()
        return self.converted(answer["capabilities"], dict[str, bool]) if "capabilities" in answer else None

    def offers(self, capability: str) -> bool:
        """Whether the hub says that it offers something; asked once. A hub that does not say offers the document's."""
        return (self._offered or {}).get(capability, False)

    def encoded(self, body: Any) -> tuple[bytes | None, dict[str, str]]:
        """A body as the hub takes it, and the headers that say so."""
        if body is None:
            return None, {}
        content, headers = msgspec.json.encode(body), {"Content-Type": "application/json"}
        if self.extra.get("compression") != "none":
            content, headers["Content-Encoding"] = gzip.compress(content, GZIP_LEVEL, mtime=0), "gzip"
        return content, headers

    def ingest(self, records: Iterable[Metric | Event], *, delivery: str | None = None) -> IngestSummary:
        """Deliver metrics and events as they are yielded, a bounded number of them in memory.

        A point that the hub had already (same source, name, tags and timestamp) takes the value delivered last; so one
        delivery should yield a point once, since its batches travel side by side. An event is identified by its key.
        Records that JSON cannot carry (NaN, a tag that is no string …) and those that the hub refuses are counted in
        the summary, the first ones named with the reason; all others are stored nevertheless.

        :param delivery: names this delivery. Within the same one a batch that the hub has seen is not stored again, so
            a new delivery of newer values needs a new name; by default it gets one.
        :raises RetryableError: the hub did not take it, also after waiting. What it took is stored.
        :raises PermanentError: it refuses the delivery as a whole, e.g. the token.
        :raises Exception: whatever ``records`` raises, after what it had yielded before is delivered.
        """
        self.get_conn()
        with closing(Delivery(self, delivery or uuid4().hex)) as this:
            return this.run(records)

    def event(self, event: Event) -> None:
        """Deliver one event.

        :raises PermanentError: the hub refuses it.
        """
        summary = self.ingest([event], delivery=event.key)
        if summary.rejected:
            raise PermanentError(
                f"{self.hook_name} (connection {self.conn_id}) refused the event {summary.refusals[0]}"
            )

    def events(
        self, *, source: str | None = None, event_type: str | None = None, limit: int = 100
    ) -> list[dict[str, Any]]:
        """The events that arrived last, newest first: ``{key, event_type, source, severity, timestamp, data}`` each."""
        params = {"source": source, "event_type": event_type, "limit": limit}
        answer = self.decode(self.request("GET", f"{API}/events", params=params), dict[str, Any])
        return self.converted(answer.get("events"), list[dict[str, Any]])

    def event_changes(self, *, after: int, limit: int = 500) -> tuple[list[EventChange], int]:
        """Read the feed of events behind ``after``: the events in the order of their arrival, and up to where."""
        params = {"after": after, "limit": limit}
        page = self.decode(self.request("GET", f"{API}/events/changes", params=params), _EventChanges)
        return page.changes, page.sequence

    def sync_users(
        self,
        users: Iterable[User],
        *,
        source: str,
        sync_type: Literal["full", "delta"],
        sync_id: str,
        timestamp: int,
        deleted: Iterable[str] = (),
        max_deactivate: int | None = None,
    ) -> UserSyncSummary:
        """Send a directory's users as they are yielded, a thousand a request.

        The hub puts the sync into force when its last part has arrived, which is sent only once ``users`` has ended:
        if that raises, the directory stays as it was. A full sync deactivates whom it does not name.

        A hub that offers no more than its document is sent the six fields that this names, a full sync in one body.

        :param sync_id: names this sync; its repetition needs the same users or another name.
        :param timestamp: when the directory was read, Unix ms.
        :param deleted: ids or usernames that a delta deactivates; read after ``users``.
        :param max_deactivate: how many the hub may deactivate, if it offers to look after that. Without it, it takes no
            full sync that names nobody.
        :raises PermanentError: the hub has no directory, refuses the sync as a whole, or cannot be told who left.
        """
        return Users(self).sync(
            users,
            source=source,
            sync_type=sync_type,
            sync_id=sync_id,
            timestamp=timestamp,
            deleted=deleted,
            max_deactivate=max_deactivate,
        )

    def users(
        self, *, source: str | None = None, active: bool | None = None, email: str | None = None
    ) -> Iterator[dict[str, Any]]:
        """Every user that the hub knows, by source and id: ``User``'s fields, source, active and updated_at.

        :param email: in capitals or not.
        """
        return Users(self).list(source=source, active=active, email=email)

    def alerts(
        self,
        *,
        status: AlertStatus | Sequence[AlertStatus] | None = None,
        severity: AlertSeverity | None = None,
        model_id: str | None = None,
        fingerprint: str | None = None,
        limit: int = 500,
    ) -> Iterator[Alert]:
        """Yield the alerts, newest first, ``limit`` a page."""
        params = {"status": status, "severity": severity, "model_id": model_id, "fingerprint": fingerprint}
        for found in self.pages(f"{API}/alerts", params=params | {"limit": limit}, items="alerts"):
            alert = self.converted(found, Alert)
            # A hub may not know this parameter.
            if fingerprint in (None, alert.fingerprint):
                yield alert

    def fire(self, name: str, severity: AlertSeverity, **fields: Any) -> Alert:
        """Raise an alert; the same ``fingerprint`` while one is open updates that one.

        :param fields: any of ``description``, ``source``, ``model_id``, ``environment``, ``alert_type``, ``threshold``,
            ``current_value``, ``tags`` and ``fingerprint``, which follows from the others unless given.
        """
        body = {"name": name, "severity": severity, **fields}
        return self.decode(self.request("POST", f"{API}/alerts", json=body, retry="fingerprint" in fields), Alert)

    def alert(self, alert_id: str) -> Alert:
        """One alert as it is now."""
        return self.decode(self.request("GET", f"{API}/alerts/{quote(alert_id, safe='')}"), Alert)

    def evaluation(self, alert_id: str) -> Evaluation:
        """Of which rule and series an alert is."""
        return self.decode(self.request("GET", f"{API}/alerts/{quote(alert_id, safe='')}"), Evaluation)

    def acknowledge(self, alert_id: str, by: str, comment: str = "") -> None:
        """Acknowledge an alert; doing it again changes nothing."""
        path = f"{API}/alerts/{quote(alert_id, safe='')}/acknowledge"
        self.request("POST", path, json={"by": by, "comment": comment}, retry=True)

    def resolve(self, alert_id: str, by: str | None = None, comment: str | None = None) -> None:
        """Resolve an alert; doing it again changes nothing."""
        body = {name: value for name, value in (("by", by), ("comment", comment)) if value}
        self.request("POST", f"{API}/alerts/{quote(alert_id, safe='')}/resolve", json=body, retry=True)

    def record_notification(self, alert_id: str, notification: Notification) -> None:
        """Write into the ledger where an alert was sent, under which reference, and in which state."""
        where = "/".join(quote(part, safe="") for part in (notification.channel, notification.target))
        body = {"reference": notification.reference, "status": notification.status, "at": notification.at}
        self.request("PUT", f"{API}/alerts/{quote(alert_id, safe='')}/notifications/{where}", json=body)

    def notification_log(self, channel: str, *, open: bool = True) -> list[LogEntry]:  # noqa: A002
        """What a system's targets were shown, a group of alerts an entry.

        :param open: only groups of which an alert is not shown as resolved.
        :raises PermanentError: with status 404, the hub keeps no such log.
        """
        params = {"channel": channel, "open": "true" if open else None}
        return [self.converted(entry, LogEntry) for entry in self._entries(params)]

    def log_notifications(self, entries: Iterable[LogEntry]) -> None:
        """Write into the log what was sent, or is about to be."""
        every = list(entries)
        for start in range(0, len(every), LOG_ENTRIES):
            body = {"entries": every[start : start + LOG_ENTRIES]}
            self.request("PUT", f"{API}/notification-log", json=body)

    def alert_ids(self, known_by: str) -> list[str]:
        """The alerts that receivers know by an id: the alert itself, or those of a group."""
        if not known_by.startswith("group-"):
            return [known_by]
        return list(dict.fromkeys(alert_id for entry in self.entries(known_by) for alert_id in entry.alerts))

    def entries(self, known_by: str) -> list[LogEntry]:
        """What the log has of the group that receivers know by an id."""
        return [self.converted(entry, LogEntry) for entry in self._entries({"id": known_by})]

    def _entries(self, params: dict[str, Any]) -> Iterator[Any]:
        path, params = f"{API}/notification-log", params | {"limit": 5000}
        return self.pages(path, params=params, items="entries", pager=Cursor("next_cursor", "cursor"))

    def silences(self) -> list[Silence]:
        """The silences that hold now, or will.

        :raises PermanentError: with status 404, the hub has none.
        """
        answer = self.decode(self.request("GET", f"{API}/silences"), list[_Silence])
        return [silence.record() for silence in answer if silence.status.get("state") != "expired"]

    def silence(
        self,
        matchers: Iterable[Matcher],
        ends_at: int,
        by: str,
        comment: str,
        *,
        starts_at: int | None = None,
        key: str | None = None,
    ) -> str:
        """Silence the alerts that fit all matchers; returns the silence's id.

        :param ends_at: Unix ms, as is ``starts_at``, which is now unless given.
        :param key: the same key makes the same silence, once.
        """
        body = {
            "matchers": [
                {"name": m.name, "value": m.value, "isRegex": "~" in m.operator, "isEqual": "!" not in m.operator}
                for m in matchers
            ],
            "startsAt": None if starts_at is None else from_ms(starts_at),
            "endsAt": from_ms(ends_at),
            "createdBy": by,
            "comment": comment,
        }
        headers = {"Idempotency-Key": key} if key else None
        response = self.request("POST", f"{API}/silences", json=body, headers=headers)
        return str(self.decode(response, dict[str, Any])["silenceID"])

    def expire_silence(self, silence_id: str) -> None:
        """End a silence now; one that has ended stays as it is."""
        self.request("DELETE", f"{API}/silences/{quote(silence_id, safe='')}", retry=True)

    def routes(self) -> str | None:
        """The hub's own routing file; None if it has none."""
        try:
            return self.request("GET", f"{API}/routes").text
        except PermanentError as error:
            if error.status in (404, 405):
                return None
            raise

    def put_routes(self, text: str) -> None:
        """Set the hub's own routing file; the empty one removes it.

        :raises PermanentError: it has mistakes.
        """
        self.request("PUT", f"{API}/routes", content=text.encode(), headers={"Content-Type": "application/yaml"})

    def changes(
        self, *, consumer: str | None = None, after: int | None = None, limit: int = 500, wait: float = 0
    ) -> tuple[list[AlertChange], int]:
        """Read the change feed behind ``after``, or behind what ``consumer`` (the connection's unless named) committed.

        :param wait: seconds, at most 60, for which the hub holds an empty answer back until something changes.
        :return: the changes in order and the sequence up to which they were read.
        """
        response = self.request("GET", f"{API}/alerts/changes", **self._feed(consumer, after, limit, wait))
        page = self.decode(response, _Changes)
        return page.changes, page.sequence

    async def achanges(
        self, *, consumer: str | None = None, after: int | None = None, limit: int = 500, wait: float = 0
    ) -> tuple[list[AlertChange], int]:
        """As :meth:`changes`, from an event loop."""
        async with await self.asession() as client:
            response = await self.arequest(
                client, "GET", f"{API}/alerts/changes", **self._feed(consumer, after, limit, wait)
            )
        page = self.decode(response, _Changes)
        return page.changes, page.sequence

    def committed(self, consumer: str | None = None) -> int:
        """The sequence that a consumer committed last; 0 if never."""
        return self.place(consumer).sequence

    def place(self, consumer: str | None = None) -> Place:
        """What a consumer committed last, and when; 0 if never."""
        try:
            response = self.request("GET", f"{API}/consumers/{quote(consumer or self.consumer, safe='')}")
        except PermanentError as error:
            if error.status == 404:
                return Place()
            raise
        return self._place(response)

    async def aplace(self, consumer: str | None = None) -> Place:
        """As :meth:`place`, from an event loop."""
        path = f"{API}/consumers/{quote(consumer or self.consumer, safe='')}"
        try:
            async with await self.asession() as client:
                return self._place(await self.arequest(client, "GET", path))
        except PermanentError as error:
            if error.status == 404:
                return Place()
            raise

    def _place(self, response: httpx2.Response) -> Place:
        return replace(self.decode(response, Place), now=_clock(response))

    def commit(
        self,
        consumer: str,
        sequence: int,
        *,
        force: bool = False,
        wake_at: int | msgspec.UnsetType | None = msgspec.UNSET,
    ) -> Place:
        """Move a consumer's place forward, back only if ``force`` says so; returns what is in force.

        :param wake_at: when it wants to be woken though nothing came, Unix ms, None for never; as it was, unless given.
        """
        body: dict[str, Any] = {"sequence": sequence, "force": True} if force else {"sequence": sequence}
        if wake_at is not msgspec.UNSET:
            body["wake_at"] = wake_at
        response = self.request("PUT", f"{API}/consumers/{quote(consumer, safe='')}", json=body)
        return self.decode(response, Place) if response.content else Place(sequence)

    async def acommit(self, consumer: str, sequence: int) -> None:
        """As :meth:`commit`, from an event loop; only forward."""
        path = f"{API}/consumers/{quote(consumer, safe='')}"
        async with await self.asession() as client:
            await self.arequest(client, "PUT", path, json={"sequence": sequence})

    async def aend(self) -> int:
        """The last sequence of the change feed, found by halving, as no answer names it; 0 if nothing ever changed."""

        async def is_behind(sequence: int) -> bool:
            try:
                return bool((await self.achanges(after=sequence, limit=1))[0])
            except PermanentError as error:
                if error.status == 409:  # the feed ends before it
                    return False
                raise

        low, high = 0, 1
        while await is_behind(high):
            low, high = high + 1, 2 * high
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if await is_behind(middle) else (low, middle)
        return low

    def query(
        self,
        name: str,
        *,
        start: int,
        end: int,
        source: str | None = None,
        tags: Mapping[str, str] | None = None,
        step: int | None = None,
        agg: str | None = None,
    ) -> list[dict[str, Any]]:
        """The points of a metric in ``[start, end)``, Unix ms.

        :param tags: only series that have these.
        :param step: seconds into which points are aggregated by ``agg``; without it they come as they are.
        :return: ``{source, name, unit, tags, points: [[timestamp, value], …]}`` a series.
        """
        params = {
            "name": name,
            "source": source,
            "from": start,
            "to": end,
            "tag": [f"{key}:{value}" for key, value in (tags or {}).items()] or None,
            "step": step,
            "agg": agg,
        }
        answer = self.decode(self.request("GET", f"{API}/metrics/query", params=params), dict[str, Any])
        return self.converted(answer.get("series"), list[dict[str, Any]])

    def coverage(
        self, *, start: int, end: int, source: str | None = None, name: str | None = None, step: int | None = None
    ) -> list[dict[str, Any]]:
        """Which windows of ``[start, end)`` hold points, Unix ms.

        :param step: seconds; windows are whole steps, by default minutes.
        :return: ``{source, name, tags, points, windows: [[from, to], …]}`` a series; ``points`` is how many.
        """
        params = {"source": source, "name": name, "from": start, "to": end, "step": step}
        answer = self.decode(self.request("GET", f"{API}/metrics/coverage", params=params), dict[str, Any])
        return self.converted(answer.get("series"), list[dict[str, Any]])

    def advice(self, status: int) -> str:
        """What somebody who reads the error can do about it."""
        if status == 403:
            return f"give the token of connection {self.conn_id} the scope for this (ingest, read, alerts or admin)"
        if status in (404, 405):
            return f"{super().advice(404)}; GET {API}/capabilities lists what this hub offers"
        if status == 415:
            return f"set compression of connection {self.conn_id} to none"
        return super().advice(status)

    def _build(self, client: Any, method: str, *args: Any) -> httpx2.Request:
        request = super()._build(client, method, *args)
        if self.fence is not None and method not in ("GET", "HEAD"):
            request.headers.update(self.fence.headers)
        return request

    def _checked(self, response: httpx2.Response, path: str) -> httpx2.Response:
        try:
            return super()._checked(response, path)
        except PermanentError as error:
            if error.status in (404, 405) and (reason := lacking(path)):
                asked = self._asked(response.request.method, path)
                raise PermanentError(f"{asked} answered {error.status}: {reason}", status=error.status) from error
            if error.status == 409 and error.pointer == f"/{FENCE}":
                raise LeaseLostError(str(error), pointer=error.pointer, detail=error.detail, status=409) from error
            raise

    def _feed(self, consumer: str | None, after: int | None, limit: int, wait: float) -> dict[str, Any]:
        if after is None:
            consumer = consumer or self.consumer
        params = {"consumer": consumer, "after": after, "limit": limit, "wait": wait or None}
        return {"params": params, "timeout": self._timeout_s + wait}

    def converted(self, value: object, shape: type[T]) -> T:
        """A part of an answer as ``shape``.

        :raises PermanentError: it is something else.
        """
        try:
            return msgspec.convert(value, shape)
        except msgspec.ValidationError as error:
            raise PermanentError(
                f"{self.hook_name} (connection {self.conn_id}) answered with something else than its API does ({error})"
            ) from error


def _clock(response: httpx2.Response) -> int:
    """Our clock, as far as it is within the second that ``Date`` names, or the next, as servers keep it a while."""
    now = round(time() * 1000)
    try:
        second = round(parsedate_to_datetime(response.headers["Date"]).timestamp() * 1000)
    except (KeyError, ValueError):
        return now
    return min(max(now, second), second + 2_000)
