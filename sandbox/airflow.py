"""Airflow itself, as the processes of a real installation, on loopback: for the demo and the end-to-end tests."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx2
import psutil

from sandbox.topology import COMPONENTS, MIGRATE, airflow_settings, generate_secrets

HOST = "127.0.0.1"
# A worker of CeleryExecutor; with other executors there is none.
WORKER = "worker"
COMMANDS = COMPONENTS | {WORKER: ("celery", "worker", "--skip-serve-logs", "--concurrency", "4")}


class Airflow:
    """One Airflow in a directory of its own, on SQLite unless the settings say otherwise; use it as a context manager.

    :meth:`start` returns when the processes run, :meth:`wait` when all of them are healthy. Everyone who reaches its
    address is an admin, which is why that is loopback.

    :param home: becomes ``AIRFLOW_HOME``; logs are in ``home / "logs"``.
    :param settings: environment variables beyond :func:`~sandbox.topology.airflow_settings`.
    :param python: interpreter of the environment whose Airflow to start.
    """

    def __init__(self, home: Path, *, settings: dict[str, str] | None = None, python: str = sys.executable) -> None:
        self.home = home.resolve()
        self.logs = self.home / "logs"
        self.logs.mkdir(parents=True)
        self.secrets = generate_secrets(self.home / "secrets")
        port = free_port()
        self.url = f"http://{HOST}:{port}"
        self.command = (python, "-m", "airflow")
        self.env = {
            # A parent's AIRFLOW_* must not leak in, and bytecode halves the start of every process.
            **{k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "PYTHONDONTWRITEBYTECODE"))},
            **airflow_settings(self.home / "secrets", host=HOST, port=port, url=self.url, inside=self.url),
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.home}/airflow.db?timeout=60",
            "PYTHONUNBUFFERED": "1",
            **(settings or {}),
        }
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        # Also of those that were killed: a scheduler leaves its workers behind.
        self.sessions: dict[int, str] = {}
        self.api = httpx2.Client(base_url=self.url, timeout=30)

    def migrate(self) -> None:
        """Create the metadata database."""
        self.run(*MIGRATE)

    def start(self, *names: str) -> None:
        """Start these components, or all, each detached with its output in a file of its own.

        ``triggerer@2`` is another triggerer, ``worker@1`` one of Celery's.
        """
        (self.home / "dags").mkdir(exist_ok=True)
        for name in names or COMPONENTS:
            kind = name.partition("@")[0]
            more = ("--celery-hostname", name) if kind == WORKER else ()
            self._spawn(name, (*COMMANDS[kind], *more), mode="ab")

    def wait(self, timeout: float = 180) -> None:
        """Wait until the API answers and every component that runs has reported itself healthy.

        :raises RuntimeError: one has ended, or the time is over; the end of its log is part of the message.
        """
        deadline = time.monotonic() + timeout
        parts = {name.replace("-", "_") for name in COMPONENTS if name in self.processes} - {"api_server"}
        health: dict[str, Any] = {}
        while not all(health.get(part, {}).get("status") == "healthy" for part in {"metadatabase", *parts}):
            if time.monotonic() > deadline:
                raise RuntimeError(f"Airflow was not healthy after {timeout:.0f} s: {health or 'its API is silent'}")
            self.check()
            time.sleep(0.2)
            with suppress(httpx2.TransportError):
                health = self.api.get("/api/v2/monitor/health").json()
        token = self.api.get("/auth/token").raise_for_status().json()["access_token"]
        self.api.headers["Authorization"] = f"Bearer {token}"
        # The task API builds itself at its first request, for longer than a task would wait for it.
        httpx2.get(f"{self.url}/execution/health", timeout=60).raise_for_status()

    def check(self) -> None:
        """Raise RuntimeError if a component has ended."""
        for name in self.ended():
            raise RuntimeError(f"airflow {name} ended with {self.processes[name].returncode}:\n{self.tail(name)}")

    def ended(self) -> list[str]:
        """The components that have ended."""
        started = (name for name in self.processes if name.partition("@")[0] in COMMANDS)
        return [name for name in started if self.processes[name].poll() is not None]

    def kill(self, name: str) -> None:
        """End a component at once, with what it and those before it have left, as if their machine were gone."""
        end_sessions({session for session, its in self.sessions.items() if its == name})
        self.processes[name].wait()

    def call(self, method: str, path: str, **request: Any) -> Any:
        """Call Airflow's REST API, as ``GET /dags``, and return its answer.

        :raises RuntimeError: it answered with an error.
        """
        answer = self.api.request(method, f"/api/v2{path}", **request)
        if answer.is_error:
            raise RuntimeError(f"Airflow answered {method} {path} with {answer.status_code}: {answer.text[:1000]}")
        return answer.json()

    def run(self, *arguments: str) -> str:
        """Run an ``airflow`` command and return its output.

        :raises RuntimeError: it failed; its output is part of the message.
        """
        return self.finish(self.begin(*arguments))

    def begin(self, *arguments: str) -> str:
        """Start an ``airflow`` command; :meth:`finish` takes the name that this returns."""
        name = "-".join(argument for argument in arguments[:2] if not argument.startswith("-"))
        self._spawn(name, arguments)
        return name

    def finish(self, name: str, timeout: float = 180) -> str:
        """Wait for a command's end and return its output."""
        process = self.processes[name]
        if process.wait(timeout):
            raise RuntimeError(f"airflow {name} ended with {process.returncode}:\n{self.tail(name)}")
        return self._log(name).read_text(errors="replace")

    def tail(self, name: str, size: int = 4000) -> str:
        """The end of a component's log."""
        return self._log(name).read_text(errors="replace")[-size:]

    def stop(self, grace: float = 8) -> None:
        """End every process: the components are asked, what is left of their sessions is killed.

        Tasks have process groups of their own, but stay in the session of the component that started them.
        """
        self.api.close()
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + grace
        for process in self.processes.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
        end_sessions({*self.sessions})

    def _spawn(self, name: str, arguments: tuple[str, ...], mode: str = "wb") -> subprocess.Popen[bytes]:
        with self._log(name).open(mode) as log:
            process = self.processes[name] = subprocess.Popen(
                [*self.command, *arguments],
                cwd=self.home,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.sessions[process.pid] = name
        return process

    def _log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def __enter__(self) -> Airflow:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def free_port() -> int:
    """A port of loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def end_sessions(sessions: set[int]) -> None:
    """Kill whatever is left in these sessions, however deep its parents are buried."""
    while left := [process for process in psutil.process_iter(["status"]) if _belongs(process, sessions)]:
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=0.5)


def _belongs(process: psutil.Process, sessions: set[int]) -> bool:
    with suppress(ProcessLookupError, PermissionError):
        return process.info["status"] != psutil.STATUS_ZOMBIE and os.getsid(process.pid) in sessions
    return False
