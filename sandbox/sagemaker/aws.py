"""The operations of SageMaker and CloudWatch, with the limits and refusals that AWS documents.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_GetMetricData.html
https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_ListMetrics.html
https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ListEndpoints.html
"""

from __future__ import annotations

import base64
import json
import math
import re
import threading
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sandbox.sagemaker.fleet import LISTED_S, Endpoint, Fleet, Series

MAX_QUERIES = 500
MAX_POINTS = 100_800
LIST_PAGE = 500
ENDPOINT_PAGE = 100
ACCOUNT = "123456789012"
"""The account of every access key that names no other."""

_ID = re.compile(r"[a-z][a-zA-Z0-9_]*\Z")
_STATISTIC = re.compile(r"(Sum|SampleCount|Average|Minimum|Maximum|p(\d{1,2}(\.\d{1,10})?|100))\Z")
_UNITS = {"None", "Count", "Percent", "Seconds", "Milliseconds", "Microseconds", "Bytes"}


class Refused(Exception):  # noqa: N818 - an answer, not a fault of ours
    """AWS's error answer."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code, self.message, self.status = code, message, status


class Stamps:
    """A timestamp or several in an answer, Unix seconds: the protocols write them differently."""

    def __init__(self, seconds: Sequence[int] | int) -> None:
        self.seconds = seconds


@dataclass
class Fault:
    """The next ``times`` calls of an operation are refused, of those whose request contains a text."""

    operation: str
    times: int
    code: str
    status: int
    containing: str = ""


@dataclass
class Partial:
    """The next ``times`` answers that hold a metric's series end with ``status``, after half of the points."""

    metric: str
    times: int
    status: str


@dataclass
class Denial:
    """An IAM action that is denied; ``*`` stands for any action, region or account."""

    action: str
    region: str
    account: str


@dataclass
class Aws:
    """Answers calls. What it keeps is counters and the faults that were ordered."""

    fleet: Fleet
    calls: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    faults: list[Fault] = field(default_factory=list)
    partials: list[Partial] = field(default_factory=list)
    denials: list[Denial] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def call(
        self, service: str, operation: str, region: str, request: dict[str, Any], account: str = ACCOUNT
    ) -> dict[str, Any]:
        """Answer one call.

        :raises Refused: with AWS's code and status.
        """
        with self.lock:
            self.calls[operation]["calls"] += 1
            text = json.dumps(request, default=str) if self.faults else ""
            fault = next(
                (f for f in self.faults if f.operation == operation and f.times > 0 and f.containing in text), None
            )
            if fault:
                fault.times -= 1
                raise Refused(fault.code, f"{fault.code} ordered for {operation}", fault.status)
        action = f"{'cloudwatch' if service == 'monitoring' else service}:{operation}"
        if any(
            d.action in ("*", action) and d.region in ("*", region) and d.account in ("*", account)
            for d in self.denials
        ):
            code, status = ("AccessDenied", 403) if service == "monitoring" else ("AccessDeniedException", 400)
            user = f"arn:aws:iam::{account}:user/sandbox"
            reason = "because no identity-based policy allows the"
            raise Refused(code, f"User: {user} is not authorized to perform: {action} {reason} {action} action", status)
        handlers: dict[str, Callable[[str, dict[str, Any]], dict[str, Any]]] = {
            "cloudwatch:GetMetricData": self.get_metric_data,
            "cloudwatch:GetMetricStatistics": self.get_metric_statistics,
            "cloudwatch:ListMetrics": partial(self.list_metrics, account),
            "sagemaker:ListEndpoints": partial(self.list_endpoints, account),
            "sagemaker:DescribeEndpoint": partial(self.describe_endpoint, account),
            "sagemaker:DescribeEndpointConfig": self.describe_endpoint_config,
            "sts:GetCallerIdentity": lambda *_: {"Account": account, "Arn": f"arn:aws:iam::{account}:user/sandbox"},
            "sts:AssumeRole": self.assume_role,
        }
        if action not in handlers:
            raise Refused("UnknownOperationException", f"The stand-in does not serve {action}")
        return handlers[action](region, request)

    def count(self, operation: str, **figures: int) -> None:
        """Add to an operation's counters."""
        with self.lock:
            self.calls[operation].update(figures)

    # STS

    def assume_role(self, _: str, request: dict[str, Any]) -> dict[str, Any]:
        """AssumeRole: a key of the role's account."""
        arn = request["RoleArn"]
        key = {"AccessKeyId": f"ASIA{arn.split(':')[4]}", "SecretAccessKey": "s", "SessionToken": "t"}
        role = {"AssumedRoleId": "AROA:sandbox", "Arn": arn.replace(":role/", ":assumed-role/")}
        return {"Credentials": {**key, "Expiration": "2099-01-01T00:00:00Z"}, "AssumedRoleUser": role}

    # SageMaker

    def list_endpoints(self, account: str, region: str, request: dict[str, Any]) -> dict[str, Any]:
        """ListEndpoints: newest first unless asked otherwise, at most 100 a page."""
        page = request.get("MaxResults", 10)
        if not 1 <= page <= ENDPOINT_PAGE:
            raise Refused(
                "ValidationException", f"Value '{page}' at 'maxResults' must be between 1 and {ENDPOINT_PAGE}"
            )
        part, status = request.get("NameContains", ""), request.get("StatusEquals")
        found = [e for e in self._alive(region) if part in e.name and status in (None, e.status)]
        key = (lambda e: e.name) if request.get("SortBy") == "Name" else (lambda e: (e.created, e.name))
        found.sort(key=key, reverse=request.get("SortOrder", "Descending") == "Descending")
        start = _resume(request.get("NextToken"), "endpoints", "ValidationException")[0]
        answer: dict[str, Any] = {"Endpoints": [_summary(account, region, e) for e in found[start : start + page]]}
        if start + page < len(found):
            answer["NextToken"] = _token("endpoints", [start + page])
        return answer

    def describe_endpoint(self, account: str, region: str, request: dict[str, Any]) -> dict[str, Any]:
        """DescribeEndpoint."""
        name = request.get("EndpointName", "")
        endpoint = next((e for e in self._alive(region) if e.name == name), None)
        if endpoint is None:
            raise Refused("ValidationException", f'Could not find endpoint "{_arn(account, region, name)}".')
        reason = {"FailureReason": endpoint.failure_reason} if endpoint.failure_reason else {}
        return {
            **_summary(account, region, endpoint),
            **reason,
            "EndpointConfigName": f"{name}-config",
            "ProductionVariants": [
                {
                    "VariantName": v.name,
                    "CurrentWeight": 1.0,
                    "DesiredWeight": 1.0,
                    "CurrentInstanceCount": v.instances,
                    "DesiredInstanceCount": v.instances,
                }
                for v in endpoint.variants
            ],
        }

    def describe_endpoint_config(self, region: str, request: dict[str, Any]) -> dict[str, Any]:
        """DescribeEndpointConfig."""
        name = request.get("EndpointConfigName", "")
        endpoint = next((e for e in self._alive(region) if f"{e.name}-config" == name), None)
        if endpoint is None:
            raise Refused("ValidationException", f'Could not find endpoint configuration "{name}".')
        return {
            "EndpointConfigName": name,
            "ProductionVariants": [
                {
                    "VariantName": v.name,
                    "ModelName": f"{endpoint.name}-{v.name}",
                    "InitialInstanceCount": v.instances,
                    "InstanceType": v.instance_type,
                    "InitialVariantWeight": 1.0,
                }
                for v in endpoint.variants
            ],
        }

    def _alive(self, region: str) -> list[Endpoint]:
        now = self.fleet.clock()
        return [e for e in self.fleet.fleet.get(region, {}).values() if e.created <= now < e.deleted and not e.account]

    # CloudWatch

    def list_metrics(self, account: str, region: str, request: dict[str, Any]) -> dict[str, Any]:
        """ListMetrics: 500 a page; not what has been silent for two weeks, nor what is too new to be listed."""
        recent = request.get("RecentlyActive")
        if recent not in (None, "PT3H"):
            raise Refused("InvalidParameterValue", "The parameter RecentlyActive must be PT3H")
        oldest = self.fleet.clock() - (3 * 3600 if recent else LISTED_S)
        linked = request.get("IncludeLinkedAccounts", False)
        shown: dict[tuple[str, str, str], bool] = {}
        rows = []
        for series in self.fleet.series.get(region, {}).values():
            endpoint = series.endpoint
            if request.get("Namespace", series.namespace) != series.namespace or (endpoint.account and not linked):
                continue
            if request.get("MetricName", series.metric) != series.metric:
                continue
            if any(
                series.dimensions.get(f["Name"]) is None
                or f.get("Value", series.dimensions[f["Name"]]) != series.dimensions[f["Name"]]
                for f in request.get("Dimensions", ())
            ):
                continue
            key = endpoint.name, series.variant.name, series.namespace
            if key not in shown:
                shown[key] = self.fleet.listed(series, oldest)
            if shown[key]:
                rows.append(series)
        start = _resume(request.get("NextToken"), "metrics", "InvalidParameterValue")[0]
        page = rows[start : start + LIST_PAGE]
        answer: dict[str, Any] = {"Metrics": [series.listing() for series in page]}
        if linked:
            answer["OwningAccounts"] = [series.endpoint.account or account for series in page]
        if start + LIST_PAGE < len(rows):
            answer["NextToken"] = _token("metrics", [start + LIST_PAGE])
        return answer

    def get_metric_data(self, region: str, request: dict[str, Any]) -> dict[str, Any]:
        """GetMetricData: 500 queries, 100,800 points a page, filled query by query; no metric math."""
        queries = request.get("MetricDataQueries") or []
        _check_queries(queries)
        start, end = self._range(request)
        limit = request.get("MaxDatapoints", MAX_POINTS)
        if not 1 <= limit <= MAX_POINTS:
            raise Refused("InvalidParameterValue", f"The parameter MaxDatapoints must be between 1 and {MAX_POINTS}.")
        newest_first = request.get("ScanBy", "TimestampDescending") == "TimestampDescending"
        same = {key: value for key, value in request.items() if key not in ("NextToken", "MaxDatapoints")}
        name = f"data-{zlib.crc32(json.dumps(same, sort_keys=True).encode())}"
        at, skip = _resume(request.get("NextToken"), name, "InvalidNextToken", 2)
        results: list[dict[str, Any]] = []
        left = limit
        token = None
        for index in range(at, len(queries)):
            if left <= 0:
                token = _token(name, [index, 0])
                break
            query = queries[index]
            stamps, values = self._read(region, query["MetricStat"], start, end, query.get("AccountId", ""))
            if newest_first:
                stamps, values = stamps[::-1], values[::-1]
            status = self._ordered_status(query["MetricStat"]["Metric"]["MetricName"])
            offset = skip if index == at else 0
            if status == "Forbidden":
                stamps, values = (), []
            elif status:
                stamps, values = stamps[: len(stamps) // 2], values[: len(values) // 2]
            cut = offset + left < len(values)
            stamps, values = stamps[offset : offset + left], values[offset : offset + left]
            left -= len(values)
            result: dict[str, Any] = {
                "Id": query["Id"],
                "Label": query.get("Label", query["MetricStat"]["Metric"]["MetricName"]),
                "Timestamps": Stamps(stamps),
                "Values": values,
                "StatusCode": "PartialData" if cut else status or "Complete",
            }
            if status:
                result["Messages"] = [{"Code": status, "Value": f"{status} ordered for this metric"}]
            results.append(result)
            if cut:
                token = _token(name, [index, offset + len(values)])
                break
        self.count(
            "GetMetricData", points=limit - left, metrics_requested=0 if request.get("NextToken") else len(queries)
        )
        answer: dict[str, Any] = {"MetricDataResults": results, "Messages": []}
        if token:
            answer["NextToken"] = token
        return answer

    def get_metric_statistics(self, region: str, request: dict[str, Any]) -> dict[str, Any]:
        """GetMetricStatistics: one metric, 1,440 points."""
        statistics = [*request.get("Statistics", ()), *request.get("ExtendedStatistics", ())]
        if not statistics:
            raise Refused("InvalidParameterCombination", "At least one of Statistics, ExtendedStatistics must be given")
        start, end = self._range(request)
        if (end - start) / request["Period"] > 1440:
            asked = int((end - start) / request["Period"])
            limit = "which exceeds the limit of 1440"
            raise Refused("InvalidParameterCombination", f"You have requested up to {asked} datapoints, {limit}")
        points: dict[int, dict[str, Any]] = {}
        for statistic in statistics:
            stat = {"Metric": request, "Period": request["Period"], "Stat": statistic, "Unit": request.get("Unit")}
            _check_stat(stat)
            for at, value in zip(*self._read(region, stat, start, end), strict=True):
                point = points.setdefault(at, {"Timestamp": Stamps(at)})
                if statistic.startswith("p"):
                    point.setdefault("ExtendedStatistics", {})[statistic] = value
                else:
                    point[statistic] = value
        self.count("GetMetricStatistics", points=len(points) * len(statistics), metrics_requested=1)
        return {"Label": request["MetricName"], "Datapoints": list(points.values())}

    def _range(self, request: dict[str, Any]) -> tuple[float, float]:
        """The time asked for: the start is rounded down, the more the older it is; the end is exclusive."""
        start, end = float(request["StartTime"]), float(request["EndTime"])
        if start >= end:
            raise Refused("ValidationError", "The parameter StartTime must be less than the parameter EndTime.")
        age = self.fleet.clock() - start
        step = 60 if age < 15 * 86400 else 300 if age < 63 * 86400 else 3600
        return start // step * step, end

    def _read(
        self, region: str, stat: dict[str, Any], start: float, end: float, account: str = ""
    ) -> tuple[Sequence[int], list[float]]:
        series = self._series(region, stat["Metric"])
        period = stat["Period"]
        if (
            series is None
            or stat.get("Unit") not in (None, series.unit)
            or series.endpoint.account not in ("", account)
        ):
            return (), []
        if period > 60:
            start = math.floor(start / period) * period
        return self.fleet.points(series, stat["Stat"], start, end, period)

    def _series(self, region: str, metric: dict[str, Any]) -> Series | None:
        dimensions = {d["Name"]: d["Value"] for d in metric.get("Dimensions", ())}
        return self.fleet.find(region, metric["Namespace"], metric["MetricName"], dimensions)

    def _ordered_status(self, metric: str) -> str | None:
        with self.lock:
            for partial in self.partials:
                if partial.metric == metric and partial.times > 0:
                    partial.times -= 1
                    return partial.status
        return None


def _check_queries(queries: list[dict[str, Any]]) -> None:
    if not queries:
        raise Refused("MissingParameter", "The parameter MetricDataQueries is required.")
    if len(queries) > MAX_QUERIES:
        limit = f"must not have a size greater than {MAX_QUERIES}"
        raise Refused("ValidationError", f"The collection MetricDataQueries {limit}, it has {len(queries)}.")
    ids = Counter(query.get("Id", "") for query in queries)
    for name, times in ids.items():
        if not _ID.match(name):
            raise Refused("ValidationError", f"The value {name} for parameter Id must match {_ID.pattern}")
        if times > 1:
            raise Refused("ValidationError", f"The values for parameter Id in MetricDataQueries must be unique: {name}")
    for query in queries:
        if "MetricStat" not in query:
            raise Refused("ValidationError", "The stand-in reads MetricStat only: it does no metric math.")
        _check_stat(query["MetricStat"])


def _check_stat(stat: dict[str, Any]) -> None:
    period = stat["Period"]
    if period not in (1, 5, 10, 20, 30) and (period < 60 or period % 60):
        raise Refused("ValidationError", f"The parameter Period must be 1, 5, 10, 20, 30 or a multiple of 60: {period}")
    if not _STATISTIC.match(stat["Stat"]):
        raise Refused("ValidationError", f"The value {stat['Stat']} for parameter Stat is not a valid statistic.")
    if stat.get("Unit") not in (None, *_UNITS):
        raise Refused("ValidationError", f"The value {stat['Unit']} for parameter Unit is not a standard unit.")
    if len(stat["Metric"].get("Dimensions", ())) > 30:
        raise Refused("ValidationError", "The collection Dimensions must not have a size greater than 30.")


def _token(name: str, state: list[int]) -> str:
    return base64.urlsafe_b64encode(json.dumps([name, *state]).encode()).decode()


def _resume(token: str | None, name: str, code: str, size: int = 1) -> list[int]:
    """The state in a token: a token belongs to one request and is good for no other."""
    if token is None:
        return [0] * size
    try:
        owner, *state = json.loads(base64.urlsafe_b64decode(token))
    except ValueError:
        owner, state = None, []
    if owner != name or len(state) != size:
        raise Refused(code, "The specified token is invalid.")
    return [int(part) for part in state]


def _arn(account: str, region: str, name: str) -> str:
    return f"arn:aws:sagemaker:{region}:{account}:endpoint/{name}"


def _summary(account: str, region: str, endpoint: Endpoint) -> dict[str, Any]:
    return {
        "EndpointName": endpoint.name,
        "EndpointArn": _arn(account, region, endpoint.name),
        "CreationTime": endpoint.created,
        "LastModifiedTime": endpoint.modified,
        "EndpointStatus": endpoint.status,
    }
