"""Losses by the features' bins, and what their change between two times comes from.

With p and q the shares of a column's bins before and after, and a and b their mean losses, the loss changes
by the sum of (q - p) a, which the mix of inputs explains, and of q (b - a), which is worse in the bins
themselves (Kitagawa, 1955, J. Amer. Statist. Assoc. 50, 1168-1194).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtr
from scipy.stats import false_discovery_control

from raywf.core.attribution import Attribution, FallenSlice, Shift
from raywf.core.metrics import Array
from raywf.core.records import ColumnProfile
from raywf.monitor.drift import Codes, bin_names

LEAST_ROWS = 30  # that a slice needs at both times
_MISSING_BIN = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class BinLosses:
    """Of each column and bin the labelled rows, the sum of their bounded losses and that of the squares.

    A column has a last bin more than its profile, of missing values.
    """

    rows: tuple[tuple[int, ...], ...]
    sums: tuple[tuple[float, ...], ...]
    squares: tuple[tuple[float, ...], ...]


def bin_losses(codes: Codes, losses: Array, profile: Sequence[ColumnProfile]) -> BinLosses:
    """Sum losses ``(n_rows,)`` up by the bins ``(n_rows, n_features)`` of each column."""
    rows, sums, squares = [], [], []
    for column, one in zip(codes.T, profile, strict=True):
        size = len(bin_names(one))
        held = np.where(column == _MISSING_BIN, size - 1, column).astype(np.int64)
        rows.append(tuple(np.bincount(held, minlength=size).tolist()))
        sums.append(tuple(np.bincount(held, losses, minlength=size).tolist()))
        squares.append(tuple(np.bincount(held, losses**2, minlength=size).tolist()))
    return BinLosses(rows=tuple(rows), sums=tuple(sums), squares=tuple(squares))


def add_up(parts: Iterable[BinLosses]) -> BinLosses | None:
    """Return the sums of several; None of none."""
    found = list(parts)
    if not found:
        return None

    def total(name: str) -> tuple[tuple[float, ...], ...]:
        columns = zip(*(getattr(part, name) for part in found), strict=True)
        return tuple(tuple(map(sum, zip(*column, strict=True))) for column in columns)

    rows = tuple(tuple(int(n) for n in column) for column in total("rows"))
    return BinLosses(rows=rows, sums=total("sums"), squares=total("squares"))


def attribute(before: BinLosses, after: BinLosses, profile: Sequence[ColumnProfile]) -> Attribution | None:
    """Return what the change of the mean loss comes from; None where one of both has no rows.

    Slices of fewer than 30 rows at either time are left out; q-values are of Benjamini and Hochberg (1995).
    """
    if not profile or sum(before.rows[0]) == 0 or sum(after.rows[0]) == 0:
        return None
    shifts, slices = [], []
    for at, one in enumerate(profile):
        old, new = _Column.of(before, at), _Column.of(after, at)
        shifts.append(_shift(one.name, old, new))
        slices += _slices(one, old, new)
    first, last = _Column.of(before, 0), _Column.of(after, 0)
    return Attribution(
        rows_before=int(first.rows.sum()),
        rows=int(last.rows.sum()),
        before=float(first.sums.sum() / first.rows.sum()),
        after=float(last.sums.sum() / last.rows.sum()),
        shifts=_judged_shifts(shifts),
        slices=_judged_slices(slices),
    )


@dataclass(frozen=True, slots=True)
class _Column:
    rows: Array
    sums: Array
    squares: Array

    @staticmethod
    def of(losses: BinLosses, at: int) -> _Column:
        return _Column(*(np.asarray(getattr(losses, n)[at], float) for n in ("rows", "sums", "squares")))

    def but(self, at: int) -> _Column:
        """Return one bin of all others together."""
        return _Column(*(np.array([a.sum() - a[at]]) for a in (self.rows, self.sums, self.squares)))

    @property
    def means(self) -> Array:
        """The bins' mean losses; that of all rows where a bin has none."""
        whole = self.sums.sum() / self.rows.sum()
        return np.where(self.rows > 0, self.sums / np.maximum(self.rows, 1), whole)

    @property
    def mean_variances(self) -> Array:
        """Those of the means, by the variance within all bins; without rows that of a single row."""
        within = float(self.squares.sum() - self.rows @ self.means**2)
        whole = float(self.squares.sum() / self.rows.sum() - (self.sums.sum() / self.rows.sum()) ** 2)
        pooled = within / max(1, int(self.rows.sum() - (self.rows > 0).sum()))
        return np.where(self.rows > 0, max(0.0, pooled) / np.maximum(self.rows, 1), max(0.0, whole))

    def variance(self, at: int) -> float:
        """Return that of a bin's mean loss."""
        rows, mean = self.rows[at], self.means[at]
        return float(max(0.0, self.squares[at] / rows - mean**2) / rows)


def _shift(name: str, old: _Column, new: _Column) -> Shift:
    """Return what a column's mix explains; its error is that of both mixes and of the bins' means."""
    p, q = old.rows / old.rows.sum(), new.rows / new.rows.sum()
    change = float((q - p) @ old.means)
    spreads = [float(share @ (old.means - share @ old.means) ** 2) for share in (p, q)]
    by_mix = spreads[0] / old.rows.sum() + spreads[1] / new.rows.sum()
    error = np.sqrt(by_mix + float((q - p) ** 2 @ old.mean_variances))
    return Shift(column=name, change=change, error=float(error), q=1.0)


def _slices(profile: ColumnProfile, old: _Column, new: _Column) -> list[tuple[FallenSlice, float]]:
    """Return each slice with how far its rise is above the others', in standard errors."""
    found = []
    for at, name in enumerate(bin_names(profile)):
        rest_old, rest_new = old.but(at), new.but(at)
        few = min(old.rows[at], new.rows[at], rest_old.rows[0], rest_new.rows[0])
        if few < LEAST_ROWS:
            continue
        before, after = float(old.means[at]), float(new.means[at])
        excess = after - before - float(rest_new.means[0] - rest_old.means[0])
        noise = [(old, at), (new, at), (rest_old, 0), (rest_new, 0)]
        error = float(np.sqrt(sum(column.variance(i) for column, i in noise)))
        one = FallenSlice(
            column=profile.name,
            value=name,
            rows_before=int(old.rows[at]),
            rows=int(new.rows[at]),
            before=before,
            after=after,
            change=float(new.rows[at] / new.rows.sum()) * (after - before),
            excess=excess,
            q=1.0,
        )
        found.append((one, excess / max(error, 1e-12)))
    return found


def _judged_shifts(shifts: Sequence[Shift]) -> tuple[Shift, ...]:
    q = false_discovery_control([float(2 * ndtr(-abs(s.change) / max(s.error, 1e-12))) for s in shifts])
    judged = (replace(s, q=float(rate)) for s, rate in zip(shifts, q, strict=True))
    return tuple(sorted(judged, key=lambda s: -abs(s.change)))


def _judged_slices(slices: Sequence[tuple[FallenSlice, float]]) -> tuple[FallenSlice, ...]:
    if not slices:
        return ()
    q = false_discovery_control([float(2 * ndtr(-abs(z))) for _, z in slices])
    judged = (replace(one, q=float(rate)) for (one, _), rate in zip(slices, q, strict=True))
    return tuple(sorted(judged, key=lambda s: -abs(s.change)))
