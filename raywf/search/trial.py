"""Configurations as a Tune trainable: a fold a step, in an actor that the next trial reuses."""

from __future__ import annotations

import dataclasses
import faulthandler
import os
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from ray import tune

from raywf.core.codec import decode
from raywf.core.niceness import yield_cpu
from raywf.core.records import Trial
from raywf.search.data import SearchData
from raywf.search.folds import TrialPlan, TrialRun

_LEAST_STEP_S, _GRACE_S = 1.0, 0.5  # what a step has at least, and beyond the last moment


class FoldTrial(tune.Trainable):  # type: ignore[misc]
    """Fits and scores one fold of a trial a step, or all folds of several quick trials in one step.

    The folds that the ledger already holds are reported without fitting. A library's error becomes a record
    with ``error``, since not every library's exceptions survive the way back.
    """

    def setup(self, config: dict[str, Any], data: SearchData, plan: TrialPlan) -> None:
        yield_cpu()
        self._data, self._whole_plan = data, plan
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Report the trials' records; ``done`` when all have ended.

        A fit that minds no deadline ends with its process, which Tune would wait ten seconds for.
        """
        left = self._plan.last_moment - time.time()
        faulthandler.dump_traceback_later(max(_LEAST_STEP_S, left + _GRACE_S), exit=True)
        try:
            if len(self._runs) == 1:
                return self._report([self._runs[0].advance()])
            if self._slice_s is not None:
                return self._slice(time.time() + self._slice_s)
            return self._report([run.finish() for run in self._runs])
        finally:
            faulthandler.cancel_dump_traceback_later()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: the ledger is what lasts."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing: the ledger is what lasts."""

    def _begin(self, config: dict[str, Any]) -> None:
        plan, last = self._whole_plan, config["last"]
        self._slice_s: float | None = config.get("slice_s")
        self._plan = dataclasses.replace(
            plan,
            deadline=min(plan.deadline, config["until"]),
            last_moment=plan.last_moment if last is None or last >= plan.deadline else last,
        )
        self._runs = [TrialRun(decode(Trial, job), self._data, self._plan) for job in config["jobs"]]

    def _slice(self, end: float) -> dict[str, Any]:
        """Run what can be begun before the end and return the rest; the first goes on alone if it is slow."""
        first, others = self._runs[0], self._runs[1:]
        record = first.advance()
        if record.status == "running" and time.time() >= end:
            self._runs = [first]
            return self._report([record], returned=others)
        done = [first.finish() if record.status == "running" else record]
        while others and time.time() < end:
            done.append(others.pop(0).finish())
        return self._report(done, returned=others)

    def _report(self, trials: list[Trial], *, returned: Sequence[TrialRun] = ()) -> dict[str, Any]:
        losses = [loss for trial in trials for loss in trial.fold_losses]
        run = self._runs[0]
        found = losses or ([] if run.rung_loss is None else [run.rung_loss])
        return {
            "loss": float(np.mean(found)) if found else float(np.finfo(np.float32).max),
            "fold": len(trials[0].fold_losses),
            "rung": run.rung,
            "trials": trials,
            "returned": [run.id for run in returned],
            "node": os.environ.get("RAY_NODE_ID", "") or _node_id(),
            "done": all(trial.status in {"done", "failed"} for trial in trials),
        }


def _node_id() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())
