"""Draws configurations from the spaces that a workflow gives, by Optuna's TPE.

Settings after the tree-structured Parzen estimator of Bergstra et al. (NeurIPS 2011): multivariate and in
groups, running trials counted as bad ones ("constant liar"), so that parallel draws lie apart.
"""

from __future__ import annotations

import warnings
from collections.abc import Container, Mapping
from typing import Any

import numpy as np
import optuna

from raywf.core.records import Trial
from raywf.core.space import Choice, Range, Space
from raywf.search.portfolio import make_trial

_Distribution = optuna.distributions.BaseDistribution
_DRAWS = 10
_FOLD_STEPS = 1000  # a fold's end counts as further than any rung of the first fold


class Studies:
    """A study a family; what has ended is told, so that a resumed search goes on where it was."""

    def __init__(self, spaces: Mapping[str, Space], *, base: Mapping[str, dict[str, Any]], seed: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._base = base
        self._spaces = spaces
        self._kinds = {name: {p: _distribution(k) for p, k in s.items()} for name, s in spaces.items()}
        self._studies = {name: _study(seed) for name in spaces}
        self._open: dict[str, optuna.trial.Trial] = {}

    def draw(self, family: str, *, known: Container[str]) -> Trial | None:
        """Return a trial of the family with parameters drawn; None if none but `known` ids come up."""
        for _ in range(_DRAWS):
            asked = self._studies[family].ask(self._kinds[family])
            trial = make_trial(family, {**self._base.get(family, {}), **asked.params})
            if trial.id not in known:
                self._open[trial.id] = asked
                return trial
            self._studies[family].tell(asked, state=optuna.trial.TrialState.FAIL)
        return None

    def drop(self, trial: Trial) -> None:
        """Forget a draw that is not tried: a study counts what is under way as bad."""
        asked = self._open.pop(trial.id)
        self._studies[trial.family].tell(asked, state=optuna.trial.TrialState.FAIL)

    def tell(self, trial: Trial, *, rungs: Mapping[int, float] | None = None) -> None:
        """Learn what came of a trial; of one that was not drawn here too, where the space holds it.

        One that was stopped on its way is worse than all that came further, and by its loss there among those
        that came as far. `rungs` are losses by rung of one that did not come to its first fold's end.
        """
        if trial.family not in self._studies:
            return
        study, asked = self._studies[trial.family], self._open.pop(trial.id, None)
        state, loss, reached = _end_of(trial, rungs or {})
        if asked is not None:
            for step, value in reached.items():
                asked.report(value, step)
            study.tell(asked, loss, state=state)
            return
        space = self._spaces[trial.family]
        if all(name in trial.params and kind.holds(trial.params[name]) for name, kind in space.items()):
            made = optuna.trial.create_trial(
                params={name: trial.params[name] for name in space},
                distributions=self._kinds[trial.family],
                value=loss,
                state=state,
                intermediate_values=reached,
            )
            study.add_trial(made)


def _end_of(
    trial: Trial, rungs: Mapping[int, float]
) -> tuple[optuna.trial.TrialState, float | None, dict[int, float]]:
    """Return the state as Optuna has it, the loss of one that is done, and of others how far they came."""
    loss = float(np.mean(trial.fold_losses)) if trial.fold_losses else None
    if trial.status == "done" and loss is not None:
        return optuna.trial.TrialState.COMPLETE, loss, {}
    if trial.status == "failed" or (loss is None and not rungs):
        return optuna.trial.TrialState.FAIL, None, {}
    reached = dict(rungs) if loss is None else {_FOLD_STEPS * len(trial.fold_losses): loss}
    return optuna.trial.TrialState.PRUNED, None, reached


def _study(seed: int) -> optuna.Study:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(
            multivariate=True, group=True, constant_liar=True, seed=seed, n_startup_trials=5
        )
    return optuna.create_study(direction="minimize", sampler=sampler)


def _distribution(kind: Range | Choice) -> _Distribution:
    if isinstance(kind, Choice):
        return optuna.distributions.CategoricalDistribution(kind.values)
    if kind.is_whole and (kind.step is None or isinstance(kind.step, int)):
        return optuna.distributions.IntDistribution(
            int(kind.low), int(kind.high), log=kind.log, step=int(kind.step or 1)
        )
    return optuna.distributions.FloatDistribution(kind.low, kind.high, log=kind.log, step=kind.step)
