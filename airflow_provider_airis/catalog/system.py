"""What a row of the catalog says, and what is derived from it. Imports neither Airflow nor a hook."""

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
    :param dimensions: by what the source tells its series apart, where it keeps several sets of them:
        ``EndpointName/VariantName``, names sorted.
    """

    name: str
    unit: str
    description: str
    origin: str
    statistics: tuple[str, ...] = ()
    dimensions: tuple[str, ...] = ()


@dataclass(frozen=True)
class EventSpec:
    """An event that a system emits."""

    event_type: str
    description: str


@dataclass(frozen=True)
class Field:
    """A field of a connection form. ``type`` is JSON schema's; a ``secret`` is not shown while it is typed."""

    name: str
    type: Literal["string", "boolean", "number", "integer"]
    title: str
    description: str
    default: str | bool | float | None = None
    enum: tuple[str, ...] = ()
    secret: bool = False


@dataclass(frozen=True)
class Form:
    """The connection form of a type that is ours. Types that another provider owns bring their own.

    :param http: whether its hook is an ``HttpHook``, which reads :data:`HTTP_FIELDS` of every connection.
    """

    title: str
    relabeling: dict[str, str]
    placeholders: dict[str, str]
    hidden: tuple[str, ...]
    fields: tuple[Field, ...] = ()
    http: bool = True


# The names of the secrets among them are such that Airflow masks them, in logs as in its API.
HTTP_FIELDS = (
    Field("verify", "string", "Verify TLS", "true, false, or the path of a CA bundle.", "true"),
    Field("timeout", "number", "Timeout (s)", "Longest wait for the system to accept, read or answer.", 30),
    Field("client_cert", "string", "Client certificate", "For servers that ask for one: path of a PEM file, or PEM."),
    Field(
        "client_private_key",
        "string",
        "Client key",
        "Its private key without a passphrase, likewise, unless the certificate's file has it.",
        secret=True,
    ),
    Field(
        "auth_headers",
        "string",
        "Headers",
        'More headers of every request as a JSON object, {"X-Gateway-Key": "…"}.',
        secret=True,
    ),
)


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
    :param more_types: others' connection types that its hook takes as well.
    :param conn_id: the default connection's id, where its provider gives it another than ``<connection_type>_default``.
    :param requires: what its extra installs.
    :param schedule: cron of ``airis_sync_<stem>``, and ``delay_s``: how long after a window's end the source shows it.
    :param reconciles: whether it also has a daily ``airis_reconcile_<stem>``, which reads a day, or everything, anew.
    :param period_s: the source's finest period, to which windows are aligned.
    :param target: whom the dispatch Dag delivers to within an outbound system, and ``severities``: of which alerts.
    :param receives: extra of its connection with the secrets of its requests to ``/airis/receive/<stem>``, by which
        it tells what people did there; empty if it has no way back.
    :param loads: modules of its SDK that a delivery needs and that are slow to load; the scheduler loads them before.
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
    more_types: tuple[str, ...] = ()
    conn_id: str = ""
    requires: tuple[str, ...] = ()
    form: Form | None = None
    schedule: str | None = None
    delay_s: int = 0
    reconciles: bool = True
    period_s: int = 60
    target: str | None = None
    severities: tuple[str, ...] = ()
    receives: str = ""
    loads: tuple[str, ...] = ()
    metrics: tuple[MetricSpec, ...] = ()
    events: tuple[EventSpec, ...] = ()
    options: tuple[Option, ...] = ()

    @property
    def default_conn_id(self) -> str:
        """The connection that operators and Dags use unless told otherwise."""
        return self.conn_id or f"{self.connection_type}_default"

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
    def handler_class(self) -> str | None:
        """Import path of the class that reads requests to ``/airis/receive/<stem>``."""
        return f"{PACKAGE}.receive.{self.stem}.{self.prefix}Handler" if self.receives else None

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
            lingers = "Seconds for which the task waits for more, so that what follows needs no task's start."
            which = "Severities of the alerts that are delivered there; empty for none."
            shared = [
                Option("target", "string", self.target, f"Whom airis_dispatch_{self.stem} delivers to."),
                Option("severities", "string", ", ".join(self.severities), which),
                Option("linger_s", "integer", "30", lingers),
            ]
        if self.receives:
            secret = f"Connection whose extra {self.receives} is the secret of requests to /airis/receive/{self.stem}."
            shared.append(Option("receive_conn_id", "string", self.default_conn_id, secret))
        return (*shared, *self.options)

    @property
    def form_fields(self) -> tuple[Field, ...]:
        """The fields of its connection form."""
        own = self.form.fields if self.form else ()
        if self.form and self.form.http:
            own = (*own, *HTTP_FIELDS)
        if not self.receives:
            return own
        title = self.receives.replace("_", " ").capitalize()
        signs = f"Signs requests to /airis/receive/{self.stem}: 16 characters or more; two, with a blank, in a change."
        return (*own, Field(self.receives, "string", title, signs, secret=True))

    @property
    def dag_ids(self) -> tuple[str, ...]:
        """The shipped Dags that belong to this system alone."""
        if self.flow == "outbound":
            return (f"airis_dispatch_{self.stem}",)
        if self.schedule is None:
            return ()
        sync = (f"airis_sync_{self.stem}",)
        return (*sync, f"airis_reconcile_{self.stem}") if self.reconciles else sync
