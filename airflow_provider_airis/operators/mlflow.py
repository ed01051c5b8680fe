"""What changes in a model registry, from MLflow into the hub."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple
from zlib import crc32

from airflow_provider_airis.errors import PermanentError
from airflow_provider_airis.operators.base import CollectOperator, Delivered
from airflow_provider_airis.records import Event, Metric, Window

if TYPE_CHECKING:
    from airflow_provider_airis.hooks.airis import AirisHook
    from airflow_provider_airis.hooks.mlflow import MLflowHook

MODEL, VERSION, ALIAS = "registered_model_last_updated", "model_version_last_updated", "model_alias_version"
UNREAD = "model_version_run_unread"
STATE = frozenset({MODEL, VERSION, ALIAS, UNREAD})
DELETED = "DELETED"
# How much later than the time that it bears a change may become visible.
LATE_MS = 60_000
AT_ONCE = 8
# How many of the runs that could not be read, or have not ended, one sync asks for again.
MOST_AGAIN = 1_000
KEY_CHARS = 256
_GOING_ON = ("RUNNING", "SCHEDULED")

Key = tuple[str, str]


class Version(NamedTuple):
    """What of a version may change: its last update in Unix ms, its status, its stage."""

    updated: int
    status: str
    stage: str


class Known(NamedTuple):
    """What the hub was told last.

    :param newest: when that was, Unix ms; -1 if never.
    :param settled: when it was told of a model last: nothing was left to be read then.
    :param models: name → last update.
    :param versions: (name, version) → what it was.
    :param aliases: (name, alias) → the version and when the hub was told, also of those that are gone, as ``"0"``.
    :param unread: (name, version) → its run, which could not be read or had not ended.
    """

    newest: int
    settled: int
    models: dict[str, int]
    versions: dict[Key, Version]
    aliases: dict[Key, tuple[str, int]]
    unread: dict[Key, str]


class MLflowToAirisOperator(CollectOperator):
    """Delivers what has changed in a registry since the hub was told last, and the metrics of the versions' runs.

    What is known lies in the hub, as metrics that are written when something changes. They follow the events once these
    have arrived, and an event's key is the change: a sync that died half way is repeated without a trace. Sources are
    ``mlflow-<model>``; every point has the tags ``registry`` and ``model_name``.

    A registry has no history: each run reads what is there now, whatever its interval. A change that was undone between
    two runs is not seen, and those of tags and descriptions alone are none.

    If far fewer models or versions are there than were known, that is not believed: the task fails, and nothing is
    reported deleted.

    :param mlflow_conn_id: connection of type ``mlflow``.
    :param registry: the registry's name in tags and keys; host and path of the connection unless given.
    :param run_metrics: whether to read the metrics of new and changed versions' runs.
    :param max_missing_share: share of the known models, or versions, that may be missing at once.
    :param max_missing: how many of them may be missing in any case, as long as some are left.

    See https://mlflow.org/docs/latest/ml/model-registry/
    """

    system: ClassVar[str] = "mlflow"
    template_fields: Sequence[str] = (*CollectOperator.template_fields, "mlflow_conn_id", "registry")

    def __init__(
        self,
        *,
        mlflow_conn_id: str = "mlflow_default",
        registry: str | None = None,
        run_metrics: bool = True,
        max_missing_share: float = 0.1,
        max_missing: int = 50,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.mlflow_conn_id = mlflow_conn_id
        self.registry = registry
        self.run_metrics = run_metrics
        self.max_missing_share = max_missing_share
        self.max_missing = max_missing
        self.skipped = 0
        self.gone = 0

    def collect(self, window: Window) -> Iterator[Metric | Event]:
        """Yield the metrics of runs, the changes as events, and then what is known from now on."""
        from airflow_provider_airis.hooks.airis import AirisHook
        from airflow_provider_airis.hooks.mlflow import MLflowHook

        self.skipped = self.gone = 0
        with MLflowHook(self.mlflow_conn_id) as mlflow:
            registry = self.registry or mlflow.base_url.partition("://")[2].rstrip("/")
            with AirisHook(self.airis_conn_id) as hub:
                known = _known(hub, registry)
            models = {str(model["name"]): model for model in mlflow.models()}
            self._believe("models", registry, known.models.keys() - models.keys(), len(known.models))
            known = self._looked_for(mlflow, registry, known, models)
            rows = self._rows(mlflow, known, models)
            missing = self._missing(mlflow, known, models, rows)
            self._believe("versions", registry, missing, len(known.versions))
            changed = {key: row for key, row in rows.items() if known.versions.get(key) != _version(row)}
            changes = Changes(registry, known, models, changed, missing, max(window.end - 1, known.newest + 1))
            read: dict[Key, tuple[str, bool]] = {}
            if self.run_metrics:
                runs = {key: str(row["run_id"]) for key, row in changed.items() if row.get("run_id")}
                yield from self._run_metrics(mlflow, registry, _again(known, missing, changes.as_of) | runs, read)
            yield from changes.events()
            yield from changes.unread(read)
            yield from list(changes.state()) or _settled(known, changes)

    def deliver(self, hub: AirisHook, window: Window, delivery: str) -> Delivered:
        """Send the events and the metrics of runs first: what is known may be written only once they have arrived.

        Which runs are to be asked for again comes next, as their versions are known thereafter. The models come last of
        all: one that is known says that its versions are, too.
        """
        state: tuple[list[Metric], list[Metric], list[Metric]] = ([], [], [])

        def news() -> Iterator[Metric | Event]:
            for record in self.collect(window):
                if isinstance(record, Metric) and record.name in STATE:
                    state[{UNREAD: 0, MODEL: 2}.get(record.name, 1)].append(record)
                else:
                    yield record

        sent = [hub.ingest(news(), delivery=delivery)]
        sent += [hub.ingest(some, delivery=f"{delivery}/state {n}") for n, some in enumerate(state) if some]
        counts = ("points", "events", "duplicates", "rejected", "calls")
        figures = {count: sum(getattr(each, count) for each in sent) for count in counts}
        refusals = [refusal for each in sent for refusal in each.refusals]
        return Delivered(figures["points"] + figures["events"], figures, refusals)

    def summary(self) -> dict[str, Any]:
        """``metrics_skipped`` are of runs, and no finite numbers; ``runs_gone`` are not there any more."""
        return {"metrics_skipped": self.skipped, "runs_gone": self.gone}

    def _looked_for(self, mlflow: MLflowHook, registry: str, known: Known, models: dict[str, dict[str, Any]]) -> Known:
        """Ask for each known model that is not listed: pages shift while they are read, and hide what one may not see.

        Those that are there are added to ``models``. What cannot be asked for is left as it was.
        """
        unsure = set()
        for name in sorted(known.models.keys() - models.keys()):
            unsure.add(name)
            with self.part(f"{registry}/{name}"):
                if (model := mlflow.model(name)) is not None:
                    models[name] = model
                unsure.remove(name)
        return known._replace(
            models={name: updated for name, updated in known.models.items() if name not in unsure},
            versions={key: version for key, version in known.versions.items() if key[0] not in unsure},
            aliases={key: alias for key, alias in known.aliases.items() if key[0] not in unsure},
        )

    def _rows(
        self, mlflow: MLflowHook, known: Known, models: Mapping[str, Mapping[str, Any]]
    ) -> dict[Key, dict[str, Any]]:
        """Every version that may have changed, as MLflow shows it: those changed last come first."""
        newest = max((version.updated for version in known.versions.values()), default=-1) if known.models else -1
        # What bears a time long before the hub was told was visible by then.
        last_known = newest if newest < known.settled - LATE_MS else newest - LATE_MS
        rows: dict[Key, dict[str, Any]] = {}
        for row in mlflow.versions(at_once=1000 if newest < 0 else 100):
            if row["last_updated_timestamp"] <= last_known:
                break
            if row["name"] in models:
                rows[row["name"], str(row["version"])] = row
        return rows

    def _missing(
        self,
        mlflow: MLflowHook,
        known: Known,
        models: Mapping[str, Mapping[str, Any]],
        rows: dict[Key, dict[str, Any]],
    ) -> set[Key]:
        """Known versions that are gone. A deletion changes its model, so only changed models are looked at in whole."""
        current = {name: model["last_updated_timestamp"] for name, model in models.items()}
        changed = {name for name in known.models.keys() | current.keys() if known.models.get(name) != current.get(name)}
        if not known.models:  # all of them were listed a moment ago
            return known.versions.keys() - rows.keys()
        there: set[Key] = set()
        for name in sorted(changed & models.keys()):
            for row in mlflow.versions(model=name):
                there.add((name, str(row["version"])))
                rows.setdefault((name, str(row["version"])), row)
        return {key for key in known.versions if key[0] in changed} - there

    def _believe(self, what: str, registry: str, missing: Iterable[object], known: int) -> None:
        count = len(list(missing))
        if count > max(self.max_missing, self.max_missing_share * known) or (
            count == known > 1 and self.max_missing_share < 1
        ):
            raise PermanentError(
                f"{registry} shows {known - count} of the {known} {what} that the hub knows: that is not believed, and "
                f"nothing is reported deleted. Has connection {self.mlflow_conn_id} lost a right, or does it lead to "
                f"another server? If they are really gone, set max_missing_share to 1 for one run"
            )

    def _run_metrics(
        self, mlflow: MLflowHook, registry: str, runs: Mapping[Key, str], read: dict[Key, tuple[str, bool]]
    ) -> Iterator[Metric]:
        """The last values of what the versions' runs have logged; ``read`` is told which need not be read again.

        What a run logs does not change its version: one that has not ended is asked for again until it has.
        """
        with_run = [*runs.items()]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for first in range(0, len(with_run), 10 * AT_ONCE):
                some = with_run[first : first + 10 * AT_ONCE]
                asked = [pool.submit(mlflow.run, run_id) for _, run_id in some]
                for ((name, version), run_id), answer in zip(some, asked, strict=True):
                    read[name, version] = run_id, False
                    with self.part(f"{registry}/{name}/{version}/run {run_id}"):
                        run = answer.result()
                        ended = run is None or run.get("info", {}).get("status") not in _GOING_ON
                        read[name, version] = run_id, ended
                        if run is None:
                            self.gone += 1
                            self.log.warning("Run %s of %s version %s is gone", run_id, name, version)
                            continue
                        tags = {"registry": registry, "model_name": name, "version": version, "run_id": run_id}
                        yield from self._logged(run, name, tags)

    def _logged(self, run: Mapping[str, Any], name: str, tags: Mapping[str, str]) -> Iterator[Metric]:
        for metric in run.get("data", {}).get("metrics", ()):
            # JSON has none but finite numbers: MLflow writes the others as text.
            value = float(metric["value"])
            if not math.isfinite(value):
                self.skipped += 1
                continue
            labels = {**tags, "metric": str(metric["key"])}
            yield Metric(f"mlflow-{name}", "run_metric", value, "1", labels, int(metric["timestamp"]))


class Changes(NamedTuple):
    """What is different from what the hub knows.

    :param changed: new and changed versions as MLflow shows them; ``missing``: known ones that are gone.
    :param as_of: the time of what has none of its own, Unix ms; later than all that is known.
    """

    registry: str
    known: Known
    models: Mapping[str, Mapping[str, Any]]
    changed: Mapping[Key, Mapping[str, Any]]
    missing: set[Key]
    as_of: int

    def events(self) -> Iterator[Event]:
        """Each change as an event, under a key that the same change has however often it is found."""
        for name, model in sorted(self.models.items()):
            created = int(model["creation_timestamp"])
            if name in self.known.models:
                if created <= self.known.models[name]:
                    continue
                yield self._gone(name)
            data = {"creation_timestamp": created, "tags": _tags(model), "description": model.get("description") or ""}
            yield self._event("model_registered", name, created, data, f"{created}")
        for (name, version), row in sorted(self.changed.items()):
            yield from self._version_events(name, version, row)
        for name, version in sorted(self.missing):
            yield self._version_gone(name, version)
        for (name, alias), (old, version) in sorted(self._aliases().items()):
            since = self.known.aliases.get((name, alias), ("0", 0))[1]
            data = {"alias": alias, "old_version": _none(old), "version": _none(version)}
            yield self._event("model_alias_changed", name, self.as_of, data, f"{alias}/{since}/{old}/{version}")
        for name in sorted(self.known.models.keys() - self.models.keys()):
            yield self._gone(name)

    def state(self) -> Iterator[Metric]:
        """What the hub knows from now on."""
        for name, model in sorted(self.models.items()):
            updated = int(model["last_updated_timestamp"])
            if self.known.models.get(name) != updated:
                yield self.metric(MODEL, name, updated, {})
        for name in sorted(self.known.models.keys() - self.models.keys()):
            yield self.metric(MODEL, name, 0, {})
        for (name, version), row in sorted(self.changed.items()):
            updated, status, stage = _version(row)
            yield self.metric(VERSION, name, updated, {"version": version, "status": status, "stage": stage})
        for name, version in sorted(self.missing):
            gone = {"version": version, "status": DELETED, "stage": ""}
            yield self.metric(VERSION, name, self.as_of, gone)
        for (name, alias), (_, version) in sorted(self._aliases().items()):
            yield self.metric(ALIAS, name, int(version), {"alias": alias})

    def unread(self, read: Mapping[Key, tuple[str, bool]]) -> Iterator[Metric]:
        """The runs that are to be read again from now on, and those that need not be any more."""
        for (name, version), (run_id, ended) in sorted(read.items()):
            known = self.known.unread.get((name, version))
            if (known is not None) if ended else (known != run_id):
                yield self.metric(UNREAD, name, int(not ended), {"version": version, "run_id": run_id})

    def _version_events(self, name: str, version: str, row: Mapping[str, Any]) -> Iterator[Event]:
        old, new = self.known.versions.get((name, version)), _version(row)
        created = int(row["creation_timestamp"])
        if old is not None and old.updated < created:  # its model was deleted and made anew, and numbers begin at 1
            yield self._version_gone(name, version)
            old = None
        data = {
            "version": version,
            "status": new.status,
            "status_message": row.get("status_message") or "",
            "stage": new.stage,
            "creation_timestamp": created,
            "last_updated_timestamp": new.updated,
            "run_id": row.get("run_id") or None,
            "model_uri": row.get("source") or None,
            "tags": _tags(row),
        }
        failed: Any = "error" if new.status == "FAILED_REGISTRATION" else "info"
        if old is None:
            yield self._event("model_version_created", name, created, data, f"{version}/{created}", failed)
        elif old.status != new.status:
            told = data | {"old_status": old.status}
            key = f"{version}/{new.status}/{new.updated}"
            yield self._event("model_version_status", name, new.updated, told, key, failed)
        if (old.stage if old else "None") != new.stage:
            told = data | {"old_stage": old.stage if old else "None"}
            key = f"{version}/{new.stage}/{new.updated}"
            yield self._event("model_stage_changed", name, new.updated, told, key)

    def _gone(self, name: str) -> Event:
        return self._event("model_deleted", name, self.as_of, {}, f"{self.known.models[name]}")

    def _version_gone(self, name: str, version: str) -> Event:
        updated = self.known.versions[name, version].updated
        return self._event("model_version_deleted", name, self.as_of, {"version": version}, f"{version}/{updated}")

    def _aliases(self) -> dict[Key, tuple[str, str]]:
        """(name, alias) → what it named, and what it names now; ``"0"`` for none."""
        now = {
            (name, str(alias["alias"])): str(alias["version"])
            for name, model in self.models.items()
            for alias in model.get("aliases", ())
        }
        found = {}
        for key in now.keys() | self.known.aliases.keys():
            old, new = self.known.aliases.get(key, ("0", 0))[0], now.get(key, "0")
            if old != new:
                found[key] = old, new
        return found

    def _event(
        self, event_type: str, name: str, at: int, data: Mapping[str, Any], key: str, severity: Any = "info"
    ) -> Event:
        data = {"registry": self.registry, "model_name": name, **data}
        key = f"{event_type}/{self.registry}/{name}/{key}"
        if len(key) > KEY_CHARS:
            key = f"{event_type}/{blake2b(key.encode(), digest_size=16).hexdigest()}"
        return Event(event_type, f"mlflow-{name}", severity, at, data, key)

    def metric(self, metric: str, name: str, value: int, tags: Mapping[str, str]) -> Metric:
        """A point of the state."""
        labels = {"registry": self.registry, "model_name": name, **tags}
        unit = "ms" if metric in (MODEL, VERSION) else "1"
        return Metric(f"mlflow-{name}", metric, float(value), unit, labels, self.as_of)


def _known(hub: AirisHook, registry: str) -> Known:
    known = Known(-1, -1, {}, {}, {}, {})
    newest = settled = -1
    last: dict[tuple[str, ...], tuple[int, float, dict[str, str]]] = {}
    for metric in sorted(STATE):
        for series in hub.query(metric, start=0, end=1 << 52, tags={"registry": registry}):
            tags, (at, value) = series["tags"], series["points"][-1]
            newest = max(newest, at)
            settled = max(settled, at) if metric == MODEL else settled
            # A version's status, stage and run are tags, so each that it had is a series; the newest point counts.
            key = (metric, tags["model_name"], tags.get("version", tags.get("alias", "")))
            if key not in last or last[key][0] < at:
                last[key] = at, value, tags
    for (metric, name, rest), (at, value, tags) in last.items():
        if metric == MODEL and value:
            known.models[name] = int(value)
        elif metric == VERSION and tags["status"] != DELETED:
            known.versions[name, rest] = Version(int(value), tags["status"], tags["stage"])
        elif metric == ALIAS:
            known.aliases[name, rest] = f"{value:.0f}", at
        elif metric == UNREAD and value:
            known.unread[name, rest] = tags["run_id"]
    return known._replace(newest=newest, settled=settled)


def _again(known: Known, missing: set[Key], as_of: int) -> dict[Key, str]:
    """The runs to ask for again; of more than a sync asks for, others each time."""
    there = known.unread.keys() & known.versions.keys() - missing
    drawn = sorted(there, key=lambda key: (crc32(repr((key, as_of)).encode()), key))[:MOST_AGAIN]
    return {key: known.unread[key] for key in sorted(drawn)}


def _settled(known: Known, changes: Changes) -> Iterator[Metric]:
    """One point, once nothing can show late any more: later syncs need not look behind the newest change."""
    newest, name = max(((version.updated, key[0]) for key, version in known.versions.items()), default=(-1, ""))
    if name in known.models and known.settled - LATE_MS <= newest < changes.as_of - LATE_MS:
        yield changes.metric(MODEL, name, known.models[name], {})


def _version(row: Mapping[str, Any]) -> Version:
    return Version(
        int(row["last_updated_timestamp"]), str(row.get("status", "")), str(row.get("current_stage") or "None")
    )


def _tags(row: Mapping[str, Any]) -> dict[str, str]:
    return {tag["key"]: tag.get("value", "") for tag in row.get("tags", ())}


def _none(version: str) -> str | None:
    return None if version == "0" else version
