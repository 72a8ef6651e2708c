"""A model where no trial has all its folds."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from raywf.core.metrics import METRICS
from raywf.models.family import Rows
from raywf.search.data import Fold, SearchData
from raywf.search.folds import TrialPlan
from raywf.search.ledger import FoldResult, Ledger
from raywf.search.portfolio import make_trial
from raywf.search.rescue import rescue

ROWS = np.arange(80)


@pytest.fixture
def data() -> SearchData:
    """Binary rows in two folds."""
    return SearchData(
        rows=Rows((ROWS % 7).reshape(-1, 1).astype(np.float32), (ROWS % 7 > 3).astype(float)),
        times=None,
        known=None,
        folds=tuple(Fold(fit=ROWS[k == ROWS % 2], score=ROWS[k != ROWS % 2]) for k in (0, 1)),
        gate=ROWS[:0],
        rest=ROWS,
        task="binary",
        n_classes=2,
        sizes=(0,),
    )


@pytest.fixture
def plan(tmp_path: Path) -> TrialPlan:
    """With an empty ledger, after the deadline."""
    ledger = Ledger(str(tmp_path), "s")
    return TrialPlan(
        metric=METRICS["roc_auc"], threads=1, deadline=0.0, last_moment=0.0, seed=0, ledger=ledger
    )


FAILED = dataclasses.replace(make_trial("lightgbm", {}), status="failed", error="it broke")
CUT = dataclasses.replace(make_trial("xgboost", {}), status="stopped")


def test_a_fold_is_enough(data: SearchData, plan: TrialPlan) -> None:
    """The trial that finished one is done, on that fold alone."""
    scores = data.rows.y[data.folds[0].score][:, None].astype(np.float32)
    plan.ledger.record_fold(CUT.id, 0, FoldResult(scores=scores, loss=-1.0, rounds=3, seconds=0.1))
    kept, trials, here = rescue(data, [FAILED, CUT], plan)
    assert not here
    assert len(kept.folds) == 1
    assert [(t.status, t.rounds) for t in trials] == [("failed", 0), ("done", 3)]


def test_failures_and_no_time_for_others(data: SearchData, plan: TrialPlan) -> None:
    """A linear model is fitted here; a failed trial does not stand in its way."""
    kept, trials, here = rescue(data, [FAILED, CUT], plan)
    assert len(kept.folds) == 1
    assert [(t.family, t.status) for t in trials[2:]] == [("linear", "done")]
    assert here == {trials[2].id}


def test_a_linear_model_that_failed_before(data: SearchData, plan: TrialPlan) -> None:
    """Leaves the prior."""
    linear = dataclasses.replace(make_trial("linear", {}), status="failed", error="no")
    _, trials, here = rescue(data, [linear, CUT], plan)
    assert [(t.family, t.status) for t in trials[2:]] == [("prior", "done")]
    assert here == {trials[2].id}


def test_all_failed(data: SearchData, plan: TrialPlan) -> None:
    """There is nothing to rescue: the reasons are told instead."""
    assert rescue(data, [FAILED], plan) == (data, [FAILED], frozenset())
