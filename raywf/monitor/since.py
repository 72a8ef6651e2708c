"""How far inputs, answers and labels moved from one window of a version to the next."""

from __future__ import annotations

from dataclasses import dataclass

from raywf.core.records import Drift
from raywf.core.settings import MonitorSettings
from raywf.monitor.drift import compare_codes, control_drift
from raywf.monitor.ends import ANSWERS, LABELS, compare_ends
from raywf.monitor.histogram import telling
from raywf.monitor.labels import LabelPool
from raywf.monitor.rows import Rows
from raywf.monitor.window import Window


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """How far a window moved from the one before; answers and labels where rows enough tell."""

    drift: tuple[Drift, ...]
    answers: Drift | None = None
    labels: Drift | None = None


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
        were, are = (column[rows] for rows in held)
        drift.append(compare_codes(were, are, profile))
    expected = of.expectations
    if expected is None:
        return Moved(drift=control_drift(drift))
    told = []
    for window, rows in zip((before, after), held, strict=True):
        scores, whole = table.whole_scores(rows)
        whole &= scores.shape[1] == of.width
        told.append(telling(window.labels(table, pool, rows), scores, whole, settings=settings))
    answers, labels = zip(*told, strict=True)
    counts = {}
    for name, bins, (were, are) in ((ANSWERS, expected.answers, answers), (LABELS, expected.labels, labels)):
        if bins is not None and len(were) and len(are):
            counts[name] = bins.count(were), bins.count(are)
    return Moved(drift=control_drift(drift), **compare_ends(counts, ordered=of.width == 1))
