"""Former members tried once more: by Ray tasks, whose workers then make the last fits, or by this process.

Starting a worker takes longer than many a fit, and Tune's workers are its own. The trials are given, each is
to run to its end, so that there is nothing that Tune would decide. Where the folds took no longer than a
worker's start, all in a row, none is started.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import ray
from ray.exceptions import RayError

from raywf.core.niceness import yield_cpu
from raywf.core.records import Sweep, Trial
from raywf.search.budget import WORKER_S
from raywf.search.data import SearchData
from raywf.search.folds import TrialPlan, TrialRun
from raywf.search.here import fit_here, may_fit_here
from raywf.search.own import Families
from raywf.search.workers import placement

_TICK_S = 0.5
_GRACE_S = 0.5  # beyond the last moment


def quick_members(former: Sequence[Sweep]) -> dict[str, str]:
    """Return the last sweep's members where their folds took no longer than a worker's start, all in a row.

    They are named by their trials, with their families. None where one was not tried then.
    """
    tried = {t.id: t for sweep in former[:1] for t in sweep.trials if t.fold_losses}
    members = {m.trial_id: m.family for sweep in former[:1] for m in sweep.members}
    if not members.keys() <= tried.keys():
        return {}
    fold_s = sum(tried[name].seconds / len(tried[name].fold_losses) for name in members)
    return members if fold_s <= WORKER_S else {}


def fitted_here(
    former: Sequence[Sweep], families: Families, nodes: Mapping[str, str], threads: int
) -> frozenset[str]:
    """Return the trials of a refit that this process does better to fit itself: all, or none."""
    quick = quick_members(former)
    return frozenset(quick if quick and may_fit_here(quick.values(), families, nodes, threads) else ())


def try_here(
    data: SearchData,
    trials: Sequence[Trial],
    plan: TrialPlan,
    *,
    progress: Callable[[Trial], None],
    tick: Callable[[int, int], None],
) -> tuple[list[Trial], dict[str, str]]:
    """Run the trials one after the other; return as `try_again`."""
    node, ended = str(ray.get_runtime_context().get_node_id()), list[Trial]()
    for trial in trials:
        ended.append(fit_here(TrialRun(trial, data, plan).finish, tick=partial(tick, 1, 0)))
        progress(ended[-1])
    return ended, dict.fromkeys((t.id for t in trials), node)


def try_again(
    data: Any,
    trials: Sequence[Trial],
    plan: TrialPlan,
    *,
    most: int,
    warmed: int,
    retries: int,
    progress: Callable[[Trial], None],
    tick: Callable[[int, int], None],
) -> tuple[list[Trial], dict[str, str]]:
    """Run the trials, at most so many at once; return their last records and the node of each, by trial id.

    `data` is the object reference of the `SearchData`. A worker that dies is tried again `retries` times; the
    ledger has the folds that were done. Trials that the last moment cut come back as "stopped". `tick` is
    told again and again how many run or wait for a node, and how many are not asked for yet. Where the trials
    are fewer than `warmed`, so many workers are made ready all the same, for the last fits.
    """

    def placed(work: Callable[..., Any], trial: Trial) -> Any:
        takes = plan.families.resources(trial.family, default=plan.threads)
        options = placement(takes, plan.nodes, plan.ledger.sweep_id)
        return ray.remote(work).options(max_retries=retries, **options)

    waiting, running = list(trials), dict[Any, Trial]()
    ended, nodes = dict[str, Trial](), dict[str, str]()
    idle = list(itertools.islice(itertools.cycle(trials), max(0, warmed - len(trials))))
    while waiting or running:
        while waiting and len(running) < most:
            trial = waiting.pop(0)
            running[placed(_try, trial).remote(data, trial, plan)] = trial
        while idle and not waiting:
            trial = idle.pop()
            placed(_be_ready, trial).remote(plan, trial.family)
        left_s = plan.last_moment + _GRACE_S - time.time()
        done = ray.wait(list(running), timeout=min(_TICK_S, max(0.0, left_s)))[0]
        for task in done:
            trial = running.pop(task)
            ended[trial.id], nodes[trial.id] = _outcome(task, trial)
            progress(ended[trial.id])
        tick(len(running), len(waiting))
        if left_s <= 0:
            break
    for task, trial in running.items():
        ray.cancel(task, force=True)
        ended[trial.id] = dataclasses.replace(trial, status="stopped")
    return [ended.get(t.id, dataclasses.replace(t, status="stopped")) for t in trials], nodes


def _outcome(task: Any, trial: Trial) -> tuple[Trial, str]:
    try:
        found: tuple[Trial, str] = ray.get(task)
    except RayError as err:
        reason = " ".join(str(err).split())[:300]
        died = f"its worker died, killed for its memory or ended by the model's code: {reason}"
        return dataclasses.replace(trial, status="failed", error=died), ""
    return found


def _be_ready(plan: TrialPlan, name: str) -> None:
    """Import what fits of a family need."""
    plan.families.find(name)


def _try(data: SearchData, trial: Trial, plan: TrialPlan) -> tuple[Trial, str]:
    yield_cpu()
    record = TrialRun(trial, data, plan).finish()
    return record, str(ray.get_runtime_context().get_node_id())
