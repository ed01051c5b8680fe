"""What a real MLflow server can show: logged models, deletions while it is read, names, tags, times."""

# ruff: noqa: F811 (fixtures)

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_airis.hooks.airis import AirisHook
from airflow_provider_airis.records import Metric
from airflow_provider_airis.sources.mlflow import reading
from airflow_provider_airis.sources.registry import RegistryState, state_name
from sandbox.faults import Fault, FaultProxy
from tests.integration.test_mlflow import EVER, Registry, mlflow, model, registry, server  # noqa: F401 (fixtures)


class Between(FaultProxy):
    """Does something once, when the second page of a listing is asked for."""

    def __init__(self, upstream: str, listing: str, action: Callable[[], None]) -> None:
        self.listing = listing
        self.action: Callable[[], None] | None = action
        super().__init__(upstream)

    def due(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Fault | None:
        if self.action and self.listing in path and "page_token" in path:
            action, self.action = self.action, None
            action()
        return super().due(method, path, headers, body)


@pytest.fixture
def pages_of_two(monkeypatch):
    monkeypatch.setattr(reading, "PAGE", 2)
    monkeypatch.setattr("airflow_provider_airis.hooks.mlflow.PAGE", 2)


def log(mlflow: Any, run: str, model_id: str, **values: float) -> None:
    now = int(time.time() * 1000)
    metrics = [{"key": key, "value": value, "timestamp": now, "step": 0} for key, value in values.items()]
    mlflow.call("POST", "runs/log-batch", run_id=run, metrics=[{**each, "model_id": model_id} for each in metrics])


def logged_models(mlflow: Any, count: int) -> tuple[str, list[str]]:
    """A run, and models that it has logged."""
    now = int(time.time() * 1000)
    run = mlflow.call("POST", "runs/create", experiment_id="0", start_time=now)["run"]["info"]["run_id"]
    made = [
        mlflow.call("POST", "logged-models", experiment_id="0", name=f"m{number}", source_run_id=run)["model"]
        for number in range(count)
    ]
    ids = [each["info"]["model_id"] for each in made]
    mlflow.call("POST", "runs/outputs", run_id=run, models=[{"model_id": one, "step": 0} for one in ids])
    return run, ids


def ended(mlflow: Any, run: str) -> None:
    mlflow.call("POST", "runs/update", run_id=run, status="FINISHED", end_time=int(time.time() * 1000))


def by_version(registry: Registry, model: str) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for series in registry.logged(model):
        found.setdefault(series["tags"]["version"], {})[series["tags"]["metric"]] = series["points"][-1][1]
    return found


def test_each_version_has_the_metrics_of_its_own_logged_model(mlflow, registry, model):
    run, (one, other) = logged_models(mlflow, 2)
    log(mlflow, run, one, accuracy=0.7, eval_f1=0.55)
    log(mlflow, run, other, accuracy=0.9)
    ended(mlflow, run)
    for model_id, its in ((one, {"run_id": run}), (other, {"run_id": run}), (one, {})):
        source = f"models:/{model_id}"
        mlflow.call("POST", "model-versions/create", name=model, source=source, model_id=model_id, **its)
    registry.sync()
    first = {"accuracy": 0.7, "eval_f1": 0.55}
    assert by_version(registry, model) == {"1": first, "2": {"accuracy": 0.9}, "3": first}
    assert registry.sync()["points"] == 0


def test_a_run_speaks_for_its_only_logged_model(mlflow, registry, model):
    """What was logged without naming the model is that model's, too."""
    run, (only,) = logged_models(mlflow, 1)
    log(mlflow, run, only, accuracy=0.7)
    now = int(time.time() * 1000)
    for key, value in (("accuracy", 0.1), ("loss", 0.2)):
        mlflow.call("POST", "runs/log-metric", run_id=run, key=key, value=value, timestamp=now, step=0)
    ended(mlflow, run)
    its = {"source": f"models:/{only}", "model_id": only, "run_id": run}
    mlflow.call("POST", "model-versions/create", name=model, **its)
    registry.sync()
    assert by_version(registry, model) == {"1": {"accuracy": 0.7, "loss": 0.2}}


def test_what_is_logged_after_the_run_has_ended_is_read_for_as_long_as_is_said(mlflow, registry, model):
    version = mlflow.version(model, {"accuracy": 0.5})
    registry.sync(metrics_after_s=3600)
    run = mlflow.call("GET", "model-versions/get", name=model, version=version)["model_version"]["run_id"]
    later = int(time.time() * 1000) + 1
    mlflow.call("POST", "runs/log-metric", run_id=run, key="late", value=0.75, timestamp=later, step=0)
    registry.sync(metrics_after_s=3600)
    assert by_version(registry, model) == {version: {"accuracy": 0.5, "late": 0.75}}


def test_versions_deleted_between_two_pages_of_a_model_hide_no_others(
    server,
    connect,
    mlflow,
    registry,
    model,
    pages_of_two,
):
    for _ in range(6):
        mlflow.version(model)
    registry.sync(run_metrics=False)
    mlflow.version(model)

    def delete() -> None:
        for version in ("7", "6"):  # on the page that was read, so that 5 and 4 move there
            mlflow.call("DELETE", "model-versions/delete", name=model, version=version)

    with Between(server.url, "filter=", delete) as proxy:
        connect("between", conn_type="mlflow", host=proxy.url)
        registry.sync(mlflow_conn_id="between", run_metrics=False)
        assert proxy.action is None
    registry.sync(run_metrics=False)
    deleted = [data["version"] for kind, data in registry.events(model) if kind == "model_version_deleted"]
    assert sorted(deleted) == ["6", "7"]


def test_versions_deleted_between_two_pages_of_all_hide_no_others(
    server,
    connect,
    mlflow,
    registry,
    model,
    pages_of_two,
):
    for _ in range(5):
        mlflow.version(model)

    def delete() -> None:
        for version in ("5", "4"):
            mlflow.call("DELETE", "model-versions/delete", name=model, version=version)

    with Between(server.url, "model-versions/search", delete) as proxy:
        connect("between", conn_type="mlflow", host=proxy.url)
        registry.sync(mlflow_conn_id="between", run_metrics=False)
        assert proxy.action is None
    created = [data["version"] for kind, data in registry.events(model) if kind == "model_version_created"]
    assert set(created) >= {"1", "2", "3"}
    registry.sync(run_metrics=False)
    deleted = {data["version"] for kind, data in registry.events(model) if kind == "model_version_deleted"}
    assert deleted == set(created) - {"1", "2", "3"}


def test_a_version_that_cannot_be_asked_for_is_asked_for_again(server, connect, mlflow, registry, model):
    for _ in range(2):
        mlflow.version(model)
    registry.sync()
    mlflow.call("DELETE", "model-versions/delete", name=model, version="1")
    with FaultProxy(server.url) as proxy:
        connect("forbidden", conn_type="mlflow", host=proxy.url)
        proxy.order(Fault("status", status=403, path="/model-versions/get", times=1000))
        for _ in range(2):
            with pytest.raises(AirflowFailException, match=f"{registry.name}/{model}/1: .*403"):
                registry.sync(mlflow_conn_id="forbidden")
        assert "model_version_deleted" not in registry.kinds(model)
        proxy.clear()
        registry.sync(mlflow_conn_id="forbidden")
    assert registry.kinds(model).count("model_version_deleted") == 1


@pytest.mark.parametrize("name", ["it's", 'the "best"', """it's "x" 100%""", "größe prod?&=#", "x" * 256])
def test_any_name_is_told_beside_the_others(mlflow, registry, model, name):
    mlflow.model(name)
    try:
        mlflow.version(name)
        registry.sync()
        mlflow.version(name)
        assert registry.sync()["rejected"] == 0
        with AirisHook() as hub:
            found = [event for event in hub.events(limit=1000) if event["data"].get("model_name") == name]
        mine = [event["event_type"] for event in found if event["data"]["registry"] == registry.name]
        assert sorted(mine) == ["model_registered", "model_version_created", "model_version_created"]
        assert len({event["source"] for event in found}) == 1
    finally:
        mlflow.call("DELETE", "registered-models/delete", name=name)


def test_megabytes_of_tags_lose_nothing_else(mlflow, registry, model):
    version = mlflow.version(model)
    for number in range(130):
        mlflow.call("POST", "model-versions/set-tag", name=model, version=version, key=f"k{number}", value="x" * 90_000)
    mlflow.call("POST", "model-versions/set-tag", name=model, version=version, key="owner", value="ml")
    assert registry.sync()["rejected"] == 0
    (created,) = [data for kind, data in registry.events(model) if kind == "model_version_created"]
    assert (created["tags"], created["tags_left_out"]) == ({"owner": "ml"}, 130)


def test_metrics_of_any_time_arrive_and_infinity_is_skipped(mlflow, registry, model):
    version = mlflow.version(model)
    run = mlflow.call("GET", "model-versions/get", name=model, version=version)["model_version"]["run_id"]
    end = int(mlflow.call("GET", "runs/get", run_id=run)["run"]["info"]["end_time"])
    now = end - 1_000
    logged = {
        "ms": (now, 0.1),
        "ns": (now * 1_000_000, 0.2),
        "us": (now * 1_000, 0.3),
        "s": (now // 1_000, 0.4),
        "step": (7, 0.5),
        "endless": (now, "Infinity"),
        "minus": (now, "-Infinity"),
        "nan": (now, "NaN"),
    }
    for key, (at, value) in logged.items():
        mlflow.call("POST", "runs/log-metric", run_id=run, key=key, value=value, timestamp=at, step=0)
    summary = registry.sync()
    assert (summary["metrics_skipped"], summary["rejected"]) == (3, 0)
    found = {series["tags"]["metric"]: series["points"] for series in registry.logged(model)}
    second = now // 1_000 * 1_000
    assert found == {
        "ms": [[now, 0.1]],
        "ns": [[now, 0.2]],
        "us": [[now, 0.3]],
        "s": [[second, 0.4]],
        "step": [[end, 0.5]],
    }


def test_watched_tags_are_events(mlflow, registry, model):
    version = mlflow.version(model)

    def tag(value: str | None) -> None:
        if value is None:
            mlflow.call("DELETE", "model-versions/delete-tag", name=model, version=version, key="validation_status")
        else:
            its = {"name": model, "version": version, "key": "validation_status", "value": value}
            mlflow.call("POST", "model-versions/set-tag", **its)

    registry.sync(watched_tags=["validation_status"])
    for value in ("pending", "passed", "pending", None, "passed"):
        tag(value)
        registry.sync(watched_tags=["validation_status"])
        assert registry.sync(watched_tags=["validation_status"])["events"] == 0
    mlflow.call("POST", "model-versions/set-tag", name=model, version=version, key="other", value="x")
    moves = [(data["old_value"], data["value"]) for kind, data in registry.events(model) if "tag" in kind]
    assert moves == [
        (None, "pending"),
        ("pending", "passed"),
        ("passed", "pending"),
        ("pending", None),
        (None, "passed"),
    ]
    mlflow.call("DELETE", "model-versions/delete", name=model, version=version)
    registry.sync(watched_tags=["validation_status"])
    assert registry.kinds(model)[-1] == "model_version_deleted"


def test_what_a_hub_was_told_before_there_were_checkpoints_is_not_told_again(mlflow, registry, model):
    first, second = mlflow.version(model), mlflow.version(model, {"loss": 0.5})
    mlflow.alias(model, "champion", second)
    rows = {
        row["version"]: row
        for row in mlflow.call("GET", "model-versions/search", filter=f"name='{model}'")["model_versions"]
    }
    updated = mlflow.call("GET", "registered-models/get", name=model)["registered_model"]["last_updated_timestamp"]
    at = int(time.time() * 1000) - 1_000
    tags = {"registry": registry.name, "model_name": model}

    def known(name: str, value: float, unit: str, when: int = at, **more: str) -> Metric:
        return Metric(f"mlflow-{model}", name, value, unit, {**tags, **more}, when)

    with AirisHook() as hub:
        version = "model_version_last_updated"
        hub.ingest(
            [
                known("registered_model_last_updated", updated, "ms"),
                known("model_alias_version", 1, "1", at - 10, alias="champion"),
                known("model_alias_version", 2, "1", alias="champion"),
                known(version, 1, "ms", at - 10, version=first, status="PENDING_REGISTRATION", stage="None"),
                known(
                    version, rows[first]["last_updated_timestamp"], "ms", version=first, status="READY", stage="None"
                ),
                known(
                    version, rows[second]["last_updated_timestamp"], "ms", version=second, status="READY", stage="None"
                ),
                known("model_version_run_unread", 1, "1", version=second, run_id=rows[second]["run_id"]),
            ]
        )
    registry.sync()
    assert registry.kinds(model) == []
    assert by_version(registry, model) == {second: {"loss": 0.5}}
    mlflow.alias(model, "champion", first)
    mlflow.call("DELETE", "model-versions/delete", name=model, version=second)
    with AirisHook() as hub:
        assert not RegistryState(hub.checkpoints, state_name("mlflow", registry.name)).is_new
    registry.sync()
    assert registry.kinds(model) == ["model_version_deleted", "model_alias_changed"]


def test_a_lost_checkpoint_doubles_nothing(mlflow, registry, model):
    version = mlflow.version(model)
    mlflow.alias(model, "champion", version)
    registry.sync()
    told = registry.kinds(model)
    with AirisHook() as hub:
        for found in list(hub.checkpoints.list(state_name("mlflow", registry.name))):
            hub.checkpoints.delete(found.name)
        # As if the hub had never been told by metrics either.
        hub.query("registered_model_last_updated", source=f"mlflow-{model}", **EVER)
    registry.sync()
    assert registry.kinds(model) == told


def test_the_four_calls_of_a_plain_hub_are_enough(document, variables, mlflow, model):
    """What is known is kept by Airflow then: two Variables, however many models a small registry has."""
    registry = Registry()
    mlflow.alias(model, "champion", mlflow.version(model, {"accuracy": 0.5}))

    def told() -> list[tuple[str, str]]:
        events = [body["data"] | {"kind": body["event_type"]} for body in document.taken()["events"]]
        return sorted((each["kind"], each["model_name"]) for each in events if each["registry"] == registry.name)

    registry.sync()
    first = told()
    mine = ["model_alias_changed", "model_registered", "model_version_created"]
    assert [kind for kind, name in first if name == model] == mine
    assert len(variables) == 2
    assert registry.sync()["events"] == 0
    mlflow.alias(model, "challenger", "1")
    registry.sync()
    assert told() == sorted([*first, ("model_alias_changed", model)])
    assert len(variables) == 2
