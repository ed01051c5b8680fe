"""From the hub's alerts to one receiving system: what the routes want to be sent now is sent, and written down."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_airis.catalog import BY_STEM, SYSTEMS
from airflow_provider_airis.channels.base import notification_failed
from airflow_provider_airis.dispatch import limits
from airflow_provider_airis.errors import AirisError, PermanentError
from airflow_provider_airis.links import AirisAlertLink
from airflow_provider_airis.routes import Routes, RoutesError
from airflow_provider_airis.settings import alerts_conn_id, option, options, value

if TYPE_CHECKING:
    from airflow.sdk.definitions.context import Context

    from airflow_provider_airis.dispatch.run import Run
    from airflow_provider_airis.hooks.airis import AirisHook


class AirisDispatchOperator(BaseOperator):
    """Sends to one receiving system what the routes want it to be told now, and follows the alerts as they change.

    The routes are those of ``[airis] routes_file``, else the hub's own, else the default: each alert by itself to the
    systems of its severity. Each group is shown in the state that it then has, by the system's
    channel. That a group may be sent is written into the hub's notification log before it is, and
    that it was thereafter; so a crash leaves a trace, and the receiver is looked at before it is told again. The place
    in the feed is committed once everything up to there is shown or waits for its time, which is kept at the hub too.

    A target that does not answer, or refuses whatever it is sent, is tried with one group at a time, after a pause
    that grows; its others wait, none is marked, the hub is told once, and the task fails when its time is over: the
    next run goes on. A group that is refused for its own sake is marked ``failed`` in the log and reported to the
    hub, the others are delivered, and the task fails at its end.

    :param system: stem of an outbound system of the catalog. Its place in the feed is ``<consumer>-<system>``.
    :param airis_conn_id: connection of the hub that has the alerts, ``[airis] alerts_conn_id`` unless given.
    :param linger_s: seconds without a change after which the task ends; until then the next one needs no task's start.
        The system's option unless given.
    :param max_run_s: seconds after which it ends in any case.
    """

    template_fields = ("system", "airis_conn_id")
    ui_color = "#fdecea"
    operator_extra_links = (AirisAlertLink(),)

    def __init__(
        self,
        *,
        system: str,
        airis_conn_id: str | None = None,
        linger_s: float | None = None,
        max_run_s: float = 600,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.system = system
        self.airis_conn_id = airis_conn_id or alerts_conn_id()
        self.linger_s = linger_s
        self.max_run_s = max_run_s
        self._run: Run | None = None

    def execute(self, context: Context) -> dict[str, int]:  # noqa: ARG002
        """Deliver; returns ``{sequence, sent}``: the committed place, and how many messages were sent."""
        from airflow_provider_airis.dispatch.run import Run
        from airflow_provider_airis.hooks.airis import AirisHook

        if self.system not in BY_STEM or not BY_STEM[self.system].channel:
            raise AirflowFailException(f"{self.system!r} is no system that alerts are delivered to")
        with AirisHook(self.airis_conn_id, retries=0, system=self.system) as hub:
            try:
                linger_s = float(value(self.system, "linger_s")) if self.linger_s is None else self.linger_s
                limit = {"linger_s": linger_s, "max_run_s": self.max_run_s}
                self._run = Run(hub, self._routes(hub), self.system, **limit)
                return self._run.go()
            except PermanentError as error:
                raise AirflowFailException(str(error)) from None
            finally:
                if self._run:
                    self._run.close()

    def _routes(self, hub: AirisHook) -> Routes:
        """The routes that hold now. A mistake in them is told to the hub, once."""
        path = option("airis", "routes_file")
        try:
            if path:
                return Routes.read(path)
            if own := hub.routes():
                return Routes.parse(own, "the hub's routes")
        except RoutesError as error:
            digest = blake2b(str(error).encode(), digest_size=8).hexdigest()
            now = round(time.time() * 1000)
            data = {"target": "", "error": f"nothing is sent, as the routes are wrong: {error}"}
            with suppress(AirisError):
                hub.event(notification_failed(self.system, f"{self.system}/routes/{digest}", now, data))
            threading.Event().wait(limits.REFUSED_PAUSE_S)  # the next run follows at once, and finds the same
            raise AirflowFailException(str(error)) from None
        rows = (row.stem for row in SYSTEMS if row.channel)
        return Routes.default({stem: (option(stem, "target"), options(stem, "severities")) for stem in rows})

    def on_kill(self) -> None:
        """Begin nothing more."""
        if self._run:
            self._run.stopped.set()
