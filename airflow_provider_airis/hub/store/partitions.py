"""PostgreSQL keeps points in a partition a week, made when the first point of it arrives."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import text

from airflow_provider_airis.hub.store.writer import Transaction

WEEK_MS = 7 * 86_400_000
# What is older than the end of 2014 shares the partition ``points_past``.
FIRST = 2347
# Held while one is made. Nobody waits for anything else then.
_LOCK = text("SELECT pg_advisory_xact_lock(7302741002)")
_EXISTS = text("SELECT to_regclass(:name) IS NOT NULL")


def provide(transaction: Transaction, timestamps: Iterable[int]) -> None:
    """Make the partitions of points that are about to be stored."""
    missing = {timestamp // WEEK_MS for timestamp in timestamps} - transaction.partitions
    wanted = sorted(week for week in missing if week >= FIRST)
    if wanted:
        # In a transaction of its own: attached at once, for all processes, whatever becomes of the points.
        with transaction.connection.engine.begin() as connection:
            connection.execute(_LOCK)
            for week in wanted:
                name = f"points_{week}"
                if connection.scalar(_EXISTS, {"name": name}):
                    continue
                # Unlike CREATE TABLE … PARTITION OF, attaching lets others go on reading and writing.
                connection.exec_driver_sql(f"CREATE TABLE {name} (LIKE points INCLUDING CONSTRAINTS)")
                span = f"FROM ({week * WEEK_MS}) TO ({(week + 1) * WEEK_MS})"
                connection.exec_driver_sql(f"ALTER TABLE points ATTACH PARTITION {name} FOR VALUES {span}")
    transaction.partitions |= missing
