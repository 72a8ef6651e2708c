"""Whether a search can learn from rows at all: looked at before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from raywf.core.errors import ValidationError
from raywf.core.metrics import Groups, Metric
from raywf.core.own import OwnScore
from raywf.core.records import Snapshot

Index = NDArray[np.int64]
Labels = NDArray[np.float64]


def check_labels(snapshot: Snapshot, labels: Labels, rest: Index) -> None:
    """Refuse labels that nothing can be learned from; `rest` are the rows that fits may see.

    Raises:
        ValidationError: if one is missing, or all that fits may see are alike.
    """
    where = f"label {snapshot.label!r} of snapshot {snapshot.id}"
    bad = int((~np.isfinite(labels)).sum())
    if bad:
        raise ValidationError(
            f"{where} is missing or not finite in {bad} of {len(labels)} rows; leave those rows out"
        )
    if not len(rest):
        raise ValidationError(f"{where}: no row is left to fit on; give more rows or lower gate.newest")
    seen = labels[rest]
    if seen.min() == seen.max():
        alike = snapshot.classes[int(seen[0])] if snapshot.classes else f"{seen[0]:g}"
        raise ValidationError(
            f"{where} is {alike!r} in all {len(seen)} rows to fit on (the gate keeps "
            f"{len(labels) - len(seen)} others); give rows of another value or a longer window"
        )


def check_weights(weights: NDArray[np.float64]) -> None:
    """Refuse weights of which one would spoil all; a snapshot is checked by a sample of its rows.

    Raises:
        ValidationError: if one is missing, below 0 or not finite, or all are 0.
    """
    bad = int((~(np.isfinite(weights) & (weights >= 0))).sum())
    if bad or not weights.any():
        what = f"missing, below 0 or not a number in {bad} of" if bad else "0 in all"
        raise ValidationError(
            f"the weight (the column that spine.weight names) is {what} {len(weights)} rows; each row needs "
            f"one of at least 0, and not all may be 0"
        )


def scorable(
    metric: Metric, labels: Labels, fit: Index, score: Index, *, n_classes: int, groups: Groups
) -> bool:
    """Return whether a fold tells anything: several classes to fit, and the metric is defined on the others.

    An area under the curve is not where all rows are of one class. A metric of the user's own is not asked.
    """
    if not len(fit) or not len(score):
        return False
    if n_classes and labels[fit].min() == labels[fit].max():
        return False
    if isinstance(metric.of, OwnScore):
        return True
    width = n_classes if n_classes > 2 else 1
    even = np.full((len(score), width), 1 / max(2, width))
    at = None if groups is None else groups[score]
    with np.errstate(all="ignore"):
        return bool(np.isfinite(metric.score(labels[score], even, groups=at)))


def no_fold(metric: Metric, labels: Labels, classes: Sequence[str], *, folds: int) -> ValidationError:
    """Return what to say where no fold is scorable; `labels` are those of the rows to fit on."""
    if not classes:
        return ValidationError(
            f"{metric.name} is not defined on any of {folds} folds of {len(labels)} rows; "
            f"give more rows or set another metric"
        )
    counts = np.bincount(labels.astype(int), minlength=len(classes))
    rare = int(np.argmin(counts))
    return ValidationError(
        f"class {classes[rare]!r} has {counts[rare]} of {len(labels)} rows to fit on: none of {folds} folds "
        f"has rows of it both to fit and to score, which {metric.name} needs; give more of them, merge it "
        f"with another class or set another metric"
    )
