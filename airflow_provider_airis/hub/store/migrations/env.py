"""What Alembic runs: the migrations, in the transaction of the connection that it is given."""

from __future__ import annotations

from alembic import context

from airflow_provider_airis.hub.store import tables

# Not there when somebody else than Alembic imports this.
if hasattr(context, "config"):
    context.configure(connection=context.config.attributes["connection"], target_metadata=tables.metadata)
    context.run_migrations()
