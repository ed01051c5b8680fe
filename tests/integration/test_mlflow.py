"""A real MLflow server's registry into a real hub, change by change."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_airis.hooks.airis import AirisHook
from airflow_provider_airis.hooks.mlflow import MLflowHook
from airflow_provider_airis.operators.mlflow import MLflowToAirisOperator
from sandbox.faults import Fault, FaultProxy
from sandbox.mlflow import MLflow
from sandbox.process import Server
from tests.replay import Replay

EVER = {"start": 0, "end": 1 << 52}
_numbers = count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("mlflow")
    with Server("sandbox.mlflow", "--folder", str(folder), "--models", "3", "--versions", "3") as server:
        yield server


@pytest.fixture
def mlflow(server: Server, connect: Callable[..., str]) -> MLflow:
    connect("mlflow_default", conn_type="mlflow", host=server.url)
    return MLflow(server.url)


class Registry:
    """What a hub knows of the server under a name of its own: to the hub it is another registry."""

    def __init__(self) -> None:
        self.name = f"registry-{next(_numbers)}"

    def sync(self, **arguments: Any) -> dict[str, Any]:
        return MLflowToAirisOperator(task_id="sync", registry=self.name, **arguments).execute({})

    def events(self, model: str) -> list[tuple[str, dict[str, Any]]]:
        """Events of a model, oldest first."""
        with AirisHook() as hub:
            found = hub.events(source=f"mlflow-{model}", limit=1000)
        mine = [event for event in found if event["data"]["registry"] == self.name]
        return [(event["event_type"], event["data"]) for event in reversed(mine)]

    def kinds(self, model: str) -> list[str]:
        return [kind for kind, _ in self.events(model)]

    def logged(self, model: str) -> list[dict[str, Any]]:
        with AirisHook() as hub:
            return hub.query("run_metric", source=f"mlflow-{model}", tags={"registry": self.name}, **EVER)


@pytest.fixture
def registry(airis: str) -> Registry:
    return Registry()


@pytest.fixture
def model(mlflow: MLflow) -> str:
    name = f"model-{next(_numbers)}"
    mlflow.model(name)
    return name


def test_a_registry_is_told_once(mlflow, registry):
    assert registry.sync()["rejected"] == 0
    kinds = registry.kinds("churn")
    assert sorted(kinds) == ["model_alias_changed", "model_registered", *["model_version_created"] * 3]
    created = [data for kind, data in registry.events("churn") if kind == "model_version_created"]
    assert [data["version"] for data in created] == ["1", "2", "3"]
    assert all(data["run_id"] and data["status"] == "READY" and data["stage"] == "None" for data in created)
    assert {(series["tags"]["version"], series["tags"]["metric"]) for series in registry.logged("churn")} == {
        (version, metric) for version in "123" for metric in ("accuracy", "loss")
    }
    again = registry.sync()
    assert (again["points"], again["events"]) == (0, 0)
    assert registry.kinds("churn") == kinds


def test_every_kind_of_change_is_an_event(mlflow, registry, model):
    first = mlflow.version(model, {"accuracy": 0.9})
    registry.sync()
    second = mlflow.version(model)
    mlflow.alias(model, "champion", first)
    staged = {"name": model, "version": first, "stage": "Staging", "archive_existing_versions": False}
    mlflow.call("POST", "model-versions/transition-stage", **staged)
    registry.sync()
    mlflow.alias(model, "champion", second)
    mlflow.call("DELETE", "model-versions/delete", name=model, version=first)
    registry.sync()
    mlflow.call("DELETE", "registered-models/alias", name=model, alias="champion")
    registry.sync()
    told = registry.events(model)
    assert [kind for kind, _ in told] == [
        *("model_registered", "model_version_created"),
        *("model_stage_changed", "model_version_created", "model_alias_changed"),
        *("model_version_deleted", "model_alias_changed"),
        "model_alias_changed",
    ]
    moves = [(data["old_version"], data["version"]) for kind, data in told if kind == "model_alias_changed"]
    assert moves == [(None, first), (first, second), (second, None)]
    stage = next(data for kind, data in told if kind == "model_stage_changed")
    assert (stage["old_stage"], stage["stage"]) == ("None", "Staging")


def test_an_alias_that_goes_back_and_forth_is_an_event_each_time(mlflow, registry, model):
    versions = [mlflow.version(model) for _ in range(2)]
    for number in range(5):
        mlflow.alias(model, "champion", versions[number % 2])
        registry.sync()
    moves = [data["version"] for kind, data in registry.events(model) if kind == "model_alias_changed"]
    assert moves == ["1", "2", "1", "2", "1"]


def test_tags_and_descriptions_are_no_change(mlflow, registry, model):
    version = mlflow.version(model)
    registry.sync()
    mlflow.call("POST", "model-versions/set-tag", name=model, version=version, key="k", value="v")
    mlflow.call("PATCH", "model-versions/update", name=model, version=version, description="better")
    assert registry.sync()["events"] == 0


def test_a_model_that_is_gone_and_comes_again(mlflow, registry, model):
    mlflow.version(model)
    mlflow.alias(model, "champion", "1")
    registry.sync()
    mlflow.call("DELETE", "registered-models/delete", name=model)
    registry.sync()
    assert registry.kinds(model)[3:] == ["model_version_deleted", "model_alias_changed", "model_deleted"]
    assert registry.sync()["events"] == 0
    mlflow.model(model)
    registry.sync()
    assert registry.kinds(model)[6:] == ["model_registered"]


def test_a_sync_that_dies_after_the_events_is_repeated_without_a_trace(hub, connect, mlflow, registry, model):
    versions = [mlflow.version(model) for _ in range(2)]
    registry.sync()
    mlflow.alias(model, "champion", versions[0])
    before = registry.kinds(model)
    with FaultProxy(hub.url) as proxy:
        proxy.order(Fault("status", status=401, path="/metrics/batch"))
        connect("unlucky", conn_type="airis", host=proxy.url, password=hub.token)
        with pytest.raises(AirflowFailException, match="401"):
            registry.sync(airis_conn_id="unlucky")
    assert registry.kinds(model) == [*before, "model_alias_changed"]
    assert registry.sync()["duplicates"] == 1
    assert registry.kinds(model) == [*before, "model_alias_changed"]
    assert registry.sync()["events"] == 0


def test_a_model_that_is_made_anew_between_two_syncs_is_another(mlflow, registry, model):
    mlflow.version(model)
    registry.sync()
    mlflow.call("DELETE", "registered-models/delete", name=model)
    mlflow.model(model)
    mlflow.version(model)
    registry.sync()
    first = ["model_registered", "model_version_created"]
    assert registry.kinds(model)[:2] == first
    assert sorted(registry.kinds(model)[2:]) == sorted(["model_deleted", "model_version_deleted", *first])
    assert registry.sync()["events"] == 0


@pytest.mark.parametrize("after", range(3))
def test_a_sync_that_dies_while_it_writes_what_is_known_is_repeated(hub, connect, mlflow, registry, model, after):
    """At the index's first writing, at the document's, at the index's last."""
    first = mlflow.version(model)
    mlflow.version(model)
    with FaultProxy(hub.url) as proxy:
        proxy.order(Fault("status", status=401, method="PUT", path=f"/checkpoints/mlflow%2F{registry.name}", after=after))
        connect("unlucky", conn_type="airis", host=proxy.url, password=hub.token)
        with pytest.raises(AirflowFailException, match="401"):
            registry.sync(airis_conn_id="unlucky", run_metrics=False)
    told = registry.kinds(model)
    assert told.count("model_version_created") == 2
    if after:
        mlflow.call("DELETE", "model-versions/delete", name=model, version=first)
    registry.sync()
    assert registry.kinds(model)[len(told) :] == (["model_version_deleted"] if after == 2 else [])
    assert registry.sync()["events"] == 0


@pytest.mark.parametrize("refused", [False, True])
def test_a_model_that_is_only_not_listed_is_not_deleted(connect, mlflow, registry, model, refused):
    registry.sync()
    listed = mlflow.call("GET", "registered-models/search", max_results=1000)
    listed["registered_models"] = [row for row in listed["registered_models"] if row["name"] != model]
    answers = {
        "registered-models/search": {"json": listed},
        "registered-models/get": {"json": mlflow.call("GET", "registered-models/get", name=model)},
        "model-versions/search": {"json": mlflow.call("GET", "model-versions/search", max_results=1000)},
    }
    if refused:
        answers["registered-models/get"] = {"status": 403, "json": {"error_code": "PERMISSION_DENIED"}}
    exchanges = [
        {"request": {"method": "GET", "path": f"/api/2.0/mlflow/{path}"}, "response": response}
        for path, response in answers.items()
    ]
    with Replay(exchanges) as server:
        connect("hidden", conn_type="mlflow", host=server.url)
        if refused:
            with pytest.raises(AirflowFailException, match=f"{registry.name}/{model}: .*403"):
                registry.sync(mlflow_conn_id="hidden")
        else:
            registry.sync(mlflow_conn_id="hidden")
    assert registry.kinds(model) == ["model_registered"]
    assert registry.sync()["events"] == 0


def test_a_run_that_cannot_be_read_is_named_and_read_again(server, connect, mlflow, registry, model):
    mlflow.version(model, {"accuracy": 0.5})
    with FaultProxy(server.url) as proxy:
        connect("forbidden", conn_type="mlflow", host=proxy.url)
        proxy.order(Fault("status", status=403, path="/runs/get", times=1000))
        with pytest.raises(AirflowFailException, match=f"{registry.name}/{model}/1/run"):
            registry.sync(mlflow_conn_id="forbidden")
        assert registry.kinds(model) == ["model_registered", "model_version_created"]
        assert registry.logged(model) == []
        proxy.clear()
        registry.sync(mlflow_conn_id="forbidden")
    (logged,) = registry.logged(model)
    assert logged["points"][-1][1] == 0.5
    assert registry.kinds(model) == ["model_registered", "model_version_created"]
    assert registry.sync()["events"] == 0


def test_a_run_that_has_not_ended_is_read_until_it_has(mlflow, registry, model):
    version = mlflow.version(model, {"loss": 1.0}, ended=False)
    run = mlflow.call("GET", "model-versions/get", name=model, version=version)["model_version"]["run_id"]
    registry.sync()
    assert registry.sync()["events"] == 0
    later = int(time.time() * 1000) + 1
    values = [
        {"key": key, "value": value, "timestamp": later, "step": 1} for key, value in (("loss", 0.1), ("f1", 0.9))
    ]
    mlflow.call("POST", "runs/log-batch", run_id=run, metrics=values)
    mlflow.call("POST", "runs/update", run_id=run, status="FINISHED", end_time=later)
    registry.sync()
    assert {row["tags"]["metric"]: row["points"][-1][1] for row in registry.logged(model)} == {"loss": 0.1, "f1": 0.9}
    assert registry.sync()["points"] == 0


def test_names_of_any_length_are_told(mlflow, registry):
    name = f"long-{'x' * 235}"
    mlflow.model(name)
    mlflow.version(name)
    assert registry.sync()["rejected"] == 0
    assert sorted(registry.kinds(name)) == ["model_registered", "model_version_created"]


def test_a_run_that_may_not_be_read_delays_nothing_else(server, connect, mlflow, registry, model, monkeypatch):
    registry.sync()
    forbidden = [mlflow.version(model, {"accuracy": 0.5}) for _ in range(2)]
    with FaultProxy(server.url) as proxy:
        connect("forbidden", conn_type="mlflow", host=proxy.url)
        for version in forbidden:
            row = mlflow.call("GET", "model-versions/get", name=model, version=version)["model_version"]
            proxy.order(Fault("status", status=403, path=row["run_id"], times=100))

        def asked() -> int:
            runs = sum("/runs/get" in seen.path for seen in proxy.seen)
            proxy.seen.clear()
            return runs

        def sync(runs: int) -> None:
            with pytest.raises(AirflowFailException, match=f"{registry.name}/{model}/./run"):
                registry.sync(mlflow_conn_id="forbidden")
            assert asked() == runs

        sync(2)
        newer = mlflow.version(model, {"accuracy": 0.75})
        sync(3)
        sync(2)
        with monkeypatch.context() as patched:
            patched.setattr("airflow_provider_airis.operators.mlflow.MOST_AGAIN", 1)
            sync(1)
        proxy.clear()
        assert [series["tags"]["version"] for series in registry.logged(model)] == [newer]
        mlflow.call("DELETE", "model-versions/delete", name=model, version=forbidden[1])
        registry.sync(mlflow_conn_id="forbidden")
        assert asked() == 1
        assert registry.sync(mlflow_conn_id="forbidden")["points"] == 0
        assert asked() == 0
    assert {series["tags"]["version"] for series in registry.logged(model)} == {newer, forbidden[0]}
    assert registry.kinds(model).count("model_version_created") == 3


def test_a_run_that_is_gone_and_numbers_that_are_none_are_counted(mlflow, registry, model):
    mlflow.version(model, {"accuracy": 0.5})
    run = mlflow.call("GET", "model-versions/get", name=model, version="1")["model_version"]["run_id"]
    mlflow.call("POST", "runs/log-metric", run_id=run, key="loss", value="NaN", timestamp=1, step=0)
    before = registry.sync()
    assert before["metrics_skipped"] == 1
    mlflow.call("POST", "model-versions/create", name=model, source="s3://x/y", run_id="0" * 32)
    assert registry.sync()["runs_gone"] == 1


def test_a_registry_that_suddenly_is_empty_deletes_nothing(connect, registry, mlflow):
    registry.sync()
    nothing = {"request": {"method": "GET"}, "response": {"json": {}}}
    with Replay([nothing] * 2) as empty:
        connect("emptied", conn_type="mlflow", host=empty.url)
        with pytest.raises(AirflowFailException, match=r"Refusing to delete: (\d+) of \1 models of .* are missing, more than"):
            registry.sync(mlflow_conn_id="emptied")
    assert "model_deleted" not in registry.kinds("churn")
    assert registry.sync()["events"] == 0


def test_no_change_costs_a_bounded_number_of_calls(server, hub, connect, registry, mlflow):
    with FaultProxy(server.url) as source, FaultProxy(hub.url) as target:
        connect("counted", conn_type="mlflow", host=source.url)
        connect("counting", conn_type="airis", host=target.url, password=hub.token)
        registry.sync(mlflow_conn_id="counted", airis_conn_id="counting")
        source.seen.clear()
        target.seen.clear()
        registry.sync(mlflow_conn_id="counted", airis_conn_id="counting")
    assert [seen.path.partition("?")[0].rsplit("mlflow/")[-1] for seen in source.seen] == [
        "registered-models/search",
        "model-versions/search",
    ]
    mine = f"mlflow%2F{registry.name}"
    asked = [f"{seen.method} {seen.path.rsplit('/', 1)[-1]}" for seen in target.seen]
    # What has just been told is looked at once more.
    assert asked == ["GET capabilities", f"GET {mine}", f"GET {mine}%2F1%2F0"]


def test_names_with_quotes_are_asked_for(mlflow):
    for name in ("it's", 'the "best"'):
        mlflow.model(name)
        mlflow.version(name)
        with MLflowHook() as hook:
            assert [row["version"] for row in hook.versions(model=name)] == ["1"]
    with MLflowHook() as hook:
        assert hook.test_connection()[0]
