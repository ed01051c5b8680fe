"""The way from a task in Airflow's user interface to the hub.

See https://airflow.apache.org/docs/apache-airflow/stable/howto/define-extra-link.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator


class AirisAlertLink(BaseOperatorLink):
    """The page of the alert that a task is about, or the overview of all if it is about several."""

    name = "AIRIS-MON alert"

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:  # noqa: ARG002
        """The page of the operator's ``alert_id`` at the hub of its ``airis_conn_id``."""
        from airflow_provider_airis.hooks.airis import AirisHook

        alert_id = getattr(operator, "alert_id", None)
        one = isinstance(alert_id, str) and not alert_id.startswith("group-")
        return AirisHook(getattr(operator, "airis_conn_id", None)).dashboard_url(alert_id if one else None)
