"""The rows of one model version in one window, and the evidence that they give."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from raywf.core.clock import from_microseconds
from raywf.core.metrics import Array, Metric
from raywf.core.records import Drift, Evidence, tells_range
from raywf.core.settings import MonitorSettings
from raywf.monitor.attribution import BinLosses, bin_losses
from raywf.monitor.drift import Codes, as_in_training, control_drift, measure_drift, unlike_training
from raywf.monitor.earned import earned
from raywf.monitor.ends import ANSWERS, LABELS, compare_ends
from raywf.monitor.estimate import Estimate
from raywf.monitor.expectations import MOST_ROWS
from raywf.monitor.histogram import telling
from raywf.monitor.interval import metric_interval
from raywf.monitor.key_index import RowNumbers
from raywf.monitor.labels import NONE, LabelPool
from raywf.monitor.reference import Reference
from raywf.monitor.rowfiles import Place
from raywf.monitor.rows import Rows


@dataclass(frozen=True, slots=True)
class Tally:
    """How many rows a window has, how many with a label and how many whose label is of no class."""

    rows: int
    labelled: int
    odd: int


@dataclass(slots=True)
class _Held:
    """A window's rows: in order, and those that came since; `disturbed` if some are no longer its own.

    It is replaced as a whole once it is in order, so that two threads which only ask do no harm.
    """

    ordered: RowNumbers
    fresh: list[RowNumbers] = field(default_factory=list)
    disturbed: bool = False


@dataclass(slots=True)
class Window:
    """Which rows of the table are a window's; `slot` is its number there.

    `start` and `end` are microseconds since 1970. `reference` is None while the version is not known, and
    `waiting` then holds each row's features as JSON: of several predictions between which only the bins
    decide, those of each. `saved` is where a checkpoint holds the rows as they are.
    """

    version: str
    start: int
    end: int
    slot: int
    reference: Reference | None = None
    waiting: dict[int, list[bytes]] = field(default_factory=dict)
    cached: Evidence | None = None
    saved: Place | None = None
    _held: _Held = field(default_factory=lambda: _Held(np.empty(0, np.int64)))
    _inputs: tuple[tuple[Drift, ...], int | None] | None = None
    _estimates: tuple[Estimate | None, Estimate | None] | None = None
    _tally: Tally | None = None

    def add(self, rows: RowNumbers) -> None:
        """Take in rows that the table says are this window's."""
        self._held.fresh.append(rows)
        self.relabel()
        self._inputs = self._estimates = None

    def withdraw(self, rows: RowNumbers) -> None:
        """Take rows out that the table says are another window's, or none's."""
        self._held.disturbed = True
        self._inputs = self._estimates = None
        self.relabel()
        for row in rows.tolist() if self.waiting else ():
            self.waiting.pop(row, None)

    def admit(self, reference: Reference) -> None:
        """Its version is known, and the table holds the bins of the rows that waited."""
        self.reference, self.waiting = reference, {}
        self.relabel()

    def relabel(self) -> None:
        """Forget what rests on labels: some have changed."""
        self.cached = self.saved = self._tally = None

    def members(self, table: Rows) -> RowNumbers:
        """Return the rows in the order of their keys."""
        held = self._held
        if held.fresh or held.disturbed:
            rows = np.concatenate([held.ordered, *held.fresh])
            if held.disturbed:
                rows = np.unique(rows)
                rows = rows[table.windows[rows] == self.slot]
            held = self._held = _Held(rows[np.argsort(table.keys[rows])])
        return held.ordered

    def tally(self, table: Rows, pool: LabelPool) -> Tally:
        """Count the rows; without a reference no label is known."""
        if self._tally is None:
            rows = self.members(table)
            labels = self.labels(table, pool, rows)
            labelled = int(np.count_nonzero(~np.isnan(labels)))
            told = int(np.count_nonzero(table.kinds[rows] != NONE))
            self._tally = Tally(len(rows), labelled, told - labelled)
        return self._tally

    def evidence(
        self, table: Rows, pool: LabelPool, metric: Metric, *, settings: MonitorSettings
    ) -> Evidence | None:
        """Sum up the rows, in the order of their keys; None if there are none or the version is not known."""
        if self.cached is None and self.reference is not None:
            self.cached = self._evidence(self.reference, table, pool, (metric, settings))
        return self.cached

    def losses_by_bin(self, table: Rows, pool: LabelPool) -> BinLosses | None:
        """Sum labelled rows' losses up by the features' bins; None while the version is not known."""
        reference = self.reference
        if reference is None:
            return None
        rows = self.members(table)
        labels = self.labels(table, pool, rows)
        scores, whole = table.whole_scores(rows)
        known = ~np.isnan(labels) & whole
        losses = reference.losses(labels[known], scores[known])
        return bin_losses(self._codes(reference, table, rows[known]), losses, reference.profile)

    def _evidence(
        self, reference: Reference, table: Rows, pool: LabelPool, asked: tuple[Metric, MonitorSettings]
    ) -> Evidence | None:
        metric, settings = asked
        rows = self.members(table)
        if len(rows) == 0:
            return None
        labels, values = self.labels(table, pool, rows), table.values[rows]
        scores, whole = table.whole_scores(rows)
        known = ~np.isnan(labels) & whole
        losses = reference.losses(labels[known], scores[known])
        interval = None
        if known.sum() >= settings.min_labelled:
            threshold = reference.threshold
            interval = metric_interval(metric, labels[known], scores[known], threshold=threshold)
        figure, low, high = interval or (None, None, None)
        if settings.values and reference.classes and scores.shape[1] == reference.width:
            paid = earned(
                labels[known],
                scores[known],
                classes=reference.classes,
                threshold=reference.threshold,
                values=settings.values,
            )
            values[known] = np.where(np.isnan(values[known]), paid, values[known])
        paid = values[~np.isnan(values)]
        estimate, loss = self._estimated(reference, table, rows[whole], scores[whole])
        if estimate is not None and estimate.metric != metric.name:  # the workflow's is another since
            estimate = None
        drift, unlike = self._moved(reference, table, rows)
        ends = _ends(reference, labels, scores, whole, settings=settings)
        return Evidence(
            version=self.version,
            start=from_microseconds(self.start),
            end=from_microseconds(self.end),
            rows=len(rows),
            labelled=int(known.sum()),
            loss_sum=math.fsum(losses.tolist()),
            loss_squares=math.fsum((losses**2).tolist()),
            metric=figure,
            metric_low=low,
            metric_high=high,
            value_mean=math.fsum(paid.tolist()) / len(paid) if len(paid) else None,
            value_rows=len(paid),
            value_squares=_squares(paid),
            drift=drift,
            maturity_s=reference.maturity_s,
            estimate=estimate.value if estimate else None,
            estimate_low=estimate.low if estimate else None,
            estimate_high=estimate.high if estimate else None,
            estimated_loss=loss.value if loss else None,
            estimated_error=loss.error if loss else 0.0,
            labelled_share=settings.labelled_share,
            unlike=unlike,
            answers=ends.get(ANSWERS),
            labels=ends.get(LABELS),
        )

    def labels(self, table: Rows, pool: LabelPool, rows: RowNumbers) -> Array:
        """Return the labels of some of its rows as the version has them, nan where there is none."""
        if self.reference is None:
            return np.full(len(rows), np.nan)
        return pool.values(self.reference, table.kinds[rows], table.numbers[rows])

    def _estimated(
        self, reference: Reference, table: Rows, rows: RowNumbers, scores: Array
    ) -> tuple[Estimate | None, Estimate | None]:
        """Return the metric and the mean loss that are to be expected; labels change nothing in them."""
        if self._estimates is None:
            known, some = reference.expectations, slice(MOST_ROWS)  # keys are hashes: the first are any
            codes = self._codes(reference, table, rows[some])
            self._estimates = known.estimate(codes, scores[some]) if known else (None, None)
        return self._estimates

    def _codes(self, reference: Reference, table: Rows, rows: RowNumbers) -> Codes:
        """Return the rows' bins, as rows of training may have them, shape ``(n_rows, n_features)``."""
        pairs = zip(table.codes, reference.profile, strict=False)
        columns = [as_in_training(codes[rows], of) for codes, of in pairs]
        return np.array(columns, dtype=np.uint8).reshape(len(columns), len(rows)).T

    def _moved(
        self, reference: Reference, table: Rows, rows: RowNumbers
    ) -> tuple[tuple[Drift, ...], int | None]:
        """Return each feature's drift, and how many rows have a value that training had not."""
        if self._inputs is None:
            drift, odd = [], np.zeros(len(rows), dtype=bool)
            for column, of in zip(table.codes, reference.profile, strict=False):
                codes = column[rows]
                drift.append(measure_drift(codes, of))
                odd |= unlike_training(codes, of)
            told = int(odd.sum()) if tells_range(reference.profile) else None
            self._inputs = control_drift(drift), told
        return self._inputs


def _ends(
    reference: Reference,
    labels: Array,
    scores: Array,
    whole: NDArray[np.bool_],
    *,
    settings: MonitorSettings,
) -> dict[str, Drift]:
    """Return how far answers and labels have moved since the promotion, where rows enough tell."""
    expected = reference.expectations
    if expected is None or scores.shape[1] != reference.width:
        return {}
    told = telling(labels, scores, whole, settings=settings)
    counts = {}
    for name, bins, values in zip((ANSWERS, LABELS), (expected.answers, expected.labels), told, strict=True):
        if bins is not None and len(values):
            counts[name] = np.asarray(bins.counts), bins.count(values)
    return compare_ends(counts, ordered=reference.width == 1)


def _squares(values: Array) -> float:
    """Return the sum of squares; at most the largest number, for a checkpoint's JSON has no infinity."""
    with np.errstate(over="ignore"):
        return min(float(np.sum(values**2)), sys.float_info.max)
