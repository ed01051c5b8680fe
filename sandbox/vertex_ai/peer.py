"""What the demo knows of the fake Vertex AI: its connection and its truth."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import httpx2

from airflow_provider_airis.records import Window
from sandbox.fake import TIMES, FakeServer, Running
from sandbox.verify import Tally, compare_points, lines

PROJECT = "airis-sandbox"


def published(url: str, window: Window) -> Iterator[tuple[str, str, dict[str, str], dict[int, float]]]:
    """Source, name, tags and points of every series, as the hub should have them."""
    for line in lines(url, window):
        tags = {
            "endpoint_id": line["endpoint_id"],
            "endpoint_name": line["endpoint"],
            "deployed_model_id": line["model_id"],
            "deployed_model": line["model"],
            "location": line["location"],
            "project_id": line["project"],
            "cloud_provider": "gcp",
            "service": "vertex_ai",
            "statistic": line["statistic"],
            "period_s": "60",
            **line["labels"],
        }
        yield f"gcp-vertex-{line['endpoint']}", line["metric"], tags, dict(line["points"])


def truth(running: Running, hub: httpx2.Client, windows: Sequence[Window]) -> Tally:
    """Compare every point."""
    return compare_points(hub, "gcp-vertex-", windows, lambda window: published(running.url, window))


PEER = FakeServer(
    "vertex_ai",
    8794,
    lambda url, _made: {
        "google_cloud_default": {
            "conn_type": "google_cloud_platform",
            "extra": json.dumps(
                {"project": PROJECT, "is_anonymous": True, "monitoring_endpoint": url, "aiplatform_endpoint": url}
            ),
        }
    },
    arguments=("--project", PROJECT, "--endpoints", "10", "--ingest-delay-s", "5", *TIMES),
    settings={"schedule": "* * * * *", "delay_s": "10"},
    truth=truth,
)
