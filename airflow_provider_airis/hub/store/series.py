"""Series: what identifies one, and its id."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from sqlalchemy import Connection, select, update

from airflow_provider_airis.hub.ingest import SeriesKey, check_series
from airflow_provider_airis.hub.store import feeds, sql
from airflow_provider_airis.hub.store import tables as db

if TYPE_CHECKING:
    from airflow_provider_airis.hub.store.writer import Transaction

_KNOWN = 200_000


class SeriesRef(msgspec.Struct, frozen=True):
    """A series, by what identifies it, and its unit."""

    source: str
    name: str
    tags: dict[str, str]
    unit: str = ""


class Cached(NamedTuple):
    """What the cache holds of a series that a transaction has made or changed.

    :param new: whether it was not there for this process before.
    """

    series_id: int
    source: str
    name: str
    tags: bytes
    canonical: str
    new: bool


class SeriesCache:
    """The ids of series that were seen lately. Belongs to the writer's thread.

    :ivar known: (source, name, undecoded tags) → id and unit.
    """

    def __init__(self) -> None:
        self.known: dict[SeriesKey, tuple[int, str]] = {}
        self._sources: dict[str, dict[tuple[str, str], tuple[int, str]]] = {}

    def resolve(self, transaction: Transaction, source: str, name: str, unit: str, tags: bytes) -> int:
        """The id of a series, which is new or not.

        :raises Refused: it may not be stored.
        """
        ref = SeriesRef(source, name, check_series(source, name, unit, tags), unit)
        canonical = msgspec.json.encode(ref.tags, order="sorted").decode()
        if len(self.known) >= _KNOWN:
            self.forget()
        held = self._sources.get(source)
        if held is None:
            held = self._sources[source] = _of_source(transaction.connection, source)
        found = held.get((name, canonical))
        series_id, had = found or _make(transaction, ref, canonical)
        if had != unit:
            transaction.connection.execute(update(db.series).where(db.series.c.id == series_id).values(unit=unit))
        if found is None or had != unit or series_id in transaction.made:
            transaction.made.add(series_id)
            transaction.cached.append(Cached(series_id, source, name, tags, canonical, new=found is None))
        transaction.evaluator.add(series_id, ref)
        held[name, canonical] = self.known[source, name, tags] = series_id, unit
        return series_id

    def undo(self, cached: Iterable[Cached]) -> None:
        """What a transaction cached of its own doing is not so."""
        for entry in cached:
            self.known.pop((entry.source, entry.name, entry.tags), None)
            self._sources.get(entry.source, {}).pop((entry.name, entry.canonical), None)

    def forget(self) -> None:
        """Make room: what is needed is read again."""
        self.known.clear()
        self._sources.clear()


def _of_source(connection: Connection, source: str) -> dict[tuple[str, str], tuple[int, str]]:
    """All series of a source, so that nobody has to ask for each of them."""
    table = db.series.c
    query = select(table.name, table.tags, table.id, table.unit).where(table.source == source).limit(_KNOWN)
    return {(name, tags): (series_id, unit) for name, tags, series_id, unit in connection.execute(query)}


def _make(transaction: Transaction, ref: SeriesRef, canonical: str) -> tuple[int, str]:
    """Id and unit of a series that was not there when its source was read; another process may have made it since."""
    # One process at a time: readers may rely on series being committed in the order of their ids.
    feeds.lock(transaction, "series")
    row = {"source": ref.source, "name": ref.name, "tags": canonical, "unit": ref.unit}
    series_id = sql.insert_missing(transaction.connection, db.series, row)
    if series_id is not None:
        return series_id, ref.unit
    table = db.series.c
    same = (table.source == ref.source) & (table.name == ref.name) & (table.tags == canonical)
    found = transaction.connection.execute(select(table.id, table.unit).where(same)).one()
    return found.id, found.unit


def find(
    connection: Connection, *, name: str | None = None, source: str | None = None, tags: dict[str, str] | None = None
) -> dict[int, SeriesRef]:
    """The series that are meant, by id.

    :param tags: which a series must have, among others.
    """
    table = db.series.c
    query = select(db.series)
    if name is not None:
        query = query.where(table.name == name)
    if source is not None:
        query = query.where(table.source == source)
    found = {}
    for row in connection.execute(query):
        held = msgspec.json.decode(row.tags, type=dict[str, str])
        if (tags or {}).items() <= held.items():
            found[row.id] = SeriesRef(row.source, row.name, held, row.unit)
    return found
