"""Greedy selection of members on out-of-fold scores."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raywf.core.metrics import METRICS, Metric
from raywf.search.ensemble import Candidates, keep_largest, select_ensemble

CASES = [("roc_auc", 1), ("log_loss", 1), ("log_loss", 3), ("rmse", 1)]
ROWS, BLOCKS = 60, (slice(0, 30), slice(30, 60))


def make(seed: int, metric: str, width: int, trials: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return labels and random scores of so many trials."""
    draw = np.random.default_rng(seed)
    labels = draw.normal(size=ROWS) if metric == "rmse" else np.arange(ROWS) % max(2, width) * 1.0
    made = {}
    for i in range(trials):
        scores = draw.uniform(0.01, 0.99, (ROWS, width))
        made[f"t{i}"] = (scores if width == 1 else scores / scores.sum(1, keepdims=True)).astype(np.float32)
    return labels, made


def offer(
    labels: np.ndarray, scores: dict[str, np.ndarray], times: dict[str, float] | None = None, **costs: float
) -> Candidates:
    """Return candidates in two blocks."""
    return Candidates(labels=labels, scores=scores, blocks=BLOCKS, costs=costs, times=times or {})


def test_of_equals_the_quicker_is_taken() -> None:
    """Two trials with the same scores: the one that costs less time for a row."""
    labels = np.arange(ROWS) % 2 * 1.0
    scores = {n: (labels[:, None] * 0.4 + 0.3).astype(np.float32) for n in ("a", "b")}
    assert select_ensemble(offer(labels, scores, a=0.9, b=0.1), METRICS["log_loss"]) == {"b": 1.0}


def gain(labels: np.ndarray, scores: np.ndarray) -> float:
    """Return a profit: thousands, the more the better."""
    return 2300 - 1000 * float(np.mean(np.abs(labels - scores[:, 0])))


def test_of_equals_the_quicker_is_taken_by_a_profit_of_thousands() -> None:
    """The share of the bound is added to its loss, which is far below -1."""
    labels = np.arange(ROWS) % 2 * 1.0
    scores = {n: (labels[:, None] * 0.4 + 0.3).astype(np.float32) for n in ("a", "b", "c")}
    profit = Metric("profit", True, ("binary",), gain)
    assert select_ensemble(offer(labels, scores, a=0.9, b=0.1, c=0.5), profit) == {"b": 1.0}


@pytest.mark.parametrize("unit", [1.0, 1e-12])
def test_complementary_members_are_joined_whatever_the_metric_counts_in(unit: float) -> None:
    """Two that err on opposite sides; labels of the size of a molecule have losses of that size."""
    labels = unit * np.linspace(0, 1, ROWS)
    error = unit * np.where(np.arange(ROWS) % 2, 0.3, -0.3)
    scores = {"high": (labels + error)[:, None], "low": (labels - error)[:, None]}
    assert select_ensemble(offer(labels, scores), METRICS["rmse"]) == {"high": 0.5, "low": 0.5}


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(CASES), st.integers(1, 5))
def test_never_worse_than_the_best_single(seed: int, case: tuple[str, int], trials: int) -> None:
    """Out of fold, by the mean over the blocks; weights are positive and sum to 1."""
    metric = METRICS[case[0]]
    labels, scores = make(seed, *case, trials)
    weights = select_ensemble(offer(labels, scores), metric, steps=8)

    def loss(mix: np.ndarray) -> float:
        return float(np.mean([metric.loss(labels[b], mix[b]) for b in BLOCKS]))

    mix = sum(scores[n].astype(np.float64) * w for n, w in weights.items())
    assert loss(np.asarray(mix)) <= min(loss(s) for s in scores.values()) + 1e-6
    assert sum(weights.values()) == pytest.approx(1)
    assert all(w > 0 for w in weights.values())


def test_useless_member_is_left_out() -> None:
    """A perfect one stands alone."""
    labels = np.arange(ROWS) % 2 * 1.0
    scores = {"noise": np.full((ROWS, 1), 0.5), "perfect": labels[:, None] * 0.98 + 0.01}
    assert select_ensemble(offer(labels, scores), METRICS["log_loss"]) == {"perfect": 1.0}


def test_a_prior_is_not_given_up_for_luck() -> None:
    """What was chosen before keeps half of all steps; without it the best on these rows stands alone."""
    labels = np.arange(ROWS) % 2 * 1.0
    scores = {"before": labels[:, None] * 0.9 + 0.05, "now": labels[:, None] * 0.98 + 0.01}
    offered, metric = offer(labels, scores), METRICS["log_loss"]
    assert select_ensemble(offered, metric) == {"now": 1.0}
    found = select_ensemble(offered, metric, prior={"before": 0.7, "gone": 0.3})
    assert found["before"] == pytest.approx(1 / 2)
    assert select_ensemble(offered, metric, prior={"gone": 1.0}) == {"now": 1.0}


def test_what_is_left_of_a_former_member_goes_at_last() -> None:
    """Less than half a step of it is not worth its fits; more is."""
    labels = np.arange(ROWS) % 2 * 1.0
    good = labels[:, None] * 0.9 + 0.05
    offered = offer(labels, {"most": good, "little": good, "now": labels[:, None] * 0.98 + 0.01})

    def chosen(little: float) -> set[str]:
        return set(
            select_ensemble(offered, METRICS["log_loss"], prior={"most": 1 - little, "little": little})
        )

    assert chosen(0.015) == {"most", "now"}
    assert chosen(0.05) == {"most", "little", "now"}


def test_members_are_those_that_there_is_time_to_make() -> None:
    """The best is left out where it takes too long; two that fit alone but not together are not joined."""
    labels = np.linspace(0, 1, ROWS)
    error = np.where(np.arange(ROWS) % 2, 0.3, -0.3)
    scores = {
        "best": labels[:, None],
        "high": (labels + error)[:, None],
        "low": (labels - 1.1 * error)[:, None],
    }

    def chosen(prior: dict[str, float] | None = None, **times: float) -> set[str]:
        return set(select_ensemble(offer(labels, scores, times), METRICS["rmse"], prior=prior))

    assert chosen() == {"best"}
    assert chosen(best=math.inf) == {"high", "low"}
    assert chosen(best=math.inf, high=0.6, low=0.6) == {"high"}
    assert chosen(best=math.inf, high=0.6, low=0.6, prior={"low": 1.0, "high": 0.5}) == {"low"}
    assert chosen(best=math.inf, high=math.inf, low=math.inf) == {"best"}  # for want of any other


def test_members_answer_a_row_in_time_together() -> None:
    """What alone takes too long for a row may stand alone; a lighter one is not dropped for a slow one."""
    labels = np.linspace(0, 1, ROWS)
    error = np.where(np.arange(ROWS) % 2, 0.3, -0.3)
    scores = {"high": (labels + error)[:, None], "low": (labels - 1.1 * error)[:, None]}

    def chosen(**costs: float) -> set[str]:
        offered = dataclasses.replace(offer(labels, scores), costs=costs)
        return set(select_ensemble(offered, METRICS["rmse"]))

    assert chosen(high=0.4, low=0.5) == {"high", "low"}
    assert chosen(high=0.6, low=0.5) == {"high"}
    assert chosen(high=3.0, low=0.5) == {"high"}


def test_a_prior_that_nothing_helps_stays() -> None:
    """With its own weights."""
    labels = np.arange(ROWS) % 2 * 1.0
    good = labels[:, None] * 0.9 + 0.05
    scores = {"a": good, "b": good, "noise": np.full((ROWS, 1), 0.5)}
    prior = {"a": 0.3, "b": 0.7}
    assert select_ensemble(offer(labels, scores), METRICS["log_loss"], prior=prior) == pytest.approx(prior)


@given(st.dictionaries(st.text(min_size=1), st.floats(0.01, 1), min_size=1), st.integers(1, 5))
def test_keep_largest(weights: dict[str, float], most: int) -> None:
    """No more than asked for, none lighter than one that was dropped, and a whole again."""
    kept = keep_largest(weights, most)
    assert len(kept) == min(most, len(weights))
    assert sum(kept.values()) == pytest.approx(1)
    dropped = [w for n, w in weights.items() if n not in kept]
    assert max(dropped, default=0) <= min(weights[n] for n in kept)
