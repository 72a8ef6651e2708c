"""The demo as a newcomer runs it, and with its processes killed beneath it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from raywf.core.records import Outcome, Prediction
from raywf.outcomes.reader import LogReader

sys.path.insert(0, str(Path(__file__).resolve().parent))

from command_line import Project, cluster_processes, command_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
DEMO = [sys.executable, "-m", "raywf.cli", "demo"]


class Demo:
    """A demo under way in a folder of its own; iterating gives what it prints."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process = subprocess.Popen(
            [*DEMO, "--folder", str(folder)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.printed: list[str] = []

    def __iter__(self) -> Iterator[str]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.printed.append(line)
            yield line

    def read_until(self, words: str) -> None:
        """Read on until a line holds the words."""
        assert any(words in line for line in self), "".join(self.printed)

    def interrupt(self) -> int:
        """Press Ctrl-C, and return the exit code."""
        self._process.send_signal(signal.SIGINT)
        return self._process.wait(timeout=60)

    def finish(self) -> dict[str, Any]:
        """Let it come to its end, and return its last line."""
        for _ in self:
            pass
        assert self._process.wait(timeout=60) == 0, "".join(self.printed)
        found: dict[str, Any] = json.loads(self.printed[-1])
        return found


def ours(folder: str) -> list[str]:
    """Return the command lines that name the folder."""
    found = [command_of(p) for p in psutil.process_iter() if p.pid != os.getpid()]
    return [words for words in found if folder in words]


def kill(folder: Path, *words: str) -> None:
    """Kill -9 every process of the demo's cluster whose command line holds the words; there is one."""
    chosen = [p for p in cluster_processes(folder) if all(w in command_of(p) for w in words)]
    assert chosen, f"no process of the demo is called {words}"
    for process in chosen:
        process.kill()


def test_the_demo_gains_swaps_and_loses_nothing(tmp_path: Path) -> None:
    """A year of flights: no failed request, at least one swap, and a better live system."""
    last = Demo(tmp_path).finish()

    assert (last["failed"], last["retried"]) == (0, 0)
    assert last["predictions"] >= 20_000
    assert last["swaps"] >= 1
    assert last["auc_live"] - last["auc_static"] >= 0.025
    assert (tmp_path / "report.html").stat().st_size > 50_000
    told = Project(tmp_path).raywf("backtest", "--log")  # live and played back agree
    assert sum(a["recorded"] is not None for a in told) >= 2
    assert [a for a in told if a["recorded"] is not None and a["recorded"]["id"] != a["replayed"]["id"]] == []
    for one in told:  # while a job ran, or a swap was watched, nothing was decided: it came a little later
        if one["recorded"] is None and one["replayed"]["kind"] == "retrain":
            later = (a["recorded"] for a in told if a["replayed"]["time"] > one["replayed"]["time"])
            assert next(filter(None, later))["cause"] == one["replayed"]["cause"]


def test_the_demo_survives_kills(tmp_path: Path) -> None:
    """The monitor, a replica and the retraining job's driver are killed beneath the year's traffic.

    The loop goes on; no decision is done twice; whatever was acknowledged is in the log.
    """
    demo = Demo(tmp_path)
    demo.read_until("sending")
    demo.read_until("flights landed")
    kill(tmp_path, "ray::MonitorActor")
    demo.read_until("RETRAIN")
    time.sleep(3)
    kill(tmp_path, "-m jobs.retrain")
    demo.read_until("submitted again")
    (replica, *_others) = (p for p in cluster_processes(tmp_path) if "ray::ServeReplica" in command_of(p))
    replica.kill()
    last = demo.finish()

    assert last["failed"] == 0
    assert last["swaps"] >= 1
    project = Project(tmp_path)
    decisions = project.raywf("decisions")
    ends = Counter(
        d["decision"]["id"] for d in decisions for e in d["stages"] if e["stage"] in {"promoted", "rejected"}
    )
    versions = Counter(v["decision_id"] for v in project.raywf("models", "list"))
    assert set(ends.values()) == {1}
    assert set(versions.values()) == {1}
    lost = [e for d in decisions for e in d["stages"] if e["stage"].startswith("lost-")]
    assert len(lost) == 1
    entries, _ = LogReader(str(tmp_path / ".raywf"), "flights").read()
    # nothing failed, so what was sent is what was acknowledged, and the log holds nothing else
    assert len({e.id for e in entries if isinstance(e, Prediction)}) == last["predictions"]
    assert len({e.id for e in entries if isinstance(e, Outcome)}) == last["outcomes"]


def test_ctrl_c_leaves_nothing_running(tmp_path: Path) -> None:
    """Interrupted in the middle, the demo ends with code 130 and without a process of its own."""
    demo = Demo(tmp_path)
    demo.read_until("sending")
    state = json.loads((tmp_path / ".raywf" / "cluster.json").read_text())

    assert demo.interrupt() == 130
    deadline = time.monotonic() + 20
    while ours(state["temp_dir"]) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert ours(state["temp_dir"]) == []
    assert not psutil.pid_exists(state["pid"])
