"""Alerts to PagerDuty, from Dags of your own; and what was deployed, as PagerDuty's change events."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_airis.channels.base import OF_THE_ALERT
from airflow_provider_airis.channels.pagerduty import SUMMARY_CHARS, TAG_CHARS, TAGS
from airflow_provider_airis.channels.texts import cut
from airflow_provider_airis.errors import PermanentError
from airflow_provider_airis.operators.notify import NotifyOperator
from airflow_provider_airis.records import Event, iso

if TYPE_CHECKING:
    from airflow.sdk.definitions.context import Context

CHANGES = ("model_alias_changed",)
DAY_MS = 86_400_000
PAGE = 1_000


class AirisToPagerDutyOperator(NotifyOperator):
    """Triggers a PagerDuty incident for an alert, and acknowledges and resolves it with the alert.

    :param target: connection of type ``pagerduty_events``, whose integration key names the PagerDuty service.
    """

    system = "pagerduty"


def change(event: Event) -> dict[str, Any]:
    """The change event of an alias that was moved, without the routing key.

    See https://developer.pagerduty.com/docs/events-api-v2/send-change-events/
    """
    its = {name: cut(str(value), TAG_CHARS) for name, value in event.data.items() if value is not None}
    name = f"{its.get('model_name', event.source)}@{its.get('alias', '')}"
    old, new = its.get("old_version"), its.get("version")
    summary = f"{name} is version {new} now" if new else f"{name} is gone"
    return {
        "payload": {
            "summary": cut(f"{summary}, it was version {old}" if old else summary, SUMMARY_CHARS),
            "source": cut(event.source, SUMMARY_CHARS),
            "timestamp": iso(event.timestamp),
            "custom_details": dict([*its.items()][:TAGS]),
        },
        "links": [],
    }


class AirisChangesToPagerDutyOperator(BaseOperator):
    """Sends what was deployed to PagerDuty, as change events: the aliases that were moved in a model registry.

    It reads the hub's feed of events from where it was last time, which the hub keeps under
    ``<consumer>-pagerduty-changes``, and moves that offset after each event that was sent. PagerDuty cannot tell a
    repetition, so a crash between the two makes one change event more. The first time, it sends those of the last day.

    An event that PagerDuty calls invalid is left out, and the task fails at its end and names it. Any other error
    leaves the offset where it is.

    :param pagerduty_events_conn_id: connection of type ``pagerduty_events``, whose integration key names the service.
    :param airis_conn_id: connection of the hub.

    See https://developer.pagerduty.com/docs/events-api-v2/send-change-events/
    """

    template_fields: Sequence[str] = ("pagerduty_events_conn_id", "airis_conn_id")
    ui_color = "#fdecea"

    def __init__(
        self,
        *,
        pagerduty_events_conn_id: str = "pagerduty_events_default",
        airis_conn_id: str = "airis_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.pagerduty_events_conn_id = pagerduty_events_conn_id
        self.airis_conn_id = airis_conn_id

    def execute(self, context: Context) -> dict[str, int]:  # noqa: ARG002
        """Send what is new; returns ``{sequence, sent}``: the offset in the feed, and how many were sent."""
        from airflow_provider_airis.hooks.airis import AirisHook
        from airflow_provider_airis.hooks.pagerduty import PagerDutyHook

        sent, refused = 0, []
        with (
            AirisHook(self.airis_conn_id, system="pagerduty-changes") as hub,
            PagerDutyHook(self.pagerduty_events_conn_id) as pagerduty,
        ):
            try:
                place = hub.place()
                after, oldest = place.sequence, 0 if place.updated_at else round(time.time() * 1000) - DAY_MS
                while (page := hub.event_changes(after=after, limit=PAGE))[0]:
                    for one in page[0]:
                        if one.event.event_type not in CHANGES or one.event.timestamp < oldest:
                            continue
                        try:
                            pagerduty.change(change(one.event))
                            sent += 1
                        except PermanentError as error:
                            if error.status not in OF_THE_ALERT or re.search(
                                "routing.?key", error.detail, re.IGNORECASE
                            ):
                                raise
                            refused.append(f"{one.event.key}: {error}")
                        hub.commit(hub.consumer, one.sequence)
                    after = page[1]
                    hub.commit(hub.consumer, after)
            except PermanentError as error:
                raise AirflowFailException(str(error)) from None
        if refused:
            raise AirflowFailException(
                f"{len(refused)} change events were refused, {sent} were not: {'; '.join(refused[:5])}"
            )
        return {"sequence": after, "sent": sent}
