"""What was deployed, as PagerDuty's change events: aliases that were moved in a model registry."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from airflow_provider_airis.channels.pagerduty import SUMMARY_CHARS, TAG_CHARS, TAGS
from airflow_provider_airis.channels.texts import cut, identity
from airflow_provider_airis.errors import PermanentError
from airflow_provider_airis.exports.base import ACCEPTED, EventExport, Item, Limits, Outcome
from airflow_provider_airis.records import Event, iso

# The detail by which a change event that was sent twice is known.
KEY = "airis_event"


def change(event: Event) -> dict[str, Any]:
    """The change event of an alias that was moved, without the routing key.

    See https://developer.pagerduty.com/docs/events-api-v2/send-change-events/
    """
    its = {name: cut(str(value), TAG_CHARS) for name, value in event.data.items() if value is not None}
    name = f"{its.get('model_name', event.source)}@{its.get('alias', '')}"
    old, new = its.get("old_version"), its.get("version")
    summary = f"{name} is version {new} now" if new else f"{name} is gone"
    details = dict([*its.items()][: TAGS - 1])
    return {
        "payload": {
            "summary": cut(f"{summary}, it was version {old}" if old else summary, SUMMARY_CHARS),
            "source": cut(event.source, SUMMARY_CHARS),
            "timestamp": iso(event.timestamp),
            "custom_details": {**details, KEY: identity(event.key, TAG_CHARS)},
        },
        "links": [],
    }


class PagerDutyExport(EventExport):
    """A service's change events, by the integration key of the connection.

    PagerDuty takes one a request and cannot tell a repetition: its detail ``airis_event`` can.

    See https://developer.pagerduty.com/docs/events-api-v2/send-change-events/
    """

    limits = Limits(items=1, bytes=500_000)
    noun = "change events"

    def wants(self, event: Event) -> bool:
        """An alias that was moved."""
        return event.event_type == "model_alias_changed"

    def encode(self, event: Event) -> bytes:
        """The change event."""
        return msgspec.json.encode(change(event))

    def send(self, items: Sequence[Item]) -> Sequence[Outcome]:
        """Send it; 202 is PagerDuty's proof."""
        for item in items:
            self.hook.change(msgspec.json.decode(item.body))
        return [ACCEPTED] * len(items)

    def refuses_all(self, error: PermanentError) -> bool:
        """A key that is none, or none any more, is answered with 400 as a bad event is."""
        return re.search("routing.?key", error.detail, re.IGNORECASE) is not None or super().refuses_all(error)
