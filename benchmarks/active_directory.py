"""What a directory costs: 100,000 users from slapd, against the C client reading the same, and when nothing changed.

``python -m benchmarks.active_directory`` prints the table.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("AIRFLOW__LOGGING__LOGGING_LEVEL", "WARNING")

from sandbox.active_directory import BASE_DN, LOGIN, Slapd
from sandbox.process import Server

USERS = 100_000
PERSON = "(objectClass=inetOrgPerson)"
READ = "cn uid mail displayName departmentNumber ou title memberOf manager modifyTimestamp entryUUID"
READ += " pwdAccountLockedTime shadowExpire"


def child(what: str, count: int) -> dict[str, Any]:
    """``read`` or ``sync`` in a process of its own: seconds, CPU and the memory it took beyond what Airflow takes."""
    command = [sys.executable, "-m", "benchmarks.active_directory", what, str(count)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    figures: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return figures


def measured(what: str) -> dict[str, Any]:
    from airflow_provider_airis.operators.active_directory import ActiveDirectoryToAirisOperator
    from airflow_provider_airis.records import Window

    operator = ActiveDirectoryToAirisOperator(task_id="read", mode="full" if what == "sync" else "auto")
    # One look at nobody loads ldap3 and Airflow's parts.
    warm = ActiveDirectoryToAirisOperator(task_id="warm", search_filter="(uid=user000000)")
    sum(1 for _ in warm.collect(Window(0, 1)))
    idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began, cpu = time.perf_counter(), time.process_time()
    reading = what == "read"
    users = sum(1 for _ in operator.collect(Window(0, 1))) if reading else operator.execute({})["users"]
    return {
        "users": users,
        "seconds": round(time.perf_counter() - began, 2),
        "cpu_s": round(time.process_time() - cpu, 2),
        "mib": round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - idle) / 1024, 1),
    }


def ldapsearch(slapd: Slapd) -> float:
    """Seconds of the C client for the same entries and attributes, over StartTLS too."""
    command = ["ldapsearch", "-LLL", "-ZZ", "-x", "-H", slapd.url, "-D", LOGIN, "-w", slapd.password, "-b", BASE_DN]
    began = time.perf_counter()
    subprocess.run(
        [*command, "-E", "pr=1000/noprompt", PERSON, *READ.split()],
        env={**os.environ, "LDAPTLS_CACERT": str(slapd.ca_certs_file)},
        stdout=subprocess.DEVNULL,
        check=True,
        timeout=600,
    )
    return round(time.perf_counter() - began, 2)


def run() -> dict[str, Any]:
    """All figures."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        store = ("--database", f"sqlite:///{folder}/hub.db", "--tokens", f"{folder}/tokens.json")
        with (
            Slapd(folder / "slapd", users=USERS) as slapd,
            Server("airflow_provider_airis.hub", "--port", "0", *store, log=folder / "hub.log") as hub,
        ):
            token = json.loads((folder / "tokens.json").read_text())["admin"]["token"]
            airis = {"conn_type": "airis", "host": hub.url, "password": token}
            os.environ["AIRFLOW_CONN_LDAP_DEFAULT"] = json.dumps(slapd.connection())
            os.environ["AIRFLOW_CONN_AIRIS_DEFAULT"] = json.dumps(airis)
            client = min(ldapsearch(slapd) for _ in range(3))
            read = child("read", USERS)
            first, again = child("sync", USERS), child("sync", USERS)
            nothing = child("auto", USERS)
    figures = {
        "users": USERS,
        "ldapsearch_s": client,
        "read": read,
        "read_to_ldapsearch": round(read["seconds"] / client, 1),
        "first_full_sync": first,
        "full_sync_without_change": again,
        "incremental_without_change": nothing,
        "incremental_to_full": round(nothing["seconds"] / again["seconds"], 4),
    }
    print(f"{USERS:,} users                         seconds   CPU s   MiB more")
    print(f"ldapsearch -ZZ -E pr=1000 > /dev/null   {client:7.2f}")
    rows = {"read": read, "first full sync": first, "full sync, no change": again, "incremental, no change": nothing}
    for title, row in rows.items():
        print(f"{title:38}  {row['seconds']:7.2f} {row['cpu_s']:7.2f} {row['mib']:10.1f}")
    print(f"Reading takes {figures['read_to_ldapsearch']} times as long as the C client")
    return figures


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measured(sys.argv[1])))
    else:
        run()
