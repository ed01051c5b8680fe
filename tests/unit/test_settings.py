"""The options of the catalog, as the shipped Dags read them."""

from __future__ import annotations

import pytest

from airflow_provider_airis.catalog import BY_STEM, SYSTEMS
from airflow_provider_airis.errors import PermanentError
from airflow_provider_airis.operators.sagemaker import SageMakerToAirisOperator
from airflow_provider_airis.settings import source_arguments, value
from tests.contract.peers import load


@pytest.mark.parametrize(
    ("stem", "name", "text", "meant"),
    [
        ("slack", "target", " #ml-alerts ", "#ml-alerts"),
        ("slack", "linger_s", "12", 12),
        ("slack", "replies", "Off", False),
        ("slack", "severities", "critical, high,", ["critical", "high"]),
        ("slack", "severities", "", []),
        ("mlflow", "max_missing_share", "0.25", 0.25),
        ("jira", "fields", '{"labels": ["ml"]}', {"labels": ["ml"]}),
        ("jira", "fields", "", {}),
    ],
)
def test_an_option_is_what_its_type_says(monkeypatch, stem, name, text, meant):
    monkeypatch.setenv(f"AIRFLOW__AIRIS_{stem.upper()}__{name.upper()}", text)
    assert value(stem, name) == meant


@pytest.mark.parametrize(
    ("stem", "name", "text", "said"),
    [
        ("slack", "linger_s", "soon", "linger_s in section [airis_slack] is not a whole number: 'soon'"),
        ("slack", "replies", "maybe", "replies in section [airis_slack] is neither true nor false: 'maybe'"),
        ("mlflow", "max_missing_share", "10%", "max_missing_share in section [airis_mlflow] is not a number: '10%'"),
        (
            "jira",
            "fields",
            "[]",
            "fields in section [airis_jira] is not a JSON object (Expected `object`, got `array`)",
        ),
    ],
)
def test_what_an_option_cannot_mean_is_refused_by_name(monkeypatch, stem, name, text, said):
    monkeypatch.setenv(f"AIRFLOW__AIRIS_{stem.upper()}__{name.upper()}", text)
    with pytest.raises(PermanentError) as refused:
        value(stem, name)
    assert str(refused.value) == said


def test_an_option_that_nobody_declares_is_none():
    with pytest.raises(KeyError, match="no option 'regoins' of sagemaker"):
        value("sagemaker", "regoins")


def test_options_reach_the_operator_under_its_own_names(monkeypatch):
    monkeypatch.setenv("AIRFLOW__AIRIS_SAGEMAKER__REGIONS", "us-east-1, eu-west-1")
    monkeypatch.setenv("AIRFLOW__AIRIS_SAGEMAKER__LOOKBACK_S", "1800")
    common, mapped = source_arguments(BY_STEM["sagemaker"], "sync")
    assert mapped == {"aws_conn_id": ["aws_default"], "region_name": ["us-east-1", "eu-west-1"]}
    assert common["lookback_s"] == 1800
    tasks = SageMakerToAirisOperator.mapped(common, mapped)
    assert tasks == [{"aws_conn_id": "aws_default", "region_name": name} for name in ("us-east-1", "eu-west-1")]
    assert "lookback_s" not in source_arguments(BY_STEM["sagemaker"], "reconcile")[0]


def test_what_is_empty_is_left_to_the_operator_and_a_list_that_is_empty_maps_one_task():
    assert "base_dn" not in source_arguments(BY_STEM["active_directory"], "sync")[0]
    assert source_arguments(BY_STEM["vertex_ai"], "sync")[1] == {"project_id": [None]}


@pytest.mark.parametrize("system", [system for system in SYSTEMS if system.source], ids=lambda system: system.stem)
def test_every_default_is_what_its_operator_takes(system):
    for dag in {"sync", "reconcile"} & system.dags.keys():
        common, mapped = source_arguments(system, dag)
        operator = load(system.collect_class)
        for row in operator.mapped(common, mapped):
            operator(task_id="any", **common, **row, **((system.source.reconcile or {}) if dag == "reconcile" else {}))
