"""Compares, record for record, what the demo's systems hold with what the hub does."""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import msgspec

from airflow_provider_airis.records import Window, iso

Series = tuple[str, str, frozenset[tuple[str, str]]]
EXAMPLES = 5
SLICE_S = 6 * 3600


@dataclass
class Tally:
    """What the comparison found; ``examples`` names the first points that are wrong.

    :param missing: published, and not in the hub with this value.
    :param doubled: in the hub once more, or never published.
    """

    published: int = 0
    in_hub: int = 0
    missing: int = 0
    doubled: int = 0
    series: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, series: Series, truth: dict[int, float], held: list[tuple[int, float]]) -> None:
        """Count one series."""
        stored = dict(held)
        self.series += 1
        self.published += len(truth)
        self.in_hub += len(held)
        self._note("missing", series, [at for at, value in truth.items() if stored.get(at) != value])
        often = Counter(at for at, _ in held)
        self._note("doubled", series, [at for at, n in often.items() for _ in range(n - (at in truth))])

    def _note(self, fault: str, series: Series, times: list[int]) -> None:
        setattr(self, fault, getattr(self, fault) + len(times))
        source, name, tags = series
        for at in times[: EXAMPLES - len(self.examples)]:
            self.examples.append(f"{fault}: {source} {name} {dict(sorted(tags))} {iso(at)}")


def compare(stand_in: str, hub: httpx2.Client, windows: Iterable[Window], stem: str = "sagemaker") -> Tally:
    """Compare every series of a system over every window.

    :param stand_in: address of ``sandbox.<stem>``.
    :param hub: a client of the hub with a token that may read.
    """
    tally = Tally()
    published = _PUBLISHED[stem]
    with httpx2.Client(base_url=stand_in, timeout=300) as source:
        for window in (part for whole in windows for part in whole.split(SLICE_S)):
            span = {"from": iso(window.start), "to": iso(window.end)}
            truth: dict[Series, dict[int, float]] = {}
            with source.stream("GET", "/_sandbox/truth", params=span) as lines:
                for line in map(msgspec.json.decode, lines.iter_lines()):
                    owner, name, tags = published(line)
                    truth[owner, name, frozenset(tags.items())] = dict(line["points"])
            held: dict[Series, list[tuple[int, float]]] = defaultdict(list)
            for series, points in _held(hub, window, _PREFIXES[stem]):
                held[series] += points
            for series in truth.keys() | held.keys():
                tally.add(series, truth.get(series, {}), held[series])
    return tally


def _sagemaker(line: dict[str, Any]) -> tuple[str, str, dict[str, str]]:
    dimensions = line["dimensions"]
    owner = dimensions.get("EndpointName") or dimensions["InferenceComponentName"]
    tags = {
        **{re.sub(r"\B([A-Z])", r"_\1", name).lower(): value for name, value in dimensions.items()},
        "dimensions": "/".join(dimensions),
        "account_id": line["account"],
        "cloud_provider": "aws",
        "service": "sagemaker",
        "region": line["region"],
        "statistic": line["statistic"],
        "period_s": "60",
    }
    return f"aws-sagemaker-{owner}", line["metric"].lower(), tags


def _vertex_ai(line: dict[str, Any]) -> tuple[str, str, dict[str, str]]:
    tags = {
        "endpoint_id": line["endpoint_id"],
        "endpoint_name": line["endpoint"],
        "deployed_model_id": line["model_id"],
        "deployed_model": line["model"],
        "location": line["location"],
        "project_id": line["project"],
        "cloud_provider": "gcp",
        "service": "vertex_ai",
        "statistic": line["statistic"],
        "period_s": "60",
        **line["labels"],
    }
    return f"gcp-vertex-{line['endpoint']}", line["metric"], tags


_PUBLISHED = {"sagemaker": _sagemaker, "vertex_ai": _vertex_ai}
_PREFIXES = {"sagemaker": "aws-sagemaker-", "vertex_ai": "gcp-vertex-"}


def compare_users(directory: Path, hub: httpx2.Client, source: str) -> Tally:
    """Compare the hub's active users with those that slapd's own client reads.

    :param directory: of ``sandbox.active_directory``.
    :param source: the directory's name in the hub.
    """
    account = json.loads((directory / "account.json").read_text())
    secret = directory / "admin_password"
    secret.touch(mode=0o600)
    secret.write_text(account["admin_password"])
    where = ("-H", account["host"], "-D", account["admin"], "-y", str(secret), "-b", account["base_dn"])
    asked = ("-E", "pr=1000/noprompt", "(objectClass=inetOrgPerson)", "entryUUID", "uid", "mail", "title")
    command = ["ldapsearch", "-x", "-LLL", "-o", "ldif-wrap=no", *where, *asked]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    truth: set[tuple[str, ...]] = set()
    for entry in filter(None, found.stdout.split("\n\n")):
        fields = dict(line.split(": ", 1) for line in entry.splitlines() if ": " in line)
        if "uid" in fields:
            truth.add(tuple(fields.get(name, "") for name in ("entryUUID", "uid", "mail", "title")))
    held: list[tuple[str, ...]] = []
    cursor = None
    while True:
        query = {"source": source, "active": "true", "limit": 5000, **({"cursor": cursor} if cursor else {})}
        page = hub.get("/api/v1/users", params=query).raise_for_status().json()
        held += [tuple(user.get(name) or "" for name in ("id", "username", "email", "title")) for user in page["users"]]
        if not (cursor := page["cursor"]):
            return _tally(truth, held)


def compare_registry(server: str, hub: httpx2.Client, registry: str) -> Tally:
    """Compare what the events say of versions and aliases, all taken together, with what an MLflow server has now."""
    mlflow = httpx2.Client(base_url=f"{server}/api/2.0/mlflow", timeout=60)
    with mlflow:
        versions = mlflow.get("/model-versions/search", params={"max_results": 10_000}).raise_for_status().json()
        models = mlflow.get("/registered-models/search", params={"max_results": 1000}).raise_for_status().json()
    truth = {("version", row["name"], str(row["version"])) for row in versions.get("model_versions", ())}
    for model in models.get("registered_models", ()):
        truth.add(("model", model["name"], ""))
        truth |= {("alias", model["name"], f"{a['alias']} {a['version']}") for a in model.get("aliases", ())}
    held: list[tuple[str, ...]] = []
    aliases: dict[tuple[str, str], str] = {}
    for event in _events(hub, "mlflow-"):
        data = event["data"]
        if data.get("registry") != registry:
            continue
        if event["event_type"] == "model_registered":
            held.append(("model", data["model_name"], ""))
        elif event["event_type"] == "model_version_created":
            held.append(("version", data["model_name"], data["version"]))
        elif event["event_type"] == "model_alias_changed":
            aliases[data["model_name"], data["alias"]] = data["version"]
    held += [("alias", name, f"{alias} {version}") for (name, alias), version in aliases.items()]
    return _tally(truth, held)


def _events(hub: httpx2.Client, prefix: str) -> Iterator[dict[str, Any]]:
    """The feed of events, oldest first."""
    sequence = 0
    while True:
        page = hub.get("/api/v1/events/changes", params={"after": sequence, "limit": 5000}).raise_for_status().json()
        if not page["changes"]:
            return
        sequence = page["sequence"]
        yield from (c["event"] for c in page["changes"] if c["event"]["source"].startswith(prefix))


def _tally(truth: set[tuple[str, ...]], held: list[tuple[str, ...]]) -> Tally:
    """What is in one and not in the other, or twice."""
    tally = Tally(published=len(truth), in_hub=len(held), series=len(truth))
    missing = truth.difference(held)
    tally.missing, tally.doubled = len(missing), len(held) - len(truth & set(held))
    tally.examples = [f"missing: {record}" for record in sorted(missing)[:EXAMPLES]]
    return tally


def _held(hub: httpx2.Client, window: Window, prefix: str) -> Iterator[tuple[Series, list[tuple[int, float]]]]:
    answer = hub.get("/api/v1/metrics/query", params={"from": window.start, "to": window.end}, timeout=300)
    if answer.is_error:
        raise RuntimeError(f"the hub answered a query of {window} with {answer.status_code}: {answer.text[:500]}")
    for series in msgspec.json.decode(answer.content)["series"]:
        if not series["source"].startswith(prefix):
            continue
        key = series["source"], series["name"], frozenset(series["tags"].items())
        yield key, [(at, value) for at, value in series["points"]]
