"""A directory's users, from Active Directory or another LDAP directory into the hub."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import msgspec
from airflow.sdk import timezone

from airflow_provider_airis.catalog import BY_STEM
from airflow_provider_airis.errors import PermanentError, RetryableError
from airflow_provider_airis.records import Event, User, Window, to_ms
from airflow_provider_airis.sources.base import CollectOperator, Delivered
from airflow_provider_airis.sources.directory.changes import Changes
from airflow_provider_airis.sources.directory.preview import Preview
from airflow_provider_airis.sources.directory.reading import IDS_A_SEARCH, Reading, Selection, key
from airflow_provider_airis.sources.directory.state import SYNCED, DirectoryState
from airflow_provider_airis.sources.registry import check_deletion_threshold

SyncType = Literal["full", "delta"]

if TYPE_CHECKING:
    from airflow_provider_airis.hooks.active_directory import ActiveDirectoryHook
    from airflow_provider_airis.hooks.airis import AirisHook, UserSyncSummary
    from airflow_provider_airis.hooks.ldap_entries import Entry


class ActiveDirectoryToAirisOperator(CollectOperator):
    """Delivers the users of a directory into the hub: all of them, or what has changed since the last time.

    A **full** sync deactivates in the hub whom the directory no longer has. Each is asked for by id first. It is
    refused, and the task fails, when more than ``max_missing`` or ``max_missing_share`` of the known users would be,
    when the result is empty, when entries come without their id or name (lost read rights), or when any page fails:
    then nothing is deactivated.

    An **incremental** sync reads what has changed, by DirSync (Active Directory, if asked for), by ``uSNChanged``
    (Active Directory) or by ``modifyTimestamp``. A checkpoint keeps how far it came; where that is missing, or from
    another domain controller or for another selection, and where an organisational unit was renamed or moved, the sync
    is full.

    A directory shows its present only, so the run's window does not matter.

    :param ldap_conn_id: connection of type ``ldap``.
    :param source: the directory's name in the hub: each directory needs one of its own.
    :param mode: ``auto`` for incremental where possible, or ``full``.
    :param preset: ``active_directory``, ``openldap`` or ``389ds``; what the server says it is, if ``auto``.
    :param base_dn: where to search; the connection's ``base_dn`` unless given.
    :param search_filter: who is a user, in place of the preset's.
    :param attributes: field of ``User`` → attribute, over the preset's: ``{"department": "ou"}``. Other names are read
        into the users' ``attributes``; an empty attribute is not read. Commas separate attributes of which the first
        with a value counts.
    :param disabled_if: when an account is disabled, in place of the preset's: ``attribute=value``,
        ``attribute!=value``, ``attribute&bits`` or ``attribute``, separated by commas; one that holds is enough.
    :param group: distinguished name of a group: only its members.
    :param groups_by: ``memberof``, an attribute of the users; or ``members``: the groups' entries are read
        (``posixGroup``, ``groupOfNames``, ``groupOfUniqueNames``).
    :param nested_groups: count groups in groups, for ``group`` and for the users' groups.
    :param dirsync: read changes by DirSync, which needs the right *Replicating Directory Changes*.
    :param max_missing: of the known users, how many a sync may deactivate.
    :param max_missing_share: likewise, as a share; 1 for any. The smaller bound of the two counts.
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
        "disabled_if",
        "group",
        "groups_by",
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
        disabled_if: str = "",
        group: str | None = None,
        groups_by: str = "memberof",
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
        self.disabled_if = disabled_if
        self.group = group
        self.groups_by = groups_by
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
            reading = self.reading(hook)
            reading.find_shared()
            yield from self._all(reading)

    def deliver(self, hub: AirisHook, window: Window, delivery: str) -> Delivered:  # noqa: ARG002
        """Sync the users, then leave the checkpoint from which the next sync goes on."""
        from airflow_provider_airis.hooks.active_directory import ActiveDirectoryHook

        with ActiveDirectoryHook(self.ldap_conn_id) as directory:
            sync = _Sync(self, hub, directory, delivery)
            return sync.preview() if self._dry_run else sync.run()

    def reading(self, hook: ActiveDirectoryHook) -> Reading:
        """A reading of what the parameters select."""
        selection = Selection(
            self.source,
            self.preset,
            self.base_dn,
            self.search_filter,
            self.attributes or {},
            self.disabled_if,
            self.group,
            self.groups_by,
            self.nested_groups,
            self.dirsync,
        )
        return Reading(selection, hook, to_ms(timezone.utcnow()))

    def _all(self, reading: Reading) -> Iterator[User]:
        """The users of a full reading, which is an error if it cannot be all."""
        empty = True
        for user in reading.users(reading.everybody()):
            empty = False
            yield user
        reading.check_rights()
        if empty and not reading.shared and self.max_missing_share < 1:
            raise PermanentError(
                f"The directory {self.source} is empty: nobody below {reading.base!r} on {reading.root.server} meets "
                f"{reading.filter}, or the login may read none of them. Nothing was deactivated. "
                "Check base_dn, search_filter, group and the login's rights"
            )


class _Sync:
    """One run of the operator: what it reads, sends and remembers."""

    def __init__(
        self, operator: ActiveDirectoryToAirisOperator, hub: AirisHook, directory: ActiveDirectoryHook, delivery: str
    ) -> None:
        self.operator = operator
        self.hub = hub
        self.delivery = delivery
        self.log = operator.log
        self.reading = operator.reading(directory)
        self.changes = Changes(self.reading, self.log)
        self.state = DirectoryState(hub, operator.source)
        self.left: set[bytes] = set()
        self._seen: dict[str, str] = {}
        self._gone: list[str] = []

    def run(self) -> Delivered:
        """Sync what has changed, or everybody."""
        from airflow_provider_airis.hooks.airis import UserSyncSummary

        found = self._changed()
        if found is None:
            return self._sent("full", self.everybody(), ())
        if found == () and not self.changes.keys:
            return self._done("delta", UserSyncSummary())
        if self.hub.offers("integrations.user-sync"):
            return self._sent("delta", self.some(found), self._deleted())
        # A hub that only takes what its document has learns from a full sync who has left.
        some = list(self.some(found))
        if not (gone := list(self._deleted())):
            return self._sent("delta", iter(some), ())
        self.log.info("Full sync of %s: %d have left", self.operator.source, len(gone))
        self.reading.entries = self.reading.skipped = self.reading.stateless = 0
        return self._sent("full", self.everybody(), ())

    def preview(self) -> Delivered:
        """Log what a run would change."""
        found = self._changed()
        preview = Preview(self.state, self.operator.shown)
        try:
            preview.take(self.everybody() if found is None else self.some(found))
            gone = set(map(key, self._deleted())) if found is not None else self.left
            preview.deactivate(gone)
        except PermanentError as error:
            preview.refused = str(error)
        return Delivered(0, preview.logged(self.log), ())

    def everybody(self) -> Iterator[User]:
        """Everybody, once it is certain who has left."""
        reading = self.reading
        reading.find_shared()
        self.changes.prepare()
        missing = {key(user["id"]) for user in self.state.users()}
        before, self.left = len(missing), missing
        for user in self.operator._all(reading):
            missing.discard(key(user.id))
            yield user if self.state.lists_users else self._noted(user)
        reading.check_names(missing)
        yield from self._kept(missing)
        self._check(missing, before)
        # Pages may shift while they are read: who is still there is not missing.
        if missing:
            ids = [user["id"] for user in self.state.users() if key(user["id"]) in missing]
            for user in reading.users(reading.by_id(ids)):
                missing.discard(key(user.id))
                yield self._noted(user)
            self._gone = [one for one in ids if key(one) in missing]

    def some(self, found: Iterable[Entry]) -> Iterator[User]:
        """Who has changed."""
        for user in self.reading.users(self.reading.unshared(found)):
            self.changes.keys.discard(key(user.id))
            yield self._noted(user)
        self.reading.check_rights(among=IDS_A_SEARCH)

    def _changed(self) -> Iterable[Entry] | None:
        """The entries that have changed, None with a word in the log if everybody has to be read."""
        source, reason = self.operator.source, "it was asked for"
        if self.operator.mode == "auto":
            last, reason = self.state.last()
            if last is not None and not (reason := self.changes.differs(last)):
                found = self.changes.since(last)
                if found is not None:
                    how = self.changes.mark.method
                    self.log.info("Incremental sync of %s from %s by %s", source, self.reading.root.server, how)
                    return found
                reason = self.changes.reason
        self.log.info("Full sync of %s: %s", source, reason)
        return None

    def _noted(self, user: User) -> User:
        self._seen[user.id] = user.username
        return user

    def _kept(self, missing: set[bytes]) -> Iterator[User]:
        """Those known whose id others have now too, as the hub has them."""
        shared = {key(one) for one in self.reading.shared}
        if missing.isdisjoint(shared):
            return
        for user in self.state.users():
            if key(user["id"]) in shared & missing:
                missing.discard(key(user["id"]))
                if self.state.lists_users:
                    yield msgspec.convert(user, User)

    def _deleted(self) -> Iterator[str]:
        """The ids of those who have left, as far as changes tell; read once ``some`` has ended."""
        gone, reading = self.changes.keys, self.reading
        gone.difference_update(reading.nameless, map(key, reading.shared))
        if not gone and not self._seen:
            return
        names = {name.lower(): one for one, name in self._seen.items()}
        before, ids, twins = 0, [], []
        for user in self.state.users():
            before += 1
            if key(user["id"]) in gone:
                ids.append(user["id"])
            elif names.get(user["username"].lower(), user["id"]) != user["id"]:
                twins.append(user["id"])
        # Somebody with the same name and another id: deleted and made anew, unless that one is there, too.
        there = {entry.id(reading.id) for entry in reading.by_id(twins)}
        ids += [one for one in twins if one not in there]
        self._check({key(one) for one in ids}, before)
        self._gone = ids
        yield from ids

    def _check(self, missing: set[bytes], before: int) -> None:
        """Accept that these have left, unless they are too many.

        :raises PermanentError: they are; it says how many, who and what to do.
        """
        users = (user["username"] for user in self.state.users() if key(user["id"]) in missing)
        check_deletion_threshold(
            f"users of {self.operator.source}",
            len(missing),
            before,
            max_missing=self.operator.max_missing,
            max_missing_share=self.operator.max_missing_share,
            examples=users,
            advice="Nothing was deactivated. Check base_dn, search_filter, group and the login's rights; if they have "
            "really left, set max_missing_share to 1 and max_missing higher for one run",
        )

    def _sent(self, sync_type: SyncType, users: Iterator[User], deleted: Iterable[str]) -> Delivered:
        try:
            sent = self.hub.sync_users(
                users,
                source=self.operator.source,
                sync_type=sync_type,
                sync_id=self.delivery,
                timestamp=self.reading.now,
                deleted=deleted,
                max_deactivate=self.operator.max_missing,
            )
        except PermanentError as error:
            if error.status == 409:
                message = f"{error}; another sync of {self.operator.source} was faster"
                raise RetryableError(message, status=409) from error
            raise
        return self._done(sync_type, sent)

    def _done(self, sync_type: SyncType, sent: UserSyncSummary) -> Delivered:
        """Say what became of it, and remember how far it came."""
        reading, source = self.reading, self.operator.source
        refusals = reading.refusals
        figures = {
            "mode": sync_type,
            "method": self.changes.mark.method,
            "server": reading.root.server,
            "users": sent.users,
            "created": sent.created,
            "updated": sent.updated,
            "deactivated": sent.deactivated,
            "duplicates": sent.duplicates,
            "rejected": sent.rejected + len(refusals),
            "skipped": reading.skipped,
            "calls": sent.calls,
        }
        if sent.calls:
            name = f"{SYNCED}/{source}/{self.delivery}"
            self.hub.event(Event(SYNCED, source, "info", reading.now, figures, name))
        self.state.commit(self.changes.reached(), self._seen, self._gone)
        return Delivered(sent.users, figures, [*sent.refusals, *refusals])
