"""The main job, end to end, on this machine: ``make demo``.

Starts the hub, the other systems and Airflow; backfills two days of SageMaker's metrics while the live syncs run, lets
one endpoint's latency go bad and recover, and compares what each system has with what the hub holds, and what the hub
fired with what Slack and PagerDuty were sent. ``--once`` ends there, with status 1 if anything is missing, doubled or
undelivered; otherwise everything stays up until Ctrl-C.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import psutil
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table

from airflow_provider_airis.catalog import BY_STEM
from airflow_provider_airis.records import Window, iso, to_ms
from sandbox.airflow import Airflow, end_sessions
from sandbox.process import ROOT, Server, serve
from sandbox.topology import HISTORY_DAYS, PEERS, arguments, connections, hub_arguments
from sandbox.verify import Tally, compare, compare_registry, compare_users

SYNC, RECONCILE = "airis_sync_sagemaker", "airis_reconcile_sagemaker"
DISPATCH = ("airis_dispatch_slack", "airis_dispatch_pagerduty")
LIMIT_S = 480
# One when somebody acknowledges, and one at the end.
SLACK_UPDATES = 2
# Of which change of the alert a request tells; of an update its text says so.
CHANGES = {"message": "fired", "chart": "fired", "trigger": "fired", "acknowledge": "acknowledged"}


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


class DemoError(Exception):
    """The job could not be done; says what and where to look."""


@dataclass(frozen=True)
class Delivery:
    """What a stand-in took.

    :param kind: Slack ``message``, ``chart``, ``update``; PagerDuty ``trigger``, ``acknowledge``, ``resolve``.
    :param change: the change of the alert that it tells of.
    """

    channel: str
    kind: str
    change: str
    at: int

    @classmethod
    def of(cls, channel: str, request: dict[str, Any]) -> Delivery:
        """What a stand-in noted."""
        said = "acknowledged" if str(request.get("text")).startswith("Acknowledged") else "resolved"
        return cls(channel, request["kind"], CHANGES.get(request["kind"], said), request["at"])


@dataclass
class Report:
    """What ``report.json`` holds."""

    points_published: int = 0
    points_in_hub: int = 0
    points_missing: int = 0
    points_doubled: int = 0
    backfill_runs: int = 0
    alerts_fired: int = 0
    slack_messages: int = 0
    slack_updates: int = 0
    pagerduty_events: int = 0
    dispatch_latency_s: dict[str, float] = field(default_factory=lambda: {"p50": 0.0, "max": 0.0})
    systems: dict[str, dict[str, int]] = field(default_factory=dict)
    setup_s: float = 0.0
    total_s: float = 0.0

    def faults(self) -> list[str]:
        """What is not as it must be, in words."""
        expected = {
            "points_missing": 0,
            "points_doubled": 0,
            "backfill_runs": HISTORY_DAYS,
            "alerts_fired": 1,
            "slack_messages": 1,
            "slack_updates": SLACK_UPDATES,
            "pagerduty_events": 2,
        }
        faults = [
            f"{name} is {getattr(self, name):,}, not {number}"
            for name, number in expected.items()
            if getattr(self, name) != number
        ]
        if not self.points_published:
            faults.append("nothing was published")
        for stem, counts in self.systems.items():
            title = BY_STEM[stem].title
            faults += [f"{title}: {counts[wrong]:,} {wrong}" for wrong in ("missing", "doubled") if counts[wrong]]
            faults += [] if counts["published"] else [f"{title} had nothing to read"]
        return faults


class Demo:
    """One run, in a directory of its own."""

    def __init__(self, directory: Path, display: Display) -> None:
        self.directory = directory
        self.display = display
        self.servers = ExitStack()
        self.airflow = Airflow(directory / "airflow")
        now = datetime.now(UTC).replace(second=0, microsecond=0)
        # A day is reconciled half an hour after its end at the earliest; until then the history ends a day before.
        today = (now - timedelta(minutes=31)).replace(hour=0, minute=0)
        self.history = Window.between(today - timedelta(days=HISTORY_DAYS), today)
        self.live_from = to_ms(now)
        rows = {peer.stem: BY_STEM[peer.stem] for peer in PEERS}
        # Who is sent nothing unless somebody says so is not needed here.
        self.peers = [
            peer
            for peer in PEERS
            if not peer.missing and ((channel := rows[peer.stem].channel) is None or channel.severities)
        ]
        self.running: dict[str, Server] = {}
        self.sequence = self.fired = 0
        self.changes: dict[str, int] = {}
        self.deliveries: list[Delivery] = []
        self.incident = ""
        self.backfilled = False
        self.synced: set[str] = set()
        self.champion = ""
        self.promoted = False
        self.counted = 0.0

    def start(self, *, welcome: bool) -> None:
        """Hub, stand-ins and Airflow, with its connections, up and healthy.

        :param welcome: say where everything is as soon as it is there.
        """
        migration = self.airflow.begin("db", "migrate")
        secrets = self.airflow.secrets
        for peer in PEERS:
            if peer.missing:
                self.display.say(f"{BY_STEM[peer.stem].title} is left out: {peer.needs} is not installed", "yellow")
        private = self.airflow.home / "secrets"
        times = zip(("history_from", "history_until", "live_from"), self._times(), strict=True)
        places = {"secrets": str(private), "api": self.airflow.url, **dict(times)}
        commands = {peer.stem: (peer.module, *arguments(peer, **places)) for peer in self.peers}
        commands["hub"] = ("airflow_provider_airis.hub", *hub_arguments(private, self.directory / "hub.db"))
        titles = [BY_STEM[peer.stem].title for peer in self.peers]
        with self.display.phase(f"hub, {', '.join(titles[:-1])} and {titles[-1]} are up"):
            self.running = self.servers.enter_context(serve(commands, logs=self.directory))
        self.addresses = {name: server.url for name, server in self.running.items()}
        self.hub = self._client(self.addresses["hub"], {"Authorization": f"Bearer {secrets['hub_admin_token']}"})
        self.source, self.slack, self.pagerduty = (
            self._client(self.addresses[stem]) for stem in ("sagemaker", "slack", "pagerduty")
        )
        with self.display.phase("Airflow's metadata database is migrated"):
            self.airflow.finish(migration)
        # The scheduler comes after the backfill's creation, which SQLite would refuse while others write.
        with self.display.phase("API server and Dag processor are healthy"):
            self.airflow.start("api-server", "dag-processor")
            self._create_rule()
            self.airflow.wait()
        hub = self.addresses["hub"]
        for conn_id, connection in connections(secrets, hub=hub, dashboard=hub, peers=self.addresses).items():
            self.airflow.call("POST", "/connections", json={"connection_id": conn_id, **connection})
        with self.display.phase("the shipped Dags are there"):
            if not self._until(lambda: {*self._sync_dags(), RECONCILE, *DISPATCH} <= self._dags(), 120):
                raise DemoError(f"the Dags did not appear: {self.airflow.call('GET', '/importErrors')}")
        if welcome:
            self.show_addresses()

    def work(self) -> dict[str, Tally]:
        """Backfill, live syncs, alert out and resolved; then compare, by system."""
        first, last = (iso(at)[:10] for at in (self.history.start, self.history.end - 1))
        with self.display.phase(f"airflow backfill create --dag-id {RECONCILE} --from-date {first} --to-date {last}"):
            command = ("backfill", "create", "--dag-id", RECONCILE, "--from-date", first, "--to-date", last)
            self.airflow.run(*command, "--max-active-runs", str(HISTORY_DAYS))
        with self.display.phase("scheduler and triggerer are healthy"):
            self.airflow.start("scheduler", "triggerer")
            self.airflow.wait()
        for dag_id in (*DISPATCH, *self._sync_dags()):
            self._enable(dag_id)
        # Enabled before, the Dag would have run yesterday on its own schedule, and that is one day of the backfill.
        self._enable(RECONCILE)
        span = {"from": iso(self.history.start), "to": iso(self.history.end)}
        self.expected = self.source.get("/_sandbox/published", params=span).raise_for_status().json()["points"]
        if not self._until(self._step, LIMIT_S):
            self.display.say(f"not all was done within {LIMIT_S} s; logs are in {self.directory}", "bold red")
        self.display.settle()
        with self.display.phase("compared record for record with what the systems have"):
            return {peer.stem: self._compare(peer.stem) for peer in self.peers if BY_STEM[peer.stem].source}

    def _compare(self, stem: str) -> Tally:
        windows = self._synced(f"airis_sync_{stem}")
        if stem == "sagemaker":
            return compare(self.addresses[stem], self.hub, [self.history, *windows])
        if stem == "active_directory":
            return compare_users(self.airflow.home / "secrets" / stem, self.hub, stem)
        if stem == "mlflow":
            address = self.addresses[stem]
            return compare_registry(address, self.hub, urlsplit(address).netloc)
        return compare(self.addresses[stem], self.hub, windows, stem)

    def report(self, tallies: dict[str, Tally], setup_s: float, seconds: float) -> Report:
        """The figures, from the hub, the stand-ins and Airflow, as they are now: something may have come late."""
        self._watch_alerts()
        self._watch_deliveries()
        kinds = [delivery.kind for delivery in self.deliveries]
        told = [one for one in self.deliveries if one.kind != "chart" and one.change in self.changes]
        waits = [(one.at - self.changes[one.change]) / 1000 for one in told]
        points = [tally for stem, tally in tallies.items() if BY_STEM[stem].metrics]
        return Report(
            points_published=sum(tally.published for tally in points),
            points_in_hub=sum(tally.in_hub for tally in points),
            points_missing=sum(tally.missing for tally in points),
            points_doubled=sum(tally.doubled for tally in points),
            backfill_runs=len(self._runs(RECONCILE, run_type="backfill", state="success")),
            alerts_fired=self.fired,
            slack_messages=kinds.count("message"),
            slack_updates=kinds.count("update"),
            pagerduty_events=kinds.count("trigger") + kinds.count("resolve"),
            dispatch_latency_s={
                "p50": round(statistics.median(waits), 1) if waits else 0.0,
                "max": round(max(waits, default=0.0), 1),
            },
            systems={
                stem: {name: getattr(tally, name) for name in ("published", "in_hub", "missing", "doubled")}
                for stem, tally in tallies.items()
            },
            setup_s=round(setup_s, 1),
            total_s=round(setup_s + seconds, 1),
        )

    def stop(self) -> None:
        """End everything, Airflow first: the others would only be missed by it."""
        self.airflow.stop()
        self.servers.close()

    def check(self) -> None:
        """Raise if a process of the demo has ended."""
        self.airflow.check()
        for server in self.running.values():
            if server.process.poll() is not None:
                raise DemoError(f"{server.module} ended with {server.process.returncode}: see {server.log}")

    def show_addresses(self) -> None:
        """Say where everything is, and how to log in."""
        password = self.airflow.secrets["hub_admin_token"]
        for title, address in (
            ("Airflow", f"{self.airflow.url} (no login)"),
            ("Hub", f"{self.addresses['hub']}/dashboard (any user, password {password})"),
            ("Slack", self.addresses["slack"]),
            ("PagerDuty", self.addresses["pagerduty"]),
        ):
            self.display.console.print(f"{'':10} {title:<10} {address}", markup=False)

    def stay(self) -> None:
        """Keep everything up until Ctrl-C."""
        self.show_addresses()
        self.display.say("all of it stays up until Ctrl-C")
        while True:
            self.check()
            time.sleep(1)

    def _step(self) -> bool:
        """Look at everything once, and take the next step; true when there is none left."""
        self.check()
        self._watch_alerts()
        self._watch_deliveries()
        told = {delivery.kind for delivery in self.deliveries}
        if not self.incident and self._runs(SYNC, state="success"):
            self.incident = "on"
            self.source.post("/_sandbox/incidents", json={"endpoint": self.endpoint}).raise_for_status()
            self.display.say(f"incident: {self.endpoint} answers 20 times slower from now on", "yellow")
        if self.incident == "on" and {"message", "trigger"} <= told:
            self.incident = "acknowledged"
            incident = self.pagerduty.get("/_sandbox/incidents").raise_for_status().json()[0]
            act = {"incident": incident["id"], "action": "acknowledge"}
            answer = self.pagerduty.post("/_sandbox/act", json=act).raise_for_status().json()
            self.display.say(f"PagerDuty: Jane Doe acknowledges; Airflow answers {answer['status']}", "yellow")
        if self.incident == "acknowledged" and "update" in told:
            self.incident = "over"
            self.source.patch("/_sandbox/incidents", json={"endpoint": self.endpoint}).raise_for_status()
            self.display.say(f"incident: {self.endpoint} is as fast as before", "yellow")
        return all([self._backfilled(), self._all_synced(), self._promoted(), self._is_over()])

    def _is_over(self) -> bool:
        """Whether Slack and PagerDuty know that the incident is."""
        kinds = [delivery.kind for delivery in self.deliveries]
        return kinds.count("update") == SLACK_UPDATES and "resolve" in kinds

    def _promoted(self) -> bool:
        """Whether the hub has heard of an alias that is moved once MLflow was read."""
        if "airis_sync_mlflow" not in self._sync_dags():
            return True
        if not self.champion and "airis_sync_mlflow" in self.synced:
            self.champion = "4"
            move = {"name": "churn", "alias": "champion", "version": self.champion}
            httpx2.post(f"{self.addresses['mlflow']}/api/2.0/mlflow/registered-models/alias", json=move, timeout=60)
            self.display.say("MLflow: the alias champion of churn moves to version 4", "yellow")
        if self.champion and not self.promoted:
            query = {"source": "mlflow-churn", "event_type": "model_alias_changed"}
            events = self.hub.get("/api/v1/events", params=query).raise_for_status().json()["events"]
            if self.champion in (event["data"]["version"] for event in events):
                self.promoted = True
                self.display.say("hub: model_alias_changed: champion of churn is version 4", "green")
        return self.promoted

    def _all_synced(self) -> bool:
        """Whether each system was read at least once; says so as it comes true."""
        for dag_id in self._sync_dags():
            if dag_id not in self.synced and self._runs(dag_id, state="success"):
                self.synced.add(dag_id)
                title = BY_STEM[dag_id.removeprefix("airis_sync_")].title
                self.display.say(f"live sync: {title} is in the hub")
        return self.synced.issuperset(self._sync_dags())

    def _sync_dags(self) -> list[str]:
        return [row.dags["sync"] for peer in self.peers if (row := BY_STEM[peer.stem]).source]

    def _backfilled(self) -> bool:
        if self.backfilled:
            return True
        self._show_progress()
        states = [run["state"] for run in self._runs(RECONCILE, run_type="backfill")]
        self.backfilled = len(states) >= HISTORY_DAYS and {"success", "failed"}.issuperset(states)
        if self.backfilled:
            self._show_progress(every=0)
            self.display.settle()
            failed = states.count("failed")
            self.display.say(
                f"backfill: {len(states)} runs are done" + (f", {failed} of them failed" if failed else "")
            )
        return self.backfilled

    def _show_progress(self, every: float = 3) -> None:
        """Count what the hub holds of the history; counting costs the hub some time, hence not always."""
        if time.monotonic() - self.counted < every:
            return
        self.counted = time.monotonic()
        span = {"from": self.history.start, "to": self.history.end, "step": 86_400}
        held = self.hub.get("/api/v1/metrics/coverage", params=span).raise_for_status().json()["series"]
        self.display.progress("backfill", sum(series["points"] for series in held), self.expected)

    def _synced(self, dag_id: str) -> list[Window]:
        """The live windows that finished runs have read; neighbours are one."""
        windows: list[Window] = []
        for run in sorted(self._runs(dag_id, state="success"), key=lambda run: run["data_interval_start"]):
            start, end = (
                to_ms(datetime.fromisoformat(run[key])) for key in ("data_interval_start", "data_interval_end")
            )
            if windows and windows[-1].end == start:
                start = windows.pop().start
            windows.append(Window(start, end))
        return windows

    def _dags(self) -> set[str]:
        return {dag["dag_id"] for dag in self.airflow.call("GET", "/dags")["dags"]}

    def _enable(self, dag_id: str) -> None:
        self.airflow.call("PATCH", f"/dags/{dag_id}", json={"is_paused": False})

    def _runs(self, dag_id: str, **filters: str) -> list[dict[str, Any]]:
        runs: list[dict[str, Any]] = self.airflow.call("GET", f"/dags/{dag_id}/dagRuns", params=filters)["dag_runs"]
        return runs

    def _until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Whether the condition came true in time."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                return False
            self.check()
            time.sleep(0.5)
        return True

    def _times(self) -> tuple[str, str, str]:
        return iso(self.history.start), iso(self.history.end), iso(self.live_from)

    def _client(self, url: str, headers: dict[str, str] | None = None) -> httpx2.Client:
        return self.servers.enter_context(httpx2.Client(base_url=url, headers=headers, timeout=60))

    def _create_rule(self) -> None:
        """One rule, on the slow end of one endpoint's latency, thrice above what the last hour of history has seen."""
        span = {"from": iso(self.history.end - 3_600_000), "to": iso(self.history.end)}
        lines = self.source.get("/_sandbox/truth", params=span).raise_for_status().text.splitlines()
        slow = [s for s in map(json.loads, lines) if (s["metric"], s["statistic"]) == ("ModelLatency", "p90")]
        variants = Counter(series["endpoint"] for series in slow)
        usual = next(series for series in slow if variants[series["endpoint"]] == 1 and len(series["points"]) == 60)
        self.endpoint = usual["endpoint"]
        rule = {
            "id": "model-latency",
            "name": f"{self.endpoint} answers slowly",
            "metric": "modellatency",
            "matchers": [
                {"tag": "endpoint_name", "op": "=", "value": self.endpoint},
                {"tag": "statistic", "op": "=", "value": "p90"},
            ],
            "aggregation": "last",
            "window_s": 60,
            "comparator": ">",
            "threshold": round(3 * max(value for _, value in usual["points"])),
            "for_s": 0,
            "severity": "critical",
            "labels": {
                "environment": "production",
                "model_id": self.endpoint,
                "alert_type": "latency",
                "description": "One request in ten waits longer than three times the usual.",
            },
        }
        answer = self.hub.post("/api/v1/rules", json=rule)
        if answer.is_error:
            raise DemoError(f"the hub refused the rule with {answer.status_code}: {answer.text}")

    def _watch_alerts(self) -> None:
        answer = self.hub.get("/api/v1/alerts/changes", params={"after": self.sequence}).raise_for_status().json()
        self.sequence = answer["sequence"]
        for change in answer["changes"]:
            alert = change["alert"]
            self.fired += change["change"] == "fired"
            self.changes[change["change"]] = change["at"]
            self.display.say(
                f"hub: {alert['severity']} alert {change['change']}: {alert['name']}",
                "bold red" if change["change"] == "fired" else "green",
            )

    def _watch_deliveries(self) -> None:
        stand_ins = {"Slack": self.slack, "PagerDuty": self.pagerduty}
        seen = [
            Delivery.of(name, request)
            for name, client in stand_ins.items()
            for request in client.get("/_sandbox/requests").raise_for_status().json()
        ]
        for delivery in seen:
            if delivery not in self.deliveries:
                waited = (delivery.at - self.changes.get(delivery.change, delivery.at)) / 1000
                self.display.say(
                    f"{delivery.channel}: {delivery.kind}, {waited:.1f} s after the alert has {delivery.change}", "cyan"
                )
        self.deliveries = seen


@contextmanager
def run_directory(parent: Path) -> Iterator[Path]:
    """A new directory for one run, locked while it lasts, so that runs beside it are left alone. Old runs go."""
    runs = parent / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    (parent / "report.json").unlink(missing_ok=True)
    with (runs / ".lock").open("w") as gate, ExitStack() as held:
        fcntl.flock(gate, fcntl.LOCK_EX)
        for old in runs.glob("*/lock"):
            with old.open("w") as lock, suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(old.parent)
        run = runs / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{os.getpid()}"
        run.mkdir()
        fcntl.flock(held.enter_context((run / "lock").open("w")), fcntl.LOCK_EX)
        fcntl.flock(gate, fcntl.LOCK_UN)
        yield run


def write_report(directory: Path, report: Report) -> None:
    """Write ``report.json`` as a whole or not at all."""
    draft = directory / f".report-{os.getpid()}.json"
    draft.write_text(json.dumps(asdict(report), indent=2) + "\n")
    draft.replace(directory / "report.json")


def show(display: Display, report: Report, tallies: dict[str, Tally]) -> None:
    """The final table, and what is wrong if anything is."""
    table = Table("figure", "value", title="What the source and the hub say", title_justify="left")
    for name, value in asdict(report).items():
        if name == "systems":
            continue
        text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else f"{value:,}"
        table.add_row(name, text)
    display.console.print(table)
    table = Table("system", title="Record for record", title_justify="left")
    for name in ("at the source", "in the hub", "missing", "doubled"):
        table.add_column(name, justify="right")
    for stem, counts in report.systems.items():
        table.add_row(BY_STEM[stem].title, *(f"{count:,}" for count in counts.values()))
    display.console.print(table)
    for fault in [*report.faults(), *(example for tally in tallies.values() for example in tally.examples)]:
        display.say(fault, "bold red")


def main() -> int:
    """Run the demo; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.demo", description=__doc__)
    parser.add_argument("--once", action="store_true", help="end when the job is done, with status 1 on any fault")
    parser.add_argument("--directory", type=Path, default=ROOT / ".demo", help="for logs, data and report.json")
    options = parser.parse_args()
    # Airflow starts in half the time from cached bytecode, also where the environment switches the cache off.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    _on_signals(_interrupt)
    display = Display()
    status = 130
    try:
        with run_directory(options.directory.resolve()) as directory:
            demo = Demo(directory, display)
            try:
                demo.start(welcome=not options.once)
                tallies = demo.work()
                report = demo.report(tallies, float(os.environ.get("AIRIS_DEMO_SETUP_S", "0")), display.seconds)
                write_report(options.directory, report)
                show(display, report, tallies)
                status = 1 if report.faults() else 0
                if not options.once:
                    demo.stay()
            finally:
                _on_signals(signal.SIG_IGN)
                display.settle()
                display.say("ending every process")
                demo.stop()
                # Whoever was started in the moment of an interrupt is known to nobody but the system.
                end_sessions({child.pid for child in psutil.Process().children()})
    except KeyboardInterrupt:
        pass
    except (DemoError, RuntimeError, httpx2.HTTPError) as error:
        display.say(f"failed: {error}", "bold red")
        status = 1
    return status


def _on_signals(handler: Any) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, handler)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
