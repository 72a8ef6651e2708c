"""Has the champion's loss risen above its level at promotion?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import NormalDist

from raywf.core.records import Evidence, ModelVersion
from raywf.core.settings import RetrainSettings
from raywf.policy.sequence import rise_bound

_LABELLED = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class LossFinding:
    """The lower bound on the loss and the bound that it must not exceed; `rows` were judged until `until`.

    `level` is None while too few labels are known to tell.
    """

    rows: int
    lower: float = 0.0
    level: float | None = None
    limit: float = 1.0
    until: datetime | None = None

    @property
    def risen(self) -> bool:
        """Whether the rise is beyond doubt and tolerance."""
        return self.level is not None and self.lower > self.limit


def judge_loss(
    evidence: Sequence[Evidence],
    champion: ModelVersion,
    settings: RetrainSettings,
    *,
    since: datetime | None,
    now: datetime,
    min_labelled: int,
) -> LossFinding:
    """Compare the champion's loss since its promotion with its level at the gate.

    Windows count once four fifths of their rows are labelled and all are as old as the version's snapshot
    wanted its rows to be; those that came to count after `since`. Where the version has no level, the first
    windows with `min_labelled` labels give it and the later ones are judged. The limit is the level, plus its
    one-sided standard-error margin at `settings.alpha`, plus `settings.tolerance`.
    """
    windows = sorted(
        (e for e in evidence if e.version == champion.version and (since is None or _judged_from(e) > since)),
        key=lambda e: e.start,
    )
    windows = [e for e in windows if _is_mature(e, now)]
    level, level_rows = champion.loss, champion.loss_rows
    if level is None:
        level, level_rows, windows = _first_level(windows, min_labelled)
    rows = sum(e.labelled for e in windows)
    if level is None or rows < min_labelled:
        return LossFinding(rows=rows)
    margin = NormalDist().inv_cdf(1 - settings.alpha) * _deviation(windows) / math.sqrt(max(level_rows, 1))
    return LossFinding(
        rows=rows,
        lower=rise_bound(windows, alpha=settings.alpha),
        level=level,
        limit=level + margin + settings.tolerance,
        until=windows[-1].end,
    )


def _judged_from(window: Evidence) -> datetime:
    return window.end + timedelta(seconds=window.maturity_s)


def _is_mature(window: Evidence, now: datetime) -> bool:
    aged = _judged_from(window) <= now or not window.maturity_s
    return aged and window.labelled > 0 and window.labelled >= _LABELLED * window.rows


def _first_level(windows: list[Evidence], min_labelled: int) -> tuple[float | None, int, list[Evidence]]:
    rows, total = 0, 0.0
    for i, window in enumerate(windows):
        rows, total = rows + window.labelled, total + window.loss_sum
        if rows >= min_labelled:
            return total / rows, rows, windows[i + 1 :]
    return None, 0, []


def _deviation(windows: list[Evidence]) -> float:
    rows = sum(e.labelled for e in windows)
    mean = sum(e.loss_sum for e in windows) / rows
    return math.sqrt(max(0.0, sum(e.loss_squares for e in windows) / rows - mean * mean))
