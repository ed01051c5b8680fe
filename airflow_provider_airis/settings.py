"""What the shipped Dags read from ``airflow.cfg``: the options that the catalog declares, with its defaults."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from airflow.sdk import conf

from airflow_provider_airis.catalog import BY_STEM
from airflow_provider_airis.errors import PermanentError

if TYPE_CHECKING:
    from airflow_provider_airis.catalog import System
    from airflow_provider_airis.timetables import DelayedCronDataIntervalTimetable


# As Airflow reads them.
_FLAGS = dict.fromkeys(("true", "t", "1", "on", "yes"), True) | dict.fromkeys(("false", "f", "0", "off", "no"), False)


def value(stem: str, name: str) -> Any:
    """An option of the section ``[airis_<stem>]``, e.g. ``AIRFLOW__AIRIS_SAGEMAKER__REGIONS``, as its type says.

    :raises KeyError: the catalog declares no such option.
    :raises PermanentError: it holds something else; names section and option.
    """
    system = BY_STEM[stem]
    declared = next((option for option in system.all_options if option.name == name), None)
    if declared is None:
        raise KeyError(f"the catalog declares no option {name!r} of {stem}")
    text = str(conf.get(system.section, name, fallback=declared.default)).strip()
    what, read = _TYPES[declared.type]
    try:
        return read(text)
    except (KeyError, ValueError, msgspec.MsgspecError) as error:
        reason = f" ({error})" if isinstance(error, msgspec.MsgspecError) else f": {text!r}"
        raise PermanentError(f"{name} in section [{system.section}] is {what}{reason}") from error


_TYPES: dict[str, tuple[str, Callable[[str], Any]]] = {
    "string": ("no text", str),
    "integer": ("not a whole number", int),
    "float": ("not a number", float),
    "boolean": ("neither true nor false", lambda text: _FLAGS[text.lower()]),
    "list": ("no list", lambda text: [item.strip() for item in text.split(",") if item.strip()]),
    "json": ("not a JSON object", lambda text: msgspec.json.decode(text or "{}", type=dict[str, Any])),
}


def source_arguments(system: System, dag: Literal["sync", "reconcile"]) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """The configured arguments of a source's operator in one of its Dags: those of every task, and those that map.

    What is empty is left to the operator's own default. An argument that maps over nothing has one task, with None.
    """
    common: dict[str, Any] = {}
    mapped: dict[str, list[Any]] = {}
    assert system.source
    for option in system.source.options:
        if option.only not in ("", dag):
            continue
        given = value(system.stem, option.name)
        if option.maps:
            mapped[option.argument or option.name] = given or [None]
        elif given != "":
            common[option.argument or option.name] = given
    return common, mapped


def option(stem: str, name: str) -> str:
    """An option that is text."""
    return str(value(stem, name))


def options(stem: str, name: str) -> list[str]:
    """An option that lists several values, separated by commas."""
    listed: list[str] = value(stem, name)
    return listed


def flag(stem: str, name: str) -> bool:
    """An option that is on or off."""
    return bool(value(stem, name))


def json_option(stem: str, name: str) -> dict[str, Any]:
    """An option that holds a JSON object."""
    read: dict[str, Any] = value(stem, name)
    return read


def sync_schedule(stem: str) -> DelayedCronDataIntervalTimetable:
    """The schedule of ``airis_sync_<stem>``."""
    from airflow_provider_airis.timetables import DelayedCronDataIntervalTimetable

    return DelayedCronDataIntervalTimetable(value(stem, "schedule"), delay_s=value(stem, "delay_s"))


def reconcile_schedule(stem: str) -> DelayedCronDataIntervalTimetable:
    """The schedule of ``airis_reconcile_<stem>``: whole UTC days, read half an hour after their end at the earliest."""
    from airflow_provider_airis.timetables import DelayedCronDataIntervalTimetable

    return DelayedCronDataIntervalTimetable("0 0 * * *", delay_s=max(1800, value(stem, "delay_s")))
