"""Event keys belong to a source, answers to a token; syncs have an age, users an address; the hub tries to write."""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_USERS = 5_000


def upgrade() -> None:
    """Change what SQLite cannot alter by making it anew."""
    if op.get_bind().dialect.name == "sqlite":
        _make_anew()
    else:
        op.drop_constraint("events_key_key", "events")
        op.create_unique_constraint(None, "events", ["source", "key"])
        op.add_column("answers", sa.Column("token", sa.String(), nullable=False, server_default=""))
        op.alter_column("answers", "token", server_default=None)
        op.drop_constraint("answers_pkey", "answers")
        op.create_primary_key("answers_pkey", "answers", ["token", "key", "path"])
    op.create_table(
        "user_syncs",
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("timestamp", sa.BigInteger(), nullable=False, comment="when the directory was read"),
        sa.PrimaryKeyConstraint("source"),
    )
    op.create_table(
        "readiness",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    comment = "in small letters"
    for table in ("users", "synced_users"):
        op.add_column(table, sa.Column("email", sa.String(), comment=comment))
    _fill()
    op.create_index("users_email", "users", ["email"])


def _make_anew() -> None:
    columns = ["sequence", "key", "event_type", "source", "severity", "timestamp", "category", "data"]
    op.rename_table("events", "events_before")
    for index in ("events_category", "events_source", "events_age"):
        op.drop_index(index)
    op.create_table(
        "events",
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("event_type", sa.String(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("severity", sa.String(), nullable=False),
        sa.Column("timestamp", sa.BigInteger(), nullable=False),
        sa.Column("category", sa.String()),
        sa.Column("data", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("sequence"),
        sa.UniqueConstraint("source", "key"),
        sqlite_autoincrement=True,
    )
    names = ", ".join(f'"{name}"' for name in columns)
    op.execute(f"INSERT INTO events ({names}) SELECT {names} FROM events_before ORDER BY sequence")  # noqa: S608
    op.drop_table("events_before")
    op.create_index("events_category", "events", ["category", "sequence"])
    op.create_index("events_source", "events", ["source", "event_type", "sequence"])
    op.create_index("events_age", "events", [sa.text("(coalesce(category, '') = 'security')"), "timestamp"])
    op.rename_table("answers", "answers_before")
    op.drop_index("ix_answers_at")
    op.create_table(
        "answers",
        sa.Column("token", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("token", "key", "path"),
    )
    op.execute("INSERT INTO answers SELECT '', key, path, digest, status, answer, at FROM answers_before")
    op.drop_table("answers_before")
    op.create_index("ix_answers_at", "answers", ["at"])


def _fill() -> None:
    """Take the addresses out of what is known of users, a page at a time."""
    users = sa.table("users", *map(sa.column, ("source", "id", "user", "email")))
    place = sa.tuple_(users.c.source, users.c.id)
    connection, last = op.get_bind(), ("", "")
    setting = users.update().where(users.c.source == sa.bindparam("its"), users.c.id == sa.bindparam("known"))
    while rows := connection.execute(
        sa.select(users.c.source, users.c.id, users.c.user)
        .where(place > sa.tuple_(*map(sa.literal, last)))
        .order_by(users.c.source, users.c.id)
        .limit(_USERS)
    ).all():
        filled = [
            {"its": row.source, "known": row.id, "address": email.lower()}
            for row in rows
            if (email := json.loads(row.user).get("email"))
        ]
        if filled:
            connection.execute(setting.values(email=sa.bindparam("address")), filled)
        last = rows[-1].source, rows[-1].id
