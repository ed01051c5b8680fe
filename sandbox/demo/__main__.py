"""The main job, end to end, on this machine: ``make demo``.

Starts the hub, fake servers of the other systems and Airflow; backfills two days of metrics while the live syncs run,
lets one endpoint's latency go bad and recover, and compares what each system has with what the hub holds, and what the
hub fired with what the receivers were sent. ``--once`` ends there, with status 1 if anything is missing, doubled or
undelivered; otherwise everything stays up until Ctrl-C. ``--systems slack,sagemaker`` runs a part.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import psutil

from airflow_provider_airis.catalog import BY_STEM
from sandbox.airflow import end_sessions
from sandbox.demo.display import Display
from sandbox.demo.report import show
from sandbox.demo.stage import DemoError, Stage, is_source, is_told
from sandbox.demo.story import Story
from sandbox.fake import FakeServer
from sandbox.process import ROOT
from sandbox.topology import PEERS


def cast(systems: str, display: Display) -> list[FakeServer]:
    """The fake servers that take part: all sources and whoever is sent critical alerts, or those that are named.

    :param systems: stems with commas.
    :raises DemoError: one has no part in the demo.
    """
    by_stem = {peer.stem: peer for peer in PEERS if is_source(peer) or peer.inbox}
    named = [name.strip() for name in systems.split(",") if name.strip()]
    if unknown := [name for name in named if name not in by_stem]:
        raise DemoError(f"{unknown[0]!r} has no part in the demo; these have: {', '.join(by_stem)}")
    chosen = [peer for peer in by_stem.values() if (peer.stem in named if named else is_source(peer) or is_told(peer))]
    for peer in chosen:
        if peer.missing:
            display.say(f"{BY_STEM[peer.stem].title} is left out: {peer.needs} is not installed", "yellow")
    if not (there := [peer for peer in chosen if not peer.missing]):
        raise DemoError("no system is left")
    return there


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


def run(options: argparse.Namespace, display: Display) -> int:
    """The whole job; returns its exit status."""
    peers = cast(options.systems, display)
    with run_directory(options.directory.resolve()) as directory:
        stage = Stage(directory, display, peers)
        try:
            stage.start()
            story = Story(stage)
            story.prepare()
            if not options.once:
                stage.show_addresses()
            stage.go()
            tallies = story.play()
            report = story.report(tallies)
            setup_s = float(os.environ.get("AIRIS_DEMO_SETUP_S", "0"))
            report.setup_s, report.total_s = round(setup_s, 1), round(setup_s + display.seconds, 1)
            report.write(options.directory)
            show(display, report, tallies)
            if not options.once:
                stage.show_addresses()
                display.say("all of it stays up until Ctrl-C")
                stay(stage)
            return 1 if report.faults() else 0
        finally:
            _on_signals(signal.SIG_IGN)
            display.settle()
            display.say("ending every process")
            stage.stop()
            # Whoever was started in the moment of an interrupt is known to nobody but the system.
            end_sessions({child.pid for child in psutil.Process().children()})


def stay(stage: Stage) -> None:
    """Keep everything up until Ctrl-C."""
    while True:
        stage.check()
        time.sleep(1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m sandbox.demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--once", action="store_true", help="end when the job is done, with status 1 on any fault")
    parser.add_argument("--directory", type=Path, default=ROOT / ".demo", help="for logs, data and report.json")
    parser.add_argument("--systems", default="", help="stems with commas; every source and receiver unless given")
    options = parser.parse_args(arguments)
    # Airflow starts in half the time from cached bytecode, also where the environment switches the cache off.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    _on_signals(_interrupt)
    display = Display()
    try:
        return run(options, display)
    except KeyboardInterrupt:
        return 130
    except (DemoError, RuntimeError, httpx2.HTTPError) as error:
        display.say(f"failed: {error}", "bold red")
        return 1


def _on_signals(handler: Any) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, handler)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
