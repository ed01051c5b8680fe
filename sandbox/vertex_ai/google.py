"""The methods of MetricService and EndpointService, with the limits and refusals that Google documents.

https://cloud.google.com/monitoring/api/ref_v3/rest/v3/projects.timeSeries/list
https://cloud.google.com/monitoring/api/ref_v3/rest/v3/projects.metricDescriptors/list
https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.endpoints/list
"""

from __future__ import annotations

import re
import threading
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.cloud import monitoring_v3
from google.cloud.aiplatform_v1 import types as aiplatform

from sandbox.vertex_ai.fleet import METRICS, PREFIX, Fleet, Series, aligned

MAX_POINTS = 100_000
RESOURCE = "aiplatform.googleapis.com/Endpoint"
# Kind and value type → what may be applied to it, of what is served here.
ALIGNERS = {
    ("DELTA", "INT64"): {"ALIGN_SUM", "ALIGN_DELTA", "ALIGN_MEAN", "ALIGN_MAX"},
    ("GAUGE", "INT64"): {"ALIGN_SUM", "ALIGN_MEAN", "ALIGN_MAX"},
    ("GAUGE", "DOUBLE"): {"ALIGN_SUM", "ALIGN_MEAN", "ALIGN_MAX"},
    ("DELTA", "DISTRIBUTION"): {f"ALIGN_PERCENTILE_{percentile}" for percentile in ("05", "50", "95", "99")},
}
_TERM = re.compile(r'([\w.]+)\s*=\s*(?:(starts_with|one_of)\(\s*("[^"]*"(?:\s*,\s*"[^"]*")*)\s*\)|("[^"]*"))\s*\Z')
_QUOTED = re.compile(r'"([^"]*)"')


class Refused(Exception):  # noqa: N818 - an answer, not a fault of ours
    """Google's error answer."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = grpc.StatusCode[code], message


@dataclass
class Refusal:
    """The next ``times`` requests to a method that have ``containing`` in them are refused."""

    method: str
    containing: str
    code: str
    times: float


@dataclass
class Google:
    """Answers calls. What it keeps is counters and the refusals that were ordered."""

    fleet: Fleet
    calls: Counter[str] = field(default_factory=Counter)
    refusals: list[Refusal] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def handlers(self) -> list[Any]:
        """The two services, as grpc wants them."""
        services = {
            "google.monitoring.v3.MetricService": [
                (self.list_time_series, monitoring_v3.ListTimeSeriesRequest),
                (self.list_metric_descriptors, monitoring_v3.ListMetricDescriptorsRequest),
            ],
            "google.cloud.aiplatform.v1.EndpointService": [(self.list_endpoints, aiplatform.ListEndpointsRequest)],
        }
        return [
            grpc.method_handlers_generic_handler(
                service,
                {
                    _camel(method.__name__): grpc.unary_unary_rpc_method_handler(
                        self._answering(method),
                        request_deserializer=request.pb().FromString,
                        response_serializer=lambda message: message.SerializeToString(),
                    )
                    for method, request in methods
                },
            )
            for service, methods in services.items()
        ]

    def _answering(self, method: Callable[[Any], Any]) -> Callable[[Any, grpc.ServicerContext], Any]:
        name = _camel(method.__name__)

        def answer(request: Any, context: grpc.ServicerContext) -> Any:
            try:
                with self.lock:
                    self.calls[name] += 1
                    text = str(request).replace("\\", "")
                    for refusal in self.refusals:
                        if refusal.method in ("*", name) and refusal.containing in text and refusal.times > 0:
                            refusal.times -= 1
                            raise Refused(refusal.code, f"{refusal.code} ordered for {name}")
                return method(request)
            except Refused as error:
                context.abort(error.code, error.message)

        return answer

    # Vertex AI

    def list_endpoints(self, request: Any) -> Any:
        """ListEndpoints, at most 100 a page."""
        location = request.parent.rpartition("/")[2]
        self._check_project(request.parent, "aiplatform.endpoints.list")
        now = self.fleet.clock()
        found = [
            endpoint
            for endpoint in self.fleet.fleet.values()
            if endpoint.location == location and endpoint.created <= now < endpoint.deleted and not endpoint.owner
        ]
        parent = f"projects/{self.fleet.number or self.fleet.project}/locations/{location}"
        start, size = _resume(request), min(request.page_size or 100, 100)
        return aiplatform.ListEndpointsResponse.pb()(
            endpoints=[
                {
                    "name": f"{parent}/endpoints/{endpoint.id}",
                    "display_name": endpoint.display_name,
                    "deployed_models": [
                        {"id": model.id, "display_name": model.display_name} for model in endpoint.models
                    ],
                }
                for endpoint in found[start : start + size]
            ],
            next_page_token=_token(request, start + size) if start + size < len(found) else "",
        )

    # Cloud Monitoring

    def list_metric_descriptors(self, request: Any) -> Any:
        """ListMetricDescriptors, in one page."""
        self._check_project(request.name, "monitoring.metricDescriptors.list")
        matches = _matcher(request.filter)
        return monitoring_v3.ListMetricDescriptorsResponse.pb()(
            metric_descriptors=[
                {
                    "name": f"{request.name}/metricDescriptors/{PREFIX}{metric}",
                    "type": PREFIX + metric,
                    "metric_kind": kind.kind,
                    "value_type": kind.value_type,
                    "unit": kind.unit,
                    "metadata": {
                        "sample_period": {"seconds": 60},
                        "ingest_delay": {"seconds": int(self.fleet.delay_s(metric))},
                    },
                    "monitored_resource_types": [RESOURCE],
                }
                for metric, kind in METRICS.items()
                if matches("metric.type", PREFIX + metric)
            ]
        )

    def list_time_series(self, request: Any) -> Any:
        """ListTimeSeries: one metric, points newest first, a series may go on on the next page."""
        self._check_project(request.name, "monitoring.timeSeries.list")
        matches = _matcher(request.filter)
        metric = next((metric for metric in METRICS if matches("metric.type", PREFIX + metric)), None)
        if "metric.type" not in request.filter or "starts_with" in request.filter:
            raise Refused("INVALID_ARGUMENT", "The filter must specify a single metric type")
        if metric is None:
            raise Refused("NOT_FOUND", f"Cannot find metric(s) that match {request.filter}")
        if request.order_by:
            raise Refused("INVALID_ARGUMENT", "Field orderBy is not supported")
        start, end = request.interval.start_time.seconds, request.interval.end_time.seconds
        if not request.interval.HasField("start_time") or start >= end:
            raise Refused("INVALID_ARGUMENT", "Field interval.startTime must be before interval.endTime")
        found = [series for series in self.fleet.series[metric] if self._matches(series, matches)]
        # In no order that a reader could rely on.
        found.sort(key=lambda series: zlib.crc32(series.key.encode()))
        if request.view == monitoring_v3.ListTimeSeriesRequest.TimeSeriesView.HEADERS:
            rows = [(s, [(0, 0.0)]) for s in found if next(self.fleet.samples(s, start, end), None)]
        else:
            aligner, period = _aggregation(request, metric)
            rows = [
                (s, aligned(s, aligner, list(self.fleet.samples(s, start - 60, end)), start, end, period))
                for s in found
            ]
        return self._page(request, metric, rows)

    def _page(self, request: Any, metric: str, rows: list[tuple[Series, list[tuple[int, float]]]]) -> Any:
        skip = _resume(request)
        most = left = min(request.page_size or MAX_POINTS, MAX_POINTS)
        answer = monitoring_v3.ListTimeSeriesResponse.pb()(unit=METRICS[metric].unit)
        headers = request.view == monitoring_v3.ListTimeSeriesRequest.TimeSeriesView.HEADERS
        whole = METRICS[metric].value_type == "INT64" and "PERCENTILE" not in str(request.aggregation)
        whole = whole and "MEAN" not in str(request.aggregation)
        total = sum(len(points) for _, points in rows)
        seen = 0
        for series, points in rows:
            part = points[max(0, skip - seen) :][:left]
            seen += len(points)
            if not part or seen <= skip:
                continue
            left -= len(part)
            endpoint = series.endpoint
            row = answer.time_series.add(
                metric={"type": PREFIX + metric, "labels": series.labels},
                resource={
                    "type": RESOURCE,
                    "labels": {
                        "resource_container": endpoint.owner or self.fleet.number or self.fleet.project,
                        "location": endpoint.location,
                        "endpoint_id": endpoint.id,
                    },
                },
            )
            for at, value in () if headers else part:
                interval = {"start_time": {"seconds": at}, "end_time": {"seconds": at}}
                row.points.add(
                    interval=interval, value={"int64_value": int(value)} if whole else {"double_value": value}
                )
            if not left:
                break
        if skip + most < total:
            answer.next_page_token = _token(request, skip + most)
        self.calls["points"] += most - left
        return answer

    def _matches(self, series: Series, matches: Callable[[str, str], bool]) -> bool:
        resource = {"endpoint_id": series.endpoint.id, "location": series.endpoint.location}
        return (
            matches("resource.type", RESOURCE)
            and all(matches(f"resource.labels.{name}", value) for name, value in resource.items())
            and all(matches(f"metric.labels.{name}", value) for name, value in series.labels.items())
        )

    def _check_project(self, name: str, permission: str) -> None:
        project = name.removeprefix("projects/").partition("/")[0]
        if project != self.fleet.project:
            raise Refused("PERMISSION_DENIED", f"Permission {permission} denied (or the resource may not exist).")


def _aggregation(request: Any, metric: str) -> tuple[str, int]:
    kind = METRICS[metric]
    aligner = monitoring_v3.Aggregation.Aligner(request.aggregation.per_series_aligner).name
    period = request.aggregation.alignment_period.seconds
    if period < 60:
        raise Refused("INVALID_ARGUMENT", "Field aggregation.alignmentPeriod must be at least 60 seconds")
    if aligner not in ALIGNERS[kind.kind, kind.value_type]:
        message = f"The aligner {aligner} cannot be applied to metrics with kind {kind.kind} and value type "
        raise Refused("INVALID_ARGUMENT", message + kind.value_type)
    return aligner, period


def _matcher(text: str) -> Callable[[str, str], bool]:
    """Whether a field may have a value, by a filter of terms joined with AND."""
    terms: dict[str, Callable[[str], bool]] = {}
    for term in text.split(" AND ") if text else ():
        parsed = _TERM.match(term.strip())
        if parsed is None:
            raise Refused("INVALID_ARGUMENT", f"The stand-in does not understand the filter {term!r}")
        name, function, arguments, literal = parsed.groups()
        values = _QUOTED.findall(arguments or literal)
        if function == "starts_with":
            terms[name] = lambda value, prefix=values[0]: value.startswith(prefix)
        else:
            terms[name] = lambda value, values=values: value in values
    return lambda field, value: field not in terms or terms[field](value)


def _token(request: Any, offset: int) -> str:
    return f"{offset}.{_digest(request)}"


def _resume(request: Any) -> int:
    """Where the page begins; a token serves only the request that it was given for."""
    if not request.page_token:
        return 0
    offset, _, digest = request.page_token.partition(".")
    if digest != _digest(request):
        raise Refused("INVALID_ARGUMENT", "The page token is not valid for this request")
    return int(offset)


def _digest(request: Any) -> str:
    plain = type(request)()
    plain.CopyFrom(request)
    plain.ClearField("page_token")
    return f"{zlib.crc32(plain.SerializeToString(deterministic=True)):08x}"


def _camel(name: str) -> str:
    return "".join(word.title() for word in name.split("_"))
