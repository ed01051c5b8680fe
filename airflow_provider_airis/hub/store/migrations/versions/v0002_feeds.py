"""Feeds whose rows' locks make the order of commits the order of their sequences; on PostgreSQL points by time."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_WEEK_MS = 7 * 86_400_000
_FIRST = 2347 * _WEEK_MS  # 2014-12-25; what is older shares one partition


def upgrade() -> None:
    """Number the feeds on from where they are."""
    feeds = op.create_table(
        "feeds",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    connection = op.get_bind()
    for name, table in (("alerts", "alert_changes"), ("events", "events"), ("rules", "")):
        end = connection.scalar(sa.text(f"SELECT max(sequence) FROM {table}")) if table else 0  # noqa: S608
        connection.execute(sa.insert(feeds), {"name": name, "sequence": end or 0})
    if connection.dialect.name == "postgresql":
        _partition(connection)


def _partition(connection: sa.Connection) -> None:
    op.execute("ALTER TABLE points RENAME TO points_before")
    op.execute("ALTER INDEX points_pkey RENAME TO points_before_pkey")
    op.execute(
        "CREATE TABLE points (series_id BIGINT NOT NULL, timestamp BIGINT NOT NULL, value DOUBLE PRECISION NOT NULL, "
        "PRIMARY KEY (series_id, timestamp)) PARTITION BY RANGE (timestamp)"
    )
    op.execute(f"CREATE TABLE points_past PARTITION OF points FOR VALUES FROM (MINVALUE) TO ({_FIRST})")
    weeks = connection.scalars(
        sa.text("SELECT DISTINCT timestamp / :week FROM points_before WHERE timestamp >= :first"),
        {"week": _WEEK_MS, "first": _FIRST},
    )
    for week in weeks.all():
        start, end = week * _WEEK_MS, (week + 1) * _WEEK_MS
        op.execute(f"CREATE TABLE points_{week} PARTITION OF points FOR VALUES FROM ({start}) TO ({end})")
    op.execute("INSERT INTO points SELECT series_id, timestamp, value FROM points_before")
    op.execute("DROP TABLE points_before")
