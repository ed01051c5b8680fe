"""What a hub was told of a registry before there were checkpoints: once, metrics said what was known."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from airflow_provider_airis.errors import PermanentError
from airflow_provider_airis.sources.mlflow.changes import ALIAS, UPDATED, Alias, Model, Unread, Version
from airflow_provider_airis.sources.registry import RegistryState

if TYPE_CHECKING:
    from airflow_provider_airis.hooks.airis import AirisHook, LastPoint

VERSION, UNREAD = "model_version_last_updated", "model_version_run_unread"


def adopt(hub: AirisHook, registry: str, state: RegistryState) -> None:
    """Stage what these metrics say, each series' last point; afterwards they are not read again.

    A hub that cannot be asked for them has none: the sync that wrote them asked, too. On such a hub, and on one that
    has lost a checkpoint, all is new again, under the keys that the events had the first time.
    """
    points = list(_last(hub, registry))
    models: dict[str, Model] = {}
    for name, _, point in points:
        if point.name == UPDATED and point.value:
            models[name] = Model(int(point.value))
    for name, rest, point in points:
        if (model := models.get(name)) is None:
            continue
        if point.name == ALIAS:
            model.aliases[rest] = Alias(f"{point.value:.0f}", point.timestamp)
        elif point.name == VERSION and point.tags["status"] != "DELETED":
            model.versions[rest] = Version(int(point.value), point.tags["status"], point.tags["stage"])
        elif point.name == UNREAD and point.value:
            model.unread[rest] = Unread(point.tags["run_id"])
    for name, model in models.items():
        state.put(name, model.entry())
    if points:
        state.cursor["told"] = max(point.timestamp for *_, point in points)


def _last(hub: AirisHook, registry: str) -> Iterator[tuple[str, str, LastPoint]]:
    """Model, version or alias, and what was said of it last.

    A version's status, stage and run were tags, so that each that it had is a series.
    """
    newest: dict[tuple[str, str, str], LastPoint] = {}
    try:
        for metric in (UPDATED, VERSION, ALIAS, UNREAD):
            for point in hub.metrics.last(name=metric, tags={"registry": registry}):
                key = metric, point.tags["model_name"], point.tags.get("version", point.tags.get("alias", ""))
                if key not in newest or newest[key].timestamp < point.timestamp:
                    newest[key] = point
    except PermanentError as error:
        if error.status not in (404, 405):
            raise
    yield from ((name, rest, point) for (_, name, rest), point in newest.items())
