"""The table of contents: one row a system. Pure data; whatever follows from a row is derived from it.

The provider's registration with Airflow, the connection forms, the configuration sections, the schedules of the Dags,
the tables of the documentation and the contract tests are all read off these rows. Imports neither Airflow nor a hook.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PACKAGE = "airflow_provider_airis"
Category = Literal["AIRIS-MON", "AI/ML platforms", "cloud", "enterprise", "notification", "monitoring", "DevOps"]


@dataclass(frozen=True)
class MetricSpec:
    """A metric that a system emits.

    :param name: as the hub knows it.
    :param unit: the source's own word for it.
    :param origin: where the source keeps it, in the source's terms, e.g. ``AWS/SageMaker:ModelLatency``.
    :param statistics: which aggregates are read by default, in the source's terms.
    """

    name: str
    unit: str
    description: str
    origin: str
    statistics: tuple[str, ...] = ()


@dataclass(frozen=True)
class EventSpec:
    """An event that a system emits."""

    event_type: str
    description: str


@dataclass(frozen=True)
class Field:
    """A field of a connection form. ``type`` is JSON schema's."""

    name: str
    type: Literal["string", "boolean", "number", "integer"]
    title: str
    description: str
    default: str | bool | float | None = None
    enum: tuple[str, ...] = ()


@dataclass(frozen=True)
class Form:
    """The connection form of a type that is ours. Types that another provider owns bring their own."""

    title: str
    relabeling: dict[str, str]
    placeholders: dict[str, str]
    hidden: tuple[str, ...]
    fields: tuple[Field, ...]


@dataclass(frozen=True)
class Option:
    """A configuration option of ``airflow.cfg``, section ``[airis_<stem>]``."""

    name: str
    type: Literal["string", "integer", "float", "boolean"]
    default: str
    description: str
    example: str | None = None


@dataclass(frozen=True)
class System:
    """One external system.

    :param stem: the one word that names it everywhere: module, Dag, fixture folder, docs page, extra.
    :param prefix: the same word in class names.
    :param connection_type: Airflow's connection type; ours only where ``form`` is given.
    :param requires: what its extra installs.
    :param schedule: cron of ``airis_sync_<stem>``, and ``delay_s``: how long after a window's end the source shows it.
    :param period_s: the source's finest period, to which windows are aligned.
    :param target: whom the dispatch Dag delivers to within an outbound system, and ``severities``: of which alerts.
    :param tested_against: what its tests talk to.
    """

    stem: str
    prefix: str
    title: str
    category: Category
    flow: Literal["hub", "inbound", "outbound"]
    summary: str
    url: str
    connection_type: str
    tested_against: str
    requires: tuple[str, ...] = ()
    form: Form | None = None
    schedule: str | None = None
    delay_s: int = 0
    period_s: int = 60
    target: str | None = None
    severities: tuple[str, ...] = ()
    metrics: tuple[MetricSpec, ...] = ()
    events: tuple[EventSpec, ...] = ()
    options: tuple[Option, ...] = ()

    @property
    def default_conn_id(self) -> str:
        """The connection that operators and Dags use unless told otherwise."""
        return f"{self.connection_type}_default"

    @property
    def section(self) -> str:
        """The section of ``airflow.cfg`` that holds this system's options."""
        return "airis" if self.flow == "hub" else f"airis_{self.stem}"

    @property
    def hook_class(self) -> str:
        """Import path of the hook."""
        return f"{PACKAGE}.hooks.{self.stem}.{self.prefix}Hook"

    @property
    def operator_class(self) -> str | None:
        """Import path of the operator; the hub has none of its own."""
        names = {"inbound": f"{self.prefix}ToAirisOperator", "outbound": f"AirisTo{self.prefix}Operator"}
        return f"{PACKAGE}.operators.{self.stem}.{names[self.flow]}" if self.flow in names else None

    @property
    def all_options(self) -> tuple[Option, ...]:
        """The row's own options and those that its kind has in common."""
        shared: list[Option] = []
        if self.schedule is not None:
            late = "How long after a window has ended its run starts: the time that the source takes to publish."
            shared = [
                Option("schedule", "string", self.schedule, f"Cron expression, in UTC, of airis_sync_{self.stem}."),
                Option("delay_s", "integer", str(self.delay_s), late),
            ]
        if self.target is not None:
            which = "Severities of the alerts that are delivered there; empty for none."
            shared = [
                Option("target", "string", self.target, "Whom airis_dispatch_alerts delivers to."),
                Option("severities", "string", ", ".join(self.severities), which),
            ]
        return (*shared, *self.options)

    @property
    def dag_ids(self) -> tuple[str, ...]:
        """The shipped Dags that belong to this system alone."""
        return (f"airis_sync_{self.stem}", f"airis_reconcile_{self.stem}") if self.schedule else ()


_AWS_SAGEMAKER = "AWS/SageMaker:"
_AWS_INSTANCES = "/aws/sagemaker/Endpoints:"
_LATENCY = ("Average", "Maximum", "p50", "p90", "p99")

SYSTEMS: tuple[System, ...] = (
    System(
        stem="airis",
        prefix="Airis",
        title="AIRIS-MON",
        category="AIRIS-MON",
        flow="hub",
        summary="the hub: takes metrics and events in, evaluates rules, gives alerts out",
        url="https://airis-mon.example.com/docs",
        connection_type="airis",
        tested_against="the reference hub of this package, over sockets",
        form=Form(
            title="AIRIS-MON",
            relabeling={"host": "Base URL", "password": "Token"},
            placeholders={
                "host": "https://airis-mon.example.com",
                "password": "token with the scopes ingest, read, alerts",
            },
            hidden=("login", "port", "schema"),
            fields=(
                Field("verify", "string", "Verify TLS", "true, false, or the path of a CA bundle.", "true"),
                Field("timeout", "number", "Timeout (s)", "Longest wait for the hub to accept or answer.", 30),
                Field(
                    "compression",
                    "string",
                    "Compression",
                    "Content-Encoding of what is delivered.",
                    "gzip",
                    ("gzip", "none"),
                ),
                Field(
                    "consumer",
                    "string",
                    "Consumer name",
                    "Whose place in the change feed the dispatch Dag keeps.",
                    "airflow",
                ),
                Field(
                    "dashboard_url",
                    "string",
                    "Dashboard URL",
                    "Base of the links in notifications, if not the base URL.",
                ),
            ),
        ),
    ),
    System(
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
            MetricSpec(
                "invocations", "None", "Requests sent to the variant.", _AWS_SAGEMAKER + "Invocations", ("Sum",)
            ),
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
        options=(
            Option("regions", "string", "us-east-1", "AWS regions, one mapped task each.", "us-east-1, eu-west-1"),
        ),
    ),
    System(
        stem="slack",
        prefix="Slack",
        title="Slack",
        category="notification",
        flow="outbound",
        summary="one message an alert, updated as the alert changes",
        url="https://docs.slack.dev/reference/methods/chat.postMessage",
        connection_type="slack",
        requires=("apache-airflow-providers-slack>=9.11",),
        tested_against="a server of our own that checks what Slack checks, called through slack_sdk",
        target="#alerts",
        severities=("critical", "high", "medium", "low", "warning", "info"),
    ),
    System(
        stem="pagerduty",
        prefix="PagerDuty",
        title="PagerDuty",
        category="notification",
        flow="outbound",
        summary="an incident for each critical or high alert, resolved with it",
        url="https://developer.pagerduty.com/docs/send-alert-event",
        connection_type="pagerduty_events",
        requires=("apache-airflow-providers-pagerduty>=5.3",),
        tested_against="a server of our own that checks what the Events API v2 checks",
        target="pagerduty_events_default",
        severities=("critical", "high"),
    ),
)

BY_STEM: dict[str, System] = {system.stem: system for system in SYSTEMS}
