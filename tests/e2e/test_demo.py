"""The demo as a newcomer runs it."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
DEMO = [sys.executable, "-m", "raywf.cli", "demo"]


def ours(folder):
    """Return the command lines that name the folder."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = " ".join(process.info["cmdline"] or [])
        if str(folder) in words and process.pid != os.getpid():
            found.append(words)
    return found


def test_the_demo_gains_swaps_and_loses_nothing(tmp_path):
    """A year of flights: no failed request, at least one swap, and a better live system."""
    done = subprocess.run([*DEMO, "--folder", str(tmp_path)], capture_output=True, text=True, check=True)
    last = json.loads(done.stdout.strip().splitlines()[-1])

    assert last["failed"] == 0
    assert last["predictions"] >= 20_000
    assert last["swaps"] >= 1
    assert last["auc_live"] - last["auc_static"] >= 0.025
    assert (tmp_path / "report.html").stat().st_size > 50_000


def test_ctrl_c_leaves_nothing_running(tmp_path):
    """Interrupted in the middle, the demo ends with code 130 and without a process of its own."""
    demo = subprocess.Popen([*DEMO, "--folder", str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert demo.stdout is not None
    for line in demo.stdout:
        if "sending" in line:
            break
    state = json.loads((tmp_path / ".raywf" / "cluster.json").read_text())
    demo.send_signal(signal.SIGINT)

    assert demo.wait(timeout=60) == 130
    deadline = time.monotonic() + 20
    while ours(state["temp_dir"]) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert ours(state["temp_dir"]) == []
    assert not psutil.pid_exists(state["pid"])
