"""What a reader knows of its system, kept in the hub; where the hub keeps none, in Airflow Variables."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from uuid import uuid4

import msgspec

from airflow_provider_airis.errors import CheckpointConflictError, PermanentError
from airflow_provider_airis.hooks.delivery import API

if TYPE_CHECKING:
    from airflow_provider_airis.hooks.airis.hook import AirisHook
    from airflow_provider_airis.hooks.airis.leases import Lease
    from airflow_provider_airis.hooks.airis.variables import Variables


class Checkpoint(msgspec.Struct, frozen=True):
    """A named JSON document.

    :param version: grows with every write; what a write must know to replace it.
    :param value: anything that JSON carries.
    :param updated_at: Unix ms.
    """

    name: str
    version: int
    value: Any
    updated_at: int


class Checkpoints:
    """The checkpoints of a hub, or, where it offers none, those that Airflow keeps for it as Variables.

    Variables cannot be compared and set at once: see :class:`~airflow_provider_airis.hooks.airis.variables.Variables`.
    """

    def __init__(self, hub: AirisHook) -> None:
        self._hub = hub

    @cached_property
    def _kept(self) -> _HubCheckpoints | Variables:
        if self._hub.offers("checkpoints"):
            return _HubCheckpoints(self._hub)
        from airflow_provider_airis.hooks.airis.variables import Variables

        self._hub.log.warning(
            "%s (connection %s) keeps no checkpoints: they are kept as Airflow Variables, which one run at a time may "
            "write",
            self._hub.hook_name,
            self._hub.conn_id,
        )
        return Variables(self._hub.conn_id)

    def get(self, name: str) -> Checkpoint | None:
        """A checkpoint, None if there is none of that name."""
        return self._kept.get(name)

    def put(self, name: str, value: Any, *, version: int = 0, fence: Lease | None = None) -> Checkpoint:
        """Write a checkpoint, and return it with its new version.

        :param value: anything that JSON carries, up to 8 MiB of it.
        :param version: of the checkpoint that was read; 0 if there was none.
        :param fence: a lease without which it must not be written.
        :raises CheckpointConflictError: another was faster: read it again.
        :raises LeaseLostError: somebody else has taken the lease.
        """
        return self._kept.put(name, value, version=version, fence=fence)

    def list(self, prefix: str = "") -> Iterator[Checkpoint]:
        """Every checkpoint whose name starts so."""
        return self._kept.list(prefix)

    def delete(self, name: str, *, version: int | None = None, fence: Lease | None = None) -> None:
        """Delete a checkpoint; one that is not there stays so.

        :param version: which it must have; any unless given.
        :raises CheckpointConflictError: it has another.
        """
        self._kept.delete(name, version=version, fence=fence)


class _Written(msgspec.Struct):
    version: int
    updated_at: int


class _HubCheckpoints:
    def __init__(self, hub: AirisHook) -> None:
        self._hub = hub

    def get(self, name: str) -> Checkpoint | None:
        try:
            return self._hub.decode(self._hub.request("GET", _path(name)), Checkpoint)
        except PermanentError as error:
            if error.status == 404:
                return None
            raise

    def put(self, name: str, value: Any, *, version: int = 0, fence: Lease | None = None) -> Checkpoint:
        # With the key a repetition, after an answer that was lost, is answered as the first time, not with 412.
        headers = {"If-Match": str(version), "Idempotency-Key": uuid4().hex}
        written = self._hub.decode(self._write("PUT", name, headers, fence, {"value": value}), _Written)
        return Checkpoint(name, written.version, value, written.updated_at)

    def list(self, prefix: str) -> Iterator[Checkpoint]:
        for found in self._hub.pages(f"{API}/checkpoints", params={"prefix": prefix}, items="checkpoints"):
            yield self._hub.converted(found, Checkpoint)

    def delete(self, name: str, *, version: int | None = None, fence: Lease | None = None) -> None:
        self._write("DELETE", name, {} if version is None else {"If-Match": str(version)}, fence)

    def _write(self, method: str, name: str, headers: dict[str, str], fence: Lease | None, body: Any = None) -> Any:
        if fence is not None:
            headers |= fence.headers
        content, encoding = self._hub.encoded(body)
        try:
            return self._hub.request(method, _path(name), content=content, headers=headers | encoding)
        except PermanentError as error:
            if error.status != 412:
                raise
            raise CheckpointConflictError(str(error), status=412) from error


def _path(name: str) -> str:
    return f"{API}/checkpoints/{quote(name, safe='')}"
