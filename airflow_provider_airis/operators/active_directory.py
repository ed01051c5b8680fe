"""A directory's users, from Active Directory or another LDAP directory into the hub."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import msgspec
from airflow.sdk import timezone

from airflow_provider_airis.catalog import BY_STEM
from airflow_provider_airis.errors import PermanentError
from airflow_provider_airis.operators.base import CollectOperator, Delivered
from airflow_provider_airis.records import Event, User, Window, to_ms

if TYPE_CHECKING:
    from airflow_provider_airis.hooks.active_directory import ActiveDirectoryHook, Entry, Root
    from airflow_provider_airis.hooks.airis import AirisHook

Method = Literal["dirsync", "usn", "timestamp"]

SYNCED = "directory_synced"
# How far apart a directory's clock and ours may be, and how late a change may show after its time.
CLOCKS_MS = 600_000
MARGIN_MS = 300_000
IDS_A_SEARCH = 100
EXAMPLES = 5
_DISABLED = 0x2
_NEVER = (0, 0x7FFFFFFFFFFFFFFF)
_FILETIME_EPOCH_MS = 11_644_473_600_000
_DAY_MS = 86_400_000


class Preset(NamedTuple):
    """How a kind of directory keeps its users.

    :param filter: who is one.
    :param attributes: field of :class:`~airflow_provider_airis.records.User` → attribute, or several by commas: the
        first that has a value counts. ``id`` stays when all else changes, ``changed_at`` is the entry's last change.
    :param state: what says whether an account is enabled and when it expires.
    """

    filter: str
    attributes: dict[str, str]
    state: tuple[str, ...]


PRESETS = {
    "active_directory": Preset(
        "(&(objectCategory=person)(objectClass=user))",
        {
            "id": "objectGUID",
            "username": "sAMAccountName",
            "email": "mail",
            "display_name": "displayName",
            "department": "department",
            "title": "title",
            "groups": "memberOf",
            "manager": "manager",
            "changed_at": "whenChanged",
            "primary_group_id": "primaryGroupID",
        },
        ("userAccountControl", "accountExpires"),
    ),
    "openldap": Preset(
        "(objectClass=inetOrgPerson)",
        {
            "id": "entryUUID",
            "username": "uid",
            "email": "mail",
            "display_name": "displayName,cn",
            "department": "departmentNumber,ou",
            "title": "title",
            "groups": "memberOf",
            "manager": "manager",
            "changed_at": "modifyTimestamp",
        },
        ("pwdAccountLockedTime", "shadowExpire"),
    ),
}
_FIELDS = frozenset(User.__struct_fields__) - {"attributes", "enabled", "expires_at", "dn", "sync_timestamp"}


class Mark(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How far a sync has read, as the event ``directory_synced`` of the hub keeps it for the next one.

    :param scope: names what was read; another base, filter or attribute begins anew.
    :param server: whose mark it is, and ``invocation_id``: of which copy of its database.
    :param usn: Active Directory's highest committed update sequence number before the reading.
    :param cookie: of DirSync, base64.
    :param since: the latest change that was seen, Unix ms.
    """

    scope: str
    method: Method
    server: str
    invocation_id: str | None = None
    usn: int | None = None
    cookie: str | None = None
    since: int | None = None


class ActiveDirectoryToAirisOperator(CollectOperator):
    """Delivers the users of a directory into the hub: all of them, or what has changed since the last time.

    A **full** sync deactivates in the hub whom the directory no longer has. It is refused, and the task fails, when
    more than ``max_missing_share`` or ``max_missing`` of the hub's active users would be, when the result is empty,
    when entries come without their id or name (lost read rights), or when any page fails: then nothing is deactivated.

    An **incremental** sync reads what has changed, by DirSync (Active Directory, if asked for), by ``uSNChanged``
    (Active Directory) or by ``modifyTimestamp``. The hub keeps how far it came; where that is missing, or from another
    domain controller or for another selection, the sync is full.

    A directory shows its present only, so the run's window does not matter.

    :param ldap_conn_id: connection of type ``ldap``.
    :param source: the directory's name in the hub: each directory needs one of its own.
    :param mode: ``auto`` for incremental where possible, or ``full``.
    :param preset: ``active_directory`` or ``openldap``; what the server says it is, if ``auto``.
    :param base_dn: where to search; the connection's ``base_dn`` unless given.
    :param search_filter: who is a user, in place of the preset's.
    :param attributes: field of ``User`` → attribute, over the preset's: ``{"department": "ou"}``. Other names are read
        into the users' ``attributes``; an empty attribute is not read.
    :param group: distinguished name of a group: only its members.
    :param nested_groups: count groups in groups, for ``group`` and for the users' groups; Active Directory only.
    :param dirsync: read changes by DirSync, which needs the right *Replicating Directory Changes*.
    :param max_missing_share: of the hub's active users, how many a sync may deactivate; 1 for any.
    :param max_missing: likewise, as a number.
    :param dry_run: log what would change, the first ``shown`` of each kind by name, and send nothing.

    See https://learn.microsoft.com/windows/win32/ad/overview-of-change-tracking-techniques
    """

    system: ClassVar[str] = "active_directory"
    template_fields: Sequence[str] = (
        *CollectOperator.template_fields,
        "ldap_conn_id",
        "source",
        "mode",
        "preset",
        "base_dn",
        "search_filter",
        "attributes",
        "group",
    )

    def __init__(
        self,
        *,
        ldap_conn_id: str = "ldap_default",
        source: str = "active_directory",
        mode: Literal["auto", "full"] = "auto",
        preset: str = "auto",
        base_dn: str | None = None,
        search_filter: str | None = None,
        attributes: Mapping[str, str] | None = None,
        group: str | None = None,
        nested_groups: bool = False,
        dirsync: bool = False,
        max_missing_share: float = 0.1,
        max_missing: int = 500,
        dry_run: bool = False,
        shown: int = 20,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.ldap_conn_id = ldap_conn_id
        self.source = source
        self.mode = mode
        self.preset = preset
        self.base_dn = base_dn
        self.search_filter = search_filter
        self.attributes = attributes
        self.group = group
        self.nested_groups = nested_groups
        self.dirsync = dirsync
        self.max_missing_share = max_missing_share
        self.max_missing = max_missing
        self.shown = shown
        self._dry_run = dry_run

    @classmethod
    def mapped(cls, common: dict[str, Any], mapped: dict[str, list[Any]]) -> list[dict[str, Any]]:
        """A task a connection. The source of ``ldap_default`` is the option's; another's has its name behind it."""
        source, default = common.pop("source"), BY_STEM[cls.system].default_conn_id
        return [
            {"ldap_conn_id": conn_id, "source": source if conn_id == default else f"{source}-{conn_id}"}
            for conn_id in mapped["ldap_conn_id"]
        ]

    def collect(self, window: Window) -> Iterator[User]:  # type: ignore[override]  # noqa: ARG002
        """Yield every user of the directory, as a full sync reads them."""
        from airflow_provider_airis.hooks.active_directory import ActiveDirectoryHook

        with ActiveDirectoryHook(self.ldap_conn_id) as hook:
            yield from self._trusted(_Reader(self, hook))

    def deliver(self, hub: AirisHook, window: Window, delivery: str) -> Delivered:  # noqa: ARG002
        """Sync the users, then leave the mark from which the next sync goes on."""
        from airflow_provider_airis.hooks.active_directory import ActiveDirectoryHook

        with ActiveDirectoryHook(self.ldap_conn_id) as hook:
            reader = _Reader(self, hook)
            mark, reason = self._mark(hub, reader) if self.mode == "auto" else (None, "it was asked for")
            changes = None if mark is None else reader.changes(mark)
            if changes is None:
                self.log.info("Full sync of %s: %s", self.source, reason)
                return self._full(hub, reader, delivery)
            self.log.info("Incremental sync of %s from %s by %s", self.source, reader.root.server, reader.mark.method)
            return self._delta(hub, reader, delivery, changes)

    def _full(self, hub: AirisHook, reader: _Reader, delivery: str) -> Delivered:
        reader.prepare()
        known = {_key(user["id"]) for user in hub.users(source=self.source, active=True)}
        before, missing = len(known), known

        def users() -> Iterator[User]:
            for user in self._trusted(reader):
                missing.discard(_key(user.id))
                yield user
            reader.check_names(missing)
            self._believe(missing, before, hub)

        if self._dry_run:
            return self._shown(hub, users(), lambda: missing)
        return self._sent(hub, reader, delivery, "full", users(), ())

    def _delta(self, hub: AirisHook, reader: _Reader, delivery: str, changes: Iterable[Entry]) -> Delivered:
        gone = reader.changed

        def users() -> Iterator[User]:
            for user in reader.users(changes):
                gone.discard(_key(user.id))
                yield user
            reader.check_rights(among=IDS_A_SEARCH)
            gone.difference_update(reader.nameless)

        def deleted() -> Iterator[str]:
            if not gone:
                return
            before, ids = 0, []
            for user in hub.users(source=self.source, active=True):
                before += 1
                if _key(user["id"]) in gone:
                    ids.append(user["id"])
            self._believe({_key(one) for one in ids}, before, hub)
            yield from ids

        if self._dry_run:
            return self._shown(hub, users(), lambda: {_key(one) for one in deleted()})
        return self._sent(hub, reader, delivery, "delta", users(), deleted())

    def _trusted(self, reader: _Reader) -> Iterator[User]:
        """The users of a full reading, which is an error if it cannot be all."""
        read = 0
        for user in reader.users(reader.everybody()):
            read += 1
            yield user
        reader.check_rights()
        if not read and self.max_missing_share < 1:
            raise PermanentError(
                f"The directory {self.source} is empty: nobody below {reader.base!r} on {reader.root.server} meets "
                f"{reader.filter}, or the login may read none of them. Nothing was deactivated. "
                "Check base_dn, search_filter, group and the login's rights"
            )

    def _believe(self, missing: set[bytes], before: int, hub: AirisHook) -> None:
        """Accept that these have left, unless they are too many.

        :raises PermanentError: they are; it says how many, who and what to do.
        """
        if len(missing) <= self.max_missing_share * before and len(missing) <= self.max_missing:
            return
        names = []
        for user in hub.users(source=self.source, active=True):
            if _key(user["id"]) in missing:
                names.append(user["username"])
                if len(names) == EXAMPLES:
                    break
        raise PermanentError(
            f"{len(missing)} of {before} users of {self.source} would be deactivated ({len(missing) / before:.1%}), "
            f"among them {', '.join(names)}: more than max_missing_share={self.max_missing_share} or "
            f"max_missing={self.max_missing} allows. Nothing was deactivated. Check base_dn, search_filter, group and "
            "the login's rights; if they have really left, raise both once"
        )

    def _sent(
        self,
        hub: AirisHook,
        reader: _Reader,
        delivery: str,
        sync_type: Literal["full", "delta"],
        users: Iterator[User],
        deleted: Iterable[str],
    ) -> Delivered:
        sent = hub.sync_users(
            users, source=self.source, sync_type=sync_type, sync_id=delivery, timestamp=reader.now, deleted=deleted
        )
        figures = {
            "mode": sync_type,
            "method": reader.mark.method,
            "server": reader.root.server,
            "users": sent.users,
            "created": sent.created,
            "updated": sent.updated,
            "deactivated": sent.deactivated,
            "duplicates": sent.duplicates,
            "rejected": sent.rejected,
            "skipped": reader.skipped,
            "calls": sent.calls,
        }
        hub.event(
            Event(
                event_type=SYNCED,
                source=self.source,
                severity="info",
                timestamp=reader.now,
                data={**figures, "mark": msgspec.to_builtins(reader.reached())},
                key=f"{SYNCED}/{self.source}/{delivery}",
            )
        )
        return Delivered(sent.users, figures, sent.refusals)

    def _shown(self, hub: AirisHook, users: Iterator[User], missing: Callable[[], set[bytes]]) -> Delivered:
        """What a sync would change, in the log."""
        known = {_key(user["id"]): _content(user) for user in hub.users(source=self.source, active=True)}
        names: dict[str, list[str]] = {"created": [], "updated": [], "deactivated": []}
        counts = dict.fromkeys(names, 0)
        refused, gone = "", set[bytes]()

        def count(change: str, name: str) -> None:
            counts[change] += 1
            if len(names[change]) < self.shown:
                names[change].append(name)

        try:
            for user in users:
                content = known.get(_key(user.id))
                if content != _content(msgspec.to_builtins(user)):
                    count("created" if content is None else "updated", user.username)
            gone = missing()
        except PermanentError as error:
            refused = str(error)
        for lost in hub.users(source=self.source, active=True) if gone else ():
            if _key(lost["id"]) in gone:
                count("deactivated", lost["username"])
        for change, found in names.items():
            more = "" if counts[change] == len(found) else ", …"
            self.log.info("Would be %s: %d %s%s", change, counts[change], ", ".join(found), more)
        if refused:
            self.log.warning("And it would be refused: %s", refused)
        return Delivered(0, {"mode": "dry run", **counts, "rejected": 0, "refused": refused}, ())

    def _mark(self, hub: AirisHook, reader: _Reader) -> tuple[Mark | None, str]:
        """How far the last sync came, None with the reason where that is of no use."""
        try:
            events = hub.events(source=self.source, event_type=SYNCED, limit=1)
        except PermanentError as error:
            return None, f"the hub does not show how far the last one came ({error})"
        if not events:
            return None, "it is the first one"
        try:
            mark = msgspec.convert(events[0]["data"]["mark"], Mark)
        except (KeyError, TypeError, msgspec.ValidationError):
            return None, "what the hub has of the last one is not understood"
        return (mark, "") if not (reason := reader.differs(mark)) else (None, reason)


class _Reader:
    """One reading of a directory: what is asked of it, and what its entries mean."""

    def __init__(self, operator: ActiveDirectoryToAirisOperator, hook: ActiveDirectoryHook) -> None:
        from airflow_provider_airis.hooks.active_directory import IN_CHAIN, escape

        self.log = operator.log
        self.hook = hook
        self.now = to_ms(timezone.utcnow())
        self.root: Root = hook.root_once
        name = operator.preset
        if name == "auto":
            name = "active_directory" if self.root.active_directory else "openldap"
        if name not in PRESETS:
            raise PermanentError(f"preset={name!r} is none of auto, {', '.join(PRESETS)}", pointer="/preset")
        self.preset = PRESETS[name]
        self.base = operator.base_dn or self.root.base
        self.nested = operator.nested_groups and self.root.active_directory
        self.map = {**self.preset.attributes, **(operator.attributes or {})}
        if not self.map["id"] or not self.map["username"]:
            raise PermanentError("attributes must name one for id and one for username", pointer="/attributes")
        names = [one.strip() for value in self.map.values() for one in value.split(",")]
        self.wanted = list(dict.fromkeys(filter(None, (*names, *self.preset.state))))
        self.filter = _parenthesized(operator.search_filter or self.preset.filter)
        if operator.group:
            rule = f"memberOf:{IN_CHAIN}:" if self.nested else "memberOf"
            self.filter = f"(&{self.filter}({rule}={escape(operator.group)}))"
        self.changed: set[bytes] = set()
        self.nameless: set[bytes] = set()
        self.entries = self.skipped = self.latest = 0
        self._above: dict[str, list[str]] = {}
        asked = [name, self.base, self.filter, sorted(self.map.items()), self.nested]
        usable = self.root.active_directory and self.root.usn is not None and self.root.invocation_id
        method: Method = ("dirsync" if operator.dirsync else "usn") if usable else "timestamp"
        self.mark = Mark(
            scope=blake2b(json.dumps(asked).encode(), digest_size=8).hexdigest(),
            method=method,
            server=self.root.server,
            invocation_id=self.root.invocation_id,
            usn=self.root.usn,
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

    def everybody(self) -> Iterator[Entry]:
        """Every entry that is a user."""
        return self.hook.entries(self.base, self.filter, self.wanted)

    def prepare(self) -> None:
        """Before a full reading: where the next incremental one begins."""
        if self.mark.method == "dirsync":
            self._dirsync(["objectGUID"], b"")
            self.changed.clear()

    def changes(self, last: Mark) -> Iterator[Entry] | None:
        """The users that have changed since, once ``changed`` has everybody's keys of whom anything has.

        In this order: who is in ``changed`` and not among the users has left. None if only a full reading tells.
        """
        if (
            self.mark.method == "dirsync"
            and last.cookie
            and self._dirsync(self._replicated, base64.b64decode(last.cookie))
        ):
            return self._by_id()
        if self.root.active_directory and last.usn is not None:
            since = f"(uSNChanged>={last.usn + 1})"
            tombstones = f"(&(isDeleted=TRUE)(objectClass=user){since})"
            self._changed(self.root.partition, tombstones, show_deleted=True)
        else:
            self.latest = last.since or 0
            at = datetime.fromtimestamp((self.latest - MARGIN_MS) / 1000, UTC)
            since = f"(modifyTimestamp>={at:%Y%m%d%H%M%S}Z)"
        self._changed(self.root.partition, f"(&{self.preset.filter}{since})")
        return self.hook.entries(self.base, f"(&{self.filter}{since})", self.wanted)

    def users(self, entries: Iterable[Entry]) -> Iterator[User]:
        """What the entries mean; those without a name are counted and left out."""
        for entry in entries:
            self.entries += 1
            one = entry.id(self.map["id"])
            name = entry.text(self.map["username"])
            if not one or not name:
                self.skipped += 1
                if one:
                    self.nameless.add(_key(one))
                continue
            yield self._user(entry, one, name)

    def check_rights(self, *, among: int = 1) -> None:
        """Accept that some entries came without an id or a name, unless they are too many.

        :param among: fewer entries than that say nothing.
        :raises PermanentError: they are more than one in ten.
        """
        if self.entries >= among and self.skipped > self.entries / 10:
            raise PermanentError(
                f"{self.skipped} of {self.entries} entries below {self.base!r} on {self.root.server} came without "
                f"{self.map['id']} or {self.map['username']}: the login may have lost the right to read them. Nothing "
                "was deactivated. Give it the right, or let search_filter ask for entries that have both"
            )

    def check_names(self, missing: set[bytes]) -> None:
        """Accept that none of these, whom the hub knows, is there still.

        :raises PermanentError: some came without a name: the login may not read it any more.
        """
        if count := len(missing & self.nameless):
            raise PermanentError(
                f"{count} users whom the hub knows came without {self.map['username']} from {self.root.server}: the "
                "login may have lost the right to read it. Nothing was deactivated. Give it the right; or, if they "
                "are to leave the hub, let search_filter leave them out"
            )

    def reached(self) -> Mark:
        """How far this reading came."""
        if self.mark.method != "timestamp":
            return self.mark
        # An entry's time is the server's: a slow clock must not hide a change, a wrong one not stop the reading.
        latest = min(self.latest, self.now + CLOCKS_MS)
        return msgspec.structs.replace(self.mark, since=max(latest, self.now - CLOCKS_MS))

    @property
    def _replicated(self) -> list[str]:
        # A move changes the last two alone.
        return [*self.wanted, "isDeleted", "name", "parentGUID"]

    def _dirsync(self, attributes: Sequence[str], cookie: bytes) -> bool:
        """Take note of who has changed since a cookie, and of the cookie behind them; or that it is not allowed."""
        try:
            for page, following in self.hook.dirsync(self.root.partition, "(objectClass=user)", attributes, cookie):
                self.changed.update(_key(one) for entry in page if (one := entry.id("objectGUID")))
                self.mark = msgspec.structs.replace(self.mark, cookie=base64.b64encode(following).decode())
        except PermanentError as error:
            self.log.warning("No DirSync, by uSNChanged instead: %s", error)
            self.changed.clear()
            self.mark = msgspec.structs.replace(self.mark, method="usn", cookie=None)
            return False
        return True

    def _by_id(self) -> Iterator[Entry]:
        from airflow_provider_airis.hooks.active_directory import escape_bytes

        keys = sorted(self.changed)
        for start in range(0, len(keys), IDS_A_SEARCH):
            some = keys[start : start + IDS_A_SEARCH]
            ids = "".join(f"(objectGUID={escape_bytes(_bytes_le(key))})" for key in some)
            yield from self.hook.entries(self.base, f"(&{self.filter}(|{ids}))", self.wanted)

    def _changed(self, base: str, search_filter: str, *, show_deleted: bool = False) -> None:
        attribute = self.map["id"]
        for entry in self.hook.entries(base, search_filter, [attribute], show_deleted=show_deleted):
            if one := entry.id(attribute):
                self.changed.add(_key(one))

    def _user(self, entry: Entry, one: str, name: str) -> User:
        text = {field: entry.text(attribute) for field, attribute in self.map.items() if attribute and field != "id"}
        changed_at = _generalized(text.get("changed_at"))
        self.latest = max(self.latest, changed_at or 0)
        groups = entry.texts(self.map["groups"]) if self.map["groups"] else []
        if self.nested:
            groups = self._nested(groups)
        enabled, expires_at = self._state(entry)
        return User(
            id=one,
            username=name,
            email=text.get("email"),
            display_name=text.get("display_name"),
            department=text.get("department"),
            title=text.get("title"),
            dn=entry.dn,
            groups=sorted(groups),
            manager=text.get("manager"),
            enabled=enabled,
            expires_at=expires_at,
            changed_at=changed_at,
            sync_timestamp=self.now,
            attributes={field: value for field, value in text.items() if value and field not in _FIELDS},
        )

    def _nested(self, groups: list[str]) -> list[str]:
        found = set(groups)
        for group in groups:
            if group not in self._above:
                self._above[group] = self.hook.groups_above(group)
            found.update(self._above[group])
        return list(found)

    def _state(self, entry: Entry) -> tuple[bool, int | None]:
        """Whether the account is enabled, and when it expires.

        A lockout after wrong passwords is no reason to call it disabled: it passes.
        See https://learn.microsoft.com/windows/win32/adschema/a-useraccountcontrol and
        https://datatracker.ietf.org/doc/html/draft-behera-ldap-password-policy
        """
        control, expires = _int(entry.text("userAccountControl")), _int(entry.text("accountExpires"))
        if control is not None or expires is not None:
            at = None if expires is None or expires in _NEVER else expires // 10_000 - _FILETIME_EPOCH_MS
            return not (control or 0) & _DISABLED, at
        days = _int(entry.text("shadowExpire"))
        locked_for_good = entry.text("pwdAccountLockedTime") == "000001010000Z"
        return not locked_for_good, days * _DAY_MS if days is not None and days > 0 else None


def _key(one: str) -> bytes:
    """16 bytes of an id: those of a UUID, or a hash."""
    digits = one.replace("-", "")
    if len(digits) == 32:
        try:
            return bytes.fromhex(digits)
        except ValueError:
            pass
    return blake2b(one.encode(), digest_size=16).digest()


def _bytes_le(key: bytes) -> bytes:
    return key[3::-1] + key[5:3:-1] + key[7:5:-1] + key[8:]


def _content(user: dict[str, Any]) -> bytes:
    """16 bytes of all that a sync would change of a user."""
    plain = {field: value for field, value in user.items() if field in User.__struct_fields__ and value}
    plain |= {"sync_timestamp": 0, "enabled": user.get("enabled", True)}
    return blake2b(msgspec.json.encode(plain, order="deterministic"), digest_size=16).digest()


def _generalized(value: str | None) -> int | None:
    """Unix ms of ``20261123060000Z`` or ``20261123060000.0Z``."""
    if value is None or len(value) < 15 or not value[:14].isdecimal():
        return None
    try:
        return to_ms(datetime.fromisoformat(f"{value[:8]}T{value[8:14]}+00:00"))
    except ValueError:
        return None


def _int(value: str | None) -> int | None:
    try:
        return None if value is None else int(value)
    except ValueError:
        return None


def _parenthesized(search_filter: str) -> str:
    return search_filter if search_filter.startswith("(") else f"({search_filter})"
