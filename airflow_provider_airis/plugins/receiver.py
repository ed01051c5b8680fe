"""The way back: ``POST /airis/receive/<stem>`` in Airflow's API server, where systems say what people did there.

Airflow does not ask who calls: every request is verified here, by the secrets in the extra of the system's connection.
Whoever is refused learns the status and no more. Every answer is counted as ``airis.receive.<stem>.<outcome>``.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from hashlib import sha256
from importlib import import_module
from typing import TYPE_CHECKING, TypeVar

import msgspec
from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.sdk.observability.stats import Stats

from airflow_provider_airis.catalog import SYSTEMS, System, Webhook
from airflow_provider_airis.errors import AirisError
from airflow_provider_airis.hooks.airis import AirisHook
from airflow_provider_airis.receive.actions import UnknownAlertError, perform
from airflow_provider_airis.receive.base import Action, Handler, Refused
from airflow_provider_airis.settings import alerts_conn_id, option

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

T = TypeVar("T")

STATUSES = {
    "accepted": 200,
    "repeated": 200,
    "ignored": 200,
    "malformed": 400,
    "unsigned": 401,
    "stale": 401,
    "not_configured": 404,
    "unknown": 404,
    "slow": 408,
    "replayed": 409,
    "too_large": 413,
    "unsupported": 415,
    "limited": 429,
    "failed": 503,
    "unavailable": 503,
}
MOST_BYTES = 262_144
READ_S = 10
# Shorter secrets can be guessed.
SECRET_CHARS = 16
# For so long a connection's secrets, and the hub's token, are not looked up again.
KNOWN_S = 60
# Longer than PagerDuty goes on sending a request, and than a signed time is good for.
REMEMBERED_S, MOST_REMEMBERED = 1_800, 10_000
PER_S, BURST, MOST_RUNNING = 20, 100, 100
# Of what is refused, a line in the log each.
REFUSED_PER_S, REFUSED_BURST = 1, 60
RETRY_S = 5
# Slack's three seconds, less the way there and back.
REPLY_S = 2
THREADS = 8

log = logging.getLogger(__name__)


class Limit:
    """So many a second, and so many at once."""

    def __init__(self, per_s: float, burst: float) -> None:
        self.per_s, self.burst = per_s, burst
        self._left, self._at = burst, time.monotonic()

    def take(self) -> bool:
        """Whether there is one left."""
        now = time.monotonic()
        self._left, self._at = min(self.burst, self._left + (now - self._at) * self.per_s), now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Receiver:
    """What one system sends, in one process of the API server."""

    def __init__(self, system: System, webhook: Webhook, pool: ThreadPoolExecutor) -> None:
        module, _, name = str(system.handler_class).rpartition(".")
        self.system, self.webhook = system, webhook
        self.handler: Handler = getattr(import_module(module), name)(option(system.stem, "receive_conn_id"))
        self._pool = pool
        self._accepted, self._refused = Limit(PER_S, BURST), Limit(REFUSED_PER_S, REFUSED_BURST)
        self._running: set[asyncio.Task[str]] = set()
        self._seen: OrderedDict[bytes, tuple[float, asyncio.Task[str]]] = OrderedDict()
        self._secrets: tuple[float, tuple[str, ...]] = (0.0, ())
        self._hub: tuple[float, AirisHook] = (0.0, AirisHook())

    async def answer(self, request: Request) -> int:
        """The status for a request."""
        try:
            outcome = await self._outcome(request)
        except Refused as refusal:
            # A signed request is never kept waiting by those that are not.
            outcome = refusal.outcome if self._refused.take() else "limited"
            if outcome != "limited":
                log.warning("A request to /airis/receive/%s is refused: %s", self.system.stem, refusal)
        Stats.incr(f"airis.receive.{self.system.stem}.{outcome}")
        told = outcome in ("failed", "unknown") and self.handler.replies
        return 200 if told else self.handler.unknown if outcome == "unknown" else STATUSES[outcome]

    async def _outcome(self, request: Request) -> str:
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type != self.handler.content_type:
            raise Refused("unsupported", f"its Content-Type is not {self.handler.content_type}")
        try:
            secrets = await self._in_thread(self._known_secrets)
        except Exception:
            log.exception("The secrets of /airis/receive/%s cannot be read", self.system.stem)
            return "unavailable"
        if not secrets:
            return "not_configured"
        body = await _body(request)
        self.handler.verify(body, request.headers, secrets, time.time())
        actions = self.handler.read(body)
        return await self._once(sha256(body).digest(), actions) if actions else "ignored"

    async def _once(self, digest: bytes, actions: Sequence[Action]) -> str:
        """Do it, unless that has been done; whoever asks for the same meanwhile gets the same answer."""
        now = time.monotonic()
        while self._seen and (len(self._seen) > MOST_REMEMBERED or next(iter(self._seen.values()))[0] < now):
            self._seen.popitem(last=False)
        _, task = self._seen.get(digest, (0.0, None))
        if task is not None and task.done() and task.result() != "failed":
            return "repeated" if self.handler.repeats else "replayed"
        if task is None or task.done():
            if len(self._running) >= MOST_RUNNING or not self._accepted.take():
                log.warning("Requests to /airis/receive/%s are more than are taken at once", self.system.stem)
                return "limited"
            task = asyncio.create_task(self._do(actions))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
            self._seen.pop(digest, None)
            self._seen[digest] = now + REMEMBERED_S, task
        if not self.handler.replies:
            return await asyncio.shield(task)
        await asyncio.wait({task}, timeout=REPLY_S)
        return task.result() if task.done() else "accepted"

    async def _do(self, actions: Sequence[Action]) -> str:
        outcomes = [await self._in_thread(partial(self._act, action)) for action in actions]
        return next((outcome for outcome in ("failed", "unknown") if outcome in outcomes), "accepted")

    def _act(self, action: Action) -> str:
        outcome, text = "accepted", ""
        try:
            known = list(self.handler.complete(action))
            if not known:
                raise UnknownAlertError(action.about)
            for one in known:
                text = perform(self._known_hub(), one, self.system)
                log.info("%s by %s in %s: alert %s", one.kind, one.by, self.system.title, one.id)
        except UnknownAlertError:
            outcome, text = "unknown", "AIRIS-MON does not know this alert."
            name = action.id or action.about
            log.warning("%s names an alert that the hub does not know: %s", self.system.title, name)
        except AirisError as error:
            outcome, text = "failed", "AIRIS-MON could not be told. Try again in a minute."
            log.error("What %s asks for is not done: %s", self.system.title, error)
        except Exception:
            outcome, text = "failed", "AIRIS-MON could not be told."
            log.exception("What %s asks for is not done", self.system.title)
        try:
            if text:
                self.handler.reply(action, text)
        except AirisError as error:
            log.warning("%s is not told what became of it: %s", action.by, error)
        return outcome

    def _known_hub(self) -> AirisHook:
        until, hub = self._hub
        if until < time.monotonic():
            hub = AirisHook(alerts_conn_id(), timeout=10, retries=1, system="receive")
            self._hub = time.monotonic() + KNOWN_S, hub
        return hub

    def _known_secrets(self) -> tuple[str, ...]:
        """The secrets, any of which may have signed; none if the way back is not set up."""
        until, secrets = self._secrets
        if until < time.monotonic():
            secrets = self._read_secrets()
            self._secrets = time.monotonic() + KNOWN_S, secrets
        return secrets

    def _read_secrets(self) -> tuple[str, ...]:
        where = f"extra {self.webhook.secret} of connection {self.handler.conn_id}"
        try:
            extra = msgspec.json.decode(BaseHook.get_connection(self.handler.conn_id).extra or "{}")
        except (AirflowNotFoundException, msgspec.DecodeError) as error:
            # Airflow says "not found" too while its database does not answer.
            if isinstance(error, AirflowNotFoundException) and self._secrets[1]:
                raise
            extra = {}
        said = extra.get(self.webhook.secret) if isinstance(extra, dict) else None
        secrets = said.split() if isinstance(said, str) else []
        if not secrets:
            log.info("/airis/receive/%s takes nothing: %s holds no secret", self.system.stem, where)
        if any(len(secret) < SECRET_CHARS for secret in secrets):
            log.error("%s holds a secret of less than %d characters, which is not used", where, SECRET_CHARS)
        return tuple(secret for secret in secrets if len(secret) >= SECRET_CHARS)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)


async def _body(request: Request) -> bytes:
    from starlette.requests import ClientDisconnect

    too_large = Refused("too_large", f"its body has more than {MOST_BYTES:,} bytes")
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > MOST_BYTES:
        raise too_large
    content = bytearray()
    try:
        async with asyncio.timeout(READ_S):
            async for chunk in request.stream():
                content += chunk
                if len(content) > MOST_BYTES:
                    raise too_large
    except (TimeoutError, ClientDisconnect):
        raise Refused("slow", f"its body was not there within {READ_S} s") from None
    return bytes(content)


@cache
def application() -> Starlette:
    """What answers below ``/airis``; made at the first request, so that other processes need not load it."""
    from starlette.applications import Starlette
    from starlette.responses import Response
    from starlette.routing import Route

    pool = ThreadPoolExecutor(THREADS, "airis-receive")

    def route(system: System, webhook: Webhook) -> Route:
        receiver = cache(lambda: Receiver(system, webhook, pool))

        async def receive(request: Request) -> Response:
            status = await receiver().answer(request)
            return Response(status_code=status, headers={"Retry-After": str(RETRY_S)} if status in (429, 503) else None)

        return Route(f"/receive/{system.stem}", receive, methods=["POST"])

    return Starlette(routes=[route(system, system.webhook) for system in SYSTEMS if system.webhook])
