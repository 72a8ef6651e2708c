"""A model within a budget that was too small for any trial's folds: the best possible, never nothing."""

from __future__ import annotations

import dataclasses
import time

from raywf.core.errors import describe_error
from raywf.core.records import Trial
from raywf.search.data import SearchData
from raywf.search.folds import TrialPlan, fit_fold, summarise
from raywf.search.portfolio import make_trial

_LAST_FIT_S = 2.0
_LAST_FAMILIES = ("linear", "prior")


def rescue(
    data: SearchData, trials: list[Trial], plan: TrialPlan
) -> tuple[SearchData, list[Trial], frozenset[str]]:
    """Return the data with as few folds as some trial has finished, and that trial as done.

    Where no trial has any, but some had no time to, one fold of a linear model is fitted here and now, or
    that of the prior; its id comes third. Without a model of any kind the trials come back as they are.
    """
    here: frozenset[str] = frozenset()
    if any(t.status == "done" and len(t.fold_losses) == len(data.folds) for t in trials):
        return data, trials, here
    cut = [t for t in trials if t.status != "failed"]
    counts = {t.id: len(plan.ledger.folds(t.id, len(data.folds))) for t in cut}
    if cut and not any(counts.values()):
        trials = _one_more(data, trials, plan)
        counts = {t.id: 1 for t in trials[-1:] if t.status != "failed"}
        here = frozenset(counts)
    most = max(counts.values(), default=0)
    if not most:
        return data, trials, here
    kept = dataclasses.replace(data, folds=data.folds[:most])
    done = [_as_done(t, plan, most) if counts.get(t.id) == most else t for t in trials]
    return kept, done, here


def _one_more(data: SearchData, trials: list[Trial], plan: TrialPlan) -> list[Trial]:
    """Return the trials with one more at the end, which has one fold unless it failed."""
    failed = {t.id for t in trials if t.status == "failed"}
    for last in (make_trial(name, {}) for name in _LAST_FAMILIES):
        if last.id in failed:
            continue
        trials = [*(t for t in trials if t.id != last.id), last]
        try:
            fit_fold(last, data, plan, 0, deadline=time.time() + _LAST_FIT_S)
        except Exception as err:  # noqa: BLE001 - a model library may raise anything
            trials[-1] = dataclasses.replace(last, status="failed", error=describe_error(err))
            continue
        return trials
    return trials


def _as_done(trial: Trial, plan: TrialPlan, folds: int) -> Trial:
    return summarise(trial, plan.ledger.folds(trial.id, folds), plan.metric, "done")
