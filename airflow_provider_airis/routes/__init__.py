"""Which receivers an alert reaches, in which group and when: Alertmanager's words and meaning, pure functions.

See https://prometheus.io/docs/alerting/latest/configuration/. Imports no Airflow, opens nothing but the file to read.
"""

from __future__ import annotations

from airflow_provider_airis.records import Shown
from airflow_provider_airis.routes.config import RoutesError
from airflow_provider_airis.routes.groups import Flush, Group, LogKey, Sent, decide, folded, groups, plan
from airflow_provider_airis.routes.matching import InhibitRule, Matcher, Silence, labels, parse_matchers
from airflow_provider_airis.routes.times import TimeInterval, format_duration, parse_duration
from airflow_provider_airis.routes.tree import Integration, Problem, Receiver, Route, Routes, default_text

__all__ = [
    "Flush", "Group", "InhibitRule", "Integration", "LogKey", "Matcher", "Problem", "Receiver", "Route", "Routes",
    "RoutesError", "Sent", "Shown", "Silence", "TimeInterval", "decide", "default_text", "folded", "format_duration",
    "groups", "labels", "parse_duration", "parse_matchers", "plan",
]  # fmt: skip
