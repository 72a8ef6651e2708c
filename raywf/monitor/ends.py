"""How far answers and labels moved, the two ends of a model."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from raywf.core.records import Drift
from raywf.monitor.distance import Counts
from raywf.monitor.drift import compare_bins, control_drift

ANSWERS, LABELS = "answers", "labels"


def compare_ends(counts: Mapping[str, tuple[Counts, Counts]], *, ordered: bool) -> dict[str, Drift]:
    """Compare rows by bin, before and now, of those that are given; `q` is over the two of them."""
    found = [
        compare_bins(f"({name})", *(np.append(one, 0) for one in both), ordered=ordered)
        for name, both in counts.items()
    ]
    return dict(zip(counts, control_drift(found), strict=True))
