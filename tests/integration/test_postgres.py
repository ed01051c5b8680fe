"""The PostgreSQL of the end-to-end tests: what is committed outlives a kill, and what our pages advise works there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import psycopg2
import pytest
from psycopg2.errors import LockNotAvailable

from sandbox.postgres import Postgres, program
from sandbox.process import ROOT

PAGE = (ROOT / "docs" / "operations.md").read_text()


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    try:
        program("postgres")
    except FileNotFoundError as error:
        pytest.skip(str(error))
    advised = re.findall(r"`(\w+_timeout|tcp_keepalives_idle) = (\w+)`", PAGE)
    assert len(advised) == 2
    with Postgres(**dict(advised)) as postgres:
        yield postgres


def connect(postgres: Postgres) -> Any:
    return psycopg2.connect(postgres.url.replace("+psycopg2", ""))


def test_what_is_committed_outlives_a_kill(postgres: Postgres) -> None:
    with connect(postgres) as session:
        session.cursor().execute("CREATE TABLE kept AS SELECT 7 AS value")
    postgres.kill()
    with pytest.raises(psycopg2.OperationalError, match="refused"):
        connect(postgres)
    postgres.start()
    with connect(postgres) as session, session.cursor() as cursor:
        cursor.execute("SELECT value FROM kept")
        assert cursor.fetchall() == [(7,)]


def test_rows_that_somebody_dead_has_locked_are_freed_as_the_page_says(postgres: Postgres) -> None:
    dead, other, on_call = (connect(postgres) for _ in range(3))
    with dead.cursor() as cursor:
        cursor.execute("CREATE TABLE run AS SELECT 1 AS id")
        dead.commit()
        cursor.execute("SELECT * FROM run FOR UPDATE")
    with other.cursor() as cursor:
        with pytest.raises(LockNotAvailable):
            cursor.execute("SELECT * FROM run FOR UPDATE NOWAIT")
        other.rollback()
    (statement,) = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
    with on_call.cursor() as cursor:
        cursor.execute(statement)
        assert cursor.fetchall() == []  # it has not been idle for long
        on_call.commit()
        cursor.execute(statement.replace("5 minutes", "0 minutes"))
        assert cursor.fetchall() == [(True,)]
        on_call.commit()
    with other.cursor() as cursor:
        cursor.execute("SET lock_timeout = '10s'")
        cursor.execute("SELECT * FROM run FOR UPDATE")
        assert cursor.fetchall() == [(1,)]
    for session in (dead, other, on_call):
        session.close()
