"""Logins, workspaces and plugins of mlflow's own client, against a real server that asks for them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from airflow_provider_airis.errors import PermanentError
from airflow_provider_airis.hooks.mlflow import MLflowHook
from sandbox.faults import FaultProxy
from sandbox.mlflow import LOGIN
from sandbox.process import Server

PLUGIN = """
from mlflow.tracking.request_header.abstract_request_header_provider import RequestHeaderProvider

class Provider(RequestHeaderProvider):
    def in_context(self):
        return True

    def request_headers(self):
        import os
        return {"X-Acme": os.environ["ACME"]}
"""
READ = """
import os, sys
from airflow_provider_airis.hooks.mlflow import MLflowHook
with MLflowHook() as hook:
    print([model["name"] for model in hook.models()], os.environ.get("ACME"))
print(os.environ.get("ACME"))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("mlflow")
    with Server("sandbox.mlflow", "--folder", str(folder), "--workspaces", "--basic-auth") as server:
        with httpx2.Client(base_url=server.url, auth=LOGIN, timeout=60) as client:
            client.post("/api/3.0/mlflow/workspaces", json={"name": "team-a"}).raise_for_status()
            for headers, name in (({}, "everybodys"), ({"X-MLFLOW-WORKSPACE": "team-a"}, "theirs")):
                path = "/api/2.0/mlflow/registered-models/create"
                client.post(path, json={"name": name}, headers=headers).raise_for_status()
        yield server


@pytest.fixture
def login(server, connect):
    def login(url: str = server.url, **extra: object) -> None:
        fields = {"conn_type": "mlflow", "host": url, "login": LOGIN[0], "password": LOGIN[1]}
        connect("mlflow_default", **fields, extra=json.dumps(extra))

    return login


def names() -> list[str]:
    with MLflowHook() as hook:
        return [model["name"] for model in hook.models()]


def test_a_login_reads_its_workspace_and_no_other(login, server):
    login()
    assert names() == ["everybodys"]
    login(workspace="team-a")
    assert names() == ["theirs"]
    assert MLflowHook().registry == f"{server.url.partition('://')[2]}#team-a"
    login(workspace="team-none")
    with pytest.raises(PermanentError, match="team-none"):
        names()


def test_a_wrong_password_is_said(server, connect):
    connect("mlflow_default", conn_type="mlflow", host=server.url, login="admin", password="wrong-password-EXAMPLE")
    said_well, said = MLflowHook().test_connection()
    assert not said_well
    assert "check the token or password of connection mlflow_default" in said
    assert "wrong-password-EXAMPLE" not in said


def test_a_header_plugin_speaks_for_every_request(login, server, tmp_path):
    """In a process of its own: mlflow looks for plugins when it is imported."""
    installed(tmp_path)
    with FaultProxy(server.url) as proxy:
        login(proxy.url, request_header_providers="acme", environment={"ACME": "acme-secret-EXAMPLE"})
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (tmp_path, Path.cwd())))}
        done = subprocess.run(
            [sys.executable, "-c", READ], env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stdout.splitlines()[-2:] == ["['everybodys'] acme-secret-EXAMPLE", "None"]
        assert {seen.headers.get("X-Acme") for seen in proxy.seen} == {"acme-secret-EXAMPLE"}


def installed(folder: Path) -> None:
    """A distribution with a header plugin, as pip leaves it."""
    (folder / "acme_plugin.py").write_text(PLUGIN)
    about = folder / "acme-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[mlflow.request_header_provider]\nacme = acme_plugin:Provider\n")


@pytest.mark.parametrize("extra", [{"request_header_providers": "acme"}, {"auth": "acme"}])
def test_a_plugin_that_is_missing_is_named(login, extra):
    login(**extra)
    with pytest.raises(PermanentError, match=r"plugin 'acme' \(mlflow\.request_\w+_provider\) is not installed here"):
        names()


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("arn:aws:sagemaker:eu-west-1:123456789012:mlflow-tracking-server/x", "pip install sagemaker-mlflow"),
        ("azureml://eastus.api.azureml.ms/mlflow/v1.0/x", "pip install azureml-mlflow"),
        ("sqlite:///registry.db", "leads to no server"),
    ],
)
def test_a_tracking_uri_that_nothing_here_knows_is_said(connect, uri, says):
    connect("mlflow_default", conn_type="mlflow", host=uri)
    with pytest.raises(PermanentError, match=says):
        names()


def test_a_server_without_workspaces_is_not_taken_for_one_that_has_them(connect, tmp_path):
    with Server("sandbox.mlflow", "--folder", str(tmp_path)) as plain:
        connect("mlflow_default", conn_type="mlflow", host=plain.url, extra=json.dumps({"workspace": "team-a"}))
        with pytest.raises(PermanentError, match="its server has no workspaces, so not 'team-a' either"):
            names()
