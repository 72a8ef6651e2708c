"""Is the loss expected to have risen in windows that no label has judged yet?"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

from raywf.core.clock import format_time
from raywf.core.records import Evidence
from raywf.policy.loss import level_margin, level_of, mature_windows
from raywf.policy.question import Question, Trigger

ESTIMATE = "estimate"
_SMALL = 0.5  # of the rise that is expected: what the estimator may have been off by


def offer_estimate(asked: Question) -> Trigger | None:
    """Return whether the loss that is expected without labels has risen beyond doubt; None if not set.

    What is expected are the windows since the last change that labels have not judged. Its lower bound, with
    the standard errors of the windows added up as if all were off to the same side, must lie above what
    `judge_loss` allows: level, margin and tolerance. The estimator must have proven itself on the champion's
    windows that have both: its mean absolute error, by their rows, is at most half of the rise. Unlike that
    of the loss this bound holds for one look, not for all together.
    """
    history, champion, settings = asked.history, asked.history.champion, asked.settings
    if not settings.estimated or champion is None:
        return None
    judged = mature_windows(asked.evidence, champion.version, since=history.since, now=asked.now)
    known = {e.start for e in judged}
    open_ones = [e for e in asked.windows(since=history.last_change) if e.start not in known]
    expected = [e for e in open_ones if e.estimated_loss is not None and e.rows]
    rows = sum(e.rows for e in expected)
    level, level_rows, later = level_of(judged, champion, min_labelled=asked.min_labelled)
    proof = [e for e in later if e.estimated_loss is not None]
    proven = sum(e.labelled for e in proof)
    least = max(1, asked.min_labelled)
    if level is None or min(proven, rows) < least:
        told = f"{rows:,} of {least:,} rows without a label, {proven:,} of {least:,} with one to prove it by"
        return Trigger(cause=ESTIMATE, words=f"too few rows to estimate the loss: {told}")
    limit = level + level_margin(later, level_rows, alpha=settings.alpha) + settings.tolerance
    mean, error = _expected(expected, rows)
    lower = mean - NormalDist().inv_cdf(1 - settings.alpha) * error
    off = _error(proof, proven)
    trusted = off <= _SMALL * (mean - level)
    words = (
        f"without labels a loss of {mean:.4f} is expected, at least {lower:.4f} (alpha {settings.alpha:g}, "
        f"{rows:,} rows); above {limit:.4f} it is worth a retraining: {level:.4f} at promotion, its margin "
        f"and tolerance {settings.tolerance:g}; where labels came the estimate was off by {off:.4f}"
    )
    if lower > limit and not trusted:
        words += ", too much beside the rise"
    return Trigger(
        cause=ESTIMATE, words=words, due=lower > limit and trusted, window=format_time(expected[-1].end)
    )


def _expected(windows: Sequence[Evidence], rows: int) -> tuple[float, float]:
    """Return the expected mean loss and its standard error, errors fully dependent."""
    mean = sum(e.rows * (e.estimated_loss or 0.0) for e in windows) / rows
    return mean, sum(e.rows * e.estimated_error for e in windows) / rows


def _error(windows: Sequence[Evidence], labelled: int) -> float:
    """Return how far the windows' estimates lay from the mean losses that came, on average."""
    off = (abs(e.labelled * (e.estimated_loss or 0.0) - e.loss_sum) for e in windows)
    return sum(off) / labelled
