"""What MLflow shows of its registry beside what is known of it: what is to be looked at, and what is gone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from airflow_provider_airis.sources.mlflow.changes import Model, Shown, listed_mark
from airflow_provider_airis.sources.registry import RegistryState, check_deletion_threshold, confirm

if TYPE_CHECKING:
    from airflow_provider_airis.hooks.mlflow import MLflowHook

PAGE = 1_000
NEWEST = 100
# How often the versions are listed in one sync, if some are deleted while they are listed.
SWEEPS = 3
# Beyond that many, and a tenth of the pages of all versions, changed models are not listed one by one.
FEW_MODELS = 50

Row = Mapping[str, Any]
Rows = dict[str, dict[str, Row]]
log = logging.getLogger(__name__)


class Reading:
    """One reading of a registry.

    :param watermark: the last update, Unix ms, up to which all versions are known; -1 for none.
    :param part: what a failure is recorded by, as the operator's ``part``.

    :ivar newest: the watermark of the next reading.
    :ivar unsure: models of which a version could not be asked for.
    """

    limits: dict[str, Any]
    advice: str

    def __init__(
        self,
        mlflow: MLflowHook,
        state: RegistryState,
        registry: str,
        watermark: int,
        part: Callable[[str], AbstractContextManager[None]],
    ) -> None:
        self.mlflow = mlflow
        self.state = state
        self.registry = registry
        self.watermark = self.newest = watermark
        self.part = part
        self.unsure: set[str] = set()
        self._is_sound = False

    def models(self) -> list[tuple[str, tuple[Model | None, Shown]]]:
        """The models of which something is different, or may be: what is known, and what MLflow shows.

        :raises PermanentError: too much is missing.
        """
        listed, changed, gone, rows, whole = self._listed()
        found: dict[str, tuple[Model | None, Row, dict[str, Row], set[str]]] = {}
        for name in sorted(changed | rows.keys() & listed.keys()):
            with self.part(f"{self.registry}/{name}"):
                known, row, versions = Model.of(self.state.get(name)), listed[name], rows.get(name, {})
                if name in changed and not whole:
                    versions = {str(row["version"]): row for row in self.mlflow.versions(model=name, at_once=PAGE)}
                    self._seen(versions.values())
                missing: set[str] = set()
                if known and known.updated >= int(row["creation_timestamp"]) and (whole or name in changed):
                    missing = known.versions.keys() - versions.keys()
                found[name] = known, row, versions, missing
        lacking = [f"{name} version {version}" for name, (*_, them) in found.items() for version in sorted(them)]
        self._check("versions", lacking, self.state.parts)
        shown = [(name, self._shown(name, *of)) for name, of in found.items()]
        return shown + [(name, (Model.of(self.state.get(name)), Shown(None, {}))) for name in gone]

    def _shown(
        self, name: str, known: Model | None, row: Row, versions: dict[str, Row], missing: set[str]
    ) -> tuple[Model | None, Shown]:
        gone, there = confirm(
            sorted(missing),
            lambda version: self.mlflow.version(name, version),
            lambda version: self.part(f"{self.registry}/{name}/{version}"),
        )
        if len(gone) + len(there) < len(missing):
            self.unsure.add(name)
        return known, Shown(row, {**versions, **there}, frozenset(gone))

    def _listed(self) -> tuple[dict[str, Row], set[str], list[str], Rows, bool]:
        """The models, which have changed, which are gone, the versions that were changed last, and if those are all."""
        for _ in range(SWEEPS):
            listed = self._models()
            found = self.state.compare({name: listed_mark(row) for name, row in listed.items()})
            self._check("models", found.missing, self.state.entries)
            gone, there = confirm(found.missing, self.mlflow.model, lambda name: self.part(f"{self.registry}/{name}"))
            listed |= there
            unlisted = {name for name, row in there.items() if not self._is_known(name, row)}
            changed = {*found.new, *found.changed, *unlisted}
            whole = self.state.is_new or len(changed) > FEW_MODELS + self.state.parts // (10 * PAGE)
            rows, self._is_sound = self._sweep(-1 if whole else self.watermark, listed)
            if self._is_sound:
                self._seen(row for of in rows.values() for row in of.values())
                break
        else:
            log.warning("Versions were deleted each time that they were listed: the next sync lists them again")
        return listed, changed, gone, rows, whole

    def _is_known(self, name: str, row: Row) -> bool:
        known = self.state.get(name)
        return known is not None and known.mark == listed_mark(row)

    def _models(self) -> dict[str, Row]:
        return {
            str(row["name"]): {field: value for field, value in row.items() if field != "latest_versions"}
            for row in self.mlflow.models()
        }

    def _sweep(self, after: int, listed: Mapping[str, Row]) -> tuple[Rows, bool]:
        """The versions changed after a time, those changed last first; and whether that are all of them.

        What is deleted while they are listed moves those behind it to a page that was read.
        """
        at_once = PAGE if after < 0 else NEWEST
        rows: Rows = {}
        count = 0
        for row in self.mlflow.versions(at_once=at_once):
            if int(row["last_updated_timestamp"]) <= after:
                break
            count += 1
            rows.setdefault(str(row["name"]), {})[str(row["version"])] = row
        return rows, count < at_once or not self._shrank(rows, listed)

    def _shrank(self, rows: Rows, listed: Mapping[str, Row]) -> bool:
        """Whether one of these versions is not there any more; a deletion changes its model."""
        now = self._models()
        for name, row in listed.items():
            if name not in now:
                return True
            if now[name]["last_updated_timestamp"] != row["last_updated_timestamp"]:
                there = {str(row["version"]) for row in self.mlflow.versions(model=name, at_once=PAGE)}
                if rows.get(name, {}).keys() - there:
                    return True
        return False

    def _seen(self, rows: Iterable[Row]) -> None:
        if self._is_sound:
            self.newest = max([self.newest, *(int(row["last_updated_timestamp"]) for row in rows)])

    def _check(self, what: str, missing: list[str], known: int) -> None:
        check_deletion_threshold(
            f"{what} of {self.registry}", len(missing), known, **self.limits, examples=missing, advice=self.advice
        )
