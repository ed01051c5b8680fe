"""Run every benchmark, print its table, and write the figures with the machine's data to benchmarks/results.json."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from importlib import import_module
from pathlib import Path

BENCHMARKS = (
    "delivery",
    "cloudwatch",
    "vertex_ai",
    "mlflow",
    "active_directory",
    "hub",
    "imports",
    "dispatch",
    "incident",
)


def main(names: list[str]) -> None:
    results: dict[str, object] = {
        "machine": {
            "cpus": os.cpu_count(),
            "processor": _processor(),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.release()}",
        },
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    for name in names or BENCHMARKS:
        print(f"\n{name}\n{'-' * len(name)}", flush=True)
        results[name] = import_module(f"benchmarks.{name}").run()
    path = Path(__file__).with_name("results.json")
    path.write_text(json.dumps(results, indent=1) + "\n")
    print(f"\nWritten to {path.relative_to(Path.cwd())}" if path.is_relative_to(Path.cwd()) else f"\nWritten to {path}")


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


if __name__ == "__main__":
    main(sys.argv[1:])
