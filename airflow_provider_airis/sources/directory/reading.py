"""One reading of a directory: what is asked of it, and who its entries are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import msgspec

from airflow_provider_airis.errors import PermanentError
from airflow_provider_airis.hooks.ldap_entries import Entry, Root, id_filter, split
from airflow_provider_airis.records import User
from airflow_provider_airis.sources.directory.groups import Groups, GroupsOfPeople, GroupsWithMembers
from airflow_provider_airis.sources.directory.people import People, Shared
from airflow_provider_airis.sources.directory.presets import PRESETS, UNIQUE_IDS, is_built_in

if TYPE_CHECKING:
    from airflow_provider_airis.hooks.active_directory import ActiveDirectoryHook

T = TypeVar("T")
IDS_A_SEARCH = 100


class Selection(NamedTuple):
    """Who is read and how, as the operator's parameters of the same names say."""

    source: str
    preset: str = "auto"
    base_dn: str | None = None
    search_filter: str | None = None
    attributes: Mapping[str, str] = {}
    disabled_if: str = ""
    group: str | None = None
    groups_by: str = "memberof"
    nested_groups: bool = False
    dirsync: bool = False


class Reading:
    """Reads the people of a selection.

    :param now: when, Unix ms.
    :raises PermanentError: the selection names something that there is not.
    """

    def __init__(self, selection: Selection, hook: ActiveDirectoryHook, now: int) -> None:
        self.hook = hook
        self.now = now
        self.selection = selection
        self.root: Root = hook.root_once
        name = _preset(selection.preset, self.root)
        self.preset = PRESETS[name]
        self.base = selection.base_dn or self.root.base
        memberof = (selection.attributes or {}).get("groups", self.preset.attributes["groups"])
        self.groups: Groups
        if selection.groups_by == "members":
            self.groups = GroupsWithMembers(hook, nested=selection.nested_groups)
        elif selection.groups_by == "memberof":
            self.groups = GroupsOfPeople(hook, memberof, nested=selection.nested_groups)
        else:
            raise PermanentError(
                f"groups_by={selection.groups_by!r} is neither memberof nor members", pointer="/groups_by"
            )
        self.people = People(self.preset, selection.attributes or {}, selection.disabled_if, self.groups.of, now)
        self.id = self.people.map["id"]
        # Whether the directory itself gives the ids, and never twice.
        self._unique = len(names := split(self.id)) == 1 and names[0] in UNIQUE_IDS
        self.wanted = [*self.people.wanted, *self.groups.wanted]
        # With a filter of one's own, whoever meets it is meant.
        self._built_in = name == "active_directory" and not selection.search_filter
        if self._built_in:
            self.wanted.append("objectSid")
        self.filter = _parenthesized(selection.search_filter or self.preset.filter)
        if selection.group and (members := self.groups.restriction(selection.group)):
            self.filter = f"(&{self.filter}{members})"
        self.nameless: set[bytes] = set()
        self.shared: dict[str, Shared] = {}
        self.entries = self.skipped = self.stateless = self.latest = 0
        # What every user of that kind of directory has: without it nobody knows who is disabled.
        self._state = "" if selection.disabled_if else self.preset.state
        asked = [name, self.base, self.filter, sorted(self.people.map.items()), selection.nested_groups]
        if (more := (selection.disabled_if, selection.groups_by, selection.group)) != ("", "memberof", selection.group):
            asked.append(more)
        self.scope = blake2b(msgspec.json.encode(asked), digest_size=8).hexdigest()

    def everybody(self) -> Iterator[Entry]:
        """Every entry that is a user."""
        return self.hook.entries(self.base, self.filter, self.wanted)

    def by_id(self, ids: Iterable[str]) -> Iterator[Entry]:
        """The entries with these ids, as far as they are users."""
        for some in _chunks(ids, IDS_A_SEARCH):
            wanted = set(some)
            tests = "".join(id_filter(self.id, one) for one in some)
            for entry in self.hook.entries(self.base, f"(&{self.filter}(|{tests}))", self.wanted):
                if entry.id(self.id) in wanted:
                    yield entry

    def users(self, entries: Iterable[Entry]) -> Iterator[User]:
        """Who the entries are; those without a name, and with an id that others have too, are counted and left out."""
        seen: set[str] = set()
        group = self.selection.group
        for entry, one, name in self._named(entries):
            if not self._unique:
                if one in seen:
                    raise PermanentError(
                        f"{entry.dn} has got the id {one!r} while {self.selection.source} was read, and somebody else "
                        "has it, too. Nothing was deactivated. Read it again"
                    )
                seen.add(one)
            if group and not self.groups.has(group, entry, name):
                continue
            user = self.people.user(entry, one, name)
            # A time in the future is not the clock's, and would hide what others change until then.
            if user.changed_at and self.latest < user.changed_at <= self.now:
                self.latest = user.changed_at
            yield user

    def _named(self, entries: Iterable[Entry]) -> Iterator[tuple[Entry, str, str]]:
        """The entries of people with their ids and user names."""
        for entry in entries:
            if self._built_in and is_built_in(entry):
                continue
            self.entries += 1
            one, name = entry.id(self.id), self.people.username(entry)
            if not one or not name:
                self.skipped += 1
                if one:
                    self.nameless.add(key(one))
                continue
            if self._state and self._state not in entry.values:
                self.stateless += 1
            if one not in self.shared:
                yield entry, one, name

    def find_shared(self, among: Iterable[str] | None = None) -> None:
        """Look for ids that several entries have, unless the directory gives them; ``users`` leaves those out.

        :param among: only these ids; of all entries if None.
        """
        if self._unique:
            return
        names = list(split(self.id))
        first: dict[str, str] = {}
        for search in self._searches(among):
            for entry in self.hook.entries(self.base, search, names):
                if not (one := entry.id(self.id)) or first.setdefault(one, entry.dn) == entry.dn:
                    continue
                shared = self.shared.setdefault(one, Shared(one, [first[one]]))
                if entry.dn not in shared.dns:
                    shared.dns.append(entry.dn)

    def _searches(self, among: Iterable[str] | None) -> Iterator[str]:
        if among is None:
            yield self.filter
            return
        for some in _chunks(among, IDS_A_SEARCH):
            yield f"(&{self.filter}(|{''.join(id_filter(self.id, one) for one in some)}))"

    def unshared(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """The entries, once it is known which of their ids others have too."""
        if self._unique:
            yield from entries
            return
        for some in _chunks(entries, IDS_A_SEARCH):
            self.find_shared({one for entry in some if (one := entry.id(self.id))})
            yield from some

    @property
    def refusals(self) -> list[str]:
        """Why the entries with a shared id are refused, a sentence each."""
        return [text for shared in self.shared.values() for text in shared.refusals(self.id)]

    def check_rights(self, *, among: int = 1) -> None:
        """Accept that some entries came without an id, a name or their state, unless they are too many.

        :param among: fewer entries than that say nothing.
        :raises PermanentError: they are more than one in ten.
        """
        if self.entries >= among and self.skipped > self.entries / 10:
            raise PermanentError(
                f"{self.skipped} of {self.entries} entries below {self.base!r} on {self.root.server} came without "
                f"{self.id} or {self.people.map['username']}: the login may have lost the right to read them. Nothing "
                "was deactivated. Give it the right, or let search_filter ask for entries that have both"
            )

        if self.stateless > self.entries / 10 and self.entries >= among:
            raise PermanentError(
                f"{self.stateless} of {self.entries} entries below {self.base!r} on {self.root.server} came without "
                f"{self._state}, which says whether they are disabled: the login may have lost the right to read it. "
                "Nothing was changed. Give it the right, or set disabled_if"
            )

    def check_names(self, missing: set[bytes]) -> None:
        """Accept that none of these, whom the hub knows, is there still.

        :raises PermanentError: some came without a name: the login may not read it any more.
        """
        if count := len(missing & self.nameless):
            raise PermanentError(
                f"{count} users whom the hub knows came without {self.people.map['username']} from "
                f"{self.root.server}: the login may have lost the right to read it. Nothing was deactivated. Give it "
                "the right; or, if they are to leave the hub, let search_filter leave them out"
            )


def key(one: str) -> bytes:
    """16 bytes of an id: those of a UUID, or a hash."""
    digits = one.replace("-", "")
    if len(digits) == 32:
        try:
            return bytes.fromhex(digits)
        except ValueError:
            pass
    return blake2b(one.encode(), digest_size=16).digest()


def _preset(name: str, root: Root) -> str:
    if name == "auto":
        other = "389ds" if root.vendor.startswith("389") else "openldap"
        return "active_directory" if root.active_directory else other
    if name not in PRESETS:
        raise PermanentError(f"preset={name!r} is none of auto, {', '.join(PRESETS)}", pointer="/preset")
    return name


def _chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some


def _parenthesized(search_filter: str) -> str:
    return search_filter if search_filter.startswith("(") else f"({search_filter})"
