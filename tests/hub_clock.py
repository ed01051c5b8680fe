"""The reference hub with a clock that is set: ``HUB_CLOCK`` names a file with the milliseconds that it is ahead."""

from __future__ import annotations

import os
import runpy
import time
from pathlib import Path

_time_ns = time.time_ns
_file = Path(os.environ["HUB_CLOCK"])


def time_ns() -> int:
    """Nanoseconds since 1970, by the clock that is set."""
    return _time_ns() + int(_file.read_text()) * 1_000_000


if __name__ == "__main__":
    time.time_ns = time_ns
    time.time = lambda: time_ns() / 1e9
    runpy.run_module("airflow_provider_airis.hub", run_name="__main__", alter_sys=True)
