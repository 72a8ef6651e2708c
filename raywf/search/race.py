"""Stops losers early, with folds as the fidelity (early-stopped cross-validation, Bergman et al. 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ray.tune.schedulers import FIFOScheduler, TrialScheduler


class FoldRace(FIFOScheduler):  # type: ignore[misc]
    """Stops a trial whose mean loss over its folds so far lies behind the best trial's over the same folds.

    `slack` is the share of the spread between the worst and the best first fold that is forgiven: wide enough
    to leave members that an ensemble may want, narrow enough to cut hopeless ones after one fold. `folds` are
    the folds' scored rows: before `rows` of them are scored, chance decides more than the configuration.
    """

    def __init__(
        self, slack: float = 0.35, least: int = 3, *, folds: Sequence[int] = (), rows: int = 1500
    ) -> None:
        super().__init__()
        self._slack, self._least = slack, least
        self._early = int(np.searchsorted(np.cumsum(folds), rows)) if len(folds) else 0
        self._means: dict[int, dict[str, float]] = {}
        self.stopped: set[str] = set()

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if result["done"] or result["trial"].status == "failed":
            return str(TrialScheduler.CONTINUE)
        if result["fold"] <= self._early:
            return str(TrialScheduler.CONTINUE)
        seen = self._means.setdefault(result["fold"], {})
        seen[trial.trial_id] = result["loss"]
        first = self._means[min(self._means)].values()
        spread = max(first, default=0.0) - min(first, default=0.0)
        if len(seen) > self._least and result["loss"] > min(seen.values()) + self._slack * spread:
            self.stopped.add(result["trial"].id)
            return str(TrialScheduler.STOP)
        return str(TrialScheduler.CONTINUE)
