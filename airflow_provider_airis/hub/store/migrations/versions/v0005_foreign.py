"""Alerts of other systems, and who may post them signed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add them."""
    op.create_table(
        "origins",
        sa.Column("system", sa.String(), nullable=False),
        sa.Column("fingerprint", sa.String(), nullable=False),
        sa.Column("starts_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), comment="when the system said what holds, if it told"),
        sa.Column("ended", sa.Boolean(), nullable=False),
        sa.Column("alert_id", sa.String(), comment="null until its first episode is stored"),
        sa.PrimaryKeyConstraint("system", "fingerprint"),
    )
    op.create_table(
        "inbound_webhooks",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("secret", sa.String(), nullable=False),
        sa.Column("previous", sa.String(), comment="the secret before, which stays valid"),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_index("ix_rule_states_fingerprint", "rule_states", ["fingerprint"])
