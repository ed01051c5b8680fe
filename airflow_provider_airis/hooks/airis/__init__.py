"""The hub's client: :class:`AirisHook`, with one client a resource."""

from airflow_provider_airis.hooks.airis.checkpoints import Checkpoint, Checkpoints
from airflow_provider_airis.hooks.airis.hook import (
    AirisHook,
    Evaluation,
    EventChange,
    Place,
    SeriesRef,
    UserSyncSummary,
)
from airflow_provider_airis.hooks.airis.leases import Lease, Leases
from airflow_provider_airis.hooks.airis.metrics import LastPoint, Metrics

__all__ = [
    "AirisHook",
    "Checkpoint",
    "Checkpoints",
    "Evaluation",
    "EventChange",
    "LastPoint",
    "Lease",
    "Leases",
    "Metrics",
    "Place",
    "SeriesRef",
    "UserSyncSummary",
]
