"""What the demo says while it runs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn


class Display:
    """Progress for people: on a terminal with a bar that moves, elsewhere plain lines."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.console = Console(highlight=False, soft_wrap=True)
        self.bar = Progress(
            TextColumn("         {task.description}"),
            BarColumn(40),
            TextColumn("{task.completed:>9,.0f} of {task.total:,.0f} points"),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self.task: TaskID | None = None
        self.tenth = -1

    def say(self, text: str, style: str = "") -> None:
        """A line with the seconds since the start."""
        self.console.print(f"{self.seconds:6.1f} s  {text}", style=style, markup=False)

    @contextmanager
    def phase(self, title: str) -> Iterator[None]:
        """A step that says how long it took."""
        started = time.monotonic()
        with self.console.status(f"        {title} …") if self.console.is_terminal else ExitStack():
            yield
        self.say(f"{title} ({time.monotonic() - started:.1f} s)")

    def progress(self, title: str, done: int, total: int) -> None:
        """Move the bar; without a terminal, a line for every tenth."""
        if self.console.is_terminal:
            if self.task is None:
                self.bar.start()
                self.task = self.bar.add_task(title, total=total)
            self.bar.update(self.task, completed=done, total=total)
        elif total and done * 10 // total > self.tenth:
            self.tenth = done * 10 // total
            self.say(f"{title}: {done:,} of {total:,} points")

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self.started

    def settle(self) -> None:
        """Take the bar away."""
        self.bar.stop()
