"""What the demo is made of: the commands, settings, secrets and connections that ``make demo`` and compose share.

``python -m sandbox.topology DIRECTORY --hub URL …`` generates the secrets that are not there yet and writes
``connections.json`` beside them, for ``airflow connections import``.
"""

from __future__ import annotations

import argparse
import json
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path

REGION = "us-east-1"
ENDPOINTS = 20
HISTORY_DAYS = 2
BUNDLES = [
    {"name": "dags-folder", "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle", "kwargs": {}},
    {"name": "airis", "classpath": "airflow_provider_airis.dag_bundle.AirisDagBundle", "kwargs": {}},
]

MIGRATE = ("db", "migrate")
COMPONENTS = {
    "api-server": ("api-server",),
    "scheduler": ("scheduler", "--skip-serve-logs"),
    "dag-processor": ("dag-processor",),
    "triggerer": ("triggerer", "--skip-serve-logs"),
}


def airflow_settings(secrets_directory: Path | str, *, host: str, port: int, url: str, inside: str) -> dict[str, str]:
    """Airflow's configuration as environment variables.

    Everyone who reaches the API server is an admin: publish it on loopback only.

    :param secrets_directory: where :func:`generate_secrets` has written, as the components see it.
    :param host: address the API server binds.
    :param url: how a browser reaches it.
    :param inside: how tasks reach it.
    """
    options = {
        "core": {
            "executor": "LocalExecutor",
            "parallelism": "8",
            "load_examples": "False",
            "simple_auth_manager_all_admins": "True",
            "execution_api_server_url": f"{inside}/execution/",
            "fernet_key_cmd": f"cat {secrets_directory}/fernet_key",
        },
        "api": {
            "host": host,
            "port": str(port),
            "base_url": url,
            "secret_key_cmd": f"cat {secrets_directory}/api_secret_key",
        },
        "api_auth": {"jwt_secret_cmd": f"cat {secrets_directory}/jwt_secret"},
        "dag_processor": {
            "dag_bundle_config_list": json.dumps(BUNDLES),
            # The shipped files do not change while it runs; every parse costs seconds of one core.
            "min_file_process_interval": "3600",
        },
        "airis_sagemaker": {"schedule": "* * * * *", "delay_s": "10", "regions": REGION},
    }
    return {
        f"AIRFLOW__{section}__{name}".upper(): value
        for section, values in options.items()
        for name, value in values.items()
    }


def hub_arguments(secrets_directory: Path | str, database: Path | str) -> tuple[str, ...]:
    """What ``python -m airflow_provider_airis.hub`` is given beside host and port."""
    return ("--database", f"sqlite:///{database}", "--tokens", f"{secrets_directory}/hub_tokens.json")


def sagemaker_arguments(history_from: str, history_until: str, live_from: str) -> tuple[str, ...]:
    """What ``python -m sandbox.sagemaker`` is given beside host and port: times in ISO 8601."""
    return (
        *("--endpoints", str(ENDPOINTS), "--regions", REGION),
        *("--history-from", history_from, "--history-until", history_until, "--live-from", live_from),
    )


def generate_secrets(directory: Path) -> dict[str, str]:
    """Generate the secrets that the directory lacks, a file each for the owner's eyes only; all by file name."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    made: dict[str, str] = {}

    def secret(name: str, make: Callable[[], str]) -> None:
        path = directory / name
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(make())
        made[name] = path.read_text()

    secret("fernet_key", lambda: urlsafe_b64encode(secrets.token_bytes(32)).decode())
    secret("pagerduty_key", lambda: secrets.token_hex(16))
    secret("slack_token", lambda: f"xoxb-{secrets.token_urlsafe(32)}")
    for name in ("api_secret_key", "aws_key", "hub_admin_token", "hub_token", "jwt_secret", "postgres_password"):
        secret(name, lambda: secrets.token_urlsafe(48))
    secret("sql_alchemy_conn", lambda: f"postgresql+psycopg2://airflow:{made['postgres_password']}@postgres/airflow")
    tokens = {"airflow": ("hub_token", []), "admin": ("hub_admin_token", ["admin"])}
    secret(
        "hub_tokens.json",
        lambda: json.dumps(
            {
                name: {"token": made[file], "scopes": ["ingest", "read", "alerts", *more]}
                for name, (file, more) in tokens.items()
            }
        ),
    )
    return made


def connections(
    made: dict[str, str], *, hub: str, sagemaker: str, slack: str, pagerduty: str, dashboard: str
) -> dict[str, dict[str, str]]:
    """Airflow's connections by id, in the form of its REST API and of ``airflow connections import``.

    :param made: what :func:`generate_secrets` returned.
    :param dashboard: how a browser reaches the hub.
    """
    return {
        "airis_default": {
            "conn_type": "airis",
            "host": hub,
            "password": made["hub_token"],
            "extra": json.dumps({"dashboard_url": dashboard}),
        },
        "aws_default": {
            "conn_type": "aws",
            "login": "AKIASANDBOX",
            "password": made["aws_key"],
            "extra": json.dumps({"region_name": REGION, "endpoint_url": sagemaker}),
        },
        "slack_default": {
            "conn_type": "slack",
            "password": made["slack_token"],
            "extra": json.dumps({"base_url": f"{slack}/api/"}),
        },
        "pagerduty_events_default": {
            "conn_type": "pagerduty_events",
            "host": pagerduty,
            "password": made["pagerduty_key"],
        },
    }


def main() -> None:
    """Write secrets and connections."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.topology", description="secrets and connections")
    parser.add_argument("directory", type=Path)
    for name in ("hub", "sagemaker", "slack", "pagerduty", "dashboard"):
        parser.add_argument(f"--{name}", required=True, metavar="URL")
    options = vars(parser.parse_args())
    directory = options.pop("directory")
    made = generate_secrets(directory)
    path = directory / "connections.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps(connections(made, **options)))


if __name__ == "__main__":
    main()
