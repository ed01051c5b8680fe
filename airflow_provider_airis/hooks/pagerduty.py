"""PagerDuty's Events API v2: alerts and changes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_provider_airis.errors import PermanentError
from airflow_provider_airis.hooks.http import HttpHook
from airflow_provider_airis.hooks.pagers import Offset

if TYPE_CHECKING:
    import httpx2
    from airflow.sdk import Connection


# The most that PagerDuty lists at once.
PAGE = 100


class PagerDutyHook(HttpHook):
    """Sends events on an Airflow connection of type ``pagerduty_events``, whose password is an integration key.

    The connection's host, if set, names another service region or a stand-in: ``https://events.eu.pagerduty.com``.
    The PagerDuty provider's own hook has neither that nor an event's timestamp, and its health check posts an event.

    See https://developer.pagerduty.com/docs/send-alert-event
    """

    default_conn_name = "pagerduty_events_default"
    conn_type = "pagerduty_events"
    hook_name = "PagerDuty"
    default_host = "https://events.pagerduty.com"

    def authenticate(self, connection: Connection) -> httpx2.Auth | None:  # noqa: ARG002
        """None: the routing key is part of each event."""
        return None

    def enqueue(self, event: dict[str, Any]) -> str:
        """Send an event; returns the ``dedup_key`` under which PagerDuty keeps it.

        Sending it again does no harm: events of the same ``dedup_key`` are one alert there. 202 says that the event
        was taken, not that an incident exists.

        :param event: ``{event_action, dedup_key, payload, links}``; the routing key is added here.
        :raises PermanentError: PagerDuty calls the event invalid, or the key is none of 32 characters.
        """
        answer = self.decode(
            self.request("POST", "/v2/enqueue", json={"routing_key": self._routing_key, **event}, retry=True),
            dict[str, Any],
        )
        return str(answer.get("dedup_key") or event.get("dedup_key", ""))

    def change(self, event: dict[str, Any]) -> None:
        """Send a change event, which PagerDuty shows beside the service's incidents.

        It has no key by which PagerDuty would know a repetition: sent again it is there twice, so only one that was
        turned away with 429 is.

        :param event: ``{payload: {summary, source, timestamp, custom_details}, links}``; the routing key is added here.
        :raises PermanentError: PagerDuty calls the event invalid, or the key is none of 32 characters.

        See https://developer.pagerduty.com/docs/events-api-v2/send-change-events/
        """
        self.request("POST", "/v2/change/enqueue", json={"routing_key": self._routing_key, **event})

    def alert_keys(self, incident_id: str) -> list[str]:
        """The ``dedup_key`` of each alert of an incident, however many, by the REST API and the extra ``api_token``.

        Its host follows from the connection's, ``api.`` for ``events.``, unless the extra ``api_host`` names it.

        :raises PermanentError: there is no token, or it may not read the incident.

        See https://developer.pagerduty.com/api-reference/4bc42e7ac0c59-list-alerts-for-an-incident
        """
        token = str(self.extra.get("api_token") or "").strip()
        if not token:
            raise self._misconfigured("its extra has no api_token, by which an incident's alerts can be asked for")
        host = str(self.extra.get("api_host") or self.base_url.replace("//events.", "//api.", 1)).rstrip("/")
        shown = self.pages(
            f"{host}/incidents/{quote(incident_id, safe='')}/alerts",
            items="alerts",
            pager=Offset(PAGE, more="more"),
            headers={"Authorization": f"Token token={token}", "Accept": "application/vnd.pagerduty+json;version=2"},
        )
        return [*dict.fromkeys(str(alert["alert_key"]) for alert in shown if alert.get("alert_key"))]

    def check(self) -> str:
        """Look at the key only: the Events API has no request without an effect."""
        return self._routing_key and (
            f"{self.hook_name}: the integration key has the right form; {self.base_url} is asked with the first event"
        )

    def problem(self, response: httpx2.Response) -> tuple[str, str]:
        """PagerDuty's own words: ``{status, message, errors: [text]}``."""
        try:
            document = self.decode(response, dict[str, Any])
        except PermanentError:
            return "", ""
        said = [document.get("message"), *(document.get("errors") or [])]
        return ": ".join(part for part in said if isinstance(part, str)), ""

    @property
    def _routing_key(self) -> str:
        key = (self.connection.password or "").strip()
        if not re.fullmatch(r"[0-9A-Za-z]{32}", key):
            raise self._misconfigured("its password is no integration key of 32 letters and digits")
        return key
