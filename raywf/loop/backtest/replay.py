"""One policy played back on a past: predictions, late labels, decisions, trainings and swaps in turn."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from raywf.core.clock import format_time
from raywf.core.errors import SearchError, ValidationError
from raywf.core.ids import stable_id
from raywf.core.journal import LOOKED, ROLLOUT
from raywf.core.probe import Probe, look_since
from raywf.core.records import Decision, ModelVersion, Sweep, Verdict
from raywf.core.rollout import Mode
from raywf.loop.backtest.answers import Answers
from raywf.loop.backtest.course import Course, Event, Step
from raywf.loop.backtest.past import Past
from raywf.loop.backtest.rules import Moment, Rule
from raywf.loop.backtest.staged import Live, Made, Staged
from raywf.loop.backtest.trainings import Training, Trainings
from raywf.loop.expectations import make_expectations
from raywf.loop.fresh import fresh_gate
from raywf.loop.judging import gate
from raywf.loop.pipeline import refuse_few
from raywf.loop.probe import probe
from raywf.models.bundle import load_bundle
from raywf.monitor.expectations import Expectations
from raywf.monitor.reference import Reference
from raywf.policy.history import History, PastDecision
from raywf.policy.rollout import Move

_TURNS = 3  # at one chance: a look, then what it leads to


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
        self._answers = Answers(past)
        self._books = _Books()
        self._staged: Staged | None = None
        self._count = 0  # of versions
        self._rollouts = 0

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
            live = self._serve(live, start, end)
            if i + 2 < len(chances) and (self._staged is None or self._staged.is_watch):
                live = self._decide(live, end, chances[i + 2])
        if self._staged is not None and not self._staged.is_watch:
            self._note_made(self._staged, ROLLOUT, "under way at the end", now=chances[-1])
        books = self._books
        return Course(policy=self._rule.name, steps=tuple(books.steps), events=tuple(books.events))

    def _serve(self, live: Live, start: datetime, end: datetime) -> Live:
        """Answer a step's rows, in a rollout from look to look; return who is champion at its end."""
        version, threshold = live.version.version, live.predictor.bundle.threshold
        at, given = start, []
        while at < end:
            staged = self._staged
            until = end if staged is None else staged.next_look(at, start=start, end=end)
            rows = self._past.between(at, until)
            if rows.stop > rows.start:
                given.append(self._answers.answer(live, staged, rows))
            self._answers.learn(until, staged)
            live = self._move(live, until, end)
            at = until
        loss, value, rows = None, None, self._past.between(start, end)
        if given:
            table, scores = self._past.table[rows], np.concatenate(given)
            loss = self._past.metric(table, scores, threshold=threshold)
            value = self._past.value(table, scores, threshold=threshold)
        count = rows.stop - rows.start
        step = Step(start=start, end=end, version=version, rows=count, loss=loss, value=value)
        self._books.steps.append(step)
        return live

    def _move(self, live: Live, now: datetime, end: datetime) -> Live:
        """Look at the rollout or watch that is under way, if any; return who is champion then."""
        staged = self._staged
        if staged is None:
            return live
        move = staged.judge(now)
        if move.stage == staged.step.stage:
            return live
        self._staged = None
        reason = "; ".join(move.reasons)
        if move.stage == "promoted":
            return self._promote(live, staged.challenger, staged.made, reason, now=now, following=end)
        if not staged.is_watch:
            self._note_made(staged, "rejected", reason, now=now)
        elif move.stage == "rolled_back":
            self._note_rollback(staged, move, now)
            return staged.champion
        return live

    def _decide(self, live: Live, now: datetime, following: datetime) -> Live:
        losses = self._answers.take_losses(live.version.version)
        for _ in range(_TURNS):
            evidence = self._answers.evidence(live.version.version)
            moment = Moment(now=now, evidence=evidence, history=self._history(live), losses=losses)
            decision = self._rule.decide(moment)
            if decision.kind == "probe":
                self._look(live, decision)
                losses = np.zeros(0)
                continue
            if decision.kind == "retrain":
                live = self._retrain(live, decision, following)
                if self._is_refused(decision):
                    continue
            break
        return live

    def _is_refused(self, decision: Decision) -> bool:
        """Return whether the gate refused a retraining, after which a search may follow at once."""
        last = self._books.decisions[-1] if self._books.decisions else None
        return last is not None and last.decision.id == decision.id and last.stage == "rejected"

    def _history(self, live: Live) -> History:
        retrained = [p.decision.time for p in self._books.decisions if p.decision.kind == "retrain"]
        return History(
            champion=live.version,
            since=live.since,
            decisions=tuple(self._books.decisions),
            last_retrain=max(retrained, default=None),
            probes=tuple(self._books.probes),
        )

    def _look(self, live: Live, decision: Decision) -> None:
        try:
            snapshot, table = self._past.as_of(decision.time)
            found = probe(
                self._past.workflow,
                snapshot,
                table,
                live.predictor,
                version=live.version.version,
                since=look_since(decision),
            )
        except (ValidationError, SearchError) as err:
            self._note(decision, "failed", str(err))
            return
        self._books.probes.append(found)
        self._note(
            decision,
            LOOKED,
            f"regret {found.regret:.1%} on {found.rows} rows",
            cpu_s=found.cpu_s,
        )

    def _retrain(self, live: Live, decision: Decision, following: datetime) -> Live:
        try:
            snapshot, table = self._past.as_of(decision.time)
            held = None
            if self._rule.gated:
                refuse_few(self._past.workflow, snapshot, table, live.version)
                held = fresh_gate(
                    self._past.workflow, snapshot, table, live.version, load=lambda _version: live.predictor
                )
            made = self._trainings.train(decision.time, effort=decision.effort, former=live.sweeps, gate=held)
        except (ValidationError, SearchError) as err:
            self._note(decision, "failed", str(err))
            return live
        cpu_s, usd = made.sweep.cpu_s, made.sweep.cost_usd
        made_of = Made(decision=decision, reason="not gated", cpu_s=cpu_s, cost_usd=usd)
        if not self._rule.gated:
            new = self._adopt(made, decision.time, table, live.sweeps, decision_id=decision.id)
            return self._promote(live, new, made_of, "", now=decision.time, following=following)
        verdict = self._judge(made, table, champion=live.version)
        if verdict.outcome != "accept":
            self._note(decision, "rejected", verdict.reason, cpu_s=made.refused_cpu_s, usd=made.refused_usd)
            return live
        new = self._adopt(
            made,
            decision.time,
            table,
            live.sweeps,
            loss=verdict.loss,
            rows=verdict.rows,
            decision_id=decision.id,
        )
        made_of = replace(made_of, reason=verdict.reason, is_better=verdict.is_better)
        mode = self._past.workflow.rollout.mode
        if mode == "direct":
            return self._promote(live, new, made_of, "", now=decision.time, following=following)
        self._staged = self._stage(mode, live, new, made_of, now=decision.time)
        return live

    def _promote(
        self, old: Live, new: Live, made: Made, reason: str, *, now: datetime, following: datetime
    ) -> Live:
        """Make a version champion at `now`, and begin to watch it; return it."""
        helped = self._helped(old, new, now, following)
        reasons = "; ".join(text for text in (made.reason, reason) if text)
        version = new.version.version
        self._note(
            made.decision,
            "promoted",
            reasons,
            cpu_s=made.cpu_s,
            usd=made.cost_usd,
            version=version,
            helped=helped,
            settled=now,
            is_better=made.is_better,
        )
        if self._rule.gated and self._past.workflow.rollout.watch:
            self._staged = self._stage("watch", old, new, made, now=now)
        return new

    def _stage(self, mode: Mode, champion: Live, challenger: Live, made: Made, *, now: datetime) -> Staged:
        self._rollouts += 1
        return Staged(
            mode,
            self._past.workflow.rollout,
            number=self._rollouts,
            champion=champion,
            challenger=challenger,
            profile=self._past.snapshot.profile,
            now=now,
            made=made,
        )

    def _judge(self, made: Training, table: pa.Table, *, champion: ModelVersion | None) -> Verdict:
        def fetch(version: ModelVersion, _folder: Path) -> str:
            return version.uri

        rows = np.asarray(made.gate_rows, dtype=np.int64)
        return gate(self._past.workflow, table, champion=champion, proof=made.proof, rows=rows, fetch=fetch)

    def _adopt(
        self,
        made: Training,
        now: datetime,
        table: pa.Table,
        former: tuple[Sweep, ...],
        *,
        loss: float | None = None,
        rows: int = 0,
        decision_id: str = "",
    ) -> Live:
        self._count += 1
        workflow, number = self._past.workflow, str(self._count)
        predictor = load_bundle(made.final.uri, digest=made.final.digest, trust=workflow.trusts_own_code)
        version = made.version(workflow.name, number, loss=loss, rows=rows, decision_id=decision_id)
        bundle = predictor.bundle
        reference = Reference(
            version=number,
            task=bundle.task,
            classes=bundle.classes,
            loss_scale=bundle.loss_scale,
            quantile=bundle.quantile,
            threshold=bundle.threshold,
            maturity_s=made.maturity_s,
            expectations=self._expectations(made, table),
        )
        self._answers.know(reference)
        return Live(version, predictor, (made.sweep, *former), now, reference)

    def _expectations(self, made: Training, table: pa.Table) -> Expectations:
        """Return what is expected of a version by its scores: features are not played back."""
        block = table.take(pa.array(made.gate_rows))
        bare = replace(self._past.snapshot, profile=())
        return make_expectations(self._past.workflow, bare, block, made.proof)

    def _helped(self, old: Live, new: Live, start: datetime, end: datetime) -> bool | None:
        before, after = (self._past.loss_between(live.predictor, start, end) for live in (old, new))
        return None if before is None or after is None else after < before

    def _note_made(self, staged: Staged, stage: str, reason: str, *, now: datetime) -> None:
        """Note of a retraining how its rollout ended without a new champion, or that it did not."""
        made = staged.made
        reasons = f"{made.reason}; {reason}"
        self._note(made.decision, stage, reasons, cpu_s=made.cpu_s, usd=made.cost_usd, settled=now)

    def _note_rollback(self, staged: Staged, move: Move, now: datetime) -> None:
        """Note that the former champion is champion again; the retraining counts as rejected from now on."""
        books, retraining = self._books, staged.made.decision
        books.decisions = [
            replace(past, stage="rejected") if past.decision.id == retraining.id else past
            for past in books.decisions
        ]
        began = format_time(staged.step.time)
        rollback = Decision(
            id=stable_id(self._rule.name, "rollback", staged.step.rollout),
            workflow=self._past.workflow.name,
            kind="rollback",
            cause="watch",
            window=began,
            reasons=move.reasons,
            time=now,
        )
        version = staged.champion.version.version
        self._note(rollback, "promoted", f"version {version} is champion again", version=version)

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
        settled: datetime | None = None,
        is_better: bool = False,
    ) -> None:
        past = PastDecision(decision=decision, stage=stage, usd=usd, is_better=is_better)
        self._books.decisions.append(past)
        self._books.events.append(
            Event(
                time=decision.time,
                settled=settled or decision.time,
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
