"""What ``airis routes`` and ``airis silence`` do."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_airis.errors import AirisError
from airflow_provider_airis.records import iso
from airflow_provider_airis.routes.config import RoutesError
from airflow_provider_airis.routes.matching import parse_matchers
from airflow_provider_airis.routes.times import parse_duration
from airflow_provider_airis.routes.tree import Route, Routes

if TYPE_CHECKING:
    from airflow_provider_airis.hooks.airis import AirisHook


def check_file(options: argparse.Namespace) -> int:
    """``airis routes check``: the tree, or every mistake."""
    path = options.file
    routes = _read(path)
    if routes is None:
        return 1
    counts = {
        "route": sum(1 for _ in routes.route.walk()),
        "receiver": len(routes.receivers),
        "inhibit rule": len(routes.inhibit_rules),
        "time interval": len(routes.time_intervals or {}),
    }
    print(routes)
    print(f"{path}: " + ", ".join(f"{count} {what}{'s' * (count != 1)}" for what, count in counts.items() if count))
    return 0


def follow_alert(options: argparse.Namespace) -> int:
    """``airis routes test``: the receivers that an alert reaches."""
    routes = _read(options.file)
    if routes is None:
        return 1
    labels = {name: value for name, value in options.alert if value}
    reached = [_reached(route, labels) for route in routes.match(labels)]
    if options.json:
        print(json.dumps(reached, indent=2, ensure_ascii=False))
        return 0
    for one in reached:
        told = ", ".join(f"{place['channel']} {place['target']}" for place in one["integrations"]) or "nobody"
        print(f"{one['receiver']} ({told})")
        print(f"  by the route at line {one['line']}, in the group {one['group_key']}")
        for word in ("active_time_intervals", "mute_time_intervals"):
            if one[word]:
                print(f"  {word}: {', '.join(one[word])}")
    return 0


def _reached(route: Route, labels: dict[str, str]) -> dict[str, Any]:
    return {
        "receiver": route.receiver.name,
        "integrations": [asdict(integration) for integration in route.receiver.integrations],
        "group_key": route.group_key(labels),
        "group_labels": route.group_labels(labels),
        "line": route.line,
        "active_time_intervals": list(route.active_time_intervals),
        "mute_time_intervals": list(route.mute_time_intervals),
    }


def push_file(options: argparse.Namespace) -> int:
    """``airis routes push``: the hub's own routes."""
    if _read(options.file) is None:
        return 1

    def push(hub: AirisHook) -> None:
        hub.put_routes(Path(options.file).read_text(encoding="utf-8"))
        print(f"{options.file}: these are the routes of {hub.base_url} now")

    return _ask(options, push)


def add_silence(options: argparse.Namespace) -> int:
    """``airis silence add``: its id."""
    try:
        matchers = [matcher for text in options.matchers for matcher in parse_matchers(text)]
        lasting = parse_duration(options.lasting)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    ends_at = round(time.time() * 1000) + lasting
    return _ask(options, lambda hub: print(hub.silence(matchers, ends_at, options.by, options.comment)))


def list_silences(options: argparse.Namespace) -> int:
    """``airis silence list``: one a line."""

    def show(hub: AirisHook) -> None:
        silences = hub.silences()
        if not silences:
            # Where a script reads, nothing stays nothing.
            print("No silence is active or pending.", file=sys.stderr)
        for silence in silences:
            matchers = ", ".join(map(str, silence.matchers))
            begins = f"from {iso(silence.starts_at)} " if silence.starts_at > time.time() * 1000 else ""
            until = f"{begins}until {iso(silence.ends_at)}"
            print(f"{silence.id}  {until}  {matchers}  {silence.created_by}: {silence.comment}")

    return _ask(options, show)


def expire_silence(options: argparse.Namespace) -> int:
    """``airis silence expire``: ends it."""
    return _ask(options, lambda hub: hub.expire_silence(options.id))


def _ask(options: argparse.Namespace, what: Callable[[AirisHook], None]) -> int:
    from airflow.sdk.exceptions import AirflowNotFoundException

    from airflow_provider_airis.hooks.airis import AirisHook
    from airflow_provider_airis.settings import alerts_conn_id

    try:
        with AirisHook(options.conn_id or alerts_conn_id()) as hub:
            what(hub)
    except (AirisError, AirflowNotFoundException) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


ACTIONS: dict[tuple[str, str], Callable[[argparse.Namespace], int]] = {
    ("routes", "check"): check_file,
    ("routes", "test"): follow_alert,
    ("routes", "push"): push_file,
    ("silence", "add"): add_silence,
    ("silence", "list"): list_silences,
    ("silence", "expire"): expire_silence,
}


def _read(path: str) -> Routes | None:
    try:
        routes = Routes.read(path)
    except RoutesError as error:
        print(error, file=sys.stderr)
        return None
    for warning in routes.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return routes
