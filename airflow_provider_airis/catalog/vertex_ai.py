"""The row of Google Vertex AI."""

from __future__ import annotations

from airflow_provider_airis.catalog.system import Connection, MetricSpec, Option, Source, System

_ONLINE = "aiplatform.googleapis.com:prediction/online/"
_SUM = ("ALIGN_SUM",)
_MEAN = ("ALIGN_MEAN",)

ROW = System(
    stem="vertex_ai",
    prefix="VertexAI",
    title="Google Vertex AI",
    category="cloud",
    summary="endpoint traffic, errors, latency, replicas and load from Cloud Monitoring",
    url="https://cloud.google.com/vertex-ai/docs/general/monitoring-metrics",
    connection=Connection("google_cloud_platform", default_id="google_cloud_default"),
    requires=("apache-airflow-providers-google>=22.8",),
    tested_against="a gRPC stand-in on Google's own message types",
    source=Source(
        kind="history",
        delay_s=420,
        # What became visible after its day was read is read with the next one.
        reconcile={"lookback_s": 7200},
        options=(
            Option(
                "projects",
                "list",
                "",
                "Google Cloud projects, one mapped task each; the connection's if empty.",
                "vision-production, fraud-production",
                argument="project_id",
                maps=True,
            ),
            Option(
                "locations",
                "list",
                "",
                "Locations to read; every one that has points if empty.",
                "us-central1, europe-west4",
            ),
            Option(
                "lookback_s",
                "integer",
                "900",
                "How far back airis_sync_vertex_ai reads again, for points that became visible late; no further calls.",
                only="sync",
            ),
        ),
    ),
    metrics=(
        MetricSpec("prediction_count", "1", "Online predictions.", _ONLINE + "prediction_count", _SUM),
        MetricSpec("error_count", "1", "Online predictions that failed.", _ONLINE + "error_count", _SUM),
        MetricSpec(
            "response_count",
            "1",
            "Responses by class of HTTP code, tag `response_code`.",
            _ONLINE + "response_count",
            _SUM,
        ),
        MetricSpec(
            "prediction_latencies",
            "ms",
            "Latency, tag `latency_type`: `total`; `model` and `overhead` for custom and AutoML tabular models.",
            _ONLINE + "prediction_latencies",
            ("ALIGN_PERCENTILE_50", "ALIGN_PERCENTILE_95", "ALIGN_PERCENTILE_99"),
        ),
        MetricSpec(
            "cpu_utilization",
            "10^2.%",
            "CPU in use of a replica, 1 is 100 % of one CPU: 4 CPUs reach 4.",
            _ONLINE + "cpu/utilization",
            _MEAN,
        ),
        MetricSpec("memory_bytes_used", "By", "Memory in use of a replica.", _ONLINE + "memory/bytes_used", _MEAN),
        MetricSpec(
            "accelerator_duty_cycle",
            "10^2.%",
            "Time that a replica's accelerators were busy, 1 is 100 %. Replicas without one have no points.",
            _ONLINE + "accelerator/duty_cycle",
            _MEAN,
        ),
        MetricSpec(
            "accelerator_memory_bytes_used",
            "By",
            "Memory in use of a replica's accelerators.",
            _ONLINE + "accelerator/memory/bytes_used",
            _MEAN,
        ),
        MetricSpec("replicas", "1", "Active replicas of a deployed model.", _ONLINE + "replicas", _MEAN),
        MetricSpec("target_replicas", "1", "Replicas that it should have.", _ONLINE + "target_replicas", _MEAN),
        MetricSpec(
            "network_received_bytes_count",
            "By",
            "Bytes that a replica received.",
            _ONLINE + "network/received_bytes_count",
            _SUM,
        ),
        MetricSpec(
            "network_sent_bytes_count", "By", "Bytes that a replica sent.", _ONLINE + "network/sent_bytes_count", _SUM
        ),
    ),
)
