"""From the hub's feed of events to one receiver that is no channel of alerts."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_airis.catalog import BY_STEM
from airflow_provider_airis.errors import LeaseTakenError, PermanentError
from airflow_provider_airis.settings import value

if TYPE_CHECKING:
    from airflow.sdk.definitions.context import Context


class ExportOperator(BaseOperator):
    """Sends what is new in the hub's feed of events to a system that has an export.

    It reads on from the offset that the hub keeps under ``<consumer>-<system>-<what>``, and moves it only past what the
    receiver has accepted or refused. It runs under a lease of that name: a run that finds it held ends at once. What
    dies with a run, one batch at most, is sent again under the same keys.

    What the receiver refuses is left out, written into the hub as an event ``export_refused``, and named by the task,
    which fails at its end. A receiver that is down, or refuses everything, leaves the offset where it is; the task
    fails, and says how much waits and for how long.

    :param system: stem of a system of the catalog with an export.
    :param conn_id: the receiver's connection, the system's default unless given.
    :param airis_conn_id: connection of the hub.
    :param max_run_s: seconds after which it begins no further batch; the next run goes on.
    """

    template_fields: Sequence[str] = ("system", "conn_id", "airis_conn_id")
    ui_color = "#fdecea"

    def __init__(
        self,
        *,
        system: str,
        conn_id: str | None = None,
        airis_conn_id: str = "airis_default",
        max_run_s: float = 1_500,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.system = system
        self.conn_id = conn_id
        self.airis_conn_id = airis_conn_id
        self.max_run_s = max_run_s
        self._stopped = threading.Event()

    def execute(self, context: Context) -> dict[str, Any]:
        """Send; returns ``{sequence, sent, refused, backlog, lag_s}``: the offset, and how many were sent and wait."""
        from airflow_provider_airis.exports.base import open_export
        from airflow_provider_airis.exports.lease import ExportLease
        from airflow_provider_airis.exports.run import ExportRun, ExportSummary
        from airflow_provider_airis.hooks.airis import AirisHook

        row = BY_STEM.get(self.system)
        if row is None or row.export is None:
            raise AirflowFailException(f"{self.system!r} is no system that the hub's events are exported to")
        try:
            options = {option.name: value(row.stem, option.name) for option in row.export.options}
            with (
                AirisHook(self.airis_conn_id, system=f"{row.stem}-{row.export.what}") as hub,
                closing(open_export(row, self.conn_id or "", options)) as export,
            ):
                try:
                    with ExportLease(hub, hub.consumer, str(context.get("run_id") or "a run")) as lease:
                        done = ExportRun(hub, export, lease, max_run_s=self.max_run_s, stopped=self._stopped).go()
                except LeaseTakenError as error:
                    self.log.info("Another run exports (%s); there is nothing to do for this one", error)
                    done = ExportSummary(hub.committed())
        except PermanentError as error:
            raise AirflowFailException(str(error)) from None
        if done.refused:
            raise AirflowFailException(
                f"{done.refused} {export.noun} were refused, {done.sent} were not: {'; '.join(done.refusals[:5])}"
            )
        return done.figures()

    def on_kill(self) -> None:
        """Begin nothing more."""
        self._stopped.set()
