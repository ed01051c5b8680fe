"""What an LDAP server's refusals mean, and what to do about them."""

from __future__ import annotations

import re

from airflow_provider_airis.errors import AirisError, PermanentError, RetryableError

# timeLimitExceeded, sizeLimitExceeded, adminLimitExceeded
LIMITS = frozenset({3, 4, 11})
# timeLimitExceeded, busy, unavailable, other
_PASSING = frozenset({3, 51, 52, 80})
# What Active Directory says in the text of invalidCredentials.
_REFUSED = {
    "525": "there is no such user",
    "530": "not at this time",
    "531": "not from this machine",
    "532": "the password has expired",
    "533": "the account is disabled",
    "701": "the account has expired",
    "773": "the password must be changed first",
    "775": "the account is locked",
}
_ADVICE = {
    1: "a directory that asks for a bind before a search says so: give the connection a login and a password",
    4: "it gives no more than that in all; let its administrator lift the limit for this login",
    7: "let authentication of the connection name another",
    8: "it wants encryption: let tls of the connection be starttls or ldaps",
    10: "another server holds that part: name that one as the host, or another base",
    11: "it gives no more than that in all; let its administrator lift the limit for this login",
    12: "the server lacks a control that this needs",
    13: "it wants encryption: let tls of the connection be starttls or ldaps",
    32: "there is no such base, or the login may not see it",
    34: "the base is no distinguished name",
    48: "give the connection a login and a password",
    49: "check the login and password of the connection",
    50: "the login may not read this: give it the right",
    53: "the server does not do this for this login",
}


class UntrustedError(PermanentError):
    """A server's encryption is not to be trusted; another one's may be."""


def refused(asked: str, code: int, name: str, said: str) -> AirisError:
    """The error of a result that is not success.

    :param asked: of whom what was asked.
    :param name: the code's, and ``said``: the server's own text, without secrets.

    See https://datatracker.ietf.org/doc/html/rfc4511#appendix-A
    """
    message = f"{asked} was answered {code} {name}" + (f" ({said})" if said else "")
    if code in _PASSING:
        return RetryableError(f"{message}: the same may succeed later", status=code)
    advice = _ADVICE.get(code, "")
    if code == 49 and (match := re.search(r"\bdata ([0-9a-f]{3})\b", said)) and match[1] in _REFUSED:
        advice = _REFUSED[match[1]]
    return PermanentError(f"{message}: {advice}" if advice else message, detail=said, status=code)


def failed(asked: str, error: Exception, said: str, conn_id: str, url: str) -> AirisError:
    """The error of a call that raised, in ldap3's words or the system's.

    :param said: the error's text, without secrets.
    :param url: of the server, whose port may say why it did not answer.
    """
    from ldap3.core import exceptions as ldap  # type: ignore[import-untyped]

    if isinstance(error, (ldap.LDAPInvalidFilterError, ldap.LDAPInvalidDnError, ldap.LDAPAttributeError)):
        return PermanentError(f"{asked} cannot be sent, it is malformed ({said})")
    if isinstance(error, (ldap.LDAPPackageUnavailableError, ImportError)):
        return PermanentError(
            f"{asked} needs a package that is not installed ({said}): install gssapi, or let authentication be simple"
        )
    if "CERTIFICATE_VERIFY_FAILED" in said:
        reason = said.partition("certificate verify failed: ")[2].partition(" (_ssl")[0]
        return UntrustedError(
            f"{asked} was not sent, its certificate is not trusted ({reason}): "
            f"let ca_certs_file of connection {conn_id} name the CA bundle, and host the name in it"
        )
    if isinstance(error, ldap.LDAPStartTLSError) and "startTLS failed" in said:
        return UntrustedError(
            f"{asked} was refused ({said}): let the server have a certificate, or tls of the connection be ldaps"
        )
    if not isinstance(error, (ldap.LDAPExceptionError, OSError)):
        return PermanentError(f"{asked} was answered with no LDAP ({said})")
    why = "check that it is up and can be reached from here"
    if url.startswith("ldap://") and url.endswith((":636", ":3269")):
        why = "that port is for ldaps: let tls of the connection be ldaps"
    return RetryableError(f"{asked} got no answer ({said}): {why}")
