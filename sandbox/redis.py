"""A real Redis on loopback, for Celery's queue.

Needs Debian's package ``redis-server``, whose own service is not used.
"""

from __future__ import annotations

import secrets
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

from sandbox.airflow import HOST, free_port


def program() -> str:
    """The server's path.

    :raises FileNotFoundError: it is not installed.
    """
    found = shutil.which("redis-server")
    if not found:
        raise FileNotFoundError("redis-server is not installed: apt-get install redis-server")
    return found


class Redis:
    """A Redis of its own, with a password that is made up; use it as a context manager.

    It keeps nothing on the disk.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="redis-"))
        port, password = free_port(), secrets.token_urlsafe(24)
        self.url = f"redis://:{password}@{HOST}:{port}/0"
        settings = {"bind": HOST, "port": port, "dir": self.folder, "requirepass": password, "save": '""'}
        file = self.folder / "redis.conf"
        file.touch(mode=0o600)
        file.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
        self.log = self.folder / "redis.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [program(), str(file)], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + 60
        while "Ready to accept connections" not in self.log.read_text(errors="replace"):
            if time.monotonic() > deadline or self.process.poll() is not None:
                said = self.log.read_text(errors="replace")[-4000:]
                self.close()
                raise RuntimeError(f"Redis did not start:\n{said}")
            time.sleep(0.05)

    def close(self) -> None:
        """End it, and delete its files."""
        self.process.terminate()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Redis:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
