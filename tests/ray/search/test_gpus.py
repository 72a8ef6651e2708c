"""Shares of a GPU, on a cluster that says it has one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

DRIVER = [sys.executable, str(Path(__file__).with_name("gpu_driver.py"))]


@pytest.mark.slow
def test_two_halves_at_a_time(tmp_path: Path) -> None:
    """Every fit sees the GPU; two run on it side by side and never a third, whatever CPUs are idle."""
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*DRIVER, str(tmp_path)], check=True, capture_output=True, env=environ, timeout=150)
    lines = [line.split() for line in (tmp_path / "fits.txt").read_text().splitlines()]
    assert {device for device, _, _ in lines} == {"0"}
    fits = [(float(begun), float(ended)) for _, begun, ended in lines]
    most = max(sum(begun <= moment < ended for begun, ended in fits) for moment, _ in fits)
    assert len(fits) > 6
    assert most == 2
