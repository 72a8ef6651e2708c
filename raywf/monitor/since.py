"""How far inputs, answers and labels moved from one window of a version to the next."""

from __future__ import annotations

from dataclasses import dataclass

from raywf.core.metrics import Array
from raywf.core.records import Drift
from raywf.core.settings import MonitorSettings
from raywf.monitor.distance import stability_index
from raywf.monitor.drift import bin_counts, compare_bins, control_drift
from raywf.monitor.histogram import Histogram, telling
from raywf.monitor.labels import LabelPool
from raywf.monitor.rows import Rows
from raywf.monitor.window import Window


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """Stability indices of a window beside the one before; of answers and labels where rows enough tell."""

    drift: tuple[Drift, ...]
    answer_psi: float | None = None
    label_psi: float | None = None


def moved_since(
    before: Window, after: Window, table: Rows, pool: LabelPool, *, settings: MonitorSettings
) -> Moved | None:
    """Return how far a window moved from one before it, both of one version; None while that is not known.

    Answers and labels have an index where both windows have rows enough to tell (`monitor.min_labelled`, and
    of labels `labelled_share`), and the version has bins for them: those of the gate's rows.
    """
    of = after.reference
    if of is None:
        return None
    held = before.members(table), after.members(table)
    drift = []
    for column, profile in zip(table.codes, of.profile, strict=False):
        were, are = (bin_counts(column[rows], profile) for rows in held)
        drift.append(compare_bins(profile.name, were, are))
    expected = of.expectations
    if expected is None:
        return Moved(drift=control_drift(drift))
    told = []
    for window, rows in zip((before, after), held, strict=True):
        scores, whole = table.whole_scores(rows)
        whole &= scores.shape[1] == of.width
        told.append(telling(window.labels(table, pool, rows), scores, whole, settings=settings))
    answers, labels = zip(*told, strict=True)
    return Moved(
        drift=control_drift(drift),
        answer_psi=_psi(expected.answers, *answers),
        label_psi=_psi(expected.labels, *labels),
    )


def _psi(bins: Histogram | None, before: Array, after: Array) -> float | None:
    if bins is None or not len(before) or not len(after):
        return None
    return stability_index(bins.count(before), bins.count(after))
