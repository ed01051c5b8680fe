"""SageMaker's endpoints and their CloudWatch metrics in one region, as AWS's own records."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from airflow_provider_airis.errors import PermanentError
from airflow_provider_airis.hooks.cloudwatch import CloudWatchHook
from airflow_provider_airis.records import Window


class SageMakerHook(CloudWatchHook):
    """Reads SageMaker endpoints and CloudWatch metrics of one region.

    See https://docs.aws.amazon.com/sagemaker/latest/dg/monitoring-cloudwatch.html
    """

    hook_name = "Amazon SageMaker"

    def endpoints(self) -> Iterator[dict[str, Any]]:
        """Every endpoint as ListEndpoints shows it, 100 a call.

        See https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ListEndpoints.html
        """
        request = {"MaxResults": 100, "SortBy": "Name", "SortOrder": "Ascending"}
        seen = set()
        for page in self._pages("sagemaker", "list_endpoints", "Endpoints", **request):
            for row in page["Endpoints"]:
                if row["EndpointName"] not in seen:
                    seen.add(row["EndpointName"])
                    yield row

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
