"""The hub's pages, rendered on the server: ``/dashboard``, and per alert what every notification links to."""

from __future__ import annotations

import asyncio
import hashlib
import mimetypes
import time
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from pathlib import Path
from typing import Any

import jinja2
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute

from airflow_provider_airis.hub import format as fmt
from airflow_provider_airis.hub import views
from airflow_provider_airis.hub.auth import require
from airflow_provider_airis.hub.problems import Problem
from airflow_provider_airis.hub.store import SeriesPoints, Store
from airflow_provider_airis.records import iso

MAX_ROWS = 50
MAX_COUNTED = 1000
MAX_RESOLVED = 8

_HERE = Path(__file__).parent
_STATIC = {
    path.relative_to(_HERE / "static").as_posix(): path.read_bytes()
    for path in sorted((_HERE / "static").rglob("*"))
    if path.suffix in (".css", ".js", ".svg")
}
_VERSIONS = {name: hashlib.sha256(content).hexdigest()[:16] for name, content in _STATIC.items()}
_NOSNIFF = {"X-Content-Type-Options": "nosniff"}
_HEADERS = _NOSNIFF | {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_TITLES = {401: "A token is needed", 403: "This token may not read", 404: "No such alert", 503: "The hub has no store"}

_templates = jinja2.Environment(
    loader=jinja2.FileSystemLoader(_HERE / "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.filters |= {
    "age": fmt.age,
    "clock": fmt.clock,
    "duration": fmt.duration,
    "iso": iso,
    "number": fmt.number,
}
# Addresses are relative, so that the pages work behind any path prefix.
_templates.globals["static"] = lambda name: f"dashboard/static/{name}?v={_VERSIONS[name]}"


class _Page(APIRoute):
    """Answers problems as pages too."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except Problem as problem:
                title = _TITLES.get(problem.status, HTTPStatus(problem.status).phrase)
                detail = problem.detail
                if problem.status == HTTPStatus.UNAUTHORIZED:
                    detail = "Reload, and enter any user name with one of the hub's tokens as the password."
                content = _render("message.html", here="", status=problem.status, title=title, detail=detail)
                return HTMLResponse(content, problem.status, _HEADERS | problem.headers)

        return answer


router = APIRouter(route_class=_Page, include_in_schema=False)


def _render(template: str, **values: Any) -> str:
    return _templates.get_template(template).render(values)


@router.get("/")
async def root() -> Response:
    """To the dashboard."""
    return RedirectResponse("dashboard")


@router.get("/dashboard", dependencies=[Depends(require("read"))])
async def dashboard(request: Request, alert: str = "") -> Response:
    """The overview, or the page of one alert."""
    store: Store = request.app.state.store
    now = time.time_ns() // 1_000_000

    def page() -> str:
        here, values = ("alert", _alert(store, alert, now)) if alert else ("overview", _overview(store, now))
        return _render(f"{here}.html", here=here, now=now, version=request.app.version, **values)

    content = await asyncio.get_running_loop().run_in_executor(request.app.state.readers, page)
    return HTMLResponse(content, headers=_HEADERS)


def _overview(store: Store, now: int) -> dict[str, Any]:
    opened = store.alerts(status=["firing", "acknowledged"], limit=MAX_COUNTED)
    ended = store.alerts(status=["resolved"], limit=MAX_COUNTED)
    rows = [*sorted(opened, key=views.urgency)[:MAX_ROWS], *ended[:MAX_RESOLVED]]
    shown = [found for row in rows if (found := store.alert(row.id))]
    activity = store.activity(start=now - views.HOUR, end=now, step=views.ACTIVITY_STEP)
    return {"rules": len(store.rules()), **views.overview(opened, ended, shown, activity, now)}


def _alert(store: Store, alert_id: str, now: int) -> dict[str, Any]:
    alert = store.alert(alert_id)
    if alert is None:
        raise Problem(404, f"This hub knows no alert {alert_id!r}. Was it raised by another hub?")
    series: list[SeriesPoints] = []
    if alert.rule:
        start, end = views.stretch(alert, now)
        step, aggregation = views.resolution(alert.rule, start, end)
        if step:
            start -= start % step
            if end < now:
                end -= end % step
        for ref in alert.series:
            found = store.query(
                start=start,
                end=end,
                name=ref.name,
                source=ref.source,
                tags=ref.tags,
                step=step,
                aggregation=aggregation,
            )
            # Others may have the same tags and more.
            series += [line for line in found if line.tags == ref.tags]
        if end == now and aggregation in ("sum", "count"):
            # The newest step is still being filled.
            for line in series:
                line.points.pop()
            series = [line for line in series if line.points]
    return views.alert_page(alert, series, now)


@router.get("/dashboard/static/{name:path}")
async def static(request: Request, name: str, v: str = "") -> Response:
    """What the pages load: cached for good under its version, asked for anew without one."""
    if name not in _STATIC:
        raise Problem(404, f"the pages have no file {name!r}")
    current = _VERSIONS[name]
    lasting = "public, max-age=31536000, immutable" if v == current else "no-cache"
    headers = _NOSNIFF | {"ETag": f'"{current}"', "Cache-Control": lasting}
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return Response(_STATIC[name], headers=headers, media_type=mimetypes.guess_type(name)[0])
