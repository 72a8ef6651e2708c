"""Fits of the search's own process: who gives way."""

from __future__ import annotations

import os
import time

import pytest

from raywf.core.niceness import TRAINING
from raywf.search.here import fit_here


def test_a_fit_in_this_process_gives_way() -> None:
    """A thread of the lowest priority does it, and this one goes on as it was; errors come through."""
    before = os.nice(0)
    ticks: list[int] = []

    def work() -> int:
        time.sleep(1.5)
        return os.nice(0)

    assert fit_here(work, tick=lambda: ticks.append(1)) == TRAINING
    assert os.nice(0) == before
    assert ticks
    with pytest.raises(ZeroDivisionError):
        fit_here(lambda: 1 // 0, tick=lambda: None)
