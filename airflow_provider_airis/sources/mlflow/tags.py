"""Tags of versions that are watched, as ``validation_status``: MLflow gives a version no new time when one changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from airflow_provider_airis.records import Event
from airflow_provider_airis.sources.mlflow.changes import cut, source
from airflow_provider_airis.sources.registry import Entry, RegistryState, confirm, event_key, mark

if TYPE_CHECKING:
    from airflow_provider_airis.hooks.mlflow import MLflowHook

TAG_CHANGED = "model_version_tag_changed"


class Tags:
    """What is known of the watched tags, and what MLflow shows of them: versions that have one are listed, by its name.

    :param state: an entry a model, version and tag: its value, and since when.
    :param part: what a failure is recorded by, as the operator's ``part``.
    """

    def __init__(
        self,
        mlflow: MLflowHook,
        state: RegistryState,
        registry: str,
        names: Sequence[str],
        as_of: int,
        part: Callable[[str], AbstractContextManager[None]],
    ) -> None:
        self.mlflow = mlflow
        self.state = state
        self.registry = registry
        self.names = names
        self.as_of = as_of
        self.part = part

    def records(self) -> Iterator[Event]:
        """Each change as an event; what is known from now on is staged."""
        rows: dict[str, tuple[Mapping[str, Any], str]] = {}
        for tag in self.names:
            for row in self.mlflow.versions(tag=tag):
                rows[_key(row, tag)] = row, _value(row, tag) or ""
        found = self.state.compare({key: mark(value) for key, (_, value) in rows.items()})
        for key in (*found.new, *found.changed):
            shown, value = rows[key]
            yield self._changed(key, value, int(shown["creation_timestamp"]))
            self.state.put(key, Entry(mark(value), [cut(value), self.as_of]))
        # Of a tag that is not watched any more nothing is said.
        for key in (dropped := [key for key in found.missing if _parts(key)[2] not in self.names]):
            self.state.drop(key)
        gone, there = confirm(
            [key for key in found.missing if key not in dropped],
            self._version,
            lambda key: self.part("/".join((self.registry, *_parts(key)))),
        )
        for key in gone:  # with its version, which is an event of its own
            self.state.drop(key)
        for key, its in there.items():
            if _value(its, _parts(key)[2]) is None:  # else the pages have shifted while they were read
                yield self._changed(key, None, int(its["creation_timestamp"]))
                self.state.drop(key)

    def _version(self, key: str) -> dict[str, Any] | None:
        name, version, _ = _parts(key)
        return self.mlflow.version(name, version)

    def _changed(self, key: str, value: str | None, created: int) -> Event:
        name, version, tag = _parts(key)
        known = self.state.get(key)
        old, since = known.data if known else (None, created)
        data = {"registry": self.registry, "model_name": name, "version": version, "tag": tag, "old_value": old}
        data["value"] = None if value is None else cut(value)
        where = (self.registry, name, version, tag, since, mark(old), mark(value))
        return Event(TAG_CHANGED, source(name), "info", self.as_of, data, event_key(TAG_CHANGED, *where))


def _key(row: Mapping[str, Any], tag: str) -> str:
    return "\n".join((str(row["name"]), str(row["version"]), tag))


def _parts(key: str) -> tuple[str, str, str]:
    name, version, tag = key.rsplit("\n", 2)
    return name, version, tag


def _value(row: Mapping[str, Any], tag: str) -> str | None:
    return next((str(has.get("value", "")) for has in row.get("tags", ()) if has["key"] == tag), None)
