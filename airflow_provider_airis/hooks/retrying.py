"""When a request that failed is sent again: the same for every system whose library does not do it well enough."""

from __future__ import annotations

import re
from email.utils import parsedate_to_datetime
from time import time
from typing import Any

import httpx2
import tenacity

from airflow_provider_airis.errors import RetryableError

LONGEST_WAIT_S = 60.0


def policy(retries: int, log: Any) -> dict[str, Any]:
    """The arguments of a ``tenacity.Retrying`` that asks again after what passes.

    It waits as long as the system asked for, and does not wait where that is more than a minute; else exponentially
    longer, with some chance in it.

    :param log: where each further attempt is announced with its reason.
    """

    def announce(state: tenacity.RetryCallState) -> None:
        error = state.outcome and state.outcome.exception()
        log.warning("%s; attempt %d follows in %.1f s", error, state.attempt_number + 1, state.upcoming_sleep)

    return {
        "retry": tenacity.retry_if_exception(worth_waiting),
        "stop": tenacity.stop_after_attempt(retries + 1),
        "wait": _wait,
        "before_sleep": announce,
        "reraise": True,
    }


def worth_waiting(error: BaseException) -> bool:
    """Whether it passes, and within a minute."""
    return isinstance(error, RetryableError) and (error.retry_after or 0) <= LONGEST_WAIT_S


def turned_away(error: BaseException) -> bool:
    """Whether the system has refused it unseen, and said when to come again."""
    throttled = isinstance(error, RetryableError) and error.status == 429 and error.retry_after is not None
    return throttled and worth_waiting(error)


def retry_after(value: str) -> float | None:
    """Seconds of ``Retry-After``, which is a number or a date (RFC 9110); None if it is neither."""
    value = value.strip()
    if re.fullmatch(r"\d+(\.\d+)?", value):
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time())
    except ValueError:
        return None


_backoff = tenacity.wait_exponential(multiplier=0.5, max=LONGEST_WAIT_S) + tenacity.wait_random(0, 0.5)


def _wait(state: tenacity.RetryCallState) -> float:
    error = state.outcome and state.outcome.exception()
    asked = error.retry_after if isinstance(error, RetryableError) else None
    return _backoff(state) if asked is None else asked


def harmless(request: httpx2.Request) -> bool:
    """Whether sending it twice does no harm."""
    return request.method not in ("POST", "PATCH") or "Idempotency-Key" in request.headers
