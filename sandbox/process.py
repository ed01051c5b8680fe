"""Starts a server of this repository as a process of its own and stops it by its own process id.

Every server here takes ``--port 0`` for a free port on 127.0.0.1 and prints ``ready <url>`` once it answers.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parent.parent


@contextmanager
def serve(commands: Mapping[str, Sequence[str]], *, logs: Path | None = None) -> Iterator[dict[str, Server]]:
    """Several servers at once, started side by side.

    :param commands: by name, a module and its arguments.
    :param logs: directory for ``<name>.log``.
    :raises RuntimeError: one did not become ready; the others are stopped.
    """
    with ExitStack() as stack:
        servers: dict[str, Server] = {}
        for name, (module, *arguments) in commands.items():
            log = logs / f"{name}.log" if logs else None
            servers[name] = stack.enter_context(Server(module, *arguments, log=log, wait=False))
        for server in servers.values():
            server.wait()
        yield servers


class Server:
    """A running server; use it as a context manager.

    :ivar url: its address, once it answers, and ``urls``, by name, of one that serves several.
    :param module: what ``python -m`` runs, e.g. ``sandbox.slack``.
    :param log: where its output goes; a temporary file unless named.
    :param wait: whether to return only once it answers.
    """

    def __init__(
        self, module: str, *args: str, log: Path | None = None, env: dict[str, str] | None = None, wait: bool = True
    ) -> None:
        self.module = module
        if log is None:
            handle, name = tempfile.mkstemp(prefix=f"{module}-", suffix=".log")
            os.close(handle)
            log = Path(name)
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, *args],
                cwd=ROOT,
                env={**os.environ, **(env or {}), "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.url = ""
        self.urls: dict[str, str] = {}
        if wait:
            self.wait()

    def wait(self, timeout: float = 120) -> None:
        """Wait until it answers.

        :raises RuntimeError: it has ended, or the time is over; the end of its log is part of the message.
        """
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            said = self.log.read_text(errors="replace")
            if match := re.search(r"^ready (\S+)", said, re.M):
                self.url = match[1]
                self.urls = dict(re.findall(r"^at (\S+) (\S+)", said, re.M))
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        self.stop()
        raise RuntimeError(f"{self.module} did not become ready:\n{self.log.read_text(errors='replace')[-4000:]}")

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.url.rsplit(":", 1)[1].split("/")[0])

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """Ask it to end, and insist after ten seconds."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
