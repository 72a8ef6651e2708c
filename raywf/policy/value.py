"""Has what a prediction earns fallen? The mean value of the newest windows beside that of the first ones.

Values have no bounds, so that the sequence of the loss does not serve: the bound is the one-sided asymptotic
confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas (Annals of Statistics 2024, arXiv
2103.06476: a normal mixture, one-sided), which holds however often one looks once
there are rows enough for a normal limit. As for the loss one is started every fourth window, so that a fall
after long good service is not averaged away; the m-th has a share ``1 / (m (m + 1))`` of alpha.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from raywf.core.clock import format_time
from raywf.core.records import Evidence
from raywf.policy.loss import mature_windows
from raywf.policy.question import Question, Trigger

VALUE = "value"
_STRIDE = 4  # windows between the starts


@dataclass(frozen=True, slots=True)
class Sums:
    """Of the values in some windows: their number, mean and the sum of squares about it."""

    rows: int = 0
    mean: float = 0.0
    spread: float = 0.0

    @property
    def deviation(self) -> float:
        """The standard deviation; 0 without rows."""
        return math.sqrt(self.spread / self.rows) if self.rows else 0.0

    def with_window(self, window: Evidence) -> Sums:
        """Return the sums with one more window; great values of little spread lose no digits by it.

        Chan, Golub and LeVeque, The American Statistician 37 (1983).
        """
        n, mean = window.value_rows, window.value_mean
        if mean is None or n == 0:
            return self
        rows, apart = self.rows + n, mean - self.mean
        inner = max(0.0, window.value_squares - n * mean * mean)
        outer = apart * apart * self.rows * n / rows
        return Sums(rows, self.mean + apart * n / rows, self.spread + inner + outer)


def sum_up(windows: Sequence[Evidence]) -> Sums:
    """Return the sums over windows; those without values add nothing."""
    return functools.reduce(Sums.with_window, windows, Sums())


def radius(rows: int, *, alpha: float, tuned_for: int) -> float:
    """Return how many standard deviations the mean of so many rows may lie off, one-sided, at any time.

    It is tightest about `tuned_for` rows.

    >>> round(radius(1000, alpha=0.05, tuned_for=1000), 3), round(radius(4000, alpha=0.05, tuned_for=1000), 3)
    (0.088, 0.045)
    """
    price = -2 * math.log(2 * alpha)
    rho = (price + math.log(price + 1)) / tuned_for  # its square
    grown = rows * rho + 1
    return math.sqrt(2 * grown / (rows * rows * rho) * math.log1p(math.sqrt(grown) / (2 * alpha)))


def upper_bound(windows: Sequence[Evidence], *, deviation: float, alpha: float, tuned_for: int) -> float:
    """Return an upper bound on the least mean value that a run of windows up to the last one has.

    `deviation` is that of all windows known: where few rows earn much, a run in which none does has both a
    small mean and a small deviation of its own.
    """
    best, sums = math.inf, Sums()
    for start in range(len(windows) - 1, -1, -1):
        sums = sums.with_window(windows[start])
        if start % _STRIDE == 0 and sums.rows >= tuned_for:
            m = start // _STRIDE + 1
            reach = radius(sums.rows, alpha=alpha / (m * (m + 1)), tuned_for=tuned_for)
            best = min(best, sums.mean + max(deviation, sums.deviation) * reach)
    return best


def offer_value(asked: Question) -> Trigger | None:
    """Return whether the mean value has fallen by more than the share `value_drop`; None if not set.

    The level is the mean of the champion's first mature windows with `min_labelled` values, less its own
    one-sided standard-error margin; what is judged are the mature windows after them and the last change.
    """
    drop, history, champion = asked.settings.value_drop, asked.history, asked.history.champion
    if drop is None or champion is None:
        return None
    ours = mature_windows(asked.evidence, champion.version, since=history.since, now=asked.now)
    ours = [e for e in ours if e.value_rows]
    first, later = _parted(ours, asked.min_labelled)
    change = mature_windows(asked.evidence, champion.version, since=history.last_change, now=asked.now)
    new = {e.start for e in change}
    recent = [e for e in later if e.start in new]
    level, sums = sum_up(first), sum_up(recent)
    if not recent or sums.rows < asked.min_labelled:
        told = f"{level.rows:,} in the first windows, {sums.rows:,} since, {asked.min_labelled:,} are wanted"
        return Trigger(cause=VALUE, words=f"too few values to tell whether they fall: {told}")
    margin = NormalDist().inv_cdf(1 - asked.settings.alpha) * level.deviation / math.sqrt(level.rows)
    limit = level.mean - margin - drop * abs(level.mean)
    upper = upper_bound(
        recent,
        deviation=sum_up(ours).deviation,
        alpha=asked.settings.alpha,
        tuned_for=max(1, asked.min_labelled),
    )
    return Trigger(
        cause=VALUE,
        words=(
            f"the mean value is {sums.mean:.4g} ({sums.rows:,} values), lately at most {upper:.4g} (alpha "
            f"{asked.settings.alpha:g}); below {limit:.4g} it is worth a retraining: {level.mean:.4g} in the "
            f"champion's first windows, its margin and a fall by {drop:.0%}"
        ),
        due=upper < limit,
        window=format_time(recent[-1].end),
    )


def _parted(windows: list[Evidence], min_values: int) -> tuple[list[Evidence], list[Evidence]]:
    """Return the first windows with so many values, and the rest."""
    rows = 0
    for i, window in enumerate(windows):
        rows += window.value_rows
        if rows >= min_values:
            return windows[: i + 1], windows[i + 1 :]
    return windows, []
