"""What the shipped Dag of a system says of itself, and how long its tasks may take. Pure data, off the row."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from airflow_provider_airis.catalog.system import System

# How long one task of a source may take. What it is in the middle of then is asked for again by its next try.
_SYNC = {
    "snapshot": timedelta(minutes=10),
    # A run ends before it holds back the next one of all its parts; what was in the middle then, that one reads.
    "history": timedelta(minutes=6),
    "feed": timedelta(hours=1),
    # The first run reads everything.
    "registry": timedelta(hours=2),
}
_RECONCILE = timedelta(hours=6)
# AirisDispatchOperator begins nothing new after its max_run_s of ten minutes; what it has begun then, it ends.
_DISPATCH = timedelta(minutes=15)
# ExportOperator begins no further batch after its max_run_s of 25 minutes.
_EXPORT = timedelta(minutes=30)


@dataclass(frozen=True)
class About:
    """A shipped Dag: one line of description, and its tags, among them category and direction.

    :param limit: how long one of its tasks may take.
    """

    dag_id: str
    title: str
    description: str
    tags: tuple[str, ...]
    limit: timedelta


def about(system: System, kind: str) -> About:
    """What one of the row's Dags is.

    :param kind: a key of its ``dags``: ``sync``, ``reconcile``, ``dispatch``, ``export``.
    """
    dag_id, summary = system.dags[kind], system.summary
    if kind in ("sync", "reconcile"):
        assert system.source
        title, direction = f"{system.title} to AIRIS-MON: {kind}", "inbound"
        limit = _SYNC[system.source.kind] if kind == "sync" else _RECONCILE
        whole = "a whole day at a time" if system.source.kind == "history" else "in full, once a day"
        action = f"Read into AIRIS-MON {'as it is published' if kind == 'sync' else whole}"
    elif kind == "dispatch":
        title, direction, limit = f"AIRIS-MON to {system.title}: alerts", "outbound", _DISPATCH
        action = f"Alerts of AIRIS-MON to {system.title}, as they change"
    else:
        assert system.export
        title, direction, limit = f"AIRIS-MON to {system.title}: {system.export.what}", "outbound", _EXPORT
        summary = system.export.summary
        action = f"Sent from AIRIS-MON to {system.title}"
    description = f"{action}. {summary[0].upper()}{summary[1:]}."
    return About(dag_id, title, description, ("airis", system.stem, system.category, direction), limit)
