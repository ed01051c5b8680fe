"""What the demo is made of: the commands, settings, secrets and connections that ``make demo`` and compose share.

``python -m sandbox.topology DIRECTORY --hub URL …`` generates the secrets that are not there yet and writes
``connections.json`` beside them, for ``airflow connections import``.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

REGION = "us-east-1"
PROJECT = "airis-sandbox"
USERS = 2000
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


@dataclass(frozen=True)
class Peer:
    """A server that stands in for an external system, named by the system's stem.

    :param port: where compose has it, and ``published`` whether people look at it.
    :param connections: from its address and the secrets, connection ids to fields.
    :param arguments: what it is given beside host and port; :func:`arguments` fills the braces in.
    :param settings: of its section of ``airflow.cfg``.
    :param needs: a program that may not be there.
    """

    stem: str
    port: int
    connections: Callable[[str, Mapping[str, str]], dict[str, dict[str, str]]]
    arguments: tuple[str, ...] = ()
    settings: dict[str, str] = field(default_factory=dict)
    published: bool = False
    needs: str | None = None

    @property
    def missing(self) -> bool:
        """Whether this machine lacks the program that it needs."""
        return self.needs is not None and shutil.which(self.needs, path=f"{os.environ['PATH']}:/usr/sbin") is None

    @property
    def module(self) -> str:
        """What ``python -m`` runs."""
        return f"sandbox.{self.stem}"


_TIMES = ("--history-from", "{history_from}", "--history-until", "{history_until}", "--live-from", "{live_from}")

PEERS = (
    Peer(
        "sagemaker",
        8791,
        lambda url, made: {
            "aws_default": {
                "conn_type": "aws",
                "login": "AKIASANDBOX",
                "password": made["aws_key"],
                "extra": json.dumps({"region_name": REGION, "endpoint_url": url}),
            }
        },
        arguments=("--endpoints", str(ENDPOINTS), "--regions", REGION, *_TIMES),
        settings={"schedule": "* * * * *", "delay_s": "10", "regions": REGION},
    ),
    Peer(
        "vertex_ai",
        8794,
        lambda url, _made: {
            "google_cloud_default": {
                "conn_type": "google_cloud_platform",
                "extra": json.dumps(
                    {"project": PROJECT, "is_anonymous": True, "monitoring_endpoint": url, "aiplatform_endpoint": url}
                ),
            }
        },
        arguments=("--project", PROJECT, "--endpoints", "10", "--ingest-delay-s", "5", *_TIMES),
        settings={"schedule": "* * * * *", "delay_s": "10"},
    ),
    Peer(
        "mlflow",
        8802,
        lambda url, _made: {"mlflow_default": {"conn_type": "mlflow", "host": url}},
        arguments=("--models", "5", "--versions", "4"),
        settings={"schedule": "* * * * *"},
        published=True,
    ),
    Peer(
        "active_directory",
        8795,
        lambda url, made: {
            "ldap_default": {
                "conn_type": "ldap",
                "host": url,
                "login": "cn=airis,ou=services,dc=example,dc=com",
                "password": made["ldap_password"],
                "extra": json.dumps({"ca_certs_file": f"{made['directory']}/active_directory/certificate.pem"}),
            }
        },
        arguments=(
            *("--users", str(USERS), "--folder", "{secrets}/active_directory", "--names", "active-directory"),
            *("--password-file", "{secrets}/ldap_password"),
        ),
        needs="slapd",
    ),
    Peer(
        "slack",
        8792,
        lambda url, made: {
            "slack_default": {
                "conn_type": "slack",
                "password": made["slack_token"],
                "extra": json.dumps({"base_url": f"{url}/api/", "signing_secret": made["slack_signing_secret"]}),
            }
        },
        arguments=(
            *("--interactivity-url", "{api}/airis/receive/slack"),
            *("--signing-secret-file", "{secrets}/slack_signing_secret"),
        ),
        published=True,
    ),
    Peer(
        "pagerduty",
        8793,
        lambda url, made: {
            "pagerduty_events_default": {
                "conn_type": "pagerduty_events",
                "host": url,
                "password": made["pagerduty_key"],
                "extra": json.dumps({"webhook_secret": made["pagerduty_webhook_secret"]}),
            }
        },
        arguments=(
            *("--webhook-url", "{api}/airis/receive/pagerduty"),
            *("--webhook-secret-file", "{secrets}/pagerduty_webhook_secret"),
        ),
        published=True,
    ),
    Peer(
        "webhook",
        8796,
        lambda url, made: {
            "webhook_default": {"conn_type": "webhook", "host": f"{url}/alerts", "password": made["webhook_secret"]}
        },
        arguments=("--secret-file", "{secrets}/webhook_secret"),
        published=True,
    ),
    Peer(
        "teams",
        8797,
        lambda url, made: {
            "teams_default": {
                "conn_type": "teams",
                "host": url,
                "password": "/workflows/sandbox/triggers/manual/paths/invoke?api-version=1&sig="
                + made["teams_signature"],
            }
        },
        published=True,
    ),
    Peer(
        "email",
        8798,
        lambda url, made: {
            "smtp_default": {
                "conn_type": "smtp",
                "host": urlsplit(url).hostname or "",
                "port": str(urlsplit(url).port),
                "login": "airis",
                "password": made["smtp_password"],
                # STARTTLS, with a certificate that nobody vouches for.
                "extra": json.dumps(
                    {"from_email": "AIRIS-MON <airis@example.com>", "disable_ssl": True, "ssl_context": "none"}
                ),
            }
        },
        arguments=("--password-file", "{secrets}/smtp_password"),
    ),
    Peer(
        "servicenow",
        8800,
        lambda url, made: {
            "servicenow_default": {
                "conn_type": "servicenow",
                "host": url,
                "login": "airis",
                "password": made["servicenow_password"],
            }
        },
        arguments=("--password-file", "{secrets}/servicenow_password"),
        published=True,
    ),
    Peer(
        "jira",
        8801,
        lambda url, made: {
            "jira_default": {
                "conn_type": "airis_jira",
                "host": url,
                "login": "airis@example.com",
                "password": made["jira_token"],
            }
        },
        arguments=("--token-file", "{secrets}/jira_token"),
        published=True,
    ),
)


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
        **{f"airis_{peer.stem}": peer.settings for peer in PEERS},
    }
    return {
        f"AIRFLOW__{section}__{name}".upper(): value
        for section, values in options.items()
        for name, value in values.items()
    }


def hub_arguments(secrets_directory: Path | str, database: Path | str) -> tuple[str, ...]:
    """What ``python -m airflow_provider_airis.hub`` is given beside host and port."""
    return ("--database", f"sqlite:///{database}", "--tokens", f"{secrets_directory}/hub_tokens.json")


def arguments(peer: Peer, **places: str) -> tuple[str, ...]:
    """What a peer is given beside host and port.

    :param places: ``secrets``, a directory, ``api``, how the peer reaches Airflow's API server, and in ISO 8601
        ``history_from``, ``history_until`` and ``live_from``.
    """
    return tuple(argument.format(**places) for argument in peer.arguments)


def generate_secrets(directory: Path) -> dict[str, str]:
    """Generate the secrets that the directory lacks, a file each for the owner's eyes only.

    :return: all of them by file name, and ``directory``.
    """
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
    for name in (
        *("api_secret_key", "aws_key", "hub_admin_token", "hub_token", "jira_token", "jwt_secret", "ldap_password"),
        *("pagerduty_webhook_secret", "postgres_password", "servicenow_password", "slack_signing_secret"),
        *("smtp_password", "teams_signature", "webhook_secret"),
    ):
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
    return made | {"directory": str(directory)}


def connections(
    made: Mapping[str, str], *, hub: str, dashboard: str, peers: Mapping[str, str]
) -> dict[str, dict[str, str]]:
    """Airflow's connections by id, in the form of its REST API and of ``airflow connections import``.

    :param made: what :func:`generate_secrets` returned.
    :param dashboard: how a browser reaches the hub.
    :param peers: stem to address of those that are there.
    """
    airis = {
        "conn_type": "airis",
        "host": hub,
        "password": made["hub_token"],
        "extra": json.dumps({"dashboard_url": dashboard}),
    }
    found = {"airis_default": airis}
    for peer in PEERS:
        if peer.stem in peers:
            found |= peer.connections(peers[peer.stem], made)
    return found


def main() -> None:
    """Write secrets and connections."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.topology", description="secrets and connections")
    parser.add_argument("directory", type=Path)
    for name in ("hub", "dashboard"):
        parser.add_argument(f"--{name}", required=True, metavar="URL")
    for peer in PEERS:
        parser.add_argument(f"--{peer.stem}", metavar="URL")
    options = vars(parser.parse_args())
    made = generate_secrets(options["directory"])
    path = options["directory"] / "connections.json"
    path.touch(mode=0o600)
    peers = {peer.stem: options[peer.stem] for peer in PEERS if options[peer.stem]}
    path.write_text(json.dumps(connections(made, hub=options["hub"], dashboard=options["dashboard"], peers=peers)))


if __name__ == "__main__":
    main()
