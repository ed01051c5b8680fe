"""SageMaker's endpoints and their CloudWatch metrics in one region, as AWS's own records."""

from __future__ import annotations

import re
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import msgspec

from airflow_provider_airis.errors import AirisError, PermanentError, RetryableError
from airflow_provider_airis.hooks.base import SystemHook
from airflow_provider_airis.records import Window, from_ms

MAX_QUERIES = 500
MAX_POINTS = 100_800
_MAX_PAGES = 1_000
_DENIED = frozenset(
    {"AccessDenied", "AccessDeniedException", "NotAuthorized", "OptInRequired", "UnauthorizedOperation"}
)
_REFUSED_CREDENTIALS = frozenset(
    {
        "AuthFailure",
        "IncompleteSignature",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
# Temporary credentials that have run out are fetched anew by the next try.
_PASSING = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "InternalFailure",
        "InternalServiceError",
        "InternalServiceFault",
        "RequestExpired",
        "RequestLimitExceeded",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottledException",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
_ACCOUNT = re.compile(r"arn:aws[a-z-]*:(?:iam|sts)::(\d{12}):")


class Readings(NamedTuple):
    """Points of one query, ascending: timestamps are Unix ms, at the periods' starts.

    :param query: its place among the queries.
    """

    query: int
    timestamps: list[int]
    values: list[float]


class SageMakerHook(SystemHook):
    """Reads SageMaker endpoints and CloudWatch metrics of one region. Opens nothing before the first call.

    Credentials, role, proxy and ``config_kwargs`` are the Amazon provider's connection of type ``aws``; its
    ``config_kwargs`` win over the timeouts and retries given here.

    :param conn_id: connection of type ``aws``.
    :param region_name: region to read; the connection's if None.
    :param timeout: seconds to wait for an answer.
    :param retries: how often a call that may succeed later is sent again.

    Errors that pass (throttling, 5xx, the network) are :class:`~airflow_provider_airis.errors.RetryableError`, others
    :class:`~airflow_provider_airis.errors.PermanentError`, which names the IAM action that is missing.

    See https://docs.aws.amazon.com/sagemaker/latest/dg/monitoring-cloudwatch.html
    """

    default_conn_name = "aws_default"
    conn_type = "aws"
    hook_name = "Amazon SageMaker"

    partial_waits = (1.0, 3.0)

    def __init__(
        self,
        conn_id: str | None = None,
        *,
        region_name: str | None = None,
        timeout: float = 60,
        retries: int = 4,
    ) -> None:
        super().__init__(conn_id, timeout=timeout, retries=retries)
        self.calls: Counter[str] = Counter()
        self.metrics_requested = 0
        self._region_name = region_name
        self._clients: dict[str, Any] = {}

    @cached_property
    def region_name(self) -> str:
        """The region that is read."""
        if self._region_name:
            return self._region_name
        region: str | None = self._aws("sagemaker").region_name
        if not region:
            raise PermanentError(
                f"No AWS region: give region_name, or set it in the extra of connection {self.conn_id!r}"
            )
        return region

    def endpoints(self) -> Iterator[dict[str, Any]]:
        """Every endpoint as ListEndpoints shows it, 100 a call.

        See https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ListEndpoints.html
        """
        request = {"MaxResults": 100, "SortBy": "Name", "SortOrder": "Ascending"}
        for page in self._pages("sagemaker", "list_endpoints", "Endpoints", **request):
            yield from page["Endpoints"]

    def endpoint(self, name: str) -> dict[str, Any] | None:
        """An endpoint as DescribeEndpoint shows it, None if there is none of that name any more.

        See https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DescribeEndpoint.html
        """
        return self._described("describe_endpoint", EndpointName=name)

    def endpoint_config(self, name: str) -> dict[str, Any] | None:
        """A configuration as DescribeEndpointConfig shows it, None if it has been deleted.

        See https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DescribeEndpointConfig.html
        """
        return self._described("describe_endpoint_config", EndpointConfigName=name)

    def account_id(self) -> str:
        """The account that is read, as GetCallerIdentity names it; that needs no permission.

        See https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html
        """
        return str(self._call("sts", "get_caller_identity")["Account"])

    def metrics(
        self,
        namespace: str,
        metric_name: str | None = None,
        dimensions: Sequence[str] = (),
        *,
        recently_active: bool = False,
    ) -> Iterator[dict[str, Any]]:
        """Every series of a namespace, or of one metric there, as ListMetrics shows it, each once.

        It misses series without a point for two weeks, and new ones for some minutes.

        :param dimensions: only series that have at least these.
        :param recently_active: only series with a point in the last three hours, or little more.

        See https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_ListMetrics.html
        """
        request: dict[str, Any] = {"Namespace": namespace}
        if metric_name:
            request["MetricName"] = metric_name
        if dimensions:
            request["Dimensions"] = [{"Name": name} for name in dimensions]
        if recently_active:
            request["RecentlyActive"] = "PT3H"
        seen = set()
        for page in self._pages("cloudwatch", "list_metrics", "Metrics", **request):
            for row in page["Metrics"]:
                key = row["MetricName"], frozenset((d["Name"], d["Value"]) for d in row["Dimensions"])
                if key not in seen:
                    seen.add(key)
                    yield row

    def metric_data(
        self, stats: Sequence[Mapping[str, Any]], window: Window, starts: Sequence[int] = ()
    ) -> Iterator[Readings]:
        """Read the points of ``window``, up to 500 queries a call and all pages; a query's points may come in pieces.

        What CloudWatch leaves unfinished (PartialData, InternalError) is asked for again, from where it stopped.

        :param stats: AWS's ``MetricStat`` records: ``{Metric: {Namespace, MetricName, Dimensions}, Period, Stat}``.
        :param window: aligned to the periods; at least one period.
        :param starts: for each query, from when on its points are wanted; from the window's start unless given.
        :raises RetryableError: after everything else has been yielded: queries that stayed unfinished, by name.
        :raises PermanentError: likewise: queries that are forbidden.

        See https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_GetMetricData.html
        """
        unfinished: list[int] = []
        forbidden: list[int] = []
        periods = (window.end - window.start) // 1000 // min((stat["Period"] for stat in stats), default=60)
        at_once = _queries_at_once(periods)
        for first in range(0, len(stats), at_once):
            some = range(first, min(first + at_once, len(stats)))
            wanted = {index: starts[index] if starts else window.start for index in some}
            for wait in (0, *self.partial_waits):
                if wait:
                    self.log.warning("CloudWatch left %d queries unfinished, asking again in %s s", len(wanted), wait)
                    time.sleep(wait)
                yield from self._read(stats, wanted, window.end, forbidden)
                if not wanted:
                    break
            unfinished += wanted
        reasons = []
        if unfinished:
            tries = len(self.partial_waits) + 1
            reasons.append(f"cloudwatch:GetMetricData left unfinished after {tries} tries: {_names(stats, unfinished)}")
        if forbidden:
            reasons.append(f"{self._missing('cloudwatch:GetMetricData')}: {_names(stats, forbidden)}")
        if reasons:
            raise (RetryableError if unfinished else PermanentError)("; ".join(reasons))

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
            MetricDataQueries=[{"Id": f"q{index}", "MetricStat": stats[index]} for index in wanted],
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

    def check(self) -> str:
        """Make the three reads that a sync needs; returns what to tell the user."""
        stat = {"Metric": {"Namespace": "AWS/SageMaker", "MetricName": "Invocations"}, "Period": 3600, "Stat": "Sum"}
        now = int(time.time() * 1000)
        self._call("sagemaker", "list_endpoints", MaxResults=1)
        self._call("cloudwatch", "list_metrics", Namespace="AWS/SageMaker", MetricName="Invocations")
        list(self.metric_data([stat], Window(now - 7_200_000, now).aligned(3600)))
        return f"SageMaker and CloudWatch answer in {self.region_name}"

    def _described(self, method: str, **request: str) -> dict[str, Any] | None:
        try:
            return self._call("sagemaker", method, **request)
        except PermanentError as error:
            if "Could not find endpoint" in error.detail:
                return None
            raise

    def _aws(self, service: str) -> Any:
        with self.importing():
            from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook

        return AwsBaseHook(aws_conn_id=self.conn_id, region_name=self._region_name, client_type=service)

    def _client(self, service: str) -> Any:
        if service not in self._clients:
            from botocore.config import Config

            hook = self._aws(service)
            config = Config(
                connect_timeout=min(10, self.timeout or 60),
                read_timeout=self.timeout,
                retries={"mode": "standard", "total_max_attempts": self.retries + 1},
            )
            client = hook.get_client_type(region_name=self.region_name, config=config.merge(hook.config))
            if service == "cloudwatch":
                client.meta.events.register("before-parse.cloudwatch.GetMetricData", _parse_metric_data)
            self._clients[service] = client
        return self._clients[service]

    def _pages(self, service: str, method: str, field: str, **request: Any) -> Iterator[dict[str, Any]]:
        tokens: set[str] = set()
        while True:
            page = self._call(service, method, **request)
            if field not in page:
                raise RetryableError(
                    f"{service} {method} in {self.region_name} was answered without {field}, so by something else than "
                    f"AWS: check the proxy and the endpoint_url of connection {self.conn_id!r}"
                )
            yield page
            token = page.get("NextToken")
            if not token:
                return
            if token in tokens or len(tokens) == _MAX_PAGES:
                raise PermanentError(
                    f"{service} {method} in {self.region_name} sends an endless cursor, given up after page "
                    f"{len(tokens) + 1}; check the endpoint_url of connection {self.conn_id!r}"
                )
            tokens.add(token)
            request["NextToken"] = token

    def _call(self, service: str, method: str, **request: Any) -> dict[str, Any]:
        with self.importing():
            from botocore.exceptions import BotoCoreError, ClientError
            from botocore.parsers import ResponseParserError

        action = f"{service}:{''.join(word.title() for word in method.split('_'))}"
        self.calls[action] += 1
        try:
            answer: dict[str, Any] = getattr(self._client(service), method)(**request)
        except ClientError as error:
            raise self._refused(action, request, error) from error
        except (BotoCoreError, ResponseParserError) as error:
            raise self._failed(action, error) from error
        return answer

    def _refused(self, action: str, request: dict[str, Any], error: Any) -> AirisError:
        """AWS's error answer, translated."""
        code, detail = error.response["Error"].get("Code", ""), error.response["Error"].get("Message", "")
        meta = error.response.get("ResponseMetadata", {})
        status = meta.get("HTTPStatusCode", 0)
        if error.operation_name == "AssumeRole":
            action = "sts:AssumeRole"
        said = f"{code} {detail}".strip()
        if code in _DENIED:
            resource = f" on endpoint {request['EndpointName']!r}" if "EndpointName" in request else ""
            text = f"{self._missing(action, detail, resource)}. AWS says {said}"
            return PermanentError(text, detail=detail, status=status)
        asked = f"{action} in {self.region_name} by connection {self.conn_id!r}"
        if code in _PASSING or status == 429 or status >= 500:
            wait = meta.get("HTTPHeaders", {}).get("retry-after", "")
            retry_after = float(wait) if wait.isdigit() else None
            return RetryableError(f"{asked} failed: HTTP {status} {said}", retry_after=retry_after)
        if code in _REFUSED_CREDENTIALS:
            text = f"{asked} was refused: its credentials are not accepted, renew them. AWS says {said}"
            return PermanentError(text, detail=detail, status=status)
        return PermanentError(f"{asked} was refused: HTTP {status} {said}", detail=detail, status=status)

    def _failed(self, action: str, error: Exception) -> AirisError:
        """No answer, translated: the network passes, the configuration does not."""
        from botocore import exceptions
        from botocore.parsers import ResponseParserError

        text = f"{action} by connection {self.conn_id!r} failed: {error}"
        if isinstance(error, exceptions.SSLError):
            return PermanentError(f"{text}; check verify in the connection's extra")
        passing = (
            exceptions.ConnectionError,
            exceptions.HTTPClientError,
            exceptions.CredentialRetrievalError,
            exceptions.MetadataRetrievalError,
            ResponseParserError,
        )
        if isinstance(error, passing):
            return RetryableError(text)
        if isinstance(error, exceptions.NoCredentialsError | exceptions.PartialCredentialsError):
            return PermanentError(f"{text}; set the key's id and secret, or a role, in the connection")
        return PermanentError(text)

    def _missing(self, action: str, said: str = "", resource: str = "") -> str:
        account = _ACCOUNT.search(said)
        who = f"connection {self.conn_id!r}" + (f" (account {account[1]})" if account else "")
        return f"{who} lacks the permission {action}{resource} in {self.region_name}"


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


def data_calls(queries: int, periods: int) -> int:
    """How many calls, all pages, :meth:`SageMakerHook.metric_data` makes for full series of so many periods."""
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
