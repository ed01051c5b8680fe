"""A thousand alerts a minute, each told to Slack and PagerDuty and resolved: ``python -m benchmarks.incident``.

The hub, the stand-ins (which, other than Slack, limit nothing) and a run of the dispatch for each system are processes
of their own. It prints, a minute at a time, how long it took from a change to the receiver's request.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import Any

import httpx2

from sandbox.process import Server

SYSTEMS = ("slack", "pagerduty")
LASTS_S = 20.0
RUN = """
import sys
from airflow_provider_airis.operators.dispatch import AirisDispatchOperator
AirisDispatchOperator(task_id="deliver", system=sys.argv[1], linger_s=15, max_run_s=7200).execute({})
"""


def run(*, minutes: float = 10, rate: int = 1_000) -> dict[str, Any]:
    """Seconds from a change to the request, by system and minute, and how many processors each process took."""
    with tempfile.TemporaryDirectory() as folder:
        tokens = Path(folder) / "tokens.json"
        tokens.write_text(json.dumps({"all": {"token": "benchmark-benchmark", "scopes": ["read", "alerts", "ingest"]}}))
        arguments = ("--database", f"sqlite:///{folder}/hub.db", "--tokens", str(tokens))
        with (
            Server("airflow_provider_airis.hub", "--port", "0", *arguments) as hub,
            Server("sandbox.slack", "--port", "0") as slack,
            Server("sandbox.pagerduty", "--port", "0") as pagerduty,
        ):
            connections = {
                "airis_default": {"conn_type": "airis", "host": hub.url, "password": "benchmark-benchmark"},
                "slack_default": {
                    "conn_type": "slack",
                    "password": "xoxb-benchmark",
                    "extra": {"base_url": f"{slack.url}/api/"},
                },
                "pagerduty_events_default": {
                    "conn_type": "pagerduty_events",
                    "host": pagerduty.url,
                    "password": "k" * 32,
                },
            }
            env = {f"AIRFLOW_CONN_{name.upper()}": json.dumps(fields) for name, fields in connections.items()}
            env |= {**os.environ, "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING"}
            runs = {
                system: subprocess.Popen([sys.executable, "-c", RUN, system], env=env, stdout=subprocess.DEVNULL)
                for system in SYSTEMS
            }
            processes = {"hub": hub.process, **{f"dispatch to {system}": one for system, one in runs.items()}}
            time.sleep(8)
            headers = {"Authorization": "Bearer benchmark-benchmark"}
            with httpx2.Client(base_url=hub.url, headers=headers, timeout=60) as client:
                began = time.time()
                fired, ended = _fire(client, round(minutes * rate), 60 / rate)
            took = time.time() - began
            used = {name: round(_processor(process.pid) / took, 2) for name, process in processes.items()}
            for process in runs.values():
                process.wait()
            figures: dict[str, Any] = {"processors": used, "alerts": len(fired)}
            print("  ".join(f"{name} {share:.2f} processors" for name, share in used.items()), flush=True)
            for system, url in (("slack", slack.url), ("pagerduty", pagerduty.url)):
                figures[system] = _told(system, _arrived(url), fired, ended, began)
            return figures


def _fire(client: httpx2.Client, count: int, every_s: float) -> tuple[dict[str, int], dict[str, int]]:
    """When each alert fired and ended, Unix ms."""
    fired: dict[str, int] = {}
    ended: dict[str, int] = {}
    open_ones: deque[tuple[float, str]] = deque()
    began = time.monotonic()
    while len(ended) < count:
        now = time.monotonic()
        if len(fired) < count and now >= began + len(fired) * every_s:
            number = len(fired)
            body = {"name": f"alert {number}", "severity": "critical", "model_id": f"m{number % 50}"}
            alert = client.post("/api/v1/alerts", json=body | {"fingerprint": str(number)}).raise_for_status().json()
            fired[alert["id"]] = alert["timestamp"]
            open_ones.append((now + LASTS_S, alert["id"]))
        elif open_ones and now >= open_ones[0][0]:
            _, alert_id = open_ones.popleft()
            answer = client.post(f"/api/v1/alerts/{alert_id}/resolve", json={}).raise_for_status()
            ended[alert_id] = answer.json()["updated_at"]
        else:
            time.sleep(0.005)
    return fired, ended


def _arrived(url: str) -> dict[tuple[str, bool], int]:
    """When the receiver was asked for each alert, and whether that was its end, Unix ms."""
    found: dict[tuple[str, bool], int] = {}
    for row in httpx2.get(f"{url}/_sandbox/requests", timeout=60).json():
        alert_id = row.get("dedup_key", "").removeprefix("airis-mon-") or row["metadata"]["event_payload"]["alert_id"]
        found.setdefault((alert_id, row["kind"] in ("update", "resolve")), row["at"])
    return found


def _told(
    system: str, arrived: dict[tuple[str, bool], int], fired: dict[str, int], ended: dict[str, int], began: float
) -> dict[str, Any]:
    minutes: dict[int, list[float]] = {}
    missing = 0
    for is_end, times in ((False, fired), (True, ended)):
        for alert_id, at in times.items():
            if (alert_id, is_end) not in arrived:
                missing += 1
                continue
            lag = (arrived[alert_id, is_end] - at) / 1000
            minutes.setdefault(int((at / 1000 - began) // 60), []).append(lag)
    rows = []
    for minute, lags in sorted(minutes.items()):
        lags.sort()
        rows.append({"p50_s": lags[len(lags) // 2], "p95_s": lags[int(0.95 * len(lags))], "max_s": lags[-1]})
        numbers = "  ".join(f"{name[:-2]} {value:5.2f} s" for name, value in rows[-1].items())
        print(f"{system:10} minute {minute:2} {len(lags):6,} requests  {numbers}", flush=True)
    if missing:
        print(f"{system}: {missing} were not told", flush=True)
    return {"minutes": rows, "not_told": missing}


def _processor(pid: int) -> float:
    """Seconds of processor that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--rate", type=int, default=1_000, help="alerts a minute (default: %(default)s)")
    given = parser.parse_args()
    run(minutes=given.minutes, rate=given.rate)


if __name__ == "__main__":
    main()
