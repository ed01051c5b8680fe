"""What is known of a directory: how far the last sync came, and who was in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from airflow_provider_airis.errors import CheckpointConflictError, PermanentError
from airflow_provider_airis.sources.registry import Entry, RegistryState, state_name

if TYPE_CHECKING:
    from airflow_provider_airis.hooks.airis import AirisHook

Method = Literal["dirsync", "usn", "timestamp"]

SYNCED = "directory_synced"
SYSTEM = "active_directory"


class Mark(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How far a sync has read.

    :param scope: names what was read; another base, filter or attribute begins anew.
    :param server: whose mark it is, and ``invocation_id``: of which copy of its database.
    :param usn: Active Directory's highest committed update sequence number before the reading.
    :param cookie: of DirSync, base64.
    :param since: the latest change that was seen and does not lie in the future, Unix ms of the server's clock.
    :param seen_at: when that one was seen first, Unix ms of ours.
    :param containers: id → digest of the name of each entry that people may lie below; None if that is not known.
    """

    scope: str
    method: Method
    server: str
    invocation_id: str | None = None
    usn: int | None = None
    cookie: str | None = None
    since: int | None = None
    seen_at: int | None = None
    containers: dict[str, str] | None = None


class DirectoryState:
    """A directory's checkpoint in the hub, and the hub's own list of its users.

    A hub that does not list users (``GET /api/v1/users``) has them in the checkpoint instead: ids and user names.

    :param source: the directory's name in the hub.
    """

    def __init__(self, hub: AirisHook, source: str) -> None:
        self.lists_users = hub.offers("users")
        self._hub = hub
        self._source = source
        self._registry = self._opened()

    def last(self) -> tuple[Mark | None, str]:
        """How far the last sync came, None with the reason where that is not known."""
        if self._registry.is_new:
            return self._from_event()
        try:
            return msgspec.convert(self._registry.cursor, Mark), ""
        except msgspec.ValidationError:
            return None, "what the checkpoint has of the last one is not understood"

    def users(self) -> Iterator[dict[str, Any]]:
        """The directory's active users as far as they are known, with ``id`` and ``username`` at least."""
        if self.lists_users:
            yield from self._hub.users(source=self._source, active=True)
            return
        for key in self._registry.compare({}).missing:
            if (entry := self._registry.get(key)) is not None:
                yield {"id": key, "username": entry.mark}

    def commit(self, mark: Mark, seen: Mapping[str, str], gone: Iterable[str]) -> None:
        """Remember how far this sync came, once the hub has its users.

        Where another sync has written meanwhile, the one that began earlier counts: what is read twice does no harm.

        :param seen: id → user name of those delivered, and ``gone``: ids of those who left; for a hub without a list.
        :raises CheckpointConflictError: others write all the time.
        """
        try:
            self._stage(seen, gone)
            self._registry.commit(msgspec.to_builtins(mark))
        except CheckpointConflictError:
            self._registry = self._opened()
            other, _ = self.last()
            self._stage(seen, ())
            self._registry.commit(msgspec.to_builtins(_earlier(mark, other)))

    def _opened(self) -> RegistryState:
        return RegistryState(self._hub.checkpoints, state_name(SYSTEM, self._source))

    def _stage(self, seen: Mapping[str, str], gone: Iterable[str]) -> None:
        if self.lists_users:
            return
        for one in gone:
            self._registry.drop(one)
        for one, username in seen.items():
            self._registry.put(one, Entry(username))

    def _from_event(self) -> tuple[Mark | None, str]:
        """The mark that releases before checkpoints left in an event."""
        try:
            events = self._hub.events(source=self._source, event_type=SYNCED, limit=1)
            return msgspec.convert(events[0]["data"]["mark"], Mark), ""
        except (PermanentError, IndexError, KeyError, TypeError, msgspec.ValidationError):
            return None, "it is the first one"


def _earlier(mark: Mark, other: Mark | None) -> Mark:
    if other is None or (other.scope, other.server, other.method) != (mark.scope, mark.server, mark.method):
        return mark
    if (other.usn or 0, other.since or 0) < (mark.usn or 0, mark.since or 0):
        return other
    return mark
