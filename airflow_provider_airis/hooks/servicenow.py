"""Incidents by ServiceNow's Table API."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import msgspec

from airflow_provider_airis.errors import PermanentError
from airflow_provider_airis.hooks.http import HttpHook
from airflow_provider_airis.records import to_ms

TABLE = "/api/now/table/incident"
RESOLVED, CLOSED = "6", ("7", "8")


class Incident(msgspec.Struct):
    """What is asked of an incident. ServiceNow answers every value as text.

    :param state: ``1`` new, ``2`` in progress, ``3`` on hold, ``6`` resolved, ``7`` closed, ``8`` cancelled.
    :param correlation_display: free for who set ``correlation_id``.
    """

    sys_id: str
    number: str = ""
    state: str = ""
    correlation_id: str = ""
    correlation_display: str = ""
    resolved_at: str = ""
    sys_updated_on: str = ""

    @property
    def reference(self) -> str:
        """By which it is asked for again, and people know it."""
        return f"{self.number}:{self.sys_id}"

    @property
    def name(self) -> str:
        """What people call it."""
        return f"Incident {self.number}"

    @property
    def closed(self) -> bool:
        """Whether it is closed or cancelled, after which nobody can change it."""
        return self.state in CLOSED

    @property
    def closed_at(self) -> int | None:
        """When it was resolved, Unix ms; None if it is open, 0 if nobody knows.

        ServiceNow answers times in UTC, without saying so.
        """
        if self.state not in (RESOLVED, *CLOSED):
            return None
        try:
            return to_ms(datetime.fromisoformat(self.resolved_at or self.sys_updated_on).replace(tzinfo=UTC))
        except ValueError:
            return 0


class _One(msgspec.Struct):
    result: Incident


class _Many(msgspec.Struct):
    result: list[Incident]


_ASKED = {"sysparm_fields": ",".join(Incident.__struct_fields__), "sysparm_exclude_reference_link": "true"}


class ServiceNowHook(HttpHook):
    """An instance, by an Airflow connection of type ``servicenow``: login and password, or an access token alone.

    See https://www.servicenow.com/docs/csh?topicname=c_TableAPI.html
    """

    default_conn_name = "servicenow_default"
    conn_type = "servicenow"
    hook_name = "ServiceNow"

    def find(self, correlation_id: str) -> Incident | None:
        """The newest incident of a correlation id; None if there is none."""
        query = f"correlation_id={correlation_id}^ORDERBYDESCsys_created_on"
        answer = self.request("GET", TABLE, params={**_ASKED, "sysparm_query": query, "sysparm_limit": 1})
        found = self.decode(answer, _Many).result
        # A condition on a field that the user may not read is left out, and any incident answers.
        return found[0] if found and found[0].correlation_id == correlation_id else None

    def get(self, sys_id: str) -> Incident | None:
        """One incident; None if it is deleted."""
        try:
            return self.decode(self.request("GET", self._path_of(sys_id), params=_ASKED), _One).result
        except PermanentError as error:
            if error.status == 404:
                return None
            raise

    def create(self, fields: dict[str, Any]) -> Incident:
        """Create an incident.

        :param fields: by their names in the table; those that the table lacks are ignored by ServiceNow.
        """
        return self.decode(self.request("POST", TABLE, params=_ASKED, json=fields), _One).result

    def update(self, sys_id: str, fields: dict[str, Any]) -> Incident:
        """Change fields of an incident; ``work_notes`` are added to those there are."""
        return self.decode(self.request("PATCH", self._path_of(sys_id), params=_ASKED, json=fields), _One).result

    def check(self) -> str:
        """Read one incident's id; returns what to tell the user."""
        params = {"sysparm_fields": "sys_id", "sysparm_limit": 1}
        self.decode(self.request("GET", TABLE, params=params, retry=False), _Many)
        return f"{self.hook_name} at {self.base_url} accepts the credentials, and lets them read incidents"

    def address(self, sys_id: str) -> str:
        """An incident's page."""
        return f"{self.base_url}/incident.do?sys_id={quote(sys_id, safe='')}"

    @staticmethod
    def _path_of(sys_id: str) -> str:
        return f"{TABLE}/{quote(sys_id, safe='')}"
