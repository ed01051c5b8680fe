"""Vertex AI's endpoints and their Cloud Monitoring time series in one project, as Google's own records."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import tenacity

from airflow_provider_airis.errors import AirisError, PermanentError, RetryableError
from airflow_provider_airis.hooks import retrying
from airflow_provider_airis.hooks.base import SystemHook
from airflow_provider_airis.records import Window

PREFIX = "aiplatform.googleapis.com/prediction/online/"
RESOURCE = "aiplatform.googleapis.com/Endpoint"
MAX_POINTS = 100_000
_MAX_PAGES = 1_000
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
# Method: the permission that it needs, and the least of Google's roles that has it.
_NEEDS = {
    "ListEndpoints": ("aiplatform.endpoints.list", "roles/aiplatform.viewer"),
    "ListMetricDescriptors": ("monitoring.metricDescriptors.list", "roles/monitoring.viewer"),
    "ListTimeSeries": ("monitoring.timeSeries.list", "roles/monitoring.viewer"),
}
_PASSING = frozenset({"ABORTED", "CANCELLED", "DEADLINE_EXCEEDED", "INTERNAL", "UNAVAILABLE", "UNKNOWN"})


class Series(NamedTuple):
    """Points of one time series, ascending; a series may come in pieces, the newest first.

    :param metric: labels of the metric.
    :param resource: labels of the monitored resource.
    :param timestamps: Unix ms, **starts** of the periods; Cloud Monitoring stamps their ends.
    """

    metric: dict[str, str]
    resource: dict[str, str]
    timestamps: list[int]
    values: list[float]


class VertexAIHook(SystemHook):
    """Reads Vertex AI's endpoints and Cloud Monitoring of one project. Opens nothing before the first call.

    Credentials, project and impersonation are the Google provider's connection. Its extra may have
    ``monitoring_endpoint`` and ``aiplatform_endpoint``, which are called in place of Google's public ones: a host, or
    ``http://127.0.0.1:<port>``. Without TLS no credentials are sent, and unless the connection is anonymous
    (``is_anonymous``) only a loopback address is called.

    :param conn_id: connection of type ``google_cloud_platform``.
    :param project_id: project to read; the connection's if None.
    :param location: where :meth:`check` asks for endpoints.
    :param timeout: seconds to wait for an answer.
    :param retries: how often a call that may succeed later is sent again.

    Errors that pass (quota, deadline, unavailability) are :class:`~airflow_provider_airis.errors.RetryableError`,
    others :class:`~airflow_provider_airis.errors.PermanentError`, which names the permission that is missing.

    See https://cloud.google.com/vertex-ai/docs/general/monitoring-metrics
    """

    default_conn_name = "google_cloud_default"
    conn_type = "google_cloud_platform"
    hook_name = "Google Vertex AI"

    def __init__(
        self,
        conn_id: str | None = None,
        *,
        project_id: str | None = None,
        location: str = "us-central1",
        timeout: float = 20,
        retries: int = 4,
    ) -> None:
        super().__init__(conn_id, timeout=timeout, retries=retries)
        self.location = location
        self.calls: Counter[str] = Counter()
        self.series_returned = 0
        self._project_id = project_id
        self._channels: dict[str, Any] = {}

    @cached_property
    def project_id(self) -> str:
        """The project that is read."""
        project: str | None = self._project_id or self._authenticated(lambda google: google.project_id)
        if not project:
            raise PermanentError(
                f"No Google project: give project_id, or set the project in connection {self.conn_id!r}"
            )
        return project

    def endpoints(self, location: str) -> Iterator[Any]:
        """Every endpoint of a location, as ListEndpoints shows it.

        See https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.endpoints/list
        """
        # Importing this takes five seconds of CPU, so it happens here and nowhere else.
        with self.importing():
            from google.cloud.aiplatform_v1.services.endpoint_service import EndpointServiceClient

        host = "aiplatform.googleapis.com" if location == "global" else f"{location}-aiplatform.googleapis.com"
        channel = self._channel("aiplatform_endpoint", host)
        client = EndpointServiceClient(transport=EndpointServiceClient.get_transport_class("grpc")(channel=channel))
        request = {"parent": f"projects/{self.project_id}/locations/{location}", "page_size": 100}
        for page in self._pages("ListEndpoints", f" in {location}", client.list_endpoints, request):
            yield from page.endpoints

    def metric_descriptors(self) -> Iterator[Any]:
        """The descriptors of online prediction's metrics; their ``metadata`` has sample period and ingest delay.

        See https://cloud.google.com/monitoring/api/ref_v3/rest/v3/projects.metricDescriptors/list
        """
        request = {
            "name": f"projects/{self.project_id}",
            "filter": f'metric.type = starts_with("{PREFIX}")',
            "page_size": 1_000,
        }
        for page in self._pages("ListMetricDescriptors", "", self._monitoring.list_metric_descriptors, request):
            yield from page.metric_descriptors

    def time_series(
        self, metric_type: str, window: Window, aligner: str, *, period_s: int = 60, locations: Sequence[str] = ()
    ) -> Iterator[Series]:
        """Read a metric of all endpoints of the project, 100,000 points a call.

        :param metric_type: e.g. ``aiplatform.googleapis.com/prediction/online/prediction_count``.
        :param window: of whole periods, at least one. Each period belongs to one window: its end lies in Cloud
            Monitoring's ``(start, end]`` if its start lies in ours, ``[start, end)``.
        :param aligner: e.g. ``ALIGN_SUM``.
        :param locations: which to read; all unless given.

        See https://cloud.google.com/monitoring/api/ref_v3/rest/v3/projects.timeSeries/list
        """
        aggregation = {"alignment_period": {"seconds": period_s}, "per_series_aligner": aligner}
        for row in self._time_series(metric_type, window, locations, aggregation=aggregation):
            timestamps, values = [], []
            for point in reversed(row.points):
                timestamps.append((point.interval.end_time.seconds - period_s) * 1000)
                values.append(float(getattr(point.value, point.value.WhichOneof("value"))))
            yield Series(dict(row.metric.labels), dict(row.resource.labels), timestamps, values)

    def labels(
        self, metric_type: str, window: Window, *, locations: Sequence[str] = (), endpoint: str = ""
    ) -> Iterator[Series]:
        """Which series of a metric, or of one endpoint (by its id), have points in the window, without the points."""
        for row in self._time_series(metric_type, window, locations, endpoint, view="HEADERS"):
            yield Series(dict(row.metric.labels), dict(row.resource.labels), [], [])

    def check(self) -> str:
        """Make the three reads that a sync needs; returns what to tell the user."""
        now = int(time.time() * 1000)
        hour = Window(now - 7_200_000, now - 3_600_000).aligned(60)
        next(self.metric_descriptors(), None)
        next(self.time_series(f"{PREFIX}prediction_count", hour, "ALIGN_SUM"), None)
        next(self.endpoints(self.location), None)
        return f"Vertex AI and Cloud Monitoring answer for project {self.project_id}"

    def close(self) -> None:
        """Close the channels."""
        for channel in self._channels.values():
            channel.close()
        self._channels.clear()
        self.__dict__.pop("_monitoring", None)

    @cached_property
    def _google(self) -> Any:
        _ = self.connection  # which must exist: the provider's hook would take the credentials of the process
        with self.importing():
            from airflow.providers.google.common.hooks.base_google import GoogleBaseHook

        return GoogleBaseHook(gcp_conn_id=self.conn_id)

    @cached_property
    def _monitoring(self) -> Any:
        with self.importing():
            from google.cloud.monitoring_v3 import MetricServiceClient

        channel = self._channel("monitoring_endpoint", "monitoring.googleapis.com")
        return MetricServiceClient(transport=MetricServiceClient.get_transport_class("grpc")(channel=channel))

    def _authenticated(self, ask: Callable[[Any], Any]) -> Any:
        """What the Google provider's hook answers when asked for credentials; errors, translated."""
        google = self._google
        from airflow.sdk.exceptions import AirflowException
        from google.auth.exceptions import GoogleAuthError, TransportError

        try:
            return ask(google)
        except (AirflowException, GoogleAuthError, ValueError) as error:
            text = f"The credentials of connection {self.conn_id!r} gave no access token: {error}"
            if isinstance(error, TransportError) or getattr(error, "retryable", False):
                raise RetryableError(text) from error
            raise PermanentError(f"{text}; renew the key, or check the impersonation") from error

    def _credentials(self) -> Any:
        from google.auth.transport.requests import Request

        credentials = self._authenticated(lambda google: google.get_credentials())
        if not credentials.valid:
            # Otherwise gRPC would do it in the background, and report whatever is wrong as UNAVAILABLE.
            self._authenticated(lambda _: credentials.refresh(partial(Request(), timeout=self.timeout)))
        return credentials

    def _channel(self, extra: str, host: str) -> Any:
        import grpc  # type: ignore[import-untyped]
        from google.api_core import grpc_helpers

        address = str(self._google.extras.get(extra) or host)
        url = urlsplit(address if "://" in address else f"https://{address}")
        if not url.hostname or url.scheme not in ("http", "https"):
            raise PermanentError(f"{extra} of connection {self.conn_id!r} is neither a host nor a URL: {address}")
        insecure = url.scheme == "http"
        if insecure and url.hostname not in _LOOPBACK and not self._google.extras.get("is_anonymous"):
            raise PermanentError(
                f"{extra} of connection {self.conn_id!r} is {address}: only a loopback address is called without TLS"
            )
        name = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
        target = f"{name}:{url.port or (80 if insecure else 443)}"
        if target not in self._channels:
            # A page of 100,000 points is larger than the 4 MiB that gRPC takes by default.
            options = [("grpc.max_receive_message_length", -1)]
            if insecure:
                channel = grpc.insecure_channel(target, [*options, ("grpc.enable_http_proxy", 0)])
            else:
                channel = grpc_helpers.create_channel(target, credentials=self._credentials(), options=options)
            self._channels[target] = channel
        return self._channels[target]

    def _time_series(
        self, metric_type: str, window: Window, locations: Sequence[str], endpoint: str = "", **fields: Any
    ) -> Iterator[Any]:
        wanted = f'metric.type = "{metric_type}" AND resource.type = "{RESOURCE}"'
        if locations:
            names = ", ".join(f'"{name}"' for name in locations)
            wanted += f" AND resource.labels.location = one_of({names})"
        if endpoint:
            wanted += f' AND resource.labels.endpoint_id = "{endpoint}"'
        request = {
            "name": f"projects/{self.project_id}",
            "filter": wanted,
            "interval": {
                "start_time": {"seconds": window.start // 1000},
                "end_time": {"seconds": window.end // 1000},
            },
            "page_size": MAX_POINTS,
            **fields,
        }
        for page in self._pages("ListTimeSeries", f" of {metric_type}", self._monitoring.list_time_series, request):
            self.series_returned += len(page.time_series)
            yield from page.time_series
            if page.execution_errors:
                said = "; ".join(error.message for error in page.execution_errors)
                raise RetryableError(f"{self._asked('ListTimeSeries', f' of {metric_type}')} is incomplete: {said}")

    def _pages(self, method: str, what: str, call: Any, request: dict[str, Any]) -> Iterator[Any]:
        tokens: set[str] = set()
        while True:
            page = self._call(method, what, call, request)
            yield page
            token = page.next_page_token
            if not token:
                return
            if token in tokens or len(tokens) == _MAX_PAGES:
                raise PermanentError(
                    f"{self._asked(method, what)} sends an endless cursor, given up after page {len(tokens) + 1}; "
                    f"check the endpoints in the connection's extra"
                )
            tokens.add(token)
            request = {**request, "page_token": token}

    def _call(self, method: str, what: str, call: Any, request: dict[str, Any]) -> Any:
        """One page, as plain protobuf: proto-plus would wrap every point anew."""
        from google.api_core.exceptions import GoogleAPICallError

        def once() -> Any:
            self.calls[method] += 1
            try:
                page = next(iter(call(request=request, retry=None, timeout=self.timeout).pages))
            except GoogleAPICallError as error:
                raise self._refused(method, what, error) from error
            return type(page).pb(page)

        return tenacity.Retrying(**retrying.policy(self.retries, self.log))(once)

    def _refused(self, method: str, what: str, error: Any) -> AirisError:
        """Google's error answer, translated."""
        status = error.grpc_status_code.name if error.grpc_status_code else type(error).__name__
        said = f"Google says {status} {error.message}"
        asked = self._asked(method, what)
        if status == "PERMISSION_DENIED":
            permission, role = _NEEDS[method]
            who = f"connection {self.conn_id!r} lacks the permission {permission} (role {role})"
            text = f"{who} for {method}{what} of project {self.project_id}"
            if error.reason == "SERVICE_DISABLED":
                text = f"{asked} was refused: its API is not enabled in the project"
            return PermanentError(f"{text}. {said}", detail=error.message)
        if status == "UNAUTHENTICATED":
            text = f"{asked} was refused: its credentials are not accepted, renew them. {said}"
            return PermanentError(text, detail=error.message)
        if status == "RESOURCE_EXHAUSTED":
            text = f"{asked} was refused: the project's quota is used up. {said}"
            return RetryableError(text, retry_after=_retry_after(error))
        if status in _PASSING:
            return RetryableError(f"{asked} failed. {said}", retry_after=_retry_after(error))
        return PermanentError(f"{asked} was refused. {said}", detail=error.message)

    def _asked(self, method: str, what: str) -> str:
        return f"{method}{what} of project {self.project_id} by connection {self.conn_id!r}"


def _retry_after(error: Any) -> float | None:
    """Seconds of ``google.rpc.RetryInfo``, where Google sent one."""
    for detail in error.details:
        if delay := getattr(detail, "retry_delay", None):
            return float(delay.seconds + delay.nanos / 1e9)
    return None
