"""The tables as they were before there were migrations; a database of then has them, or some of them, already."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_SEQUENCE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create what is not there."""
    op.create_table(
        "alerts",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("fingerprint", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("severity", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("model_id", sa.String(), nullable=True),
        sa.Column("environment", sa.String(), nullable=True),
        sa.Column("alert_type", sa.String(), nullable=True),
        sa.Column("threshold", sa.Float(), nullable=True),
        sa.Column("current_value", sa.Float(), nullable=True),
        sa.Column("timestamp", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("acknowledged_by", sa.String(), nullable=True),
        sa.Column("tags", sa.Text(), nullable=False),
        sa.Column("rule_id", sa.String(), nullable=True),
        sa.Column("rule", sa.Text(), nullable=True, comment="the rule as it was when the alert fired"),
        sa.Column("series", sa.Text(), nullable=False, comment="the series that it was evaluated over"),
        sa.Column("data_at", sa.BigInteger(), nullable=True, comment="timestamp of the newest point when it fired"),
        sa.PrimaryKeyConstraint("id"),
        if_not_exists=True,
    )
    op.create_index("alerts_newest", "alerts", ["timestamp", "id"], unique=False, if_not_exists=True)
    op.create_index(
        "alerts_open",
        "alerts",
        ["fingerprint"],
        unique=True,
        sqlite_where=sa.text("status != 'resolved'"),
        postgresql_where=sa.text("status != 'resolved'"),
        if_not_exists=True,
    )
    op.create_table(
        "answers",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key", "path"),
        if_not_exists=True,
    )
    op.create_index("ix_answers_at", "answers", ["at"], unique=False, if_not_exists=True)
    op.create_table(
        "consumers",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
        if_not_exists=True,
    )
    op.create_table(
        "events",
        sa.Column("sequence", _SEQUENCE, autoincrement=True, nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("event_type", sa.String(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("severity", sa.String(), nullable=False),
        sa.Column("timestamp", sa.BigInteger(), nullable=False),
        sa.Column("category", sa.String(), nullable=True),
        sa.Column("data", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("sequence"),
        sa.UniqueConstraint("key"),
        sqlite_autoincrement=True,
        if_not_exists=True,
    )
    op.create_index("events_category", "events", ["category", "sequence"], unique=False, if_not_exists=True)
    op.create_index("events_source", "events", ["source", "event_type", "sequence"], unique=False, if_not_exists=True)
    op.create_table(
        "notification_log",
        sa.Column("key", sa.String(), nullable=False, comment="digest of group, receiver, channel and target"),
        sa.Column("group", sa.Text(), nullable=False),
        sa.Column("receiver", sa.String(), nullable=False),
        sa.Column("channel", sa.String(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("alerts", sa.Text(), nullable=False, comment="what was shown of each, by its id"),
        sa.Column("open", sa.Boolean(), nullable=False, comment="whether one of them is not resolved"),
        sa.PrimaryKeyConstraint("key"),
        if_not_exists=True,
    )
    op.create_index("notification_log_at", "notification_log", ["at"], unique=False, if_not_exists=True)
    op.create_index("notification_log_id", "notification_log", ["id", "key"], unique=False, if_not_exists=True)
    op.create_index(
        "notification_log_open", "notification_log", ["open", "channel", "key"], unique=False, if_not_exists=True
    )
    op.create_table(
        "points",
        sa.Column("series_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("timestamp", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("value", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("series_id", "timestamp"),
        sqlite_with_rowid=False,
        if_not_exists=True,
    )
    op.create_table(
        "routes",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
        if_not_exists=True,
    )
    op.create_table(
        "rule_states",
        sa.Column("rule_id", sa.String(), nullable=False),
        sa.Column("fingerprint", sa.String(), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=True, comment="data time since which the condition holds"),
        sa.Column("evaluated_at", sa.BigInteger(), nullable=False, comment="data time up to which it was evaluated"),
        sa.PrimaryKeyConstraint("rule_id", "fingerprint"),
        if_not_exists=True,
    )
    op.create_table(
        "rules",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("rule", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        if_not_exists=True,
    )
    op.create_table(
        "series",
        sa.Column("id", _SEQUENCE, nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("tags", sa.Text(), nullable=False, comment="JSON object, its keys in order"),
        sa.Column("unit", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("source", "name", "tags"),
        if_not_exists=True,
    )
    op.create_index("series_name", "series", ["name"], unique=False, if_not_exists=True)
    op.create_table(
        "silences",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("ends_at", sa.BigInteger(), nullable=False),
        sa.Column("silence", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        if_not_exists=True,
    )
    op.create_index("ix_silences_ends_at", "silences", ["ends_at"], unique=False, if_not_exists=True)
    op.create_table(
        "synced_users",
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("sync_id", sa.String(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("username", sa.String(), nullable=False),
        sa.Column("user", sa.Text(), nullable=True, comment="null for one that was refused or deleted"),
        sa.Column("deleted", sa.Boolean(), nullable=False),
        sa.Column("synced_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("source", "sync_id", "id"),
        if_not_exists=True,
    )
    op.create_table(
        "user_sync_parts",
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("sync_id", sa.String(), nullable=False),
        sa.Column("part", sa.Integer(), nullable=False),
        sa.Column("last", sa.Boolean(), nullable=False),
        sa.Column("sync_type", sa.String(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("source", "sync_id", "part"),
        if_not_exists=True,
    )
    op.create_table(
        "users",
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("username", sa.String(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("user", sa.Text(), nullable=False, comment="JSON object without what changes with every sync"),
        sa.Column("synced_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("source", "id"),
        if_not_exists=True,
    )
    op.create_index("users_username", "users", ["source", "username"], unique=False, if_not_exists=True)
    op.create_table(
        "alert_changes",
        sa.Column("sequence", _SEQUENCE, autoincrement=True, nullable=False),
        sa.Column("alert_id", sa.String(), nullable=False),
        sa.Column("change", sa.String(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("by", sa.String(), nullable=True),
        sa.Column("comment", sa.Text(), nullable=True),
        sa.Column("alert", sa.Text(), nullable=False, comment="the alert right after the change"),
        sa.ForeignKeyConstraint(["alert_id"], ["alerts.id"]),
        sa.PrimaryKeyConstraint("sequence"),
        sqlite_autoincrement=True,
        if_not_exists=True,
    )
    op.create_index("ix_alert_changes_alert_id", "alert_changes", ["alert_id"], unique=False, if_not_exists=True)
    op.create_table(
        "notifications",
        sa.Column("alert_id", sa.String(), nullable=False),
        sa.Column("channel", sa.String(), nullable=False),
        sa.Column("target", sa.String(), nullable=False),
        sa.Column("reference", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["alert_id"], ["alerts.id"]),
        sa.PrimaryKeyConstraint("alert_id", "channel", "target"),
        if_not_exists=True,
    )
    op.create_table(
        "shown",
        sa.Column("alert_id", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("at", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("sent_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["alert_id"], ["alerts.id"]),
        sa.ForeignKeyConstraint(["key"], ["notification_log.key"]),
        sa.PrimaryKeyConstraint("alert_id", "key", "at", "status"),
        if_not_exists=True,
    )
    op.create_index("shown_key", "shown", ["key"], unique=False, if_not_exists=True)
    op.create_index("shown_sent_at", "shown", ["sent_at"], unique=False, if_not_exists=True)
