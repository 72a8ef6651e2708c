"""Rounds for the rows that members are fitted on, not for those of a fold."""

from __future__ import annotations

import numpy as np
import pytest

from raywf.core.metrics import METRICS
from raywf.models.family import Rows
from raywf.search.data import Fold, SearchData
from raywf.search.ledger import FoldResult
from raywf.search.portfolio import make_trial
from raywf.search.trial import summarise

ROWS = np.arange(100)


def data(*, ordered: bool) -> SearchData:
    """Two folds, of twenty and of fifty rows, where eighty are fitted in the end."""
    return SearchData(
        rows=Rows(np.zeros((100, 1), np.float32), ROWS % 2 * 1.0),
        times=ROWS if ordered else None,
        known=ROWS if ordered else None,
        folds=(Fold(fit=ROWS[:20], score=ROWS[20:50]), Fold(fit=ROWS[:50], score=ROWS[50:80])),
        gate=ROWS[80:],
        rest=ROWS[:80],
        task="binary",
        n_classes=2,
        sizes=(0,),
    )


def results(*rounds: int) -> list[FoldResult]:
    return [FoldResult(scores=np.zeros((30, 1), np.float32), loss=0.5, rounds=r, seconds=1.0) for r in rounds]


@pytest.mark.parametrize(
    ("family", "ordered", "rounds"),
    [("lightgbm", True, 112), ("lightgbm", False, 55), ("torch", True, 55), ("extratrees", True, 55)],
)
def test_boosting_goes_on_for_longer_on_more_rows(family: str, ordered: bool, rounds: int) -> None:
    """In proportion, where folds are cut by time: 20 of 20 rows and 90 of 50 are 80 and 144 of 80."""
    growth = data(ordered=ordered).growth(2)
    made = summarise(make_trial(family, {}), results(20, 90), METRICS["log_loss"], "done", growth=growth)
    assert made.rounds == rounds


def test_the_folds_that_are_there_count() -> None:
    """Of a trial on its way."""
    assert data(ordered=True).growth(1) == (4.0,)
    made = summarise(make_trial("xgboost", {}), results(7), METRICS["log_loss"], "running", growth=(4.0,))
    assert made.rounds == 28
