"""How a model version does on the rows of each value of a column, those of several windows together."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from raywf.core.errors import SettingsError, did_you_mean
from raywf.core.metrics import Array, Metric
from raywf.monitor.attribution import LEAST_ROWS
from raywf.monitor.drift import MISSING, bin_names
from raywf.monitor.interval import metric_interval
from raywf.monitor.key_index import RowNumbers
from raywf.monitor.labels import LabelPool
from raywf.monitor.reference import Reference
from raywf.monitor.rows import Rows

_Z = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Asked:
    """The workflow's metric, and how many labelled rows a slice needs for figures of quality."""

    metric: Metric
    min_labelled: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceEvidence:
    """The rows whose value of a column lies in one bin of its training profile.

    `metric` and the mean bounded `loss` have 95 % intervals; each is None where too few rows have labels.
    `promised` is the mean loss on the gate's rows of the slice, None where those are fewer than 30.
    """

    value: str
    rows: int
    labelled: int
    metric: float | None = None
    metric_low: float | None = None
    metric_high: float | None = None
    loss: float | None = None
    loss_low: float | None = None
    loss_high: float | None = None
    promised: float | None = None


def slice_evidence(
    table: Rows, pool: LabelPool, chosen: RowNumbers, of: Reference, column: str, *, asked: Asked
) -> tuple[SliceEvidence, ...]:
    """Return the slices of a column among the chosen rows of a version, the largest first.

    Raises:
        SettingsError: if the version has no such column.
    """
    columns = [profile.name for profile in of.profile]
    if column not in columns:
        raise SettingsError(f"version {of.version} has no column {column!r}{did_you_mean(column, columns)}")
    if not len(chosen):
        return ()
    at = columns.index(column)
    names = bin_names(of.profile[at])
    held = table.codes[at][chosen]
    bins = np.where(held == MISSING, len(names) - 1, held)
    labels = pool.values(of, table.kinds[chosen], table.numbers[chosen])
    scores, whole = table.whole_scores(chosen)
    known = ~np.isnan(labels) & whole
    found = []
    for number, name in enumerate(names):
        inside = bins == number
        told = inside & known
        if inside.any():
            one = SliceEvidence(
                value=name,
                rows=int(inside.sum()),
                labelled=int(told.sum()),
                promised=_promised(of, at, number),
                **_figures(labels[told], scores[told], of, asked),
            )
            found.append(one)
    return tuple(sorted(found, key=lambda one: -one.rows))


def _figures(labels: Array, scores: Array, of: Reference, asked: Asked) -> dict[str, float | None]:
    if len(labels) < max(1, asked.min_labelled):
        return {}
    losses = of.losses(labels, scores)
    mean, half = float(losses.mean()), _Z * float(losses.std() / math.sqrt(len(losses)))
    figures: dict[str, float | None] = {
        "loss": mean,
        "loss_low": max(0.0, mean - half),
        "loss_high": min(1.0, mean + half),
    }
    interval = metric_interval(asked.metric, labels, scores, threshold=of.threshold)
    if interval is not None:
        figures |= dict(zip(("metric", "metric_low", "metric_high"), interval, strict=True))
    return figures


def _promised(of: Reference, at: int, number: int) -> float | None:
    if of.expectations is None:
        return None
    losses = of.expectations.by_bin
    rows = losses.rows[at][number]
    return losses.sums[at][number] / rows if rows >= LEAST_ROWS else None
