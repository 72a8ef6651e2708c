"""Runs planned trials on Ray Tune within a deadline; the only file that drives the Tuner."""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from ray import tune

from raywf.core.codec import decode
from raywf.core.records import Trial
from raywf.core.settings import SearchSettings
from raywf.core.store import Store
from raywf.models.families import is_family
from raywf.search.folds import TrialPlan
from raywf.search.hold import Hold
from raywf.search.ledger import Ledger
from raywf.search.lookups import looked_up_once
from raywf.search.queue import QueuePlan, TrialQueue
from raywf.search.race import FoldRace
from raywf.search.trial import FoldTrial

Progress = Callable[[Trial], None]
_LONGEST_REASON = 300  # characters
_TICK_S = 0.5
_NEXT_TO_NOTHING = {"memory": 1e6}  # of a trial whose fits are a team's, which takes its own; Tune wants some
_QUIET = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_WARN_THRESHOLD_S": "10",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # the ledger is what a search resumes from
}


def run_trials(
    data: Any,
    wanted: QueuePlan,
    plan: TrialPlan,
    *,
    settings: SearchSettings,
    progress: Progress,
    tick: Callable[[int], None] = lambda _waiting: None,
) -> tuple[list[Trial], dict[str, str]]:
    """Run trials as the queue hands them out; return their last records and the node of each, by trial id.

    `data` is the object reference of the `SearchData`. Trials that the deadline cut come back as "stopped".
    Trials that run and that wait are no more together than the queue has slots: each that waits is a
    placement group, which a cluster's autoscaler starts nodes for. `tick` is told again and again how many
    wait.
    """
    os.environ.update(_QUIET)
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    hold = Hold(wanted.slots, grows=wanted.grows)
    rungs = {t.id: plan.ledger.rungs(t.id) for t in wanted.ended if not is_family(t.family)}
    queue = TrialQueue(wanted, hold=hold, rungs=rungs)
    race = _race(wanted, plan, hold, rungs)
    watch = _Watch(progress, race, tick, plan.ledger, ended=wanted.ended)
    trainable = tune.with_resources(
        tune.with_parameters(FoldTrial, data=data, plan=plan), partial(_resources, plan=plan)
    )
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            metric="loss",
            mode="min",
            search_alg=queue,
            num_samples=-1,
            scheduler=race,
            reuse_actors=True,
            max_concurrent_trials=wanted.slots,
            trial_name_creator=_name,
            trial_dirname_creator=_name,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=Store(plan.ledger.root).uri(f"sweeps/{plan.ledger.sweep_id}"),
            verbose=0,
            stop=_Deadline(plan, watch, queue),
            callbacks=[watch],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False, checkpoint_frequency=0),
            failure_config=tune.FailureConfig(max_failures=settings.max_failures),
        ),
    )
    with looked_up_once():
        tuner.fit()
    return [watch.end_of(t) for t in queue.handed.values()], watch.nodes


def _race(wanted: QueuePlan, plan: TrialPlan, hold: Hold, rungs: Mapping[str, Sequence[float]]) -> FoldRace:
    """Return the race as it was when the search was interrupted, if it was."""
    race = FoldRace(folds=wanted.fold_rows, spared=wanted.sure, hold=hold)
    for trial in wanted.ended:
        race.recall(trial, rungs=rungs.get(trial.id, ()))
    for trial in plan.ledger.begun():
        losses = tuple(r.loss for r in plan.ledger.folds(trial.id, len(wanted.fold_rows)))
        own = () if is_family(trial.family) else plan.ledger.rungs(trial.id)
        race.recall(dataclasses.replace(trial, fold_losses=losses), rungs=own)
    return race


def _resources(config: dict[str, Any], *, plan: TrialPlan) -> tune.PlacementGroupFactory:
    """Return what the trials of a hand take, which are of one family."""
    takes = plan.families.resources(config["jobs"][0]["family"], default=plan.threads)
    placed = {"bundle_label_selector": [plan.nodes]} if plan.nodes else {}
    return tune.PlacementGroupFactory([takes or _NEXT_TO_NOTHING], **placed)


def _name(trial: Any) -> str:
    return str(trial.config["jobs"][0]["id"])


def _stopped(trial: Trial) -> Trial:
    return dataclasses.replace(trial, status="stopped")


def _is_further(trial: Trial, former: Trial) -> bool:
    """Whether it has come further; what another worker only reports again does not count."""
    return len(trial.fold_losses) > len(former.fold_losses)


class _Deadline(tune.Stopper):  # type: ignore[misc]
    """Stops all trials at the deadline; until one is done, it waits for the last moment."""

    def __init__(self, plan: TrialPlan, watch: _Watch, queue: TrialQueue) -> None:
        self._plan, self._watch, self._queue = plan, watch, queue

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        some_done = any(t.status == "done" for t in self._watch.last.values())
        return time.time() > (self._queue.deadline if some_done else self._plan.last_moment)


class _Watch(tune.Callback):  # type: ignore[misc]
    """Keeps each trial's last record, those of `ended` ones too, and tells `progress` when one has ended."""

    def __init__(
        self,
        progress: Progress,
        race: FoldRace,
        tick: Callable[[int], None],
        ledger: Ledger,
        *,
        ended: Sequence[Trial] = (),
    ) -> None:
        self._progress, self._race, self._tick, self._ledger = progress, race, tick, ledger
        self._ticked = 0.0
        self.last = {trial.id: trial for trial in ended}
        self.nodes: dict[str, str] = {}
        self._deaths: dict[str, str] = {}

    def on_step_end(self, iteration: int, trials: Any, **info: Any) -> None:
        if time.monotonic() - self._ticked > _TICK_S:  # a step takes milliseconds, trials are many
            self._ticked = time.monotonic()
            self._tick(sum(trial.status == "PENDING" for trial in trials))

    def on_trial_result(
        self,
        iteration: int,
        trials: Any,
        trial: Any,
        result: dict[str, Any],
        **info: Any,
    ) -> None:
        for record in result["trials"]:
            if record.id not in self.last or _is_further(record, self.last[record.id]):
                self._deaths.pop(record.id, None)
            self.last[record.id] = record
            self.nodes[record.id] = result["node"]
            if record.id in self._race.stopped:
                with suppress(OSError):  # for who takes the search up again; the search goes on
                    self._ledger.record(_stopped(record))
            if result["done"] or record.id in self._race.stopped:
                self._progress(record if record.status != "running" else _stopped(record))

    def on_trial_recover(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Note why a worker died, should the trial not get to its end."""
        self._deaths[_name(trial)] = _death(trial)

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Note why a trial's worker died for good; of several in a hand each is tried again alone."""
        jobs = [decode(Trial, job) for job in trial.config["jobs"]]
        if len(jobs) == 1:
            self._deaths[jobs[0].id] = _death(trial)
            self._progress(self.end_of(jobs[0]))

    def end_of(self, trial: Trial) -> Trial:
        """Return a trial's last record: one that did not end by itself has failed or was stopped.

        What the race stopped has not failed, even if a worker of it had died before.
        """
        found = self.last.get(trial.id, trial)
        if found.status in {"done", "failed"}:
            return found
        death = None if trial.id in self._race.stopped else self._deaths.get(trial.id)
        return dataclasses.replace(found, status="failed", error=death) if death else _stopped(found)


def _death(trial: Any) -> str:
    """Return why a trial's worker died, by the last line that Ray wrote about it."""
    try:
        text = Path(trial.error_file).read_text(errors="replace")
    except (OSError, TypeError):
        text = ""
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    told = next((line for line in reversed(lines) if "exit detail" in line or "memory" in line), "")
    told = told.partition("Worker exit detail: ")[2] or told or (lines[-1] if lines else "no reason is known")
    told = told.partition(" Some common causes")[0][:_LONGEST_REASON]
    times = f" {trial.num_failures} times" if trial.num_failures > 1 else ""
    return f"its worker died{times}, killed for its memory or ended by the model's code: {told}"
