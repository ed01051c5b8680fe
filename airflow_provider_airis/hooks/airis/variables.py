"""Checkpoints as Airflow Variables, for a hub that keeps none."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from time import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from airflow_provider_airis.errors import CheckpointConflictError, PermanentError, RetryableError
from airflow_provider_airis.hooks.airis.checkpoints import Checkpoint

if TYPE_CHECKING:
    from airflow_provider_airis.hooks.airis.leases import Lease

PREFIX = "airis_checkpoint__"
MAX_VALUE = 4 << 20
# Airflow's, of a key.
MAX_KEY = 250


class _Kept(msgspec.Struct):
    name: str
    version: int
    updated_at: int
    value: Any


class Variables:
    """Checkpoints under ``airis_checkpoint__<connection>__<name>``, name and version inside the JSON.

    Airflow has no compare-and-set. A write reads the Variable, compares its version, and then sets it: a writer that
    comes in between is overwritten unseen, and the last one wins. So a checkpoint must have one writer at a time, which
    ``max_active_runs=1`` and a name of its own for each mapped task see to; whoever cannot promise that needs a hub
    with checkpoints. A deleted checkpoint starts again at version 1. Leases fence nothing here, and are refused.

    Values are bounded to 4 MiB, since Airflow's web pages list Variables with their values.
    """

    def __init__(self, conn_id: str) -> None:
        self._prefix = f"{PREFIX}{_plain(conn_id)}__"

    def get(self, name: str) -> Checkpoint | None:
        """A checkpoint, None if there is none of that name."""
        return _read(self._key(name))

    def put(self, name: str, value: Any, *, version: int = 0, fence: Lease | None = None) -> Checkpoint:
        """Write a checkpoint that is at a version.

        :raises CheckpointConflictError: it has another.
        :raises PermanentError: it is too large, or fenced.
        """
        from airflow.sdk import Variable

        key, _ = self._at(name, version, fence)
        kept = _Kept(name, version + 1, round(time() * 1000), value)
        text = msgspec.json.encode(kept)
        if len(text) > MAX_VALUE:
            raise PermanentError(
                f"the checkpoint {name!r} has {len(text):,} bytes, and as an Airflow Variable at most {MAX_VALUE:,}: "
                "use a hub that keeps checkpoints"
            )
        Variable.set(key, text.decode(), description="State of airflow-provider-airis: do not edit")
        return Checkpoint(name, kept.version, value, kept.updated_at)

    def list(self, prefix: str) -> Iterator[Checkpoint]:
        """Every checkpoint whose name starts so.

        :raises PermanentError: this Airflow cannot list Variables, as 3.2 cannot.
        """
        from airflow.sdk import Variable

        if not hasattr(Variable, "keys"):
            raise PermanentError(
                f"the checkpoints {prefix}* cannot be listed: with a hub that keeps none, that needs Airflow 3.3"
            )
        start = self._key(prefix)[: MAX_KEY - _DIGEST]
        for key in sorted(Variable.keys(start)):
            found = _read(key)
            # One that was deleted meanwhile is none; a long name's key says only how it starts.
            if found is not None and found.name.startswith(prefix):
                yield found

    def delete(self, name: str, *, version: int | None = None, fence: Lease | None = None) -> None:
        """Delete a checkpoint; one that is not there stays so.

        :raises CheckpointConflictError: it has another version.
        """
        from airflow.sdk import Variable

        key, found = self._at(name, version, fence)
        if found is not None:
            Variable.delete(key)

    def _key(self, name: str) -> str:
        key = self._prefix + _plain(name)
        if len(key) <= MAX_KEY:
            return key
        return key[: MAX_KEY - _DIGEST] + blake2b(name.encode(), digest_size=_DIGEST // 2).hexdigest()

    def _at(self, name: str, version: int | None, fence: Lease | None) -> tuple[str, Checkpoint | None]:
        if fence is not None:
            raise PermanentError(f"the checkpoint {name!r} cannot be fenced: the hub has no leases")
        key = self._key(name)
        found = _read(key)
        if version is not None and version != (at := found.version if found else 0):
            raise CheckpointConflictError(
                f"another was faster: the checkpoint {name!r} is at version {at}, not {version}; read it again"
            )
        return key, found


_DIGEST = 32


def _plain(name: str) -> str:
    """The name in characters that Airflow's API does not read as something else."""
    return quote(name, safe="").replace("%", "=")


def _read(key: str) -> Checkpoint | None:
    from airflow.sdk import Variable

    text = Variable.get(key, default=None)
    if text is None:
        # Airflow says so too, with a line in the log, if it could not ask.
        if hasattr(Variable, "keys") and key in Variable.keys(key):
            raise RetryableError(f"the Airflow Variable {key} is there, but could not be read: the task's log says why")
        return None
    try:
        kept = msgspec.json.decode(text, type=_Kept)
    except msgspec.MsgspecError as error:
        raise PermanentError(
            f"the Airflow Variable {key} is no checkpoint ({error}): put it back, or delete it to start anew"
        ) from error
    return Checkpoint(kept.name, kept.version, kept.value, kept.updated_at)
