"""What SageMaker's and CloudWatch's records mean: series and their names, statistics, endpoints' states. No calls."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from airflow_provider_airis.catalog import MetricSpec
from airflow_provider_airis.catalog.sagemaker import COMPONENT, HOST
from airflow_provider_airis.errors import PermanentError
from airflow_provider_airis.records import Event, EventSeverity, Window, to_ms

KINDS = ("ProductionVariants", "ShadowProductionVariants")
_SEVERITIES: dict[str, EventSeverity] = {
    "Failed": "error",
    "UpdateRollbackFailed": "error",
    "OutOfService": "warning",
    "RollingBack": "warning",
}
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/Statistics-definitions.html
_PERCENT = r"\d{1,2}(\.\d{1,10})?|100"
_RANGE = r"[\d.]*%?:[\d.]*%?"
_STATISTIC = re.compile(
    rf"SampleCount|Average|Sum|Minimum|Maximum|IQM|(p|tm|tc|ts|wm)({_PERCENT})|(TM|TC|TS|WM|PR)\({_RANGE}\)"
)


class Series(NamedTuple):
    """What CloudWatch keeps under one name: ``dimensions`` are names and values, sorted; ``account`` if another's."""

    namespace: str
    metric_name: str
    dimensions: tuple[tuple[str, str], ...]
    account: str = ""

    @classmethod
    def listed(cls, row: Mapping[str, Any]) -> Series:
        """As ListMetrics shows it."""
        dimensions = sorted((d["Name"], d["Value"]) for d in row["Dimensions"])
        return cls(row["Namespace"], row["MetricName"], tuple(dimensions), row.get("AccountId", ""))

    @property
    def dimension_set(self) -> str:
        """The dimensions' names, as the catalog writes it."""
        return "/".join(name for name, _ in self.dimensions)

    @property
    def owner(self) -> str:
        """The endpoint, inference component or job."""
        values = dict(self.dimensions)
        return values.get("EndpointName") or values.get(COMPONENT) or values.get(HOST, "").rpartition("/")[0]

    def stat(self, period: int, statistic: str) -> dict[str, Any]:
        """As GetMetricData is asked for it."""
        dimensions = [{"Name": name, "Value": value} for name, value in self.dimensions]
        metric = {"Namespace": self.namespace, "MetricName": self.metric_name, "Dimensions": dimensions}
        of = {"AccountId": self.account} if self.account else {}
        return {"Metric": metric, "Period": period, "Stat": statistic, **of}


def origin(spec: MetricSpec) -> tuple[str, str]:
    """Namespace and name in CloudWatch."""
    namespace, _, name = spec.origin.partition(":")
    return namespace, name


def tag(dimension: str) -> str:
    """A dimension's name as a tag."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", dimension).lower()


def in_order(names: str) -> str:
    """A set of dimensions as the catalog writes it."""
    return "/".join(sorted(names.split("/")))


def named(series: Iterable[str], specs: Sequence[MetricSpec]) -> list[Series]:
    """The series of exact dimensions, ``EndpointName=fraud/VariantName=blue``: of every metric that has that set.

    :raises PermanentError: it is no such text, or no metric has the set.
    """
    found = []
    for text in series:
        parts = [part.partition("=") for part in re.split(r"/(?=[A-Za-z]+=)", text)]
        if not all(name and equals and value for name, equals, value in parts):
            raise PermanentError(f"series has {text!r}: write EndpointName=fraud/VariantName=blue", pointer="/series")
        dimensions = tuple(sorted((name, value) for name, _, value in parts))
        names = "/".join(name for name, _ in dimensions)
        fits = [Series(*origin(spec), dimensions) for spec in specs if names in spec.dimensions and names != HOST]
        if not fits:
            raise PermanentError(f"series has {text!r}: no metric that is read has the set {names}", pointer="/series")
        found += fits
    return found


def is_due(series: Series, every_ms: int, window: Window) -> bool:
    """Whether the clock passes the series' turn in a window; each has one every ``every_ms``."""
    values = "/".join(f"{name}:{value}" for name, value in series.dimensions)
    turn = zlib.crc32(f"{series.namespace}\n{series.metric_name}\n{values}".encode()) % every_ms
    return (window.end - turn) // every_ms > (window.start - turn) // every_ms


def paired(connections: Sequence[str], regions: Sequence[str | None]) -> list[tuple[str, str | None]]:
    """Connection and region of each task: of a connection the regions that name it, ``main:us-east-1``, else those that
    name none, else None, its own.

    :raises PermanentError: a region names another connection.
    """
    given = [text.rpartition(":") for text in regions if text]
    if unknown := {conn_id for conn_id, _, _ in given} - {"", *connections}:
        raise PermanentError(f"regions names {', '.join(sorted(unknown))}, which connections does not")
    pairs: list[tuple[str, str | None]] = []
    for conn_id in connections:
        own = [name for of, _, name in given if of == conn_id] or [name for of, _, name in given if not of]
        pairs += [(conn_id, name) for name in own] or [(conn_id, None)]
    return pairs


def check_statistics(statistics: Mapping[str, Sequence[str]]) -> None:
    """Check what CloudWatch would refuse, and with it whatever is asked for in the same call.

    :raises PermanentError: one is no statistic.
    """
    for metric, names in statistics.items():
        for name in names:
            if not _STATISTIC.fullmatch(name):
                raise PermanentError(
                    f"statistics of {metric} has {name!r}, which CloudWatch does not compute: Average, Sum, Minimum, "
                    "Maximum, SampleCount, p99, tm90, TM(10%:90%) …",
                    pointer=f"/statistics/{metric}",
                )


def endpoint_event(endpoint: Mapping[str, Any], config: Mapping[str, Any], region: str) -> Event:
    """What an endpoint is since its last change, as an event."""
    name, arn, status = endpoint["EndpointName"], endpoint["EndpointArn"], endpoint["EndpointStatus"]
    at = to_ms(endpoint["LastModifiedTime"])
    data = {
        "endpoint_name": name,
        "account_id": arn.split(":")[4],
        "region": region,
        "status": status,
        "failure_reason": endpoint.get("FailureReason"),
        "endpoint_config_name": endpoint.get("EndpointConfigName"),
        "variants": _variants(endpoint, config),
    }
    return Event(
        event_type="endpoint_status",
        source=f"aws-sagemaker-{name}",
        severity=_SEVERITIES.get(status, "info"),
        timestamp=at,
        data={key: value for key, value in data.items() if value is not None},
        key=f"{arn}/{at}/{status}",
    )


def _variants(endpoint: Mapping[str, Any], config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The variants as configured and as they are now; what either does not say is left out."""
    configured, running = (
        {v["VariantName"]: v for kind in KINDS for v in of.get(kind, ())} for of in (config, endpoint)
    )
    found = []
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
        found.append({key: value for key, value in variant.items() if value is not None})
    return found
