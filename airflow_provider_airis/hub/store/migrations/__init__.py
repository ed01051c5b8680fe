"""The schema's way from version to version. A hub applies at its start what is missing, in one transaction.

Room for rollups, which are not there yet: a table ``rollups (series_id, step, bucket, count, sum, min, max, last)``
with the primary key ``(series_id, step, bucket)``, on PostgreSQL partitioned by ``bucket`` as ``points`` is by
``timestamp``. ``step`` is milliseconds and ``bucket`` the start of one. Each column can be made from those of a finer
step, so that coarser steps are made from finer ones, and outlive the points by a retention of their own.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text

HEAD = "0006"
# Who migrates holds it, and so does whoever looks whether that is needed.
_LOCK = 7_302_741_001


def migrate(engine: Engine) -> None:
    """Bring the schema up to :data:`HEAD`; several processes may at once.

    :raises ValueError: a newer hub has been here.
    """
    if _version(engine) == HEAD:
        return
    with engine.execution_options(writes=True).begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        upgrade(connection)


def _version(engine: Engine) -> str | None:
    with engine.connect() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        version: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
        return version


def upgrade(connection: Connection, target: str = "head") -> None:
    """Apply the migrations up to one, in the connection's transaction."""
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    try:
        command.upgrade(config, target)
    except CommandError as error:
        raise ValueError(
            f"the database has been migrated by a newer hub, this one knows its schema up to {HEAD}: {error}"
        ) from None
