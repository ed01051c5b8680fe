"""What the demo knows of the fake SageMaker: its connection, its truth, and an endpoint that becomes slow."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import httpx2

from airflow_provider_airis.records import Window
from sandbox.fake import TIMES, FakeServer, Running, token
from sandbox.verify import Tally, compare_points, lines

REGION = "us-east-1"
ENDPOINTS = 20


class SlowEndpoint:
    """One endpoint whose latency is twenty times the usual; its rule is thrice above the history's last hour.

    :param history: whose last hour says what is usual.
    """

    def __init__(self, running: Running, history: Window) -> None:
        self.source = httpx2.Client(base_url=running.url, timeout=300)
        slow = [
            line
            for line in lines(running.url, Window(history.end - 3_600_000, history.end))
            if (line["metric"], line["statistic"]) == ("ModelLatency", "p90")
        ]
        variants = Counter(series["endpoint"] for series in slow)
        usual = next(series for series in slow if variants[series["endpoint"]] == 1 and len(series["points"]) == 60)
        self.endpoint = usual["endpoint"]
        self.rule: dict[str, Any] = {
            "id": "model-latency",
            "name": f"{self.endpoint} answers slowly",
            "metric": "modellatency",
            "matchers": [
                {"tag": "endpoint_name", "op": "=", "value": self.endpoint},
                {"tag": "statistic", "op": "=", "value": "p90"},
            ],
            "aggregation": "last",
            "window_s": 60,
            "comparator": ">",
            "threshold": round(3 * max(value for _, value in usual["points"])),
            "for_s": 0,
            "severity": "critical",
            "labels": {
                "environment": "production",
                "model_id": self.endpoint,
                "alert_type": "latency",
                "description": "One request in ten waits longer than three times the usual.",
            },
        }

    def begin(self) -> str:
        """Slow it down."""
        self.source.post("/_sandbox/incidents", json={"endpoint": self.endpoint}).raise_for_status()
        return f"incident: {self.endpoint} answers 20 times slower from now on"

    def end(self) -> str:
        """Let it recover."""
        self.source.patch("/_sandbox/incidents", json={"endpoint": self.endpoint}).raise_for_status()
        return f"incident: {self.endpoint} is as fast as before"


def published(url: str, window: Window) -> Iterator[tuple[str, str, dict[str, str], dict[int, float]]]:
    """Source, name, tags and points of every series, as the hub should have them."""
    for line in lines(url, window):
        dimensions = line["dimensions"]
        owner = dimensions.get("EndpointName") or dimensions["InferenceComponentName"]
        tags = {
            **{re.sub(r"\B([A-Z])", r"_\1", name).lower(): value for name, value in dimensions.items()},
            "dimensions": "/".join(dimensions),
            "account_id": line["account"],
            "cloud_provider": "aws",
            "service": "sagemaker",
            "region": line["region"],
            "statistic": line["statistic"],
            "period_s": "60",
        }
        yield f"aws-sagemaker-{owner}", line["metric"].lower(), tags, dict(line["points"])


def truth(running: Running, hub: httpx2.Client, windows: Sequence[Window]) -> Tally:
    """Compare every point."""
    return compare_points(hub, "aws-sagemaker-", windows, lambda window: published(running.url, window))


PEER = FakeServer(
    "sagemaker",
    8791,
    lambda url, made: {
        "aws_default": {
            "conn_type": "aws",
            "login": "AKIASANDBOX",
            "password": made["aws_key"],
            "extra": json.dumps({"region_name": REGION, "endpoint_url": url}),
        }
    },
    arguments=("--endpoints", str(ENDPOINTS), "--regions", REGION, *TIMES),
    settings={"schedule": "* * * * *", "delay_s": "10", "regions": REGION},
    secrets={"aws_key": token},
    truth=truth,
    incident=SlowEndpoint,
)
