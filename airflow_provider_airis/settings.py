"""What the shipped Dags read from ``airflow.cfg``: the options that the catalog declares, with its defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from airflow.sdk import conf

from airflow_provider_airis.catalog import BY_STEM
from airflow_provider_airis.errors import PermanentError

if TYPE_CHECKING:
    from airflow_provider_airis.timetables import DelayedCronDataIntervalTimetable


# As Airflow reads them.
_FLAGS = dict.fromkeys(("true", "t", "1", "on", "yes"), True) | dict.fromkeys(("false", "f", "0", "off", "no"), False)


def option(stem: str, name: str) -> str:
    """An option of the section ``[airis_<stem>]``, e.g. ``AIRFLOW__AIRIS_SAGEMAKER__REGIONS``.

    :raises KeyError: the catalog declares no such option.
    """
    system = BY_STEM[stem]
    declared = {option.name: option.default for option in system.all_options}
    return str(conf.get(system.section, name, fallback=declared[name]))


def options(stem: str, name: str) -> list[str]:
    """An option that lists several values, separated by commas."""
    return [value.strip() for value in option(stem, name).split(",") if value.strip()]


def flag(stem: str, name: str) -> bool:
    """An option that is on or off.

    :raises PermanentError: it is neither.
    """
    word = option(stem, name).strip().lower()
    if word not in _FLAGS:
        raise PermanentError(f"{name} in section [airis_{stem}] is neither true nor false")
    return _FLAGS[word]


def json_option(stem: str, name: str) -> dict[str, Any]:
    """An option that holds a JSON object.

    :raises PermanentError: it holds something else.
    """
    try:
        return msgspec.json.decode(option(stem, name) or "{}", type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise PermanentError(f"{name} in section [airis_{stem}] is not a JSON object ({error})") from error


def sync_schedule(stem: str) -> DelayedCronDataIntervalTimetable:
    """The schedule of ``airis_sync_<stem>``."""
    from airflow_provider_airis.timetables import DelayedCronDataIntervalTimetable

    return DelayedCronDataIntervalTimetable(option(stem, "schedule"), delay_s=int(option(stem, "delay_s")))


def reconcile_schedule(stem: str) -> DelayedCronDataIntervalTimetable:
    """The schedule of ``airis_reconcile_<stem>``: whole UTC days, read half an hour after their end at the earliest."""
    from airflow_provider_airis.timetables import DelayedCronDataIntervalTimetable

    return DelayedCronDataIntervalTimetable("0 0 * * *", delay_s=max(1800, int(option(stem, "delay_s"))))
