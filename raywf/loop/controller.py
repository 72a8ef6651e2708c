"""The controller: asks the policy, writes its decision down, submits its job and sees that to its end."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import ray
from ray.exceptions import RayError

from raywf.core.errors import RaywfError
from raywf.core.journal import ATTRIBUTED, BY_HAND, FINAL, ROLLOUT, Journal
from raywf.core.lease import Lease
from raywf.core.records import Decision, Evidence, JournalEntry
from raywf.core.settings import Workflow
from raywf.core.skips import Skips
from raywf.loop.alerts import Alerts, Pulse, keep_telling
from raywf.loop.decided import history_of, past_decisions
from raywf.loop.gauges import Gauges, keep_told
from raywf.loop.jobs import ENDED, Jobs
from raywf.loop.landed import TableWatch
from raywf.loop.node_history import NodeRecorder
from raywf.loop.rollout import RolloutKeeper
from raywf.loop.spending import spent_on
from raywf.policy.history import AGAIN, History
from raywf.policy.policy import FALLEN, decide
from raywf.policy.rollout import Move
from raywf.policy.worth import WEIGHED
from raywf.registry.registry import CHAMPION, Registry
from raywf.serving.meter import RaySink

_log = logging.getLogger(__name__)
_ANSWER_S = 30.0
_TICK_S = 0.5
_HANGS_S = 300.0
_ELSEWHERE = timedelta(minutes=30)  # and twice the search's budget, that a job of another cluster may take
_HEAD = "node:__internal_head__"  # a resource that Ray gives the head alone
_TAIL_CHARS = 3000
# where asking the policy takes so long, as with many windows of many columns, it rests so many times as long
_SLOW_S, _REST = 1.0, 9.0
FALLS = WEIGHED | {AGAIN, "rise"}  # causes of decisions that answer a fall
_CARRIED = frozenset({"retrain", "probe"})  # kinds of decisions whose job has the same name


class Controller:
    """Ticks in a thread of its own; made a detached Ray actor by its caller.

    It keeps nothing: journal, registry and the jobs' table say where things stand, so one that is started
    again goes on from there. A decision is in the journal before its job is submitted, and the job's id is
    the decision's with the attempt, so that a crash between the two submits it once. Of several on one store,
    as two clusters may have them by mistake, one holds the lease and the others wait.
    """

    def __init__(self, workflow: Workflow, registry: Registry, monitor: Any) -> None:
        self._workflow, self._registry, self._monitor = workflow, registry, monitor
        self._journal = Journal(workflow.stores.root, workflow.name)
        self._lease = Lease(workflow.stores.root, workflow.name, _holder())
        self._jobs = Jobs(workflow)
        self._rollouts = RolloutKeeper(workflow, registry, monitor)
        self._tables = TableWatch(workflow)
        self._skips = Skips(workflow.stores.root, workflow.name)
        self._last_skip: Decision | None = None
        self._error = ""
        self._fallen: str | None = None  # why nothing is done about a loss that is up, and its causes:
        self._causes: tuple[str, ...] = ()
        self._looked = time.monotonic()  # when a tick last came to its end
        self._rests_until = 0.0  # where asking the policy took long, and what was asked for by then:
        self._requests: Mapping[str, str] = {}
        self._stopped = threading.Event()
        threading.Thread(target=self._run, name="raywf-controller", daemon=True).start()
        gauges = Gauges(workflow, self, registry, RaySink(workflow.name, "controller"))
        tickers = (gauges, NodeRecorder(workflow))
        threading.Thread(
            target=keep_told, args=(tickers, self._stopped), name="raywf-gauges", daemon=True
        ).start()
        if workflow.alerts.has_channel:
            told = Alerts(workflow, self)
            arguments = (
                told,
                workflow.alerts,
                self._stopped,
                lambda: self._lease.leader == self._lease.holder,
            )
            threading.Thread(target=keep_telling, args=arguments, name="raywf-alerts", daemon=True).start()

    def ping(self) -> int:
        """Return the actor's process id."""
        return os.getpid()

    def last_skip(self) -> Decision | None:
        """Return why nothing is done at present."""
        return self._last_skip

    def leader(self) -> str:
        """Return who holds the workflow's lease, as last seen: this cluster's id, or another's."""
        return self._lease.leader

    def last_move(self) -> Move | None:
        """Return what the rollout under way was last found to be at, and why."""
        return self._rollouts.last

    def error(self) -> str:
        """Return what the last tick failed with; empty if it did not."""
        return self._error

    def pulse(self) -> Pulse:
        """Return how monitor and controller are."""
        try:
            problem = ray.get(self._monitor.error.remote(), timeout=_ANSWER_S)
            if problem:
                return Pulse(problem=f"the monitor failed: {problem}")
            counts = ray.get(self._monitor.counts.remote(), timeout=_ANSWER_S)
        except RayError as err:
            return Pulse(problem=f"the monitor does not answer: {type(err).__name__}")
        if self._error:
            return Pulse(problem=f"the controller failed: {self._error}")
        if time.monotonic() > self._looked + _HANGS_S + 2 * self._workflow.monitor.poll_s:
            return Pulse(problem="the controller hangs in what it does")
        return Pulse(predictions=counts["predictions"], labels=counts["labelled"], fallen=self._fallen)

    def windows(self, alias: str = CHAMPION) -> tuple[Evidence, ...]:
        """Return the windows of who has an alias, in time order; none where nobody tells of them."""
        try:
            version = self._registry.find(alias)
            if version is None:
                return ()
            asked = self._monitor.evidence.remote(version.version)
            found: tuple[Evidence, ...] = ray.get(asked, timeout=_ANSWER_S)
        except (RaywfError, RayError):
            return ()
        return found

    def _run(self) -> None:
        while not self._stopped.wait(max(_TICK_S, self._workflow.monitor.poll_s)):
            try:
                self.tick()
                self._error = ""
                self._looked = time.monotonic()
            except Exception as err:  # noqa: BLE001 - the thread is a process boundary: the next tick looks again
                self._error = f"{type(err).__name__}: {err}"
                _log.warning("the controller could not look: %s", self._error)

    def tick(self) -> None:
        """Look once: carry a running decision on, or ask the policy for a new one; only who leads does."""
        if not self._lease.leads():
            self._skips.forget()
            self._last_skip = self._waits(
                "lease", f"another controller leads: that of cluster {self._lease.leader}"
            )
            return
        now = self._now()
        rolling = self._rollouts.tick(now)
        entries = self._journal.entries()
        past = past_decisions(self._journal.decisions(), entries)
        running = next((p.decision for p in past if _is_ours(p.decision) and p.stage not in FINAL), None)
        if running is not None:
            self._fallen = None
            self._wait("running", f"a {running.kind} is under way ({running.id}); one at a time")
            self._carry(running)
            return
        if rolling:
            self._fallen = None
            self._wait("rollout", "a rollout is under way; what is asked for waits for its end")
            return
        champion = self._registry.find(CHAMPION)
        if champion is None:
            self._wait("champion", "no champion serves yet")
            return
        if now is None:
            self._wait("labels", "nothing was logged yet that tells the time")
            return
        requests, landed = self._journal.requests(), self._tables.landed(champion)
        history = history_of(past, entries, champion, requests=requests, landed=landed)
        decision = self._ask(history, champion.version, now)
        if decision is None:
            return
        if decision.kind in _CARRIED:
            if not self._lease.leads():  # it took long to be told: another may lead by now
                return
            self._fallen = None
            self._journal.decide(decision)
            self._attribute(decision, champion.version)
            self._carry(decision)
        else:
            self._skip(decision)
            self._fall(decision, champion.version)

    def _ask(self, history: History, version: str, now: datetime) -> Decision | None:
        """Ask the policy; None where that took long and nobody has asked for anything since."""
        began = time.monotonic()
        if began < self._rests_until and history.requests == self._requests:
            return None
        self._requests = history.requests
        try:
            return decide(
                ray.get(self._monitor.evidence.remote(version), timeout=_ANSWER_S),
                history,
                self._workflow.retrain,
                workflow=self._workflow.name,
                now=now,
                min_labelled=self._workflow.monitor.min_labelled,
            )
        finally:
            took = time.monotonic() - began
            self._rests_until = began + took + (_REST * took if took > _SLOW_S else 0.0)

    def _fall(self, skip: Decision, version: str) -> None:
        """Remember whether the loss is up and nothing is done; ask what it comes from once a fall."""
        told = skip.reasons[0] if skip.cause.startswith(FALLEN) else {"quiet": ""}.get(skip.cause)
        if told and not self._fallen:
            self._causes = self._attribution(version)
        self._fallen = "; ".join((told, *self._causes)) if told else told

    def _wait(self, cause: str, reason: str) -> None:
        self._skip(self._waits(cause, reason))

    def _skip(self, skip: Decision) -> None:
        """Remember why nothing is done, and keep it where the cause is another than before."""
        self._last_skip = skip
        try:
            self._skips.note(skip)
        except OSError as err:
            _log.warning("why nothing is done could not be kept: %s", err)

    def _waits(self, cause: str, reason: str) -> Decision:
        return Decision(
            id="",
            workflow=self._workflow.name,
            kind="skip",
            cause=cause,
            window="",
            reasons=(reason,),
            time=datetime.now(UTC),
        )

    def _attribute(self, decision: Decision, version: str) -> None:
        """Write down what the fall comes from that a decision answers; without it nothing is amiss."""
        causes = self._attribution(version) if decision.cause in FALLS else ()
        if causes:
            self._journal.record(decision, ATTRIBUTED, reasons=causes)

    def _attribution(self, version: str) -> tuple[str, ...]:
        """Return in words what a version's newest losses come from; none where that is not known."""
        try:
            found = ray.get(self._monitor.attribution.remote(version), timeout=_ANSWER_S)
        except RayError as err:
            _log.warning("what the loss of version %s comes from is not known: %s", version, err)
            return ()
        return () if found is None else tuple(found.told())

    def _carry(self, decision: Decision) -> None:
        """Submit the decision's job, or look after it: a job that failed is tried again."""
        stages = self._journal.stages(decision.id)
        attempts = self._workflow.retrain.max_attempts
        attempt = max(
            (int(s.removeprefix("submitted-")) for s in stages if s.startswith("submitted-")), default=0
        )
        if attempt:
            status = self._jobs.status(self._job_id(decision, attempt))
            reached = self._journal.stages(decision.id).keys()
            if status not in ENDED | {"UNKNOWN"} or (FINAL | {ROLLOUT}) & reached:
                return
            if status == "UNKNOWN" and self._is_elsewhere(stages[f"submitted-{attempt}"]):
                return
            spent = spent_on(self._workflow.stores.root, decision.id)
            if status == "STOPPED":
                reason = "its job was stopped by hand"
                self._journal.record(decision, "failed", reasons=(reason,), figures={**spent, BY_HAND: True})
                return
            reason = f"job {self._job_id(decision, attempt)} ended as {status} without a result"
            figures = {"log": self._log_tail(decision, attempt), **spent}
            self._journal.record(decision, f"lost-{attempt}", reasons=(reason,), figures=figures)
            if attempt >= attempts:
                self._journal.record(
                    decision, "failed", reasons=(reason, f"given up after {attempts} attempts")
                )
                return
        if not self._lease.leads():
            return
        job_id = self._job_id(decision, attempt + 1)
        new = self._jobs.submit(decision.kind, job_id, "--decision", decision.id)
        reason = "submitted" if new else "was submitted before"
        self._journal.record(
            decision,
            f"submitted-{attempt + 1}",
            reasons=(*decision.reasons, reason),
            figures={"job": job_id, "cluster": self._lease.holder},
        )

    def _is_elsewhere(self, submitted: JournalEntry) -> bool:
        """Whether a job was given to another cluster, which may be at it still."""
        theirs = submitted.figures.get("cluster", self._lease.holder)
        most = _ELSEWHERE + 2 * timedelta(seconds=self._workflow.search.budget_s)
        return theirs != self._lease.holder and datetime.now(UTC) < submitted.wall_time + most

    def _log_tail(self, decision: Decision, attempt: int) -> str:
        try:
            return self._jobs.logs(self._job_id(decision, attempt))[-_TAIL_CHARS:]
        except RaywfError as err:
            return str(err)

    def _job_id(self, decision: Decision, attempt: int) -> str:
        return f"{self._workflow.name}-{decision.id}" + (f"-{attempt}" if attempt > 1 else "")

    def _now(self) -> datetime | None:
        if self._workflow.monitor.clock == "wall":
            return datetime.now(UTC)
        watermark: datetime | None = ray.get(self._monitor.watermark.remote(), timeout=_ANSWER_S)
        return watermark


def _holder() -> str:
    """Name the cluster by its head: a controller that is started again on it takes its lease up at once."""
    if not ray.is_initialized():
        return "no cluster"
    heads = (n["NodeID"] for n in ray.nodes() if _HEAD in n["Resources"])
    return next(heads, "no head")


def _is_ours(decision: Decision) -> bool:
    """Return whether the controller carries a decision out, not the command that wrote it."""
    return decision.kind in _CARRIED and decision.cause != BY_HAND
