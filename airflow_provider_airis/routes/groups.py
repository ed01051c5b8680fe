"""When a group is sent: the decision that Alertmanager makes at each flush, as a function of the log of what was sent.

Nothing is kept but that log, so that whoever dies can be replaced: the same alerts, log and time give the same answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import get_args

import msgspec

from airflow_provider_airis.records import Alert, AlertSeverity, AlertStatus, Shown, from_ms, iso
from airflow_provider_airis.routes.matching import Silence, labels, parse_matchers
from airflow_provider_airis.routes.tree import Integration, Route, Routes

RESOLVED = "resolved"
# What the log says of an alert before it is sent, so that who dies leaves a trace, and if it was refused for good.
SENDING = "sending"
FAILED = "failed"
# How long an acknowledgement waits for those of the other alerts, since somebody acknowledges a group one by one.
GATHERED_MS = 3_000
# What lies so far ahead was not just written by another clock: the hub's clock has been set back since.
AHEAD_MS = 10_000
# What is refused time and again is tried again at growing intervals, at most so long ones while it lasts.
LONGEST_RETRY_MS = 3_600_000


class LogKey(msgspec.Struct, frozen=True, order=True):
    """What the log is kept by: a group, and one of the places where its receiver is told.

    :param group: :meth:`~airflow_provider_airis.routes.Route.group_key`.
    :param receiver: its name.
    :param channel: stem of the system, and ``target``: whom within it.
    """

    group: str
    receiver: str
    channel: str
    target: str


class Sent(msgspec.Struct, frozen=True):
    """An entry of the log. One that shows no alert but resolved ones may be deleted at any time, and no other.

    :param at: when it was sent, Unix ms.
    :param alerts: by the alert's id.
    :param reference: by which the place knows what it was sent.
    """

    at: int
    alerts: dict[str, Shown]
    reference: str = ""

    @property
    def over(self) -> bool:
        """Whether it shows none that is not resolved."""
        return all(shown.status == RESOLVED for shown in self.alerts.values())


@dataclass(frozen=True)
class Group:
    """The alerts that one place is told of together.

    :param labels: what they have in common, by the route's ``group_by``.
    :param alerts: resolved ones too. One that is in another group of the same channel and target now is resolved here.
    :param moved_from: where the log has what its alert, by itself there as here, was shown before its labels or the
        routes changed. That is gone on with.
    """

    key: LogKey
    labels: Mapping[str, str]
    route: Route
    integration: Integration
    alerts: tuple[Alert, ...]
    moved_from: LogKey | None = None


@dataclass(frozen=True)
class Flush:
    """What is to be done for a group now.

    :param alerts: to be sent, all that the message shows, the oldest first; empty if nothing is to be sent.
    :param sent: to be written to the log, after ``alerts`` were sent; None if the log stays as it is.
    :param next: when to ask again if no alert changes before, Unix ms; None if only a change may bring something.
    """

    group: Group
    alerts: tuple[Alert, ...] = ()
    sent: Sent | None = None
    next: int | None = None


def plan(
    routes: Routes,
    alerts: Iterable[Alert],
    log: Mapping[LogKey, Sent],
    *,
    now: int,
    silences: Iterable[Silence] = (),
    channel: str | None = None,
) -> list[Flush]:
    """What is to be sent now, and when to ask again: one answer for each group and place, in the order of their age.

    :param alerts: all that are not resolved, and those of which ``log`` does not know yet that they are.
    :param log: what was sent before.
    :param now: Unix ms.
    :param channel: stem of the only system that is asked about.
    """
    known = {alert.id: (alert, labels(alert)) for alert in alerts}
    inhibited = routes.inhibits([its for alert, its in known.values() if alert.status != RESOLVED])
    active = [silence for silence in silences if silence.starts_at <= now < silence.ends_at]
    held: dict[str, int | None] = {}
    for alert, its in known.values():
        ends = [silence.ends_at for silence in active if silence.silences(its, now)]
        if ends or inhibited(its):
            held[alert.id] = max(ends, default=None)
    answers = []
    for group in groups(routes, (alert for alert, _ in known.values()), log, channel=channel):
        muted = routes.muted(group.route, from_ms(now))
        sent = log.get(group.key)
        if group.moved_from and (sent is None or sent.over):
            sent = log[group.moved_from]
        answers.append(decide(group, sent, now, held=held, muted=muted))
    return answers


def groups(
    routes: Routes, alerts: Iterable[Alert], log: Mapping[LogKey, Sent], *, channel: str | None = None
) -> list[Group]:
    """The groups that alerts are in: where the routes lead them, and where they were shown and have not ended.

    So a place that was shown an alert is shown its end, though the alert's labels, or the routes, have changed. One
    that is told by itself before and after, under one id, has not ended.
    """
    found: dict[LogKey, Group] = {}
    members: dict[LogKey, dict[str, Alert]] = {}
    places: dict[tuple[str, str, str], LogKey] = {}
    known = {alert.id: alert for alert in alerts}
    for alert in known.values():
        its = labels(alert)
        for route, integration in _places(routes, its, channel):
            key = LogKey(route.group_key(its), route.receiver.name, integration.channel, integration.target)
            if key not in found:
                found[key] = Group(key, route.group_labels(its), route, integration, ())
            members.setdefault(key, {})[alert.id] = alert
            places.setdefault((alert.id, key.channel, key.target), key)
    for key, sent in log.items():
        here = members.get(key, {})
        for alert_id, shown in sent.alerts.items():
            if shown.status == RESOLVED or alert_id in here or alert_id not in known:
                continue
            alert = known[alert_id]
            if now_in := places.get((alert_id, key.channel, key.target)):
                if _goes_on(found[now_in], log.get(now_in), key, sent):
                    found[now_in] = replace(found[now_in], moved_from=key)
                    continue
                alert = msgspec.structs.replace(alert, status=RESOLVED)
            found.setdefault(key, _left(routes, key))
            members.setdefault(key, here)[alert_id] = alert
    ordered = {key: tuple(sorted(here.values(), key=_age)) for key, here in members.items()}
    return sorted(
        (replace(found[key], alerts=alerts) for key, alerts in ordered.items()),
        key=lambda group: (_age(group.alerts[0]), group.key),
    )


def _places(routes: Routes, its: Mapping[str, str], channel: str | None) -> Iterator[tuple[Route, Integration]]:
    for route in routes.match(its):
        for integration in route.receiver.integrations:
            if channel in (None, integration.channel):
                yield route, integration


def _goes_on(group: Group, its: Sent | None, left: LogKey, sent: Sent) -> bool:
    """Whether what an alert was shown in a group that it has left is what this group shows, or is to show."""
    if group.moved_from or "alert_id" not in group.labels or "alert_id" not in labels_of(left.group):
        return False
    return its is None or its.over or its.reference == sent.reference


def _age(alert: Alert) -> tuple[int, str]:
    return alert.timestamp, alert.id


def _left(routes: Routes, key: LogKey) -> Group:
    """A group that no alert is led to any more, with what the file still says of it."""
    route = next((route for _, route in routes.route.walk() if key.group.startswith(f"{route.key}:{{")), routes.route)
    its = labels_of(key.group, route.key) if key.group.startswith(f"{route.key}:{{") else {}
    receiver = routes.receivers.get(key.receiver)
    integration = Integration(key.channel, key.target)
    said = receiver.integrations if receiver else ()
    same = (one for one in said if (one.channel, one.target) == (key.channel, key.target))
    return Group(key, its, route, next(same, integration), ())


def labels_of(group: str, route: str | None = None) -> dict[str, str]:
    """A group's labels, by its key; none of what is no such key.

    :param route: key of its route, where that is known.
    """
    place = group.find(":{") if route is None else len(route)
    while place >= 0:
        with suppress(ValueError):
            return {matcher.name: matcher.value for matcher in parse_matchers(group[place + 1 :])}
        place = group.find(":{", place + 1)
    return {}


def decide(
    group: Group,
    sent: Sent | None,
    now: int,
    *,
    held: Mapping[str, int | None] | None = None,
    muted: bool = False,
) -> Flush:
    """Whether to send a group now.

    A group begins with the first alert of which nothing was sent, and is sent ``group_wait`` after that has fired.
    While one that was sent is not resolved, the next moments to send are whole ``group_interval`` later: at the first
    of them after something has changed, and else at the first that is ``repeat_interval`` later, if one that was sent
    as firing still is, so that nobody has acknowledged it. An acknowledgement of one that was sent does not wait for
    that: it is sent once none of the group is left without, or a moment later. Of what may have been sent, and may not,
    it is sent at once. What was refused is due again at the next of these moments, and after as long again as it has
    been refused for, up to an hour.

    What the hub did before its clock was set back seems to lie ahead: it has waited long enough.

    :param sent: what the log has of ``group.key``.
    :param now: Unix ms.
    :param held: ids of alerts that are silenced or inhibited, with the time that this ends, if known. They are neither
        sent nor forgotten: what happens to them meanwhile is sent afterwards.
    :param muted: whether the route sends nothing at this time.
    """
    shown = sent.alerts if sent else {}
    held = held or {}
    members: list[Alert] = []
    carried: dict[str, Shown] = {}
    since, retries, ends, resolved, begun, firing, interrupted = [], [], [], set(), False, False, False
    for alert in group.alerts:
        last = shown.get(alert.id)
        told = last is not None and last.status != RESOLVED
        begun = begun or told
        if alert.status == RESOLVED and not told:
            continue
        if alert.id in held:
            carried |= {alert.id: last} if last else {}
            ends.append(held[alert.id])
        elif alert.status == RESOLVED and not group.integration.send_resolved:
            resolved.add(alert.id)
        else:
            members.append(alert)
            firing = firing or (last is not None and alert.status == last.status == "firing")
            interrupted = interrupted or (last is not None and last.status == SENDING)
            if (changed_at := _changed_at(alert, last)) is not None:
                since.append(changed_at)
            elif sent is not None and last is not None and last.status == FAILED:
                retries.append(_retry_ms(sent.at, alert, last))
    due = now if interrupted else _due(group.route, sent if begun else None, since, retries, firing, now)
    due = min((at for at in (due, _acknowledged_at(members, shown, now)) if at is not None), default=None)
    if due is not None and due <= now and not muted:
        alerts = tuple(members)
        entry = Sent(now, carried | {alert.id: _newest(alert, shown.get(alert.id)) for alert in alerts})
        return Flush(group, alerts, entry, decide(group, entry, now, held=held).next)
    if due is not None and due <= now:
        due += group.route.group_interval * ((now - due) // group.route.group_interval + 1)
    following = min((at for at in (due, *ends) if at is not None), default=None)
    if sent and resolved:
        sent = Sent(sent.at, {alert_id: last for alert_id, last in shown.items() if alert_id not in resolved})
        return Flush(group, (), sent, following)
    return Flush(group, (), None, following)


def _changed_at(alert: Alert, last: Shown | None) -> int | None:
    """Since when there is something to say of an alert."""
    if last is None:
        return alert.timestamp
    same = alert.updated_at == last.at and last.status in (alert.status, FAILED)
    return None if same or alert.updated_at < last.at else alert.updated_at


def _retry_ms(sent_at: int, alert: Alert, last: Shown) -> int:
    """How long what was refused is left alone: as long as it has been refused for."""
    refused_for = max(0, sent_at - last.at)
    # Of what is over nobody needs to hear every hour, for ever.
    return refused_for if alert.status == RESOLVED else min(refused_for, LONGEST_RETRY_MS)


def _acknowledged_at(alerts: Collection[Alert], shown: Mapping[str, Shown], now: int) -> int | None:
    """When it is to be sent that somebody has taken some of them, if that was not."""
    told = {alert_id: last for alert_id, last in shown.items() if last.status not in (RESOLVED, "acknowledged")}
    since = [
        alert.updated_at
        for alert in alerts
        if alert.status == "acknowledged" and alert.id in told and told[alert.id].at < alert.updated_at
    ]
    if not since:
        return None
    left = any(alert.status == "firing" for alert in alerts)
    return now if min(since) > now + AHEAD_MS else min(since) + GATHERED_MS * left


def _due(
    route: Route, sent: Sent | None, since: Collection[int], retries: Collection[int], firing: bool, now: int
) -> int | None:
    """When a group is to be sent that has had something to say since then; ``sent`` is None before it begins.

    :param retries: for how long what was refused is left alone, ms.
    """
    if sent is None:
        if since and min(since) > now + AHEAD_MS:
            return now
        return min(since) + route.group_wait if since else None
    waits = [at - sent.at if at <= now + AHEAD_MS else 0 for at in since]
    waits += [*retries, *[route.repeat_interval] * firing]
    intervals = [max(1, -(-wait // route.group_interval)) for wait in waits]
    return sent.at + route.group_interval * min(intervals) if intervals else None


def _newest(alert: Alert, last: Shown | None) -> Shown:
    """What the log holds of an alert afterwards: it never goes back to an older state."""
    return last if last and last.at > alert.updated_at else Shown(alert.status, alert.updated_at)


def folded(group: Group, alerts: Collection[Alert]) -> Alert:
    """What a place is shown of a group: the alert that is told by itself, or one that stands for them all.

    That one is known by ``group-`` and a digest, fires while any of them does, has the worst severity of those that are
    not resolved, names them in its description, and has the tags, the model and so on that they have in common.
    """
    ordered = sorted(alerts, key=_age)
    if "alert_id" in group.labels and len(ordered) == 1:
        return ordered[0]
    identity = blake2b("\n".join((*msgspec.structs.astuple(group.key), ordered[0].id)).encode(), digest_size=8)
    found = {alert.status for alert in ordered}
    statuses: tuple[AlertStatus, ...] = ("firing", "acknowledged", "resolved")
    status = next(one for one in statuses if one in found)
    left = [alert for alert in ordered if alert.status != RESOLVED] or ordered
    severities = get_args(AlertSeverity)
    by = dict.fromkeys(alert.acknowledged_by for alert in left if alert.acknowledged_by)
    common = dict(set.intersection(*(set(alert.tags.items()) for alert in ordered))) | dict(group.labels)
    alone = ordered[0] if len(ordered) == 1 else None

    def same(name: str) -> str | None:
        values = {getattr(alert, name) for alert in ordered}
        return values.pop() if len(values) == 1 else None

    return Alert(
        id=f"group-{identity.hexdigest()}",
        name=alone.name if alone else f"{len(left)} alerts: {_subject(group, left)}",
        description=alone.description if alone else "\n".join(map(_line, ordered)),
        severity=min((alert.severity for alert in left), key=severities.index),
        status=status,
        source=same("source") or "",
        model_id=same("model_id"),
        environment=same("environment"),
        alert_type=same("alert_type"),
        threshold=alone.threshold if alone else None,
        current_value=alone.current_value if alone else None,
        duration=max((alert.duration or 0.0 for alert in ordered), default=None),
        timestamp=ordered[0].timestamp,
        updated_at=max(alert.updated_at for alert in ordered),
        acknowledged_by=", ".join(by) or None if status == "acknowledged" else None,
        tags=dict(sorted(common.items())),
    )


def _subject(group: Group, alerts: Collection[Alert]) -> str:
    """What they have in common, or the names that are most often among them."""
    if group.labels:
        return ", ".join(value if name == "alertname" else f"{name}={value}" for name, value in group.labels.items())
    names = [name for name, _ in Counter(alert.name for alert in alerts).most_common(4)]
    return ", ".join([*names[:3], *["…"] * (len(names) > 3)])


def _line(alert: Alert) -> str:
    about = ", ".join(filter(None, (alert.model_id, alert.environment)))
    what = f"{alert.severity}: {alert.name}{f' ({about})' if about else ''}"
    if alert.status == RESOLVED:
        return f"• resolved {iso(alert.updated_at)}: {what}"
    by = f", acknowledged by {alert.acknowledged_by}" if alert.acknowledged_by else ""
    return f"• {what}, since {iso(alert.timestamp)}{by}"
