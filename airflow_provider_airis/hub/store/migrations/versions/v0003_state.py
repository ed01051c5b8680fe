"""The readers' state: checkpoints, leases, wake-up times."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_EXACT = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    """Add them."""
    op.add_column(
        "consumers",
        sa.Column("wake_at", sa.BigInteger(), comment="when the reader wants to be woken, though nothing came"),
    )
    op.create_table(
        "checkpoints",
        sa.Column("name", _EXACT, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("value", sa.Text(), comment="JSON; null once deleted, so that the version goes on growing"),
        sa.Column("size", sa.Integer(), nullable=False, comment="bytes of the value"),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_index(
        "checkpoints_deleted",
        "checkpoints",
        ["updated_at"],
        sqlite_where=sa.text("value IS NULL"),
        postgresql_where=sa.text("value IS NULL"),
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("holder", sa.String(), nullable=False),
        sa.Column("token", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False, comment="0 once it was given back"),
        sa.PrimaryKeyConstraint("name"),
    )
