"""Vertex AI's online prediction metrics, from Cloud Monitoring into the hub."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from datetime import timedelta
from math import isfinite
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import timezone

from airflow_provider_airis.catalog import MetricSpec
from airflow_provider_airis.errors import PermanentError, RetryableError
from airflow_provider_airis.operators.vertex_ai_names import Names
from airflow_provider_airis.records import Event, Metric, Window, from_ms, to_ms
from airflow_provider_airis.sources.history import HistoryOperator, Inventory, Retention

if TYPE_CHECKING:
    from airflow_provider_airis.hooks.vertex_ai import Series, VertexAIHook

PERCENTILES = (5, 50, 95, 99)
_PERIOD_S = 60
RETENTION = Retention("Cloud Monitoring keeps Google's metrics for 6 weeks", ((timedelta(weeks=6), _PERIOD_S),))
# https://cloud.google.com/stackdriver/pricing: of the Monitoring API's reads, beyond a million free ones a month.
_DOLLARS_A_SERIES = 0.5 / 1_000_000


class VertexAIToAirisOperator(HistoryOperator):
    """Delivers the online prediction metrics of one project's Vertex AI endpoints: traffic, errors, latency, load.

    Every point is one minute of Cloud Monitoring's, at the minute's **start**, with the unit that Google names: source
    ``gcp-vertex-<endpoint's display name>``, tags ``endpoint_id``, ``endpoint_name``, ``deployed_model_id``,
    ``deployed_model``, ``location``, ``project_id``, ``cloud_provider``, ``service``, ``statistic`` (Google's aligner),
    ``period_s``, and every further label of the metric, such as ``latency_type``, ``response_code``, ``replica_id``.
    Where Cloud Monitoring has no point, none is made up.

    A metric and aligner is one list call a page of 100,000 points, for all endpoints of the project together.

    Display names are those of the time: Cloud Monitoring's labels come before what the Endpoint service says now, so
    that an endpoint that has been deleted or renamed since keeps its series. One that neither knows has its id as name.
    What may get another name later, since its location cannot be listed now, is left out, and a failed part.

    A project that is the scoping project of a metrics scope shows other projects' series too. They are left to the
    project that owns them.

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
    retention: ClassVar[Retention] = RETENTION
    template_fields: Sequence[str] = (
        *HistoryOperator.template_fields,
        "gcp_conn_id",
        "project_id",
        "locations",
    )

    def __init__(
        self,
        *,
        gcp_conn_id: str = "google_cloud_default",
        project_id: str | None = None,
        locations: Sequence[str] = (),
        percentiles: Sequence[int] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.gcp_conn_id = gcp_conn_id
        self.project_id = project_id
        self.locations = locations
        self.percentiles = percentiles
        self.hook: VertexAIHook | None = None

    def collect(self, window: Window) -> Iterator[Metric | Event]:
        """Yield the points of the minutes that start in the window, page by page."""
        from airflow_provider_airis.hooks.vertex_ai import VertexAIHook

        wanted = [(spec, spec.origin.replace(":", "/"), self._aligners(spec)) for spec in self.specs()]
        window, _ = self.periods(window, timezone.utcnow())
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
                                yield from self._points(series, spec, names.tags(series, aligner, _PERIOD_S), window)
                with self.part(f"{project}/{spec.name}"):
                    self._check_visible(metric_type, window, (delays or {}).get(metric_type, 0))
            if not self.failures:
                self.check_matched(f"project {project} by connection {self.gcp_conn_id}")
            if names.left_out:
                self._leave_out(project, sorted(names.left_out))

    def _leave_out(self, project: str, endpoints: Sequence[str]) -> None:
        """What is not delivered, for it would be under another name later: never in silence."""
        self.log.warning("Left out until their names can be read: %s", ", ".join(endpoints))
        if not self.failures:
            self.failures[f"{project}/names"] = PermanentError(
                f"Left out, since it cannot be told whose they are: {', '.join(endpoints)}. Let connection "
                f"{self.gcp_conn_id} list the endpoints of project {project}"
            )

    def _points(self, series: Series, spec: MetricSpec, tags: dict[str, str], window: Window) -> Iterator[Metric]:
        if self.wanted(tags["endpoint_name"], tags["endpoint_id"]):
            for timestamp, value in zip(series.timestamps, series.values, strict=True):
                if timestamp in window and isfinite(value):
                    yield Metric(f"gcp-vertex-{tags['endpoint_name']}", spec.name, value, spec.unit, tags, timestamp)

    def inventory(self, windows: Sequence[Window]) -> Inventory:
        """See :meth:`HistoryOperator.inventory`; from the series of the newest window.

        Cloud Monitoring lists series only by returning them without points, which it counts as returned.
        """
        from airflow_provider_airis.hooks.vertex_ai import MAX_POINTS, VertexAIHook

        wanted = [(spec.origin.replace(":", "/"), self._aligners(spec)) for spec in self.specs()]
        series = calls = returned = 0
        periods = (windows[0].end - windows[0].start) // (_PERIOD_S * 1000)
        self.hook = VertexAIHook(self.gcp_conn_id, project_id=self.project_id or None)
        with self.hook as hook, self.part(f"{hook.project_id}/ListTimeSeries"):
            known = self._delays(hook)
            names = self._names(hook, windows[-1], known)
            # What a run asks for before it reads.
            calls, returned = hook.calls.total(), hook.series_returned
            for metric_type, aligners in wanted:
                if known is not None and metric_type not in known:
                    continue
                shown = list(hook.labels(metric_type, windows[-1], locations=self.locations))
                before, returned_before = hook.calls.total(), hook.series_returned
                held, read = len(shown), sum(map(names.sure, shown))
                # A run asks for the names too.
                calls += hook.calls.total() - before
                returned += hook.series_returned - returned_before
                pages = max(1, -(-held * periods // MAX_POINTS))
                series += read * len(aligners)
                calls += pages * len(aligners)
                # A series that goes on on the next page is returned on both.
                returned += (held + pages - 1) * len(aligners)
        return Inventory(series, lambda _: (calls, returned * _DOLLARS_A_SERIES))

    def summary(self) -> dict[str, Any]:
        """What was asked of Google: it bills the time series that its answers have, page by page."""
        if self.hook is None:
            return {}
        return {"series_returned": self.hook.series_returned, "google_calls": self.hook.calls.total()}

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

    def _names(self, hook: VertexAIHook, window: Window, known: Container[str] | None) -> Names:
        """The display names of whatever may have points in the window.

        Every deployed model has the metric ``replicas``, with both display names among its labels; the metrics of
        resources lack them.
        """
        replicas = next(spec for spec in self.row.metrics if spec.name == "replicas").origin.replace(":", "/")

        def listed(location: str) -> list[Any] | None:
            endpoints: list[Any] | None = None
            with self.part(f"{hook.project_id}/{location}"):
                endpoints = list(hook.endpoints(location))
            for endpoint in endpoints or ():
                self.wanted(endpoint.display_name, endpoint.name.rpartition("/")[2])
            return endpoints

        def remembered(location: str, endpoint: str) -> list[Series] | None:
            if known is not None and replicas not in known:
                return []
            now = timezone.utcnow()
            kept = Window(to_ms(now - RETENTION.periods[-1][0]), to_ms(now)).aligned(_PERIOD_S)
            found: list[Series] | None = None
            with self.part(f"{hook.project_id}/{location}/{endpoint}"):
                found = list(hook.labels(replicas, kept, locations=[location], endpoint=endpoint))
            return found  # noqa: RET504  the part may have failed

        names = Names(hook.project_id, listed, remembered)
        if known is None or replicas in known:
            for series in hook.labels(replicas, window, locations=self.locations):
                names.learn(series)
        for location in self.locations:
            names.locate(location)
        return names


def _visible_after(metadata: Any) -> int:
    return int(metadata.sample_period.seconds + metadata.ingest_delay.seconds)
