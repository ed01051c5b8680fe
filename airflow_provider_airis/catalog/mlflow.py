"""The row of MLflow."""

from __future__ import annotations

from airflow_provider_airis.catalog.system import Connection, EventSpec, Form, MetricSpec, Option, Source, System

ROW = System(
    stem="mlflow",
    prefix="MLflow",
    title="MLflow",
    category="AI/ML platforms",
    summary="what changes in a model registry: models, versions, stages, aliases; the metrics of the versions' runs",
    url="https://mlflow.org/docs/latest/ml/model-registry/",
    connection=Connection(
        "mlflow",
        form=Form(
            title="MLflow",
            relabeling={"host": "Server", "login": "User", "password": "Password or token"},
            placeholders={
                "host": "https://mlflow.example.com",
                "login": "none with a token",
                "password": "may read the registry and the runs",
            },
            hidden=("schema",),
        ),
    ),
    tested_against="a real MLflow server",
    requires=("mlflow-skinny>=3.17",),
    source=Source(
        kind="registry",
        options=(
            Option(
                "connections",
                "list",
                "mlflow_default",
                "Connections of type mlflow, one mapped task each.",
                "mlflow_default, mlflow_research",
                argument="mlflow_conn_id",
                maps=True,
            ),
            Option(
                "max_missing_share",
                "float",
                "0.1",
                "Share of the known models, or versions, that may be missing at once; none is taken of the first five.",
            ),
            Option(
                "max_missing", "integer", "500", "How many known models, or versions, may be missing at once at most."
            ),
            Option(
                "metrics_after_s",
                "integer",
                "0",
                "For how long after a version was made its metrics are read again, for what is logged after its run.",
            ),
        ),
    ),
    metrics=(
        MetricSpec(
            "run_metric",
            "1",
            "A metric of the version's logged model or run, the last value; tag `metric` is its name there.",
            "runs/get:data.metrics",
        ),
        MetricSpec(
            "registered_model_last_updated",
            "ms",
            "When a model was changed last, Unix time; 0 once it is deleted. As the next one, written on a change.",
            "registered-models/search:last_updated_timestamp",
        ),
        MetricSpec(
            "model_alias_version",
            "1",
            "The version that an alias names; 0 once the alias is deleted.",
            "registered-models/search:aliases",
        ),
    ),
    events=(
        EventSpec("model_registered", "A registered model is there."),
        EventSpec("model_deleted", "A registered model is gone, or has another name now."),
        EventSpec("model_version_created", "A version is there, with all that MLflow says of it."),
        EventSpec("model_version_status", "A version's status changed, e.g. from PENDING_REGISTRATION to READY."),
        EventSpec("model_stage_changed", "A version's stage changed; MLflow has deprecated stages for aliases."),
        EventSpec("model_alias_changed", "An alias names another version: `old_version` and `version`, null for none."),
        EventSpec("model_version_deleted", "A version is gone."),
    ),
)
