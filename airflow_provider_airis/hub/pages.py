"""The hub's pages, rendered on the server: the overview, per alert what every notification links to, silences."""

from __future__ import annotations

import asyncio
import hashlib
import mimetypes
import time
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import jinja2
import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute

from airflow_provider_airis.hub import format as fmt
from airflow_provider_airis.hub import views
from airflow_provider_airis.hub.activity import Snapshot
from airflow_provider_airis.hub.alerting import alerts, notification_log, reads, rulebook, silences
from airflow_provider_airis.hub.alerting.alerts import Acknowledgement
from airflow_provider_airis.hub.auth import form_key, require, sent
from airflow_provider_airis.hub.problems import Problem, explain
from airflow_provider_airis.hub.requests import in_thread
from airflow_provider_airis.hub.store import metrics
from airflow_provider_airis.hub.store.metrics import SeriesPoints
from airflow_provider_airis.hub.store.store import Store
from airflow_provider_airis.records import Alert, from_ms, iso
from airflow_provider_airis.routes import parse_duration, parse_matchers

MAX_ROWS = 50
MAX_PAGE = 1_000_000
MAX_COUNTED = 1000
MAX_RESOLVED = 8
_CHANGES = {"acknowledge": alerts.acknowledge, "resolve": alerts.resolve}
DURATIONS = {"30m": "30 min", "1h": "1 h", "4h": "4 h", "12h": "12 h", "1d": "1 day", "3d": "3 days", "7d": "7 days"}

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
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_TITLES = {
    401: "A token is needed",
    403: "This token may not do that",
    404: "No such alert",
    503: "The hub has no store",
}

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
async def dashboard(
    request: Request,
    alert: str = "",
    source: str = "",
    page: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 1,
) -> Response:
    """The overview, or the page of one alert.

    :param source: of the overview, only what is of sources whose names have this text in them.
    :param page: of the overview's sources.
    """
    if alert:
        return await _alert_page(request, alert)
    number = page
    now = time.time_ns() // 1_000_000

    def render() -> str:
        values = _overview(request, now, number, source)
        return _render("overview.html", here="overview", now=now, **_known(request), **values)

    return HTMLResponse(await in_thread(request, render), headers=_HEADERS)


@router.post("/dashboard", dependencies=[Depends(require("alerts", form=True))])
async def change_alert(request: Request, alert: str) -> Response:
    """Acknowledge or resolve an alert from its page, and lead back there."""
    store: Store = request.app.state.store
    form: dict[str, str] = request.state.form
    try:
        change, body = _wanted_change(form)
    except Problem as problem:
        return await _alert_page(request, alert, form, problem.detail)
    await asyncio.wrap_future(store.submit(lambda transaction: change(transaction, alert, body)))
    return RedirectResponse(f"dashboard?alert={quote(alert, safe='')}", HTTPStatus.SEE_OTHER)


def _wanted_change(form: dict[str, str]) -> tuple[Callable[..., Alert], Acknowledgement]:
    name, by, comment = (form.get(field, "").strip() for field in ("change", "by", "comment"))
    if name not in _CHANGES:
        raise Problem(400, f"{name!r} is no change of an alert: {' or '.join(_CHANGES)}")
    if not by:
        raise Problem(400, f"say who wants to {name} the alert, in the field By")
    try:
        return _CHANGES[name], msgspec.convert({"by": by, "comment": comment or None}, Acknowledgement)
    except msgspec.ValidationError as error:
        raise Problem(400, explain(error)[1]) from None


async def _alert_page(request: Request, alert: str, form: dict[str, str] | None = None, wrong: str = "") -> Response:
    store: Store = request.app.state.store
    now = time.time_ns() // 1_000_000

    def page() -> str:
        values = _known(request) | _alert(store, alert, now)
        return _render("alert.html", here="alert", now=now, form=form, wrong=wrong, **values)

    return HTMLResponse(await in_thread(request, page), 400 if wrong else 200, _HEADERS)


def _known(request: Request) -> dict[str, Any]:
    """What every page knows of who reads it."""
    user, token = sent(request)
    return {
        "version": request.app.version,
        "user": user,
        "may_change": "alerts" in request.app.state.tokens.scopes(token),
        "form_key": form_key(request),
        "durations": DURATIONS,
    }


@router.get("/silences", dependencies=[Depends(require("read"))])
async def list_silences(request: Request) -> Response:
    """The silences, and a form for a new one."""
    return await _silences(request)


@router.post("/silences", dependencies=[Depends(require("alerts", form=True))])
async def change_silences(request: Request) -> Response:
    """Make a silence, or end one, and lead back to where that was asked for."""
    store: Store = request.app.state.store
    form: dict[str, str] = request.state.form

    try:
        if "expire" in form:
            await asyncio.wrap_future(store.submit(lambda transaction: silences.expire(transaction, form["expire"])))
        else:
            body = await in_thread(request, lambda: _wanted(form, store.now()))
            await asyncio.wrap_future(store.submit(lambda transaction: silences.put(transaction, body)))
    except Problem as problem:
        if problem.status != HTTPStatus.BAD_REQUEST:
            raise
        return await _silences(request, form, problem.detail)
    alert = form.get("alert")
    return RedirectResponse(f"dashboard?alert={quote(alert, safe='')}" if alert else "silences", HTTPStatus.SEE_OTHER)


def _wanted(form: dict[str, str], now: int) -> silences.SilenceBody:
    try:
        matchers = parse_matchers(form.get("matchers", ""))
        lasting = parse_duration(form.get("for", ""))
    except ValueError as error:
        raise Problem(400, str(error)) from None
    return silences.SilenceBody(
        matchers=[silences.SilenceMatcher.of(matcher) for matcher in matchers],
        endsAt=from_ms(now + lasting),
        createdBy=form.get("by", ""),
        comment=form.get("comment", ""),
    )


async def _silences(request: Request, form: dict[str, str] | None = None, wrong: str = "") -> Response:
    store: Store = request.app.state.store
    now = time.time_ns() // 1_000_000

    def page() -> str:
        found = store.read(silences.read, now)
        opened = store.read(reads.page, now, status=["firing", "acknowledged"], limit=MAX_COUNTED)
        values = views.silences_page(found, opened)
        return _render("silences.html", here="silences", now=now, form=form, wrong=wrong, **_known(request), **values)

    return HTMLResponse(await in_thread(request, page), 400 if wrong else 200, _HEADERS)


def _overview(request: Request, now: int, number: int, source: str) -> dict[str, Any]:
    store: Store = request.app.state.store
    opened = store.read(reads.page, now, status=["firing", "acknowledged"], limit=MAX_COUNTED)
    ended = store.read(reads.page, now, status=["resolved"], limit=MAX_COUNTED)
    activity: Snapshot = request.app.state.activity.look()
    if source:
        named = {alert.id for alert in (*opened, *ended) if views.is_named(alert.source, source)}
        read_from = store.read(reads.sources, [alert.id for alert in (*opened, *ended)])
        named |= {i for i, names in read_from.items() if any(views.is_named(name, source) for name in names)}
        opened, ended = ([alert for alert in found if alert.id in named] for found in (opened, ended))
        known = [one for one in activity.sources if views.is_named(one.source, source)]
        activity = Snapshot(activity.at, known)
    rows = [*sorted(opened, key=views.urgency)[:MAX_ROWS], *ended[:MAX_RESOLVED]]
    shown = store.read(reads.rows, [row.id for row in rows], now)
    known_silences = store.read(silences.read, now)
    return {
        "source": source,
        "rules": len(store.read(rulebook.read)),
        **views.overview(opened, ended, shown, activity, now, known_silences, number),
    }


def _alert(store: Store, alert_id: str, now: int) -> dict[str, Any]:
    alert = store.read(reads.detail, alert_id, now)
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
            found = store.read(
                metrics.query,
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
    showings = store.read(notification_log.showings, alert_id)
    return views.alert_page(alert, series, now, showings, store.read(silences.read, now))


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
