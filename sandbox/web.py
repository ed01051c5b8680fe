"""What the stand-ins of receivers share: starting, scripted failures, a record of every request, a page to look at."""

from __future__ import annotations

import argparse
import asyncio
import html
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

STYLE = """
:root { color-scheme: light dark; --ink: light-dark(#1d1c1d, #e8e8e8); --dim: light-dark(#616061, #a0a0a3);
  --line: light-dark(#dcdcdc, #3a3b3f); --page: light-dark(#ffffff, #1a1d21); --soft: light-dark(#f6f6f6, #222529);
  --red: light-dark(#b3261e, #ff8a80); --amber: light-dark(#8a5300, #ffc46b); --green: light-dark(#146c2e, #7ddc97); }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
header, main { max-width: 760px; margin: 0 auto; padding: 16px; }
header { border-bottom: 1px solid var(--line); }
h1 { font-size: 18px; margin: 0; } header p, .dim { color: var(--dim); margin: 0; font-size: 13px; }
article { border: 1px solid var(--line); border-radius: 8px; padding: 14px 16px; margin: 16px 0; }
h2 { font-size: 16px; margin: 0 0 8px; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: 1fr 1fr; gap: 8px 16px; margin: 0 0 8px; }
dt { font-weight: 600; font-size: 13px; } dd { margin: 0; overflow-wrap: anywhere; }
.button { display: inline-block; border: 1px solid var(--line); border-radius: 4px; padding: 4px 10px;
  margin: 0 8px 6px 0; color: inherit; text-decoration: none; background: var(--soft); font: inherit; font-weight: 600;
  cursor: pointer; }
form { margin: 10px 0 0; }
.state { font-size: 12px; font-weight: 700; text-transform: uppercase; letter-spacing: .03em; }
.triggered { color: var(--red); } .acknowledged { color: var(--amber); } .resolved { color: var(--green); }
@media (max-width: 480px) { dl { grid-template-columns: 1fr; } }
"""


@dataclass
class Fault:
    """The answers that the next ``times`` calls of ``call`` get."""

    call: str
    times: int = 1
    status: int = 500
    json: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    applied: bool = False


class Faults:
    """``POST /_sandbox/faults`` ``{call, times?, status?, json?, headers?, applied?}``: scripted failures.

    ``applied`` carries the call out and then fails it, as a connection that breaks before the answer.
    """

    def __init__(self) -> None:
        self.scripted: list[Fault] = []

    def next(self, call: str) -> Fault | None:
        """The fault that this call gets, if any; it then has one time less."""
        for fault in self.scripted:
            if fault.call == call and fault.times > 0:
                fault.times -= 1
                return fault
        return None

    async def post(self, request: Request) -> Response:
        """Script one."""
        self.scripted.append(Fault(**await request.json()))
        return JSONResponse({})


def now_ms() -> int:
    """Unix milliseconds."""
    return time.time_ns() // 1_000_000


def answered(fault: Fault) -> Response:
    """A fault's answer."""
    return JSONResponse(fault.json, fault.status, headers=fault.headers)


def page(title: str, note: str, body: str) -> Response:
    """A page that shows itself anew every two seconds."""
    head = (
        f'<meta name="viewport" content="width=device-width"><title>{html.escape(title)}</title><style>{STYLE}</style>'
    )
    shown = f"<header><h1>{html.escape(title)}</h1><p>{html.escape(note)}</p></header><main>{body}</main>"
    return HTMLResponse(f'<!doctype html><html lang="en">{head}<body>{shown}</body></html>', headers={"Refresh": "2"})


def application(routes: list[Route], faults: Faults) -> Starlette:
    """The routes, and those of ``/_sandbox`` that every stand-in has."""
    return Starlette(routes=[*routes, Route("/_sandbox/faults", faults.post, methods=["POST"])])


def serve(description: str, make: Callable[..., Starlette], *more: str, optional: tuple[str, ...] = ()) -> None:
    """Run the application on ``--host`` and ``--port`` until SIGTERM; prints ``ready <url>`` once it answers.

    :param more: further options, given to ``make`` by name; ``optional`` ones are None there unless set.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 for a free one")
    for name in (*more, *optional):
        parser.add_argument(f"--{name.replace('_', '-')}", required=name in more)
    options = parser.parse_args()
    listening = socket.create_server((options.host, options.port))
    application = make(**{name: getattr(options, name) for name in (*more, *optional)})
    config = uvicorn.Config(application, log_level="warning", timeout_graceful_shutdown=1)
    asyncio.run(_run(uvicorn.Server(config), listening))


async def _run(server: uvicorn.Server, listening: socket.socket) -> None:
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    host, port = listening.getsockname()[:2]
    print(f"ready http://{host}:{port}", flush=True)
    await serving
