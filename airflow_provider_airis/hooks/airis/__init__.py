"""The hub's client: :class:`AirisHook`, with one client a resource."""

from airflow_provider_airis.hooks.airis.checkpoints import Checkpoint, Checkpoints
from airflow_provider_airis.hooks.airis.hook import (
    AirisHook,
    Evaluation,
    EventChange,
    Place,
    SeriesRef,
)
from airflow_provider_airis.hooks.airis.leases import Lease, Leases
from airflow_provider_airis.hooks.airis.metrics import LastPoint, Metrics
from airflow_provider_airis.hooks.airis.users import UserSyncSummary

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
