"""What ``airis routes`` does."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from typing import Any

from airflow_provider_airis.routes.config import RoutesError
from airflow_provider_airis.routes.tree import Route, Routes


def check_file(path: str) -> int:
    """``airis routes check``: the tree, or every mistake."""
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


def _read(path: str) -> Routes | None:
    try:
        routes = Routes.read(path)
    except RoutesError as error:
        print(error, file=sys.stderr)
        return None
    for warning in routes.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return routes
