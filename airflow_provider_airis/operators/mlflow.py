"""What changes in a model registry, from MLflow into the hub."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar
from zlib import crc32

from msgspec.structs import replace

from airflow_provider_airis.records import Event, Metric, Window
from airflow_provider_airis.sources.base import CollectOperator, Delivered
from airflow_provider_airis.sources.mlflow.adoption import adopt
from airflow_provider_airis.sources.mlflow.changes import Changes, Logged, Model, Unread, where_logged
from airflow_provider_airis.sources.mlflow.reading import Reading
from airflow_provider_airis.sources.mlflow.tags import Tags
from airflow_provider_airis.sources.registry import RegistryState, state_name

if TYPE_CHECKING:
    from airflow_provider_airis.hooks.airis import AirisHook
    from airflow_provider_airis.hooks.mlflow import MLflowHook

# How much later than the time that it bears a change may become visible.
LATE_MS = 60_000
AT_ONCE = 8
# How many of the runs that could not be read, or have not ended, one sync asks for again.
MOST_AGAIN = 1_000

Key = tuple[str, str]


class MLflowToAirisOperator(CollectOperator):
    """Delivers what has changed in a registry since the hub was told last, and the metrics of the versions' runs.

    What is known is kept in the hub's checkpoints ``mlflow/<registry>``. They are written once the events have arrived,
    and an event's key is the change: a sync that died half way is repeated without a trace. Sources are
    ``mlflow-<model>``; every point has the tags ``registry`` and ``model_name``.

    A registry has no history: each run reads what is there now, whatever its interval. A change that was undone between
    two runs is not seen, and those of descriptions and of tags that are not watched are none.

    Nothing is called deleted before MLflow was asked for it by name. If too many models or versions are missing, the
    task fails, and nothing is reported deleted.

    :param mlflow_conn_id: connection of type ``mlflow``.
    :param registry: the registry's name in tags and keys; host, path and workspace of the connection unless given.
    :param run_metrics: whether to read the metrics of new and changed versions' runs and logged models.
    :param metrics_after_s: for how long after a version was made its metrics are read again each time, for what is
        logged after its run has ended.
    :param watched_tags: names of versions' tags, as ``validation_status``, whose changes are events.
    :param max_missing_share: share of the known models, or versions, that may be missing at once; no share is taken of
        the first five.
    :param max_missing: how many of them may be missing at most.

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
        metrics_after_s: int = 0,
        watched_tags: Sequence[str] | None = None,
        max_missing_share: float = 0.1,
        max_missing: int = 500,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.mlflow_conn_id = mlflow_conn_id
        self.registry = registry
        self.run_metrics = run_metrics
        self.metrics_after_s = metrics_after_s
        self.watched_tags = list(watched_tags or ())
        self.max_missing_share = max_missing_share
        self.max_missing = max_missing
        self.skipped = 0
        self.gone = 0

    def collect(self, window: Window) -> Iterator[Metric | Event]:
        """Yield the metrics of runs, and the changes as events."""
        from airflow_provider_airis.hooks.airis import AirisHook

        with AirisHook(self.airis_conn_id) as hub, self._sync(hub, window) as sync:
            yield from sync.records()

    def deliver(self, hub: AirisHook, window: Window, delivery: str) -> Delivered:
        """Send the changes; what is known is written only once they have arrived, and the hub has taken them."""
        with self._sync(hub, window) as sync:
            sent = hub.ingest(sync.records(), delivery=delivery)
            figures = {name: getattr(sent, name) for name in ("points", "events", "duplicates", "rejected", "calls")}
            delivered = Delivered(sent.points + sent.events, figures, sent.refusals)
            # Otherwise the task fails, and everything is sent again.
            if sent.rejected <= self.max_rejected * (delivered.records + sent.rejected):
                sync.commit()
        return delivered

    def summary(self) -> dict[str, Any]:
        """``metrics_skipped`` are of runs, and no finite numbers; ``runs_gone`` are not there any more."""
        return {"metrics_skipped": self.skipped, "runs_gone": self.gone}

    @contextmanager
    def _sync(self, hub: AirisHook, window: Window) -> Iterator[Sync]:
        from airflow_provider_airis.hooks.mlflow import MLflowHook

        self.skipped = self.gone = 0
        with MLflowHook(self.mlflow_conn_id) as mlflow:
            yield Sync(self, hub, mlflow, window)


class Sync:
    """One sync: what is known, what MLflow shows, and what is known thereafter."""

    def __init__(self, operator: MLflowToAirisOperator, hub: AirisHook, mlflow: MLflowHook, window: Window) -> None:
        self.operator = operator
        self.hub = hub
        self.mlflow = mlflow
        self.registry = operator.registry or mlflow.registry
        self.state = RegistryState(hub.checkpoints, state_name(operator.system, self.registry))
        if self.state.is_new:
            adopt(hub, self.registry, self.state)
        self.told = int(self.state.cursor.get("told", -1))
        self.as_of = max(window.end - 1, self.told + 1)
        self.reading = Reading(mlflow, self.state, self.registry, self._watermark(), operator.part)
        self.reading.limits = {"max_missing": operator.max_missing, "max_missing_share": operator.max_missing_share}
        self.reading.advice = (
            f"Nothing was reported deleted. Has connection {operator.mlflow_conn_id} lost a right, or does it lead to "
            "another server? If they are really gone, set max_missing and max_missing_share for one run"
        )

    @cached_property
    def tags(self) -> Tags | None:
        """The tags that are watched."""
        if not (names := self.operator.watched_tags):
            return None
        state = RegistryState(self.hub.checkpoints, state_name("mlflow-tags", self.registry))
        return Tags(self.mlflow, state, self.registry, names, self.as_of, self.operator.part)

    def records(self) -> Iterator[Metric | Event]:
        """Everything that is to be delivered; what is known from now on is staged for :meth:`commit`."""
        changes = [Changes(self.registry, name, *of, self.as_of) for name, of in self.reading.models()]
        read: dict[Key, Unread | None] = {}
        if self.operator.run_metrics:
            yield from self._run_metrics(self._asked(changes), read)
        for each in changes:
            yield from each.records()
        self._stage(changes, read)
        if self.tags:
            yield from self.tags.records()

    def commit(self) -> None:
        """Write what is known from now on."""
        if self.tags:
            self.tags.state.commit()
        newest = self.reading.newest
        # Once nothing can show late any more, later syncs need not look behind the newest change.
        settled = self.told - LATE_MS <= newest < self.as_of - LATE_MS
        if self.state.staged or settled or newest != self.state.cursor.get("newest", -1):
            self.state.commit({"newest": newest, "told": self.as_of})

    def _watermark(self) -> int:
        """The last update, Unix ms, up to which all versions are known."""
        newest = int(self.state.cursor.get("newest", -1))
        # What bears a time long before the hub was told was visible by then.
        return newest if newest < self.told - LATE_MS else max(-1, newest - LATE_MS)

    def _asked(self, changes: Sequence[Changes]) -> dict[Key, Unread]:
        """Where the metrics are that are to be read: of versions that have changed, and those that are due."""
        gone = {(each.name, version) for each in changes for version in each.forgotten}
        due = {
            (name, version): where
            for name, entry in self.state.due()
            for version, where in (Model.of(entry) or Model(0)).unread.items()
            if (name, version) not in gone
        }
        # Of more than one sync asks for, others each time.
        drawn = sorted(due, key=lambda key: (crc32(repr((key, self.as_of)).encode()), key))[:MOST_AGAIN]
        asked = {key: due[key] for key in sorted(drawn)}
        for each in changes:
            for version, row in each.changed.items():
                until = int(row["creation_timestamp"]) + 1000 * self.operator.metrics_after_s
                where = where_logged(row, until if self.operator.metrics_after_s else 0)
                if where.run or where.model:
                    asked[each.name, version] = where
        return asked

    def _run_metrics(self, asked: Mapping[Key, Unread], read: dict[Key, Unread | None]) -> Iterator[Metric]:
        """The last values of what was logged; ``read`` is told what has to be read again, None for what has not.

        What a run logs does not change its version: one that has not ended is asked for again until it has.
        """
        every = [*asked.items()]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for first in range(0, len(every), 10 * AT_ONCE):
                some = every[first : first + 10 * AT_ONCE]
                answers = [pool.submit(self._logged, where) for _, where in some]
                for ((name, version), where), answer in zip(some, answers, strict=True):
                    read[name, version] = where
                    what = f"run {where.run}" if where.run else f"logged model {where.model}"
                    with self.operator.part(f"{self.registry}/{name}/{version}/{what}"):
                        logged = answer.result()
                        if logged.has_ended and self.as_of >= where.until:
                            read[name, version] = None
                        if logged.run is None and logged.model is None:
                            self.operator.gone += 1
                            self.operator.log.warning("The %s of %s version %s is gone", what, name, version)
                        for metric in logged.metrics(self.registry, name, version, where, self.as_of):
                            if metric is None:
                                self.operator.skipped += 1
                            else:
                                yield metric

    def _logged(self, where: Unread) -> Logged:
        model = self.mlflow.logged_model(where.model) if where.model else None
        run = where.run or (model or {}).get("info", {}).get("source_run_id")
        return Logged(self.mlflow.run(run) if run else None, model)

    def _stage(self, changes: Sequence[Changes], read: Mapping[Key, Unread | None]) -> None:
        changed = {each.name: each for each in changes}
        answers: dict[str, dict[str, Unread | None]] = {name: {} for name in changed}
        for (name, version), where in read.items():
            answers.setdefault(name, {})[version] = where
        for name, of in answers.items():
            known, each = Model.of(self.state.get(name)), changed.get(name)
            held: dict[str, Unread | None] = {**(known.unread if known and not (each and each.anew) else {}), **of}
            unread = {version: where for version, where in held.items() if where is not None}
            after = each.after(unread) if each else known and replace(known, unread=unread)
            if after is None:
                self.state.drop(name)
            else:
                entry = after.entry()
                # Of which a version could not be asked for: it is looked at again, as if it had changed.
                self.state.put(name, replace(entry, mark="") if name in self.reading.unsure else entry)
