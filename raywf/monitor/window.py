"""The rows of one model version in one window, and the evidence that they give."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np

from raywf.core.records import Drift, Evidence
from raywf.monitor.drift import Codes, measure_drift
from raywf.monitor.interval import metric_interval
from raywf.monitor.reference import Reference

NO_LABEL = math.nan


@dataclass(slots=True)
class Window:
    """Rows in the order of arrival; a row that was withdrawn stays with `alive` False.

    `codes` are chunks of shape ``(n_rows, n_features)`` in the same order. `cached` is the evidence since the
    last change.
    """

    reference: Reference
    start: datetime
    end: datetime
    ids: list[str] = field(default_factory=list)
    scores: list[tuple[float, ...]] = field(default_factory=list)
    labels: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    alive: list[bool] = field(default_factory=list)
    codes: list[Codes] = field(default_factory=list)
    cached: Evidence | None = None

    def append(self, ids: Sequence[str], scores: Sequence[tuple[float, ...]], codes: Codes) -> int:
        """Add rows without labels and return the position of the first."""
        first = len(self.ids)
        self.ids.extend(ids)
        self.scores.extend(scores)
        self.codes.append(codes)
        self.labels.extend([NO_LABEL] * len(ids))
        self.values.extend([math.nan] * len(ids))
        self.alive.extend([True] * len(ids))
        self.cached = None
        return first

    def label(self, row: int, label: float, value: float | None) -> None:
        """Set a row's label and value."""
        self.labels[row] = label
        self.values[row] = math.nan if value is None else value
        self.cached = None

    def withdraw(self, row: int) -> None:
        """Take a row out."""
        self.alive[row] = False
        self.cached = None

    def evidence(self, metric: str, *, min_labelled: int) -> Evidence | None:
        """Sum up the rows, in the order of their ids; None if there are none."""
        if self.cached is None:
            self.cached = self._evidence(metric, min_labelled)
        return self.cached

    def _evidence(self, metric: str, min_labelled: int) -> Evidence | None:
        rows = np.array([i for i in np.argsort(np.array(self.ids)) if self.alive[i]], dtype=np.int64)
        if len(rows) == 0:
            return None
        labels, values = np.array(self.labels)[rows], np.array(self.values)[rows]
        known = ~np.isnan(labels)
        scores = np.array(self.scores, dtype=np.float64)[rows]
        losses = self.reference.losses(labels[known], scores[known])
        interval = None
        if known.sum() >= min_labelled:
            threshold = self.reference.threshold
            interval = metric_interval(metric, labels[known], scores[known], threshold=threshold)
        figure, low, high = interval or (None, None, None)
        paid = values[~np.isnan(values)]
        return Evidence(
            version=self.reference.version,
            start=self.start,
            end=self.end,
            rows=len(rows),
            labelled=int(known.sum()),
            loss_sum=math.fsum(losses),
            loss_squares=math.fsum(losses**2),
            metric=figure,
            metric_low=low,
            metric_high=high,
            value_mean=math.fsum(paid) / len(paid) if len(paid) else None,
            drift=self._drift(rows),
            maturity_s=self.reference.maturity_s,
        )

    def _drift(self, rows: np.ndarray) -> tuple[Drift, ...]:
        codes = np.concatenate(self.codes)[rows]
        return tuple(measure_drift(codes[:, i], p) for i, p in enumerate(self.reference.profile))
