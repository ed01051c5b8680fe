"""What retention looks for is found by an index."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add it."""
    op.create_index("events_age", "events", [sa.text("(coalesce(category, '') = 'security')"), "timestamp"])
