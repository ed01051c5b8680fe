"""What the files in ``dags/`` have in common: which rows they make a Dag for, what it says, and its collecting task."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from airflow.sdk import conf, get_parsing_context

from airflow_provider_airis.assets import synced
from airflow_provider_airis.catalog import BY_STEM, System
from airflow_provider_airis.catalog.dags import about
from airflow_provider_airis.settings import source_arguments, value

if TYPE_CHECKING:
    from airflow_provider_airis.sources.base import CollectOperator


def rows(kind: str) -> Iterator[System]:
    """The systems that have a Dag of this kind. A task, which parses its Dag's file anew, gets that Dag's alone.

    See https://airflow.apache.org/docs/apache-airflow/stable/howto/dynamic-dag-generation.html
    """
    wanted = get_parsing_context().dag_id
    for system in BY_STEM.values():
        if kind in system.dags and wanted in (None, system.dags[kind]):
            yield system


def described(stem: str, kind: str, text: str | None) -> dict[str, Any]:
    """What a Dag says of itself: arguments of ``DAG``.

    :param text: the file's own, into ``doc_md`` below what the row says.
    """
    system = BY_STEM[stem]
    said = about(system, kind)
    return {
        "dag_display_name": said.title,
        "description": said.description,
        "tags": list(said.tags),
        "doc_md": "\n\n".join(filter(None, (said.description, _facts(system), text))),
    }


def limit(stem: str, kind: str) -> timedelta:
    """How long a task of such a Dag may take."""
    return about(BY_STEM[stem], kind).limit


def receiver(system: System) -> str:
    """The connection that an export's Dag sends to: its target's, where alerts go to a connection."""
    return str(value(system.stem, "target")) if system.target_is_connection else system.default_conn_id


def _facts(system: System) -> str:
    """Where to look further: connections, options, the documentation."""
    docs = value("airis", "docs_url").rstrip("/")
    page = f"[{system.title}]({docs}/systems/{system.stem}.html)" if docs else f"`docs/systems/{system.stem}.md`"
    hub = _connection(BY_STEM["airis"])
    return f"""\
- Connection: {_connection(system)}, of type `{system.connection.type}`, unless configured otherwise; of the hub {hub}
- Options: section `[{system.section}]` of `airflow.cfg`
- Documentation: {page}, and [its own]({system.url})"""


def _connection(system: System) -> str:
    base = conf.get("api", "base_url", fallback="").rstrip("/")
    conn_id = system.default_conn_id
    return f"[`{conn_id}`]({base}/connections?name_pattern={quote(conn_id)})"


def collect(system: System, dag: Literal["sync", "reconcile"]) -> Any:
    """The task that collects a source's records in one of its Dags: its operator, with what is configured.

    Options of which each value is a task of its own map it.
    """
    assert system.source
    module, _, name = str(system.collect_class).rpartition(".")
    operator: type[CollectOperator] = getattr(import_module(module), name)
    common, mapped = source_arguments(system, dag)
    if dag == "reconcile":
        common |= system.source.reconcile or {}
    task: dict[str, Any] = {"task_id": f"{system.stem}_to_airis", "outlets": [synced(system.stem, dag)]}
    if not mapped:
        return operator(**task, **common)
    label = " ".join(f"{{{{ task.{argument} or 'default' }}}}" for argument in mapped)
    tasks = operator.mapped(common, mapped)
    return operator.partial(**task, map_index_template=label, **common).expand_kwargs(tasks)
