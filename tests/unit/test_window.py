"""Which window a run reads: the explicit one, its data interval, or the last full period that is published."""

from types import SimpleNamespace

import pendulum
import pytest

from airflow_provider_airis.errors import PermanentError
from airflow_provider_airis.sources.base import CollectOperator


class Probe(CollectOperator):
    """Published 120 s after the end of each minute, as the catalog's row says."""

    system = "sagemaker"

    def collect(self, window):
        yield from ()


def at(text: str) -> pendulum.DateTime:
    return pendulum.parse(f"2026-11-20T{text}Z")


def window(context, **arguments) -> str:
    return str(Probe(task_id="probe", **arguments).window(context))


def test_a_scheduled_run_reads_its_data_interval_whenever_it_runs():
    interval = {"data_interval_start": at("10:00:00"), "data_interval_end": at("10:05:00")}
    late = SimpleNamespace(run_after=at("18:00:00"), conf=None)
    assert window(interval | {"dag_run": late}) == "[2026-11-20T10:00:00Z, 2026-11-20T10:05:00Z)"


def test_a_run_without_an_interval_reads_the_last_full_period_that_is_published():
    run = SimpleNamespace(run_after=at("10:07:30"), conf=None)
    assert window({"dag_run": run}) == "[2026-11-20T10:04:00Z, 2026-11-20T10:05:00Z)"


def test_an_interval_of_no_length_is_no_interval():
    moment = {"data_interval_start": at("10:07:30"), "data_interval_end": at("10:07:30")}
    run = SimpleNamespace(run_after=at("10:07:30"), conf=None)
    assert window(moment | {"dag_run": run}) == "[2026-11-20T10:04:00Z, 2026-11-20T10:05:00Z)"


def test_the_runs_configuration_wins_over_its_interval_and_an_explicit_window_over_both():
    interval = {"data_interval_start": at("10:00:00"), "data_interval_end": at("10:05:00")}
    run = SimpleNamespace(run_after=at("10:07:30"), conf={"start": "2026-11-03T00:00:00Z", "end": "2026-11-04T00:00Z"})
    assert window(interval | {"dag_run": run}) == "[2026-11-03T00:00:00Z, 2026-11-04T00:00:00Z)"
    asked = {"start": "2026-11-01T00:00:00Z", "end": "2026-11-01T01:00:00Z"}
    assert window(interval | {"dag_run": run}, **asked) == "[2026-11-01T00:00:00Z, 2026-11-01T01:00:00Z)"


@pytest.mark.parametrize(
    "conf", [{"start": "2026-11-03T00:00:00Z"}, {"start": 1793664000, "end": 1793750400}, {"start": "3", "end": "4"}]
)
def test_a_configuration_that_names_no_window_is_refused(conf):
    with pytest.raises(PermanentError, match="start"):
        window({"dag_run": SimpleNamespace(run_after=at("10:07:30"), conf=conf)})


def test_an_explicit_window_wins_and_is_read_in_utc():
    interval = {"data_interval_start": at("10:00:00"), "data_interval_end": at("10:05:00")}
    asked = {"start": "2026-11-01T00:00:00Z", "end": "2026-11-01T02:00:00+01:00"}
    assert window(interval, **asked) == "[2026-11-01T00:00:00Z, 2026-11-01T01:00:00Z)"


def test_a_window_begins_earlier_by_what_it_looks_back():
    interval = {"data_interval_start": at("10:00:00"), "data_interval_end": at("10:05:00")}
    assert window(interval, lookback_s=900) == "[2026-11-20T09:45:00Z, 2026-11-20T10:05:00Z)"


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"start": "2026-11-01T00:00:00Z"}, "give both start and end"),
        ({"start": "yesterday", "end": "2026-11-01T00:00:00Z"}, "start='yesterday' is not an ISO 8601 time"),
        (
            {"start": "2026-11-01T00:00:00", "end": "2026-11-02T00:00:00Z"},
            "start='2026-11-01T00:00:00' has no time zone",
        ),
        ({"start": "2026-11-02T00:00:00Z", "end": "2026-11-01T00:00:00Z"}, "start must be before end"),
        ({"start": "2026-11-01T00:00:00Z", "end": "2026-11-01T00:00:00Z"}, "start must be before end"),
    ],
)
def test_a_window_that_makes_no_sense_is_refused_with_the_field_named(asked, told):
    with pytest.raises(PermanentError, match=told):
        window({}, **asked)
