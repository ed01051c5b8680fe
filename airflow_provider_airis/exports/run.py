"""One run of an export: the feed is read on from its offset, sent in batches, and the offset moved behind the proof."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from time import monotonic, time
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_airis.channels.texts import identity, lasting
from airflow_provider_airis.errors import AirisError, LeaseLostError, PermanentError, RetryableError
from airflow_provider_airis.exports.base import EventExport, Item, Outcome
from airflow_provider_airis.records import Event

if TYPE_CHECKING:
    from airflow_provider_airis.exports.lease import ExportLease
    from airflow_provider_airis.hooks.airis import AirisHook

PAGE = 1_000
# Pages that are read to say how much waits.
COUNTED_PAGES = 20
KEY_CHARS = 256
KEPT_REFUSALS = 20
# Refusals in a row after which it looks as if the receiver refused everything: the next run goes on.
REFUSED_IN_A_ROW = 20
# Seconds before what the receiver did not prove to have is sent again.
PAUSES_S = (1.0, 4.0, 15.0)
REFUSED = "export_refused"


class Behind(NamedTuple):
    """How far an export is behind the feed.

    :param items: that wait; with ``more``, at least so many.
    :param lag_s: how long ago the oldest of them happened, seconds.
    """

    items: int = 0
    more: bool = False
    lag_s: int = 0

    def __str__(self) -> str:
        return f"{self.items:,}{' or more' if self.more else ''}"


class ExportSummary(NamedTuple):
    """What a run did.

    :param sequence: the committed offset.
    :param refused: how many the receiver refused; ``refusals`` are the first ones, each named with the reason.
    """

    sequence: int
    sent: int = 0
    refused: int = 0
    refusals: Sequence[str] = ()
    behind: Behind = Behind()

    def figures(self) -> dict[str, int]:
        """What is worth keeping: ``{sequence, sent, refused, backlog, lag_s}``."""
        its = {"sequence": self.sequence, "sent": self.sent, "refused": self.refused}
        return its | {"backlog": self.behind.items, "lag_s": self.behind.lag_s}


class ExportRun:
    """Sends what is new in the hub's feed of events to one receiver.

    The offset is that of the hub's consumer of the hook's name. It moves only past what the receiver has accepted, or
    refused by name: a refusal is first written into the hub, as an event ``export_refused``. So a run that dies at any
    moment loses nothing, and what it had sent since its last commit, one batch at most, is sent again under the same
    keys.

    :param hub: with the consumer's name as its own.
    :param lease: held while it runs.
    :param max_run_s: seconds after which it begins no further batch.
    :param pauses_s: before each time that what is unknown is sent again.
    """

    def __init__(
        self,
        hub: AirisHook,
        export: EventExport,
        lease: ExportLease,
        *,
        max_run_s: float,
        stopped: threading.Event | None = None,
        pauses_s: Sequence[float] = PAUSES_S,
    ) -> None:
        self.hub = hub
        self.export = export
        self.lease = lease
        self.sequence = 0
        self.sent = self.refused = 0
        self.refusals: list[str] = []
        self._in_a_row = 0
        self._ends = monotonic() + max_run_s
        self._stopped = stopped or threading.Event()
        self._pauses_s = pauses_s
        self._since = 0

    def go(self) -> ExportSummary:
        """Send until the feed's end, or until the time is over.

        :raises RetryableError: the receiver or the hub does not answer; says how much waits, and since when.
        :raises PermanentError: likewise, if the receiver refuses everything.
        """
        self._start()
        try:
            for batch in self._batches():
                self._deliver(batch)
                if self._over:
                    break
        except LeaseLostError:
            raise
        except AirisError as error:
            self._say_behind(error)
            raise
        behind = self.behind()
        if behind.items and self._over:
            self.hub.log.warning("Its time is over: %s", self._waiting(behind))
        return ExportSummary(self.sequence, self.sent, self.refused, self.refusals, behind)

    def behind(self) -> Behind:
        """How much waits, read from the feed."""
        after, items, oldest = self.sequence, 0, 0
        for _ in range(COUNTED_PAGES):
            changes, after = self.hub.event_changes(after=after, limit=PAGE)
            wanted = [change.event.timestamp for change in changes if self._wanted(change.event)]
            items += len(wanted)
            oldest = min([*wanted, *([oldest] if oldest else [])], default=0)
            if not changes:
                return Behind(items, lag_s=_ago(oldest))
        return Behind(items, more=True, lag_s=_ago(oldest))

    def _start(self) -> None:
        """Where to begin: at the offset, or, where there is none, at what is not older than ``first_s``."""
        place = self.hub.place()
        self.sequence = place.sequence
        name = f"export/{self.hub.consumer}"
        kept = self.hub.checkpoints.get(name)
        if kept is not None:
            self._since = int(kept.value["since"])
        elif not place.updated_at:
            # Written down first: a run that ends early leaves an offset, and the next one the same beginning.
            self._since = round((time() - self.export.first_s) * 1000)
            self.hub.checkpoints.put(name, {"since": self._since})

    def _wanted(self, event: Event) -> bool:
        return event.timestamp >= self._since and self.export.wants(event)

    def _batches(self) -> Iterator[list[Item]]:
        """What is to be sent, in the feed's order, each batch within the limits; commits what is past between them."""
        limits, batch, size = self.export.limits, list[Item](), 0
        after = self.sequence
        while True:
            changes, end = self.hub.event_changes(after=after, limit=PAGE)
            for change in changes:
                if not self._wanted(change.event):
                    continue
                try:
                    item = Item(change.sequence, change.event, self.export.encode(change.event))
                except (ValueError, OverflowError) as error:
                    self._settle(Item(change.sequence, change.event, b""), Outcome("refused", f"not sent: {error}"))
                    continue
                if batch and (len(batch) == limits.items or size + len(item.body) > limits.bytes):
                    yield batch
                    batch, size = [], 0
                batch.append(item)
                size += len(item.body)
            after, last = end, not changes or self._over
            if batch and last:
                yield batch
                batch, size, last = [], 0, self._over
            if not batch:
                self._commit(after)
            if last:
                return

    def _deliver(self, batch: list[Item]) -> None:
        """Send a batch until all of it is settled."""
        waiting, pauses = [batch], iter(self._pauses_s)
        while waiting:
            items = waiting.pop()
            self.lease.check()
            try:
                outcomes = self._send(items)
            except PermanentError as error:
                if self.export.refuses_all(error):
                    raise
                if len(items) > 1:
                    middle = len(items) // 2
                    waiting += [items[middle:], items[:middle]]
                    continue
                outcomes = [Outcome("refused", str(error))]
            unknown = [item for item, outcome in zip(items, outcomes, strict=True) if outcome.status == "unknown"]
            for item, outcome in zip(items, outcomes, strict=True):
                self._settle(item, outcome)
            if unknown:
                waiting.append(unknown)
            self._commit(min(rest[0].sequence for rest in waiting) - 1 if waiting else batch[-1].sequence)
            if self._in_a_row >= REFUSED_IN_A_ROW:
                raise PermanentError(
                    f"{self._asked} has refused {self._in_a_row} {self.export.noun} in a row, which looks as if it "
                    f"refused all; the next run goes on. The first one: {self.refusals[0]}"
                )
            if unknown and ((pause := next(pauses, None)) is None or self._stopped.wait(pause)):
                reasons = {outcome.reason for outcome in outcomes if outcome.status == "unknown"}
                raise RetryableError(
                    f"{self._asked} did not confirm {len(unknown)} of {len(items)} {self.export.noun}, which are sent "
                    f"again: {'; '.join(sorted(reasons)[:5])}"
                )

    def _send(self, items: list[Item]) -> Sequence[Outcome]:
        if len(items) == 1 and (size := len(items[0].body)) > (most := self.export.limits.bytes):
            return [Outcome("refused", f"it has {size:,} bytes, and {self.export.row.title} takes {most:,} at most")]
        return self.export.send(items)

    def _settle(self, item: Item, outcome: Outcome) -> None:
        if outcome.status == "accepted":
            self.sent += 1
            self._in_a_row = 0
        elif outcome.status == "refused":
            self._report(item.event, item.sequence, outcome.reason)
            self.refused += 1
            self._in_a_row += 1
            self.refusals = [*self.refusals, f"{item.event.key}: {outcome.reason}"][:KEPT_REFUSALS]
            self.hub.log.error("Refused: %s: %s", item.event.key, outcome.reason)

    def _report(self, event: Event, sequence: int, reason: str) -> None:
        """Keep a refusal in the hub. One of such a report is only counted: two exports would report each other's."""
        if event.event_type == REFUSED:
            return
        names = {"key": event.key, "event_type": event.event_type, "source": event.source, "sequence": sequence}
        self.hub.event(
            Event(
                event_type=REFUSED,
                source=f"airflow-{self.export.row.stem}",
                severity="error",
                timestamp=round(time() * 1000),
                data={"system": self.export.row.stem, "consumer": self.hub.consumer, **names, "reason": reason[:2_000]},
                key=identity(f"{REFUSED}/{self.hub.consumer}/{event.key}", KEY_CHARS),
            )
        )

    def _commit(self, sequence: int) -> None:
        if sequence > self.sequence:
            self.hub.commit(self.hub.consumer, sequence)
            self.sequence = sequence

    @property
    def _over(self) -> bool:
        return monotonic() > self._ends or self._stopped.is_set()

    @property
    def _asked(self) -> str:
        return f"{self.export.row.title} (connection {self.export.conn_id})"

    def _waiting(self, behind: Behind) -> str:
        return f"{behind} {self.export.noun} wait, the oldest for {lasting(behind.lag_s * 1000)}"

    def _say_behind(self, error: AirisError) -> None:
        """Append how much waits to what went wrong, as far as the hub can be asked."""
        try:
            waiting = self._waiting(self.behind())
        except AirisError as unasked:
            waiting = f"how much waits is not known: {unasked}"
        error.args = (f"{error}. {waiting[0].upper()}{waiting[1:]}", *error.args[1:])


def _ago(timestamp: int) -> int:
    """How many seconds ago; 0 for none."""
    return max(0, round(time() - timestamp / 1000)) if timestamp else 0
