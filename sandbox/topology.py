"""What the demo is made of: the commands, settings, secrets and connections that ``make demo`` and compose share.

``python -m sandbox.topology DIRECTORY --hub URL …`` generates the secrets that are not there yet and writes
``connections.json`` beside them, for ``airflow connections import``.
"""

from __future__ import annotations

import argparse
import json
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from airflow_provider_airis.catalog import SYSTEMS
from sandbox.fake import FakeServer, token

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

PEERS: tuple[FakeServer, ...] = tuple(
    import_module(f"sandbox.{row.stem}").PEER for row in SYSTEMS if find_spec(f"sandbox.{row.stem}")
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
        **{f"airis_{peer.stem}": dict(peer.settings) for peer in PEERS},
    }
    return {
        f"AIRFLOW__{section}__{name}".upper(): value
        for section, values in options.items()
        for name, value in values.items()
    }


def hub_arguments(secrets_directory: Path | str, database: Path | str) -> tuple[str, ...]:
    """What ``python -m airflow_provider_airis.hub`` is given beside host and port."""
    return ("--database", f"sqlite:///{database}", "--tokens", f"{secrets_directory}/hub_tokens.json")


def arguments(peer: FakeServer, **places: str) -> tuple[str, ...]:
    """What a fake server is given beside host and port.

    :param places: ``secrets``, a directory, ``api``, how it reaches Airflow's API server, and in ISO 8601
        ``history_from``, ``history_until`` and ``live_from``.
    """
    return tuple(argument.format(**places) for argument in peer.arguments)


def commands(
    peers: Iterable[FakeServer], ports: Callable[[FakeServer], int], **places: str
) -> dict[str, tuple[str, ...]]:
    """The processes that serve these: name to module and arguments. Those that only answer HTTP are one, ``fakes``.

    :param ports: of each, 0 for a free one.
    :param places: as of :func:`arguments`.
    """
    made: dict[str, tuple[str, ...]] = {}
    shared: list[str] = []
    for peer in peers:
        own = ("--port", str(ports(peer)), *arguments(peer, **places))
        if peer.shares:
            shared += [*(["--"] if shared else []), peer.stem, *own]
        else:
            made[peer.stem] = (peer.module, *own)
    return made | ({"fakes": ("sandbox.fakes", *shared)} if shared else {})


def generate_secrets(directory: Path) -> dict[str, str]:
    """Generate the secrets that the directory lacks, a file each for the owner's eyes only.

    :return: all of them by file name, and ``directory``.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    made: dict[str, str] = {}

    def secret(name: str, make: Callable[[], str] = token) -> None:
        path = directory / name
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(make())
        made[name] = path.read_text()

    secret("fernet_key", lambda: urlsafe_b64encode(secrets.token_bytes(32)).decode())
    for name in ("api_secret_key", "hub_admin_token", "hub_token", "jwt_secret", "postgres_password"):
        secret(name)
    for peer in PEERS:
        for name, make in peer.secrets.items():
            secret(name, make)
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
