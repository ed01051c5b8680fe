"""How each kind of directory keeps its people."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from airflow_provider_airis.errors import PermanentError
from airflow_provider_airis.hooks.ldap_entries import Entry

_CONDITION = re.compile(r"([A-Za-z][\w;.-]*)\s*(?:(!=|=|&)\s*(.+))?")


class Preset(NamedTuple):
    """How a kind of directory keeps its users.

    :param filter: who is one.
    :param attributes: field of :class:`~airflow_provider_airis.records.User` → attribute, or several by commas: the
        first that has a value counts. ``id`` stays when all else changes, ``changed_at`` is the entry's last change.
    :param disabled_if: see :func:`conditions`.
    :param state: an attribute, in lower case, that every user has and that says whether they are disabled; or empty.
    :param expires: what says when an account expires.
    :param created: when an entry was made, as a number or time that its kind of search compares.
    """

    filter: str
    attributes: dict[str, str]
    disabled_if: str
    state: str
    expires: str
    created: str


_OTHERS = {
    "id": "entryUUID",
    "username": "uid",
    "email": "mail",
    "display_name": "displayName,cn",
    "department": "departmentNumber,ou",
    "title": "title",
    "groups": "memberOf",
    "manager": "manager",
    "changed_at": "modifyTimestamp",
}
PRESETS = {
    # 805306368 is SAM_NORMAL_USER_ACCOUNT: neither computers nor trusts. krbtgt_<number> belongs to a read-only domain
    # controller. https://learn.microsoft.com/windows/win32/adschema/a-samaccounttype
    "active_directory": Preset(
        "(&(objectCategory=person)(objectClass=user)(sAMAccountType=805306368)(!(sAMAccountName=krbtgt*)))",
        {
            "id": "objectGUID",
            "username": "sAMAccountName",
            "email": "mail,proxyAddresses",
            "display_name": "displayName",
            "department": "department",
            "title": "title",
            "groups": "memberOf",
            "manager": "manager",
            "changed_at": "whenChanged",
            "primary_group_id": "primaryGroupID",
        },
        # https://learn.microsoft.com/windows/win32/adschema/a-useraccountcontrol
        "userAccountControl&2",
        "useraccountcontrol",
        "accountExpires",
        "uSNCreated",
    ),
    # https://datatracker.ietf.org/doc/html/draft-behera-ldap-password-policy: that time means for good.
    "openldap": Preset(
        "(objectClass=inetOrgPerson)",
        _OTHERS,
        "pwdAccountLockedTime=000001010000Z, nsAccountLock=TRUE",
        "",
        "shadowExpire",
        "createTimestamp",
    ),
    # FreeIPA too. https://www.port389.org/docs/389ds/design/account-policy-design.html
    "389ds": Preset(
        "(objectClass=inetOrgPerson)",
        {**_OTHERS, "id": "nsUniqueId"},
        "nsAccountLock=TRUE, pwdAccountLockedTime=000001010000Z",
        "",
        "shadowExpire",
        "createTimestamp",
    ),
}
# Ids that a directory gives itself, and never twice.
UNIQUE_IDS = frozenset({"objectguid", "objectsid", "entryuuid", "nsuniqueid", "ipauniqueid"})
# Guest, krbtgt, DefaultAccount, WDAGUtilityAccount: the last number of their SIDs, in every language.
# https://learn.microsoft.com/windows-server/identity/ad-ds/manage/understand-security-identifiers
NO_PEOPLE = frozenset({"501", "502", "503", "504"})
# Entries that others may lie below.
CONTAINER_CLASSES = (
    *("organizationalUnit", "container", "nsContainer", "organization", "dcObject", "domain", "locality", "country"),
)
CONTAINERS = f"(|{''.join(f'(objectClass={name})' for name in CONTAINER_CLASSES)})"


class Condition(NamedTuple):
    """A test of an attribute: ``=``, ``!=`` or ``&`` with a value, or that it is there."""

    attribute: str
    operator: str
    value: str

    def holds(self, values: Mapping[str, Sequence[bytes]]) -> bool:
        """Whether it does of an entry's values. An attribute that is not there meets ``!=`` alone."""
        found = values.get(self.attribute, ())
        if not self.operator:
            return bool(found)
        if self.operator == "&":
            return any(_int(value) & int(self.value) for value in found)
        wanted = self.value.lower()
        equal = any(value.decode("utf-8", "replace").strip().lower() == wanted for value in found)
        return equal if self.operator == "=" else not equal


def conditions(disabled_if: str) -> list[Condition]:
    """The conditions of ``userAccountControl&2, nsAccountLock=TRUE, employeeStatus!=active``: one that holds is enough.

    Capitals do not count; ``&`` compares bits; an attribute alone asks whether it is there.

    :raises PermanentError: one of them cannot be read.
    """
    found = []
    for text in filter(None, (part.strip() for part in disabled_if.split(","))):
        match = _CONDITION.fullmatch(text)
        if match is None or (match[2] == "&" and not (match[3].isdecimal() and int(match[3]))):
            raise PermanentError(
                f"disabled_if has {text!r}: write attribute=value, attribute!=value, attribute&bits or an attribute",
                pointer="/disabled_if",
            )
        found.append(Condition(match[1].lower(), match[2] or "", match[3] or ""))
    return found


def is_built_in(entry: Entry) -> bool:
    """Whether it is one of Windows' own accounts that nobody logs in with."""
    return (entry.id("objectSid") or "").rpartition("-")[2] in NO_PEOPLE


def _int(value: bytes) -> int:
    try:
        return int(value)
    except ValueError:
        return 0
