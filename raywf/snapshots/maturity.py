"""How long to wait for labels, where those that come soon tell another story than those that come late.

A cancellation is known at once, a kept booking only when the guest has come: of young rows the labels that
are there are no fair sample of those to come, and a model learns from them that young rows are cancelled
(delayed feedback; Chapelle, KDD 2014). Rows younger than the wait are then left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import stats

from raywf.core.duration import format_duration
from raywf.core.settings import Workflow
from raywf.snapshots.convert import time_us

_AWAITED = 0.95  # of the labels of rows as old as the wait
_MOST_OF_SPAN = 1 / 6  # more would leave the folds and the gate too few rows
_TOLD_APART = 0.01  # variance of the delays' ranks that the labels explain
_CHANCE, _MOST_ROWS = 1e-3, 200_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Delays:
    """Of rows with a known label: the label (class index or value), the event time and how long after it the
    label became known, both in microseconds. Arrays have shape ``(n_rows,)``.
    """

    labels: NDArray[np.float64]
    times: NDArray[np.int64]
    waited: NDArray[np.int64]


def read_delays(table: pa.Table) -> Delays:
    """Return a table's delays; of no rows where no label time is told."""
    if "__label_time" not in table.column_names:
        return Delays(labels=np.empty(0), times=np.empty(0, np.int64), waited=np.empty(0, np.int64))
    times = time_us(table.column("__time"), missing=0)
    known = time_us(table.column("__label_time"), missing=0)
    labels = np.asarray(table.column("__label").to_numpy(), dtype=np.float64)
    return Delays(labels=labels, times=times, waited=np.maximum(known - times, 0))


def find_maturity(parts: list[Delays], workflow: Workflow) -> timedelta:
    """Return how old a row must be for its label to count: ``spine.maturity`` where it is set.

    Else zero where late labels are like early ones; where not (rank correlation, or Kruskal-Wallis over
    classes), the age by which 95 % of the older half's labels had come, at most a sixth of the rows' span.
    """
    if workflow.spine.maturity is not None:
        return workflow.spine.maturity
    found = Delays(**{n: np.concatenate([getattr(p, n) for p in parts]) for n in Delays.__slots__})
    if len(found.labels) == 0 or not _differ(found, classes=workflow.task != "regression"):
        return timedelta(0)
    older = found.times <= np.median(found.times)
    wait = int(np.quantile(found.waited[older], _AWAITED))
    return timedelta(microseconds=min(wait, int(np.ptp(found.times) * _MOST_OF_SPAN)))


def mature_rows(table: pa.Table, until_us: int) -> pa.Table:
    """Return the rows whose event lies at or before the instant (microseconds)."""
    return table.filter(pa.array(time_us(table.column("__time"), missing=0) <= until_us))


def tell_maturity(maturity: timedelta, *, rows: int, left_out: int) -> tuple[str, ...]:
    """Return a warning if more than one row in a hundred was left out."""
    if maturity < timedelta(seconds=1) or left_out <= 0.01 * (rows + left_out):
        return ()
    unit = next(u for u in (timedelta(days=1), timedelta(hours=1), timedelta(seconds=1)) if maturity >= u)
    age = format_duration(round(maturity / unit) * unit)
    return (
        f"labels that come soon differ from those that come late: {left_out:,} labelled rows, younger than "
        f"{age} at as_of, are left out (spine.maturity sets the age; 0s takes all)",
    )


def _differ(delays: Delays, *, classes: bool) -> bool:
    step = max(1, len(delays.labels) // _MOST_ROWS)
    labels, waited = delays.labels[::step], delays.waited[::step]
    if np.ptp(labels) == 0 or np.ptp(waited) == 0:
        return False
    if not classes:
        found = stats.spearmanr(labels, waited)
        return bool(found.pvalue < _CHANCE and found.statistic**2 > _TOLD_APART)
    groups = [waited[labels == name] for name in np.unique(labels)]
    found = stats.kruskal(*groups)
    explained = (found.statistic - len(groups) + 1) / max(1, len(labels) - len(groups))
    return bool(found.pvalue < _CHANCE and explained > _TOLD_APART)
