"""What a sync would change, without sending anything."""

from __future__ import annotations

from collections.abc import Iterable, Set
from hashlib import blake2b
from typing import Any

import msgspec

from airflow_provider_airis.records import User
from airflow_provider_airis.sources.directory.reading import key
from airflow_provider_airis.sources.directory.state import DirectoryState


class Preview:
    """Counts changes, and keeps the first names of each kind.

    :param shown: how many names.
    """

    def __init__(self, state: DirectoryState, shown: int) -> None:
        self.refused = ""
        self._state = state
        self._shown = shown
        self._names: dict[str, list[str]] = {"created": [], "updated": [], "deactivated": []}
        self._counts = dict.fromkeys(self._names, 0)

    def take(self, users: Iterable[User]) -> None:
        """Compare users with those that are known. A hub that does not list them cannot tell who would be updated."""
        known = {key(user["id"]): _content(user) for user in self._state.users()}
        for user in users:
            content = known.get(key(user.id))
            if content is None:
                self._count("created", user.username)
            elif self._state.lists_users and content != _content(msgspec.to_builtins(user)):
                self._count("updated", user.username)

    def deactivate(self, gone: Set[bytes]) -> None:
        """Count those who would be deactivated."""
        for user in self._state.users() if gone else ():
            if key(user["id"]) in gone:
                self._count("deactivated", user["username"])

    def logged(self, log: Any) -> dict[str, Any]:
        """Log what was found, and return the figures."""
        for change, found in self._names.items():
            more = "" if self._counts[change] == len(found) else ", …"
            log.info("Would be %s: %d %s%s", change, self._counts[change], ", ".join(found), more)
        if self.refused:
            log.warning("And it would be refused: %s", self.refused)
        return {"mode": "dry run", **self._counts, "rejected": 0, "refused": self.refused}

    def _count(self, change: str, name: str) -> None:
        self._counts[change] += 1
        if len(self._names[change]) < self._shown:
            self._names[change].append(name)


def _content(user: dict[str, Any]) -> bytes:
    """16 bytes of all that a sync would change of a user."""
    plain = {field: value for field, value in user.items() if field in User.__struct_fields__ and value}
    plain |= {"sync_timestamp": 0, "enabled": user.get("enabled", True)}
    return blake2b(msgspec.json.encode(plain, order="deterministic"), digest_size=16).digest()
