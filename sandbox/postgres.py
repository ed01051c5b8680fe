"""A real PostgreSQL on loopback, for Airflow's metadata: killed and started again at will.

Needs Debian's package ``postgresql``, whose programs are where users do not look; the server of the package is left be.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from sandbox.airflow import HOST, free_port


def program(name: str) -> str:
    """The path of one of PostgreSQL's programs, of the newest version.

    :raises FileNotFoundError: it is not installed.
    """
    versions = Path("/usr/lib/postgresql").glob("*/bin")
    places = [str(path) for path in sorted(versions, key=lambda path: int(path.parent.name), reverse=True)]
    found = shutil.which(name, path=os.pathsep.join([*places, os.environ.get("PATH", "")]))
    if not found:
        raise FileNotFoundError(f"{name} is not installed: apt-get install postgresql")
    return found


class Postgres:
    """A PostgreSQL of its own; use it as a context manager.

    It is durable, as it comes: what is committed is on the disk. Its files are in a directory of their own, deleted at
    the end, since the user ``postgres``, as whom it runs where we are root, may not enter ours. Its one user has a
    password that is made up.

    :param settings: of ``postgresql.conf``.
    """

    def __init__(self, **settings: str) -> None:
        self.settings = {
            "listen_addresses": HOST,
            "unix_socket_directories": "",
            "max_connections": "200",
            "logging_collector": "off",
            **settings,
        }
        self.port = free_port()
        password = secrets.token_urlsafe(24)
        self.url = f"postgresql+psycopg2://airflow:{password}@{HOST}:{self.port}/postgres"
        programs = [program(name) for name in ("initdb", "postgres", "pg_isready")]
        self._initdb, self._postgres, self._is_ready = programs
        self.folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        self._as: dict[str, Any] = {"cwd": self.folder, "stdin": subprocess.DEVNULL}
        if os.geteuid() == 0:
            self._as |= {"user": "postgres", "group": "postgres", "extra_groups": []}
            shutil.chown(self.folder, "postgres", "postgres")
        self.log = self.folder / "postgres.log"
        self.process: subprocess.Popen[bytes] | None = None
        try:
            self._create(password)
            self.start()
        except BaseException:
            self.close()
            raise

    def _create(self, password: str) -> None:
        file = self.folder / "password"
        file.touch(mode=0o600)
        file.write_text(password)
        shutil.chown(file, self.folder.owner())
        command = [self._initdb, "--pgdata=data", "--username=airflow", "--auth=scram-sha-256", f"--pwfile={file}"]
        command += ["--locale=C", "--encoding=UTF8", "--no-sync", "--no-instructions"]
        done = subprocess.run(command, capture_output=True, text=True, **self._as)
        file.unlink()
        if done.returncode:
            raise RuntimeError(f"initdb failed:\n{done.stderr[-4000:]}")

    def start(self) -> None:
        """Start it on the data that is there, and return when it takes connections.

        :raises RuntimeError: it has ended, or the time is over; the end of its log is part of the message.
        """
        settings = [f"--{name}={value}" for name, value in self.settings.items()]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [self._postgres, "-D", "data", f"--port={self.port}", *settings],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_parent,
                **self._as,
            )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            if self.ready():
                return
            time.sleep(0.05)
        raise RuntimeError(f"PostgreSQL did not start:\n{self.log.read_text(errors='replace')[-4000:]}")

    def ready(self) -> bool:
        """Whether it takes connections."""
        return not subprocess.run([self._is_ready, "-q", "-h", HOST, "-p", str(self.port)]).returncode

    def kill(self) -> None:
        """End it with all its processes at once; :meth:`start` recovers the data."""
        assert self.process is not None
        processes = psutil.Process(self.process.pid).children(recursive=True)
        self.process.kill()
        for process in processes:
            # Those that see the first one dead end by themselves.
            if process.is_running():
                process.kill()
        self.process.wait()
        while any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes):
            time.sleep(0.01)

    def stop(self) -> None:
        """End it, and whoever is connected with it."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()

    def close(self) -> None:
        """End it, and delete its files."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Postgres:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGINT)  # PR_SET_PDEATHSIG: also if this process is killed
