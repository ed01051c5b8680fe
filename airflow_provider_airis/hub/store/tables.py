"""The tables. Times are Unix milliseconds; JSON is kept as the text that the API answers."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    literal_column,
)

# SQLite numbers rows by itself only in a column that is exactly INTEGER.
_SEQUENCE = BigInteger().with_variant(Integer, "sqlite")
# Text in the order of its code points, so that a prefix is a range. SQLite compares so, PostgreSQL when told to.
_EXACT = String().with_variant(String(collation="C"), "postgresql")


metadata = MetaData()

series = Table(
    "series",
    metadata,
    Column("id", _SEQUENCE, primary_key=True),
    Column("source", String, nullable=False),
    Column("name", String, nullable=False),
    Column("tags", Text, nullable=False, comment="JSON object, its keys in order"),
    Column("unit", String, nullable=False),
    UniqueConstraint("source", "name", "tags"),
    Index("series_name", "name"),
)

points = Table(
    "points",
    metadata,
    Column("series_id", BigInteger, primary_key=True, autoincrement=False),
    Column("timestamp", BigInteger, primary_key=True, autoincrement=False),
    Column("value", Float, nullable=False),
    sqlite_with_rowid=False,
    postgresql_partition_by="RANGE (timestamp)",
)

events = Table(
    "events",
    metadata,
    Column("sequence", _SEQUENCE, primary_key=True, autoincrement=True),
    Column("key", String, nullable=False),
    Column("event_type", String, nullable=False),
    Column("source", String, nullable=False),
    Column("severity", String, nullable=False),
    Column("timestamp", BigInteger, nullable=False),
    Column("category", String),
    Column("data", Text, nullable=False),
    UniqueConstraint("source", "key"),
    Index("events_category", "category", "sequence"),
    Index("events_source", "source", "event_type", "sequence"),
    sqlite_autoincrement=True,
)

# What retention looks for: either kind has a time of its own.
AUDIT = literal_column("(coalesce(category, '') = 'security')", Boolean)
Index("events_age", AUDIT, events.c.timestamp)

alerts = Table(
    "alerts",
    metadata,
    Column("id", String, primary_key=True),
    Column("fingerprint", String, nullable=False),
    Column("name", String, nullable=False),
    Column("description", Text, nullable=False),
    Column("severity", String, nullable=False),
    Column("status", String, nullable=False),
    Column("source", String, nullable=False),
    Column("model_id", String),
    Column("environment", String),
    Column("alert_type", String),
    Column("threshold", Float),
    Column("current_value", Float),
    Column("timestamp", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("acknowledged_by", String),
    Column("tags", Text, nullable=False),
    Column("rule_id", String),
    Column("rule", Text, comment="the rule as it was when the alert fired"),
    Column("series", Text, nullable=False, comment="the series that it was evaluated over"),
    Column("data_at", BigInteger, comment="timestamp of the newest point when it fired"),
    Index("alerts_newest", "timestamp", "id"),
)
# At most one open alert a fingerprint.
Index(
    "alerts_open",
    alerts.c.fingerprint,
    unique=True,
    sqlite_where=alerts.c.status != "resolved",
    postgresql_where=alerts.c.status != "resolved",
)

# The newest episode of each alert that another system evaluates: what says something older changes nothing.
origins = Table(
    "origins",
    metadata,
    Column("system", String, primary_key=True),
    Column("fingerprint", String, primary_key=True),
    Column("starts_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, comment="when the system said what holds, if it told"),
    Column("ended", Boolean, nullable=False),
    Column("alert_id", String, comment="null until its first episode is stored"),
)

alert_changes = Table(
    "alert_changes",
    metadata,
    Column("sequence", _SEQUENCE, primary_key=True, autoincrement=True),
    Column("alert_id", ForeignKey("alerts.id"), nullable=False, index=True),
    Column("change", String, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("by", String),
    Column("comment", Text),
    Column("alert", Text, nullable=False, comment="the alert right after the change"),
    sqlite_autoincrement=True,
)

notifications = Table(
    "notifications",
    metadata,
    Column("alert_id", ForeignKey("alerts.id"), primary_key=True),
    Column("channel", String, primary_key=True),
    Column("target", String, primary_key=True),
    Column("reference", String, nullable=False),
    Column("status", String, nullable=False),
    Column("at", BigInteger, nullable=False),
)

notification_log = Table(
    "notification_log",
    metadata,
    Column("key", String, primary_key=True, comment="digest of group, receiver, channel and target"),
    Column("group", Text, nullable=False),
    Column("receiver", String, nullable=False),
    Column("channel", String, nullable=False),
    Column("target", Text, nullable=False),
    Column("id", String, nullable=False),
    Column("reference", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("alerts", Text, nullable=False, comment="what was shown of each, by its id"),
    Column("open", Boolean, nullable=False, comment="whether one of them is not resolved"),
    Index("notification_log_id", "id", "key"),
    Index("notification_log_open", "open", "channel", "key"),
    Index("notification_log_at", "at"),
)

# What an entry of the log says of an alert is gone with the next one; this stays.
shown = Table(
    "shown",
    metadata,
    Column("alert_id", ForeignKey("alerts.id"), primary_key=True),
    Column("key", ForeignKey("notification_log.key"), primary_key=True),
    Column("at", BigInteger, primary_key=True, autoincrement=False),
    Column("status", String, primary_key=True),
    Column("sent_at", BigInteger, nullable=False),
    Index("shown_key", "key"),
    Index("shown_sent_at", "sent_at"),
)

silences = Table(
    "silences",
    metadata,
    Column("id", String, primary_key=True),
    Column("ends_at", BigInteger, nullable=False, index=True),
    Column("silence", Text, nullable=False),
)

# The one routing file that is the hub's own.
routes = Table(
    "routes",
    metadata,
    Column("name", String, primary_key=True),
    Column("text", Text, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
)

consumers = Table(
    "consumers",
    metadata,
    Column("name", String, primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("wake_at", BigInteger, comment="when the reader wants to be woken, though nothing came"),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("name", _EXACT, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("value", Text, comment="JSON; null once deleted, so that the version goes on growing"),
    Column("size", Integer, nullable=False, comment="bytes of the value"),
    Column("updated_at", BigInteger, nullable=False),
)
Index(
    "checkpoints_deleted",
    checkpoints.c.updated_at,
    sqlite_where=checkpoints.c.value.is_(None),
    postgresql_where=checkpoints.c.value.is_(None),
)

# Who may post signed alerts. Signatures are checked with the secrets, so they are kept as they are.
inbound_webhooks = Table(
    "inbound_webhooks",
    metadata,
    Column("name", String, primary_key=True),
    Column("secret", String, nullable=False),
    Column("previous", String, comment="the secret before, which stays valid"),
    Column("updated_at", BigInteger, nullable=False),
)

# Rows stay when a lease is over, so that its token goes on growing.
leases = Table(
    "leases",
    metadata,
    Column("name", String, primary_key=True),
    Column("holder", String, nullable=False),
    Column("token", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False, comment="0 once it was given back"),
)

feeds = Table(
    "feeds",
    metadata,
    Column("name", String, primary_key=True),
    Column("sequence", BigInteger, nullable=False),
)

rules = Table(
    "rules",
    metadata,
    Column("id", String, primary_key=True),
    Column("rule", Text, nullable=False),
)

rule_states = Table(
    "rule_states",
    metadata,
    Column("rule_id", String, primary_key=True),
    Column("fingerprint", String, primary_key=True, index=True),
    Column("since", BigInteger, comment="data time since which the condition holds"),
    Column("evaluated_at", BigInteger, nullable=False, comment="data time up to which it was evaluated"),
)

users = Table(
    "users",
    metadata,
    Column("source", String, primary_key=True),
    Column("id", String, primary_key=True),
    Column("username", String, nullable=False),
    Column("active", Boolean, nullable=False),
    Column("user", Text, nullable=False, comment="JSON object without what changes with every sync"),
    Column("synced_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("email", String, comment="in small letters"),
    Index("users_username", "source", "username"),
    Index("users_email", "email"),
)

# The full sync in force of each directory.
user_syncs = Table(
    "user_syncs",
    metadata,
    Column("source", String, primary_key=True),
    Column("timestamp", BigInteger, nullable=False, comment="when the directory was read"),
)

user_sync_parts = Table(
    "user_sync_parts",
    metadata,
    Column("source", String, primary_key=True),
    Column("sync_id", String, primary_key=True),
    Column("part", Integer, primary_key=True),
    Column("last", Boolean, nullable=False),
    Column("sync_type", String, nullable=False),
    Column("at", BigInteger, nullable=False),
)

# What the parts of a sync hold until all of them are there.
synced_users = Table(
    "synced_users",
    metadata,
    Column("source", String, primary_key=True),
    Column("sync_id", String, primary_key=True),
    Column("id", String, primary_key=True),
    Column("username", String, nullable=False),
    Column("user", Text, comment="null for one that was refused or deleted"),
    Column("deleted", Boolean, nullable=False),
    Column("synced_at", BigInteger, nullable=False),
    Column("email", String, comment="in small letters"),
)

answers = Table(
    "answers",
    metadata,
    Column("token", String, primary_key=True),
    Column("key", String, primary_key=True),
    Column("path", String, primary_key=True),
    Column("digest", String, nullable=False),
    Column("status", Integer, nullable=False),
    Column("answer", Text, nullable=False),
    Column("at", BigInteger, nullable=False, index=True),
)

# What is written to find out whether the store can be written to.
readiness = Table(
    "readiness",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("at", BigInteger, nullable=False),
)
