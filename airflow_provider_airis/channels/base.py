"""What a receiver is to whoever sends: a class that shows an alert's state to one target, and says how that went.

It knows no scheduler, no routes, and no log of what was sent: who calls it compares, writes down before and after, and
tries again. It imports neither Airflow nor an SDK; its hook, which does, is loaded at the first use.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_airis.errors import PermanentError
from airflow_provider_airis.records import Event

if TYPE_CHECKING:
    from airflow_provider_airis.catalog import System
    from airflow_provider_airis.channels.view import AlertView
    from airflow_provider_airis.hooks.airis import AirisHook

# Seconds for a receiver to answer, unless its connection says so; one that does not is asked again later anyway.
TIMEOUT_S = 5.0
# Statuses by which a receiver may mean the one alert that it was sent. Any other refusal means all of them.
OF_THE_ALERT = frozenset({400, 413, 422})


class Channel(ABC):
    """One target of a receiving system. It may be used from several threads.

    :param row: the system's row in the catalog.
    :param target: whom within the system: a channel, an address, or the id of a connection.
    :param conn_id: the connection, where a target is none.
    :param options: the system's own options, by name.
    :param retries: how often the hook sends again by itself.

    The class attributes say what the receiver can do:

    - ``updates``: a later state changes what was sent, and is not one more message;
    - ``finds``: what an earlier try has sent can be found again;
    - ``deduplicates``: the receiver itself knows a repetition by its key.
    """

    updates: ClassVar[bool] = False
    finds: ClassVar[bool] = False
    deduplicates: ClassVar[bool] = False
    hook_retries: ClassVar[int] = 1

    def __init__(
        self,
        row: System,
        target: str,
        *,
        conn_id: str = "",
        options: Mapping[str, Any] | None = None,
        retries: int | None = None,
    ) -> None:
        self.row = row
        self.target = target
        self.conn_id = target if row.target_is_connection else conn_id or row.default_conn_id
        self.options = options or {}
        self.retries = self.hook_retries if retries is None else retries
        self.timeout_s = TIMEOUT_S
        self.log = logging.getLogger(type(self).__module__)

    @cached_property
    def hook(self) -> Any:
        """The receiver's hook, of which one session serves all that is sent."""
        hook = load(self.row.hook_class)(self.conn_id, retries=self.retries)
        hook.default_timeout_s = self.timeout_s
        return hook

    def close(self) -> None:
        """End the session. The next use looks up the connection anew."""
        hook = self.__dict__.pop("hook", None)
        if hasattr(hook, "close"):
            hook.close()

    def check(self) -> None:
        """Read the options, ask the receiver whether it is well, and show nothing.

        :raises AirisError: it is not, or an option is none of its type.
        """
        dict(self.options)
        self.hook.check()

    def refuses_all(self, error: PermanentError) -> bool:
        """Whether it is the receiver that has to be mended, its token or its channel, and not this one alert."""
        if error.status is not None and error.status not in OF_THE_ALERT:
            return True
        try:
            self.check()
        except Exception:  # noqa: BLE001  a missing connection, too
            return True
        return False

    @abstractmethod
    def send(self, view: AlertView, sent: str | None, *, maybe_sent: bool) -> str | None:
        """Show the alert's state and return the reference under which a later state updates it.

        :param sent: what an earlier state returned; None if the receiver was shown none.
        :param maybe_sent: an earlier try may have sent it and died before it was written down; look before sending.
        :return: None if the alert is resolved and the receiver never heard of it, so that there is nothing to say.
        """

    def illustrate(self, hub: AirisHook, view: AlertView, sent: str) -> str | None:  # noqa: ARG002
        """Add what is not worth a delay, once the state is written down; returns the reference if it is another now."""
        return None

    def repeats(self, view: AlertView) -> None:
        """Say that the receiver may have this state already, and cannot tell."""
        self.log.warning(
            "An earlier try may have sent alert %s as %s; it is sent again", view.alert.id, view.alert.status
        )


def load(path: str) -> Any:
    """The class that an import path names."""
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def open_channel(
    row: System, target: str, *, conn_id: str = "", options: Mapping[str, Any] | None = None, retries: int | None = None
) -> Channel:
    """The channel of a system's row to one target. Opens nothing yet."""
    found: Channel = load(str(row.channel_class))(row, target, conn_id=conn_id, options=options, retries=retries)
    return found


def notification_failed(system: str, key: str, at: int, data: dict[str, Any]) -> Event:
    """The event that says that a receiver was not shown an alert; the same key is the same event."""
    return Event(
        event_type="notification_failed",
        source=f"airflow-{system}",
        severity="error",
        timestamp=at,
        data=data,
        key=f"notification_failed/{key}",
    )
