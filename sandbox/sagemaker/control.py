"""What ``/_sandbox`` of the stand-in does: it shows the truth, and arranges incidents and faults.

``GET published?from&to``
    ``{points, series}`` that are published in ``[from, to)``, counted per statistic that the catalog reads.
``GET truth?from&to``
    The same values, a line a series and statistic:
    ``{account, region, endpoint, variant, namespace, metric, unit, dimensions, statistic, points: [[ms, value], …]}``.
    Both take ``period`` (seconds), ``region``, ``endpoint`` and ``dimensions`` too: sets of them, with commas.
``POST incidents`` ``{endpoint, factor?, from?, until?}``
    Model latency times ``factor`` (20), from this minute on.
``PATCH incidents`` ``{endpoint, until?}``
    Ends them, by default with this minute.
``POST faults`` ``{operation, times?, code?, status?}``
    The next calls are refused, by default as throttled. ``DELETE faults`` ends these and the next ones.
``POST partial`` ``{metric, times?, status?}``
    The next results of a metric end after half of their points, by default with ``InternalError``.
``POST deny`` ``{action?, region?, account?}``, ``DELETE deny``
    Deny an IAM action such as ``cloudwatch:GetMetricData``; allow everything again.
``POST endpoints`` ``{name, variants?, region?, created?, deleted?, listed?, idle_until?, idle?, gpu?,
    components?, containers?, enhanced?}``, ``DELETE endpoints/<name>``
    A new endpoint, which ListMetrics need not list yet; an endpoint's end.
``PATCH endpoints/<name>`` ``{status, failure_reason?}``
    An endpoint changes its status now.
``POST jobs`` ``{kind, name, hosts, start, end, region?}``
    A training, processing or transform job.
``PATCH clock`` ``{now}``
    A clock that stands still is put elsewhere.
``GET calls``, ``DELETE calls``
    Per operation: ``calls``, ``metrics_requested``, ``points``; start again at 0.

Times are ISO 8601, UTC without a zone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from airflow_provider_airis.catalog import BY_STEM
from airflow_provider_airis.catalog.sagemaker import COMPONENT, VARIANT
from sandbox.sagemaker.aws import ACCOUNT, Aws, Denial, Fault, Partial
from sandbox.sagemaker.fleet import Fleet, Incident, Series


def seconds(iso: str) -> float:
    """ISO 8601 as Unix seconds; without a zone it is UTC."""
    at = datetime.fromisoformat(iso)
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


class Control:
    """One method a call, named after its method and path."""

    def __init__(self, fleet: Fleet, aws: Aws) -> None:
        self.fleet, self.aws = fleet, aws

    def call(self, method: str, path: str, request: dict[str, Any]) -> Any:
        """Answer with what JSON can hold, or with an iterator of it.

        :raises KeyError: there is no such call, or a field is missing.
        """
        name, _, rest = path.partition("/")
        handler = getattr(self, f"_{method.lower()}_{name}", None)
        if handler is None:
            raise KeyError(f"{method} {path}")
        return handler(request | {"name": rest} if rest else request) or {}

    def _get_published(self, request: dict[str, str]) -> dict[str, int]:
        lengths = [len(values) for *_, values in self._published(request)]
        return {"points": sum(lengths), "series": len(lengths)}

    def _get_truth(self, request: dict[str, str]) -> Iterator[dict[str, Any]]:
        for series, statistic, stamps, values in self._published(request):
            yield {
                "account": ACCOUNT,
                "region": series.variant.region,
                "endpoint": series.endpoint.name,
                "variant": series.variant.name,
                "namespace": series.namespace,
                "metric": series.metric,
                "unit": series.unit,
                "dimensions": dict(sorted(series.dimensions.items())),
                "statistic": statistic,
                "points": [(at * 1000, value) for at, value in zip(stamps, values, strict=True)],
            }

    def _published(self, request: dict[str, str]) -> Iterator[tuple[Series, str, Sequence[int], list[float]]]:
        start, end = seconds(request["from"]), seconds(request["to"])
        read = {spec.origin.partition(":")[2]: spec.statistics for spec in BY_STEM["sagemaker"].metrics}
        sets = request.get("dimensions", f"{VARIANT},{COMPONENT}").split(",")
        for region in [request["region"]] if "region" in request else self.fleet.regions:
            for series in [*self.fleet.series[region].values()]:
                if "/".join(sorted(series.dimensions)) not in sets:
                    continue
                if request.get("endpoint", series.endpoint.name) != series.endpoint.name:
                    continue
                for statistic in read[series.metric]:
                    stamps, values = self.fleet.points(series, statistic, start, end, int(request.get("period", 60)))
                    if values:
                        yield series, statistic, stamps, values

    def _post_incidents(self, request: dict[str, Any]) -> dict[str, Any]:
        start = seconds(request["from"]) if "from" in request else self.fleet.clock()
        end = seconds(request["until"]) / 60 if "until" in request else float("inf")
        self.fleet.incidents.append(Incident(request["endpoint"], int(start // 60), end, request.get("factor", 20.0)))
        self.fleet.changed()
        return {"endpoint": request["endpoint"], "from": int(start // 60) * 60_000}

    def _patch_incidents(self, request: dict[str, Any]) -> dict[str, Any]:
        end = int((seconds(request["until"]) if "until" in request else self.fleet.clock()) // 60)
        for incident in self.fleet.incidents:
            if incident.endpoint == request["endpoint"]:
                incident.end = min(incident.end, end)
        self.fleet.changed()
        return {"endpoint": request["endpoint"], "until": end * 60_000}

    def _post_faults(self, request: dict[str, Any]) -> None:
        code = request.get("code", "ThrottlingException")
        times, status = request.get("times", 1), request.get("status", 400)
        fault = Fault(request["operation"], times, code, status, request.get("containing", ""))
        self.aws.faults.append(fault)

    def _delete_faults(self, _: dict[str, str]) -> None:
        self.aws.faults.clear()
        self.aws.partials.clear()

    def _post_partial(self, request: dict[str, Any]) -> None:
        partial = Partial(request["metric"], request.get("times", 1), request.get("status", "InternalError"))
        self.aws.partials.append(partial)

    def _post_deny(self, request: dict[str, str]) -> None:
        self.aws.denials.append(Denial(*(request.get(field, "*") for field in ("action", "region", "account"))))

    def _delete_deny(self, _: dict[str, str]) -> None:
        self.aws.denials.clear()

    def _post_endpoints(self, request: dict[str, Any]) -> None:
        request = {**request, "created": request.get("created", self.fleet.clock())}
        for field in ("created", "deleted", "idle_until"):
            if isinstance(request.get(field), str):
                request[field] = seconds(request[field])
        region, deleted = request.pop("region", self.fleet.regions[0]), request.pop("deleted", float("inf"))
        variants = request.pop("variants", ["AllTraffic"])
        self.fleet.create(region, request.pop("name"), variants, **request).deleted = deleted

    def _patch_endpoints(self, request: dict[str, Any]) -> None:
        for endpoints in self.fleet.fleet.values():
            if endpoint := endpoints.get(request["name"]):
                endpoint.status, endpoint.modified = request["status"], self.fleet.clock()
                endpoint.failure_reason = request.get("failure_reason")

    def _post_jobs(self, request: dict[str, Any]) -> None:
        region = request.get("region", self.fleet.regions[0])
        start, end = seconds(request["start"]), seconds(request["end"])
        self.fleet.run(region, request["kind"], request["name"], request["hosts"], start=start, end=end)

    def _patch_clock(self, request: dict[str, str]) -> None:
        self.fleet.now = seconds(request["now"])

    def _delete_endpoints(self, request: dict[str, str]) -> None:
        for endpoints in self.fleet.fleet.values():
            if request["name"] in endpoints:
                endpoints[request["name"]].deleted = self.fleet.clock()

    def _get_calls(self, _: dict[str, str]) -> dict[str, Any]:
        return dict(self.aws.calls)

    def _delete_calls(self, _: dict[str, str]) -> None:
        self.aws.calls.clear()
