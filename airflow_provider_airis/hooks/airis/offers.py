"""What a hub may lack, in words that say what that means."""

from __future__ import annotations

from collections.abc import Mapping

from airflow_provider_airis.hooks.delivery import API

# Capability → what a hub without it is like. In the order of their weight.
LACKS = {
    "alerts.changes": "it has no change feed: its alerts come through a companion hub, named by alerts_conn_id",
    "notification_log": "it does not keep what was sent to whom: alerts are sent from a companion hub",
    "leases": "it has no leases: alerts are sent from a companion hub",
    "checkpoints": "it keeps no checkpoints: Airflow keeps them, as Variables",
    "users": "it does not list its users: what a directory held is read from the checkpoint",
    "metrics.coverage": "it does not say which points it holds: gaps cannot be found and filled",
    "metrics.query": "it gives no points back: no charts",
    "metrics.last": "it gives no points back: counters start anew with each run",
    "events.changes": "it has no feed of events: none are forwarded",
    "events.query": "it gives no events back",
    "silences": "it has no silences",
    "inbound_webhooks": "it takes no signed alerts: it cannot be a companion",
    "metrics.batch": "it takes records singly, which is slower than in batches",
}
_NEEDS = {
    "alerts/changes": "alerts.changes",
    "notification-log": "notification_log",
    "users": "users",
    "metrics/coverage": "metrics.coverage",
    "metrics/query": "metrics.query",
    "metrics/last": "metrics.last",
    "events/changes": "events.changes",
    "events": "events.query",
    "silences": "silences",
    "inbound-webhooks": "inbound_webhooks",
}
# What its document promises.
DOCUMENT = "It takes metrics, events, users and webhooks, as its document promises"
SEE = "see Hubs in the documentation"


def lacking(path: str) -> str:
    """What a hub is like that answers a call with 404; empty for calls that say 404 of a thing that is not there."""
    call = path.removeprefix(f"{API}/").partition("?")[0]
    capability = "leases" if call.startswith("leases/") else _NEEDS.get(call)
    return f"{LACKS[capability]} ({SEE})" if capability else ""


def describe(capabilities: Mapping[str, bool] | None) -> str:
    """What the hub offers and what that means, in sentences; None if it does not say, as the document's does not."""
    missing = [text for name, text in LACKS.items() if not (capabilities or {}).get(name)]
    if not missing:
        return ""
    offered = f"{DOCUMENT}; beyond that" if capabilities is None else "Beyond what it offers"
    return f"{offered}, {'; '.join(missing)} ({SEE})"
