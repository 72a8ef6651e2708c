"""Stops losers early, with folds as the fidelity (early-stopped cross-validation, Bergman et al. 2024).

Where a family has rungs, they are the fidelity within the first fold (ASHA, Li et al., MLSys 2020).
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

import numpy as np
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from raywf.core.records import Trial
from raywf.search.hold import Hold
from raywf.search.queue import QUICK_S

_KEEP_ONE_OF = 3
_CHEAP_S = 0.3  # so little is left of a trial that stopping it saves nothing, and an ensemble may want it


class FoldRace(FIFOScheduler):  # type: ignore[misc]
    """Stops a trial whose mean loss over its folds so far lies behind the best trial's over the same folds.

    `slack` is the share of the spread between the worst and the best first fold that is forgiven: wide enough
    to leave members that an ensemble may want, narrow enough to cut hopeless ones after one fold. `folds` are
    the folds' scored rows: before `rows` of them are scored, chance decides more than the configuration.
    Trials in `spared` go on whatever they lose, and others are measured by them.
    """

    def __init__(
        self,
        slack: float = 0.35,
        least: int = 3,
        *,
        folds: Sequence[int] = (),
        rows: int = 1500,
        spared: Container[str] = (),
        hold: Hold | None = None,
    ) -> None:
        super().__init__()
        self._folds = len(folds)
        self._slack, self._least = slack, least
        self._early = int(np.searchsorted(np.cumsum(folds), rows)) if len(folds) else 0
        self._spared = spared
        self._means: dict[int, dict[str, float]] = {}
        self._rungs: dict[tuple[str, int], dict[str, float]] = {}
        self.stopped: set[str] = set()
        self._hold = hold

    def recall(self, trial: Trial, *, rungs: Sequence[float] = ()) -> None:
        """Take in how far a trial came before its search was interrupted, with its losses at rungs.

        As it was then: quick trials went through all their folds at once, and a last fold stops nobody.
        """
        is_done, losses = trial.status == "done", trial.fold_losses
        if is_done and trial.seconds < QUICK_S:
            return
        for number, loss in enumerate(rungs, 1):
            self._rungs.setdefault((trial.family, number), {})[trial.id] = loss
        for fold in range(self._early + 1, len(losses) + 1 - is_done):
            self._means.setdefault(fold, {})[trial.id] = float(np.mean(losses[:fold]))

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        if self._hold is not None:
            self._hold.look(tune_controller)
            first = self._hold.first()
            if first is not None:
                return first
        return super().choose_trial_to_run(tune_controller)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if result["done"]:
            return str(TrialScheduler.CONTINUE)
        if result["rung"]:
            return self._halve(result)
        if result["fold"] <= self._early:
            return str(TrialScheduler.CONTINUE)
        seen = self._means.setdefault(result["fold"], {})
        seen[result["trials"][0].id] = result["loss"]
        first = self._means[min(self._means)].values()
        spread = max(first, default=0.0) - min(first, default=0.0)
        dear = self._seconds_left(result) >= _CHEAP_S and not self._is_spared(result)
        if dear and len(seen) > self._least and result["loss"] > min(seen.values()) + self._slack * spread:
            return self._stop(result)
        return str(TrialScheduler.CONTINUE)

    def _seconds_left(self, result: dict[str, Any]) -> float:
        spent = sum(trial.seconds for trial in result["trials"]) / max(1, result["fold"])
        return float(spent * (self._folds - result["fold"])) if self._folds else float("inf")

    def _halve(self, result: dict[str, Any]) -> str:
        """Go on only from the best third of those that have come so far (ASHA)."""
        family = result["trials"][0].family
        seen = self._rungs.setdefault((family, result["rung"]), {})
        seen[result["trials"][0].id] = result["loss"]  # once, though a lost worker's trial comes by again
        if len(seen) < _KEEP_ONE_OF:
            return str(TrialScheduler.CONTINUE)
        best = sorted(seen.values())[: max(1, len(seen) // _KEEP_ONE_OF)]
        goes_on = result["loss"] <= best[-1] or self._is_spared(result)
        return str(TrialScheduler.CONTINUE) if goes_on else self._stop(result)

    def _is_spared(self, result: dict[str, Any]) -> bool:
        return any(trial.id in self._spared for trial in result["trials"])

    def _stop(self, result: dict[str, Any]) -> str:
        self.stopped.update(trial.id for trial in result["trials"])
        return str(TrialScheduler.STOP)
