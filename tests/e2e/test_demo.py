"""`make demo` itself: the whole job once, and Ctrl-C at any moment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from airflow_provider_airis.catalog import BY_STEM
from sandbox.process import ROOT
from sandbox.topology import PEERS

pytestmark = pytest.mark.e2e


class Run:
    """The demo as a process, with what it has printed and which processes are below it."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.directory = directory
        self.output = directory / "output.log"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "sandbox.demo", "--directory", directory, *arguments],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                start_new_session=True,
            )
        self.seen: set[psutil.Process] = set()

    @property
    def text(self) -> str:
        return self.output.read_text(errors="replace")

    def look(self) -> None:
        """Remember every process below it."""
        self.seen |= set(psutil.Process(self.process.pid).children(recursive=True))

    def until(self, text: str, seconds: float = 300) -> None:
        deadline = time.monotonic() + seconds
        while text not in self.text:
            assert self.process.poll() is None, self.text
            assert time.monotonic() < deadline, f"no {text!r} within {seconds} s:\n{self.text}"
            self.look()
            time.sleep(0.1)

    def interrupt(self) -> int:
        self.look()
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)

    def left(self) -> list[str]:
        """What is still there: processes seen below it, or started in its directory, and those that listen."""
        mine = [process for process in psutil.process_iter() if self._is_mine(process)]
        return [f"{process.pid} {process.name()} {process.cmdline()}" for process in mine]

    def _is_mine(self, process: psutil.Process) -> bool:
        try:
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                return False
            return process in self.seen or str(self.directory) in [process.cwd(), *process.cmdline()]
        except psutil.Error:
            return False


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    for process in psutil.process_iter(["cwd"]):
        if str(tmp_path) in (process.info["cwd"] or ""):
            process.kill()


def test_the_whole_job(directory: Path) -> None:
    run = Run(directory, "--once")
    while run.process.poll() is None:
        run.look()
        time.sleep(0.5)
    assert run.process.returncode == 0, run.text
    report = json.loads((directory / "report.json").read_text())
    assert report["points_published"] == report["points_in_hub"] > 1_000_000
    assert report["points_missing"] == report["points_doubled"] == 0
    assert {stem: counts["missing"] + counts["doubled"] for stem, counts in report["systems"].items()} == dict.fromkeys(
        (peer.stem for peer in PEERS if BY_STEM[peer.stem].source and not peer.missing), 0
    )
    assert report["systems"]["mlflow"]["published"] == report["systems"]["mlflow"]["in_hub"] == 30
    if "active_directory" in report["systems"]:
        assert report["systems"]["active_directory"]["in_hub"] == 2000
    assert report["backfill_runs"] == 2
    assert report["alerts_fired"] == report["slack_messages"] == 1
    assert report["slack_updates"] == 2
    assert report["pagerduty_events"] == 2
    assert 0 < report["dispatch_latency_s"]["p50"] <= report["dispatch_latency_s"]["max"] < 60
    assert report["setup_s"] == 0.0
    assert run.left() == []


@pytest.mark.parametrize("moment", ["", "is migrated", "airflow backfill create"])
def test_an_interrupt_leaves_nothing_behind(directory: Path, moment: str) -> None:
    run = Run(directory)
    run.until(moment)
    while not run.seen:  # its first server
        assert run.process.poll() is None, run.text
        run.look()
        time.sleep(0.01)
    assert run.interrupt() == 130, run.text
    assert run.left() == []
    assert "Traceback" not in run.text
    assert not (directory / "report.json").exists()


def test_a_server_that_ends_ends_the_demo(directory: Path) -> None:
    run = Run(directory, "--once")
    run.until("is migrated")
    (slack,) = [child for child in psutil.Process(run.process.pid).children() if "sandbox.slack" in child.cmdline()]
    slack.kill()
    assert run.process.wait(180) == 1
    assert "sandbox.slack ended with -9" in run.text
    assert run.left() == []
