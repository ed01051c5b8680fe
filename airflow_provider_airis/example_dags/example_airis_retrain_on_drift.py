"""Retrains the models whose data has drifted, and acknowledges the alerts that said so.

Copy it into your Dags, and let `retrain` start what trains your models. It is scheduled by the hub's alerts of the type
`drift` about a model, needs the connection `airis_default`, and may be triggered by hand.
"""

from __future__ import annotations

import logging
from typing import Any

from airflow.sdk import DAG, task

from airflow_provider_airis.assets import alerts, firing, told
from airflow_provider_airis.hooks.airis import AirisHook

DRIFT = alerts("drift", ["alert_type=drift", 'model_id!=""'])

log = logging.getLogger(__name__)

with DAG(
    dag_id="example_airis_retrain_on_drift",
    schedule=[DRIFT],
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=True,
    tags=["airis", "example"],
    doc_md=__doc__,
):

    @task
    def drifted(triggering_asset_events: Any = None) -> list[dict[str, Any]]:
        """Each model with the ids of its alerts."""
        for alert in told(triggering_asset_events):
            log.info("The run was started for the model %s: %s", alert["model_id"], alert["name"])
        # Airflow may leave events for the next run. Whatever fires is to be done, and what was done does not fire.
        models: dict[str, list[str]] = {}
        for alert in firing(DRIFT):
            models.setdefault(alert["model_id"], []).append(alert["id"])
        return [{"model_id": model_id, "alerts": ids} for model_id, ids in models.items()]

    @task(map_index_template="{{ model['model_id'] }}")
    def retrain(model: dict[str, Any]) -> dict[str, Any]:
        """Yours to fill in."""
        log.info("Here the model %s would be trained anew", model["model_id"])
        return model

    @task(map_index_template="{{ model['model_id'] }}")
    def acknowledge(model: dict[str, Any], run_id: Any = None) -> None:
        """Somebody has looked after it: every channel that was told of the alerts shows it."""
        with AirisHook() as hub:
            for alert_id in model["alerts"]:
                hub.acknowledge(alert_id, by="airflow", comment=f"{model['model_id']} was trained anew by {run_id}")

    acknowledge.expand(model=retrain.expand(model=drifted()))
