"""Vertex AI's online prediction metrics, from Cloud Monitoring into the hub."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from datetime import timedelta
from fnmatch import fnmatchcase
from math import isfinite
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import timezone

from airflow_provider_airis.catalog import MetricSpec
from airflow_provider_airis.errors import PermanentError, RetryableError
from airflow_provider_airis.operators.base import CollectOperator
from airflow_provider_airis.planning import Reading
from airflow_provider_airis.records import Event, Metric, Window, from_ms

if TYPE_CHECKING:
    from airflow_provider_airis.hooks.vertex_ai import Series, VertexAIHook

PERCENTILES = (5, 50, 95, 99)
_PERIOD_S = 60
# Cloud Monitoring keeps Google's metrics six weeks; a long read must not outgrow them on the way.
_RETENTION = timedelta(weeks=6)
_READING_TIME = timedelta(hours=1)
# https://cloud.google.com/stackdriver/pricing: of the Monitoring API's reads, beyond a million free ones a month.
_DOLLARS_A_SERIES = 0.5 / 1_000_000
# Labels that are told by tags of another name.
_NAMES = frozenset({"deployed_model_id", "endpoint_display_name", "model_display_name"})


class VertexAIToAirisOperator(CollectOperator):
    """Delivers the online prediction metrics of one project's Vertex AI endpoints: traffic, errors, latency, load.

    Every point is one minute of Cloud Monitoring's, at the minute's **start**, with the unit that Google names: source
    ``gcp-vertex-<endpoint's display name>``, tags ``endpoint_id``, ``endpoint_name``, ``deployed_model_id``,
    ``deployed_model``, ``location``, ``project_id``, ``cloud_provider``, ``service``, ``statistic`` (Google's aligner),
    ``period_s``, and every further label of the metric, such as ``latency_type``, ``response_code``, ``replica_id``.
    Where Cloud Monitoring has no point, none is made up.

    A metric and aligner is one list call a page of 100,000 points, for all endpoints of the project together.

    Display names are those of the time: Cloud Monitoring's labels come before what the Endpoint service says now, so
    that an endpoint that has been deleted or renamed since keeps its series. One that neither knows has its id as name.

    A point becomes visible some minutes after its minute, as the metric's descriptor says. A metric that is not yet
    visible to the window's end, and not read again by the next runs either (``lookback_s``), is a failed part.

    :param gcp_conn_id: connection of type ``google_cloud_platform``.
    :param project_id: project to read; the connection's if None or empty.
    :param locations: locations to read, ``europe-west4``; all that have points unless given.
    :param endpoints: display names, ids or patterns (``fraud-*``) of the endpoints to read; all unless given.
    :param metrics: names to read, as the hub has them (``prediction_count``); all of the catalog unless given.
    :param percentiles: of 5, 50, 95 and 99, in place of the catalog's. Cloud Monitoring computes them from the
        distributions' buckets, per series; they cannot be combined any further.

    Needs ``monitoring.timeSeries.list``, ``monitoring.metricDescriptors.list`` and ``aiplatform.endpoints.list``.

    See https://cloud.google.com/monitoring/api/metrics_gcp_a_b#gcp-aiplatform
    """

    system: ClassVar[str] = "vertex_ai"
    template_fields: Sequence[str] = (
        *CollectOperator.template_fields,
        "gcp_conn_id",
        "project_id",
        "locations",
        "endpoints",
        "metrics",
    )

    def __init__(
        self,
        *,
        gcp_conn_id: str = "google_cloud_default",
        project_id: str | None = None,
        locations: Sequence[str] = (),
        endpoints: Sequence[str] = (),
        metrics: Sequence[str] = (),
        percentiles: Sequence[int] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.gcp_conn_id = gcp_conn_id
        self.project_id = project_id
        self.locations = locations
        self.endpoints = endpoints
        self.metrics = metrics
        self.percentiles = percentiles
        self.hook: VertexAIHook | None = None

    def collect(self, window: Window) -> Iterator[Metric | Event]:
        """Yield the points of the minutes that start in the window, page by page."""
        from airflow_provider_airis.hooks.vertex_ai import VertexAIHook

        wanted = [(spec, spec.origin.replace(":", "/"), self._aligners(spec)) for spec in self._specs()]
        _check_retention(window)
        step = _PERIOD_S * 1000
        window = Window(-(-window.start // step) * step, -(-window.end // step) * step)
        self.hook = VertexAIHook(self.gcp_conn_id, project_id=self.project_id or None)
        with self.hook as hook:
            project = hook.project_id
            if window.start == window.end:
                return
            delays = self._delays(hook)
            names = self._names(hook, window, delays)
            for spec, metric_type, aligners in wanted:
                if delays is not None and metric_type not in delays:
                    self.log.info("Project %s does not have %s", project, metric_type)
                    continue
                for aligner in aligners:
                    with self.part(f"{project}/{spec.name}/{aligner}"):
                        for series in hook.time_series(metric_type, window, aligner, locations=self.locations):
                            if names.sure(series):
                                yield from self._points(series, spec, names.tags(series, project, aligner), window)
                with self.part(f"{project}/{spec.name}"):
                    self._check_visible(metric_type, window, (delays or {}).get(metric_type, 0))
            if names.left_out:
                self.log.warning("Left out until their names can be read: %s", ", ".join(sorted(names.left_out)))

    def _points(self, series: Series, spec: MetricSpec, tags: dict[str, str], window: Window) -> Iterator[Metric]:
        if self._wanted(tags):
            for timestamp, value in zip(series.timestamps, series.values, strict=True):
                if timestamp in window and isfinite(value):
                    yield Metric(f"gcp-vertex-{tags['endpoint_name']}", spec.name, value, spec.unit, tags, timestamp)

    def plan(self, windows: Sequence[Window]) -> Iterator[Reading]:
        """What each window would ask Cloud Monitoring for, from the series of the newest one.

        Cloud Monitoring lists series only by returning them without points, which it counts as returned.
        """
        from airflow_provider_airis.hooks.vertex_ai import MAX_POINTS, VertexAIHook

        wanted = [(spec.origin.replace(":", "/"), self._aligners(spec)) for spec in self._specs()]
        series = calls = returned = 0
        periods = (windows[0].end - windows[0].start) // (_PERIOD_S * 1000)
        self.hook = VertexAIHook(self.gcp_conn_id, project_id=self.project_id or None)
        with self.hook as hook, self.part(f"{hook.project_id}/ListTimeSeries"):
            known = self._delays(hook)
            self._names(hook, windows[-1], known)
            # What a run asks for before it reads.
            calls, returned = hook.calls.total(), hook.series_returned
            for metric_type, aligners in wanted:
                if known is not None and metric_type not in known:
                    continue
                held = sum(1 for _ in hook.labels(metric_type, windows[-1], locations=self.locations))
                pages = max(1, -(-held * periods // MAX_POINTS))
                series += held * len(aligners)
                calls += pages * len(aligners)
                # A series that goes on on the next page is returned on both.
                returned += (held + pages - 1) * len(aligners)
        for window in windows:
            try:
                _check_retention(window)
            except PermanentError:
                yield Reading(window)
                continue
            yield Reading(
                window,
                period_s=_PERIOD_S,
                series=series,
                points=series * periods,
                calls=calls,
                dollars=returned * _DOLLARS_A_SERIES,
            )

    def summary(self) -> dict[str, Any]:
        """What was asked of Google: it bills the time series that its answers have, page by page."""
        if self.hook is None:
            return {}
        return {"series_returned": self.hook.series_returned, "google_calls": self.hook.calls.total()}

    def _specs(self) -> list[MetricSpec]:
        known = {spec.name: spec for spec in self.row.metrics}
        if unknown := sorted(set(self.metrics) - known.keys()):
            raise PermanentError(
                f"metrics names {', '.join(unknown)}, which the catalog does not have; it has {', '.join(known)}",
                pointer="/metrics",
            )
        return [known[name] for name in self.metrics or known]

    def _aligners(self, spec: MetricSpec) -> Sequence[str]:
        if not self.percentiles or not spec.statistics[0].startswith("ALIGN_PERCENTILE"):
            return spec.statistics
        if unknown := sorted(set(self.percentiles) - {*PERCENTILES}):
            raise PermanentError(
                f"percentiles has {', '.join(map(str, unknown))}, which Cloud Monitoring does not compute; "
                f"it has {', '.join(map(str, PERCENTILES))}",
                pointer="/percentiles",
            )
        return [f"ALIGN_PERCENTILE_{percentile:02}" for percentile in self.percentiles]

    def _check_visible(self, metric_type: str, window: Window, delay_s: int) -> None:
        passed_s = int((timezone.utcnow() - from_ms(window.end)).total_seconds())
        if delay_s <= passed_s:
            return
        if delay_s > passed_s + self.lookback_s:
            raise RetryableError(
                f"The newest points of {metric_type} become visible within {delay_s} s, but only {passed_s} s have "
                f"passed since the window's end: read it later, raise delay_s, or let lookback_s cover the rest"
            )
        self.log.info("The newest points of %s may come with the next runs, which look back", metric_type)

    def _delays(self, hook: VertexAIHook) -> dict[str, int] | None:
        """By metric type that the project has: seconds until a point is visible for certain; None if not readable."""
        try:
            return {found.type: _visible_after(found.metadata) for found in hook.metric_descriptors()}
        except PermanentError as error:
            # One that passes fails the task: every call that follows would wait as long, in vain.
            self.failures[f"{hook.project_id}/ListMetricDescriptors"] = error
            return None

    def _names(self, hook: VertexAIHook, window: Window, known: Container[str] | None) -> _Names:
        """The display names of whatever may have points in the window.

        Every deployed model has the metric ``replicas``, with both display names among its labels; the metrics of
        resources lack them.
        """
        names = _Names()
        replicas = next(spec for spec in self.row.metrics if spec.name == "replicas").origin.replace(":", "/")
        if known is None or replicas in known:
            for series in hook.labels(replicas, window, locations=self.locations):
                names.learn(series)
        for location in self.locations or sorted(names.locations):
            names.unsure.add(location)
            with self.part(f"{hook.project_id}/{location}"):
                for endpoint in hook.endpoints(location):
                    names.add(endpoint)
                names.unsure.remove(location)
        return names

    def _wanted(self, tags: dict[str, str]) -> bool:
        named = (tags["endpoint_name"], tags["endpoint_id"])
        return not self.endpoints or any(fnmatchcase(name, pattern) for pattern in self.endpoints for name in named)


def _visible_after(metadata: Any) -> int:
    return int(metadata.sample_period.seconds + metadata.ingest_delay.seconds)


class _Names:
    """Display names by id, of endpoints and of the models deployed to them.

    :ivar unsure: locations of which not all names could be read; ``left_out``: the endpoints that have none therefore.
    """

    def __init__(self) -> None:
        self.locations: set[str] = set()
        self.unsure: set[str] = set()
        self.left_out: set[str] = set()
        self._endpoints: dict[str, str] = {}
        self._models: dict[tuple[str, str], str] = {}

    def learn(self, series: Series) -> None:
        """What a time series' own labels say. Of two names that an id had within the window, the lesser."""
        endpoint, model = series.resource["endpoint_id"], series.metric.get("deployed_model_id", "")
        self.locations.add(series.resource["location"])
        if name := series.metric.get("endpoint_display_name"):
            self._endpoints[endpoint] = min(name, self._endpoints.get(endpoint, name))
        if name := series.metric.get("model_display_name"):
            self._models[endpoint, model] = min(name, self._models.get((endpoint, model), name))

    def add(self, endpoint: Any) -> None:
        """What the Endpoint service says, where the labels said nothing."""
        endpoint_id = endpoint.name.rpartition("/")[2]
        if endpoint.display_name:
            self._endpoints.setdefault(endpoint_id, endpoint.display_name)
        for model in endpoint.deployed_models:
            if model.display_name:
                self._models.setdefault((endpoint_id, model.id), model.display_name)

    def sure(self, series: Series) -> bool:
        """Whether the series has the names that it has in every other run: under others its points were there twice."""
        endpoint, model = series.resource["endpoint_id"], series.metric.get("deployed_model_id", "")
        named = "endpoint_display_name" in series.metric or endpoint in self._endpoints
        named &= not model or "model_display_name" in series.metric or (endpoint, model) in self._models
        location = series.resource["location"]
        if not named and location in self.unsure:
            self.left_out.add(f"{location}/{endpoint}")
            return False
        return True

    def tags(self, series: Series, project: str, aligner: str) -> dict[str, str]:
        """The tags of a time series' points."""
        endpoint, model = series.resource["endpoint_id"], series.metric.get("deployed_model_id", "")
        tags = {
            "endpoint_id": endpoint,
            "endpoint_name": series.metric.get("endpoint_display_name") or self._endpoints.get(endpoint, endpoint),
            "deployed_model_id": model,
            "deployed_model": series.metric.get("model_display_name") or self._models.get((endpoint, model), ""),
            "location": series.resource["location"],
            "project_id": project,
            "cloud_provider": "gcp",
            "service": "vertex_ai",
            "statistic": aligner,
            "period_s": str(_PERIOD_S),
            **{name: value for name, value in sorted(series.metric.items()) if name not in _NAMES},
        }
        return {name: value for name, value in tags.items() if value}


def _check_retention(window: Window) -> None:
    oldest = timezone.utcnow() - _RETENTION + _READING_TIME
    if from_ms(window.start) < oldest:
        raise PermanentError(
            f"Cloud Monitoring keeps Google's metrics for 6 weeks: those of {from_ms(window.start):%Y-%m-%d %H:%M} are "
            f"deleted; start no earlier than {oldest:%Y-%m-%dT%H:%MZ}"
        )
