"""Asking the hub until it answers; whoever refuses for good is seen as one fault, not as thousands of failed runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any, TypeVar

from airflow.sdk.exceptions import AirflowNotFoundException

from airflow_provider_airis.errors import PermanentError, RetryableError

T = TypeVar("T")

LONGEST_PAUSE_S = 30.0
# Seconds between two tries while the hub refuses, or there is no connection of it.
PERMANENT_PAUSE_S = 60.0
# A task that fails is followed by the next run at once. While the fault stays the same, that one waits longer.
LONGEST_FAULT_S = 3_600.0


@dataclass
class Fault:
    """What has to be mended, as long as it is said in the same words.

    :param report_at: when a task fails of it next, by the monotonic clock; ``pause_s`` after it did last.
    """

    text: str
    report_at: float
    pause_s: float

    def reported(self) -> None:
        """The next task waits longer before it fails."""
        self.pause_s = min(2 * self.pause_s, LONGEST_FAULT_S)
        self.report_at = monotonic() + self.pause_s


# By who waits. The triggerer outlives the runs; after its restart a fault is reported once more.
_faults: dict[str, Fault] = {}


async def patiently(ask: Callable[[], Awaitable[T]], log: Any, key: str | None = None) -> T:
    """What the hub answers, once it does.

    :param key: names the one who waits, whose next one waits longer for the same fault.
    :raises PermanentError: it refuses, and still does a while later. So with a missing connection, which Airflow's own
        error says.
    """
    faults = _faults if key is not None else {}
    pause, said = 0.0, ""
    while True:
        try:
            answer = await ask()
        except RetryableError as error:
            if not pause:
                log.warning("%s; waiting for it", error)
            pause = min(pause * 2 or 1.0, LONGEST_PAUSE_S)
            await asyncio.sleep(pause)
        except (PermanentError, AirflowNotFoundException) as error:
            text, now = str(error), monotonic()
            fault = faults.get(key or "")
            if fault is None or fault.text != text:
                fault = faults[key or ""] = Fault(text, now + PERMANENT_PAUSE_S, PERMANENT_PAUSE_S)
            if said and now >= fault.report_at:
                fault.reported()
                raise
            if said != text:
                log.error("%s", text)
            said = text
            await asyncio.sleep(max(0.0, min(PERMANENT_PAUSE_S, fault.report_at - now)))
        else:
            faults.pop(key or "", None)
            if pause or said:
                log.info("The hub answers again")
            return answer
