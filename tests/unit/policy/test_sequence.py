"""The confidence sequence."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raywf.policy.sequence import confidence_sequence, rise_bound


@dataclass(frozen=True)
class Sums:
    """A window's sums."""

    labelled: int
    loss_sum: float
    loss_squares: float


def sums(losses):
    """Sum one window's losses."""
    losses = np.asarray(losses, dtype=float)
    return Sums(len(losses), float(losses.sum()), float((losses**2).sum()))


def simulate(seed, windows, *, mean):
    """Windows of 50 losses of two points, with the given mean in each window."""
    rng = np.random.default_rng(seed)
    return [sums(rng.random(50) < mean(i)) for i in range(windows)]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 40), st.sampled_from([0.01, 0.05, 0.3]))
def test_the_rise_is_the_greatest_of_all_sequences(seed, windows, alpha):
    """One begins at every fourth window, each with its share of alpha; some windows have no labels."""
    draw = np.random.default_rng(seed)
    sizes = draw.integers(0, 60, windows) * draw.integers(0, 2, windows)
    given_windows = [sums(draw.random(n) < draw.random()) for n in sizes]
    each = [
        confidence_sequence(given_windows[4 * m :], alpha=2 * alpha / ((m + 1) * (m + 2)))[-1].lower
        for m in range((windows + 3) // 4)
    ]
    assert rise_bound(given_windows, alpha=alpha) == pytest.approx(max([0.0, *each]), abs=1e-12)


def test_false_alarms_stay_below_alpha_whenever_one_looks():
    """400 runs of 40 windows with mean 0.3: the mean is ever left in at most alpha of them."""
    missed = 0
    for seed in range(400):
        last = confidence_sequence(simulate(seed, 40, mean=lambda _: 0.3), alpha=0.1)[-1]
        missed += not last.lower <= 0.3 <= last.upper
    assert missed / 400 <= 0.1


def test_false_alarms_of_a_rise_stay_below_alpha():
    """300 runs under a mean that moves below 0.3: the rise bound passes 0.3 in at most alpha of them."""
    runs = (simulate(seed, 40, mean=lambda i: 0.3 - 0.1 * (i % 3)) for seed in range(300))
    assert sum(rise_bound(run, alpha=0.1) > 0.3 for run in runs) / 300 <= 0.1


def test_a_rise_after_long_good_service_is_seen():
    """Eighty good windows do not hide twelve bad ones."""
    run = simulate(1, 92, mean=lambda i: 0.1 if i < 80 else 0.3)
    assert rise_bound(run[:80], alpha=0.05) < 0.11
    assert rise_bound(run, alpha=0.05) > 0.2


def test_the_bounds_close_in():
    """After ten thousand rows the interval is a few hundredths wide."""
    last = confidence_sequence(simulate(2, 200, mean=lambda _: 0.3), alpha=0.05)[-1]
    assert last.upper - last.lower < 0.05


@pytest.mark.parametrize("windows", [[], [sums([])]])
def test_without_rows_nothing_is_known(windows):
    """The bounds are those of the loss itself."""
    assert all((b.lower, b.upper) == (0.0, 1.0) for b in confidence_sequence(windows, alpha=0.05))
    assert rise_bound(windows, alpha=0.05) == 0.0


_losses = st.lists(st.floats(0, 1), max_size=30)


@settings(max_examples=80, deadline=None)
@given(st.lists(_losses, max_size=6), st.randoms(use_true_random=False))
def test_the_order_of_rows_in_a_window_does_not_matter(windows, random):
    """The bounds are a function of the windows' sums."""
    shuffled = [random.sample(window, len(window)) for window in windows]
    for one, other in zip(
        confidence_sequence([sums(w) for w in windows], alpha=0.05),
        confidence_sequence([sums(w) for w in shuffled], alpha=0.05),
        strict=True,
    ):
        assert (one.rows, one.lower, one.upper) == pytest.approx((other.rows, other.lower, other.upper))


@settings(max_examples=80, deadline=None)
@given(st.lists(_losses, min_size=1, max_size=8))
def test_a_window_more_never_widens(windows):
    """Bounds are running, and earlier bounds do not change when windows are added."""
    full = confidence_sequence([sums(w) for w in windows], alpha=0.05)
    part = confidence_sequence([sums(w) for w in windows[:-1]], alpha=0.05)
    assert full[:-1] == part
    assert all(a.lower <= b.lower and a.upper >= b.upper for a, b in itertools.pairwise(full))
