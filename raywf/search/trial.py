"""One configuration as a Tune trainable: a fold a step, in an actor that the next trial reuses."""

from __future__ import annotations

import dataclasses
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ray import tune

from raywf.core.codec import decode
from raywf.core.metrics import Metric
from raywf.core.records import Trial
from raywf.models.families import family
from raywf.models.family import Model
from raywf.search.data import Fold, SearchData
from raywf.search.ledger import FoldResult, Ledger
from raywf.search.niceness import yield_cpu

_ROW_CALLS = 15
_SHARE = 0.6  # of the time left that one trial may take while others are to follow
_SHORT_S = 8.0  # less than this left is for the trial alone


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrialPlan:
    """What every trial of a sweep is told; instants are of `time.time()`.

    Fits end early from `deadline` on; a sweep that has no finished trial by then waits until `last_moment`.
    `keep_models` has the folds' models kept beside their scores.
    """

    metric: Metric
    threads: int
    deadline: float
    last_moment: float
    seed: int
    ledger: Ledger
    keep_models: bool = False


class FoldTrial(tune.Trainable):  # type: ignore[misc]
    """Fits and scores one fold a step, which the ledger keeps.

    Folds that the ledger already holds are reported without fitting. A library's error becomes a result with
    ``error``, since not every library's exceptions survive the way back.
    """

    def setup(self, config: dict[str, Any], data: SearchData, plan: TrialPlan) -> None:
        yield_cpu()
        self._data, self._plan = data, plan
        self._begin(config["job"])

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._begin(new_config["job"])
        return True

    def step(self) -> dict[str, Any]:
        """Report the running mean loss; ``done`` on the last fold or on an error."""
        number, count = len(self._results), len(self._data.folds)
        if number < count:
            try:
                self._results.append(self._run_fold(number))
            except Exception as err:  # noqa: BLE001 - a model library may raise anything, and not all of it unpickles
                reason = f"{type(err).__name__}: {err}"
                return self._report(dataclasses.replace(self._trial("failed"), error=reason), done=True)
        done = len(self._results) == count
        trial = self._trial("done" if done else "running")
        if done:
            self._plan.ledger.record(trial)
        return self._report(trial, done=done)

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: the ledger is what lasts."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing: the ledger is what lasts."""

    def _begin(self, job: dict[str, Any]) -> None:
        self._job = decode(Trial, job)
        found = self._plan.ledger.folds(self._job.id, len(self._data.folds))
        self._results: list[FoldResult] = list(found)
        left = self._plan.deadline - time.time()
        self._end = time.time() + (left if left < _SHORT_S else _SHARE * left)

    def _run_fold(self, number: int) -> FoldResult:
        return fit_fold(self._job, self._data, self._plan, number, deadline=self._fold_deadline(number))

    def _fold_deadline(self, number: int) -> float:
        """Share the trial's time out evenly over the folds that are left."""
        now, left = time.time(), len(self._data.folds) - number
        return min(self._plan.deadline, now + max(0.0, self._end - now) / left)

    def _trial(self, status: str) -> Trial:
        return summarise(self._job, self._results, self._plan.metric, status)

    def _report(self, trial: Trial, *, done: bool) -> dict[str, Any]:
        losses = trial.fold_losses
        return {
            "loss": float(np.mean(losses)) if losses else float(np.finfo(np.float32).max),
            "fold": len(losses),
            "trial": trial,
            "node": os.environ.get("RAY_NODE_ID", "") or _node_id(),
            "done": done,
        }


def fit_fold(trial: Trial, data: SearchData, plan: TrialPlan, number: int, *, deadline: float) -> FoldResult:
    """Fit and score a trial's fold, and keep it in the ledger.

    Raises:
        ValueError: if the scores are not finite; a model library may raise anything else.
    """
    start = time.perf_counter()
    fold = data.folds[number]
    problem = data.problem(threads=plan.threads, deadline=deadline, seed=plan.seed + number)
    fit, held = data.rows.take(fold.fit), data.rows.take(fold.score)
    member = family(trial.family)
    model = member.fit(problem, fit, dict(trial.params), valid=held, rounds=0)
    scores = model.predict(held.X)
    loss = plan.metric.best_loss(held.y, scores, groups=held.groups)
    if not np.isfinite(loss) or not np.isfinite(scores).all():
        raise ValueError(f"{plan.metric.name} of the fold is {loss}")
    result = FoldResult(
        scores=scores.astype(np.float32),
        loss=loss,
        rounds=model.rounds,
        seconds=time.perf_counter() - start,
        row_s=_row_seconds(model, data, fold),
    )
    kept = _saved(model) if plan.keep_models and member.merges else None
    plan.ledger.record_fold(trial.id, number, result, model=kept)
    return result


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


def _row_seconds(model: Model, data: SearchData, fold: Fold) -> float:
    """Return the median time of one row's answer."""
    spent = []
    for i in fold.score[:_ROW_CALLS]:
        row = data.rows.X[i : i + 1]
        start = time.perf_counter()
        model.predict(row)
        spent.append(time.perf_counter() - start)
    return float(np.median(spent))


def _saved(model: Model) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory(prefix="raywf-") as name:
        model.save(Path(name))
        return {p.name: p.read_bytes() for p in sorted(Path(name).iterdir())}


def _node_id() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())
