"""What the stand-ins of receivers share: starting, scripted failures, a record of every request, a page to look at."""

from __future__ import annotations

import argparse
import asyncio
import html
import inspect
import socket
import time
from collections.abc import Callable, Mapping, Sequence
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
    after: int = 0


class Faults:
    """``POST /_sandbox/faults`` ``{call, times?, status?, json?, headers?, applied?, after?}``: scripted failures.

    ``after``: so many calls pass before. ``applied`` carries the call out and then fails it, as a connection that
    breaks before the answer.
    """

    def __init__(self) -> None:
        self.scripted: list[Fault] = []

    def next(self, call: str) -> Fault | None:
        """The fault that this call gets, if any; it then has one time less."""
        for fault in self.scripted:
            if fault.call == call and fault.after > 0:
                fault.after -= 1
            elif fault.call == call and fault.times > 0:
                fault.times -= 1
                return fault
        return None

    async def post(self, request: Request) -> Response:
        """Script one."""
        self.scripted.append(Fault(**await request.json()))
        return JSONResponse({})


class Receiver:
    """What a fake receiver remembers, at ``/_sandbox``: ``GET requests`` lists what it took, with the time in Unix ms.

    ``POST limit`` ``{"on": true}`` lets it answer 429 to more than ``a_second`` requests a second.
    """

    a_second = 4

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.faults = Faults()
        self.recent: list[float] = []
        self.limited = False

    def note(self, kind: str, **what: Any) -> None:
        """Something was taken."""
        self.requests.append({"at": now_ms(), "kind": kind, **what})

    def too_many(self) -> bool:
        """Whether this request is one too many within a second."""
        now = time.monotonic()
        self.recent = [*(at for at in self.recent if now - at < 1), now]
        return self.limited and len(self.recent) > self.a_second

    async def seen(self, request: Request) -> Response:  # noqa: ARG002
        """Everything that was taken."""
        return JSONResponse(self.requests)

    async def limit(self, request: Request) -> Response:
        """Limit the rate, or not."""
        self.limited = (await request.json())["on"]
        return JSONResponse({})

    def application(self, *routes: Route) -> Starlette:
        """The routes, and its own."""
        own = [Route("/_sandbox/requests", self.seen), Route("/_sandbox/limit", self.limit, methods=["POST"])]
        return application([*routes, *own], self.faults)


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


def parse(
    description: str, make: Callable[..., Starlette], arguments: Sequence[str] | None = None
) -> tuple[Starlette, str, int]:
    """The application that options of the command line ask for, with host and port.

    :param make: its parameters are options: those with a default may be left out.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 for a free one")
    parameters = inspect.signature(make).parameters.values()
    for parameter in parameters:
        required = parameter.default is inspect.Parameter.empty
        parser.add_argument(f"--{parameter.name.replace('_', '-')}", required=required)
    options = parser.parse_args(arguments)
    given = {parameter.name: getattr(options, parameter.name) for parameter in parameters}
    return make(**given), options.host, options.port


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens."""
    return socket.create_server((host, port))


def serve(description: str, make: Callable[..., Starlette]) -> None:
    """Run the application on ``--host`` and ``--port`` until SIGTERM; prints ``ready <url>`` once it answers."""
    application, host, port = parse(description, make)
    asyncio.run(serve_all({"": (application, listen(host, port))}))


async def serve_all(applications: Mapping[str, tuple[Starlette, socket.socket]]) -> None:
    """Run applications by name until SIGTERM; prints ``at <name> <url>`` for each, and ``ready <url>`` of the first."""
    servers = []
    for application, listening in applications.values():
        server = uvicorn.Server(uvicorn.Config(application, log_level="warning", timeout_graceful_shutdown=1))
        servers.append((server, asyncio.create_task(server.serve(sockets=[listening]))))
    while not all(server.started or serving.done() for server, serving in servers):
        await asyncio.sleep(0.01)
    urls = {name: "http://{}:{}".format(*listening.getsockname()[:2]) for name, (_, listening) in applications.items()}
    for name, url in urls.items():
        if name:
            print(f"at {name} {url}")
    print(f"ready {next(iter(urls.values()))}", flush=True)
    await asyncio.wait([serving for _, serving in servers], return_when=asyncio.FIRST_COMPLETED)
    for server, _ in servers:
        server.should_exit = True
    await asyncio.gather(*(serving for _, serving in servers))
