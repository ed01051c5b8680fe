"""What the operators of ticket systems share: an alert in words."""

from __future__ import annotations

import re

from airflow_provider_airis.operators.deliver import cut
from airflow_provider_airis.operators.texts import cut_lines
from airflow_provider_airis.records import Alert, iso

FIELD_CHARS = 300
_TITLES = {"firing": "{} Alert", "acknowledged": "{} Alert (acknowledged)", "resolved": "Resolved: {} Alert"}


def described(alert: Alert, url: str, most: int) -> str:
    """An alert's state as text of at most so many characters; the description is what is cut."""
    fields = {
        "Alert": alert.name,
        "Severity": alert.severity,
        "Model": alert.model_id or "N/A",
        "Environment": alert.environment or "N/A",
        "Threshold": "N/A" if alert.threshold is None else f"{alert.threshold:,}",
        "Value": "N/A" if alert.current_value is None else f"{alert.current_value:,}",
        "Triggered at": iso(alert.timestamp),
    }
    if alert.acknowledged_by:
        fields["Acknowledged by"] = alert.acknowledged_by
    if alert.status == "resolved":
        fields["Resolved at"] = iso(alert.updated_at)
    lines = [_TITLES[alert.status].format(alert.severity.upper()), ""]
    lines += [f"{name}: {cut(' '.join(value.split()), FIELD_CHARS)}" for name, value in fields.items()]
    head, tail = _clean("\n".join(lines) + "\n\n"), f"\n\nDashboard: {url}"
    return f"{head}{cut_lines(_clean(alert.description) or 'N/A', max(1, most - len(head) - len(tail)))}{tail}"


def _clean(value: str) -> str:
    """Without control characters, which neither XML nor many databases hold; line breaks stay."""
    return re.sub(r"[\x00-\x09\x0b-\x1f\x7f]", " ", value)
