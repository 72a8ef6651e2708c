"""How answers and labels were spread, and how far they moved."""

from __future__ import annotations

import numpy as np

from raywf.monitor.distance import stability_index
from raywf.monitor.histogram import Histogram, answered


def psi(made: Histogram, values: np.ndarray) -> float:
    """Return how far other numbers lie from these."""
    return stability_index(np.asarray(made.counts), made.count(values))


def test_scores_of_another_fit_are_no_drift() -> None:
    """A few distinct scores that differ by little stay in their bins."""
    gate = np.repeat([0.1, 0.2, 0.4], 500)
    made = Histogram.of(gate)
    assert made is not None
    assert psi(made, gate * 1.005) == 0.0
    assert psi(made, np.repeat([0.1, 0.2, 0.4], [50, 50, 1400])) > 0.25


def test_most_at_the_top_is_not_blind() -> None:
    """All but a few at the greatest number: those below have a bin."""
    gate = np.concatenate([np.linspace(0, 0.5, 30), np.ones(970)])
    made = Histogram.of(gate)
    assert made is not None
    assert psi(made, np.zeros(1000)) > 1


def test_of_few_rows_there_is_none() -> None:
    """Chance alone would move them."""
    assert Histogram.of(np.arange(150.0)) is None
    made = Histogram.of(np.random.default_rng(0).random(400))
    assert made is not None
    assert len(made.counts) == 4


def test_what_was_answered() -> None:
    """The one score, or the likeliest class."""
    assert answered(np.array([[0.3], [0.7]])).tolist() == [0.3, 0.7]
    assert answered(np.array([[0.1, 0.6, 0.3]])).tolist() == [1.0]
