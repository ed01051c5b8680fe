"""The row of Amazon SageMaker."""

from __future__ import annotations

from airflow_provider_airis.catalog.system import Connection, EventSpec, MetricSpec, Option, Source, System

# Sets of CloudWatch's dimensions, names sorted. The same requests and the same load are in several of them again.
VARIANT = "EndpointName/VariantName"
COMPONENT = "InferenceComponentName"
ENDPOINT = "EndpointName"
HOST = "Host"
_CONTAINER = "ContainerName/EndpointName/VariantName"
_INSTANCE = "EndpointName/InstanceId/VariantName"
_ACCELERATOR = "AcceleratorId/EndpointName/InstanceId/VariantName"
DIMENSIONS = (
    "AcceleratorId",
    "ContainerId",
    "ContainerName",
    "EndpointName",
    "GpuId",
    "InferenceComponentName",
    "InstanceId",
    "InstanceType",
    "VariantName",
)

INSTANCES = "/aws/sagemaker/Endpoints"
COMPONENTS = "/aws/sagemaker/InferenceComponents"
# Which jobs → where their instances' load is; it has the names of the endpoints' there.
JOBS = {
    "training": "/aws/sagemaker/TrainingJobs",
    "processing": "/aws/sagemaker/ProcessingJobs",
    "transform": "/aws/sagemaker/TransformJobs",
}
_REQUESTS = "AWS/SageMaker:"
_LOAD = f"{INSTANCES}:"
_RELATIVE = f"{COMPONENTS}:"
_LATENCY = ("Average", "Maximum", "p50", "p90", "p99")
_PEAK = ("Average", "Maximum")

ROW = System(
    stem="sagemaker",
    prefix="SageMaker",
    title="Amazon SageMaker",
    category="cloud",
    summary="endpoint and job metrics from CloudWatch: traffic, errors, latency, load; endpoints' states",
    url="https://docs.aws.amazon.com/sagemaker/latest/dg/monitoring-cloudwatch.html",
    connection=Connection("aws"),
    requires=("apache-airflow-providers-amazon>=9.39",),
    tested_against="a stand-in that enforces AWS's limits, and moto",
    source=Source(
        kind="history",
        delay_s=120,
        # What was published after its day was read is read with the next one: to look back costs nothing more.
        reconcile={"lookback_s": 7200},
        options=(
            Option(
                "connections",
                "list",
                "aws_default",
                "Connections, one for each account.",
                "aws_main, aws_research",
                argument="aws_conn_id",
                maps=True,
            ),
            Option(
                "regions",
                "list",
                "",
                "AWS regions, a mapped task each: of every connection, or of one, connection:region; its own if empty.",
                "us-east-1, aws_research:eu-west-1",
                argument="region_name",
                maps=True,
            ),
            Option(
                "lookback_s",
                "integer",
                "900",
                "How far back airis_sync_sagemaker reads again, for values that came late; at no further cost.",
                only="sync",
            ),
            Option(
                "idle_poll_interval_s",
                "integer",
                "900",
                "Seconds until idle series, those without a point for three hours, are polled again; 0: each time.",
                only="sync",
            ),
            Option(
                "dimensions",
                "list",
                f"{VARIANT}, {COMPONENT}",
                "Sets of CloudWatch's dimensions to read. What several sets hold is the same requests and load again.",
                f"{VARIANT}, {_INSTANCE}",
            ),
            Option(
                "linked_accounts",
                "boolean",
                "false",
                "Read also what other accounts share with the connection's, a monitoring account.",
            ),
            Option(
                "series",
                "list",
                "",
                "Series to read whether CloudWatch still lists them or not, by their exact dimensions.",
                "EndpointName=fraud/VariantName=old",
            ),
            Option("jobs", "list", "", "Jobs whose instances' load is read.", ", ".join(JOBS)),
        ),
    ),
    metrics=(
        MetricSpec(
            "invocations",
            "None",
            "Requests sent to the model.",
            _REQUESTS + "Invocations",
            ("Sum",),
            (VARIANT, COMPONENT, _CONTAINER, _INSTANCE),
        ),
        MetricSpec(
            "invocation4xxerrors",
            "None",
            "Requests answered with a 4xx.",
            _REQUESTS + "Invocation4XXErrors",
            ("Sum",),
            (VARIANT, COMPONENT, _CONTAINER, _INSTANCE),
        ),
        MetricSpec(
            "invocation5xxerrors",
            "None",
            "Requests answered with a 5xx.",
            _REQUESTS + "Invocation5XXErrors",
            ("Sum",),
            (VARIANT, COMPONENT, _CONTAINER, _INSTANCE),
        ),
        MetricSpec(
            "invocationmodelerrors",
            "None",
            "Requests that the model's container did not answer with a 2xx.",
            _REQUESTS + "InvocationModelErrors",
            ("Sum",),
            (VARIANT, COMPONENT, _INSTANCE),
        ),
        MetricSpec(
            "invocationsperinstance",
            "None",
            "Requests per instance: every request adds 1/instances.",
            _REQUESTS + "InvocationsPerInstance",
            ("Sum",),
            (VARIANT,),
        ),
        MetricSpec(
            "invocationspercopy",
            "None",
            "Requests per copy of the inference component.",
            _REQUESTS + "InvocationsPerCopy",
            ("Sum",),
            (COMPONENT,),
        ),
        MetricSpec(
            "modellatency",
            "Microseconds",
            "Time the model took to answer.",
            _REQUESTS + "ModelLatency",
            _LATENCY,
            (VARIANT, COMPONENT, _INSTANCE),
        ),
        MetricSpec(
            "containerlatency",
            "Microseconds",
            "Time the container took to answer.",
            _REQUESTS + "ContainerLatency",
            _LATENCY,
            (_CONTAINER,),
        ),
        MetricSpec(
            "overheadlatency",
            "Microseconds",
            "Time SageMaker added.",
            _REQUESTS + "OverheadLatency",
            _LATENCY,
            (VARIANT, COMPONENT, _CONTAINER, _INSTANCE),
        ),
        MetricSpec(
            "modelsetuptime",
            "Microseconds",
            "Time a serverless endpoint took to start what answers.",
            _REQUESTS + "ModelSetupTime",
            _LATENCY,
            (VARIANT,),
        ),
        MetricSpec(
            "approximatebacklogsize",
            "Count",
            "Requests in an asynchronous endpoint's queue, or worked on. As the next three, of the endpoint.",
            _REQUESTS + "ApproximateBacklogSize",
            _PEAK,
            (ENDPOINT,),
        ),
        MetricSpec(
            "approximatebacklogsizeperinstance",
            "Count",
            "The same per instance.",
            _REQUESTS + "ApproximateBacklogSizePerInstance",
            _PEAK,
            (ENDPOINT,),
        ),
        MetricSpec(
            "approximateageofoldestrequest",
            "Seconds",
            "How long the oldest request has been waiting.",
            _REQUESTS + "ApproximateAgeOfOldestRequest",
            ("Maximum",),
            (ENDPOINT,),
        ),
        MetricSpec(
            "hasbacklogwithoutcapacity",
            "Count",
            "1 where requests wait for an endpoint that has no instance.",
            _REQUESTS + "HasBacklogWithoutCapacity",
            ("Maximum",),
            (ENDPOINT,),
        ),
        MetricSpec(
            "cpuutilization",
            "Percent",
            "CPU, summed over cores: 4 cores reach 400.",
            _LOAD + "CPUUtilization",
            _PEAK,
            (VARIANT, _CONTAINER, _INSTANCE, HOST),
        ),
        MetricSpec(
            "memoryutilization",
            "Percent",
            "Memory in use.",
            _LOAD + "MemoryUtilization",
            _PEAK,
            (VARIANT, _CONTAINER, _INSTANCE, HOST),
        ),
        MetricSpec(
            "diskutilization",
            "Percent",
            "Disk in use.",
            _LOAD + "DiskUtilization",
            _PEAK,
            (VARIANT, _INSTANCE, HOST),
        ),
        MetricSpec(
            "gpuutilization",
            "Percent",
            "GPU, summed over GPUs: 4 GPUs reach 400. Instances without one have no points.",
            _LOAD + "GPUUtilization",
            _PEAK,
            (VARIANT, _INSTANCE, _ACCELERATOR, HOST),
        ),
        MetricSpec(
            "gpumemoryutilization",
            "Percent",
            "Memory of the GPUs in use, summed over GPUs.",
            _LOAD + "GPUMemoryUtilization",
            _PEAK,
            (VARIANT, _INSTANCE, _ACCELERATOR, HOST),
        ),
        MetricSpec(
            "cpuutilizationnormalized",
            "Percent",
            "CPU in use of what the inference component has reserved, or may have.",
            _RELATIVE + "CPUUtilizationNormalized",
            _PEAK,
            (COMPONENT,),
        ),
        MetricSpec(
            "memoryutilizationnormalized",
            "Percent",
            "Memory in use of what the inference component has reserved, or may have.",
            _RELATIVE + "MemoryUtilizationNormalized",
            _PEAK,
            (COMPONENT,),
        ),
        MetricSpec(
            "gpuutilizationnormalized",
            "Percent",
            "GPU in use of what the inference component has reserved, or may have.",
            _RELATIVE + "GPUUtilizationNormalized",
            _PEAK,
            (COMPONENT,),
        ),
        MetricSpec(
            "gpumemoryutilizationnormalized",
            "Percent",
            "Memory of the GPUs in use by the inference component.",
            _RELATIVE + "GPUMemoryUtilizationNormalized",
            _PEAK,
            (COMPONENT,),
        ),
    ),
    events=(
        EventSpec(
            "endpoint_status",
            "An endpoint was created or changed: its status, the reason of a failure, its configuration "
            "(instance types, variants, weights, instance counts).",
        ),
    ),
)
