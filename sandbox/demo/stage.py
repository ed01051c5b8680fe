"""The processes of the demo: the hub, the fake servers and Airflow, up and healthy, and ended again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2

from airflow_provider_airis.catalog import BY_STEM, SYSTEMS
from airflow_provider_airis.records import Window, iso, to_ms
from sandbox.airflow import Airflow
from sandbox.demo.display import Display
from sandbox.fake import FakeServer, Running
from sandbox.process import Server, serve
from sandbox.topology import COMPONENTS, HISTORY_DAYS, commands, connections, hub_arguments


class DemoError(Exception):
    """The job could not be done; says what and where to look."""


class Stage:
    """One run's processes, in a directory of its own.

    :param peers: the fake servers that take part.
    """

    def __init__(self, directory: Path, display: Display, peers: Sequence[FakeServer]) -> None:
        self.directory = directory
        self.display = display
        self.peers = peers
        self.servers = ExitStack()
        # Who is sent nothing by default is, if somebody asks for the system.
        settings = {
            f"AIRFLOW__AIRIS_{peer.stem}__SEVERITIES".upper(): "critical"
            for peer in peers
            if peer.inbox and not is_told(peer)
        }
        self.airflow = Airflow(directory / "airflow", settings=settings)
        now = datetime.now(UTC).replace(second=0, microsecond=0)
        # A day is reconciled half an hour after its end at the earliest; until then the history ends a day before.
        today = (now - timedelta(minutes=31)).replace(hour=0, minute=0)
        self.history = Window.between(today - timedelta(days=HISTORY_DAYS), today)
        self.live_from = to_ms(now)
        self.processes: dict[str, Server] = {}
        self.running: dict[str, Running] = {}
        self.clients: dict[str, httpx2.Client] = {}

    def start(self) -> None:
        """Hub and fake servers, then as much of Airflow as leaves its database alone."""
        migration = self.airflow.begin("db", "migrate")
        secrets = self.airflow.home / "secrets"
        times = {
            "history_from": iso(self.history.start),
            "history_until": iso(self.history.end),
            "live_from": iso(self.live_from),
        }
        servers = commands(self.peers, lambda _: 0, secrets=str(secrets), api=self.airflow.url, **times)
        hub = ("airflow_provider_airis.hub", "--port", "0", *hub_arguments(secrets, self.directory / "hub.db"))
        titles = [BY_STEM[peer.stem].title for peer in self.peers]
        with self.display.phase(f"{', '.join(['hub', *titles[:-1]])} and {titles[-1]} are up"):
            self.processes = self.servers.enter_context(serve({"hub": hub, **servers}, logs=self.directory))
        urls = {name: server.url for name, server in self.processes.items() if name != "fakes"}
        if fakes := self.processes.get("fakes"):
            urls |= fakes.urls
        self.running = {name: Running(url, secrets) for name, url in urls.items()}
        self.hub = self._client(urls["hub"], {"Authorization": f"Bearer {self.airflow.secrets['hub_admin_token']}"})
        self.clients = {peer.stem: self._client(urls[peer.stem]) for peer in self.peers if peer.inbox}
        with self.display.phase("Airflow's metadata database is migrated"):
            self.airflow.finish(migration)
        # The scheduler comes after the backfill's creation, which SQLite would refuse while others write.
        with self.display.phase("API server and Dag processor are healthy"):
            self.airflow.start("api-server", "dag-processor")
            self.airflow.wait()
        made = connections(self.airflow.secrets, hub=urls["hub"], dashboard=urls["hub"], peers=urls)
        for conn_id, connection in made.items():
            self.airflow.call("POST", "/connections", json={"connection_id": conn_id, **connection})

    def wait_for_dags(self) -> None:
        """Wait until Airflow has parsed all that the catalog has, so that nobody writes into its database any more.

        :raises DemoError: it has not in time.
        """
        dag_ids = {dag_id for row in SYSTEMS for dag_id in row.dags.values()}
        with self.display.phase("the shipped Dags are there"):
            if not self.until(lambda: dag_ids <= self._dags(), 240):
                raise DemoError(f"the Dags did not appear: {self.airflow.call('GET', '/importErrors')}")

    def backfill(self, *options: str) -> None:
        """Create a backfill, which SQLite refuses while others write. The Dags are stored, and do not change."""
        self.airflow.kill("dag-processor")
        del self.airflow.processes["dag-processor"]
        with self.display.phase(f"airflow backfill create {' '.join(options)}"):
            self.airflow.run("backfill", "create", *options, "--max-active-runs", str(HISTORY_DAYS))

    def go(self) -> None:
        """Start the rest of Airflow."""
        with self.display.phase("scheduler and triggerer are healthy"):
            self.airflow.start(*(name for name in COMPONENTS if name not in self.airflow.processes))
            self.airflow.wait()

    def stop(self) -> None:
        """End everything, Airflow first: the others would only be missed by it."""
        self.airflow.stop()
        self.servers.close()

    def check(self) -> None:
        """Raise if a process of the demo has ended."""
        self.airflow.check()
        for server in self.processes.values():
            if server.process.poll() is not None:
                raise DemoError(f"{server.module} ended with {server.process.returncode}: see {server.log}")

    def show_addresses(self) -> None:
        """Say where everything is, and how to log in."""
        password = self.airflow.secrets["hub_admin_token"]
        places = [
            ("Airflow", f"{self.airflow.url} (no login)"),
            ("Hub", f"{self.running['hub'].url}/dashboard (any user, password {password})"),
            *((BY_STEM[peer.stem].title, self.running[peer.stem].url) for peer in self.peers if peer.published),
        ]
        for title, address in places:
            self.display.console.print(f"{'':10} {title:<10} {address}", markup=False)

    def enable(self, dag_id: str) -> None:
        """Unpause a Dag."""
        self.airflow.call("PATCH", f"/dags/{dag_id}", json={"is_paused": False})

    def runs(self, dag_id: str, **filters: str) -> list[dict[str, Any]]:
        """Runs of a Dag."""
        runs: list[dict[str, Any]] = self.airflow.call("GET", f"/dags/{dag_id}/dagRuns", params=filters)["dag_runs"]
        return runs

    def windows(self, dag_id: str) -> list[Window]:
        """The windows that finished runs of a sync have read; neighbours are one."""
        windows: list[Window] = []
        for run in sorted(self.runs(dag_id, state="success"), key=lambda run: run["data_interval_start"]):
            start, end = (
                to_ms(datetime.fromisoformat(run[key])) for key in ("data_interval_start", "data_interval_end")
            )
            if windows and windows[-1].end == start:
                start = windows.pop().start
            windows.append(Window(start, end))
        return windows

    def until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Whether the condition came true in time."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                return False
            self.check()
            time.sleep(0.5)
        return True

    def _dags(self) -> set[str]:
        return {dag["dag_id"] for dag in self.airflow.call("GET", "/dags", params={"limit": 100})["dags"]}

    def _client(self, url: str, headers: dict[str, str] | None = None) -> httpx2.Client:
        return self.servers.enter_context(httpx2.Client(base_url=url, headers=headers, timeout=60))


def is_source(peer: FakeServer) -> bool:
    """Whether its system is read into the hub."""
    return BY_STEM[peer.stem].source is not None


def is_told(peer: FakeServer) -> bool:
    """Whether its system is sent critical alerts unless somebody says otherwise."""
    channel = BY_STEM[peer.stem].channel
    return channel is not None and "critical" in channel.severities
