"""The schema's way from version to version, on SQLite and on PostgreSQL."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, func, insert, inspect, select, text

from airflow_provider_airis.hub.problems import StoreUnavailable
from airflow_provider_airis.hub.store import engine as engines
from airflow_provider_airis.hub.store import migrations
from airflow_provider_airis.hub.store import tables as db
from airflow_provider_airis.hub.store.store import Store
from sandbox.process import Server
from tests.databases import Databases, PostgresDatabases, as_before_migrations

WEEK = 7 * 86_400_000


def test_the_newest_version_is_the_scripts(tmp_path: Path) -> None:
    scripts = ScriptDirectory(str(Path(migrations.__file__).parent))
    assert scripts.get_current_head() == migrations.HEAD


def test_a_migrated_database_is_what_the_tables_say(databases: Databases, tmp_path: Path) -> None:
    url = databases.fresh(tmp_path)
    engine = engines.connect(url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        differences = compare_metadata(context, db.metadata)
    engine.dispose()
    databases.drop(url)
    # Weeks of points are none of the tables.
    assert [found for found in differences if "points_past" not in str(found)] == []


def test_what_was_there_before_migrations_is_kept(databases: Databases, tmp_path: Path) -> None:
    url = databases.empty(tmp_path)
    engine = as_before_migrations(url)
    times = [5, 1_400_000_000_000, 1_700_000_000_000, 1_700_000_000_000 + WEEK]
    with engine.execution_options(writes=True).begin() as connection:
        connection.execute(insert(db.series), {"id": 1, "source": "s", "name": "n", "tags": "{}", "unit": ""})
        connection.execute(insert(db.points), [{"series_id": 1, "timestamp": at, "value": 1.5} for at in times])
        event = {"event_type": "t", "source": "s", "severity": "info", "timestamp": 1, "data": "{}"}
        connection.execute(insert(db.events), [{"sequence": n, "key": str(n), **event} for n in (3, 7)])
    store = Store(url)
    assert store.last == {"alerts": 0, "events": 7}
    assert store.read(lambda c: c.scalars(select(db.points.c.timestamp).order_by(db.points.c.timestamp)).all()) == times
    store.close()
    migrations.migrate(engine)  # which changes nothing any more
    engine.dispose()
    databases.drop(url)


def test_a_database_of_a_newer_hub_is_left_alone(databases: Databases, tmp_path: Path) -> None:
    url = databases.fresh(tmp_path)
    engine = engines.connect(url)
    with engine.execution_options(writes=True).begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ValueError, match="newer hub"):
        Store(url)
    engine.dispose()
    databases.drop(url)


def test_three_processes_start_on_an_empty_database(postgresql: PostgresDatabases, tmp_path: Path) -> None:
    url = postgresql.empty(tmp_path)
    options = "--port", "0", "--database", url, "--tokens", f"{tmp_path}/tokens.json"
    (tmp_path / "tokens.json").write_text('{"a": {"token": "0123456789abcdef", "scopes": ["read"]}}')
    servers = [Server("airflow_provider_airis.hub", *options, wait=False) for _ in range(3)]
    try:
        for server in servers:
            server.wait()
    finally:
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(Server.stop, servers))
    engine: Engine = engines.connect(url)
    with engine.connect() as connection:
        assert inspect(connection).has_table("leases")
        assert connection.scalar(select(func.count()).select_from(db.feeds)) == 3
    engine.dispose()
    postgresql.drop(url)


def test_a_migration_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/hub.db"
    as_before_migrations(url).dispose()
    with closing(sqlite3.connect(tmp_path / "hub.db")) as database:
        database.execute("CREATE TABLE leases (x)")  # what the third one makes
    with pytest.raises(StoreUnavailable, match="leases already exists"):
        Store(url)
    with closing(sqlite3.connect(tmp_path / "hub.db")) as database:
        names = {row[0] for row in database.execute("SELECT name FROM sqlite_master")}
    assert "feeds" not in names
    assert "alembic_version" not in names
