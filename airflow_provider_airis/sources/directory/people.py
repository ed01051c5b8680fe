"""What the entry of a person means."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import NamedTuple

from airflow_provider_airis.errors import PermanentError
from airflow_provider_airis.hooks.ldap_entries import Entry, normalized, split
from airflow_provider_airis.records import User, to_ms
from airflow_provider_airis.sources.directory.presets import Preset, conditions

FIELDS = frozenset(User.__struct_fields__) - {"attributes", "enabled", "expires_at", "dn", "sync_timestamp"}
_NEVER = (0, 0x7FFFFFFFFFFFFFFF)
_FILETIME_EPOCH_MS = 11_644_473_600_000
_DAY_MS = 86_400_000
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9.+-]*):")


class People:
    """Makes users of entries.

    :param attributes: field → attributes, over the preset's.
    :param disabled_if: over the preset's, if not empty.
    :param groups: the groups of an entry and its user name.
    :param now: when they are read, Unix ms.
    :raises PermanentError: there is no attribute for the id or the user name, or ``disabled_if`` cannot be read.
    """

    def __init__(
        self,
        preset: Preset,
        attributes: Mapping[str, str],
        disabled_if: str,
        groups: Callable[[Entry, str], list[str]],
        now: int,
    ) -> None:
        self.map = {**preset.attributes, **attributes}
        if not split(self.map["id"]) or not split(self.map["username"]):
            raise PermanentError("attributes must name one for id and one for username", pointer="/attributes")
        self.now = now
        self._groups = groups
        self._expires = preset.expires.lower()
        self._disabled = conditions(disabled_if or preset.disabled_if)
        self._usernames = split(self.map["username"])
        self._emails = split(self.map["email"])
        apart = ("id", "username", "email", "groups", "changed_at")
        self._texts = [(field, split(names)) for field, names in self.map.items() if field not in apart]
        self._changed_at = self.map["changed_at"]
        asked = [name for names in self.map.values() for name in names.split(",")]
        asked += [preset.expires, *(condition.attribute for condition in self._disabled)]
        self.wanted = list({name.lower(): name for part in asked if (name := part.strip())}.values())

    def username(self, entry: Entry) -> str | None:
        """What they log in with: of several values the one that names the entry."""
        for name in self._usernames:
            if values := entry.values.get(name):
                if len(values) > 1:
                    first = normalized(entry.dn).partition(",")[0]
                    for value in values:
                        if normalized(f"{name}={value.decode('utf-8', 'replace')}") == first:
                            return value.decode("utf-8", "replace")
                return values[0].decode("utf-8", "replace")
        return None

    def user(self, entry: Entry, one: str, name: str) -> User:
        """The user of an entry, its id and its user name.

        A field that holds one value takes the first; if there are several, ``attributes`` has all of them under its
        name. Of addresses the first attribute with a value counts, and of its values that with ``SMTP:``.
        """
        values = entry.values
        fields: dict[str, str] = {}
        more: dict[str, str | list[str]] = {}
        for field, names in self._texts:
            for attribute in names:
                if found := values.get(attribute):
                    text = found[0].decode("utf-8", "replace")
                    if field in FIELDS:
                        fields[field] = text
                        if len(found) > 1:
                            more[field] = _sorted(found)
                    elif len(found) > 1:
                        more[field] = _sorted(found)
                    elif text:
                        more[field] = text
                    break
        addresses = _addresses(values, self._emails)
        if len(addresses) > 1:
            more["email"] = addresses
        return User(
            id=one,
            username=name,
            email=addresses[0] if addresses else None,
            display_name=fields.get("display_name"),
            department=fields.get("department"),
            title=fields.get("title"),
            dn=entry.dn,
            groups=sorted(self._groups(entry, name)),
            manager=fields.get("manager"),
            enabled=not any(condition.holds(values) for condition in self._disabled),
            expires_at=self._expiry(values),
            changed_at=generalized(entry.text(self._changed_at)),
            sync_timestamp=self.now,
            attributes=more,
        )

    def _expiry(self, values: Mapping[str, list[bytes]]) -> int | None:
        """When the account expires, Unix ms: Active Directory counts 100 ns since 1601, ``shadowExpire`` days."""
        found = values.get(self._expires)
        try:
            number = int(found[0]) if found else 0
        except ValueError:
            return None
        if self._expires == "shadowexpire":
            return number * _DAY_MS if number > 0 else None
        return None if number in _NEVER else number // 10_000 - _FILETIME_EPOCH_MS


def _sorted(values: list[bytes]) -> list[str]:
    # A directory gives the values of an attribute in no order that lasts.
    return sorted(value.decode("utf-8", "replace") for value in values)


def _addresses(values: Mapping[str, list[bytes]], names: tuple[str, ...]) -> list[str]:
    """All mail addresses, the primary one first. ``SMTP:`` marks that in ``proxyAddresses``, ``smtp:`` the others.

    See https://learn.microsoft.com/troubleshoot/entra/entra-id/user-prov-sync/proxyaddresses-attribute-populate
    """
    found: dict[str, str] = {}
    for name in names:
        raw = values.get(name)
        if not raw:
            continue
        texts = [value.decode("utf-8", "replace") for value in raw]
        if len(texts) > 1:
            texts.sort(key=lambda text: not text.startswith("SMTP:"))
        for text in texts:
            if match := _SCHEME.match(text):
                if match[1].lower() != "smtp":
                    continue
                text = text[len(match[0]) :]
            if text:
                found.setdefault(text.lower(), text)
    return list(found.values())


def generalized(value: str | None) -> int | None:
    """Unix ms of ``20261123060000Z`` or ``20261123060000.0Z``."""
    if value is None or len(value) < 15 or not value[:14].isdecimal():
        return None
    try:
        return to_ms(datetime.fromisoformat(f"{value[:8]}T{value[8:14]}+00:00"))
    except ValueError:
        return None


class Shared(NamedTuple):
    """An id that several entries have."""

    one: str
    dns: list[str]

    def refusals(self, attribute: str) -> list[str]:
        """A sentence for each entry that is refused for it."""
        return [
            f"{dn}: /id: {attribute} {self.one!r} is also that of {', '.join(o for o in self.dns if o != dn)}: nobody "
            "with it was delivered. Give each an id of their own, or let attributes name another one for id"
            for dn in self.dns
        ]
