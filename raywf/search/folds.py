"""A trial on its way through its folds: each is fitted, scored and kept in the ledger."""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import field
from pathlib import Path

import numpy as np

from raywf.core.errors import describe_error
from raywf.core.metrics import Metric
from raywf.core.records import Trial
from raywf.models.families import traits
from raywf.models.family import Family, Model, Problem, Rows, answer, rows_for
from raywf.models.own import OwnFamily
from raywf.models.pairs import unwrap
from raywf.search.data import SearchData
from raywf.search.ledger import FoldResult, Ledger
from raywf.search.own import Families

_ROW_CALLS, _FEW_CALLS = 15, 5  # that tell what a row takes
_QUICK_S = 0.25  # a fold that took less is not held up by more than a few
_SHARE = 0.6  # of the time left that one trial may take while others are to follow
_SHORT_S = 8.0  # less than this left is for the trial alone


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrialPlan:
    """What every trial of a sweep is told; instants are of `time.time()`.

    Fits end early from `deadline` on, or from what the queue says with a hand of trials; a sweep that has no
    finished trial by then waits until `last_moment`.
    `keep_models` has the folds' models kept beside their scores. `nodes` are the labels of nodes that it may
    run on; all may where there are none. Trials in `here` are fitted by the process that plans them.
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
    here: frozenset[str] = frozenset()


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
            self._plan.ledger.record_rung(self._trial.id, self.rung, found)

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
    fold, member = data.folds[number], plan.families.find(trial.family)
    start = time.perf_counter()  # the first import of its library is not a fit's
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
    took = time.perf_counter() - start
    result = FoldResult(
        scores=scores.astype(np.float32),
        loss=loss,
        rounds=model.rounds,
        seconds=took,
        row_s=_row_seconds(model, held, _ROW_CALLS if took > _QUICK_S else _FEW_CALLS),
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
    mean = statistics.fmean(r.loss for r in results) if results else None
    return dataclasses.replace(
        trial,
        status=status,
        fold_losses=tuple(r.loss for r in results),
        score=None if mean is None else (-mean if metric.greater_is_better else mean),
        rounds=round(statistics.fmean(r.rounds for r in results)) if results else 0,
        seconds=sum(r.seconds for r in results),
        row_us=1e6 * statistics.median(r.row_s for r in results) if results else 0.0,
    )


def _row_seconds(model: Model, held: Rows, calls: int) -> float:
    """Return the median time of one row's answer, without making pairs, which members of a bundle share."""
    model, pairs = unwrap(model)
    held, spent = dataclasses.replace(held, X=pairs.widen(held.X)), []
    for i in range(min(calls, len(held.y))):
        row = held.take(np.array([i]))
        start = time.perf_counter()
        answer(model, row)
        spent.append(time.perf_counter() - start)
    return statistics.median(spent)


def _saved(model: Model) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory(prefix="raywf-") as name:
        model.save(Path(name))
        return {p.name: p.read_bytes() for p in sorted(Path(name).iterdir())}
