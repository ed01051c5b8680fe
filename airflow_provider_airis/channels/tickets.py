"""What ticket systems have in common: one ticket an alert, found again, told of its changes, closed with it."""

from __future__ import annotations

from airflow_provider_airis.channels.texts import cut, cut_lines
from airflow_provider_airis.channels.view import AlertView

FIELD_CHARS = 300


def described(view: AlertView, most: int) -> str:
    """An alert's state as text of at most so many characters; the description is what is cut."""
    fields = {**view.facts, **view.measured, **view.history}
    lines = [view.title, "", *(f"{name}: {cut(value, FIELD_CHARS)}" for name, value in fields.items()), "", ""]
    head, tail = "\n".join(lines), f"\n\nDashboard: {view.url}"
    return f"{head}{cut_lines(view.description, max(1, most - len(head) - len(tail)))}{tail}"
