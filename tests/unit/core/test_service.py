"""Requests' times in bins: quantiles are close, and what no replica counts is refused."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raywf.core.service import Service, merged_times, time_bin, time_quantile

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
GOOD = {
    "id": "a",
    "time": NOON,
    "length_s": 3600.0,
    "version": "1",
    "answered": 2,
    "refused": 0,
    "failed": 0,
    "cpu_s": 0.5,
}


@given(st.lists(st.floats(1e-6, 100), min_size=1, max_size=60), st.sampled_from([0.01, 0.5, 0.99, 1.0]))
def test_quantiles_are_within_five_percent(seconds: list[float], share: float) -> None:
    """Of the times themselves, however they are spread."""
    found = time_quantile(Counter(map(time_bin, seconds)), share)
    assert found == pytest.approx(np.quantile(seconds, share, method="inverted_cdf"), rel=0.045)


def test_no_request_has_no_time() -> None:
    """And requests of several replicas are one lot."""
    assert time_quantile({}, 0.5) is time_quantile({3: 0}, 0.5) is None
    both = merged_times([Service(**GOOD, times={3: 2}), Service(**GOOD, times={3: 1, 4: 1})])
    assert both == {3: 3, 4: 1}


@pytest.mark.parametrize(
    "change",
    [
        {"answered": -1},
        {"failed": 2**60},
        {"cpu_s": float("nan")},
        {"times": {10_000: 1}},
        {"times": {1: -1}},
        {"version": 1},
        {"id": None},
        {"time": NOON.replace(tzinfo=None)},
        {"time": NOON.replace(year=9999)},
    ],
)
def test_what_no_replica_counts_is_refused(change: dict[str, object]) -> None:
    """A line of the log that something else wrote."""
    with pytest.raises((ValueError, TypeError), match=r"is no text|out of range"):
        Service(**({**GOOD, "times": {}} | change))
