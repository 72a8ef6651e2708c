"""Has the champion's loss risen above its level at promotion?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import NormalDist

from raywf.core.records import Evidence, ModelVersion
from raywf.core.retrain_settings import RetrainSettings
from raywf.policy.sequence import rise_bound


@dataclass(frozen=True, slots=True, kw_only=True)
class LossFinding:
    """The lower bound on the loss and the bound that it must not exceed; `rows` were judged until `until`.

    Their labels are a fair sample since `told`; a look before that cannot have had all of them.
    `level` is None while too few labels are known to tell.
    """

    rows: int
    lower: float = 0.0
    level: float | None = None
    limit: float = 1.0
    until: datetime | None = None
    told: datetime | None = None

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
    windows = mature_windows(evidence, champion.version, since=since, now=now)
    level, level_rows, windows = level_of(windows, champion, min_labelled=min_labelled)
    rows = sum(e.labelled for e in windows)
    if level is None or rows < min_labelled:
        return LossFinding(rows=rows)
    margin = level_margin(windows, level_rows, alpha=settings.alpha)
    return LossFinding(
        rows=rows,
        lower=rise_bound(windows, alpha=settings.alpha),
        level=level,
        limit=level + margin + settings.tolerance,
        until=windows[-1].end,
        told=max(e.judged_from for e in windows),
    )


def mature_windows(
    evidence: Sequence[Evidence], version: str, *, since: datetime | None, now: datetime
) -> list[Evidence]:
    """Return the version's windows that count by now and did not by `since`, in time order."""
    mine = [e for e in evidence if e.version == version and (since is None or e.judged_from > since)]
    return sorted((e for e in mine if e.is_mature(now)), key=lambda e: e.start)


def level_of(
    windows: list[Evidence], champion: ModelVersion, *, min_labelled: int
) -> tuple[float | None, int, list[Evidence]]:
    """Return the champion's level, its rows and the windows to judge by it; None while it is not known.

    It is that of the gate, else that of the first windows, which then are not judged.
    """
    if champion.loss is not None:
        return champion.loss, champion.loss_rows, windows
    rows, total = 0, 0.0
    for i, window in enumerate(windows):
        rows, total = rows + window.labelled, total + window.loss_sum
        if rows >= min_labelled:
            return total / rows, rows, windows[i + 1 :]
    return None, 0, []


def level_margin(windows: Sequence[Evidence], level_rows: int, *, alpha: float) -> float:
    """Return the one-sided standard-error margin of a level that has so many rows of the windows' spread."""
    rows = sum(e.labelled for e in windows)
    mean = sum(e.loss_sum for e in windows) / rows
    deviation = math.sqrt(max(0.0, sum(e.loss_squares for e in windows) / rows - mean * mean))
    return NormalDist().inv_cdf(1 - alpha) * deviation / math.sqrt(max(level_rows, 1))
