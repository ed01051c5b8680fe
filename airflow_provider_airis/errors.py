"""The two ways in which talking to a system fails: an error that passes with time, and one that somebody must mend."""

from __future__ import annotations


class AirisError(Exception):
    """Base of every error that this package raises on purpose.

    The message says what was asked, of whom, what came back and what to do. It never holds a secret.
    """


class RetryableError(AirisError):
    """The same request may succeed later: a timeout, a reset, HTTP 429 or 5xx.

    :param retry_after: seconds that the system asked to wait, where it said so.
    :param status: the HTTP status, where there was one.
    """

    def __init__(self, message: str, *, retry_after: float | None = None, status: int | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.status = status


class PermanentError(AirisError):
    """The same request fails again until somebody changes something: a token, a permission, the request itself.

    :param pointer: JSON pointer (RFC 6901) of the offending field, where the system named one.
    :param detail: the system's own words.
    :param status: the HTTP status, where there was one.
    """

    def __init__(self, message: str, *, pointer: str = "", detail: str = "", status: int | None = None) -> None:
        super().__init__(message)
        self.pointer = pointer
        self.detail = detail
        self.status = status


class SetupError(PermanentError):
    """Nothing was asked, since what it takes to ask is not there: a connection, one of its fields, a package.

    So it is no record's fault, and holds for every request until somebody sets it up.
    """


class PartialError(AirisError):
    """Some parts of a source could not be read; what could be read has been delivered.

    :param failures: part → what went wrong with it.
    """

    def __init__(self, message: str, failures: dict[str, str]) -> None:
        super().__init__(message)
        self.failures = failures


class CheckpointConflictError(RetryableError):
    """A checkpoint was written by somebody else since it was read: read it again, and decide anew."""


class LeaseTakenError(RetryableError):
    """Somebody else holds the lease; the message says who, and until when."""


class LeaseLostError(PermanentError):
    """Somebody else has taken the lease since: whoever held it before may write nothing more under it."""
