"""What importing costs: every task is a process that imports its operator anew, and every Dag file is parsed."""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
from pathlib import Path

from airflow_provider_airis.catalog import SYSTEMS

ROOT = Path(__file__).resolve().parent.parent
RUNS = 5
SDK = "airflow.sdk, airflow.sdk.bases.operator, airflow.sdk.bases.hook"


def run() -> dict[str, object]:
    """Milliseconds of each operators module beyond ``airflow.sdk``, seconds to parse all Dags."""
    modules = [p.rpartition(".")[0] for s in SYSTEMS for p in (s.collect_class, s.notify_class) if p]
    beyond = {module: statistics.median(_import_ms(module) for _ in range(RUNS)) for module in modules}
    parse = _parse_s()
    for module, cost in beyond.items():
        print(f"{module:48} {cost:7.1f} ms beyond airflow.sdk")
    for name, seconds in parse.items():
        print(f"dags/{name:43} {seconds:7.2f} s to parse in a warm process")
    return {"beyond_sdk_ms": beyond, "parse_s": parse, "parse_all_s": sum(parse.values())}


def _import_ms(module: str) -> float:
    """Cumulative import time of a module after the SDK, by ``-X importtime``."""
    command = [sys.executable, "-X", "importtime", "-c", f"import {SDK}\nimport {module}"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    top = {name: int(us) for us, name in re.findall(r"\|\s+(\d+) \| (airflow_provider_airis\S*)$", output, re.M)}
    return sum(top.get(name, 0) for name in ("airflow_provider_airis", module)) / 1000


def _parse_s() -> dict[str, float]:
    code = (
        "import sys, time, pathlib, airflow.sdk\n"
        "from airflow.dag_processing.dagbag import DagBag\n"
        "for name in sys.argv[1:]:\n"
        "    started = time.perf_counter()\n"
        "    DagBag(name, bundle_path=pathlib.Path(name).parent)\n"
        "    print('PARSED', pathlib.Path(name).name, time.perf_counter() - started)\n"
    )
    files = sorted(str(path) for path in (ROOT / "dags").glob("*.py"))
    done = subprocess.run([sys.executable, "-c", code, *files], capture_output=True, text=True, check=True)
    return {name: float(seconds) for name, seconds in re.findall(r"^PARSED (\S+) (\S+)$", done.stdout, re.M)}


if __name__ == "__main__":
    run()
