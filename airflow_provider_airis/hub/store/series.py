"""Series: what identifies one, and its id."""

from __future__ import annotations

from typing import TYPE_CHECKING

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


class SeriesCache:
    """The ids of series that were seen lately. Belongs to the writer's thread.

    :ivar known: (source, name, undecoded tags) → id and unit.
    """

    def __init__(self) -> None:
        self.known: dict[SeriesKey, tuple[int, str]] = {}

    def resolve(self, transaction: Transaction, source: str, name: str, unit: str, tags: bytes) -> int:
        """The id of a series, which is new or not.

        :raises Refused: it may not be stored.
        """
        connection = transaction.connection
        ref = SeriesRef(source, name, check_series(source, name, unit, tags), unit)
        canonical = msgspec.json.encode(ref.tags, order="sorted").decode()
        key = {"source": source, "name": name, "tags": canonical}
        table = db.series.c
        same = select(table.id, table.unit).where(
            (table.source == source) & (table.name == name) & (table.tags == canonical)
        )
        row = connection.execute(same).first()
        if row is None:
            # One process at a time: readers may rely on series being committed in the order of their ids.
            feeds.lock(transaction, "series")
            sql.insert_missing(connection, db.series, {**key, "unit": unit})
            row = connection.execute(same).one()
        elif row.unit != unit:
            connection.execute(update(db.series).where(table.id == row.id).values(unit=unit))
        series_id: int = row.id
        transaction.evaluator.add(series_id, ref)
        transaction.cached = True
        if len(self.known) >= _KNOWN:
            self.known.clear()
        self.known[source, name, tags] = series_id, unit
        return series_id

    def forget(self) -> None:
        """What was cached may have been undone."""
        self.known.clear()


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
