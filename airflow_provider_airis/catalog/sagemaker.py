"""The row of Amazon SageMaker."""

from __future__ import annotations

from airflow_provider_airis.catalog.system import MetricSpec, Option, System

_AWS_SAGEMAKER = "AWS/SageMaker:"
_AWS_INSTANCES = "/aws/sagemaker/Endpoints:"
_LATENCY = ("Average", "Maximum", "p50", "p90", "p99")

ROW = System(
    stem="sagemaker",
    prefix="SageMaker",
    title="Amazon SageMaker",
    category="cloud",
    flow="inbound",
    summary="endpoint traffic, errors, latency and instance load from CloudWatch",
    url="https://docs.aws.amazon.com/sagemaker/latest/dg/monitoring-cloudwatch.html",
    connection_type="aws",
    requires=("apache-airflow-providers-amazon>=9.39",),
    tested_against="a stand-in that enforces AWS's limits, and moto",
    schedule="*/5 * * * *",
    delay_s=120,
    metrics=(
        MetricSpec("invocations", "None", "Requests sent to the variant.", _AWS_SAGEMAKER + "Invocations", ("Sum",)),
        MetricSpec(
            "invocation4xxerrors",
            "None",
            "Requests answered with a 4xx.",
            _AWS_SAGEMAKER + "Invocation4XXErrors",
            ("Sum",),
        ),
        MetricSpec(
            "invocation5xxerrors",
            "None",
            "Requests answered with a 5xx.",
            _AWS_SAGEMAKER + "Invocation5XXErrors",
            ("Sum",),
        ),
        MetricSpec(
            "invocationmodelerrors",
            "None",
            "Requests that the model's container did not answer with a 2xx.",
            _AWS_SAGEMAKER + "InvocationModelErrors",
            ("Sum",),
        ),
        MetricSpec(
            "invocationsperinstance",
            "None",
            "Requests per instance: every request adds 1/instances.",
            _AWS_SAGEMAKER + "InvocationsPerInstance",
            ("Sum",),
        ),
        MetricSpec(
            "modellatency",
            "Microseconds",
            "Time the model took to answer.",
            _AWS_SAGEMAKER + "ModelLatency",
            _LATENCY,
        ),
        MetricSpec(
            "overheadlatency", "Microseconds", "Time SageMaker added.", _AWS_SAGEMAKER + "OverheadLatency", _LATENCY
        ),
        MetricSpec(
            "cpuutilization",
            "Percent",
            "CPU, summed over cores: 4 cores reach 400.",
            _AWS_INSTANCES + "CPUUtilization",
            ("Average", "Maximum"),
        ),
        MetricSpec(
            "memoryutilization",
            "Percent",
            "Memory in use.",
            _AWS_INSTANCES + "MemoryUtilization",
            ("Average", "Maximum"),
        ),
        MetricSpec(
            "diskutilization", "Percent", "Disk in use.", _AWS_INSTANCES + "DiskUtilization", ("Average", "Maximum")
        ),
        MetricSpec(
            "gpuutilization",
            "Percent",
            "GPU, summed over GPUs: 4 GPUs reach 400. Instances without one have no points.",
            _AWS_INSTANCES + "GPUUtilization",
            ("Average", "Maximum"),
        ),
        MetricSpec(
            "gpumemoryutilization",
            "Percent",
            "Memory of the GPUs in use, summed over GPUs.",
            _AWS_INSTANCES + "GPUMemoryUtilization",
            ("Average", "Maximum"),
        ),
    ),
    options=(Option("regions", "string", "us-east-1", "AWS regions, one mapped task each.", "us-east-1, eu-west-1"),),
)
