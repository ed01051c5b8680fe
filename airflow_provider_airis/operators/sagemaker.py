"""SageMaker's metrics and its endpoints' states, from CloudWatch and SageMaker into the hub."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import timezone

from airflow_provider_airis.catalog import MetricSpec
from airflow_provider_airis.catalog.sagemaker import COMPONENT, COMPONENTS, DIMENSIONS, HOST, INSTANCES, JOBS, VARIANT
from airflow_provider_airis.errors import AirisError, PermanentError
from airflow_provider_airis.operators.sagemaker_records import (
    KINDS,
    Series,
    check_statistics,
    endpoint_event,
    in_order,
    is_due,
    named,
    origin,
    paired,
    tag,
)
from airflow_provider_airis.records import Event, Metric, Window, from_ms, to_ms
from airflow_provider_airis.sources.history import HistoryOperator, Inventory, Retention

if TYPE_CHECKING:
    from airflow.sdk.definitions.context import Context

    from airflow_provider_airis.hooks.sagemaker import SageMakerHook

    Describe = Callable[[str], dict[str, Any] | None]

# How long a new series may be missing in ListMetrics, with room to spare.
_LISTING_LAG = timedelta(hours=1)
# RecentlyActive hides what was silent for three hours: of an older window that says nothing.
_ACTIVE = timedelta(hours=2)
# https://aws.amazon.com/cloudwatch/pricing/: of GetMetricData, outside the free tier.
_DOLLARS_A_METRIC = 0.01 / 1000
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_GetMetricData.html
RETENTION = Retention(
    "CloudWatch keeps metrics for 455 days",
    ((timedelta(days=15), 60), (timedelta(days=63), 300), (timedelta(days=455), 3600)),
)
# What only some variants have is asked for where ListMetrics shows it, since AWS bills each query.
_SOME_HAVE = frozenset({"ModelSetupTime"})
# By namespace: the metric that whatever has any has.
_EVERYBODY_HAS = {"AWS/SageMaker": "Invocations", INSTANCES: "CPUUtilization", COMPONENTS: "CPUUtilizationNormalized"}


class SageMakerToAirisOperator(HistoryOperator):
    """Delivers one account's and region's SageMaker metrics (traffic, errors, latency, load) and endpoints' states.

    Every point is one of CloudWatch's, at the start of its period, with the unit that CloudWatch names: source
    ``aws-sagemaker-<endpoint, inference component or job>``, a tag for each dimension (``endpoint_name``,
    ``variant_name``), and ``account_id``, ``region``, ``cloud_provider``, ``service``, ``dimensions``, ``statistic``,
    ``period_s``. Where CloudWatch has no point, none is made up. The period is the finest that CloudWatch keeps for
    the window's age: 60 s for 15 days, 300 s for 63, 3600 s for 455.

    CloudWatch publishes the same requests and the same load under several sets of dimensions. The tag ``dimensions``
    names the set: never add up series of two. A deleted endpoint is read as long as ListMetrics shows it.

    An endpoint that was changed within the window gives an event ``endpoint_status`` with what it is now.

    AWS bills each query (a metric and statistic under one set of values): the summary has them as
    ``metrics_requested``, and ``estimated_usd``, what they cost at most. ``endpoints`` may be components and jobs, too.

    :param aws_conn_id: connection of type ``aws``.
    :param region_name: region to read; the connection's if None.
    :param statistics: name to CloudWatch's statistics, in place of the catalog's: ``{"modellatency": ["p95"]}``.
    :param dimensions: sets of dimensions to read, ``EndpointName/VariantName``. Other sets than the two that are read
        unless given are read as ListMetrics shows them.
    :param series: exact dimensions, ``EndpointName=fraud/VariantName=old``, to read whether anything still lists them
        or not: CloudWatch keeps the points of a renamed or deleted variant, but shows its name for two weeks.
    :param jobs: of ``training``, ``processing``, ``transform``: whose instances' load to read, as ListMetrics shows it.
    :param linked_accounts: whether to read also what other accounts share with this one, a monitoring account: their
        series have their own ``account_id``, and are read as ListMetrics shows them.
    :param idle_poll_interval_s: how often idle series, those without a point for three hours, are polled, then for the
        whole time since; each time if 0. Windows that are older than two hours ask for everything.

    Needs ``sagemaker:ListEndpoints``, ``sagemaker:DescribeEndpoint``, ``sagemaker:DescribeEndpointConfig``,
    ``cloudwatch:ListMetrics`` and ``cloudwatch:GetMetricData``.

    See https://docs.aws.amazon.com/sagemaker/latest/dg/monitoring-cloudwatch.html
    """

    system: ClassVar[str] = "sagemaker"
    retention: ClassVar[Retention] = RETENTION
    template_fields: Sequence[str] = (
        *HistoryOperator.template_fields,
        "aws_conn_id",
        "region_name",
        "statistics",
        "dimensions",
        "series",
        "jobs",
    )

    def __init__(
        self,
        *,
        aws_conn_id: str = "aws_default",
        region_name: str | None = None,
        statistics: Mapping[str, Sequence[str]] | None = None,
        dimensions: Sequence[str] = (VARIANT, COMPONENT),
        series: Sequence[str] = (),
        jobs: Sequence[str] = (),
        linked_accounts: bool = False,
        idle_poll_interval_s: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.aws_conn_id = aws_conn_id
        self.region_name = region_name
        self.statistics = statistics or {}
        self.dimensions = dimensions
        self.series = series
        self.jobs = jobs
        self.linked_accounts = linked_accounts
        self.idle_poll_interval_s = idle_poll_interval_s
        self.hook: SageMakerHook | None = None

    @classmethod
    def mapped(cls, common: dict[str, Any], mapped: dict[str, list[Any]]) -> list[dict[str, Any]]:  # noqa: ARG003
        """A task a connection and region, see :func:`paired`."""
        pairs = paired(mapped["aws_conn_id"], mapped["region_name"])
        return [{"aws_conn_id": conn_id, "region_name": region} for conn_id, region in pairs]

    def window(self, context: Context) -> Window:
        """The window that this run reads, from as far back as a silent series was last asked for."""
        window = super().window(context)
        return Window(window.start - self.idle_poll_interval_s * 1000, window.end)

    @property
    def looks_back_ms(self) -> int:
        """As any other, and as far as a silent series was last asked for."""
        return super().looks_back_ms + self.idle_poll_interval_s * 1000

    def collect(self, window: Window) -> Iterator[Metric | Event]:
        """Yield the events of the window, and the points of its periods, page by page."""
        from airflow_provider_airis.hooks.sagemaker import SageMakerHook

        specs = self._checked()
        now = timezone.utcnow()
        whole, period = self.periods(window, now)
        hook = self.hook = SageMakerHook(self.aws_conn_id, region_name=self.region_name)
        describe = cache(hook.endpoint)
        endpoints = self._endpoints(hook)
        yield from self._states(hook, window, endpoints, describe)
        stats, labels, starts = self._queries(hook, specs, whole, now, period, endpoints, describe)
        if whole.start == whole.end:
            return
        with self.part(f"{hook.region_name}/GetMetricData"):
            for query, timestamps, values in hook.metric_data(stats, whole, starts):
                source, spec, tags = labels[query]
                name, unit = spec.name, spec.unit
                for timestamp, value in zip(timestamps, values, strict=True):
                    yield Metric(source, name, value, unit, tags, timestamp)

    def inventory(self, windows: Sequence[Window]) -> Inventory:
        """See :meth:`HistoryOperator.inventory`."""
        from airflow_provider_airis.hooks.cloudwatch import data_calls
        from airflow_provider_airis.hooks.sagemaker import SageMakerHook

        hook = self.hook = SageMakerHook(self.aws_conn_id, region_name=self.region_name)
        whole = Window(windows[0].start, windows[-1].end)
        now = timezone.utcnow()
        stats, _, _ = self._queries(hook, self._checked(), whole, now, 60, self._endpoints(hook), hook.endpoint)
        listing = hook.calls.total()
        dollars = len(stats) * _DOLLARS_A_METRIC
        return Inventory(len(stats), lambda periods: (listing + data_calls(len(stats), periods), dollars))

    def summary(self) -> dict[str, Any]:
        """What was asked of AWS: ``metrics_requested`` are billed, ``estimated_usd`` is the most that they cost."""
        if self.hook is None:
            return {}
        return {
            "metrics_requested": self.hook.metrics_requested,
            "estimated_usd": round(self.hook.metrics_requested * _DOLLARS_A_METRIC, 6),
            "aws_calls": self.hook.calls.total(),
        }

    def _checked(self) -> list[MetricSpec]:
        """The metrics to read, once every option is known to be right: nothing is asked for in vain."""
        specs = self.specs()
        sets = {names for spec in self.row.metrics for names in spec.dimensions} - {HOST}
        self.known("statistics", self.statistics, [spec.name for spec in self.row.metrics])
        self.known("dimensions", "/".join(self.dimensions).split("/") if self.dimensions else (), DIMENSIONS)
        self.known("dimensions", map(in_order, self.dimensions), sets)
        self.known("jobs", self.jobs, JOBS)
        check_statistics(self.statistics)
        named(self.series, specs)
        return specs

    def _endpoints(self, hook: SageMakerHook) -> list[dict[str, Any]]:
        endpoints: list[dict[str, Any]] = []
        with self.part(f"{hook.region_name}/ListEndpoints"):
            endpoints += hook.endpoints()
        for row in endpoints:
            self.wanted(row["EndpointName"])
        return endpoints

    def _states(
        self, hook: SageMakerHook, window: Window, endpoints: Sequence[Mapping[str, Any]], describe: Describe
    ) -> Iterator[Event]:
        """What became of the endpoints that were changed in the window, and only of these."""
        for row in endpoints:
            name = row["EndpointName"]
            if to_ms(row["LastModifiedTime"]) not in window or not self.wanted(name):
                continue
            with self.part(f"{hook.region_name}/DescribeEndpoint {name}"):
                endpoint = describe(name)
                if endpoint is None or to_ms(endpoint["LastModifiedTime"]) not in window:
                    continue
                config = (
                    hook.endpoint_config(endpoint["EndpointConfigName"]) if "EndpointConfigName" in endpoint else {}
                )
                yield endpoint_event(endpoint, config or {}, hook.region_name)

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
        by_name = {origin(spec)[1]: spec for spec in specs}
        kinds = {namespace: kind for kind, namespace in JOBS.items()}
        wanted = list(self._series(hook, specs, window, now, endpoints, describe))
        account = self._account(hook, endpoints) if wanted or self.linked_accounts else ""
        if self.linked_accounts and account:
            wanted += ((series, window.start) for series in self._linked(hook, specs, account))
        for series, start in wanted if account else ():
            spec = by_name[series.metric_name]
            shared = {tag(name): value for name, value in series.dimensions}
            if series.dimension_set == HOST:
                shared |= {"job_name": series.owner, "job_type": kinds[series.namespace]}
            shared |= {
                "cloud_provider": "aws",
                "service": "sagemaker",
                "account_id": series.account or account,
                "region": hook.region_name,
                "dimensions": series.dimension_set,
                "period_s": str(period),
            }
            for statistic in self.statistics.get(spec.name, spec.statistics):
                stats.append(series.stat(period, statistic))
                labels.append((f"aws-sagemaker-{series.owner}", spec, {**shared, "statistic": statistic}))
                starts.append(start)
        # Jobs come and go.
        if not self.failures and not self.jobs:
            self.check_matched(f"{hook.region_name} by connection {self.aws_conn_id}")
        if not wanted and not self.failures:
            self._check_linked(hook)
        return stats, labels, starts

    def _linked(self, hook: SageMakerHook, specs: Sequence[MetricSpec], account: str) -> Iterator[Series]:
        """What other accounts share with this one, as ListMetrics shows it."""
        sets, names = set(map(in_order, self.dimensions)), {origin(spec)[1] for spec in specs}
        with self.part(f"{hook.region_name}/ListMetrics of linked accounts"):
            for namespace in sorted({origin(spec)[0] for spec in specs}):
                for series in map(Series.listed, hook.metrics(namespace, linked_accounts=True)):
                    read = series.dimension_set in sets and series.metric_name in names
                    if series.account not in ("", account) and read and self.wanted(series.owner):
                        yield series

    def _check_linked(self, hook: SageMakerHook) -> None:
        """A monitoring account without endpoints of its own is no empty one."""
        with suppress(AirisError):
            for row in hook.metrics("AWS/SageMaker", "Invocations", linked_accounts=True):
                self.failures[f"{hook.region_name}/linked_accounts"] = PermanentError(
                    f"{hook.region_name} by connection {self.aws_conn_id} has nothing of its own, but account "
                    f"{row.get('AccountId')} shares its metrics with it: set linked_accounts, or read by a connection "
                    "of that account"
                )
                return

    def _account(self, hook: SageMakerHook, endpoints: Sequence[Mapping[str, Any]]) -> str:
        """The account that is read, which every series is told by: from an ARN at hand, else it is asked for."""
        from airflow_provider_airis.hooks.aws import account_of

        at_hand = [row["EndpointArn"] for row in endpoints[:1]]
        at_hand += [error.detail for error in self.failures.values() if isinstance(error, PermanentError)]
        account = next(filter(None, map(account_of, at_hand)), "")
        if not account:
            with self.part(f"{hook.region_name}/GetCallerIdentity"):
                account = hook.account_id()
        return account

    def _series(
        self,
        hook: SageMakerHook,
        specs: Sequence[MetricSpec],
        window: Window,
        now: datetime,
        endpoints: Sequence[Mapping[str, Any]],
        describe: Describe,
    ) -> Iterator[tuple[Series, int]]:
        """Every series to ask for, and since when.

        Those of a variant or inference component are asked for whether ListMetrics shows them or not, the silent ones
        less often. All others are asked for as it shows them.
        """
        fresh = {row["EndpointName"] for row in endpoints if row["LastModifiedTime"] > now - _LISTING_LAG}
        found = [
            Series(*origin(spec), tuple(zip(names.split("/"), values, strict=True)))
            for names, values in self._found(hook, specs, window, endpoints, fresh, describe)
            for spec in specs
            if names in spec.dimensions and origin(spec)[1] not in _SOME_HAVE
        ]
        found += self._rare(hook, specs)
        others = set(map(in_order, self.dimensions)) - {VARIANT, COMPONENT}
        jobs = {JOBS[kind] for kind in self.jobs}
        recent = window.start + self.idle_poll_interval_s * 1000
        lately = now - from_ms(recent) < _ACTIVE
        patient = lately and self.idle_poll_interval_s > 0
        listed = jobs | {series.namespace for series in found if patient}
        listed |= {origin(spec)[0] for spec in specs if others}
        shown: set[Series] = set()
        unsure = set(listed)
        with self.part(f"{hook.region_name}/ListMetrics"):
            for namespace in sorted(listed):
                shown.update(map(Series.listed, hook.metrics(namespace, recently_active=lately)))
                unsure.remove(namespace)
        metrics = {origin(spec)[1] for spec in specs}
        found += sorted(
            series
            for series in shown
            if series.dimension_set in ({HOST} if series.namespace in jobs else others)
            and series.metric_name in metrics
            and self.wanted(series.owner)
        )
        exact = [series for series in named(self.series, specs) if self.wanted(series.owner)]
        yield from ((series, window.start) for series in exact)
        every = self.idle_poll_interval_s * 1000
        own = Window(window.start + every + self.lookback_s * 1000, window.end)
        for series in found:
            if series in exact:
                continue
            if not patient or is_due(series, every, own):
                yield series, window.start
            elif series in shown or series.namespace in unsure or series.owner in fresh:
                yield series, recent

    def _rare(self, hook: SageMakerHook, specs: Sequence[MetricSpec]) -> list[Series]:
        sets = {VARIANT, COMPONENT} & set(map(in_order, self.dimensions))
        rare = [origin(spec) for spec in specs if origin(spec)[1] in _SOME_HAVE and sets & {*spec.dimensions}]
        found: list[Series] = []
        with self.part(f"{hook.region_name}/ListMetrics"):
            for namespace, name in rare:
                shown = map(Series.listed, hook.metrics(namespace, name))
                found += (series for series in shown if series.dimension_set in sets and self.wanted(series.owner))
        return found

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
        wanted = {VARIANT, COMPONENT} & set(map(in_order, self.dimensions))
        found: set[tuple[str, tuple[str, ...]]] = set()
        if not wanted:
            return []
        asked = {origin(spec)[0] for spec in specs if wanted & {*spec.dimensions}}
        with self.part(f"{hook.region_name}/ListMetrics"):
            for namespace in sorted(asked):
                for series in map(Series.listed, hook.metrics(namespace, _EVERYBODY_HAS[namespace])):
                    if series.dimension_set in wanted and self.wanted(series.owner):
                        found.add((series.dimension_set, tuple(value for _, value in series.dimensions)))
        shown = {values[0] for names, values in found if names == VARIANT}
        for row in endpoints if VARIANT in wanted else ():
            name = row["EndpointName"]
            if not self.wanted(name) or row["CreationTime"] >= from_ms(window.end) or name in shown - fresh:
                continue
            with self.part(f"{hook.region_name}/DescribeEndpoint {name}"):
                described = describe(name) or {}
                found |= {(VARIANT, (name, v["VariantName"])) for kind in KINDS for v in described.get(kind, ())}
        return sorted(found)
