"""What is different in a model registry, as events and metrics: pure, a model at a time.

What is known of a model and what MLflow shows of it make its events. Whoever has both, a sync or somebody who was told
of a change otherwise, comes to the same events under the same keys.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec

from airflow_provider_airis.records import Event, EventSeverity, Metric
from airflow_provider_airis.sources.registry import Entry, event_key, mark

UPDATED, ALIAS, RUN_METRIC = "registered_model_last_updated", "model_alias_version", "run_metric"
GOING_ON = frozenset({"RUNNING", "SCHEDULED"})
NONE = "0"
SOURCE_CHARS = 256
TAGS_CHARS = 65_536
TEXT_CHARS = 20_000
# Of clocks: MLflow's clients stamp what they log.
AHEAD_MS = 600_000
_OLDEST_MS = 1_000_000_000_000


class Version(msgspec.Struct, frozen=True, array_like=True):
    """What of a version may change: its last update in Unix ms, its status, its stage."""

    updated: int
    status: str = "READY"
    stage: str = "None"


class Alias(msgspec.Struct, frozen=True, array_like=True):
    """The version that an alias names, ``"0"`` for none any more, and since when, Unix ms."""

    version: str
    since: int


class Unread(msgspec.Struct, frozen=True, array_like=True):
    """Where a version's metrics are that have to be read again.

    :param run: its run, ``model`` its logged model; empty for none.
    :param until: how long to read them again even if the run has ended, Unix ms.
    """

    run: str = ""
    model: str = ""
    until: int = 0


class Model(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is known of a model.

    :param updated: its last update, Unix ms.
    :param aliases: also those that are gone.
    """

    updated: int
    versions: dict[str, Version] = {}
    aliases: dict[str, Alias] = {}
    unread: dict[str, Unread] = {}

    @classmethod
    def of(cls, entry: Entry | None) -> Model | None:
        """What an entry of the state holds."""
        return None if entry is None else msgspec.convert(entry.data, cls)

    def entry(self) -> Entry:
        """The entry of the state that holds it."""
        now = {alias: held.version for alias, held in self.aliases.items() if held.version != NONE}
        its_mark = mark(self.updated, sorted(now.items()))
        return Entry(its_mark, msgspec.to_builtins(self), due=bool(self.unread), parts=len(self.versions))


def listed_mark(row: Mapping[str, Any]) -> str:
    """The mark of a model as a listing shows it."""
    return mark(int(row["last_updated_timestamp"]), sorted(_aliases(row).items()))


class Shown(NamedTuple):
    """What MLflow shows of a model now.

    :param row: the model; None if it is gone.
    :param versions: those that were listed, by number.
    :param gone: known versions that are not there any more.
    """

    row: Mapping[str, Any] | None
    versions: Mapping[str, Mapping[str, Any]]
    gone: frozenset[str] = frozenset()


class Changes:
    """The difference of one model.

    :param known: None if the model is new.
    :param as_of: the time of what has none of its own, Unix ms; later than all that is known.
    """

    def __init__(self, registry: str, name: str, known: Model | None, shown: Shown, as_of: int) -> None:
        self.registry = registry
        self.name = name
        self.as_of = as_of
        self.row = shown.row
        self.created = int(shown.row["creation_timestamp"]) if shown.row else 0
        # A model that was created after its last update is another one, of the same name.
        self.anew = known is not None and shown.row is not None and known.updated < self.created
        self.before = known
        self.known = Model(0) if known is None or self.anew else known
        self.gone = shown.gone
        self.changed = {
            version: row for version, row in shown.versions.items() if self.known.versions.get(version) != _version(row)
        }

    @property
    def forgotten(self) -> set[str]:
        """Known versions of which nothing has to be read any more."""
        return set(self.gone if self.row and not self.anew else self.before.versions if self.before else ())

    def after(self, unread: Mapping[str, Unread]) -> Model | None:
        """What is known from now on; None if the model is gone."""
        if self.row is None:
            return None
        versions = {**self.known.versions, **{version: _version(row) for version, row in self.changed.items()}}
        versions = {version: held for version, held in versions.items() if version not in self.gone}
        moved = {alias: Alias(new, self.as_of) for alias, (_, new) in self._moved(self.known, self.row).items()}
        return Model(
            int(self.row["last_updated_timestamp"]),
            versions,
            {**self.known.aliases, **moved},
            {version: where for version, where in unread.items() if version in versions},
        )

    def records(self) -> Iterator[Event | Metric]:
        """Each change as an event, under a key that the same change has however often it is found."""
        if self.before is not None and (self.anew or self.row is None):
            for version in sorted(self.before.versions, key=_number):
                yield self._version_gone(version, self.before)
            yield from self._alias_changes(self.before, None)
            yield self._event("model_deleted", self.as_of, {}, self.before.updated)
        if self.row is None:
            yield self._metric(UPDATED, 0, "ms", {})
            return
        if self.before is None or self.anew:
            data = {
                "creation_timestamp": self.created,
                **_tags(self.row),
                "description": cut(self.row.get("description")),
            }
            yield self._event("model_registered", self.created, data, self.created)
        for version in sorted(self.changed, key=_number):
            yield from self._version_changes(version, self.changed[version])
        for version in sorted(self.gone, key=_number):
            yield self._version_gone(version, self.known)
        yield from self._alias_changes(self.known, self.row)
        updated = int(self.row["last_updated_timestamp"])
        if self.before is None or self.before.updated != updated:
            yield self._metric(UPDATED, updated, "ms", {})

    def _version_changes(self, version: str, row: Mapping[str, Any]) -> Iterator[Event]:
        old, new = self.known.versions.get(version), _version(row)
        created = int(row["creation_timestamp"])
        if old is not None and old.updated < created:  # numbers begin at 1 again where all were deleted
            yield self._version_gone(version, self.known)
            old = None
        data = {
            "version": version,
            "status": new.status,
            "status_message": cut(row.get("status_message")),
            "stage": new.stage,
            "creation_timestamp": created,
            "last_updated_timestamp": new.updated,
            "run_id": row.get("run_id") or None,
            "model_uri": row.get("source") or None,
            **_tags(row),
        }
        severity: EventSeverity = "error" if new.status == "FAILED_REGISTRATION" else "info"
        if old is None:
            yield self._event("model_version_created", created, data, version, created, severity=severity)
        elif old.status != new.status:
            told = data | {"old_status": old.status}
            yield self._event(
                "model_version_status", new.updated, told, version, new.status, new.updated, severity=severity
            )
        if (old.stage if old else "None") != new.stage:
            told = data | {"old_stage": old.stage if old else "None"}
            yield self._event("model_stage_changed", new.updated, told, version, new.stage, new.updated)

    def _version_gone(self, version: str, known: Model) -> Event:
        updated = known.versions[version].updated
        return self._event("model_version_deleted", self.as_of, {"version": version}, version, updated)

    def _alias_changes(self, known: Model, row: Mapping[str, Any] | None) -> Iterator[Event | Metric]:
        for alias, (old, new) in sorted(self._moved(known, row).items()):
            # An alias that was never seen is set since the model is there: its key is the same when all is forgotten.
            since = known.aliases[alias].since if alias in known.aliases else self.created
            data = {"alias": alias, "old_version": _none(old), "version": _none(new)}
            yield self._event("model_alias_changed", self.as_of, data, alias, since, old, new)
            if row is self.row:
                yield self._metric(ALIAS, int(new), "1", {"alias": alias})

    def _moved(self, known: Model, row: Mapping[str, Any] | None) -> dict[str, tuple[str, str]]:
        """Alias → what it named, and what it names now; ``"0"`` for none."""
        now = _aliases(row or {})
        found = {}
        for alias in now.keys() | known.aliases.keys():
            old, new = known.aliases.get(alias, Alias(NONE, 0)).version, now.get(alias, NONE)
            if old != new:
                found[alias] = old, new
        return found

    def _event(
        self, event_type: str, at: int, data: Mapping[str, Any], *key: object, severity: EventSeverity = "info"
    ) -> Event:
        data = {"registry": self.registry, "model_name": self.name, **data}
        return Event(
            event_type, source(self.name), severity, at, data, event_key(event_type, self.registry, self.name, *key)
        )

    def _metric(self, metric: str, value: int, unit: str, tags: Mapping[str, str]) -> Metric:
        labels = {"registry": self.registry, "model_name": self.name, **tags}
        return Metric(source(self.name), metric, float(value), unit, labels, self.as_of)


class Logged(NamedTuple):
    """What MLflow shows of a version's run and logged model; None for what there is not, or not any more."""

    run: Mapping[str, Any] | None
    model: Mapping[str, Any] | None

    @property
    def has_ended(self) -> bool:
        """Whether nothing more is expected to be logged."""
        if self.run is not None:
            return self.run.get("info", {}).get("status") not in GOING_ON
        return self.model is None or self.model.get("info", {}).get("status") != "LOGGED_MODEL_PENDING"

    def values(self) -> Iterator[tuple[Mapping[str, Any], bool]]:
        """The metrics, and whether they are the logged model's.

        A run keeps one value a name, whichever of its models it is of: it speaks for a logged model only if that is the
        run's only one, and only where the model itself says nothing.
        """
        own = list((self.model or {}).get("data", {}).get("metrics", ()))
        yield from ((metric, True) for metric in own)
        run = self.run or {}
        others = {output.get("model_id") for output in run.get("outputs", {}).get("model_outputs", ())}
        if self.model is None or others <= {self.model.get("info", {}).get("model_id")}:
            named = {metric["key"] for metric in own}
            yield from (
                (metric, False) for metric in run.get("data", {}).get("metrics", ()) if metric["key"] not in named
            )

    def metrics(self, registry: str, name: str, version: str, where: Unread, now: int) -> Iterator[Metric | None]:
        """Each value as a metric; None for one that is no finite number."""
        for metric, is_models in self.values():
            # JSON has none but finite numbers: MLflow writes the others as text, and its SQL store the largest number.
            value = float(metric["value"])
            if not math.isfinite(value) or abs(value) == sys.float_info.max:
                yield None
                continue
            labels = {"registry": registry, "model_name": name, "version": version}
            if where.run:
                labels["run_id"] = where.run
            if is_models:
                labels["model_id"] = where.model
                if metric.get("dataset_name"):
                    labels["dataset"] = str(metric["dataset_name"])
            labels["metric"] = str(metric["key"])
            at = self._time(int(metric.get("timestamp") or 0), now)
            yield Metric(source(name), RUN_METRIC, value, "1", labels, at)

    def _time(self, at: int, now: int) -> int:
        """Unix ms. Clients stamp in other units too, or with a step's number: then it is the run's end or start."""
        for stamped in (at, at // 1_000, at // 1_000_000, at * 1_000):
            if _OLDEST_MS <= stamped <= now + AHEAD_MS:
                return stamped
        run, model = ((part or {}).get("info", {}) for part in self)
        times = run.get("end_time"), run.get("start_time"), model.get("creation_timestamp_ms")
        return next((int(time) for time in times if time), now)


def where_logged(row: Mapping[str, Any], until: int = 0) -> Unread:
    """Where a version's metrics are: its run, and the logged model that its source names (``models:/m-…``)."""
    scheme, _, rest = str(row.get("source") or "").partition(":/")
    model = rest.strip("/").partition("/")[0] if scheme == "models" and rest.strip("/").startswith("m-") else ""
    return Unread(str(row.get("run_id") or ""), model, until)


def source(name: str) -> str:
    """A model's source in the hub, which has no room for the longest names."""
    plain = f"mlflow-{name}"
    if len(plain) <= SOURCE_CHARS:
        return plain
    digest = blake2b(name.encode(), digest_size=8).hexdigest()
    return f"{plain[: SOURCE_CHARS - len(digest) - 1]}-{digest}"


def _version(row: Mapping[str, Any]) -> Version:
    return Version(
        int(row["last_updated_timestamp"]), str(row.get("status", "")), str(row.get("current_stage") or "None")
    )


def _aliases(row: Mapping[str, Any]) -> dict[str, str]:
    return {str(alias["alias"]): str(alias["version"]) for alias in row.get("aliases", ())}


def _tags(row: Mapping[str, Any]) -> dict[str, Any]:
    """``tags``, as far as an event has room for them, and how many were left out."""
    tags: dict[str, str] = {}
    room, left_out = TAGS_CHARS, 0
    for tag in row.get("tags", ()):
        key, value = str(tag["key"]), str(tag.get("value", ""))
        if len(key) + len(value) > room:
            left_out += 1
        else:
            room -= len(key) + len(value)
            tags[key] = value
    return {"tags": tags, "tags_left_out": left_out} if left_out else {"tags": tags}


def cut(text: object) -> str:
    """A text as far as an event has room for it."""
    said = str(text or "")
    return said if len(said) <= TEXT_CHARS else f"{said[:TEXT_CHARS]}…"


def _none(version: str) -> str | None:
    return None if version == NONE else version


def _number(version: str) -> tuple[int, str]:
    return len(version), version
