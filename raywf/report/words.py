"""What the terminal and the page say alike."""

from __future__ import annotations

from raywf.core.explanation import Importance, ImportanceReport


def rows_of(report: ImportanceReport) -> str:
    """Say on which rows importance was measured, and what follows."""
    if report.source == "gate":
        return f"{report.rows:,} rows of the gate, which the model was not fitted on"
    if report.source == "folds":
        share = "" if report.share > 0.995 else f" ({report.share:.0%} of the ensemble's weight)"
        return f"{report.rows:,} rows out of fold, by the folds' own models{share}"
    return f"{report.rows:,} rows that the model was fitted on: what it uses, not what helps on new rows"


def names_of(one: Importance, *, most: int = 3) -> str:
    """Name the columns that were shuffled together, the first few of many.

    >>> names_of(Importance(columns=("a", "b", "c", "d"), drop=0.1, sd=0.0), most=2)
    'a + b + 2 more'
    """
    left = len(one.columns) - most
    return " + ".join([*one.columns[:most], *([f"{left} more"] if left > 0 else [])])
