"""What the shipped Dags read from ``airflow.cfg``: the options that the catalog declares, with its defaults."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
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


def alerts_conn_id() -> str:
    """The connection of the hub that is asked for alerts."""
    return value("airis", "alerts_conn_id") or BY_STEM["airis"].default_conn_id


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


class ChannelOptions(Mapping[str, Any]):
    """The options that a system's channel has for its own, by name, as they stand whenever one is asked for.

    :param given: over those of ``airflow.cfg``.
    """

    def __init__(self, row: System, given: Mapping[str, Any] | None = None) -> None:
        assert row.channel
        self._stem = row.stem
        self._names = [option.name for option in row.channel.options]
        self._given = given or {}

    def __getitem__(self, name: str) -> Any:
        """As its type says.

        :raises PermanentError: it holds something else.
        """
        if name not in self._names:
            raise KeyError(name)
        given = self._given.get(name)
        return value(self._stem, name) if given is None else given

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def sync_schedule(stem: str) -> DelayedCronDataIntervalTimetable:
    """The schedule of ``airis_sync_<stem>``."""
    from airflow_provider_airis.timetables import DelayedCronDataIntervalTimetable

    return DelayedCronDataIntervalTimetable(value(stem, "schedule"), delay_s=value(stem, "delay_s"))


def reconcile_schedule(stem: str) -> DelayedCronDataIntervalTimetable:
    """The schedule of ``airis_reconcile_<stem>``: whole UTC days, read half an hour after their end at the earliest."""
    from airflow_provider_airis.timetables import DelayedCronDataIntervalTimetable

    return DelayedCronDataIntervalTimetable("0 0 * * *", delay_s=max(1800, value(stem, "delay_s")))
