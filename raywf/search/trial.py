"""One configuration as a Tune trainable: a fold a step, in an actor that the next trial reuses."""

from __future__ import annotations

import dataclasses
import os
import time
from typing import Any

import numpy as np
from ray import tune

from raywf.core.metrics import METRICS
from raywf.core.records import Trial
from raywf.models.families import family
from raywf.models.family import Problem
from raywf.search.data import SearchData
from raywf.search.ledger import Ledger
from raywf.search.niceness import yield_cpu


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrialPlan:
    """What every trial of a sweep is told; instants are of `time.time()`.

    Fits end early from `deadline` on; a sweep that has no finished trial by then waits until `last_moment`.
    """

    metric: str
    threads: int
    deadline: float
    last_moment: float
    seed: int
    ledger: Ledger


class FoldTrial(tune.Trainable):  # type: ignore[misc]
    """Fits and scores one fold a step; the last one writes the trial to the ledger.

    A trial that the ledger already holds reports its folds without fitting. A library's error becomes a
    result with ``error``, since not every library's exceptions survive the way back.
    """

    def setup(self, config: dict[str, Any], data: SearchData, plan: TrialPlan) -> None:
        yield_cpu()
        self._data, self._plan = data, plan
        self._begin(config["job"])

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._begin(new_config["job"])
        return True

    def step(self) -> dict[str, Any]:
        """Report the running mean loss; ``done`` on the last fold, on an error or past the deadline."""
        if self._found is not None:
            return self._replay()
        start = time.perf_counter()
        try:
            loss = self._run_fold(self._data.folds[len(self._losses)])
        except Exception as err:  # noqa: BLE001 - a model library may raise anything, and not all of it unpickles
            self._seconds += time.perf_counter() - start
            return self._report("failed", done=True, error=f"{type(err).__name__}: {err}")
        self._seconds += time.perf_counter() - start
        self._losses.append(loss)
        done = len(self._losses) == len(self._data.folds)
        if done:
            self._plan.ledger.record(self._trial("done"), tuple(self._scores))
        return self._report("done" if done else "running", done=done)

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: the ledger is what lasts."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing: the ledger is what lasts."""

    def _begin(self, config: dict[str, Any]) -> None:
        self._config = config
        self._losses: list[float] = []
        self._scores: list[np.ndarray[Any, Any]] = []
        self._rounds: list[int] = []
        self._seconds = 0.0
        self._found = self._plan.ledger.find(config["id"])

    def _run_fold(self, fold: Any) -> float:
        data, plan = self._data, self._plan
        problem = Problem(
            task=data.task,
            n_classes=data.n_classes,
            sizes=data.sizes,
            threads=plan.threads,
            deadline=plan.deadline,
            seed=plan.seed,
        )
        fit, held = data.rows.take(fold.fit), data.rows.take(fold.score)
        model = family(self._config["family"]).fit(problem, fit, self._config["params"], valid=held, rounds=0)
        scores = model.predict(held.X)
        loss = METRICS[plan.metric].loss(held.y, scores)
        if not np.isfinite(loss) or not np.isfinite(scores).all():
            raise ValueError(f"{plan.metric} of the fold is {loss}")
        self._scores.append(scores.astype(np.float32))
        self._rounds.append(model.rounds)
        return loss

    def _trial(self, status: str, error: str = "") -> Trial:
        metric = METRICS[self._plan.metric]
        mean = float(np.mean(self._losses)) if self._losses else None
        return Trial(
            id=self._config["id"],
            family=self._config["family"],
            params=self._config["params"],
            status=status,
            fold_losses=tuple(self._losses),
            score=None if mean is None else (-mean if metric.greater_is_better else mean),
            rounds=round(float(np.mean(self._rounds))) if self._rounds else 0,
            seconds=self._seconds,
            error=error,
        )

    def _report(self, status: str, *, done: bool, error: str = "") -> dict[str, Any]:
        loss = float(np.mean(self._losses)) if self._losses else float(np.finfo(np.float32).max)
        return {
            "loss": loss,
            "fold": len(self._losses),
            "trial": self._trial(status, error),
            "node": os.environ.get("RAY_NODE_ID", "") or _node_id(),
            "done": done,
        }

    def _replay(self) -> dict[str, Any]:
        assert self._found is not None
        trial = self._found[0]
        loss = float(np.mean(trial.fold_losses))
        return {
            "loss": loss,
            "fold": len(trial.fold_losses),
            "trial": trial,
            "node": _node_id(),
            "done": True,
        }


def _node_id() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())
