"""Swaps of the model beneath load, on a cluster of their own with no other beside it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "swap.py"
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled"}


@pytest.mark.timeout(400)
def test_swaps_under_load_lose_nothing() -> None:
    """Swaps below 32 connections that never rest: no request fails, and p99 near a swap stays within 1.5x.

    At a part of what the replicas can do, the p99 says how much of the machine is left to them at that
    moment: `benchmarks/swap.py` measures it at 70 %, on one that does nothing else.
    """
    found: dict[str, Any] = {}
    for _ in range(3):  # the bound on p99 is about a quiet machine: other work may spoil a run
        command = [sys.executable, str(BENCHMARK), "--seconds", "22", "--every", "4"]
        command += ["--replicas", "2", "--share", "0"]
        run = subprocess.run(command, capture_output=True, text=True, env=ENV, check=True, timeout=120)
        found = json.loads(run.stdout.strip().splitlines()[-1])
        assert (found["failed"], found["swaps"]) == (0, 3)
        assert found["replicas_2"]["versions"] == ["1", "2", "3", "4"]
        assert found["alias_to_live_s"] <= 3
        if found["p99_ratio"] <= 1.5:
            break
    assert found["p99_ratio"] <= 1.5, found
