from __future__ import annotations

import statistics
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_airis.hub.alerting.rules import Rule, RuleBody, aggregate
from airflow_provider_airis.hub.problems import explain

VALUES = st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=30)


def rule(**fields: Any) -> Rule:
    known = {
        "id": "r",
        "name": "slow",
        "metric": "latency",
        "aggregation": "avg",
        "window_s": 60,
        "comparator": ">",
        "threshold": 1,
        "severity": "high",
    }
    return msgspec.convert(known | fields, Rule)


@given(VALUES)
def test_aggregates(values: list[float]) -> None:
    assert aggregate(values, "avg") == pytest.approx(statistics.fmean(values), abs=1e-3)
    assert aggregate(values, "sum") == pytest.approx(sum(values))
    assert (aggregate(values, "min"), aggregate(values, "max")) == (min(values), max(values))
    assert (aggregate(values, "count"), aggregate(values, "last")) == (len(values), values[-1])
    assert (aggregate(values, "p0"), aggregate(values, "p100")) == (min(values), max(values))
    assert aggregate(values, "p50") == pytest.approx(statistics.median(values), abs=1e-3)


@given(st.lists(st.floats(-1e9, 1e9), min_size=2, max_size=30), st.integers(1, 99))
def test_percentiles_interpolate(values: list[float], percent: int) -> None:
    expected = statistics.quantiles(values, n=100, method="inclusive")[percent - 1]
    assert aggregate(values, f"p{percent}") == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    ("matchers", "source", "matching"),
    [
        ([], None, True),
        ([{"tag": "region", "op": "=", "value": "eu-1"}], None, True),
        ([{"tag": "region", "op": "!=", "value": "eu-1"}], None, False),
        ([{"tag": "region", "op": "=~", "value": "eu"}], None, False),
        ([{"tag": "region", "op": "=~", "value": "eu-.*|us"}], None, True),
        ([{"tag": "none", "op": "=", "value": ""}], None, True),
        ([{"tag": "none", "op": "!=", "value": ""}], None, False),
        ([], {"op": "=", "value": "aws-x"}, True),
        ([], {"op": "=~", "value": "gcp-.*"}, False),
        ([{"tag": "region", "op": "=", "value": "eu-1"}, {"tag": "region", "op": "=", "value": "x"}], None, False),
    ],
)
def test_matching(matchers: list[Any], source: Any, matching: bool) -> None:
    assert rule(matchers=matchers, source=source).matches("aws-x", "latency", {"region": "eu-1"}) is matching
    assert not rule(matchers=matchers, source=source).matches("aws-x", "errors", {"region": "eu-1"})


def test_groups() -> None:
    tags = {"endpoint": "a", "variant": "b", "statistic": "p90", "period_s": "60"}
    assert rule().group("s", tags) == ("s", {"endpoint": "a", "variant": "b"})
    assert rule(by=["endpoint", "none"]).group("s", tags) == ("", {"endpoint": "a"})
    assert rule(by=["source"]).group("s", tags) == ("s", {})


def test_labels_are_filled_in() -> None:
    filled = rule(labels={"model_id": "{endpoint}: {value} of {nobody} {0.__class__}"})
    assert filled.label("model_id", {"endpoint": "a", "value": "3"}) == "a: 3 of {nobody} {0.__class__}"
    assert filled.label("environment", {}) is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("aggregation", "median"),
        ("aggregation", "p101"),
        ("comparator", "~"),
        ("window_s", 0),
        ("for_s", -1),
        ("threshold", "1"),
        ("severity", "bad"),
        ("name", ""),
        ("id", "a/b"),
        ("more", 1),
    ],
)
def test_a_bad_rule_is_refused_with_the_field_named(field: str, value: Any) -> None:
    document = msgspec.to_builtins(rule()) | {field: value}
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(document, RuleBody)
    assert explain(caught.value)[0] == f"/{field}"


def test_a_bad_expression_is_refused_with_its_place() -> None:
    document = msgspec.to_builtins(rule()) | {"matchers": [{"tag": "a", "op": "=~", "value": "("}]}
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(document, RuleBody)
    pointer, detail = explain(caught.value)
    assert pointer == "/matchers/0"
    assert "no regular expression" in detail
