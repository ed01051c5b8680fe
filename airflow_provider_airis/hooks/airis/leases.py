"""Leases of the hub: at most one holder a name at a time, and a token by which late writes are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec

from airflow_provider_airis.errors import LeaseTakenError, PermanentError
from airflow_provider_airis.hooks.delivery import API

if TYPE_CHECKING:
    from airflow_provider_airis.hooks.airis.hook import AirisHook

FENCE = "X-Airis-Fence"


class Lease(msgspec.Struct, frozen=True):
    """A lease as it was given.

    :param token: grows with every holder; a write that carries an older one is refused.
    :param expires_at: when it lapses unless it is renewed, by the hub's clock, Unix ms.
    """

    name: str
    holder: str
    token: int
    expires_at: int

    @property
    def headers(self) -> dict[str, str]:
        """What a write carries to be refused once somebody else has the lease."""
        return {FENCE: f"{quote(self.name, safe='')};{self.token}"}


class Leases:
    """The leases of a hub."""

    def __init__(self, hub: AirisHook) -> None:
        self._hub = hub

    def acquire(self, name: str, holder: str, ttl_s: float) -> Lease:
        """Take a lease, or renew it; the same holder renews, so name two programs differently.

        :param ttl_s: seconds after which it lapses unless it is renewed, up to a day.
        :raises LeaseTakenError: somebody else holds it; the message says who, and until when.
        :raises PermanentError: with status 404, the hub has no leases.
        """
        body = {"holder": holder, "ttl_s": ttl_s}
        try:
            return self._hub.decode(self._hub.request("POST", _path(name), json=body, retry=True), Lease)
        except PermanentError as error:
            raise _taken(error) from error

    async def aacquire(self, name: str, holder: str, ttl_s: float) -> Lease:
        """As :meth:`acquire`, from an event loop."""
        body = {"holder": holder, "ttl_s": ttl_s}
        try:
            async with await self._hub.asession() as client:
                return self._hub.decode(await self._hub.arequest(client, "POST", _path(name), json=body), Lease)
        except PermanentError as error:
            raise _taken(error) from error

    def get(self, name: str) -> Lease | None:
        """Who holds a lease; None if nobody does."""
        try:
            return self._hub.decode(self._hub.request("GET", _path(name)), Lease)
        except PermanentError as error:
            if error.status == 404:
                return None
            raise

    async def aget(self, name: str) -> Lease | None:
        """As :meth:`get`, from an event loop."""
        try:
            async with await self._hub.asession() as client:
                return self._hub.decode(await self._hub.arequest(client, "GET", _path(name)), Lease)
        except PermanentError as error:
            if error.status == 404:
                return None
            raise

    def release(self, lease: Lease) -> None:
        """Give a lease back; one that was lost meanwhile stays with whoever has it."""
        self._hub.request("DELETE", _path(lease.name), params={"token": lease.token})


def _taken(error: PermanentError) -> PermanentError | LeaseTakenError:
    return LeaseTakenError(str(error), status=409) if error.status == 409 else error


def _path(name: str) -> str:
    return f"{API}/leases/{quote(name, safe='')}"
