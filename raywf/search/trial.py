"""One configuration as a Tune trainable: a fold a step, in an actor that the next trial reuses."""

from __future__ import annotations

import dataclasses
import faulthandler
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any

import numpy as np
from ray import tune

from raywf.core.codec import decode
from raywf.core.errors import describe_error
from raywf.core.metrics import Metric
from raywf.core.niceness import yield_cpu
from raywf.core.records import Trial
from raywf.models.families import traits
from raywf.models.family import Family, Model, Problem, Rows, answer, rows_for
from raywf.models.own import OwnFamily
from raywf.models.pairs import unwrap
from raywf.search.data import SearchData
from raywf.search.ledger import FoldResult, Ledger
from raywf.search.own import Families

_ROW_CALLS = 15
_SHARE = 0.6  # of the time left that one trial may take while others are to follow
_LEAST_STEP_S, _GRACE_S = 1.0, 0.5  # what a step has at least, and beyond the last moment
_SHORT_S = 8.0  # less than this left is for the trial alone


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrialPlan:
    """What every trial of a sweep is told; instants are of `time.time()`.

    Fits end early from `deadline` on, or from what the queue says with a hand of trials; a sweep that has no
    finished trial by then waits until `last_moment`.
    `keep_models` has the folds' models kept beside their scores. `nodes` are the labels of nodes that it may
    run on; all may where there are none.
    """

    metric: Metric
    threads: int
    deadline: float
    last_moment: float
    seed: int
    ledger: Ledger
    keep_models: bool = False
    families: Families = field(default_factory=Families)
    nodes: dict[str, str] = field(default_factory=dict)


class FoldTrial(tune.Trainable):  # type: ignore[misc]
    """Fits and scores one fold of a trial a step, or all folds of several quick trials in one step.

    The folds that the ledger already holds are reported without fitting. A library's error becomes a record
    with ``error``, since not every library's exceptions survive the way back.
    """

    def setup(self, config: dict[str, Any], data: SearchData, plan: TrialPlan) -> None:
        yield_cpu()
        self._data, self._whole_plan = data, plan
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Report the trials' records; ``done`` when all have ended.

        A fit that minds no deadline ends with its process, which Tune would wait ten seconds for.
        """
        left = self._plan.last_moment - time.time()
        faulthandler.dump_traceback_later(max(_LEAST_STEP_S, left + _GRACE_S), exit=True)
        try:
            if len(self._runs) == 1:
                return self._report([self._runs[0].advance()])
            if self._slice_s is not None:
                return self._slice(time.time() + self._slice_s)
            return self._report([run.finish() for run in self._runs])
        finally:
            faulthandler.cancel_dump_traceback_later()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: the ledger is what lasts."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing: the ledger is what lasts."""

    def _begin(self, config: dict[str, Any]) -> None:
        plan, until = self._whole_plan, config["until"]
        ends = {k: min(getattr(plan, k), until) for k in ("deadline", "last_moment")}
        self._slice_s: float | None = config.get("slice_s")
        self._plan = plan if until >= plan.deadline else dataclasses.replace(plan, **ends)
        self._runs = [TrialRun(decode(Trial, job), self._data, self._plan) for job in config["jobs"]]

    def _slice(self, end: float) -> dict[str, Any]:
        """Run what can be begun before the end and return the rest; the first goes on alone if it is slow."""
        first, others = self._runs[0], self._runs[1:]
        record = first.advance()
        if record.status == "running" and time.time() >= end:
            self._runs = [first]
            return self._report([record], returned=others)
        done = [first.finish() if record.status == "running" else record]
        while others and time.time() < end:
            done.append(others.pop(0).finish())
        return self._report(done, returned=others)

    def _report(self, trials: list[Trial], *, returned: Sequence[TrialRun] = ()) -> dict[str, Any]:
        losses = [loss for trial in trials for loss in trial.fold_losses]
        run = self._runs[0]
        found = losses or ([] if run.rung_loss is None else [run.rung_loss])
        return {
            "loss": float(np.mean(found)) if found else float(np.finfo(np.float32).max),
            "fold": len(trials[0].fold_losses),
            "rung": run.rung,
            "trials": trials,
            "returned": [run.id for run in returned],
            "node": os.environ.get("RAY_NODE_ID", "") or _node_id(),
            "done": all(trial.status in {"done", "failed"} for trial in trials),
        }


class TrialRun:
    """One trial on its way through its folds; the first one rung by rung, where its family has rungs.

    `rung` is the number of the rung that was reached last while its fold is under way, with its loss.
    """

    def __init__(self, trial: Trial, data: SearchData, plan: TrialPlan) -> None:
        self._trial, self._data, self._plan = trial, data, plan
        self._results = list(plan.ledger.folds(trial.id, len(data.folds)))
        self._stages: Iterator[float | FoldResult] | None = None
        self.rung, self.rung_loss = 0, None if not self._results else self._results[0].loss
        left = plan.deadline - time.time()
        self._end = time.time() + (left if left < _SHORT_S else _SHARE * left)

    @property
    def id(self) -> str:
        """The trial's id."""
        return self._trial.id

    def advance(self) -> Trial:
        """Fit the next fold or rung and return the trial's record."""
        number, count = len(self._results), len(self._data.folds)
        if number < count:
            try:
                self._go_on(number)
            except Exception as err:  # noqa: BLE001 - a model library may raise anything, and not all of it unpickles
                return dataclasses.replace(self._record("failed"), error=describe_error(err))
        done = len(self._results) == count
        trial = self._record("done" if done else "running")
        if done:
            self._plan.ledger.record(trial)
        return trial

    def finish(self) -> Trial:
        """Fit all folds that are left and return the trial's record."""
        trial = self.advance()
        while trial.status == "running":
            trial = self.advance()
        return trial

    def _go_on(self, number: int) -> None:
        if self._stages is None:
            deadline = self._fold_deadline(number)
            self._stages = fold_stages(self._trial, self._data, self._plan, number, deadline=deadline)
            self.rung = 0
        found = next(self._stages)
        if isinstance(found, FoldResult):
            self._results.append(found)
            self._stages, self.rung = None, 0
            if len(self._results) == 1 < len(self._data.folds):
                self._plan.ledger.begin(self._trial)
        else:
            self.rung, self.rung_loss = self.rung + 1, found

    def _fold_deadline(self, number: int) -> float:
        """Share the trial's time out evenly over the folds that are left."""
        now, left = time.time(), len(self._data.folds) - number
        return min(self._plan.deadline, now + max(0.0, self._end - now) / left)

    def _record(self, status: str) -> Trial:
        return summarise(self._trial, self._results, self._plan.metric, status)


def fit_fold(trial: Trial, data: SearchData, plan: TrialPlan, number: int, *, deadline: float) -> FoldResult:
    """Fit and score a trial's fold, and keep it in the ledger.

    Raises:
        ValueError: if the scores are not finite; a model library may raise anything else.
    """
    *_, last = fold_stages(trial, data, plan, number, deadline=deadline)
    assert isinstance(last, FoldResult)
    return last


def fold_stages(
    trial: Trial, data: SearchData, plan: TrialPlan, number: int, *, deadline: float
) -> Iterator[float | FoldResult]:
    """Fit and score a trial's fold: yield the loss at each rung but the last, then the fold's result.

    Only the first fold of a family with rungs has any. The result is kept in the ledger.

    Raises:
        ValueError: as `fit_fold`.
    """
    start = time.perf_counter()
    fold, member = data.folds[number], plan.families.find(trial.family)
    threads = plan.families.cpus(trial.family, default=plan.threads)
    problem = data.problem(threads=threads, deadline=deadline, seed=plan.seed + number)
    rows = rows_for(member, data.rows)
    fit, held = rows.take(fold.fit), rows.take(fold.score)
    loss, model, scores = None, None, np.zeros(0)
    for model in _models(member, problem, fit, held, trial, number):
        if loss is not None:
            yield loss
        scores = answer(model, held)
        bad = int((~np.isfinite(scores)).any(axis=1).sum())
        if bad:
            raise ValueError(f"the model's answers to {bad} of {len(scores)} rows are not finite")
        loss = plan.metric.best_loss(held.y, scores, groups=held.groups)
        if not np.isfinite(loss):
            raise ValueError(f"{plan.metric.name} of the fold is {loss}")
    assert loss is not None
    assert model is not None
    result = FoldResult(
        scores=scores.astype(np.float32),
        loss=loss,
        rounds=model.rounds,
        seconds=time.perf_counter() - start,
        row_s=_row_seconds(model, held),
    )
    kept = _saved(model) if plan.keep_models and traits(trial.family).merges else None
    plan.ledger.record_fold(trial.id, number, result, model=kept)
    yield result


def _models(
    member: Family, problem: Problem, fit: Rows, held: Rows, trial: Trial, number: int
) -> Iterator[Model]:
    if isinstance(member, OwnFamily) and number == 0:
        return member.stages(problem, fit, dict(trial.params), valid=held)
    return iter([member.fit(problem, fit, dict(trial.params), valid=held, rounds=0)])


def summarise(trial: Trial, results: Sequence[FoldResult], metric: Metric, status: str) -> Trial:
    """Return a trial's record with what its folds gave."""
    mean = float(np.mean([r.loss for r in results])) if results else None
    return dataclasses.replace(
        trial,
        status=status,
        fold_losses=tuple(r.loss for r in results),
        score=None if mean is None else (-mean if metric.greater_is_better else mean),
        rounds=round(float(np.mean([r.rounds for r in results]))) if results else 0,
        seconds=sum(r.seconds for r in results),
        row_us=1e6 * float(np.median([r.row_s for r in results])) if results else 0.0,
    )


def _row_seconds(model: Model, held: Rows) -> float:
    """Return the median time of one row's answer, without making pairs, which members of a bundle share."""
    model, pairs = unwrap(model)
    held, spent = dataclasses.replace(held, X=pairs.widen(held.X)), []
    for i in range(min(_ROW_CALLS, len(held.y))):
        row = held.take(np.array([i]))
        start = time.perf_counter()
        answer(model, row)
        spent.append(time.perf_counter() - start)
    return float(np.median(spent))


def _saved(model: Model) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory(prefix="raywf-") as name:
        model.save(Path(name))
        return {p.name: p.read_bytes() for p in sorted(Path(name).iterdir())}


def _node_id() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())
