"""A model within a budget that was too small for any trial's folds: the best possible, never nothing."""

from __future__ import annotations

import dataclasses
import time

from raywf.core.records import Trial
from raywf.search.data import SearchData
from raywf.search.portfolio import make_trial
from raywf.search.trial import TrialPlan, fit_fold, summarise

_LAST_FIT_S = 2.0


def rescue(data: SearchData, trials: list[Trial], plan: TrialPlan) -> tuple[SearchData, list[Trial]]:
    """Return the data with as few folds as some trial has finished, and that trial as done.

    Where no trial has any, one fold of a linear model is fitted here and now. Without a model of any kind the
    trials come back as they are.
    """
    if any(t.status == "done" for t in trials):
        return data, trials
    counts = {t.id: len(plan.ledger.folds(t.id, len(data.folds))) for t in trials if t.status != "failed"}
    if not any(counts.values()) and not any(t.status == "failed" for t in trials):
        trials, counts = _one_more(data, trials, plan)
    most = max(counts.values(), default=0)
    if not most:
        return data, trials
    kept = dataclasses.replace(data, folds=data.folds[:most])
    done = [_as_done(t, plan, most) if counts.get(t.id) == most else t for t in trials]
    return kept, done


def _one_more(data: SearchData, trials: list[Trial], plan: TrialPlan) -> tuple[list[Trial], dict[str, int]]:
    last = make_trial("linear", {})
    fit_fold(last, data, plan, 0, deadline=time.time() + _LAST_FIT_S)
    return [*(t for t in trials if t.id != last.id), last], {last.id: 1}


def _as_done(trial: Trial, plan: TrialPlan, folds: int) -> Trial:
    return summarise(trial, plan.ledger.folds(trial.id, folds), plan.metric, "done")
