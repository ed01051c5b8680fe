"""SageMaker's metrics and its endpoints' states, from CloudWatch and SageMaker into the hub."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from airflow.sdk import timezone

from airflow_provider_airis.catalog import MetricSpec
from airflow_provider_airis.catalog.sagemaker import COMPONENT, COMPONENTS, DIMENSIONS, HOST, INSTANCES, JOBS, VARIANT
from airflow_provider_airis.errors import PermanentError
from airflow_provider_airis.operators.base import CollectOperator
from airflow_provider_airis.planning import Reading
from airflow_provider_airis.records import Event, EventSeverity, Metric, Window, from_ms, to_ms

if TYPE_CHECKING:
    from airflow.sdk.definitions.context import Context

    from airflow_provider_airis.hooks.sagemaker import SageMakerHook

    Describe = Callable[[str], dict[str, Any] | None]

# How long a new series may be missing in ListMetrics, with room to spare.
_LISTING_LAG = timedelta(hours=1)
# RecentlyActive hides what was silent for three hours: of an older window that says nothing.
_ACTIVE = timedelta(hours=2)
# CloudWatch judges the age of the start anew in each call: a long read must not outgrow its period on the way.
_READING_TIME = timedelta(hours=1)
# https://aws.amazon.com/cloudwatch/pricing/: of GetMetricData, outside the free tier.
_DOLLARS_A_METRIC = 0.01 / 1000
_RETENTION = ((timedelta(days=15), 60), (timedelta(days=63), 300), (timedelta(days=455), 3600))
_KINDS = ("ProductionVariants", "ShadowProductionVariants")
# By namespace: the metric that whatever has any has.
_EVERYBODY_HAS = {"AWS/SageMaker": "Invocations", INSTANCES: "CPUUtilization", COMPONENTS: "CPUUtilizationNormalized"}
_SEVERITIES: dict[str, EventSeverity] = {
    "Failed": "error",
    "UpdateRollbackFailed": "error",
    "OutOfService": "warning",
    "RollingBack": "warning",
}


class _Series(NamedTuple):
    """What CloudWatch keeps under one name: ``dimensions`` are names and values, sorted."""

    namespace: str
    metric_name: str
    dimensions: tuple[tuple[str, str], ...]

    @classmethod
    def listed(cls, row: Mapping[str, Any]) -> _Series:
        """As ListMetrics shows it."""
        dimensions = sorted((d["Name"], d["Value"]) for d in row["Dimensions"])
        return cls(row["Namespace"], row["MetricName"], tuple(dimensions))

    @property
    def dimension_set(self) -> str:
        """The dimensions' names, as the catalog writes it."""
        return "/".join(name for name, _ in self.dimensions)

    @property
    def owner(self) -> str:
        """The endpoint, inference component or job."""
        values = dict(self.dimensions)
        return values.get("EndpointName") or values.get(COMPONENT) or values.get(HOST, "").rpartition("/")[0]


def finest_period(start: datetime, now: datetime) -> int:
    """The finest period in seconds that CloudWatch still has for points as old as ``start``.

    60 s for 15 days, 300 s for 63, 3600 s for 455.

    :raises PermanentError: retention has deleted them.

    See https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_GetMetricData.html
    """
    for age, period in _RETENTION:
        if now - start <= age - _READING_TIME:
            return period
    oldest = now - _RETENTION[-1][0] + _READING_TIME
    raise PermanentError(
        f"CloudWatch keeps metrics for 455 days: those of {start:%Y-%m-%d %H:%M} are deleted; "
        f"start no earlier than {oldest:%Y-%m-%dT%H:%MZ}"
    )


class SageMakerToAirisOperator(CollectOperator):
    """Delivers one account's and region's SageMaker metrics (traffic, errors, latency, load) and endpoints' states.

    Every point is one of CloudWatch's, at the start of its period, with the unit that CloudWatch names: source
    ``aws-sagemaker-<endpoint, inference component or job>``, a tag for each dimension (``endpoint_name``,
    ``variant_name``), and ``account_id``, ``region``, ``cloud_provider``, ``service``, ``dimensions``, ``statistic``,
    ``period_s``. Where CloudWatch has no point, none is made up. The period is the finest that CloudWatch keeps for
    the window's age, see :func:`finest_period`.

    CloudWatch publishes the same requests and the same load under several sets of dimensions. The tag ``dimensions``
    names the set: never add up series of two. A deleted endpoint is read as long as ListMetrics shows it.

    An endpoint that was changed within the window gives an event ``endpoint_status`` with what it is now.

    AWS bills each query (a metric and statistic under one set of values): the summary has them as
    ``metrics_requested``, and ``estimated_usd``, what they cost at most.

    :param aws_conn_id: connection of type ``aws``.
    :param region_name: region to read; the connection's if None.
    :param endpoints: names or patterns (``fraud-*``) of the endpoints, inference components and jobs to read; all
        unless given.
    :param metrics: names to read, as the hub has them (``modellatency``); all of the catalog unless given.
    :param statistics: name to CloudWatch's statistics, in place of the catalog's: ``{"modellatency": ["p95"]}``.
    :param dimensions: sets of dimensions to read, ``EndpointName/VariantName``. Other sets than the two that are read
        unless given are read as ListMetrics shows them.
    :param jobs: of ``training``, ``processing``, ``transform``: whose instances' load to read, as ListMetrics shows it.
    :param silent_every_s: how often to ask for a series that was silent for three hours, and then for the whole time
        since; each time if 0. Windows that are older than two hours ask for everything.

    Needs ``sagemaker:ListEndpoints``, ``sagemaker:DescribeEndpoint``, ``sagemaker:DescribeEndpointConfig``,
    ``cloudwatch:ListMetrics`` and ``cloudwatch:GetMetricData``.

    See https://docs.aws.amazon.com/sagemaker/latest/dg/monitoring-cloudwatch.html
    """

    system: ClassVar[str] = "sagemaker"
    template_fields: Sequence[str] = (
        *CollectOperator.template_fields,
        "aws_conn_id",
        "region_name",
        "endpoints",
        "metrics",
        "statistics",
        "dimensions",
        "jobs",
    )

    def __init__(
        self,
        *,
        aws_conn_id: str = "aws_default",
        region_name: str | None = None,
        endpoints: Sequence[str] = (),
        metrics: Sequence[str] = (),
        statistics: Mapping[str, Sequence[str]] | None = None,
        dimensions: Sequence[str] = (VARIANT, COMPONENT),
        jobs: Sequence[str] = (),
        silent_every_s: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.aws_conn_id = aws_conn_id
        self.region_name = region_name
        self.endpoints = endpoints
        self.metrics = metrics
        self.statistics = statistics or {}
        self.dimensions = dimensions
        self.jobs = jobs
        self.silent_every_s = silent_every_s
        self.hook: SageMakerHook | None = None

    def window(self, context: Context) -> Window:
        """The window that this run reads, from as far back as a silent series was last asked for."""
        window = super().window(context)
        return Window(window.start - self.silent_every_s * 1000, window.end)

    def collect(self, window: Window) -> Iterator[Metric | Event]:
        """Yield the events of the window, and the points of its periods, page by page."""
        from airflow_provider_airis.hooks.sagemaker import SageMakerHook

        specs = self._specs()
        now = timezone.utcnow()
        period = finest_period(from_ms(window.start), now)
        hook = self.hook = SageMakerHook(self.aws_conn_id, region_name=self.region_name)
        describe = cache(hook.endpoint)
        endpoints = self._endpoints(hook)
        yield from self._states(hook, window, endpoints, describe)
        # The periods that start within the window, whole: each belongs to exactly one window.
        step = period * 1000
        window = Window(-(-window.start // step) * step, -(-window.end // step) * step)
        stats, labels, starts = self._queries(hook, specs, window, now, period, endpoints, describe)
        if window.start == window.end:
            return
        with self.part(f"{hook.region_name}/GetMetricData"):
            for query, timestamps, values in hook.metric_data(stats, window, starts):
                source, spec, tags = labels[query]
                name, unit = spec.name, spec.unit
                for timestamp, value in zip(timestamps, values, strict=True):
                    yield Metric(source, name, value, unit, tags, timestamp)

    def plan(self, windows: Sequence[Window]) -> Iterator[Reading]:
        """What each window would ask CloudWatch for; makes only the calls that list what there is."""
        from airflow_provider_airis.hooks.sagemaker import SageMakerHook, data_calls

        specs = self._specs()
        now = timezone.utcnow()
        hook = self.hook = SageMakerHook(self.aws_conn_id, region_name=self.region_name)
        whole = Window(windows[0].start, windows[-1].end)
        stats, _, _ = self._queries(hook, specs, whole, now, 60, self._endpoints(hook), hook.endpoint)
        listing = hook.calls.total()
        for window in windows:
            try:
                period = finest_period(from_ms(window.start), now)
            except PermanentError:
                yield Reading(window)
                continue
            periods = (window.end - window.start) // (period * 1000)
            yield Reading(
                window,
                period_s=period,
                series=len(stats),
                points=len(stats) * periods,
                calls=listing + data_calls(len(stats), periods),
                dollars=len(stats) * _DOLLARS_A_METRIC,
            )

    def summary(self) -> dict[str, Any]:
        """What was asked of AWS: ``metrics_requested`` are billed, ``estimated_usd`` is the most that they cost."""
        if self.hook is None:
            return {}
        return {
            "metrics_requested": self.hook.metrics_requested,
            "estimated_usd": round(self.hook.metrics_requested * _DOLLARS_A_METRIC, 6),
            "aws_calls": self.hook.calls.total(),
        }

    def _specs(self) -> list[MetricSpec]:
        known = {spec.name: spec for spec in self.row.metrics}
        for option, names, allowed in (
            ("metrics", self.metrics, known),
            ("statistics", self.statistics, known),
            ("dimensions", "/".join(self.dimensions).split("/") if self.dimensions else (), DIMENSIONS),
            ("jobs", self.jobs, JOBS),
        ):
            if unknown := sorted(set(names) - set(allowed)):
                text = f"{option} names {', '.join(unknown)}, which the catalog does not have"
                raise PermanentError(f"{text}; it has {', '.join(allowed)}", pointer=f"/{option}")
        return [known[name] for name in self.metrics or known]

    def _endpoints(self, hook: SageMakerHook) -> list[dict[str, Any]]:
        endpoints: list[dict[str, Any]] = []
        with self.part(f"{hook.region_name}/ListEndpoints"):
            endpoints += hook.endpoints()
        return endpoints

    def _states(
        self, hook: SageMakerHook, window: Window, endpoints: Sequence[Mapping[str, Any]], describe: Describe
    ) -> Iterator[Event]:
        """What became of the endpoints that were changed in the window, and only of these."""
        for row in endpoints:
            name = row["EndpointName"]
            if to_ms(row["LastModifiedTime"]) not in window or not self._wanted(name):
                continue
            with self.part(f"{hook.region_name}/DescribeEndpoint {name}"):
                endpoint = describe(name)
                if endpoint is None or (at := to_ms(endpoint["LastModifiedTime"])) not in window:
                    continue
                config = (
                    hook.endpoint_config(endpoint["EndpointConfigName"]) if "EndpointConfigName" in endpoint else {}
                )
                arn, status = endpoint["EndpointArn"], endpoint["EndpointStatus"]
                data = {
                    "endpoint_name": name,
                    "account_id": arn.split(":")[4],
                    "region": hook.region_name,
                    "status": status,
                    "failure_reason": endpoint.get("FailureReason"),
                    "endpoint_config_name": endpoint.get("EndpointConfigName"),
                    "variants": _variants(endpoint, config or {}),
                }
                yield Event(
                    event_type="endpoint_status",
                    source=f"aws-sagemaker-{name}",
                    severity=_SEVERITIES.get(status, "info"),
                    timestamp=at,
                    data={key: value for key, value in data.items() if value is not None},
                    key=f"{arn}/{at}/{status}",
                )

    def _queries(
        self,
        hook: SageMakerHook,
        specs: Sequence[MetricSpec],
        window: Window,
        now: datetime,
        period: int,
        endpoints: Sequence[Mapping[str, Any]],
        describe: Describe,
    ) -> tuple[list[dict[str, Any]], list[tuple[str, MetricSpec, dict[str, str]]], list[int]]:
        """What to ask CloudWatch for in the window; for each: source, metric and tags of its points, and since when."""
        stats: list[dict[str, Any]] = []
        labels: list[tuple[str, MetricSpec, dict[str, str]]] = []
        starts: list[int] = []
        account = endpoints[0]["EndpointArn"].split(":")[4] if endpoints else hook.account_id()
        named = {_origin(spec)[1]: spec for spec in specs}
        kinds = {namespace: kind for kind, namespace in JOBS.items()}
        for series, start in self._series(hook, specs, window, now, endpoints, describe):
            spec = named[series.metric_name]
            dimensions = [{"Name": name, "Value": value} for name, value in series.dimensions]
            metric = {"Namespace": series.namespace, "MetricName": series.metric_name, "Dimensions": dimensions}
            shared = {_tag(name): value for name, value in series.dimensions}
            if series.dimension_set == HOST:
                shared |= {"job_name": series.owner, "job_type": kinds[series.namespace]}
            shared |= {
                "cloud_provider": "aws",
                "service": "sagemaker",
                "account_id": account,
                "region": hook.region_name,
                "dimensions": series.dimension_set,
                "period_s": str(period),
            }
            for statistic in self.statistics.get(spec.name, spec.statistics):
                stats.append({"Metric": metric, "Period": period, "Stat": statistic})
                labels.append((f"aws-sagemaker-{series.owner}", spec, {**shared, "statistic": statistic}))
                starts.append(start)
        return stats, labels, starts

    def _series(
        self,
        hook: SageMakerHook,
        specs: Sequence[MetricSpec],
        window: Window,
        now: datetime,
        endpoints: Sequence[Mapping[str, Any]],
        describe: Describe,
    ) -> Iterator[tuple[_Series, int]]:
        """Every series to ask for, and since when.

        Those of a variant or inference component are asked for whether ListMetrics shows them or not, the silent ones
        less often. All others are asked for as it shows them.
        """
        fresh = {row["EndpointName"] for row in endpoints if row["LastModifiedTime"] > now - _LISTING_LAG}
        found = [
            _Series(*_origin(spec), tuple(zip(names.split("/"), values, strict=True)))
            for names, values in self._found(hook, specs, window, endpoints, fresh, describe)
            for spec in specs
            if names in spec.dimensions
        ]
        others = {"/".join(sorted(names.split("/"))) for names in self.dimensions} - {VARIANT, COMPONENT}
        jobs = {JOBS[kind] for kind in self.jobs}
        recent = window.start + self.silent_every_s * 1000
        lately = now - from_ms(recent) < _ACTIVE
        patient = lately and self.silent_every_s > 0
        listed = jobs | {series.namespace for series in found if patient}
        listed |= {_origin(spec)[0] for spec in specs if others}
        shown: set[_Series] = set()
        unsure = set(listed)
        with self.part(f"{hook.region_name}/ListMetrics"):
            for namespace in sorted(listed):
                shown.update(map(_Series.listed, hook.metrics(namespace, recently_active=lately)))
                unsure.remove(namespace)
        metrics = {_origin(spec)[1] for spec in specs}
        found += sorted(
            series
            for series in shown
            if series.dimension_set in ({HOST} if series.namespace in jobs else others)
            and series.metric_name in metrics
            and self._wanted(series.owner)
        )
        for series in found:
            if not patient or self._due(series, window):
                yield series, window.start
            elif series in shown or series.namespace in unsure or series.owner in fresh:
                yield series, recent

    def _due(self, series: _Series, window: Window) -> bool:
        """Whether the clock passes the series' turn in the run's own window; each has one every ``silent_every_s``."""
        every = self.silent_every_s * 1000
        turn = zlib.crc32(repr(series).encode()) % every
        start = window.start + every + self.lookback_s * 1000
        return (window.end - turn) // every > (start - turn) // every

    def _found(
        self,
        hook: SageMakerHook,
        specs: Sequence[MetricSpec],
        window: Window,
        endpoints: Sequence[Mapping[str, Any]],
        fresh: set[str],
        describe: Describe,
    ) -> list[tuple[str, tuple[str, ...]]]:
        """Variants and inference components that may have points in the window: their set of dimensions, and values.

        ListMetrics shows in three calls what would take a call per endpoint: what had requests, and what had load,
        which a canary or a component in reserve has alone. It does not show what is new, or has been silent for two
        weeks: those few are described.
        """
        wanted = {VARIANT, COMPONENT} & {"/".join(sorted(names.split("/"))) for names in self.dimensions}
        found: set[tuple[str, tuple[str, ...]]] = set()
        if not wanted:
            return []
        asked = {_origin(spec)[0] for spec in specs if wanted & {*spec.dimensions}}
        with self.part(f"{hook.region_name}/ListMetrics"):
            for namespace in sorted(asked):
                for series in map(_Series.listed, hook.metrics(namespace, _EVERYBODY_HAS[namespace])):
                    if series.dimension_set in wanted and self._wanted(series.owner):
                        found.add((series.dimension_set, tuple(value for _, value in series.dimensions)))
        shown = {values[0] for names, values in found if names == VARIANT}
        for row in endpoints if VARIANT in wanted else ():
            name = row["EndpointName"]
            if not self._wanted(name) or row["CreationTime"] >= from_ms(window.end) or name in shown - fresh:
                continue
            with self.part(f"{hook.region_name}/DescribeEndpoint {name}"):
                described = describe(name) or {}
                found |= {(VARIANT, (name, v["VariantName"])) for kind in _KINDS for v in described.get(kind, ())}
        return sorted(found)

    def _wanted(self, owner: str) -> bool:
        return not self.endpoints or any(fnmatchcase(owner, pattern) for pattern in self.endpoints)


def _origin(spec: MetricSpec) -> tuple[str, str]:
    """Namespace and name in CloudWatch."""
    namespace, _, name = spec.origin.partition(":")
    return namespace, name


def _tag(dimension: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", dimension).lower()


def _variants(endpoint: Mapping[str, Any], config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The variants as configured and as they are now; what either does not say is left out."""
    configured, running = (
        {v["VariantName"]: v for kind in _KINDS for v in of.get(kind, ())} for of in (config, endpoint)
    )
    variants = []
    for name in sorted(configured.keys() | running.keys()):
        asked, now = configured.get(name, {}), running.get(name, {})
        variant = {
            "variant_name": name,
            "model_name": asked.get("ModelName"),
            "instance_type": asked.get("InstanceType"),
            "current_weight": now.get("CurrentWeight"),
            "desired_weight": now.get("DesiredWeight", asked.get("InitialVariantWeight")),
            "current_instance_count": now.get("CurrentInstanceCount"),
            "desired_instance_count": now.get("DesiredInstanceCount", asked.get("InitialInstanceCount")),
        }
        variants.append({key: value for key, value in variant.items() if value is not None})
    return variants
