"""From the hub's alerts to one receiving system: what the routes want to be sent now is sent, and written down."""

from __future__ import annotations

import threading
from contextlib import closing, suppress
from http import HTTPStatus
from time import monotonic
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_airis.catalog import BY_STEM, SYSTEMS
from airflow_provider_airis.dispatch.lease import SUPERSEDED
from airflow_provider_airis.dispatch.outages import Outages
from airflow_provider_airis.dispatch.queue import Pause
from airflow_provider_airis.errors import AirisError, LeaseLostError, PermanentError, RetryableError
from airflow_provider_airis.routes import Routes, RoutesError
from airflow_provider_airis.settings import alerts_conn_id, option, options, value

if TYPE_CHECKING:
    from airflow.sdk.definitions.context import Context

    from airflow_provider_airis.dispatch.lease import RunLease
    from airflow_provider_airis.hooks.airis import AirisHook


class AirisDispatchOperator(BaseOperator):
    """Sends to one receiving system what the routes want it to be told now, and follows the alerts as they change.

    The routes are those of ``[airis] routes_file``, else the hub's own, else the default: each alert by itself to the
    systems of its severity. Each group is shown in the state that it then has, by the system's
    channel. That a group may be sent is written into the hub's notification log before it is, and
    that it was thereafter; so a crash leaves a trace, and the receiver is looked at before it is sent again. The offset
    in the feed is committed once everything up to there is shown or waits for its time, which is kept beside it.

    It sends under a lease of the hub, which it renews: a run that finds it held by another that lives ends at once, and
    what is written after it has lapsed and was taken is refused.

    A target that does not answer, or refuses whatever it is sent, is tried with one group at a time, after a pause
    that grows; its others wait, none is marked, the hub is notified once, and the task fails when its time is over: the
    next run goes on. A group that is refused for its own sake is marked ``failed`` in the log and reported to the
    hub, the others are delivered, it is tried again ever more rarely, and the task fails at its end.

    :param system: stem of a system of the catalog with a channel. Its offset, its lease, and its checkpoint with the
        targets that are down are ``<consumer>-<system>``.
    :param airis_conn_id: connection of the hub that has the alerts, ``[airis] alerts_conn_id`` unless given.
    :param linger_s: seconds without a change after which the task ends; until then the next one needs no task's start.
        The system's option unless given.
    :param max_run_s: seconds after which it ends in any case.
    """

    template_fields = ("system", "airis_conn_id")
    ui_color = "#fdecea"

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
        self._stopped = threading.Event()

    def execute(self, context: Context) -> dict[str, int]:
        """Deliver; returns ``{sequence, sent}``: the committed offset, and how many messages were sent."""
        from airflow_provider_airis.dispatch.lease import RunLease
        from airflow_provider_airis.dispatch.loading import load
        from airflow_provider_airis.dispatch.run import Run
        from airflow_provider_airis.hooks.airis import AirisHook

        if self.system not in BY_STEM or not BY_STEM[self.system].channel:
            raise AirflowFailException(f"{self.system!r} is no system that alerts are delivered to")
        load(BY_STEM[self.system])
        task = context.get("ti")
        with AirisHook(self.airis_conn_id, retries=0, system=self.system) as hub:
            try:
                lease = RunLease(hub, hub.consumer, str(context.get("run_id") or "a run"), self._stopped)
                if not self._take(lease):
                    return {"sequence": hub.committed(), "sent": 0}
                try:
                    routes, nobody = self._routes(hub, lease)
                    run = Run(
                        *(hub, lease, routes, self.system),
                        linger_s=float(value(self.system, "linger_s")) if self.linger_s is None else self.linger_s,
                        max_run_s=self.max_run_s,
                        nobody=nobody,
                        at_once=task is not None and task.try_number > 1,
                    )
                    with closing(run):
                        return run.go()
                finally:
                    lease.give_back()
            except LeaseLostError as error:
                raise AirflowFailException(f"{SUPERSEDED}. {error}") from error
            except PermanentError as error:
                raise AirflowFailException(str(error)) from None

    def _take(self, lease: RunLease) -> bool:
        """Take the lease, once the hub answers; returns whether it is ours."""
        pause, end = Pause(), monotonic() + self.max_run_s
        while True:
            try:
                return lease.take()
            except RetryableError as error:
                if not pause.error:
                    self.log.warning("%s; waiting for it", error)
                pause.failed(error)
                if self._stopped.wait(max(0.0, pause.until - monotonic())) or monotonic() > end:
                    raise AirflowFailException(f"The hub does not answer; the next run goes on. {error}") from error
            except PermanentError as error:
                if error.status in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED):
                    raise PermanentError(
                        f"The hub keeps no leases, without which two runs may send the same: it is older than this "
                        f"package, or not airis hub. {error}"
                    ) from error
                raise

    def _routes(self, hub: AirisHook, lease: RunLease) -> tuple[Routes, str]:
        """The routes that hold now, and why none may lead to the system. A mistake in them is reported to the hub."""
        path, name = option("airis", "routes_file"), "the hub's routes"
        try:
            if path:
                return Routes.read(path), f"no route of {path} leads there"
            if own := hub.routes():
                return Routes.parse(own, name), f"no route of {name} leads there"
        except RoutesError as error:
            outages = Outages(hub, lease, self.system, BY_STEM[self.system].title, outage_s=0)
            with suppress(AirisError):
                lease.reserve(outages.misconfigured(f"nothing is sent, as the routes are wrong: {error}"))
            raise AirflowFailException(str(error)) from None
        rows = (row.stem for row in SYSTEMS if row.channel)
        routes = Routes.default({stem: (option(stem, "target"), options(stem, "severities")) for stem in rows})
        return routes, f"the option severities of section [{BY_STEM[self.system].section}] names none"

    def on_kill(self) -> None:
        """Begin nothing more."""
        self._stopped.set()
