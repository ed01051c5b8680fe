"""Which groups people belong to: as their entries say, or as the groups' entries do."""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from airflow_provider_airis.errors import PermanentError
from airflow_provider_airis.hooks.ldap_entries import Entry, escape, normalized, split

if TYPE_CHECKING:
    from airflow_provider_airis.hooks.active_directory import ActiveDirectoryHook

GROUPS = "(|(objectClass=groupOfNames)(objectClass=groupOfUniqueNames)(objectClass=posixGroup)(objectClass=group))"
# A filter names each of them.
MOST_GROUPS = 1000
_READ = ("member", "uniqueMember", "memberUid", "gidNumber")
# A member of groupOfUniqueNames may have a number behind its name (RFC 4517, 3.3.21).
_OPTIONAL_UID = re.compile(r"#'[01]*'B$")


class Groups(Protocol):
    """The groups of people."""

    wanted: tuple[str, ...]

    def of(self, entry: Entry, username: str) -> list[str]:
        """Distinguished names of the groups of an entry."""

    def restriction(self, group: str) -> str:
        """A filter for the members of a group; empty where only :meth:`has` can tell."""

    def has(self, group: str, entry: Entry, username: str) -> bool:
        """Whether an entry that meets :meth:`restriction` is a member of a group."""


class GroupsOfPeople:
    """What an attribute of theirs says: ``memberOf``.

    :param names: the attributes.
    :param nested: whether groups in groups count.
    """

    def __init__(self, hook: ActiveDirectoryHook, names: str, *, nested: bool) -> None:
        self.wanted: tuple[str, ...] = ()
        self._hook = hook
        self._names = split(names)
        self._nested = nested
        self._above: dict[str, list[str]] = {}

    def of(self, entry: Entry, username: str) -> list[str]:  # noqa: ARG002
        """Distinguished names of the groups of an entry."""
        for name in self._names:
            if values := entry.values.get(name):
                groups = [value.decode("utf-8", "replace") for value in values]
                return self._with_above(groups) if self._nested else groups
        return []

    def _with_above(self, groups: list[str]) -> list[str]:
        found, new = set(groups), list(groups)
        while new:
            group = new.pop()
            if group not in self._above:
                self._above[group] = self._hook.groups_above(group)
            new += (more := set(self._above[group]) - found)
            found |= more
        return list(found)

    def restriction(self, group: str) -> str:
        """A filter for the members of a group."""
        from airflow_provider_airis.hooks.active_directory import IN_CHAIN

        if self._nested and self._hook.root_once.active_directory:
            return f"(memberOf:{IN_CHAIN}:={escape(group)})"
        groups = sorted(self._below(group)) if self._nested else [group]
        tests = "".join(f"({self._attribute}={escape(one)})" for one in groups)
        return tests if len(groups) == 1 else f"(|{tests})"

    def has(self, group: str, entry: Entry, username: str) -> bool:  # noqa: ARG002
        """The filter has said so."""
        return True

    @property
    def _attribute(self) -> str:
        return "memberOf" if "memberof" in self._names or not self._names else self._names[0]

    def _below(self, group: str) -> set[str]:
        """A group and the groups in it."""
        found, new = {group}, [group]
        while new:
            search = f"(&{GROUPS}({self._attribute}={escape(new.pop())}))"
            more = {entry.dn for entry in self._hook.entries(self._hook.root_once.partition, search)} - found
            found |= more
            new += more
            if len(found) > MOST_GROUPS:
                raise PermanentError(
                    f"{group} has more than {MOST_GROUPS} groups in it: name a smaller one, or set groups_by to members"
                )
        return found


class GroupsWithMembers:
    """What the groups say: ``member``, ``uniqueMember``, ``memberUid``, and ``gidNumber`` of people's main groups.

    All of them are read once, when the first person is; they are in memory as long as the reading lasts.

    See https://datatracker.ietf.org/doc/html/rfc2307
    """

    def __init__(self, hook: ActiveDirectoryHook, *, nested: bool) -> None:
        self.wanted: tuple[str, ...] = ("gidNumber",)
        self._hook = hook
        self._nested = nested

    @cached_property
    def _holding(self) -> dict[str, list[str]]:
        """What a group's entry names → the groups that do."""
        holding: dict[str, list[str]] = {}
        for group in self._hook.entries(self._hook.root_once.partition, GROUPS, _READ):
            members = {normalized(dn) for dn in group.texts("member")}
            members |= {normalized(_OPTIONAL_UID.sub("", dn)) for dn in group.texts("uniqueMember")}
            members |= {f"uid {name}" for name in group.texts("memberUid")}
            members |= {f"gid {number}" for number in group.texts("gidNumber")}
            for member in members:
                holding.setdefault(member, []).append(group.dn)
        return holding

    def of(self, entry: Entry, username: str) -> list[str]:
        """Distinguished names of the groups of an entry."""
        new = [normalized(entry.dn), f"uid {username}", *(f"gid {number}" for number in entry.texts("gidNumber"))]
        found: set[str] = set()
        while new:
            more = set(self._holding.get(new.pop(), ())) - found
            found |= more
            new += map(normalized, more) if self._nested else ()
        return list(found)

    def restriction(self, group: str) -> str:  # noqa: ARG002
        """No filter tells."""
        return ""

    def has(self, group: str, entry: Entry, username: str) -> bool:
        """Whether an entry is a member of a group."""
        wanted = normalized(group)
        return any(normalized(one) == wanted for one in self.of(entry, username))
