"""What Tune asks for the next trial: the portfolio in order, then neighbours of the best."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ray.tune.search import Searcher

from raywf.core.codec import encode
from raywf.core.records import Trial
from raywf.search.pace import Pace, fit_seconds
from raywf.search.portfolio import neighbour

_PATIENCE = 1.5  # a trial begins if it is likely to end within so many times the time left
_NEIGHBOURS_AFTER = 3  # finished trials that neighbours are chosen beside


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuePlan:
    """Which trials, within what: `most` in all, none begun after `deadline`; folds of `fold_rows` rows.

    `ended` are the trials that an interrupted search has finished already.
    """

    trials: tuple[Trial, ...]
    fold_rows: tuple[int, ...]
    most: int
    deadline: float
    seed: int
    pace: Pace | None = None
    more: bool = True
    ended: tuple[Trial, ...] = ()


class TrialQueue(Searcher):  # type: ignore[misc]
    """Hands trials out in order; one that the time left is too short for is passed over.

    `handed` are the trials that were begun, in order.
    """

    def __init__(self, plan: QueuePlan) -> None:
        super().__init__(metric="loss", mode="min")
        self._plan = plan
        self._done = list(plan.ended)
        self.handed: dict[str, Trial] = {t.id: t for t in plan.ended}
        self._waiting = [t for t in plan.trials if t.id not in self.handed]
        self._running: set[str] = set()
        self._shaken = 0

    def suggest(self, trial_id: str) -> Any:
        if len(self.handed) >= self._plan.most or (self.handed and time.time() > self._plan.deadline):
            return Searcher.FINISHED
        trial = self._next()
        if trial is None:
            return None if self._running and self._plan.more else Searcher.FINISHED
        self.handed[trial.id] = trial
        self._running.add(trial_id)
        return {"job": encode(trial)}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        self._running.discard(trial_id)
        trial = (result or {}).get("trial")
        if trial is not None and trial.status == "done":
            self._done.append(trial)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is what lasts."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is what lasts."""

    def _next(self) -> Trial | None:
        while self._waiting:
            trial = self._waiting.pop(0)
            if not self.handed or self._fits(trial):
                return trial
        return self._neighbour() if self._plan.more and self._plan.pace is not None else None

    def _neighbour(self) -> Trial | None:
        for _ in range(20):
            if len(self._done) < min(_NEIGHBOURS_AFTER, len(self._plan.trials)):
                return None
            trial = neighbour(self._done, self._shaken, seed=self._plan.seed)
            self._shaken += 1
            if trial is not None and trial.id not in self.handed and self._fits(trial):
                return trial
        return None

    def _fits(self, trial: Trial) -> bool:
        if self._plan.pace is None:
            return True
        left = self._plan.deadline - time.time()
        needed = len(self._plan.fold_rows) * fit_seconds(self._plan.pace, trial.family, trial.params)
        return needed < _PATIENCE * left


def planned(trials: Sequence[Trial], *, fold_rows: tuple[int, ...], deadline: float) -> QueuePlan:
    """Return the plan that runs exactly these trials."""
    return QueuePlan(
        trials=tuple(trials), fold_rows=fold_rows, most=len(trials), deadline=deadline, seed=0, more=False
    )
