"""What ``/_sandbox`` of the stand-in does: it shows the truth, and arranges refusals.

``GET truth?from&to``
    What is published of ``[from, to)``, a line a series and statistic that the catalog reads:
    ``{project, location, endpoint, endpoint_id, model, model_id, labels, metric, unit, statistic,
    points: [[ms, value], …]}``; ``ms`` is the minute's start, ``labels`` are the metric's further ones.
``GET published?from&to``
    ``{points, series}`` of the same.
``POST refusals`` ``{method?, containing?, code?, times?}``, ``DELETE refusals``
    The next calls whose request has a text in it are refused, by default all with PERMISSION_DENIED.
``POST endpoints`` ``{name, models?, location?, created?, deleted?, labelled?}``, ``DELETE endpoints/<id>``
    A new endpoint, answered with its ``id``; an endpoint's end.
``GET calls``, ``DELETE calls``
    How often each method was called, and ``points`` served; start again at 0.

Times are ISO 8601, UTC without a zone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from airflow_provider_airis.catalog import BY_STEM
from sandbox.vertex_ai.fleet import PREFIX, Fleet, aligned
from sandbox.vertex_ai.google import Google, Refusal

_TOLD = frozenset({"deployed_model_id", "endpoint_display_name", "model_display_name"})


def seconds(iso: str) -> float:
    """ISO 8601 as Unix seconds; without a zone it is UTC."""
    at = datetime.fromisoformat(iso)
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


class Control:
    """One method a call, named after its method and path."""

    def __init__(self, fleet: Fleet, google: Google) -> None:
        self.fleet, self.google = fleet, google

    def call(self, method: str, path: str, request: dict[str, Any]) -> Any:
        """Answer with what JSON can hold, or with an iterator of it.

        :raises KeyError: there is no such call, or a field is missing.
        """
        name, _, rest = path.partition("/")
        handler = getattr(self, f"_{method.lower()}_{name}", None)
        if handler is None:
            raise KeyError(f"{method} {path}")
        return handler(request | {"id": rest} if rest else request) or {}

    def _get_published(self, request: dict[str, str]) -> dict[str, int]:
        lengths = [len(line["points"]) for line in self._get_truth(request)]
        return {"points": sum(lengths), "series": len(lengths)}

    def _get_truth(self, request: dict[str, str]) -> Iterator[dict[str, Any]]:
        start, end = int(seconds(request["from"])), int(seconds(request["to"]))
        for spec in BY_STEM["vertex_ai"].metrics:
            metric = spec.origin.replace(":", "/").removeprefix(PREFIX)
            for series in list(self.fleet.series[metric]):
                if series.endpoint.owner:
                    continue
                samples = list(self.fleet.samples(series, start, end))
                for statistic in spec.statistics if samples else ():
                    points = aligned(series, statistic, samples, start, end, 60)
                    yield {
                        "project": self.fleet.project,
                        "location": series.endpoint.location,
                        "endpoint": series.endpoint.display_name,
                        "endpoint_id": series.endpoint.id,
                        "model": series.model.display_name,
                        "model_id": series.model.id,
                        "labels": {name: value for name, value in series.labels.items() if name not in _TOLD},
                        "metric": spec.name,
                        "unit": spec.unit,
                        "statistic": statistic,
                        "points": [((at - 60) * 1000, value) for at, value in reversed(points)],
                    }

    def _post_refusals(self, request: dict[str, Any]) -> None:
        method, containing = request.get("method", "*"), request.get("containing", "")
        code, times = request.get("code", "PERMISSION_DENIED"), request.get("times", math.inf)
        self.google.refusals.append(Refusal(method, containing, code, times))

    def _delete_refusals(self, _: dict[str, str]) -> None:
        self.google.refusals.clear()

    def _post_endpoints(self, request: dict[str, Any]) -> dict[str, str]:
        endpoint = self.fleet.create(
            request.get("location", self.fleet.locations[0]),
            request["name"],
            request.get("models", [f"{request['name']}-v1"]),
            created=seconds(request["created"]) if "created" in request else self.fleet.clock(),
            labelled=request.get("labelled", True),
            owner=request.get("owner", ""),
        )
        if "deleted" in request:
            endpoint.deleted = seconds(request["deleted"])
        return {"id": endpoint.id}

    def _post_silence(self, request: dict[str, Any]) -> None:
        self.fleet.silent[request["metric"]] = seconds(request["from"])

    def _delete_silence(self, _: dict[str, str]) -> None:
        self.fleet.silent.clear()

    def _post_number(self, request: dict[str, Any]) -> None:
        self.fleet.number = request["number"]

    def _delete_foreign(self, _: dict[str, str]) -> None:
        """Other projects share nothing any more."""
        self.fleet.number = ""
        self.fleet.fleet = {key: endpoint for key, endpoint in self.fleet.fleet.items() if not endpoint.owner}
        for metric, every in self.fleet.series.items():
            self.fleet.series[metric] = [series for series in every if not series.endpoint.owner]

    def _delete_endpoints(self, request: dict[str, str]) -> None:
        self.fleet.fleet[request["id"]].deleted = self.fleet.clock()

    def _get_calls(self, _: dict[str, str]) -> dict[str, int]:
        return dict(self.google.calls)

    def _delete_calls(self, _: dict[str, str]) -> None:
        self.google.calls.clear()
