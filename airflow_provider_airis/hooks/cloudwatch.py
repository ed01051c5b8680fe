"""CloudWatch in one region: which series there are, and their points, as AWS's own records."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from airflow_provider_airis.errors import AirisError, PermanentError, RetryableError, SetupError
from airflow_provider_airis.hooks.aws import AwsHook, DeniedError, UnansweredError
from airflow_provider_airis.records import Window, from_ms

MAX_QUERIES = 500
MAX_POINTS = 100_800
# So many series refused one by one are enough to know that the others are refused too.
MAX_REFUSED = 20


class Readings(NamedTuple):
    """Points of one query, ascending: timestamps are Unix ms, at the periods' starts.

    :param query: its place among the queries.
    """

    query: int
    timestamps: list[int]
    values: list[float]


class CloudWatchHook(AwsHook):
    """Reads CloudWatch. ``metrics_requested`` counts what AWS bills.

    See https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/Welcome.html
    """

    partial_waits = (1.0, 3.0)

    def __init__(
        self, conn_id: str | None = None, *, region_name: str | None = None, timeout: float = 20, retries: int = 4
    ) -> None:
        super().__init__(conn_id, region_name=region_name, timeout=timeout, retries=retries)
        self.metrics_requested = 0

    def metrics(
        self,
        namespace: str,
        metric_name: str | None = None,
        dimensions: Sequence[str] = (),
        *,
        recently_active: bool = False,
        linked_accounts: bool = False,
    ) -> Iterator[dict[str, Any]]:
        """Every series of a namespace, or of one metric there, as ListMetrics shows it, each once.

        It misses series without a point for two weeks, and new ones for some minutes.

        :param dimensions: only series that have at least these.
        :param recently_active: only series with a point in the last three hours, or little more.
        :param linked_accounts: with those that other accounts share with this one; each row has its ``AccountId``.

        See https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_ListMetrics.html
        """
        request: dict[str, Any] = {"Namespace": namespace}
        if metric_name:
            request["MetricName"] = metric_name
        if dimensions:
            request["Dimensions"] = [{"Name": name} for name in dimensions]
        if recently_active:
            request["RecentlyActive"] = "PT3H"
        if linked_accounts:
            request["IncludeLinkedAccounts"] = True
        seen = set()
        for page in self._pages("cloudwatch", "list_metrics", "Metrics", **request):
            owners = page.get("OwningAccounts") or [""] * len(page["Metrics"])
            for row, owner in zip(page["Metrics"], owners, strict=True):
                key = row["MetricName"], owner, frozenset((d["Name"], d["Value"]) for d in row["Dimensions"])
                if key not in seen:
                    seen.add(key)
                    yield {**row, "AccountId": owner} if owner else row

    def metric_data(
        self, stats: Sequence[Mapping[str, Any]], window: Window, starts: Sequence[int] = ()
    ) -> Iterator[Readings]:
        """Read the points of ``window``, up to 500 queries a call and all pages; a query's points may come in pieces.

        What CloudWatch leaves unfinished (PartialData, InternalError) is asked for again, from where it stopped. A
        call that it refuses is asked again in halves, down to the query that is at fault; all others are read.

        :param stats: AWS's ``MetricStat`` records, ``{Metric: {Namespace, MetricName, Dimensions}, Period, Stat}``, of
            a linked account with its ``AccountId``.
        :param window: aligned to the periods; at least one period.
        :param starts: for each query, from when on its points are wanted; from the window's start unless given.
        :raises RetryableError: after everything else has been yielded: queries that could not be read, by name.
        :raises PermanentError: likewise: queries that are refused or forbidden.

        See https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_GetMetricData.html
        """
        unread: defaultdict[str, list[int]] = defaultdict(list)
        passing, refused = False, 0
        periods = (window.end - window.start) // 1000 // min((stat["Period"] for stat in stats), default=60)
        at_once = _queries_at_once(periods)
        waiting = deque(range(first, min(first + at_once, len(stats))) for first in range(0, len(stats), at_once))
        while waiting:
            some = waiting.popleft()
            wanted = {index: starts[index] if starts else window.start for index in some}
            forbidden: list[int] = []
            try:
                yield from self._patiently(stats, wanted, window.end, forbidden)
                error: AirisError | None = None
            except AirisError as caught:
                error = caught
            if forbidden:
                unread[self._missing("cloudwatch:GetMetricData")] += forbidden
            if error is None:
                if wanted:
                    passing = True
                    tries = len(self.partial_waits) + 1
                    unread[f"cloudwatch:GetMetricData left unfinished after {tries} tries"] += wanted
                continue
            if len(some) > 1 and type(error) is PermanentError and refused < MAX_REFUSED:
                half = len(some) // 2
                waiting.extendleft((some[half:], some[:half]))
                continue
            refused += not isinstance(error, RetryableError)
            passing |= isinstance(error, RetryableError)
            unread[str(error)] += wanted
            if isinstance(error, DeniedError | SetupError | UnansweredError):
                # So would the others be.
                unread[str(error)] += [index for rest in waiting for index in rest]
                break
        if unread:
            reasons = [f"{reason}: {_names(stats, indexes)}" for reason, indexes in unread.items()]
            raise (RetryableError if passing else PermanentError)("; ".join(reasons))

    def _patiently(
        self, stats: Sequence[Mapping[str, Any]], wanted: dict[int, int], end: int, forbidden: list[int]
    ) -> Iterator[Readings]:
        for wait in (0, *self.partial_waits):
            if wait:
                self.log.warning("CloudWatch left %d queries unfinished, asking again in %s s", len(wanted), wait)
                time.sleep(wait)
            yield from self._read(stats, wanted, end, forbidden)
            if not wanted:
                return

    def _read(
        self, stats: Sequence[Mapping[str, Any]], wanted: dict[int, int], end: int, forbidden: list[int]
    ) -> Iterator[Readings]:
        """Read what is ``wanted`` (query: first timestamp) and leave in it what stayed unfinished, from where on."""
        self.metrics_requested += len(wanted)
        statuses = dict.fromkeys(wanted, "PartialData")
        pages = self._pages(
            "cloudwatch",
            "get_metric_data",
            "MetricDataResults",
            MetricDataQueries=[{"Id": f"q{index}", **_query(stats[index])} for index in wanted],
            StartTime=from_ms(min(wanted.values())),
            EndTime=from_ms(end),
            ScanBy="TimestampAscending",
            MaxDatapoints=MAX_POINTS,
        )
        for page in pages:
            for message in page.get("Messages", ()):
                self.log.warning("CloudWatch says %s: %s", message.get("Code"), message.get("Value"))
            for result in page["MetricDataResults"]:
                index = int(result["Id"][1:])
                # The same Id comes again on the next page, with the points that follow.
                statuses[index] = result["StatusCode"]
                stamps = [_ms(at) for at in result["Timestamps"]]
                inside = slice(bisect_left(stamps, wanted[index]), bisect_left(stamps, end))
                if stamps := stamps[inside]:
                    wanted[index] = stamps[-1] + stats[index]["Period"] * 1000
                    yield Readings(index, stamps, list(map(float, result["Values"][inside])))
        for index, status in statuses.items():
            if status == "Forbidden":
                forbidden.append(index)
            if status in ("Complete", "Forbidden") or wanted[index] >= end:
                del wanted[index]

    def _opened(self, service: str, client: Any) -> None:
        if service == "cloudwatch":
            client.meta.events.register("before-parse.cloudwatch.GetMetricData", _parse_metric_data)


class _Result(msgspec.Struct, rename="pascal"):
    id: str
    status_code: str
    timestamps: list[float]
    values: list[float]


class _Answer(msgspec.Struct, rename="pascal"):
    metric_data_results: list[_Result]
    messages: list[dict[str, Any]] = []
    next_token: str | None = None


def _parse_metric_data(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Any) -> None:
    """Parse a JSON answer in botocore's stead.

    botocore makes a datetime in the local zone of each timestamp: 20 microseconds a point, most of the time that the
    read of a day takes. Errors, other protocols and numbers written as text are left to botocore.
    """
    if response_dict["status_code"] != 200 or "json" not in response_dict["headers"].get("content-type", ""):
        return
    try:
        answer = msgspec.json.decode(response_dict["body"], type=_Answer)
    except msgspec.DecodeError:
        return
    response_dict["body"] = b"{}"
    customized_response_dict["Messages"] = answer.messages
    customized_response_dict["MetricDataResults"] = [
        {"Id": result.id, "StatusCode": result.status_code, "Timestamps": result.timestamps, "Values": result.values}
        for result in answer.metric_data_results
    ]
    if answer.next_token:
        customized_response_dict["NextToken"] = answer.next_token


def _query(stat: Mapping[str, Any]) -> dict[str, Any]:
    of = {"AccountId": stat["AccountId"]} if "AccountId" in stat else {}
    return {"MetricStat": {name: stat[name] for name in ("Metric", "Period", "Stat")}, **of}


def data_calls(queries: int, periods: int) -> int:
    """How many calls, all pages, :meth:`CloudWatchHook.metric_data` makes for full series of so many periods."""
    calls, left = 0, queries
    while left:
        at_once = min(left, _queries_at_once(periods))
        calls += -(-at_once * periods // MAX_POINTS)
        left -= at_once
    return calls


def _queries_at_once(periods: int) -> int:
    """How many queries to put into a call, so that its last page too is as full as can be.

    A day has 1,440 minutes: 490 queries fill seven pages of 100,800 points, 500 would open an eighth for the last ten.
    """
    return min(range(1, MAX_QUERIES + 1), key=lambda queries: (-(-queries * periods // MAX_POINTS) / queries, -queries))


def _ms(at: Any) -> int:
    return int((at if isinstance(at, float) else at.timestamp()) * 1000)


def _names(stats: Sequence[Mapping[str, Any]], indexes: Sequence[int]) -> str:
    names = []
    for index in indexes[:5]:
        metric = stats[index]["Metric"]
        dimensions = "/".join(d["Value"] for d in metric.get("Dimensions", ()))
        names.append(f"{metric['Namespace']} {metric['MetricName']} {stats[index]['Stat']} of {dimensions}")
    more = len(indexes) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")
