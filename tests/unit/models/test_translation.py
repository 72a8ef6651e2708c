"""Trees that were taken over answer as the library that fitted them, or are refused."""

from __future__ import annotations

import numpy as np
import pytest

from raywf.models import xgboost
from raywf.models.family import Problem, Rows
from raywf.models.trees import TreeModel

RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 3)).astype(np.float32)
ROWS = Rows(X, (X[:, 0] > 0).astype(np.float64))
PROBLEM = Problem(task="binary", n_classes=2, sizes=(0, 0, 0))


def test_a_wrong_translation_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a fit that failed, before anything is scored or served by it."""
    right = xgboost._translate

    def wrong(booster: object, problem: Problem, rounds: int, scale: object) -> TreeModel:
        made = right(booster, problem, rounds, scale)  # type: ignore[arg-type]
        made._base = made._base + 1e-3
        return made

    family = xgboost.XGBoostFamily()
    family.fit(PROBLEM, ROWS, {}, valid=None, rounds=5)
    monkeypatch.setattr(xgboost, "_translate", wrong)
    with pytest.raises(ValueError, match="would be served answers otherwise than the fitted one"):
        family.fit(PROBLEM, ROWS, {}, valid=None, rounds=5)
