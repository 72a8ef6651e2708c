"""How long to wait for labels, where those that come soon tell another story than those that come late.

A cancellation is known at once, a kept booking only when the guest has come: of young rows the labels that
are there are no fair sample of those to come, and a model learns from them that young rows are cancelled
(delayed feedback; Chapelle, KDD 2014). Rows younger than the wait are then left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import stats

from raywf.core.duration import format_duration
from raywf.core.errors import ValidationError
from raywf.core.settings import Workflow
from raywf.snapshots.convert import time_us

_AWAITED = 0.95  # of the labels of rows as old as the wait
_MOST = 1 / 3  # of the rows that are left out
_APART, _CHANCE = 0.1, 1e-3  # Kolmogorov's distance of one class's delays from the others'
_BINS, _MOST_CLASSES = 4, 20  # of a regression's labels; looked at
_SECOND, _MICROSECOND = timedelta(seconds=1), timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Maturity:
    """How old a row must be for its label to be a fair sample, by the settings where `given`.

    `age` is how old the rows are: less than `wanted` where the history is short; the youngest then lies at
    `until_us` (microseconds since 1970).
    """

    wanted: timedelta = timedelta(0)
    age: timedelta = timedelta(0)
    until_us: int = 0
    given: bool = False


def find_maturity(sample: pa.Table, workflow: Workflow, *, as_of: datetime | None) -> Maturity:
    """Return ``spine.maturity`` where it is set, else what the labelled rows say.

    Zero where early and late labels are alike, by a Kolmogorov-Smirnov test of each class's delays (a
    quarter's, of a regression's labels) against the others'. Where not, the age by which 95 % of the older
    half's labels had come, if that leaves out no more than a third of the rows. Ages count from `as_of`, or
    from the newest label where the tables end before.
    """
    if as_of is None or "__label_time" not in sample.column_names or sample.num_rows == 0:
        return Maturity()
    times = time_us(sample.column("__time"), missing=0)
    known = time_us(sample.column("__label_time"), missing=0)
    end, given = (
        min(int(as_of.timestamp() * 1e6), int(max(known.max(), times.max()))),
        workflow.spine.maturity,
    )
    if given is not None:
        return Maturity(wanted=given, age=given, until_us=end - given // _MICROSECOND, given=True)
    waited = np.maximum(known - times, 0)
    labels = np.asarray(sample.column("__label").to_numpy(), dtype=np.float64)
    if not _differ(_groups(labels, workflow), waited):
        return Maturity()
    wanted = int(np.quantile(waited[times <= np.median(times)], _AWAITED))
    age = min(wanted, end - int(np.quantile(times, 1 - _MOST)))
    return Maturity(wanted=wanted * _MICROSECOND, age=age * _MICROSECOND, until_us=end - age)


def mature_rows(table: pa.Table, until_us: int) -> pa.Table:
    """Return the rows whose event lies at or before the instant (microseconds)."""
    return table.filter(pa.array(time_us(table.column("__time"), missing=0) <= until_us))


def check_maturity(maturity: Maturity, workflow: Workflow, *, rows: int, left_out: int) -> tuple[str, ...]:
    """Return a warning if more than one row in a hundred was left out by what was found.

    Raises:
        ValidationError: if fewer than `validate.min_rows` rows are left.
    """
    if left_out and rows < workflow.validate.min_rows:
        raise ValidationError(
            f"only {rows} labelled rows are as old as {_words(maturity.age)}, fewer than validate.min_rows = "
            f"{workflow.validate.min_rows}, and {left_out} are younger; give older rows or a lower "
            f"spine.maturity (0s takes all)"
        )
    if maturity.given or left_out <= 0.01 * (rows + left_out):
        return ()
    short = maturity.wanted > maturity.age
    needed = f", of {_words(maturity.wanted)} that a longer history would allow" if short else ""
    return (
        f"labels that come soon differ from those that come late: {left_out:,} labelled rows, younger than "
        f"{_words(maturity.age)} at as_of{needed}, are left out (spine.maturity sets the age; 0s takes all)",
    )


def _words(age: timedelta) -> str:
    units = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1), _SECOND
    unit = next((u for u in units if age >= 3 * u), _SECOND)
    return format_duration(round(age / unit) * unit)


def _groups(labels: NDArray[np.float64], workflow: Workflow) -> NDArray[np.float64]:
    """Return the class of each row; of a regression the quarter of its label, many equal ones apart."""
    if workflow.task != "regression":
        return labels
    edges = np.unique(np.quantile(labels, np.arange(1, _BINS) / _BINS))
    sides = (np.searchsorted(edges, labels, "left"), np.searchsorted(edges, labels, "right"))
    return (sides[0] + sides[1]).astype(np.float64)


def _differ(groups: NDArray[np.float64], waited: NDArray[np.int64]) -> bool:
    names, counts = np.unique(groups, return_counts=True)
    others = min(len(names) - 1, _MOST_CLASSES)  # the last of two would be compared with the first again
    for name in names[np.argsort(-counts)][:others]:
        found = stats.ks_2samp(waited[groups == name], waited[groups != name], method="asymp")
        if found.statistic > _APART and found.pvalue < _CHANCE:
            return True
    return False
