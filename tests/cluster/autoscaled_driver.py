"""Searches on the cluster at RAY_ADDRESS, says so, and stays connected until its standard input ends."""

from __future__ import annotations

import sys
from pathlib import Path

from raywf.core.loader import load_workflow
from raywf.loop.cluster import connect
from raywf.loop.pipeline import Listener, search_only


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    workflow = load_workflow(Path(sys.argv[1]))
    connect(workflow)
    say("connected")
    found = search_only(workflow, listener=Listener(stage=say))
    sweep = found.sweep
    done = sum(trial.status == "done" for trial in sweep.trials)
    say(f"ended: {done} trials, {sweep.spent_s:.1f} s, {sweep.cpu_s:.1f} CPU-s")
    sys.stdin.read()
