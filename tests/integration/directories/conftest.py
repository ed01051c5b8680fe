"""A real slapd, a real hub, and the operator between them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_airis.hooks.airis import AirisHook
from airflow_provider_airis.operators.active_directory import ActiveDirectoryToAirisOperator
from sandbox.active_directory import ADMIN, PEOPLE, Slapd, program


def installed() -> bool:
    try:
        return bool(program("slapd"))
    except FileNotFoundError:
        return False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items if not installed() else ():
        if here in item.path.parents:
            item.add_marker(pytest.mark.skip(reason="slapd is not installed: apt-get install slapd"))


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Slapd]:
    """Forty people."""
    with Slapd(tmp_path / "slapd", users=40) as slapd:
        yield slapd


@pytest.fixture
def sync(connect: Callable[..., str], airis: str, request: pytest.FixtureRequest) -> Callable[..., dict[str, Any]]:
    """Run the operator on a slapd, for a directory in the hub that is this test's own."""

    def sync(slapd: Slapd, *, host: str = "", tls: str = "starttls", **arguments: Any) -> dict[str, Any]:
        fields = slapd.connection(timeout=10, tls=tls)
        connect("ldap_default", **{**fields, "host": host or fields["host"]})
        arguments = {"source": request.node.name, **arguments}
        return ActiveDirectoryToAirisOperator(task_id="sync", **arguments).execute({})

    return sync


@pytest.fixture
def held(airis: str, request: pytest.FixtureRequest) -> Callable[..., dict[str, dict[str, Any]]]:
    """The active users of this test's directory in the hub."""

    def held(*, active: bool = True) -> dict[str, dict[str, Any]]:
        with AirisHook() as hub:
            return {user["username"]: user for user in hub.users(source=request.node.name, active=active)}

    return held


@contextlib.contextmanager
def admin(slapd: Slapd) -> Iterator[Any]:
    import ldap3

    with ldap3.Connection(ldap3.Server(slapd.url), ADMIN, slapd.admin_password, auto_bind=True) as connection:
        connection.raise_exceptions = True
        yield connection


def person(slapd: Slapd, uid: str, **attributes: str) -> None:
    with admin(slapd) as connection:
        connection.add(f"uid={uid},{PEOPLE}", "inetOrgPerson", {"cn": uid, "sn": uid, **attributes})
