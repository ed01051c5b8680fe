"""Waiting for the hub's alerts on an event loop: the wake-up of the dispatch, and being told of each change."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any, get_args

import msgspec
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.triggers.base import BaseEventTrigger, TaskFailedEvent, TaskSuccessEvent, TriggerEvent

from airflow_provider_airis.errors import PermanentError, RetryableError
from airflow_provider_airis.links import AirisAlertLink
from airflow_provider_airis.records import AlertChange, ChangeType
from airflow_provider_airis.routes.matching import Matcher, labels, match_all, parse_matchers
from airflow_provider_airis.triggers.dispatch import POLL_S, DispatchWait
from airflow_provider_airis.triggers.patience import patiently

if TYPE_CHECKING:
    from airflow.triggers.shared_stream import AdvanceItem


PAGE = 500

logger = logging.getLogger(__name__)


@dataclass
class Told:
    """A change that somebody waits for.

    :param url: the page of its alert.
    :param taken: whether Airflow has taken the event for it, which it may drop before, to stop.
    """

    change: AlertChange
    url: str
    taken: bool = False

    @property
    def payload(self) -> dict[str, Any]:
        """What an asset event carries: ``{sequence, change, at, alert: {…}, url}``."""
        return {**msgspec.to_builtins(self.change), "url": self.url}

    @property
    def alert(self) -> dict[str, Any]:
        """What a task returns."""
        return {**msgspec.to_builtins(self.change.alert)}


class AirisAlertTrigger(BaseEventTrigger):
    """Waits on the hub's change feed until it holds something behind a consumer's committed place.

    Without matchers it only wakes, once: what has changed is read by whoever it woke, so that nothing is lost with an
    event. With a system it waits for one run of a dispatch: it ends too at the time that the run before wants to be
    woken at though nothing changes, and not while another run delivers, or until that one has died:
    :class:`~airflow_provider_airis.triggers.dispatch.DispatchWait`.

    With matchers it tells: a task of the first change that fits, an asset of each. It needs Airflow 3.3, which says
    when it has stored an event; only then the place moves behind the change. So each is told at least once, and again
    only if the triggerer dies, or the hub does not answer, within the second or two between.

    A hub that is down is waited for. One that refuses the token, or whose connection is missing, ends a task's wait
    with an error, the next one's later, while that stays the same; an asset's watcher is started anew by Airflow.

    :param airis_conn_id: connection of the hub.
    :param consumer: whose place; the connection's ``consumer`` if None.
    :param system: stem of an outbound system, if it is the place of what is delivered there; with matchers, whatever
        follows the connection's ``consumer`` in the place's name. A task's is ``<dag_id>.<task_id>`` unless one of the
        two is given; assets with different matchers need different ones.
    :param matchers: Alertmanager's, ``severity=~"critical|high"``: all of them fit the alert as the change left it.
    :param changes: of these kinds: ``fired``, ``severity_changed``, ``acknowledged``, ``resolved``.
    :param catchup: whether a place that was never committed is the feed's beginning; else it is its present end.
    """

    def __init__(
        self,
        airis_conn_id: str = "airis_default",
        consumer: str | None = None,
        system: str | None = None,
        matchers: str | Sequence[str] | None = None,
        changes: Sequence[ChangeType] = ("fired",),
        catchup: bool = False,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.airis_conn_id = airis_conn_id
        self.consumer = consumer
        self.system = system
        self.matchers = None if matchers is None else [matchers] if isinstance(matchers, str) else [*matchers]
        self.changes = sorted(changes)
        self.catchup = catchup
        parsed(self.matchers or ())
        check_changes(changes)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments."""
        path = f"{type(self).__module__}.{type(self).__qualname__}"
        arguments: dict[str, Any] = {
            "airis_conn_id": self.airis_conn_id,
            "consumer": self.consumer,
            "system": self.system,
        }
        if self.matchers is not None:
            task = self.task_instance
            if task is not None and not self.consumer and not self.system:
                arguments["system"] = f"{task.dag_id}.{task.task_id}"
            arguments |= {"matchers": self.matchers, "changes": self.changes, "catchup": self.catchup}
        return path, arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event: the wait is over, or it makes no sense."""
        if self.matchers is not None:
            raise NotImplementedError("AirisAlertTrigger: matchers need Airflow 3.3")
        try:
            await self.wait(getattr(self.task_instance, "run_id", None) or "a run")
        except (PermanentError, AirflowNotFoundException):
            yield TaskFailedEvent()
        else:
            yield TaskSuccessEvent()

    async def wait(self, run: str) -> None:
        """Wait without matchers.

        :param run: names the run that waits.
        :raises PermanentError: the hub refuses; Airflow's own error says that there is no connection of it.
        """
        from airflow_provider_airis.hooks.airis import AirisHook

        waiting: DispatchWait | None = None

        async def poll() -> bool:
            nonlocal waiting
            # Looked up anew after a fault: somebody may have mended it.
            its = waiting or DispatchWait(AirisHook(self.airis_conn_id, retries=0, system=self.system), run)
            waiting = None
            if self.system is not None:
                over = await its.poll()
            else:
                over = bool((await its.hook.achanges(consumer=self.consumer, limit=1, wait=POLL_S))[0])
            waiting = its
            return over

        key = f"{self.airis_conn_id} {self.consumer} {self.system}"
        while not await patiently(poll, self.log, key):
            pass

    def shared_stream_key(self) -> Hashable | None:
        """With matchers, a stream that Airflow tells what of it is stored; nobody else has it."""
        return None if self.matchers is None else f"{self.serialize()} {self.trigger_id}"

    @classmethod
    def create_shared_stream_producer(cls, kwargs: dict[str, Any]) -> AlertFeed:  # type: ignore[override]
        """What reads the feed and moves the place."""
        return AlertFeed(**kwargs)

    async def filter_shared_stream(self, shared_stream: AsyncIterator[Told | None]) -> AsyncIterator[TriggerEvent]:
        """Yield an event for each change; of a task, which ends with it, only the first."""
        from airflow.sdk.execution_time.xcom import XCom  # imports the backend that is configured

        task = self.task_instance
        if task is None:
            async for told in shared_stream:
                if told is not None:
                    yield TriggerEvent(told.payload)  # type: ignore[no-untyped-call]
                    told.taken = True
            return
        try:
            told = None
            while told is None:
                told = await anext(shared_stream)
        except (PermanentError, AirflowNotFoundException) as error:
            self.log.error("%s", error)
            yield TaskFailedEvent()
            return
        # As an XCom of the event it would reach the next task as a text of JSON.
        where = {name: getattr(task, name) for name in ("dag_id", "task_id", "run_id", "map_index")}
        await XCom.aset("return_value", told.alert, **where)
        yield TaskSuccessEvent(xcoms={AirisAlertLink().xcom_key: told.url})
        told.taken = True
        # To ask for the next change would say that Airflow needs not store this one. It cancels what has ended a task.
        await asyncio.Event().wait()


class AlertFeed:
    """The changes behind a consumer's place that somebody waits for, and what moves that place.

    It is a :class:`~airflow.triggers.shared_stream.SharedStreamProducer`, which Airflow has since 3.3. Its parameters
    are those of :class:`AirisAlertTrigger`.
    """

    def __init__(
        self,
        airis_conn_id: str,
        consumer: str | None,
        system: str | None,
        matchers: Sequence[str],
        changes: Collection[ChangeType],
        catchup: bool,
    ) -> None:
        from airflow_provider_airis.hooks.airis import AirisHook

        self.hook = AirisHook(airis_conn_id, retries=0, system=system)
        self.consumer = consumer
        self.matchers = parsed(matchers)
        self.changes = changes
        self.catchup = catchup
        self.settled = self.committed = 0
        self._moved = asyncio.Event()

    async def open_stream(self) -> AsyncIterator[tuple[Told | None, tuple[int, Told | None]]]:
        """Yield each change; None where there is none further. Beside it, what :meth:`advance` needs of it.

        :raises PermanentError: the hub refuses.
        """
        place = self.settled = self.committed = await patiently(self._start, logger)
        while True:
            changes, end = await patiently(lambda: self._poll(place), logger)  # noqa: B023
            for change in changes:
                if change.change in self.changes and match_all(self.matchers, labels(change.alert)):
                    told = Told(change, self.hook.dashboard_url(change.alert.id))
                    yield told, (change.sequence, told)
            if end > place:
                place = end
                yield None, (place, None)
            # What Airflow has not stored yet should not pile up in its memory.
            while self.settled < place:
                self._moved.clear()
                await self._moved.wait()

    async def advance(self, batch: Sequence[AdvanceItem]) -> None:
        """Move the place behind what Airflow has stored."""

        def stored(item: AdvanceItem) -> bool:
            _, told = item.broker_payload
            return item.outcome.is_clean and (told is None or told.taken)

        if done := list(takewhile(stored, batch)):
            await self.settle(done[-1].broker_payload[0])

    def get_advance_lane(self, broker_payload: Any) -> Hashable:  # noqa: ARG002
        """All in their order."""
        return None

    async def aclose(self) -> None:
        """There is nothing to close."""

    async def settle(self, sequence: int) -> None:
        """Move the place. What the hub does not take now, it is told again at the next poll."""
        self.settled = sequence
        self._moved.set()
        try:
            await self._commit()
        except (PermanentError, RetryableError) as error:
            logger.warning("%s; what was told is told again if the triggerer ends before the hub takes it", error)

    async def _start(self) -> int:
        await self.hook.aconnection()
        self.consumer = self.consumer or self.hook.consumer
        place = await self.hook.aplace(self.consumer)
        start = place.sequence if place.updated_at or self.catchup else await self.hook.aend()
        # Also to know that the hub takes it, before anybody is told anything.
        await self.hook.acommit(self.consumer, start)
        return start

    async def _poll(self, place: int) -> tuple[list[AlertChange], int]:
        await self._commit()
        return await self.hook.achanges(after=place, limit=PAGE, wait=POLL_S)

    async def _commit(self) -> None:
        assert self.consumer
        if (settled := self.settled) > self.committed:
            await self.hook.acommit(self.consumer, settled)
            self.committed = settled


def parsed(matchers: Iterable[str]) -> list[Matcher]:
    """Alertmanager's matchers.

    :raises ValueError: names the field and what is wrong with it.
    """
    try:
        return [matcher for text in matchers for matcher in parse_matchers(text)]
    except ValueError as error:
        raise ValueError(f"matchers: {error}") from error


def check_changes(changes: Collection[str]) -> None:
    """Refuse kinds that there are not.

    :raises ValueError: names the field and what is wrong with it.
    """
    known = get_args(ChangeType)
    if isinstance(changes, str) or not changes or not set(changes) <= {*known}:
        raise ValueError(f"changes: {changes!r} is no list of {', '.join(known)}")
