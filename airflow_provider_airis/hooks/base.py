"""What every system's hook has in common, whatever it speaks: its connection, its secrets, its test."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
from airflow.sdk import BaseHook

from airflow_provider_airis.errors import AirisError, SetupError
from airflow_provider_airis.hooks import connections

if TYPE_CHECKING:
    from typing import Self

    from airflow.sdk import Connection

RETRIES = 5
_SECRET = re.compile(
    r"secret|token|passw|passphrase|private_?key|api[_-]?key|access_?key|auth_?header|authorization|cookie|webhook_url",
    re.IGNORECASE,
)
# Nothing as short as "/" or "1" is a secret, and without it the text would be unreadable.
SHORTEST_SECRET = 5


class SystemHook(BaseHook):
    """A hook on one Airflow connection. Opens nothing before it is first used.

    The base of hooks that call a vendor's SDK; those that speak HTTP themselves are
    :class:`~airflow_provider_airis.hooks.http.HttpHook`. A subclass sets the class attributes and implements
    :meth:`check`.

    :param conn_id: the Airflow connection.
    :param timeout: seconds to wait for the system to accept, read or answer; over the connection's own.
    :param retries: how often a request that may succeed later is sent again before the error is raised.
    """

    conn_name_attr: ClassVar[str] = "conn_id"
    default_conn_name: ClassVar[str]
    conn_type: ClassVar[str]
    hook_name: ClassVar[str]
    default_timeout_s: ClassVar[float] = 30.0

    def __init__(self, conn_id: str | None = None, *, timeout: float | None = None, retries: int = RETRIES) -> None:
        super().__init__()
        self.conn_id = conn_id or self.default_conn_name
        self.timeout = timeout
        self.retries = retries

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.conn_id!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close what is open. The hook opens it anew if it is used again."""

    @cached_property
    def connection(self) -> Connection:
        """The Airflow connection, looked up once.

        :raises SetupError: there is none of that name.
        :raises RetryableError: Airflow could not look it up.
        """
        return connections.find(self.conn_id)

    async def aconnection(self) -> Connection:
        """The Airflow connection, looked up once; on an event loop, before anything that asks for it."""
        if "connection" not in self.__dict__:
            self.__dict__["connection"] = await connections.afind(self.conn_id)
        return self.connection

    @cached_property
    def extra(self) -> dict[str, Any]:
        """The connection's extras."""
        # Not Connection.extra_dejson: it calls the supervisor, which on a triggerer's event loop can deadlock.
        try:
            return msgspec.json.decode(self.connection.extra or "{}", type=dict[str, Any])
        except msgspec.MsgspecError as error:
            raise self._misconfigured("its extra is not a JSON object") from error

    @abstractmethod
    def check(self) -> str:
        """Ask the system whether it is well; returns what to tell the user."""

    def test_connection(self) -> tuple[bool, str]:
        """Whether the system can be reached and accepts the credentials, and what it said. Never raises."""
        try:
            return True, self.check()
        except Exception as error:  # noqa: BLE001  the form shows any reason: no connection, bad host, refused token
            said = str(error) if isinstance(error, AirisError) else f"{type(error).__name__}: {error}"
            return False, self._redacted(said)
        finally:
            self.close()

    @contextmanager
    def importing(self) -> Iterator[None]:
        """Around the imports of the system's own packages, which come with its extra.

        :raises SetupError: one is not installed; the ``pip install`` line is said.
        """
        try:
            yield
        except ModuleNotFoundError as error:
            stem = type(self).__module__.rpartition("hooks.")[2].partition(".")[0]
            raise SetupError(
                f"{self.hook_name} needs the package {error.name}, which is not installed: "
                f"pip install 'airflow-provider-airis[{stem}]'"
            ) from None

    @cached_property
    def _timeout_s(self) -> float:
        wanted = self.extra.get("timeout") if self.timeout is None else self.timeout
        try:
            seconds = self.default_timeout_s if wanted in (None, "") else float(wanted)
        except (TypeError, ValueError) as error:
            raise self._misconfigured("its timeout is no number of seconds") from error
        if not 0 < seconds < 86_400:
            raise self._misconfigured("its timeout must be a positive number of seconds")
        return seconds

    def _misconfigured(self, what: str) -> SetupError:
        return SetupError(f"{self.hook_name}: connection {self.conn_id} cannot be used, {what}")

    def _secrets(self) -> Iterator[str]:
        """What no text may tell: the password, and the extras whose names say that they are secrets."""
        if "connection" not in self.__dict__:
            return
        password = self.connection.password or ""
        yield from {password, password.strip()}
        yield from (secret for secret in _texts(self.__dict__.get("extra")) if len(secret) >= SHORTEST_SECRET)

    def _redacted(self, text: str) -> str:
        for secret in sorted(filter(None, self._secrets()), key=len, reverse=True):
            text = text.replace(secret, "***")
        return text


def _texts(value: Any, secret: bool = False) -> Iterator[str]:
    """The texts below names that say that they are secrets."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _texts(inner, secret or bool(_SECRET.search(str(name))))
    elif secret and isinstance(value, str):
        yield value
