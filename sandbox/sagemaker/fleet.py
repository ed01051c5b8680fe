"""The endpoints that the stand-in monitors, and every value of theirs at any minute.

A value is a function of (region, endpoint, variant, metric, minute) alone. What is *published* is another matter: the
history's minutes, and the live ones as the clock passes them.
"""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import compress
from operator import mul, truediv
from random import Random
from statistics import NormalDist
from typing import NamedTuple

DAY = 1440
REQUESTS = "AWS/SageMaker"
INSTANCES = "/aws/sagemaker/Endpoints"
COMPONENTS = "/aws/sagemaker/InferenceComponents"
_NEVER = 2.0**40
JOBS = {
    "training": "/aws/sagemaker/TrainingJobs",
    "processing": "/aws/sagemaker/ProcessingJobs",
    "transform": "/aws/sagemaker/TransformJobs",
}
RETENTION_S = ((300, 15 * 86400), (3600, 63 * 86400), (math.inf, 455 * 86400))
LISTED_S = 14 * 86400

_NAMES = (
    "fraud-detection",
    "churn-prediction",
    "credit-scoring",
    "demand-forecast",
    "product-ranking",
    "image-moderation",
    "chat-assistant",
    "document-ocr",
    "price-optimizer",
    "lead-scoring",
    "anomaly-detector",
    "sentiment-analysis",
    "route-planner",
    "claims-triage",
    "speech-to-text",
    "entity-matching",
    "ad-bidding",
    "inventory-planner",
    "risk-rating",
    "visual-search",
)

# One table of noise for everybody; each series reads it from another place each day.
_DICE = Random("noise")
_NOISE = tuple(_DICE.gauss(0, 1) for _ in range(1 << 16))
_CURVE = tuple(
    0.55 - 0.35 * math.cos(2 * math.pi * m / DAY) + 0.1 * math.sin(4 * math.pi * m / DAY) for m in range(DAY)
)


@dataclass(frozen=True)
class Variant:
    """One production variant. Rates are requests a minute at the mean of the day, latencies microseconds."""

    region: str
    endpoint: str
    name: str
    instance_type: str
    instances: int
    cores: int
    rate: float
    latency_us: float
    spread: float
    phase: int

    @classmethod
    def make(cls, region: str, endpoint: str, name: str, *, quiet: bool, gpu: bool) -> Variant:
        """The variant that this name always has. A ``quiet`` one has minutes without a request."""
        dice = Random(f"{region}/{endpoint}/{name}")
        size, cores = dice.choice((("xlarge", 4), ("2xlarge", 8)))
        return cls(
            region=region,
            endpoint=endpoint,
            name=name,
            instance_type=f"ml.{'g5' if gpu else 'm5'}.{size}",
            instances=dice.randint(1, 4),
            cores=cores,
            rate=1.5 if quiet else dice.uniform(40, 800),
            latency_us=dice.uniform(8_000, 90_000),
            spread=dice.uniform(0.25, 0.5),
            phase=dice.randrange(240),
        )

    def noise(self, stream: str, day: int) -> Sequence[float]:
        """The day's noise, one number a minute, normally distributed."""
        key = f"{self.region}/{self.endpoint}/{self.name}/{stream}/{day}"
        at = zlib.crc32(key.encode()) % (len(_NOISE) - DAY)
        return _NOISE[at : at + DAY]


class Samples(NamedTuple):
    """A day of one metric: how many samples each minute has, their sum, the least and the greatest."""

    number: list[int]
    total: list[float]
    low: list[float]
    high: list[float]


METRICS: dict[str, tuple[str, str]] = {
    "Invocations": (REQUESTS, "None"),
    "Invocation4XXErrors": (REQUESTS, "None"),
    "Invocation5XXErrors": (REQUESTS, "None"),
    "InvocationModelErrors": (REQUESTS, "None"),
    "InvocationsPerInstance": (REQUESTS, "None"),
    "ModelLatency": (REQUESTS, "Microseconds"),
    "OverheadLatency": (REQUESTS, "Microseconds"),
    "CPUUtilization": (INSTANCES, "Percent"),
    "MemoryUtilization": (INSTANCES, "Percent"),
    "DiskUtilization": (INSTANCES, "Percent"),
    "GPUUtilization": (INSTANCES, "Percent"),
    "GPUMemoryUtilization": (INSTANCES, "Percent"),
}
# What is published under other dimensions than a variant's.
OF_COMPONENTS = {name: METRICS[name] for name in METRICS if name.startswith(("Invocation", "Model", "Overhead"))} | {
    "InvocationsPerCopy": (REQUESTS, "None"),
    "CPUUtilizationNormalized": (COMPONENTS, "Percent"),
    "MemoryUtilizationNormalized": (COMPONENTS, "Percent"),
    "GPUUtilizationNormalized": (COMPONENTS, "Percent"),
    "GPUMemoryUtilizationNormalized": (COMPONENTS, "Percent"),
}
del OF_COMPONENTS["InvocationsPerInstance"]
OF_CONTAINERS = {
    "Invocations": METRICS["Invocations"],
    "ContainerLatency": (REQUESTS, "Microseconds"),
    "CPUUtilization": METRICS["CPUUtilization"],
}
OF_QUEUES = {
    "ApproximateBacklogSize": (REQUESTS, "Count"),
    "ApproximateBacklogSizePerInstance": (REQUESTS, "Count"),
    "ApproximateAgeOfOldestRequest": (REQUESTS, "Seconds"),
    "HasBacklogWithoutCapacity": (REQUESTS, "Count"),
}
OF_SERVERLESS = {"ModelSetupTime": (REQUESTS, "Microseconds")}
OF_JOBS = [name for name, (namespace, _) in METRICS.items() if namespace == INSTANCES]


@lru_cache(256)
def _requests(variant: Variant, day: int) -> list[int]:
    curve = _CURVE[variant.phase :] + _CURVE[: variant.phase]
    swing = 0.9 if variant.rate < 10 else 0.12
    return [
        max(0, int(variant.rate * share * (1 + swing * noise)))
        for share, noise in zip(curve, variant.noise("requests", day), strict=True)
    ]


def _samples(variant: Variant, metric: str, day: int) -> Samples:
    count = [variant.instances] * DAY if "Utilization" in metric else _requests(variant, day)
    noise = variant.noise(metric, day)
    match metric:
        case "Invocations":
            total = [float(n) for n in count]
            return Samples(count, total, _flat(1, count), _flat(1, count))
        case "InvocationsPerInstance" | "InvocationsPerCopy":
            each = 1 / variant.instances
            return Samples(count, [n * each for n in count], _flat(each, count), _flat(each, count))
        case "Invocation4XXErrors" | "Invocation5XXErrors" | "InvocationModelErrors":
            share = 0.02 if metric == "Invocation4XXErrors" else 0.001
            total = [float(int(n * share * abs(z))) for n, z in zip(count, noise, strict=True)]
            # SageMaker sends a 0 for every request that did not fail: the sum is the count, the average the rate.
            return Samples(count, total, [0.0] * DAY, [float(t > 0) for t in total])
        case "ModelLatency" | "ContainerLatency" | "OverheadLatency":
            base = 3_000 + variant.latency_us / 50 if metric == "OverheadLatency" else variant.latency_us
            mean = [base * (1 + 0.05 * z) for z in noise]
            reach = math.exp(2.6 * variant.spread)
        case "CPUUtilization" | "GPUUtilization":
            top = 100.0 * (variant.cores if metric == "CPUUtilization" else 1)
            busy = [n / variant.rate for n in _requests(variant, day)]
            mean = [top * min(0.9, 0.08 + 0.4 * b + 0.01 * abs(z)) for b, z in zip(busy, noise, strict=True)]
            reach = 1.1
        case _:
            level = 30 + zlib.crc32(f"{variant.endpoint}/{metric}".encode()) % 40
            mean = [level + 0.5 * z for z in noise]
            reach = 1.05
    return Samples(
        count,
        [m * n for m, n in zip(mean, count, strict=True)],
        [m / reach for m in mean],
        [m * reach for m in mean],
    )


def _flat(each: float, count: list[int]) -> list[float]:
    return [each] * len(count)


@dataclass(eq=False)
class Series:
    """One published series: a metric under an exact set of dimensions."""

    namespace: str
    metric: str
    unit: str
    dimensions: dict[str, str]
    variant: Variant
    endpoint: Endpoint

    def listing(self) -> dict[str, object]:
        """As ListMetrics shows it."""
        return {
            "Namespace": self.namespace,
            "MetricName": self.metric,
            "Dimensions": [{"Name": name, "Value": value} for name, value in self.dimensions.items()],
        }


@dataclass(eq=False)
class Endpoint:
    """An endpoint, or a job; ``listed`` is whether ListMetrics knows its series already. Times are Unix seconds.

    Until ``idle_until`` nobody asks it anything, and those of its variants and components that are ``idle`` never: they
    have load, but no requests. With an ``account`` it is another's, which shares its metrics with ours.
    """

    name: str
    created: float
    variants: tuple[Variant, ...]
    listed: bool = True
    deleted: float = math.inf
    idle_until: float = 0
    idle: frozenset[str] = frozenset()
    account: str = ""
    status: str = "InService"
    failure_reason: str | None = None
    modified: float = 0

    def since(self, series: Series) -> float:
        """From when on one of its series is published."""
        if series.namespace != REQUESTS:
            return self.created
        return _NEVER if series.variant.name in self.idle else max(self.created, self.idle_until)


@dataclass
class Incident:
    """Model latency times ``factor`` from the minute ``start`` until ``end``."""

    endpoint: str
    start: int
    end: float
    factor: float


@dataclass
class Fleet:
    """Everything that exists, and what of it CloudWatch shows.

    Minutes of ``[history_from, history_until)`` are published, and those from ``live_from`` on once they are over and
    ``ingest_delay_s`` has passed. All are Unix seconds; 0 for none. ListMetrics shows a series ``listing_lag_s`` after
    its first point.
    """

    regions: list[str]
    endpoints: int
    history_from: float = 0
    history_until: float = 0
    live_from: float = 0
    ingest_delay_s: float = 0
    listing_lag_s: float = 0
    now: float | None = None
    incidents: list[Incident] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.fleet: dict[str, dict[str, Endpoint]] = {region: {} for region in self.regions}
        self.series: dict[str, dict[tuple[object, ...], Series]] = {region: {} for region in self.regions}
        self._day = lru_cache(256)(self._uncached_day)
        since = (self.history_from or self.live_from or time.time()) - 30 * 86400
        for region in self.regions:
            for index in range(self.endpoints):
                turn, place = divmod(index, len(_NAMES))
                name = _NAMES[place] + (f"-{turn + 1}" if turn else "")
                variants = ["AllTraffic"] if index % 2 == 0 else ["blue", "green"]
                self.create(region, name, variants, created=since, quiet=index % 7 == 5, gpu=index % 5 == 4)

    def clock(self) -> float:
        """Now, Unix seconds."""
        return time.time() if self.now is None else self.now

    def create(
        self,
        region: str,
        name: str,
        variants: Iterable[str],
        *,
        created: float,
        listed: bool = True,
        quiet: bool = False,
        gpu: bool = False,
        components: Iterable[str] = (),
        containers: Iterable[str] = (),
        enhanced: bool = False,
        idle_until: float = 0,
        idle: Iterable[str] = (),
        asynchronous: bool = False,
        serverless: bool = False,
        account: str = "",
    ) -> Endpoint:
        """Add an endpoint whose series are published from ``created`` on.

        :param components: inference components, which have series of their own name.
        :param containers: what a multi-container endpoint publishes once more by container.
        :param enhanced: whether each instance has series too.
        :param asynchronous: whether the endpoint has a queue, and with it series under its own name alone.
        :param serverless: whether its variants have a time to start.
        """
        made = tuple(Variant.make(region, name, variant, quiet=quiet, gpu=gpu) for variant in variants)
        endpoint = Endpoint(name, created, made, listed, idle_until=idle_until, idle=frozenset(idle), modified=created)
        endpoint.account = account
        if asynchronous:
            self._publish(OF_QUEUES, {"EndpointName": name}, made[0], endpoint)
        self.fleet[region][name] = endpoint
        for variant in made:
            own = {"EndpointName": name, "VariantName": variant.name}
            # The same requests once more under the instance type: whoever adds up all that is listed counts twice.
            sets = [own, own | {"InstanceType": variant.instance_type}]
            if serverless:
                self._publish(OF_SERVERLESS, own, variant, endpoint)
            if enhanced:
                sets += [own | {"InstanceId": f"i-{variant.name}-{number}"} for number in range(variant.instances)]
            for dimensions in sets:
                self._publish(METRICS, dimensions, variant, endpoint)
            for container in containers:
                self._publish(OF_CONTAINERS, own | {"ContainerName": container}, variant, endpoint)
        for component in components:
            variant = Variant.make(region, name, component, quiet=quiet, gpu=gpu)
            self._publish(OF_COMPONENTS, {"InferenceComponentName": component}, variant, endpoint)
        return endpoint

    def run(self, region: str, kind: str, name: str, hosts: Iterable[str], *, start: float, end: float) -> None:
        """A job, whose hosts' load is published from ``start`` to ``end``."""
        made = [Variant.make(region, name, host, quiet=False, gpu=False) for host in hosts]
        job = Endpoint(name, start, tuple(made), deleted=end)
        for variant in made:
            of_job = dict.fromkeys(OF_JOBS, (JOBS[kind], "Percent"))
            self._publish(of_job, {"Host": f"{name}/{variant.name}"}, variant, job)

    def _publish(
        self, metrics: dict[str, tuple[str, str]], dimensions: dict[str, str], variant: Variant, endpoint: Endpoint
    ) -> None:
        for metric, (namespace, unit) in metrics.items():
            if not metric.startswith("GPU") or ".g" in variant.instance_type:
                series = Series(namespace, metric, unit, dimensions, variant, endpoint)
                self.series[variant.region][namespace, metric, frozenset(dimensions.items())] = series

    def find(self, region: str, namespace: str, metric: str, dimensions: dict[str, str]) -> Series | None:
        """The series under exactly these dimensions."""
        return self.series.get(region, {}).get((namespace, metric, frozenset(dimensions.items())))

    def changed(self) -> None:
        """Forget computed days after the incidents have changed."""
        self._day.cache_clear()

    def _uncached_day(self, variant: Variant, metric: str, day: int) -> Samples:
        samples = _samples(variant, metric, day)
        for incident in self.incidents if metric == "ModelLatency" else ():
            if incident.endpoint == variant.endpoint:
                first, last = incident.start - day * DAY, incident.end - day * DAY
                times = [incident.factor if first <= minute < last else 1.0 for minute in range(DAY)]
                number, *sizes = samples
                samples = Samples(number, *(list(map(mul, values, times)) for values in sizes))
        return samples

    def spans(self, series: Series, start: float, end: float) -> Iterator[tuple[int, int]]:
        """The runs of published minutes in ``[start, end)``, as minutes since the epoch."""
        visible = self.clock() - self.ingest_delay_s
        for first, last in (
            (self.history_from, min(self.history_until, visible)),
            (max(self.live_from, self.history_until), visible if self.live_from else 0),
        ):
            begin = math.ceil(max(first, start, series.endpoint.since(series)) / 60)
            until = math.ceil(min(end, series.endpoint.deleted) / 60)
            until = min(until, int(last // 60))
            if begin < until:
                yield begin, until

    def listed(self, series: Series, oldest: float) -> bool:
        """Whether ListMetrics shows a series of whose points the newest must not be older than ``oldest``."""
        young = self.clock() < series.endpoint.since(series) + self.listing_lag_s
        return series.endpoint.listed and not young and self.last_published(series) >= oldest

    def last_published(self, series: Series) -> float:
        """When the newest published minute of a series began, Unix seconds."""
        return max((last * 60.0 - 60 for _, last in self.spans(series, 0, 2**40)), default=0)

    def points(
        self, series: Series, statistic: str, start: float, end: float, period: int
    ) -> tuple[Sequence[int], list[float]]:
        """Timestamps (Unix seconds, start of the period) and values, ascending, as CloudWatch keeps them by now.

        Older than 15 days there are no one-minute points any more, older than 63 none of less than an hour.
        """
        now = self.clock()
        for finest, age in RETENTION_S:
            if period < finest:
                start = max(start, math.ceil((now - age) / period) * period)
        spans = list(self.spans(series, start, end))
        if period > 60:
            return self._grouped(series, statistic, spans, period)
        stamps: Sequence[int] = ()
        values: list[float] = []
        for first, last in spans:
            for day in range(first // DAY, (last - 1) // DAY + 1):
                low, high = max(first, day * DAY), min(last, (day + 1) * DAY)
                samples = self._day(series.variant, series.metric, day)
                part = slice(low - day * DAY, high - day * DAY)
                minutes: Sequence[int] = range(low * 60, high * 60, 60)
                picked = Samples(samples.number[part], samples.total[part], samples.low[part], samples.high[part])
                if 0 in picked.number:
                    minutes = list(compress(minutes, picked.number))
                    number, *sizes = picked
                    picked = Samples([n for n in number if n], *(list(compress(size, number)) for size in sizes))
                stamps = _joined(stamps, minutes)
                values += _each_minute(series.variant, picked, statistic)
        return stamps, values

    def _grouped(
        self, series: Series, statistic: str, spans: list[tuple[int, int]], period: int
    ) -> tuple[list[int], list[float]]:
        groups: dict[int, list[tuple[int, float, float, float]]] = {}
        for first, last in spans:
            for minute in range(first, last):
                samples = self._day(series.variant, series.metric, minute // DAY)
                at = minute % DAY
                if number := samples.number[at]:
                    row = (number, samples.total[at], samples.low[at], samples.high[at])
                    groups.setdefault(minute * 60 // period * period, []).append(row)
        values = []
        for rows in groups.values():
            numbers, totals, lows, highs = zip(*rows, strict=True)
            whole = Samples([sum(numbers)], [sum(totals)], [min(lows)], [max(highs)])
            values += _each_minute(series.variant, whole, statistic)
        return list(groups), values


def _each_minute(variant: Variant, samples: Samples, statistic: str) -> list[float]:
    match statistic:
        case "Sum":
            return samples.total
        case "SampleCount":
            return [float(n) for n in samples.number]
        case "Minimum":
            return samples.low
        case "Maximum":
            return samples.high
    average = list(map(truediv, samples.total, samples.number))
    if statistic == "Average":
        return average
    share = float(statistic[1:]) / 100
    z = NormalDist().inv_cdf(min(max(share, 1e-6), 1 - 1e-6))
    times = math.exp(variant.spread * z - variant.spread**2 / 2)
    return [min(a * times, high) for a, high in zip(average, samples.high, strict=True)]


def _joined(one: Sequence[int], other: Sequence[int]) -> Sequence[int]:
    """Both, one after the other; without a gap a range stays a range, which is cheap to send."""
    if not one:
        return other
    if isinstance(one, range) and isinstance(other, range) and one.stop == other.start:
        return range(one.start, other.stop, one.step)
    return [*one, *other]
