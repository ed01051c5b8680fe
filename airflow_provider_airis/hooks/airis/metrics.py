"""What the hub knows of metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import msgspec

from airflow_provider_airis.hooks.delivery import API

if TYPE_CHECKING:
    from airflow_provider_airis.hooks.airis.hook import AirisHook


class LastPoint(msgspec.Struct, frozen=True):
    """A series and its newest point; ``timestamp`` is Unix ms."""

    source: str
    name: str
    unit: str
    tags: dict[str, str]
    timestamp: int
    value: float


class Metrics:
    """The metrics of a hub."""

    def __init__(self, hub: AirisHook) -> None:
        self._hub = hub

    def last(
        self, *, source: str | None = None, name: str | None = None, tags: Mapping[str, str] | None = None
    ) -> Iterator[LastPoint]:
        """Each series' newest point.

        :param tags: only series that have these.
        :raises PermanentError: with status 404, the hub cannot be asked for points.
        """
        wanted = [f"{key}:{value}" for key, value in (tags or {}).items()] or None
        params = {"source": source, "name": name, "tag": wanted}
        for found in self._hub.pages(f"{API}/metrics/last", params=params, items="series"):
            yield self._hub.converted(found, LastPoint)
