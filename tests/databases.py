"""Fresh databases for the hub's store, of either kind: copies of one that is migrated already."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.engine import make_url

from sandbox.postgres import Postgres, program

_numbers = count()


class Databases:
    """SQLite files, made in the folder that each is asked for in."""

    kind = "sqlite"

    def __init__(self, folder: Path) -> None:
        self._template = folder / "template.db"
        _migrate(f"sqlite:///{self._template}")

    def empty(self, folder: Path) -> str:
        """The URL of a database without any table."""
        return f"sqlite:///{folder}/hub.db"

    def fresh(self, folder: Path) -> str:
        """The URL of a database that nobody has used."""
        shutil.copy(self._template, folder / "hub.db")
        return f"sqlite:///{folder}/hub.db"

    def drop(self, url: str) -> None:
        """Delete a database, or leave it to its folder."""


class PostgresDatabases(Databases):
    """Databases of one server, whose commits do not wait for the disk: what is killed here is never the server."""

    kind = "postgresql"

    def __init__(self, server: Postgres) -> None:
        import psycopg

        self._url = make_url(server.url).set(drivername="postgresql")
        self._admin = psycopg.connect(self._url.render_as_string(hide_password=False), autocommit=True)
        self._admin.execute("CREATE DATABASE hub_template")
        _migrate(self._named("hub_template"))

    def _named(self, name: str) -> str:
        return self._url.set(database=name).render_as_string(hide_password=False)

    def empty(self, folder: Path) -> str:
        name = f"hub_{next(_numbers)}"
        self._admin.execute(f"CREATE DATABASE {name}")
        return self._named(name)

    def fresh(self, folder: Path) -> str:
        name = f"hub_{next(_numbers)}"
        self._admin.execute(f"CREATE DATABASE {name} TEMPLATE hub_template")
        return self._named(name)

    def drop(self, url: str) -> None:
        self._admin.execute(f"DROP DATABASE {make_url(url).database} WITH (FORCE)")


def as_before_migrations(url: str) -> Engine:
    """Give an empty database the tables that hubs made before there were migrations."""
    from airflow_provider_airis.hub.store.engine import connect
    from airflow_provider_airis.hub.store.migrations import upgrade

    engine = connect(url)
    with engine.execution_options(writes=True).begin() as connection:
        upgrade(connection, "0001")
        connection.execute(text("DROP TABLE alembic_version"))
    return engine


def _migrate(url: str) -> None:
    from airflow_provider_airis.hub.store.engine import connect
    from airflow_provider_airis.hub.store.migrations import migrate

    engine = connect(url)
    migrate(engine)
    engine.dispose()


@contextmanager
def postgres_databases() -> Iterator[PostgresDatabases]:
    """Those of a server of their own; the test is skipped where there is no PostgreSQL."""
    try:
        program("postgres")
    except FileNotFoundError as error:
        pytest.skip(str(error))
    with Postgres(fsync="off", synchronous_commit="off", full_page_writes="off", deadlock_timeout="200ms") as server:
        yield PostgresDatabases(server)
