"""Lists that go on: every pager against a server that answers page by page, and servers that never end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from werkzeug import Request, Response

from airflow_provider_airis.errors import PermanentError, RetryableError
from airflow_provider_airis.hooks.http import HttpHook
from airflow_provider_airis.hooks.pagers import ContinueToken, Cursor, LinkHeader, Offset, PageNumber, Pager


class Hook(HttpHook):
    conn_type = "example"
    default_conn_name = "example_default"
    hook_name = "Example"


@pytest.fixture
def hook(httpserver, connect) -> Iterator[Hook]:
    connect("example_default", conn_type="example", host=httpserver.url_for(""), password="the-password")
    with Hook(retries=0) as hook:
        yield hook


@pytest.fixture
def rows(httpserver) -> Callable[[Callable[[Request], Any]], None]:
    """Lets ``/rows`` answer with what a function makes of the request: a document, or a response."""

    def rows(answer: Callable[[Request], Any]) -> None:
        def handler(request: Request) -> Response:
            found = answer(request)
            return found if isinstance(found, Response) else Response(json.dumps(found))

        httpserver.expect_request("/rows").respond_with_handler(handler)

    return rows


ALL = list(range(7))


def test_a_cursor_that_lies_deeper(rows, hook):
    rows(
        lambda request: {
            "data": {"rows": ALL[int(request.args.get("after", 0)) :][:3]},
            "meta": {"next": str(int(request.args.get("after", 0)) + 3) if request.args.get("after") != "6" else ""},
        }
    )
    assert list(hook.pages("/rows", items="data.rows", pager=Cursor("meta.next", "after"))) == ALL


def test_a_continue_token(rows, hook):
    def answer(request: Request) -> Any:
        assert request.args["limit"] == "3"
        at = int(request.args.get("continue", 0))
        return {"items": ALL[at : at + 3], "metadata": {"continue": str(at + 3)} if at + 3 < len(ALL) else {}}

    rows(answer)
    assert list(hook.pages("/rows", items="items", pager=ContinueToken(limit=3))) == ALL


def test_a_continue_token_that_has_expired_is_a_list_to_read_anew(rows, hook):
    def answer(request: Request) -> Any:
        if "continue" in request.args:
            return Response(json.dumps({"message": "The provided continue parameter is too old"}), 410)
        return {"items": [0], "metadata": {"continue": "x"}}

    rows(answer)
    with pytest.raises(RetryableError, match=r"too old.*The list has changed underneath, read it anew"):
        list(hook.pages("/rows", items="items", pager=ContinueToken()))


def test_a_link_header(httpserver, rows, hook):
    def answer(request: Request) -> Response:
        at = int(request.args.get("page", 1))
        links = [f'<{httpserver.url_for("/rows")}?page=1&q=a%2Cb>; rel="first"']
        if at < 3:
            links.append(f'</rows?page={at + 1}&q=a%2Cb>; title="x, y; rel=no"; rel="next last"')
        return Response(json.dumps(ALL[3 * at - 3 : 3 * at]), headers={"Link": ", ".join(links)})

    rows(answer)
    assert list(hook.pages("/rows", params={"q": "a,b"}, items="", pager=LinkHeader())) == ALL
    assert [request.args["q"] for request, _ in httpserver.log] == ["a,b"] * 3


@pytest.mark.parametrize("elsewhere", ["http://192.0.2.1/rows?page=2", "//192.0.2.1/rows", "https://127.0.0.1/rows"])
def test_a_link_to_another_address_gets_no_credentials(rows, hook, elsewhere):
    rows(lambda _: Response("[1]", headers={"Link": f'<{elsewhere}>; rel="next"'}))
    with pytest.raises(PermanentError, match=r"continues at another address, .* is not followed"):
        list(hook.pages("/rows", items="", pager=LinkHeader()))


@pytest.mark.parametrize(
    "extra",
    [lambda _: {}, lambda end: {"more": end < len(ALL)}, lambda _: {"total": len(ALL)}],
    ids=["nothing", "more", "total"],
)
def test_offsets_go_on_after_a_page_smaller_than_asked_for(httpserver, rows, hook, extra):
    def answer(request: Request) -> Any:
        assert request.args["limit"] == "5"
        at = int(request.args["offset"])
        found = ALL[at : at + 3]  # it gives no more than three
        return {"rows": found, **extra(at + len(found))}

    rows(answer)
    said = next(iter(extra(0)), "")
    pager = Offset(5, more="more" if said == "more" else "", total="total" if said == "total" else "")
    assert list(hook.pages("/rows", items="rows", pager=pager)) == ALL
    assert len(httpserver.log) == (3 if said else 4)


@pytest.mark.parametrize("pages", ["", "pages"])
def test_page_numbers(httpserver, rows, hook, pages):
    rows(lambda request: {"rows": ALL[3 * int(request.args["page"]) :][:3], "pages": 3})
    pager = PageNumber(start=0, size=3, pages=pages)
    assert list(hook.pages("/rows", items="rows", pager=pager)) == ALL
    assert len(httpserver.log) == (3 if pages else 4)


@pytest.mark.parametrize(
    ("pager", "answer"),
    [
        (Cursor("next"), {"rows": [0], "next": "again"}),
        (ContinueToken(), {"rows": [0], "metadata": {"continue": "again"}}),
        (Offset(more="more"), {"rows": [0], "more": True}),
        (PageNumber(), {"rows": [0]}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_server_that_repeats_itself_is_an_error(httpserver, rows, hook, pager: Pager, answer):
    rows(lambda _: answer)
    with pytest.raises(PermanentError, match="GET /rows pages without an end"):
        list(hook.pages("/rows", items="rows", pager=pager))
    assert len(httpserver.log) == 2


def test_a_link_that_leads_back_is_an_error(httpserver, rows, hook):
    rows(lambda request: Response("[1]", headers={"Link": f'</rows?page={len(httpserver.log) % 3}>; rel="next"'}))
    with pytest.raises(PermanentError, match="GET /rows pages without an end"):
        list(hook.pages("/rows", items="", pager=LinkHeader()))
    assert len(httpserver.log) <= 5


@pytest.mark.parametrize("pager", [Cursor("next"), Offset(more="more"), PageNumber(), LinkHeader()])
def test_a_server_that_never_ends_is_an_error(httpserver, rows, hook, monkeypatch, pager: Pager):
    monkeypatch.setattr("airflow_provider_airis.hooks.http.MOST_PAGES", 20)
    rows(
        lambda _: Response(
            json.dumps({"rows": [len(httpserver.log)], "next": str(len(httpserver.log)), "more": True}),
            headers={"Link": f"</rows?page={len(httpserver.log)}>; rel=next"},
        )
    )
    with pytest.raises(PermanentError, match="GET /rows pages without an end"):
        list(hook.pages("/rows", items="rows", pager=pager))
    assert len(httpserver.log) == 20
