"""An anytime-valid confidence sequence for the mean of a loss in [0, 1], from sums per window.

The empirical-Bernstein sequence with predictable plug-ins (Waudby-Smith and Ramdas, arXiv 2010.09686,
theorem 2). Here the bet and the running mean change only between windows: they rest on earlier windows,
hence stay predictable, and the bounds are a function of each window's sums, not of the order of the rows in
it. One may look after every window without raising the chance of a false alarm above `alpha`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

_MAX_BET = 0.5
_STRIDE = 4  # windows between the starts of `rise_bound`


class WindowSums(Protocol):
    """What is needed of a window: `Evidence` has it."""

    @property
    def labelled(self) -> int:
        """Rows with a loss."""
        ...

    @property
    def loss_sum(self) -> float:
        """Sum of the losses."""
        ...

    @property
    def loss_squares(self) -> float:
        """Sum of the losses' squares."""
        ...


@dataclass(frozen=True, slots=True)
class Bounds:
    """After one window: the bounds on the mean so far, each the tightest that was ever held."""

    rows: int
    lower: float
    upper: float


def confidence_sequence(windows: Sequence[WindowSums], *, alpha: float) -> tuple[Bounds, ...]:
    """Return the bounds after each window, in the windows' order.

    With chance at least ``1 - alpha`` the mean loss lies within all of them. Where the mean moves, each
    side alone still holds: if no window's mean exceeds m, no lower bound does, but for a chance of alpha / 2.
    """
    price = math.log(2 / alpha)
    rows, total, spread = 0, 0.0, 0.0
    weight = centre = variance = 0.0
    lower, upper = 0.0, 1.0
    bounds = []
    for window in windows:
        n = window.labelled
        if n > 0:
            mean = (0.5 + total) / (rows + 1)
            bet = _bet((0.25 + spread) / (rows + 1), rows + n, price)
            deviation = _deviation(window, mean)
            weight += bet * n
            centre += bet * window.loss_sum
            variance += deviation * (-math.log1p(-bet) - bet)
            margin = (price + variance) / weight
            lower = max(lower, centre / weight - margin)
            upper = min(upper, centre / weight + margin)
            rows, total = rows + n, total + window.loss_sum
            spread += _deviation(window, (0.5 + total) / (rows + 1))
        bounds.append(Bounds(rows, lower, upper))
    return tuple(bounds)


def rise_bound(windows: Sequence[WindowSums], *, alpha: float) -> float:
    """Return a lower bound on the greatest mean loss that any run of windows up to now had.

    A sequence is started every fourth window, so that a rise after long good service is not averaged away;
    the m-th gets a share ``1 / (m (m + 1))`` of alpha, which sum to at most alpha. The bound never falls as
    windows are added.
    """
    number = np.arange(1, (len(windows) + _STRIDE - 1) // _STRIDE + 1)
    prices = np.log(number * (number + 1) / alpha)  # of log(2 / a), a twice the m-th share
    rows, total, spread, weight, centre, variance, lower = np.zeros((7, len(number)))
    for i, window in enumerate(windows):
        n = window.labelled
        if n == 0:
            continue
        on = slice(i // _STRIDE + 1)  # the sequences that were started; all take the window in at once
        mean = (0.5 + total[on]) / (rows[on] + 1)
        known, after = (0.25 + spread[on]) / (rows[on] + 1), rows[on] + n
        bet = np.minimum(_MAX_BET, np.sqrt(2 * prices[on] / (known * after * np.log1p(after))))
        weight[on] += bet * n
        centre[on] += bet * window.loss_sum
        variance[on] += _deviations(window, mean) * (-np.log1p(-bet) - bet)
        lower[on] = np.maximum(lower[on], (centre[on] - prices[on] - variance[on]) / weight[on])
        rows[on] += n
        total[on] += window.loss_sum
        spread[on] += _deviations(window, (0.5 + total[on]) / (rows[on] + 1))
    return float(lower.max(initial=0.0))


def _bet(variance: float, rows: int, price: float) -> float:
    return min(_MAX_BET, math.sqrt(2 * price / (variance * rows * math.log1p(rows))))


def _deviations(window: WindowSums, means: NDArray[np.float64]) -> NDArray[np.float64]:
    squares = window.loss_squares - 2 * means * window.loss_sum + window.labelled * means * means
    return np.maximum(0.0, squares)


def _deviation(window: WindowSums, mean: float) -> float:
    squares = window.loss_squares - 2 * mean * window.loss_sum + window.labelled * mean * mean
    return max(0.0, squares)
