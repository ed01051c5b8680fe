"""What a row of the catalog says, and what is derived from it. Imports neither Airflow nor a hook."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

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
    """A configuration option of ``airflow.cfg``, section ``[airis_<stem>]``, and where it goes from there.

    :param type: a ``list`` is separated by commas, ``json`` is a JSON object.
    :param default: as it is written there.
    :param argument: the operator's parameter that gets the value, if it has another name.
    :param maps: whether each value of the list is a mapped task of its own; without values the parameter is None.
    :param only: the Dag that has use for it, ``sync`` or ``reconcile``; both if empty.
    """

    name: str
    type: Literal["string", "integer", "float", "boolean", "list", "json"]
    default: str
    description: str
    example: str | None = None
    argument: str = ""
    maps: bool = False
    only: Literal["", "sync", "reconcile"] = ""


@dataclass(frozen=True)
class Connection:
    """The connection that leads to a system.

    :param type: Airflow's connection type; ours only where ``form`` is given.
    :param default_id: the default connection's id, where its provider gives it another than ``<type>_default``.
    :param more_types: others' connection types that the system's hook takes as well.
    """

    type: str
    form: Form | None = None
    default_id: str = ""
    more_types: tuple[str, ...] = ()

    @property
    def types(self) -> tuple[str, ...]:
        """Every connection type that the hook takes."""
        return (self.type, *self.more_types)


@dataclass(frozen=True)
class Source:
    """The system's records are collected, by ``operators.<stem>.<Prefix>ToAirisOperator``.

    :param kind: ``history`` can be asked for any window of the past, ``snapshot`` shows the present only, ``feed`` is
        read on from where the last run ended, ``registry`` is compared with what is known of it.
    :param schedule: cron expression of ``airis_sync_<stem>``, in UTC.
    :param delay_s: how long after a window's end the source shows it.
    :param period_s: the source's finest period, to which windows are aligned.
    :param reconcile: the operator's further arguments in the daily ``airis_reconcile_<stem>``, which reads a day, or
        everything, anew; None if there is no such Dag.
    :param options: the operator's, beside those that every source has.
    """

    kind: Literal["history", "snapshot", "feed", "registry"]
    schedule: str = "*/5 * * * *"
    delay_s: int = 0
    period_s: int = 60
    reconcile: dict[str, Any] | None = None
    options: tuple[Option, ...] = ()

    def all_options(self, stem: str) -> tuple[Option, ...]:
        """Its own and those that every source has."""
        late = "How long after a window has ended its run starts: the time that the source takes to publish."
        return (
            Option("schedule", "string", self.schedule, f"Cron expression, in UTC, of airis_sync_{stem}."),
            Option("delay_s", "integer", str(self.delay_s), late),
            *self.options,
        )


@dataclass(frozen=True)
class Channel:
    """Alerts are sent to the system.

    :param target: whom ``airis_dispatch_<stem>`` delivers to within the system, unless a route says otherwise.
    :param severities: of which alerts, without a routing file.
    :param loads: modules of its SDK that a delivery needs and that are slow to load; the scheduler loads them before.
    """

    target: str
    severities: tuple[str, ...] = ()
    loads: tuple[str, ...] = ()
    options: tuple[Option, ...] = ()

    def all_options(self, stem: str) -> tuple[Option, ...]:
        """Its own and those that every channel has."""
        lingers = "Seconds for which the task waits for more, so that what follows needs no task's start."
        which = "Severities of the alerts that are delivered there; empty for none."
        return (
            Option("target", "string", self.target, f"Whom airis_dispatch_{stem} delivers to."),
            Option("severities", "list", ", ".join(self.severities), which),
            Option("linger_s", "integer", "30", lingers),
            *self.options,
        )


@dataclass(frozen=True)
class Webhook:
    """The system sends requests to ``/airis/receive/<stem>``, by which it tells what happened there.

    :param secret: extra of its connection with the secrets that sign them.
    """

    secret: str = "webhook_secret"  # noqa: S105
    options: tuple[Option, ...] = ()

    def all_options(self, stem: str, default_conn_id: str) -> tuple[Option, ...]:
        """Its own and those that every inbound webhook has."""
        where = f"Connection whose extra {self.secret} is the secret of requests to /airis/receive/{stem}."
        return (Option("receive_conn_id", "string", default_conn_id, where), *self.options)

    def field(self, stem: str) -> Field:
        """The connection form's field of the secret."""
        title = self.secret.replace("_", " ").capitalize()
        signs = f"Signs requests to /airis/receive/{stem}: 16 characters or more; two, with a blank, in a change."
        return Field(self.secret, "string", title, signs, secret=True)


@dataclass(frozen=True)
class Export:
    """What the hub holds and is no alert is sent to the system.

    :param what: names the Dag, ``airis_<what>_<stem>``, and the offset, ``<consumer>-<stem>-<what>``.
    :param summary: what is sent, as a line of the documentation.
    :param schedule: cron expression of that Dag, in UTC.
    """

    what: str
    summary: str
    schedule: str = "*/5 * * * *"
    options: tuple[Option, ...] = ()


# eq=False: a row is itself, so it is a key of dictionaries whatever it holds.
@dataclass(frozen=True, eq=False, kw_only=True)
class System:
    """One external system, and by its facets what it can do. The hub is the one without any.

    :param stem: the one word that names it everywhere: module, Dag, fixture folder, docs page, extra.
    :param prefix: the same word in class names.
    :param url: the vendor's documentation.
    :param tested_against: what its tests talk to.
    :param requires: what its extra installs.
    :param metrics: every metric that it can bring, and ``events``: every event, by whichever way.
    :param options: those that belong to none of its facets.
    """

    stem: str
    prefix: str
    title: str
    category: Category
    summary: str
    url: str
    connection: Connection
    tested_against: str
    requires: tuple[str, ...] = ()
    source: Source | None = None
    channel: Channel | None = None
    webhook: Webhook | None = None
    export: Export | None = None
    metrics: tuple[MetricSpec, ...] = ()
    events: tuple[EventSpec, ...] = ()
    options: tuple[Option, ...] = ()

    @property
    def facets(self) -> tuple[str, ...]:
        """What it can do: ``source``, ``channel``, ``webhook``, ``export``; nothing of it for the hub."""
        return tuple(name for name in ("source", "channel", "webhook", "export") if getattr(self, name))

    @property
    def default_conn_id(self) -> str:
        """The connection that operators and Dags use unless told otherwise."""
        return self.connection.default_id or f"{self.connection.type}_default"

    @property
    def section(self) -> str:
        """The section of ``airflow.cfg`` that holds this system's options."""
        return f"airis_{self.stem}" if self.facets else self.stem

    @property
    def hook_class(self) -> str:
        """Import path of the hook."""
        return f"{PACKAGE}.hooks.{self.stem}.{self.prefix}Hook"

    @property
    def collect_class(self) -> str | None:
        """Import path of the operator that brings its records."""
        return f"{PACKAGE}.operators.{self.stem}.{self.prefix}ToAirisOperator" if self.source else None

    @property
    def notify_class(self) -> str | None:
        """Import path of the operator that sends it alerts."""
        return f"{PACKAGE}.operators.{self.stem}.AirisTo{self.prefix}Operator" if self.channel else None

    @property
    def channel_class(self) -> str | None:
        """Import path of the class that shows alerts to it."""
        return f"{PACKAGE}.channels.{self.stem}.{self.prefix}Channel" if self.channel else None

    @property
    def target_is_connection(self) -> bool:
        """Whether a target of it is a connection, whose URL or key leads there."""
        return self.channel is not None and self.channel.target == self.default_conn_id

    @property
    def handler_class(self) -> str | None:
        """Import path of the class that reads requests to ``/airis/receive/<stem>``."""
        return f"{PACKAGE}.receive.{self.stem}.{self.prefix}Handler" if self.webhook else None

    @property
    def export_class(self) -> str | None:
        """Import path of the class that sends it what is no alert."""
        return f"{PACKAGE}.exports.{self.stem}.{self.prefix}Export" if self.export else None

    @property
    def all_options(self) -> tuple[Option, ...]:
        """The options of its section: those of its facets, and the row's own."""
        return (
            *(self.source.all_options(self.stem) if self.source else ()),
            *(self.channel.all_options(self.stem) if self.channel else ()),
            *(self.webhook.all_options(self.stem, self.default_conn_id) if self.webhook else ()),
            *(self.export.options if self.export else ()),
            *self.options,
        )

    @property
    def form_fields(self) -> tuple[Field, ...]:
        """The fields of its connection form."""
        form = self.connection.form
        own = (*form.fields, *(HTTP_FIELDS if form.http else ())) if form else ()
        return (*own, self.webhook.field(self.stem)) if self.webhook else own

    @property
    def dags(self) -> dict[str, str]:
        """The shipped Dags that belong to this system alone: what each does, to its id."""
        kinds = {
            "sync": self.source is not None,
            "reconcile": self.source is not None and self.source.reconcile is not None,
            "dispatch": self.channel is not None,
        }
        exports = {"export": f"airis_{self.export.what}_{self.stem}"} if self.export else {}
        return {kind: f"airis_{kind}_{self.stem}" for kind, there in kinds.items() if there} | exports
