"""A search that is killed goes on where it stopped: the same trials, nothing trained twice."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

DRIVER = [sys.executable, str(Path(__file__).with_name("search_driver.py"))]
pytestmark = pytest.mark.timeout(280)


def start(root: Path, asked: str = "five trials") -> subprocess.Popen[str]:
    """Start a search in a process group of its own."""
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*DRIVER, str(root), asked],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environ,
    )


def finish(root: Path, asked: str = "five trials") -> dict[str, Any]:
    """Run a search to its end, and return what it printed."""
    out, _ = start(root, asked).communicate()
    found: dict[str, Any] = json.loads(out.strip().splitlines()[-1])
    return found


def folds(root: Path) -> dict[str, tuple[bytes, int]]:
    """Return every fold that the ledger holds, with the time at which it was written."""
    found = (root / "sweeps" / "sweep" / "trials").rglob("fold-*.npz")
    return {f"{p.parent.name}/{p.name}": (p.read_bytes(), p.stat().st_mtime_ns) for p in found}


def kill_after(root: Path, seconds: float, asked: str = "five trials") -> None:
    """Start a search and kill its driver."""
    driver = start(root, asked)
    time.sleep(seconds)
    driver.kill()
    driver.communicate()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the search comes to without an interruption."""
    return finish(tmp_path_factory.mktemp("whole"))


@pytest.mark.slow
def test_killed_in_the_middle(whole: dict[str, Any], tmp_path: Path) -> None:
    """Killed once some folds are kept: they stay as they are, and the end is the same."""
    driver = start(tmp_path)
    deadline = time.monotonic() + 60
    while len(folds(tmp_path)) < 4 and time.monotonic() < deadline:
        time.sleep(0.05)
    driver.kill()
    driver.communicate()
    kept = folds(tmp_path)
    again = finish(tmp_path)
    after = folds(tmp_path)
    assert 4 <= len(kept) < len(after)
    assert {name: after[name] for name in kept} == kept
    assert again["trials"] == whole["trials"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_killed_at_any_moment(whole: dict[str, Any], tmp_path: Path, seed: int) -> None:
    """Wherever it was, and twice in a row."""
    draw = random.Random(seed)
    for _ in range(2):
        kill_after(tmp_path, draw.uniform(3, 16))
    assert finish(tmp_path)["trials"] == whole["trials"]


@pytest.mark.slow
@pytest.mark.parametrize("kills", [(), (30, 30), (86,)])
def test_money_is_not_exceeded(tmp_path: Path, kills: tuple[float, ...]) -> None:
    """Five cents at a dollar a CPU-hour are 90 seconds of two CPUs, killed on the way, at its end or not."""
    for seconds in kills:
        kill_after(tmp_path, seconds, "five cents")
    found = finish(tmp_path, "five cents")
    print(f"{found['usd']:.4f} USD of 0.0500, {len(found['trials'])} trials, killed after {kills}")
    assert found["members"]
    assert 0.045 <= found["usd"] <= 0.05 * 1.05
