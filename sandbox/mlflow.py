"""A real MLflow server, on SQLite in a folder, with a registry to begin with.

``python -m sandbox.mlflow --port 0 --models 5 --versions 4`` prints ``ready http://127.0.0.1:PORT`` once models,
versions with runs and metrics, and aliases are there; they are always the same, but for the runs' ids and the times.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2

from airflow_provider_airis.records import Window
from sandbox.fake import FakeServer, Running
from sandbox.verify import Tally, compare_records, events

API = "/api/2.0/mlflow"
LOGIN = ("admin", "password-of-the-sandbox")
NAMES = ("churn", "fraud-detection", "demand-forecast", "ranking", "intent", "pricing", "anomaly", "vision")


class MLflow:
    """A client of the REST API, for whoever changes a registry.

    :param url: the server's address.
    """

    def __init__(self, url: str) -> None:
        self.client = httpx2.Client(base_url=url + API, timeout=60)

    def call(self, method: str, path: str, **body: Any) -> dict[str, Any]:
        """Call ``registered-models/create`` and the like."""
        given = {"params": body} if method == "GET" else {"json": body}
        answer: dict[str, Any] = self.client.request(method, f"/{path}", **given).raise_for_status().json()
        return answer

    def model(self, name: str) -> None:
        """Register a model."""
        self.call("POST", "registered-models/create", name=name)

    def version(self, name: str, metrics: dict[str, float] | None = None, *, ended: bool = True) -> str:
        """Create a version with a run that has logged metrics, and has ended; return its number."""
        now = int(time.time() * 1000)
        run = self.call("POST", "runs/create", experiment_id="0", start_time=now)["run"]["info"]["run_id"]
        logged = [{"key": key, "value": value, "timestamp": now, "step": 0} for key, value in (metrics or {}).items()]
        if logged:
            self.call("POST", "runs/log-batch", run_id=run, metrics=logged)
        if ended:
            self.call("POST", "runs/update", run_id=run, status="FINISHED", end_time=now)
        made = self.call("POST", "model-versions/create", name=name, source=f"s3://airis-sandbox/{run}", run_id=run)
        return str(made["model_version"]["version"])

    def alias(self, name: str, alias: str, version: str) -> None:
        """Let an alias name a version."""
        self.call("POST", "registered-models/alias", name=name, alias=alias, version=version)


@contextmanager
def server(
    folder: Path, *, host: str = "127.0.0.1", port: int = 0, workspaces: bool = False, basic_auth: bool = False
) -> Iterator[str]:
    """A server whose store is in ``folder``; its address once it answers.

    :param workspaces: whether it has some.
    :param basic_auth: whether it asks for a login, :data:`LOGIN`.
    :raises RuntimeError: it does not start; the end of its log is part of the message.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    port = port or _free_port()
    log = folder / "mlflow.log"
    command = [sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--allowed-hosts", "*"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    if workspaces:
        settings["MLFLOW_ENABLE_WORKSPACES"] = "true"
    if basic_auth:
        command += ["--app-name", "basic-auth"]
        config = folder / "basic_auth.ini"
        name, password = LOGIN
        config.write_text(
            f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{folder}/basic_auth.db\n"
            f"admin_username = {name}\nadmin_password = {password}\n"
            "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
        )
        settings |= {"MLFLOW_AUTH_CONFIG_PATH": str(config), "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex()}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **settings},
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 300
        while not _healthy(url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"mlflow server did not start:\n{log.read_text(errors='replace')[-4000:]}")
            time.sleep(0.1)
        yield f"http://{host}:{port}"
    finally:
        # Its own children are in its session and have no other.
        for number in (signal.SIGTERM, signal.SIGKILL):
            if process.poll() is None:
                os.killpg(process.pid, number)
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    continue


def seed(url: str, models: int, versions: int) -> None:
    """Register models with versions, runs, metrics and the alias ``champion`` on the last but one."""
    mlflow = MLflow(url)
    for number in range(models):
        name = NAMES[number % len(NAMES)] + (f"-{number // len(NAMES)}" if number >= len(NAMES) else "")
        mlflow.model(name)
        made = [
            mlflow.version(name, {"accuracy": 0.8 + 0.01 * step, "loss": 0.5 - 0.03 * step}) for step in range(versions)
        ]
        if made:
            mlflow.alias(name, "champion", made[max(0, len(made) - 2)])


def _healthy(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/health", timeout=5).status_code == 200
    except httpx2.HTTPError:
        return False


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG: also if this process is killed


def truth(running: Running, hub: httpx2.Client, windows: Sequence[Window]) -> Tally:  # noqa: ARG001
    """Compare what the events say of models, versions and aliases, all taken together, with what the server has now."""
    mlflow = MLflow(running.url)
    versions = mlflow.call("GET", "model-versions/search", max_results=10_000)
    models = mlflow.call("GET", "registered-models/search", max_results=1000).get("registered_models", ())
    there = {("version", row["name"], str(row["version"])) for row in versions.get("model_versions", ())}
    for model in models:
        there.add(("model", model["name"], ""))
        there |= {("alias", model["name"], f"{a['alias']} {a['version']}") for a in model.get("aliases", ())}
    held: list[tuple[str, ...]] = []
    aliases: dict[tuple[str, str], str] = {}
    for event in events(hub, "mlflow-"):
        data = event["data"]
        if data.get("registry") != urlsplit(running.url).netloc:
            continue
        if event["event_type"] == "model_registered":
            held.append(("model", data["model_name"], ""))
        elif event["event_type"] == "model_version_created":
            held.append(("version", data["model_name"], data["version"]))
        elif event["event_type"] == "model_alias_changed":
            aliases[data["model_name"], data["alias"]] = data["version"]
    held += [("alias", name, f"{alias} {version}") for (name, alias), version in aliases.items()]
    return compare_records(there, held)


class Promotion:
    """An alias that moves to a model's newest version."""

    def __init__(self, running: Running) -> None:
        self.url = running.url

    def begin(self) -> str:
        """Move it."""
        MLflow(self.url).alias("churn", "champion", "4")
        return "MLflow: the alias champion of churn moves to version 4"

    def arrived(self, hub: httpx2.Client) -> str:
        """Whether the hub has heard of it."""
        query = {"source": "mlflow-churn", "event_type": "model_alias_changed"}
        found = hub.get("/api/v1/events", params=query).raise_for_status().json()["events"]
        moved = "4" in (event["data"]["version"] for event in found)
        return "hub: model_alias_changed: champion of churn is version 4" if moved else ""


PEER = FakeServer(
    "mlflow",
    8802,
    lambda url, _made: {"mlflow_default": {"conn_type": "mlflow", "host": url}},
    arguments=("--models", "5", "--versions", "4"),
    settings={"schedule": "* * * * *"},
    published=True,
    truth=truth,
    scene=Promotion,
)


def main() -> None:
    """Serve until asked to end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="for the store; a temporary one unless given")
    parser.add_argument("--models", type=int, default=0)
    parser.add_argument("--versions", type=int, default=0, help="of each model")
    parser.add_argument("--workspaces", action="store_true", help="have workspaces")
    parser.add_argument("--basic-auth", action="store_true", help="ask for a login")
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    with (
        tempfile.TemporaryDirectory(prefix="mlflow-") as temporary,
        server(
            options.folder or Path(temporary),
            host=options.host,
            port=options.port,
            workspaces=options.workspaces,
            basic_auth=options.basic_auth,
        ) as url,
    ):
        seed(f"http://127.0.0.1:{url.rsplit(':', 1)[1]}", options.models, options.versions)
        print(f"ready {url}", flush=True)
        signal.pause()


if __name__ == "__main__":
    main()
