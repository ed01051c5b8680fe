"""SageMaker's endpoint metrics, from CloudWatch into the hub."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import timezone

from airflow_provider_airis.catalog import MetricSpec
from airflow_provider_airis.errors import PermanentError
from airflow_provider_airis.operators.base import ToAirisOperator
from airflow_provider_airis.planning import Reading
from airflow_provider_airis.records import Event, Metric, Window, from_ms

if TYPE_CHECKING:
    from airflow_provider_airis.hooks.sagemaker import SageMakerHook

_VARIANT = ("EndpointName", "VariantName")
# How long a new series may be missing in ListMetrics, with room to spare.
_LISTING_LAG = timedelta(hours=1)
# CloudWatch judges the age of the start anew in each call: a long read must not outgrow its period on the way.
_READING_TIME = timedelta(hours=1)
# https://aws.amazon.com/cloudwatch/pricing/: of GetMetricData, outside the free tier.
_DOLLARS_A_METRIC = 0.01 / 1000
_RETENTION = ((timedelta(days=15), 60), (timedelta(days=63), 300), (timedelta(days=455), 3600))


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


class SageMakerToAirisOperator(ToAirisOperator):
    """Delivers the metrics of one region's SageMaker endpoints: traffic, errors, latency, load of the instances.

    Every point is one of CloudWatch's, at the start of its period, with the unit that CloudWatch names: source
    ``aws-sagemaker-<endpoint>``, tags ``endpoint_name``, ``variant_name``, ``cloud_provider``, ``service``, ``region``,
    ``statistic``, ``period_s``. Where CloudWatch has no point, none is made up. The period is the finest that
    CloudWatch keeps for the window's age, see :func:`finest_period`.

    Series are read per production variant. Those that CloudWatch publishes once more per instance type hold the same
    requests again and are left out. An endpoint that has been deleted is read as long as ListMetrics shows it.

    AWS bills each query (a metric and statistic of a variant): the summary has them as ``metrics_requested``.

    :param aws_conn_id: connection of type ``aws``.
    :param region_name: region to read; the connection's if None.
    :param endpoints: names or patterns (``fraud-*``) of the endpoints to read; all unless given.
    :param metrics: names to read, as the hub has them (``modellatency``); all of the catalog unless given.
    :param statistics: name to CloudWatch's statistics, in place of the catalog's: ``{"modellatency": ["p95"]}``.

    Needs ``sagemaker:ListEndpoints``, ``sagemaker:DescribeEndpoint``, ``cloudwatch:ListMetrics`` and
    ``cloudwatch:GetMetricData``.

    See https://docs.aws.amazon.com/sagemaker/latest/dg/monitoring-cloudwatch.html
    """

    system: ClassVar[str] = "sagemaker"
    template_fields: Sequence[str] = (
        *ToAirisOperator.template_fields,
        "aws_conn_id",
        "region_name",
        "endpoints",
        "metrics",
        "statistics",
    )

    def __init__(
        self,
        *,
        aws_conn_id: str = "aws_default",
        region_name: str | None = None,
        endpoints: Sequence[str] = (),
        metrics: Sequence[str] = (),
        statistics: Mapping[str, Sequence[str]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.aws_conn_id = aws_conn_id
        self.region_name = region_name
        self.endpoints = endpoints
        self.metrics = metrics
        self.statistics = statistics or {}
        self.hook: SageMakerHook | None = None

    def collect(self, window: Window) -> Iterator[Metric | Event]:
        """Yield the points of the window's periods, page by page."""
        from airflow_provider_airis.hooks.sagemaker import SageMakerHook

        specs = self._specs()
        now = timezone.utcnow()
        period = finest_period(from_ms(window.start), now)
        # The periods that start within the window, whole: each belongs to exactly one window.
        step = period * 1000
        window = Window(-(-window.start // step) * step, -(-window.end // step) * step)
        hook = self.hook = SageMakerHook(self.aws_conn_id, region_name=self.region_name)
        stats, labels = self._queries(hook, specs, window, now, period)
        if window.start == window.end:
            return
        with self.part(f"{hook.region_name}/GetMetricData"):
            for query, timestamps, values in hook.metric_data(stats, window):
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
        stats, _ = self._queries(hook, specs, Window(windows[0].start, windows[-1].end), now, period=60)
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
        """What was asked of AWS: ``metrics_requested`` are billed."""
        if self.hook is None:
            return {}
        return {"metrics_requested": self.hook.metrics_requested, "aws_calls": self.hook.calls.total()}

    def _specs(self) -> list[MetricSpec]:
        known = {spec.name: spec for spec in self.row.metrics}
        for option, names in (("metrics", self.metrics), ("statistics", self.statistics)):
            if unknown := sorted(set(names) - known.keys()):
                raise PermanentError(
                    f"{option} names {', '.join(unknown)}, which the catalog does not have; it has {', '.join(known)}",
                    pointer=f"/{option}",
                )
        return [known[name] for name in self.metrics or known]

    def _queries(
        self, hook: SageMakerHook, specs: Sequence[MetricSpec], window: Window, now: datetime, period: int
    ) -> tuple[list[dict[str, Any]], list[tuple[str, MetricSpec, dict[str, str]]]]:
        """What to ask CloudWatch for in the window, and for each: source, metric and tags of its points."""
        stats: list[dict[str, Any]] = []
        labels: list[tuple[str, MetricSpec, dict[str, str]]] = []
        for endpoint, variant in self._variants(hook, window, now):
            dimensions = [{"Name": _VARIANT[0], "Value": endpoint}, {"Name": _VARIANT[1], "Value": variant}]
            for spec in specs:
                namespace, name = spec.origin.split(":")
                metric = {"Namespace": namespace, "MetricName": name, "Dimensions": dimensions}
                for statistic in self.statistics.get(spec.name, spec.statistics):
                    stats.append({"Metric": metric, "Period": period, "Stat": statistic})
                    tags = {
                        "endpoint_name": endpoint,
                        "variant_name": variant,
                        "cloud_provider": "aws",
                        "service": "sagemaker",
                        "region": hook.region_name,
                        "statistic": statistic,
                        "period_s": str(period),
                    }
                    labels.append((f"aws-sagemaker-{endpoint}", spec, tags))
        return stats, labels

    def _variants(self, hook: SageMakerHook, window: Window, now: datetime) -> Iterable[tuple[str, str]]:
        """Endpoint and variant of everything that may have points in the window.

        ListMetrics shows in one call what would take a call per endpoint. It does not show what is new, or has been
        silent for two weeks: those few are described.
        """
        found: dict[str, set[str]] = {}
        with self.part(f"{hook.region_name}/ListMetrics"):
            for row in hook.metrics("AWS/SageMaker", "Invocations", _VARIANT):
                dimensions = {d["Name"]: d["Value"] for d in row["Dimensions"]}
                if dimensions.keys() == {*_VARIANT} and self._wanted(dimensions["EndpointName"]):
                    found.setdefault(dimensions["EndpointName"], set()).add(dimensions["VariantName"])
        unsure = []
        with self.part(f"{hook.region_name}/ListEndpoints"):
            for row in hook.endpoints():
                name = row["EndpointName"]
                changed = row["LastModifiedTime"] > now - _LISTING_LAG
                if self._wanted(name) and row["CreationTime"] < from_ms(window.end) and (changed or name not in found):
                    unsure.append(name)
        for name in unsure:
            with self.part(f"{hook.region_name}/DescribeEndpoint {name}"):
                described = hook.endpoint(name) or {}
                for key in ("ProductionVariants", "ShadowProductionVariants"):
                    found.setdefault(name, set()).update(variant["VariantName"] for variant in described.get(key, ()))
        return [(endpoint, variant) for endpoint in sorted(found) for variant in sorted(found[endpoint])]

    def _wanted(self, endpoint: str) -> bool:
        return not self.endpoints or any(fnmatchcase(endpoint, pattern) for pattern in self.endpoints)
