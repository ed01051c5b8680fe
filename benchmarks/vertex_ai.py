"""What a sync of 200 Vertex AI endpoints costs: one list call a metric, against one an endpoint and metric.

``python -m benchmarks.vertex_ai`` prints the table.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

os.environ.setdefault("AIRFLOW__LOGGING__LOGGING_LEVEL", "WARNING")

import httpx2

from airflow_provider_airis.operators.vertex_ai import VertexAIToAirisOperator
from airflow_provider_airis.records import Event, Metric, Window
from sandbox.process import Server

NOW = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=1)
ENDPOINTS = 200
WINDOW = Window.between(NOW - timedelta(minutes=5), NOW)


def one_an_endpoint(operator: VertexAIToAirisOperator) -> Iterator[Metric | Event]:
    """What the operator reads, asked for endpoint by endpoint."""
    from google.cloud import monitoring_v3

    hook = operator.hook
    assert hook is not None
    for endpoint in list(hook.endpoints("us-central1")):
        endpoint_id = endpoint.name.rpartition("/")[2]
        for spec in operator.row.metrics:
            metric_type = spec.origin.replace(":", "/")
            for aligner in spec.statistics:
                request = monitoring_v3.ListTimeSeriesRequest(
                    name=f"projects/{hook.project_id}",
                    filter=f'metric.type = "{metric_type}" AND resource.labels.endpoint_id = "{endpoint_id}"',
                    interval={
                        "start_time": {"seconds": WINDOW.start // 1000},
                        "end_time": {"seconds": WINDOW.end // 1000},
                    },
                    aggregation={"alignment_period": {"seconds": 60}, "per_series_aligner": aligner},
                )
                for series in hook._monitoring.list_time_series(request=request, timeout=60):
                    for point in series.points:
                        yield Metric(endpoint_id, spec.name, 0, spec.unit, {}, point.interval.end_time.second)


def run() -> dict[str, Any]:
    """Both, and their ratio."""
    span = ("--history-from", (NOW - timedelta(hours=1)).isoformat(), "--history-until", NOW.isoformat())
    with (
        Server("sandbox.vertex_ai", "--port", "0", "--endpoints", str(ENDPOINTS), *span) as server,
        httpx2.Client(base_url=f"{server.url}/_sandbox/", timeout=60) as control,
    ):
        extra = {"is_anonymous": True, "project": "airis-sandbox"}
        extra |= {"monitoring_endpoint": server.url, "aiplatform_endpoint": server.url}
        fields = {"conn_type": "google_cloud_platform", "extra": extra}
        os.environ["AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT"] = json.dumps(fields)
        operator = VertexAIToAirisOperator(task_id="read")
        figures: dict[str, Any] = {"endpoints": ENDPOINTS}
        # The first read also imports Google's clients, and the stand-in computes the day's values.
        for _ in operator.collect(WINDOW):
            pass
        for name, read in (("", operator.collect(WINDOW)), ("_one_an_endpoint", one_an_endpoint(operator))):
            control.delete("calls")
            began = time.perf_counter()
            figures[f"points{name}"] = sum(1 for _ in read)
            figures[f"seconds{name}"] = time.perf_counter() - began
            calls = control.get("calls").json()
            figures[f"calls{name}"] = sum(count for method, count in calls.items() if method != "points")
    if operator.failures or figures["points"] != figures["points_one_an_endpoint"]:
        raise RuntimeError(f"{figures} {operator.failures}")
    figures["calls_ratio"] = figures["calls_one_an_endpoint"] / figures["calls"]
    figures["seconds_ratio"] = figures["seconds_one_an_endpoint"] / figures["seconds"]
    for figure, value in figures.items():
        print(f"  {figure:<34}{value:>14,.3f}" if isinstance(value, float) else f"  {figure:<34}{value:>14,}")
    return figures


if __name__ == "__main__":
    run()
