"""What the rows of ticket systems have in common."""

from __future__ import annotations

from airflow_provider_airis.catalog.system import Option

REOPEN = Option(
    "reopen_within_s",
    "integer",
    "86400",
    "For so many seconds after somebody has closed its ticket, an alert that fires on reopens it; later, or always if "
    "it is 0, a new ticket names the old one.",
)
