"""What happens in the demo: a backfill and live syncs, an incident that becomes an alert, and who is sent it."""

from __future__ import annotations

import statistics
import time

from airflow_provider_airis.catalog import BY_STEM
from airflow_provider_airis.records import iso
from sandbox.demo.report import Delivery, Report, counted
from sandbox.demo.stage import DemoError, Stage, is_source
from sandbox.fake import FakeServer, Incident, Scene
from sandbox.topology import HISTORY_DAYS
from sandbox.verify import Tally

LIMIT_S = 480


class Story:
    """One run's events, in their order.

    Sources are read, the one with an incident by a backfill too. Once that source was read live its incident begins;
    once every receiver shows the alert, one that can lets a person acknowledge it; once every other one shows that,
    the incident ends, and the story when all of them show the end.
    """

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.display = stage.display
        self.sources = [peer for peer in stage.peers if is_source(peer)]
        self.receivers = [peer for peer in stage.peers if peer.inbox]
        self.backfilled = next((peer for peer in self.sources if peer.incident), None)
        self.acknowledger = next((peer for peer in self.receivers if peer.inbox and peer.inbox.acknowledge), None)
        self.incident: Incident | None = None
        self.phase = "quiet"
        self.scenes: dict[str, Scene] = {}
        self.synced: set[str] = set()
        self.over: set[str] = set()
        self.history_read = self.backfilled is None
        self.expected = 0
        self.counted_at = 0.0
        self.sequence = self.fired = 0
        self.changes: dict[str, int] = {}
        self.deliveries: list[Delivery] = []

    @property
    def planned_changes(self) -> list[str]:
        """What becomes of the alert."""
        if not self.backfilled:
            return []
        acknowledged = ["acknowledged"] if self.acknowledger else []
        return ["fired", *acknowledged, "resolved"]

    @property
    def enabled(self) -> list[str]:
        """The Dags that run on their own."""
        syncs = [_dag(peer, "sync") for peer in self.sources]
        return syncs + [_dag(peer, "dispatch") for peer in self.receivers]

    @property
    def reconcile(self) -> str:
        """The Dag whose history is read."""
        assert self.backfilled is not None
        return _dag(self.backfilled, "reconcile")

    def prepare(self) -> None:
        """What must be there before Airflow's scheduler is: rules, and the backfill."""
        self.stage.wait_for_dags()
        if not self.backfilled:
            return
        running, history = self.stage.running[self.backfilled.stem], self.stage.history
        assert self.backfilled.incident is not None
        self.incident = self.backfilled.incident(running, history)
        answer = self.stage.hub.post("/api/v1/rules", json=self.incident.rule)
        if answer.is_error:
            raise DemoError(f"the hub refused the rule with {answer.status_code}: {answer.text}")
        first, last = (iso(at)[:10] for at in (history.start, history.end - 1))
        self.stage.backfill("--dag-id", self.reconcile, "--from-date", first, "--to-date", last)

    def play(self) -> dict[str, Tally]:
        """Everything to its end; then compare, by system."""
        for dag_id in self.enabled:
            self.stage.enable(dag_id)
        if self.backfilled:
            # Enabled before, the Dag would have run yesterday on its own schedule: that is one day of the backfill.
            self.stage.enable(self.reconcile)
            span = {"from": iso(self.stage.history.start), "to": iso(self.stage.history.end)}
            url = f"{self.stage.running[self.backfilled.stem].url}/_sandbox/published"
            self.expected = self.stage.hub.get(url, params=span).raise_for_status().json()["points"]
        if not self.stage.until(self._step, LIMIT_S):
            where = f"logs are in {self.stage.directory}"
            self.display.say(f"not all was done within {LIMIT_S} s; {where}", "bold red")
        self.display.settle()
        with self.display.phase("compared record for record with what the systems have"):
            return {peer.stem: tally for peer in self.sources if (tally := self._compare(peer.stem))}

    def _compare(self, stem: str) -> Tally | None:
        peer = next(peer for peer in self.sources if peer.stem == stem)
        windows = self.stage.windows(_dag(peer, "sync"))
        history = [self.stage.history] if peer is self.backfilled else []
        return peer.truth(self.stage.running[stem], self.stage.hub, [*history, *windows]) if peer.truth else None

    def report(self, tallies: dict[str, Tally]) -> Report:
        """The figures, from the hub, the fake servers and Airflow, as they are now: something may have come late."""
        self._watch_alerts()
        self._watch_deliveries()
        waits = [(one.at - self.changes[one.change]) / 1000 for one in self.deliveries if one.change in self.changes]
        deliveries = counted(self.receivers, ())
        for delivery in self.deliveries:
            what = next(peer.inbox for peer in self.receivers if peer.stem == delivery.stem and peer.inbox).counts
            if delivery.change in what:
                deliveries[f"{delivery.stem}_{what[delivery.change]}"] += 1
        report = Report(
            alerts_fired=self.fired,
            deliveries=deliveries,
            expected=counted(self.receivers, self.planned_changes),
            dispatch_latency_s={
                "p50": round(statistics.median(waits), 1) if waits else 0.0,
                "max": round(max(waits, default=0.0), 1),
            },
        )
        if self.backfilled:
            report.backfill_runs = len(self.stage.runs(self.reconcile, run_type="backfill", state="success"))
            report.expected |= {"backfill_runs": HISTORY_DAYS, "alerts_fired": 1}
        report.count(tallies)
        return report

    def _step(self) -> bool:
        """Look at everything once, and take the next step; true when there is none left."""
        self.stage.check()
        self._watch_alerts()
        self._watch_deliveries()
        return all([self._read_history(), self._all_synced(), self._scenes_are_over(), self._incident_is_over()])

    def _incident_is_over(self) -> bool:
        """Take the incident's next step, if everybody has seen the last one."""
        if self.incident is None or self.backfilled is None:
            return True
        if self.phase == "quiet" and _dag(self.backfilled, "sync") in self.synced:
            self.phase = "fired"
            self.display.say(self.incident.begin(), "yellow")
        elif self.phase == "fired" and "fired" in self.changes and self._all_show("fired"):
            if self.acknowledger:
                assert self.acknowledger.inbox is not None
                assert self.acknowledger.inbox.acknowledge is not None
                said = self.acknowledger.inbox.acknowledge(self.stage.clients[self.acknowledger.stem])
                self.display.say(said, "yellow")
            self.phase = "acknowledged"
        elif self.phase == "acknowledged" and (not self.acknowledger or self._all_show("acknowledged")):
            self.phase = "resolved"
            self.display.say(self.incident.end(), "yellow")
        return self.phase == "resolved" and "resolved" in self.changes and self._all_show("resolved")

    def _all_show(self, change: str) -> bool:
        """Whether everybody who shows such a change has shown it."""
        shown = {delivery.stem for delivery in self.deliveries if delivery.change == change}
        return shown.issuperset(peer.stem for peer in self.receivers if peer.inbox and change in peer.inbox.counts)

    def _scenes_are_over(self) -> bool:
        """Whether the hub has heard of what happened at the sources."""
        waiting = [peer for peer in self.sources if peer.scene and peer.stem not in self.over]
        for peer in waiting:
            assert peer.scene is not None
            if peer.stem not in self.scenes and _dag(peer, "sync") in self.synced:
                self.scenes[peer.stem] = peer.scene(self.stage.running[peer.stem])
                self.display.say(self.scenes[peer.stem].begin(), "yellow")
            if peer.stem in self.scenes and (said := self.scenes[peer.stem].arrived(self.stage.hub)):
                self.over.add(peer.stem)
                self.display.say(said, "green")
        return not waiting

    def _all_synced(self) -> bool:
        """Whether each system was read at least once; says so as it comes true."""
        dags = {_dag(peer, "sync"): peer for peer in self.sources}
        for dag_id in dags.keys() - self.synced:
            if self.stage.runs(dag_id, state="success"):
                self.synced.add(dag_id)
                self.display.say(f"live sync: {BY_STEM[dags[dag_id].stem].title} is in the hub")
        return self.synced.issuperset(dags)

    def _read_history(self) -> bool:
        if self.history_read:
            return True
        self._show_progress()
        states = [run["state"] for run in self.stage.runs(self.reconcile, run_type="backfill")]
        self.history_read = len(states) >= HISTORY_DAYS and {"success", "failed"}.issuperset(states)
        if self.history_read:
            self._show_progress(every=0)
            self.display.settle()
            failed = f", {states.count('failed')} of them failed" if "failed" in states else ""
            self.display.say(f"backfill: {len(states)} runs are done{failed}")
        return self.history_read

    def _show_progress(self, every: float = 3) -> None:
        """Count what the hub holds of the history; counting costs the hub some time, hence not always."""
        if time.monotonic() - self.counted_at < every:
            return
        self.counted_at = time.monotonic()
        span = {"from": self.stage.history.start, "to": self.stage.history.end, "step": 86_400}
        held = self.stage.hub.get("/api/v1/metrics/coverage", params=span).raise_for_status().json()["series"]
        self.display.progress("backfill", sum(series["points"] for series in held), self.expected)

    def _watch_alerts(self) -> None:
        query = {"after": self.sequence}
        answer = self.stage.hub.get("/api/v1/alerts/changes", params=query).raise_for_status().json()
        self.sequence = answer["sequence"]
        for change in answer["changes"]:
            alert = change["alert"]
            self.fired += change["change"] == "fired"
            self.changes[change["change"]] = change["at"]
            self.display.say(
                f"hub: {alert['severity']} alert {change['change']}: {alert['name']}",
                "bold red" if change["change"] == "fired" else "green",
            )

    def _watch_deliveries(self) -> None:
        seen = [
            Delivery(peer.stem, request["kind"], peer.inbox.change(request), request["at"])
            for peer in self.receivers
            if peer.inbox
            for request in self.stage.clients[peer.stem].get("/_sandbox/requests").raise_for_status().json()
        ]
        for delivery in seen:
            if delivery not in self.deliveries and delivery.change:
                waited = (delivery.at - self.changes.get(delivery.change, delivery.at)) / 1000
                after = f"{waited:.1f} s after the alert has {delivery.change}"
                self.display.say(f"{BY_STEM[delivery.stem].title}: {delivery.kind}, {after}", "cyan")
        self.deliveries = seen


def _dag(peer: FakeServer, kind: str) -> str:
    return BY_STEM[peer.stem].dags[kind]
