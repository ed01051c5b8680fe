"""What has changed in a directory since the last reading, by the three ways in which directories tell."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any

from msgspec.structs import replace

from airflow_provider_airis.errors import PermanentError
from airflow_provider_airis.hooks.ldap_entries import Entry, escape_bytes, is_below, normalized, split
from airflow_provider_airis.sources.directory.people import generalized
from airflow_provider_airis.sources.directory.presets import CONTAINER_CLASSES, CONTAINERS
from airflow_provider_airis.sources.directory.reading import IDS_A_SEARCH, Reading, key
from airflow_provider_airis.sources.directory.state import Mark, Method

# How far the clocks of a directory's servers may be apart, and how late a change may show after its time.
CLOCKS_MS = 600_000
MARGIN_MS = 300_000
MOST_CONTAINERS = 4000
_CLASSES = frozenset(name.lower().encode() for name in CONTAINER_CLASSES)


class Changes:
    """Finds the people who have changed, and keeps how far it came.

    - ``usn``: by ``uSNChanged``, Active Directory; ``dirsync``: by DirSync, likewise; ``timestamp``: by
      ``modifyTimestamp``, everywhere else.

    Who has changed is in ``keys``; who of them is not among the users has left. A container that was renamed or moved
    changes none of the entries below it: then only a full reading tells, and ``reason`` says so.

    See https://learn.microsoft.com/windows/win32/ad/overview-of-change-tracking-techniques
    """

    def __init__(self, reading: Reading, log: Any) -> None:
        self.keys: set[bytes] = set()
        self.reason = ""
        self._reading = reading
        self._log = log
        self._last: Mark | None = None
        self._own_id = split(reading.preset.attributes["id"])[0]
        root = reading.root
        usable = root.active_directory and root.usn is not None and root.invocation_id
        # DirSync tells who has changed by objectGUID.
        dirsync = reading.selection.dirsync and reading.id.lower() == "objectguid"
        method: Method = ("dirsync" if dirsync else "usn") if usable else "timestamp"
        self.mark = Mark(
            scope=reading.scope,
            method=method,
            server=root.server,
            invocation_id=root.invocation_id,
            usn=root.usn,
        )

    def differs(self, last: Mark) -> str:
        """Why the last sync's mark is of no use for this one; empty if it is."""
        mark = self.mark
        if last.scope != mark.scope:
            return "another base, filter, group or attribute is read than the last time"
        if last.method != mark.method and "timestamp" in (last.method, mark.method):
            return f"the last one went by {last.method}"
        if mark.method == "timestamp":
            return "" if last.server == mark.server else f"the last one read {last.server}, this one {mark.server}"
        if last.invocation_id != mark.invocation_id:
            return f"the last one read another domain controller, or another copy of it: {last.server}"
        return "" if last.usn is not None and last.usn <= (mark.usn or 0) else f"{mark.server} has gone back in time"

    def prepare(self) -> None:
        """Before a full reading: where the next incremental one begins."""
        self.keys.clear()
        if self.mark.method == "dirsync":
            self._dirsync(["objectGUID"], b"")
            self.keys.clear()
        containers: dict[str, str] = {}
        for entry in self._reading.hook.entries(self._reading.root.partition, CONTAINERS, [self._own_id]):
            if is_below(entry.dn, self._reading.base) and (one := entry.id(self._own_id)):
                containers[one] = _digest(entry.dn)
        self._keep(containers)

    def since(self, last: Mark) -> Iterable[Entry] | None:
        """The users that have changed since, once ``keys`` has everybody of whom anything has.

        None if only a full reading tells.
        """
        self._last = last
        self.mark = replace(self.mark, containers=last.containers)
        reading, mark = self._reading, self.mark
        if mark.method != "timestamp" and last.usn is not None:
            since = f"(uSNChanged>={last.usn + 1})"
            if (
                mark.method == "dirsync"
                and last.cookie
                and self._dirsync(self._replicated, base64.b64decode(last.cookie))
            ):
                self._note(f"(&{CONTAINERS}{since})")
                return None if self.reason else self._by_guid()
            self._note(f"(&(|{reading.preset.filter}(&(isDeleted=TRUE)(objectClass=user)){CONTAINERS}){since})")
        else:
            since = f"(modifyTimestamp>={_time(self._since(last))})"
            self._note(f"(&(|{reading.preset.filter}{CONTAINERS}){since})")
        if self.reason:
            return None
        return reading.hook.entries(reading.base, f"(&{reading.filter}{since})", reading.wanted) if self.keys else ()

    def reached(self) -> Mark:
        """How far this reading came."""
        if self.mark.method != "timestamp":
            return self.mark
        reading, last = self._reading, self._last
        before = last.since if last else None
        since = max(reading.latest, before or 0) or reading.now - CLOCKS_MS
        seen_at = last.seen_at if last and last.since == since and last.seen_at else reading.now
        return replace(self.mark, since=since, seen_at=seen_at)

    def _since(self, last: Mark) -> int:
        """From when on changes are read, Unix ms of the server's clock.

        A recent change may be followed by others that bear an earlier time, so those are read again. Once it is old,
        only what is later is read: many entries of one time are not read for ever.
        """
        latest, seen_at = last.since or 0, last.seen_at or 0
        old = max(seen_at - latest, seen_at and self._reading.now - seen_at) > CLOCKS_MS + MARGIN_MS
        return latest // 1000 * 1000 + 1000 if old else latest - MARGIN_MS

    def _note(self, search_filter: str) -> None:
        """Take note of who has changed, and of containers that are not where they were."""
        reading = self._reading
        wanted = [*split(reading.id), self._own_id, reading.preset.created, "objectClass", "isDeleted"]
        deleted = self.mark.method != "timestamp"
        containers = dict(self.mark.containers or {})
        for entry in reading.hook.entries(reading.root.partition, search_filter, wanted, show_deleted=deleted):
            if _CLASSES.isdisjoint(value.lower() for value in entry.values.get("objectclass", ())):
                if one := entry.id(reading.id):
                    self.keys.add(key(one))
            elif entry.text("isDeleted") != "TRUE" and (one := entry.id(self._own_id)):
                if self._has_moved(entry, containers.get(one)):
                    self.reason = f"{entry.dn} was renamed or moved, which changes nobody below it"
                    return
                if is_below(entry.dn, reading.base):
                    containers[one] = _digest(entry.dn)
        if self.mark.containers is not None:
            self._keep(containers)

    def _has_moved(self, container: Entry, known: str | None) -> bool:
        if known is not None:
            return known != _digest(container.dn)
        # Where they are not known, it may also have left the base.
        matters = self.mark.containers is None or is_below(container.dn, self._reading.base)
        return matters and not self._is_new(container)

    def _is_new(self, entry: Entry) -> bool:
        """Whether a container was made since the last reading: then whoever is below it has changed as well."""
        made = entry.text(self._reading.preset.created)
        last = self._last
        if last is None or made is None:
            return False
        if self.mark.method == "timestamp":
            return (generalized(made) or 0) >= self._since(last)
        return made.isdecimal() and int(made) > (last.usn or 0)

    def _keep(self, containers: dict[str, str]) -> None:
        self.mark = replace(self.mark, containers=containers if len(containers) <= MOST_CONTAINERS else None)

    @property
    def _replicated(self) -> list[str]:
        # A move changes the last two alone.
        return [*self._reading.wanted, "isDeleted", "name", "parentGUID"]

    def _dirsync(self, attributes: Sequence[str], cookie: bytes) -> bool:
        """Take note of who has changed since a cookie, and of the cookie after them; or that it is not allowed."""
        reading = self._reading
        try:
            for page, following in reading.hook.dirsync(
                reading.root.partition, "(objectClass=user)", attributes, cookie
            ):
                self.keys.update(key(one) for entry in page if (one := entry.id("objectGUID")))
                self.mark = replace(self.mark, cookie=base64.b64encode(following).decode())
        except PermanentError as error:
            self._log.warning("No DirSync, by uSNChanged instead: %s", error)
            self.keys.clear()
            self.mark = replace(self.mark, method="usn", cookie=None)
            return False
        return True

    def _by_guid(self) -> Iterator[Entry]:
        reading = self._reading
        keys = sorted(self.keys)
        for start in range(0, len(keys), IDS_A_SEARCH):
            tests = "".join(f"(objectGUID={escape_bytes(bytes_le(one))})" for one in keys[start : start + IDS_A_SEARCH])
            yield from reading.hook.entries(reading.base, f"(&{reading.filter}(|{tests}))", reading.wanted)


def bytes_le(uuid: bytes) -> bytes:
    """The bytes of a UUID as Active Directory stores them."""
    return uuid[3::-1] + uuid[5:3:-1] + uuid[7:5:-1] + uuid[8:]


def _time(ms: int) -> str:
    return f"{datetime.fromtimestamp(max(ms, 0) / 1000, UTC):%Y%m%d%H%M%S}Z"


def _digest(dn: str) -> str:
    return blake2b(normalized(dn).encode(), digest_size=6).hexdigest()
