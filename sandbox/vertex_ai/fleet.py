"""The endpoints that the stand-in monitors, and every value of theirs at any minute.

A value is a function of (series, minute) alone. What is *published* is another matter: the history's minutes, and the
live ones as the clock passes them and the metric's ingest delay after them.
"""

from __future__ import annotations

import math
import time
import zlib
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from random import Random
from typing import NamedTuple

PREFIX = "aiplatform.googleapis.com/prediction/online/"
RETENTION_S = 42 * 86400
DAY = 1440
_ABSENT = math.nan
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
)


class Kind(NamedTuple):
    """What Google's list says of a metric.

    :param of: what has a series of its own: a ``model`` deployed to an endpoint, each of its ``replica``, or a GPU's.
    """

    kind: str
    value_type: str
    unit: str
    of: str
    delay_s: int
    labels: tuple[str, ...] = ()


METRICS = {
    "prediction_count": Kind("DELTA", "INT64", "1", "model", 60),
    "error_count": Kind("DELTA", "INT64", "1", "model", 60),
    "response_count": Kind("DELTA", "INT64", "1", "model", 60, ("response_code",)),
    "prediction_latencies": Kind("DELTA", "DISTRIBUTION", "ms", "model", 60, ("latency_type",)),
    "replicas": Kind("GAUGE", "INT64", "1", "model", 120),
    "target_replicas": Kind("GAUGE", "INT64", "1", "model", 120),
    "cpu/utilization": Kind("GAUGE", "DOUBLE", "10^2.%", "replica", 360),
    "memory/bytes_used": Kind("GAUGE", "INT64", "By", "replica", 360),
    "network/received_bytes_count": Kind("DELTA", "INT64", "By", "replica", 360),
    "network/sent_bytes_count": Kind("DELTA", "INT64", "By", "replica", 360),
    "accelerator/duty_cycle": Kind("GAUGE", "DOUBLE", "10^2.%", "gpu", 360),
    "accelerator/memory/bytes_used": Kind("GAUGE", "INT64", "By", "gpu", 360),
}


@dataclass
class Model:
    """A model deployed to an endpoint. The rate is predictions a minute at the mean of the day, latency ms."""

    id: str
    display_name: str
    replicas: int
    rate: float
    latency_ms: float
    spread: float
    gpu: bool
    custom: bool

    @classmethod
    def make(cls, endpoint_id: str, number: int, display_name: str, *, quiet: bool, gpu: bool) -> Model:
        """The model that this id always has. A ``quiet`` one has minutes without a prediction."""
        dice = Random(f"{endpoint_id}/{number}")
        return cls(
            id=str(dice.randrange(10**18, 10**19)),
            display_name=display_name,
            replicas=dice.randint(1, 2),
            rate=1.5 if quiet else dice.uniform(40, 800),
            latency_ms=dice.uniform(8, 90),
            spread=dice.uniform(0.25, 0.5),
            gpu=gpu,
            custom=dice.random() < 0.7,
        )


@dataclass
class Endpoint:
    """An endpoint; times are Unix seconds.

    :param labelled: whether its metrics carry the display names.
    :param owner: another project, which shares its metrics through a metrics scope.
    """

    id: str
    display_name: str
    location: str
    models: tuple[Model, ...]
    created: float
    deleted: float = math.inf
    labelled: bool = True
    owner: str = ""


@dataclass
class Series:
    """One time series."""

    metric: str
    endpoint: Endpoint
    model: Model
    labels: dict[str, str]
    key: str = field(init=False)

    def __post_init__(self) -> None:
        self.key = "/".join((self.endpoint.id, self.model.id, self.metric, *self.labels.values()))


@dataclass
class Fleet:
    """Everything that exists, and what of it Cloud Monitoring shows.

    Minutes of ``[history_from, history_until)`` are published, and those from ``live_from`` on once they are over and
    the ingest delay has passed: Google's own of each metric, or ``ingest_delay_s``. Unix seconds; 0 for none. With a
    ``number`` the project is called by it in the names of its endpoints and in the labels of their series.
    """

    project: str
    locations: list[str]
    endpoints: int
    history_from: float = 0
    history_until: float = 0
    live_from: float = 0
    ingest_delay_s: float | None = None
    now: float | None = None
    number: str = ""

    def __post_init__(self) -> None:
        self.fleet: dict[str, Endpoint] = {}
        # From when on a metric has no points.
        self.silent: dict[str, float] = {}
        self.series: dict[str, list[Series]] = {metric: [] for metric in METRICS}
        since = (self.history_from or self.live_from or time.time()) - 30 * 86400
        for location in self.locations:
            for index in range(self.endpoints):
                turn, place = divmod(index, len(_NAMES))
                name = _NAMES[place] + (f"-{turn + 1}" if turn else "")
                models = [f"{name}-v{version + 1}" for version in range(1 + index % 2)]
                self.create(location, name, models, created=since, quiet=index % 7 == 5, gpu=index % 5 == 4)

    def clock(self) -> float:
        """Now, Unix seconds."""
        return time.time() if self.now is None else self.now

    def delay_s(self, metric: str) -> float:
        """How long after its minute a point becomes visible."""
        return METRICS[metric].delay_s if self.ingest_delay_s is None else self.ingest_delay_s

    def create(
        self,
        location: str,
        name: str,
        models: Iterable[str],
        *,
        created: float,
        labelled: bool = True,
        quiet: bool = False,
        gpu: bool = False,
        owner: str = "",
    ) -> Endpoint:
        """Add an endpoint, whose display name need not be its alone; its points begin at ``created``."""
        dice = Random(f"{location}/{name}/{len(self.fleet)}")
        endpoint_id = str(dice.randrange(10**18, 10**19))
        deployed = tuple(
            Model.make(endpoint_id, number, model, quiet=quiet, gpu=gpu) for number, model in enumerate(models)
        )
        endpoint = Endpoint(endpoint_id, name, location, deployed, created, labelled=labelled, owner=owner)
        self.fleet[endpoint_id] = endpoint
        for model in deployed:
            for metric, kind in METRICS.items():
                for labels in _labels(metric, kind, endpoint, model):
                    self.series[metric].append(Series(metric, endpoint, model, labels))
        return endpoint

    def spans(self, series: Series, start: float, end: float) -> Iterator[tuple[int, int]]:
        """The runs of published minutes in ``[start, end)``, as minutes since the epoch."""
        now = self.clock()
        visible = now - self.delay_s(series.metric)
        start = max(start, series.endpoint.created, now - RETENTION_S)
        end = min(end, self.silent.get(series.metric, end))
        for first, last in (
            (self.history_from, min(self.history_until, visible)),
            (max(self.live_from, self.history_until), visible if self.live_from else 0),
        ):
            begin = math.ceil(max(first, start) / 60)
            until = min(math.ceil(min(end, series.endpoint.deleted) / 60), int(last // 60))
            if begin < until:
                yield begin, until

    def samples(self, series: Series, start: float, end: float) -> Iterator[tuple[int, float]]:
        """Minute (Unix seconds of its start) and value of what is published of ``[start, end)``, ascending.

        The value of a distribution is its median.
        """
        for first, last in self.spans(series, start, end):
            for day in range(first // DAY, (last - 1) // DAY + 1):
                low, high = max(first, day * DAY), min(last, (day + 1) * DAY)
                values = _day(series.key, series.metric, series.model.rate, series.model.latency_ms, day)
                for minute in range(low, high):
                    value = values[minute - day * DAY]
                    if not math.isnan(value):
                        yield minute * 60, value


def aligned(
    series: Series, aligner: str, samples: list[tuple[int, float]], start: int, end: int, period: int
) -> Points:
    """Apply an aligner to the samples whose minutes end in ``(start, end]``: period's end → value, newest first.

    Periods are counted back from ``end``.
    """
    groups: dict[int, list[float]] = {}
    for minute, value in reversed(samples):
        at = minute + 60
        if start < at <= end:
            groups.setdefault(end - (end - at) // period * period, []).append(value)
    model = series.model
    match aligner:
        case "ALIGN_SUM" | "ALIGN_DELTA":
            return [(at, sum(values)) for at, values in groups.items()]
        case "ALIGN_MEAN" if METRICS[series.metric].value_type != "DISTRIBUTION":
            return [(at, sum(values) / len(values)) for at, values in groups.items()]
        case "ALIGN_MAX":
            return [(at, max(values)) for at, values in groups.items()]
    times = math.exp(_QUANTILES[aligner] * model.spread)
    return [(at, sum(values) / len(values) * times) for at, values in groups.items()]


Points = list[tuple[int, float]]
_QUANTILES = {
    "ALIGN_PERCENTILE_05": -1.645,
    "ALIGN_PERCENTILE_50": 0.0,
    "ALIGN_PERCENTILE_95": 1.645,
    "ALIGN_PERCENTILE_99": 2.326,
}


def _labels(metric: str, kind: Kind, endpoint: Endpoint, model: Model) -> Iterator[dict[str, str]]:
    base = {"deployed_model_id": model.id, "spot": "False"}
    if kind.of == "model":
        if endpoint.labelled:
            base |= {"endpoint_display_name": endpoint.display_name, "model_display_name": model.display_name}
        values = {
            "response_count": [{"response_code": code} for code in ("2xx", "4xx", "5xx")],
            "prediction_latencies": [
                {"latency_type": part} for part in (("total", "model", "overhead") if model.custom else ("total",))
            ],
        }
        for further in values.get(metric, [{}]):
            yield base | further
    elif kind.of == "replica" or model.gpu:
        for number in range(model.replicas):
            yield base | {"replica_id": f"{zlib.crc32(f'{model.id}/{number}'.encode()):08x}"}


@lru_cache(8192)
def _day(key: str, metric: str, rate: float, latency_ms: float, day: int) -> array[float]:
    """A day of one series, a value a minute."""
    dice = Random(f"{key}/{day}")
    noise, chance = dice.gauss, dice.random
    parts = {"total": 1.1, "overhead": 0.1, "5xx": 0.01, "4xx": 0.02, "2xx": 0.97}
    share = parts.get(key.rpartition("/")[2], 1.0)
    values = array("d")
    for minute in range(DAY):
        load = 0.65 - 0.35 * math.cos(2 * math.pi * minute / DAY)
        match metric:
            case "prediction_count" | "response_count" | "error_count":
                often = rate * load * share * (0.01 if metric == "error_count" else 1)
                count = int(often + chance())
                values.append(count if count or metric == "error_count" else _ABSENT)
            case "prediction_latencies":
                values.append(latency_ms * share * math.exp(noise(0, 0.1)) if chance() < rate else _ABSENT)
            case "replicas" | "target_replicas":
                values.append(2)
            case "cpu/utilization" | "accelerator/duty_cycle":
                values.append(min(1.0, max(0.01, load + noise(0, 0.05))))
            case _:
                values.append(int(1e6 * rate * load * (1 + abs(noise(0, 0.1)))))
    return values
