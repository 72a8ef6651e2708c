"""How a model version does on the rows of each value of a column, those of several windows together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raywf.core.errors import SettingsError, did_you_mean
from raywf.core.metrics import Array
from raywf.monitor.attribution import BinLosses
from raywf.monitor.drift import MISSING, Codes, bin_names
from raywf.monitor.interval import metric_interval
from raywf.monitor.reference import Reference

_Z = 1.959963984540054


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceEvidence:
    """The rows whose value of a column lies in one bin of its training profile.

    `metric` and the mean bounded `loss` have 95 % intervals; each is None where too few rows have labels.
    `promised` is the mean loss on the gate's rows of the slice, None where it had none.
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


@dataclass(frozen=True, slots=True)
class AnsweredRows:
    """Bins ``(n_rows, n_features)``, labels ``(n_rows,)`` (NaN: none), scores ``(n_rows, k)``."""

    codes: Codes
    labels: Array
    scores: Array

    @staticmethod
    def together(parts: Sequence[AnsweredRows]) -> AnsweredRows:
        """Return the rows of several, of as many scores as the most have; at least one is needed."""
        width = max(part.scores.shape[1] for part in parts)
        same = [part for part in parts if part.scores.shape[1] == width]
        columns = (tuple(getattr(part, name) for part in same) for name in ("codes", "labels", "scores"))
        return AnsweredRows(*map(np.concatenate, columns))


def slice_evidence(
    rows: AnsweredRows, reference: Reference, column: str, *, metric: str, min_labelled: int
) -> tuple[SliceEvidence, ...]:
    """Return the slices of a column that have rows, the largest first.

    A slice has figures of quality from `min_labelled` labelled rows on.

    Raises:
        SettingsError: if the model has no such column.
    """
    columns = [profile.name for profile in reference.profile]
    if column not in columns:
        raise SettingsError(
            f"version {reference.version} has no column {column!r}{did_you_mean(column, columns)}"
        )
    at = columns.index(column)
    names = bin_names(reference.profile[at])
    held = rows.codes[:, at]
    bins = np.where(held == MISSING, len(names) - 1, held)
    promised = None if reference.expectations is None else reference.expectations.by_bin
    found = []
    for number, name in enumerate(names):
        inside = bins == number
        known = inside & ~np.isnan(rows.labels)
        if not inside.any():
            continue
        labels, scores, labelled = rows.labels[known], rows.scores[known], int(known.sum())
        figures: dict[str, float] = {}
        if labelled >= min_labelled:
            interval = metric_interval(metric, labels, scores, threshold=reference.threshold)
            if interval is not None:
                figures = dict(zip(("metric", "metric_low", "metric_high"), interval, strict=True))
            figures |= _mean(reference.losses(labels, scores))
        found.append(
            SliceEvidence(
                value=name,
                rows=int(inside.sum()),
                labelled=labelled,
                promised=None if promised is None else _promised(promised, at, number),
                **figures,
            )
        )
    return tuple(sorted(found, key=lambda one: -one.rows))


def _mean(losses: Array) -> dict[str, float]:
    mean, error = float(losses.mean()), float(losses.std() / math.sqrt(len(losses)))
    return {"loss": mean, "loss_low": max(0.0, mean - _Z * error), "loss_high": mean + _Z * error}


def _promised(by_bin: BinLosses, at: int, number: int) -> float | None:
    rows = by_bin.rows[at][number]
    return by_bin.sums[at][number] / rows if rows else None
