"""What sending to a system imports: loaded at once, by one thread.

Threads that import the parts of one package side by side find it half made, or wait for each other for ever.
"""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module

from airflow_provider_airis.catalog import System


def load(row: System) -> None:
    """Load what is installed. What is not is said where it is used."""
    if not row.channel or not row.channel_class:
        return
    classes = (row.channel_class, row.hook_class)
    for module in (*(name.rpartition(".")[0] for name in classes), *row.channel.loads):
        with suppress(ImportError):
            import_module(module)
