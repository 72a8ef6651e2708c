"""One policy played back on a past: predictions, late labels, decisions, trainings and swaps in turn."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raywf.core.clock import from_microseconds, parse_time, to_microseconds
from raywf.core.errors import SearchError, ValidationError
from raywf.core.journal import LOOKED
from raywf.core.probe import Probe
from raywf.core.records import Decision, Evidence, ModelVersion, Outcome, Prediction, Sweep, Verdict
from raywf.loop.backtest.past import Past
from raywf.loop.backtest.rules import Moment, Rule
from raywf.loop.backtest.trainings import Training, Trainings
from raywf.loop.expectations import make_expectations
from raywf.loop.pipeline import fresh_gate, gate, refuse_few
from raywf.loop.probe import probe
from raywf.models.bundle import Predictor, load_bundle
from raywf.monitor.expectations import Expectations
from raywf.monitor.fold import Fold
from raywf.monitor.reference import KnownReferences, Reference
from raywf.policy.history import History, PastDecision

_TURNS = 3  # at one chance: a look, then what it leads to


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The time from one chance to decide to the next, and how the version that served it did.

    `loss` is the workflow's metric as a loss, over all rows whose label ever became known; None without rows.
    """

    start: datetime
    end: datetime
    version: str
    rows: int
    loss: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A look or a retraining: what was decided, what came of it and what it took.

    `helped` says of a promoted version whether it did better than the former one until the next chance.
    """

    time: datetime
    kind: str
    cause: str
    effort: str
    stage: str
    reason: str
    cpu_s: float
    cost_usd: float = 0.0
    version: str = ""
    helped: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """How a policy fared: its steps and events."""

    policy: str
    steps: tuple[Step, ...]
    events: tuple[Event, ...]

    @property
    def loss(self) -> float:
        """The mean loss of the steps."""
        return float(np.mean([step.loss for step in self.steps if step.loss is not None]))

    @property
    def cpu_s(self) -> float:
        """CPU seconds of all looks and retrainings; the first model is everybody's."""
        return sum(event.cpu_s for event in self.events)

    @property
    def cost_usd(self) -> float:
        """Their price."""
        return sum(event.cost_usd for event in self.events)

    def count(self, kind: str, *stages: str) -> int:
        """Return how many events of a kind came to one of the stages, or at all."""
        return sum(e.kind == kind and (not stages or e.stage in stages) for e in self.events)


@dataclass(slots=True)
class _Live:
    """The champion."""

    version: ModelVersion
    predictor: Predictor
    sweeps: tuple[Sweep, ...]
    since: datetime


@dataclass(slots=True)
class _Served:
    """What was answered and waits for its label: by the label's time."""

    known: NDArray[np.int64]
    outcomes: list[Outcome]
    losses: NDArray[np.float64]
    version: str


@dataclass(slots=True)
class _Books:
    """What was decided and found so far."""

    decisions: list[PastDecision] = field(default_factory=list)
    probes: list[Probe] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)


class Replay:
    """Plays one rule; the same past and trainings may serve several."""

    def __init__(self, past: Past, trainings: Trainings, rule: Rule) -> None:
        self._past, self._trainings, self._rule = past, trainings, rule
        self._references: dict[str, Reference] = {}
        monitor = past.workflow.monitor
        self._fold = Fold(monitor, KnownReferences(self._references), metric=past.workflow.metric)
        self._books = _Books()
        self._waiting: list[_Served] = []
        self._count = 0

    def run(self, chances: Sequence[datetime]) -> Course:
        """Train the first model at the first chance, serve until the last and decide at those between.

        Raises:
            RaywfError: if no first model can be trained.
        """
        first = self._trainings.train(chances[0], effort="full")
        table = self._past.as_of(chances[0])[1]
        level = self._judge(first, table, champion=None)
        live = self._adopt(first, chances[0], table, (), loss=level.loss, rows=level.rows)
        for i, (start, end) in enumerate(itertools.pairwise(chances)):
            self._serve(live, start, end)
            if i + 2 == len(chances):
                break
            losses = self._learn(end, live.version.version)
            following = chances[i + 2]
            live = self._decide(live, end, following, losses)
        books = self._books
        return Course(policy=self._rule.name, steps=tuple(books.steps), events=tuple(books.events))

    def _serve(self, live: _Live, start: datetime, end: datetime) -> None:
        rows = self._past.between(start, end)
        table = self._past.table[rows]
        step = Step(start=start, end=end, version=live.version.version, rows=table.num_rows, loss=None)
        if table.num_rows:
            scores = live.predictor.predict_table(table)
            step = replace(step, loss=self._past.loss(live.predictor, table, scores))
            self._answer(live, rows, table, scores)
        self._books.steps.append(step)

    def _answer(self, live: _Live, rows: slice, table: pa.Table, scores: NDArray[np.float64]) -> None:
        """Give the fold the predictions, and keep their outcomes until they are known."""
        classes, version = self._past.snapshot.classes, live.version.version
        times = [from_microseconds(t) for t in self._past.times[rows].tolist()]
        known = self._past.known[rows]
        labels = table.column("__label").to_pylist()
        names = [classes[int(label)] for label in labels] if classes else labels
        ids = [str(n) for n in range(rows.start, rows.stop)]
        self._fold.update(
            [
                Prediction(id=i, time=t, version=version, features={}, scores=tuple(s))
                for i, t, s in zip(ids, times, scores.tolist(), strict=True)
            ]
        )
        outcomes = [
            Outcome(id=i, time=from_microseconds(t), label=name)
            for i, t, name in zip(ids, known.tolist(), names, strict=True)
        ]
        reference = self._references[version]
        values = np.array([reference.label_value(name) for name in names], dtype=np.float64)
        losses = np.full(len(values), np.nan)
        told = ~np.isnan(values)
        losses[told] = reference.losses(values[told], scores[told])
        self._waiting.append(_Served(known, outcomes, losses, version))

    def _learn(self, now: datetime, version: str) -> NDArray[np.float64]:
        """Give the fold the outcomes that became known by now; return the version's losses among them."""
        cut, times, losses = to_microseconds(now), [], []
        waiting = []
        for served in self._waiting:
            due = served.known <= cut
            self._fold.update([o for o, is_due in zip(served.outcomes, due, strict=True) if is_due])
            if served.version == version:
                told = due & ~np.isnan(served.losses)
                times.append(served.known[told])
                losses.append(served.losses[told])
            rest = [o for o, is_due in zip(served.outcomes, due, strict=True) if not is_due]
            if rest:
                waiting.append(_Served(served.known[~due], rest, served.losses[~due], served.version))
        self._waiting = waiting
        if not times:
            return np.zeros(0)
        return np.concatenate(losses)[np.argsort(np.concatenate(times), kind="stable")]

    def _decide(self, live: _Live, now: datetime, following: datetime, losses: NDArray[np.float64]) -> _Live:
        for _ in range(_TURNS):
            evidence: tuple[Evidence, ...] = self._fold.evidence(live.version.version)
            moment = Moment(now=now, evidence=evidence, history=self._history(live), losses=losses)
            decision = self._rule.decide(moment)
            if decision.kind == "probe":
                self._look(live, decision)
                losses = np.zeros(0)
                continue
            if decision.kind == "retrain":
                return self._retrain(live, decision, following)
            break
        return live

    def _history(self, live: _Live) -> History:
        retrained = [p.decision.time for p in self._books.decisions if p.decision.kind == "retrain"]
        return History(
            champion=live.version,
            since=live.since,
            decisions=tuple(self._books.decisions),
            last_retrain=max(retrained, default=None),
            probes=tuple(self._books.probes),
        )

    def _look(self, live: _Live, decision: Decision) -> None:
        snapshot, table = self._past.as_of(decision.time)
        found = probe(
            self._past.workflow,
            snapshot,
            table,
            live.predictor,
            version=live.version.version,
            since=parse_time(decision.window),
        )
        self._books.probes.append(found)
        self._note(
            decision,
            LOOKED,
            f"regret {found.regret:.1%} on {found.rows} rows",
            cpu_s=found.cpu_s,
        )

    def _retrain(self, live: _Live, decision: Decision, following: datetime) -> _Live:
        try:
            snapshot, table = self._past.as_of(decision.time)
            held = None
            if self._rule.gated:
                refuse_few(self._past.workflow, snapshot, table, live.version)
                held = fresh_gate(self._past.workflow, table, live.version)
            made = self._trainings.train(decision.time, effort=decision.effort, former=live.sweeps, gate=held)
        except (ValidationError, SearchError) as err:
            self._note(decision, "failed", str(err))
            return live
        cpu_s, usd = made.sweep.cpu_s, made.sweep.cost_usd
        outcome, reason, loss, rows = "accept", "not gated", None, 0
        if self._rule.gated:
            verdict = self._judge(made, table, champion=live.version)
            outcome, reason, loss, rows = verdict.outcome, verdict.reason, verdict.loss, verdict.rows
        if outcome != "accept":
            self._note(decision, "rejected", reason, cpu_s=cpu_s, usd=usd)
            return live
        new = self._adopt(made, decision.time, table, live.sweeps, loss=loss, rows=rows)
        helped = self._helped(live, new, decision.time, following)
        version = new.version.version
        self._note(decision, "promoted", reason, cpu_s=cpu_s, usd=usd, version=version, helped=helped)
        return new

    def _judge(self, made: Training, table: pa.Table, *, champion: ModelVersion | None) -> Verdict:
        def fetch(version: ModelVersion, _folder: Path) -> str:
            return version.uri

        return gate(self._past.workflow, table, champion=champion, found=made.result, fetch=fetch)

    def _adopt(
        self,
        made: Training,
        now: datetime,
        table: pa.Table,
        former: tuple[Sweep, ...],
        *,
        loss: float | None = None,
        rows: int = 0,
    ) -> _Live:
        self._count += 1
        workflow, number = self._past.workflow, str(self._count)
        predictor = load_bundle(made.final.uri, digest=made.final.digest, trust=workflow.trusts_own_code)
        version = made.version(workflow.name, number, loss=loss, rows=rows)
        bundle = predictor.bundle
        self._references[number] = Reference(
            version=number,
            task=bundle.task,
            classes=bundle.classes,
            loss_scale=bundle.loss_scale,
            threshold=bundle.threshold,
            maturity_s=made.maturity_s,
            expectations=self._expectations(made, table),
        )
        return _Live(version, predictor, (made.sweep, *former), now)

    def _expectations(self, made: Training, table: pa.Table) -> Expectations:
        """Return what is expected of a version by its scores: features are not played back."""
        block = table.take(pa.array(made.gate_rows))
        bare = replace(self._past.snapshot, profile=())
        return make_expectations(self._past.workflow, bare, block, made.proof)

    def _helped(self, old: _Live, new: _Live, start: datetime, end: datetime) -> bool | None:
        before, after = (self._past.loss_between(live.predictor, start, end) for live in (old, new))
        return None if before is None or after is None else after < before

    def _note(
        self,
        decision: Decision,
        stage: str,
        reason: str,
        *,
        cpu_s: float = 0.0,
        usd: float = 0.0,
        version: str = "",
        helped: bool | None = None,
    ) -> None:
        self._books.decisions.append(PastDecision(decision=decision, stage=stage))
        self._books.events.append(
            Event(
                time=decision.time,
                kind=decision.kind,
                cause=decision.cause,
                effort=decision.effort if decision.kind == "retrain" else "",
                stage=stage,
                reason="; ".join((*decision.reasons, reason)),
                cpu_s=cpu_s,
                cost_usd=usd,
                version=version,
                helped=helped,
            )
        )
