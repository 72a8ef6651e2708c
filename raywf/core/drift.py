"""What came of comparing two tables column by column: how far each moved, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from raywf.core.records import ColumnKind


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnDrift:
    """How far a column's values lie from the reference's; effect sizes first, and how likely it is by chance.

    `effect` is the greatest of `js`, the change of the missing rate, `unknown` and `outside`: 0 to 1. `psi`
    is the monitor's population stability index, `js` the Jensen-Shannon distance of the bins' shares, values
    beyond the reference's range or list in bins of their own; `distance` the Wasserstein distance in standard
    deviations of the reference (None of categories), `statistic` that of Kolmogorov and Smirnov for numbers
    and Cramer's V for categories. `p` is for both shape and missing values, `q` the false discovery rate over
    all columns at which it stands out. `unknown` is the share of values that the reference has not (None of
    numbers, and where the reference has more categories than are listed); `outside` that beyond its range.
    """

    column: str
    kind: ColumnKind
    effect: float
    reference_rows: int
    rows: int
    psi: float
    js: float
    distance: float | None
    test: Literal["ks", "chi2"]
    statistic: float
    p: float
    q: float
    reference_missing: float
    missing: float
    unknown: float | None = None
    outside: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TableDrift:
    """Two tables compared: columns by effect, the greatest first.

    `drifted` names the columns whose effect is at least `threshold` and whose `q` is below `rate`. `gone` are
    columns that only the reference has, `new` those that only the other has, `left_out` lists, structures
    and bytes.
    """

    reference: str
    current: str
    reference_rows: int
    rows: int
    threshold: float
    rate: float
    columns: tuple[ColumnDrift, ...]
    drifted: tuple[str, ...]
    gone: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
