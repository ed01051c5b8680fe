"""Whose a Cloud Monitoring series is, and the display names that it is told by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_airis.hooks.vertex_ai import Series

# Labels that are told by tags of another name.
_NAMES = frozenset({"deployed_model_id", "endpoint_display_name", "model_display_name"})


class Names:
    """Display names by id, of a project's endpoints and of the models deployed to them.

    A name comes from the labels of the window, else from the Endpoint service, else from the labels of all time that
    is kept. What neither has is a deleted endpoint that never had one, and is told by its id: so it always is.

    :param listed: the endpoints of a location, None if they cannot be read.
    :param remembered: the series of an endpoint that have its names, of all time that is kept; None likewise.
    :ivar left_out: the endpoints that are not told apart or not named now, for others would be used later.
    """

    def __init__(
        self,
        project: str,
        listed: Callable[[str], Sequence[Any] | None],
        remembered: Callable[[str, str], Iterable[Series] | None],
    ) -> None:
        self.project = project
        self.left_out: set[str] = set()
        self._listed = listed
        self._remembered = remembered
        self._owners = {project}
        self._locations: dict[str, bool] = {}
        self._looked_up: dict[str, bool] = {}
        self._endpoints: dict[str, str] = {}
        self._models: dict[tuple[str, str], str] = {}

    def learn(self, series: Series) -> None:
        """What a time series' own labels say. Of two names that an id had within the window, the lesser."""
        endpoint, model = series.resource["endpoint_id"], series.metric.get("deployed_model_id", "")
        if name := series.metric.get("endpoint_display_name"):
            self._endpoints[endpoint] = min(name, self._endpoints.get(endpoint, name))
        if name := series.metric.get("model_display_name"):
            self._models[endpoint, model] = min(name, self._models.get((endpoint, model), name))

    def locate(self, location: str) -> bool:
        """Ask the Endpoint service for a location, once; whether it answered."""
        if location not in self._locations:
            endpoints = self._listed(location)
            self._locations[location] = endpoints is not None
            for endpoint in endpoints or ():
                self._add(endpoint)
        return self._locations[location]

    def _add(self, endpoint: Any) -> None:
        parts = endpoint.name.split("/")
        endpoint_id = parts[-1]
        # projects/<number>/locations/…: only here the project's number stands beside what it is called by.
        self._owners.add(parts[1])
        if endpoint.display_name:
            self._endpoints.setdefault(endpoint_id, endpoint.display_name)
        for model in endpoint.deployed_models:
            if model.display_name:
                self._models.setdefault((endpoint_id, model.id), model.display_name)

    def sure(self, series: Series) -> bool:
        """Whether the series is this project's, and has the names that it has in every other run.

        Through a metrics scope a project shows other projects' series too: those are read where they belong.
        """
        location, endpoint = series.resource["location"], series.resource["endpoint_id"]
        answered = self.locate(location)
        if not self._ours(series):
            return False
        if self._named(series):
            return True
        if answered and endpoint not in self._looked_up:
            found = self._remembered(location, endpoint)
            self._looked_up[endpoint] = found is not None
            for old in found or ():
                self.learn(old)
        if answered and self._looked_up[endpoint]:
            return True
        self.left_out.add(f"{location}/{endpoint}")
        return False

    def _ours(self, series: Series) -> bool:
        owner = series.resource.get("project_id") or series.resource.get("resource_container") or self.project
        owner = owner.removeprefix("projects/")
        if owner in self._owners:
            return True
        if owner.isdecimal() and self._owners == {self.project} and not self.project.isdecimal():
            # A number, and no endpoint that would say which is this project's.
            self.left_out.add(f"{series.resource['location']}/{series.resource['endpoint_id']} of project {owner}")
        return False

    def _named(self, series: Series) -> bool:
        endpoint, model = series.resource["endpoint_id"], series.metric.get("deployed_model_id", "")
        named = "endpoint_display_name" in series.metric or endpoint in self._endpoints
        return named and (not model or "model_display_name" in series.metric or (endpoint, model) in self._models)

    def tags(self, series: Series, aligner: str, period_s: int) -> dict[str, str]:
        """The tags of a time series' points."""
        endpoint, model = series.resource["endpoint_id"], series.metric.get("deployed_model_id", "")
        tags = {
            "endpoint_id": endpoint,
            "endpoint_name": series.metric.get("endpoint_display_name") or self._endpoints.get(endpoint, endpoint),
            "deployed_model_id": model,
            "deployed_model": series.metric.get("model_display_name") or self._models.get((endpoint, model), ""),
            "location": series.resource["location"],
            "project_id": self.project,
            "cloud_provider": "gcp",
            "service": "vertex_ai",
            "statistic": aligner,
            "period_s": str(period_s),
            **{name: value for name, value in sorted(series.metric.items()) if name not in _NAMES},
        }
        return {name: value for name, value in tags.items() if value}
