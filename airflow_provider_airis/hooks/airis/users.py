"""A directory's users at the hub."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from airflow_provider_airis.errors import PermanentError, RetryableError
from airflow_provider_airis.hooks.delivery import API, KEPT_REFUSALS
from airflow_provider_airis.records import IngestAnswer, User

if TYPE_CHECKING:
    from airflow_provider_airis.hooks.airis.hook import AirisHook

SYNC_USERS = 1_000
# Of their groups and attributes; what else a user has is short, and a hub may take no more than some MB.
SYNC_CHARS = 3_000_000
SyncType = Literal["full", "delta"]
_PATH = f"{API}/integrations/user-sync"


class _UserSyncAnswer(IngestAnswer, frozen=True):
    applied: bool = True
    created: int = 0
    updated: int = 0
    deactivated: int = 0


class UserSyncSummary(msgspec.Struct):
    """What became of a sync of users.

    :param users: whom the hub took, ``duplicates`` of them unchanged.
    :param rejected: whom it refused; ``refusals`` names the first of them with the reason.
    """

    users: int = 0
    created: int = 0
    updated: int = 0
    deactivated: int = 0
    duplicates: int = 0
    rejected: int = 0
    calls: int = 0
    refusals: list[str] = []

    def add(self, part: Sequence[User], answer: _UserSyncAnswer) -> None:
        """Count what became of a part."""
        self.users += answer.accepted
        self.calls += 1
        self.rejected += len(answer.rejected)
        for refusal in answer.rejected[: KEPT_REFUSALS - len(self.refusals)]:
            place, _, field = refusal.pointer.removeprefix("/data/users/").partition("/")
            who = part[int(place)].username if place.isdecimal() and int(place) < len(part) else refusal.pointer
            self.refusals.append(f"{who}: /{field}: {refusal.detail}")
        for count in ("created", "updated", "deactivated", "duplicates"):
            setattr(self, count, getattr(self, count) + getattr(answer, count))


class Users:
    """The users of a hub."""

    def __init__(self, hub: AirisHook) -> None:
        self._hub = hub

    def sync(
        self,
        users: Iterable[User],
        *,
        source: str,
        sync_type: SyncType,
        sync_id: str,
        timestamp: int,
        deleted: Iterable[str] = (),
        max_deactivate: int | None = None,
    ) -> UserSyncSummary:
        """As :meth:`~airflow_provider_airis.hooks.airis.AirisHook.sync_users`."""
        body = {"event_type": "user_sync", "source": source, "timestamp": timestamp}
        if not self._hub.offers("integrations.user-sync"):
            return self._sync_plainly(users, body, sync_type, sync_id, deleted)
        summary = UserSyncSummary()
        part: list[User] = []
        number, size = 1, 0
        bounded = max_deactivate is not None and self._hub.offers("integrations.user-sync.max_deactivate")

        def send(last: bool) -> None:
            data: dict[str, Any] = {"users": part, "sync_type": sync_type}
            if number > 1 or not last:
                data |= {"sync_id": sync_id, "part": number, "last": last}
            if bounded:
                data["max_deactivate"] = max_deactivate
            if last and (gone := list(deleted)):
                data["deleted"] = gone
            content, headers = self._hub.encoded(body | {"data": data})
            answer = self._send(content, headers, f"{source}\n{sync_id}\n{number}", len(part))
            self._check_part(answer, sync_id, number, last=last)
            summary.add(part, answer)

        for user in users:
            if len(part) == SYNC_USERS or size > SYNC_CHARS:
                send(last=False)
                part, number, size = [], number + 1, 0
            part.append(user)
            texts = (
                text for value in user.attributes.values() for text in ([value] if isinstance(value, str) else value)
            )
            size += len(user.dn or "") + sum(map(len, user.groups)) + sum(map(len, texts))
        send(last=True)
        return summary

    def _sync_plainly(
        self, users: Iterable[User], body: dict[str, Any], sync_type: SyncType, sync_id: str, deleted: Iterable[str]
    ) -> UserSyncSummary:
        """As the document says: six fields a user, a full sync in one body, nobody deleted by a delta."""
        summary = UserSyncSummary()

        def send(part: list[User], number: int) -> None:
            content = msgspec.json.encode(body | {"data": {"users": list(map(_plain, part)), "sync_type": sync_type}})
            headers = {"Content-Type": "application/json"}
            try:
                answer = self._send(content, headers, f"{body['source']}\n{sync_id}\n{number}", len(part))
            except PermanentError as error:
                if error.status != 413:
                    raise
                raise PermanentError(
                    f"{self._asked} takes a directory in one body only, and {len(part):,} users are too many for one "
                    f"({len(content):,} bytes): that needs a hub that takes parts",
                    status=413,
                ) from error
            summary.add(part, answer)

        if sync_type == "full":
            send(list(users), 1)
            return summary
        for number, part in enumerate(_parts(users), start=1):
            send(part, number)
        if gone := list(deleted):
            raise PermanentError(
                f"{self._asked} cannot be told by a delta who has left, {len(gone)} user(s) such as {gone[0]}: "
                "its document has no field for them. Run a full sync"
            )
        return summary

    def _send(self, content: bytes | None, headers: dict[str, str], key: str, count: int) -> _UserSyncAnswer:
        headers["Idempotency-Key"] = blake2b(key.encode(), digest_size=16).hexdigest()
        response = self._hub.request("POST", _PATH, content=content, headers=headers)
        # A hub may also answer 200 with nothing, or with any object: it took all.
        counted = b'"accepted"' in response.content
        return self._hub.decode(response, _UserSyncAnswer) if counted else _UserSyncAnswer(accepted=count)

    def _check_part(self, answer: _UserSyncAnswer, sync_id: str, number: int, *, last: bool) -> None:
        """A sync is in force with its last part, neither earlier nor later."""
        if last and not answer.applied:
            raise RetryableError(f"{self._asked} lacks parts of the user sync {sync_id}")
        if answer.applied and not last:
            raise PermanentError(
                f"{self._asked} took part {number} of the user sync {sync_id} for the whole of it: "
                f"it does not take directories of more than {SYNC_USERS:,} users"
            )

    @property
    def _asked(self) -> str:
        return f"{self._hub.hook_name} (connection {self._hub.conn_id})"

    def list(
        self, *, source: str | None = None, active: bool | None = None, email: str | None = None
    ) -> Iterator[dict[str, Any]]:
        """Every user that the hub knows, by source and id: ``User``'s fields, source, active and updated_at.

        :param email: in capitals or not.
        """
        known = None if active is None else str(active).lower()
        params = {"source": source, "active": known, "email": email, "limit": 5000}
        for user in self._hub.pages(f"{API}/users", params=params, items="users"):
            # A hub may not know these parameters.
            its = user.get("source", source) == (source or user.get("source"))
            its &= active is None or user.get("active", active) is active
            if its and (email is None or str(user.get("email") or "").lower() == email.lower()):
                yield user


def _parts(users: Iterable[User]) -> Iterator[list[User]]:
    part: list[User] = []
    for user in users:
        if len(part) == SYNC_USERS:
            yield part
            part = []
        part.append(user)
    yield part


def _plain(user: User) -> dict[str, Any]:
    fields = "username", "email", "display_name", "department", "title", "sync_timestamp"
    return {name: getattr(user, name) for name in fields}
