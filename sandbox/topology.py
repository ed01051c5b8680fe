"""What the demo is made of: the settings, secrets and connections that `make demo` and docker-compose.yaml share.

``python -m sandbox.topology DIRECTORY --hub URL …`` generates the secrets and writes ``connections.json`` beside them.
"""

from __future__ import annotations

import json
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from functools import partial
from pathlib import Path

REGION = "us-east-1"
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


def airflow_settings(secrets_directory: str | Path, *, host: str, port: int, url: str) -> dict[str, str]:
    """Airflow's configuration as environment variables.

    Everyone who reaches ``url`` is an admin: publish it on loopback only.

    :param secrets_directory: where :func:`generate_secrets` has written, as the components see it.
    :param host: address the API server binds.
    :param url: how browser, tasks and command line reach it.
    """
    options = {
        "core": {
            "executor": "LocalExecutor",
            "parallelism": "8",
            "load_examples": "False",
            "simple_auth_manager_all_admins": "True",
            "execution_api_server_url": f"{url}/execution/",
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


def generate_secrets(directory: Path) -> dict[str, str]:
    """Generate every secret anew, write each into a file for the owner's eyes only, and return them by file name."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    token = partial(secrets.token_urlsafe, 32)
    generated = {
        "fernet_key": urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "api_secret_key": token(),
        "jwt_secret": secrets.token_urlsafe(64),
        "hub_token": token(),
        "hub_admin_token": token(),
        "aws_secret_access_key": token(),
        "slack_token": f"xoxb-{token()}",
        "pagerduty_key": secrets.token_hex(16),
    }
    generated["hub_tokens.json"] = json.dumps(
        {
            "airflow": {"token": generated["hub_token"], "scopes": ["ingest", "read", "alerts"]},
            "admin": {"token": generated["hub_admin_token"], "scopes": ["ingest", "read", "alerts", "admin"]},
        }
    )
    for name, value in generated.items():
        path = directory / name
        path.touch(mode=0o600)
        path.write_text(value)
    return generated


def connections(
    generated: Mapping[str, str], *, hub: str, sagemaker: str, slack: str, pagerduty: str
) -> dict[str, dict[str, str]]:
    """Airflow's connections by id, in the form of its REST API and of ``airflow connections import``."""
    return {
        "airis_default": {"conn_type": "airis", "host": hub, "password": generated["hub_token"]},
        "aws_default": {
            "conn_type": "aws",
            "login": "AKIASANDBOX",
            "password": generated["aws_secret_access_key"],
            "extra": json.dumps({"region_name": REGION, "endpoint_url": sagemaker}),
        },
        "slack_default": {
            "conn_type": "slack",
            "password": generated["slack_token"],
            "extra": json.dumps({"base_url": f"{slack}/api/"}),
        },
        "pagerduty_events_default": {
            "conn_type": "pagerduty_events",
            "password": generated["pagerduty_key"],
            "extra": json.dumps({"base_url": pagerduty}),
        },
    }
