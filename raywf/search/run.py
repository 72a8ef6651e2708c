"""One search: trials, ensemble, calibration and refits within a hard wall-clock budget."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray
from ray.exceptions import RayError

from raywf.core.errors import SearchError
from raywf.core.ids import stable_number
from raywf.core.metrics import Metric, loss_scale
from raywf.core.own import workflow_metric
from raywf.core.records import Bundle, Effort, Rate, Snapshot, Span, Sweep, Trial
from raywf.core.settings import SearchSettings, Workflow
from raywf.core.store import Store
from raywf.models.encoding import Encoder
from raywf.models.families import traits
from raywf.search.again import fitted_here, try_again, try_here
from raywf.search.budget import WORKER_S, Budget, warm_seconds
from raywf.search.choose import Bounds, Former
from raywf.search.data import SearchData, prepare_data, with_folds
from raywf.search.finish import Ending, Finished, finish
from raywf.search.folds import TrialPlan
from raywf.search.foresee import LastFits
from raywf.search.here import may_fit_here
from raywf.search.layout import keep_layout, kept_folds
from raywf.search.ledger import Ledger
from raywf.search.means import Means, find_means
from raywf.search.nodes import training_nodes
from raywf.search.own import Families, find_families
from raywf.search.pace import PROBE_ROWS, Pace, Probe, choose_folds, fit_seconds, pace_of, probe_fit
from raywf.search.portfolio import PAIRS, plan_trials
from raywf.search.queue import QueuePlan, Spaces, read_spaces
from raywf.search.refit import Recipe
from raywf.search.tuning import Progress, run_trials
from raywf.search.workers import placement

_LAST_SHARE = 0.93
_GUESSED_ROUNDS = 100.0  # where the probe failed
_PROBE_SHARE, _PROBE_MAX_S = 0.04, 2.0
# of the budget for trials: in order all members are fitted twice more, which is foreseen once some are done
_REFIT_SHARE, _MOST_SHARE = 0.6, 0.92
_ORDERED_ROOM, _ROOM = 1.2, 1.1  # for the last fits, beside what is foreseen
_MAX_SPEED = 2.5
_ORDERED_FOLDS = 3
_LEAST_OTHERS = 2  # than the former members, that a warm search tries
_MOST_START_S, _MOST_START_SHARE = 10.0, 0.25  # that a worker is thought to need


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchPlan:
    """Which search: its id (the same id resumes), what it starts from, where bundles are written.

    Without `hold_gate` no rows are kept aside: the bundle is fitted on all, and nothing can gate it. Without
    a `rate`, what the CPUs cost that it may occupy, it costs nothing and money cannot bound it. `former` are
    the champion's sweep and those before it, which any `effort` but a full one needs. `span` is noted: the
    table that is searched is that part of the snapshot already. On a cluster that `grows` more slots than
    there are may be asked for; `say` hears what is waited for, and `bounded` once how many seconds are left,
    by the tightest budget. `passes` says by the proof and the gate's rows whether a final model is wanted:
    whoever judges it may, while the search waits. What it takes is noted for a `decision`, by its id.
    """

    sweep_id: str
    folder: Path
    former: tuple[Sweep, ...] = ()
    hold_gate: bool = True
    rate: Rate | None = None
    effort: Effort = "full"
    span: Span = "all"
    progress: Progress = field(default=lambda _trial: None)
    grows: bool = False
    say: Callable[[str], None] = field(default=lambda _text: None)
    bounded: Callable[[float], None] = field(default=lambda _left_s: None)
    passes: Callable[[Bundle, NDArray[np.int64]], bool] = field(default=lambda _proof, _rows: True)
    decision: str = ""

    @property
    def searches(self) -> bool:
        """Whether other configurations than the former members' are tried."""
        return self.effort in {"warm", "full"}

    def trials(
        self, settings: SearchSettings, data: SearchData, pace: Pace | None, *, speed: float = 1.0
    ) -> tuple[Trial, ...]:
        """Return the trials in order, by what the pace says of pairs of numbers."""
        found = plan_trials(
            settings,
            rows=len(data.rest),
            former=self.former,
            effort=self.effort,
            speed=speed,
            gain=0.0 if pace is None else pace.gain,
            quantile=data.quantile,
        )
        return found[: self._most_planned(settings)]

    def seed(self, settings: SearchSettings) -> int:
        """Return what draws and neighbours are seeded by: after another search others, of 32 bits."""
        return (settings.seed + (stable_number(self.former[0].id) if self.former else 0)) % 2**32

    def _most_planned(self, settings: SearchSettings) -> int:
        """Return how many trials are planned: of a warm search so few that each space is drawn from."""
        most = self.most_trials(settings)
        return max(len(self.former[0].members), most - _count_spaces(settings)) if self._is_warm else most

    def most_trials(self, settings: SearchSettings) -> int:
        """Return how many there may be: of a warm search its share, and some besides the members."""
        if not self._is_warm:
            return settings.trials
        least = len(self.former[0].members) + _count_spaces(settings) + _LEAST_OTHERS
        return min(settings.trials, max(least, math.ceil(settings.warm_share * settings.trials)))

    @property
    def _is_warm(self) -> bool:
        return self.effort == "warm" and len(self.former) > 0

    def weights(self) -> Former | None:
        """Return the former members' weights: a refit keeps them, a warm search begins from them."""
        if self.effort not in {"refit", "warm"} or not self.former:
            return None
        return Former({m.trial_id: m.weight for m in self.former[0].members}, self.effort == "refit")


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """The sweep and its two bundles.

    `proof` was fitted without the gate's rows and is what the gate scores; `final` is the same recipe on all
    rows. It is `proof` itself where there is no time, so that the gate's rows stay unseen for good, where the
    budget ended before all rows were fitted, and where the proof did not pass.
    `gate_rows` are indices into the snapshot's table; `final_cpu_s` are the sweep's CPU-seconds after there
    was a proof.
    """

    sweep: Sweep
    proof: Bundle
    final: Bundle
    gate_rows: NDArray[np.int64]
    nodes: dict[str, str]
    final_cpu_s: float = 0.0


def run_search(workflow: Workflow, snapshot: Snapshot, table: pa.Table, *, plan: SearchPlan) -> SearchResult:
    """Search for the best ensemble; Ray must be initialised.

    Raises:
        SearchError: if no trial finished within the budget.
    """
    settings = workflow.search
    store, ledger = Store(workflow.stores.root), Ledger(workflow.stores.root, plan.sweep_id)
    nodes = training_nodes(workflow)
    means = _means(workflow, plan, ledger, nodes)
    budget = means.budget
    plan.bounded(budget.left_s)
    gate = workflow.gate if plan.hold_gate else None
    metric, families = workflow_metric(workflow), find_families(settings, folder=store.uri(_teams(plan)))
    data, encoder = prepare_data(snapshot, table, search=settings, gate=gate, metric=metric)
    pace = _pace(data, settings, plan, means, nodes) if plan.effort != "refit" else None
    data = _with_affordable_folds(data, pace, settings, plan, means, metric=metric)
    keep_layout(ledger, data, settings, gate)
    shared = ray.put(data)
    trial_plan = _trial_plan(settings, data, plan, budget, metric=metric, families=families, nodes=nodes)
    trials, ran_on = _trials(data, shared, pace, trial_plan, means, workflow=workflow, plan=plan)
    ending = Ending(
        data=data,
        shared=shared,
        table=table,
        recipe=_recipe(snapshot, encoder, data, trial_plan, at_once=means.room.most if plan.grows else None),
        trial_plan=trial_plan,
        budget=budget,
        folder=plan.folder,
        row_ms=settings.row_ms,
        slots=means.slots,
        former=plan.weights(),
        passes=lambda proof: plan.passes(proof, data.gate),
        say=plan.say,
        start_s=_start_seconds(pace),
    )
    made = finish(ending, trials)
    budget.note(at_once=True)
    sweep = _record(workflow, snapshot, plan, budget, metric=metric, made=made)
    ledger.write_sweep(sweep)
    store.remove(_teams(plan))
    return SearchResult(
        sweep=sweep,
        proof=made.proof,
        final=made.final,
        gate_rows=data.gate,
        nodes=ran_on,
        final_cpu_s=budget.cpu_s - made.proved_cpu_s,
    )


def _trial_plan(
    settings: SearchSettings,
    data: SearchData,
    plan: SearchPlan,
    budget: Budget,
    *,
    metric: Metric,
    families: Families,
    nodes: dict[str, str],
) -> TrialPlan:
    most = _MOST_SHARE if plan.searches or data.times is None else _REFIT_SHARE
    return TrialPlan(
        metric=metric,
        threads=settings.trial_cpus,
        deadline=budget.instant(most),
        last_moment=budget.instant(_LAST_SHARE),
        seed=settings.seed,
        ledger=budget.ledger,
        keep_models=data.times is None,
        families=families,
        nodes=nodes,
        here=fitted_here(plan.former, families, nodes, settings.trial_cpus)
        if plan.effort == "refit" and not budget.before.wall_s
        else frozenset(),
    )


def _recipe(
    snapshot: Snapshot, encoder: Encoder, data: SearchData, plan: TrialPlan, *, at_once: int | None
) -> Recipe:
    return Recipe(
        snapshot=snapshot,
        encoder=encoder,
        loss_scale=loss_scale(data.rows.y) if snapshot.task == "regression" else None,
        quantile=data.quantile,
        threads=plan.threads,
        seed=plan.seed,
        ledger=plan.ledger,
        families=plan.families,
        nodes=plan.nodes,
        at_once=at_once,
        here=plan.here,
    )


def _means(workflow: Workflow, plan: SearchPlan, ledger: Ledger, nodes: dict[str, str]) -> Means:
    settings = workflow.search

    def bound(allowed_s: float) -> float:
        return warm_seconds(allowed_s, settings.warm_share) if plan.effort == "warm" else allowed_s

    return find_means(
        settings,
        ledger,
        nodes,
        workflow=workflow.name,
        decision=plan.decision,
        rate=plan.rate,
        grows=plan.grows,
        say=plan.say,
        bound=bound,
    )


def _count_spaces(settings: SearchSettings) -> int:
    return len(settings.spaces) + sum(bool(model.space) for model in settings.models.values())


def _teams(plan: SearchPlan) -> str:
    return f"sweeps/{plan.sweep_id}/teams"


def _record(
    workflow: Workflow,
    snapshot: Snapshot,
    plan: SearchPlan,
    budget: Budget,
    *,
    metric: Metric,
    made: Finished,
) -> Sweep:
    chosen = made.chosen
    return Sweep(
        id=plan.sweep_id,
        snapshot_id=snapshot.id,
        metric=workflow.metric,
        greater_is_better=metric.greater_is_better,
        trials=tuple(_priced(t, plan.rate, workflow.search) for t in made.trials),
        members=chosen.members,
        score=chosen.score,
        calibrated=chosen.calibration is not None,
        budget_s=budget.allowed_s,
        spent_s=budget.spent_s,
        cpu_s=budget.cpu_s,
        warm_from=plan.former[0].id if plan.former else None,
        effort=plan.effort,
        span=plan.span,
        passed_over=chosen.passed_over,
        cost_usd=sum(attempt.cost_usd for attempt in budget.ledger.attempts()),
    )


def _priced(trial: Trial, rate: Rate | None, settings: SearchSettings) -> Trial:
    """Return a trial with its cost; one of an earlier attempt that has it keeps it."""
    if rate is None or trial.cost_usd > 0:
        return trial
    own = settings.models.get(trial.family)
    cpus, gpus = (own.cpus * own.workers, own.gpus * own.workers) if own else (settings.trial_cpus, 0.0)
    return dataclasses.replace(
        trial, cost_usd=rate.usd(cpu_s=trial.seconds * cpus, gpu_s=trial.seconds * gpus)
    )


def _trials(
    data: SearchData,
    shared: Any,
    pace: Pace | None,
    trial_plan: TrialPlan,
    means: Means,
    *,
    workflow: Workflow,
    plan: SearchPlan,
) -> tuple[list[Trial], dict[str, str]]:
    """Run the trials; those of a sweep that was finished once are as they were."""
    finished = trial_plan.ledger.read_sweep()
    if finished is not None:
        return list(finished.trials), {}

    settings = workflow.search
    if plan.effort == "refit":
        again = plan.trials(settings, data, pace)
        if trial_plan.here.issuperset(t.id for t in again):
            return try_here(data, again, trial_plan, progress=plan.progress, tick=means.tick_tasks)
        return try_again(
            shared,
            again,
            trial_plan,
            most=means.room.most,
            warmed=0 if plan.grows else min(means.slots, 2 * len(again)),
            retries=settings.max_failures,
            progress=plan.progress,
            tick=means.tick_tasks,
        )
    wanted = _queue(data, pace, settings, plan, means, trial_plan=trial_plan)
    return run_trials(
        shared,
        wanted,
        trial_plan,
        settings=settings,
        progress=plan.progress,
        tick=means.tick,
    )


def _pace(
    data: SearchData, settings: SearchSettings, plan: SearchPlan, means: Means, nodes: dict[str, str]
) -> Pace:
    """Return how long fits take: as settled before an interruption, as former searches had it, or measured.

    Only a warm search takes it from former ones: measuring would take a larger share of its time than theirs.
    """
    ledger = means.budget.ledger
    settled = ledger.settled("pace")
    if settled is None:
        known = _former_pace(plan, ledger.root, rows=len(data.rest)) if plan.effort == "warm" else None
        pace = known or _measured_pace(data, settings, means, nodes)
        if pace is None:  # the trials will tell what is wrong, if anything is
            return Pace(round_s=_PROBE_MAX_S / _GUESSED_ROUNDS, rounds=_GUESSED_ROUNDS)
        # a wait for a free slot, or another clock, is no worker's start
        most_s = max(WORKER_S, min(_MOST_START_S, _MOST_START_SHARE * means.budget.allowed_s))
        pace = dataclasses.replace(pace, start_s=float(np.clip(pace.start_s, WORKER_S, most_s)))
        settled = ledger.settle("pace", dataclasses.asdict(pace))
    return Pace(**settled)


def _start_seconds(pace: Pace | None) -> float:
    return WORKER_S if pace is None else pace.start_s


def _former_pace(plan: SearchPlan, root: str, *, rows: int) -> Pace | None:
    found = (Ledger(root, sweep.id).settled("pace") for sweep in plan.former)
    known = next((pace for pace in found if pace is not None), None)
    return None if known is None else Pace(**known).of(rows)


def _measured_pace(
    data: SearchData, settings: SearchSettings, means: Means, nodes: dict[str, str]
) -> Pace | None:
    """Measure in workers how long fits take, on a sample of the rows."""
    budget, index = means.budget, data.rest
    if len(index) > PROBE_ROWS:
        index = np.random.default_rng(settings.seed).choice(index, PROBE_ROWS, replace=False)
    problem = data.problem(threads=settings.trial_cpus)
    widens = problem.sizes.count(0) > 1 and any(traits(name).widens for name in settings.families)
    rows = ray.put(data.rows.take(index))
    placed = placement({"CPU": settings.trial_cpus}, nodes, budget.ledger.sweep_id)
    probe = ray.remote(probe_fit).options(max_retries=2, **placed)
    seconds = min(_PROBE_MAX_S, _PROBE_SHARE * budget.allowed_s)
    asked = (0, PAIRS) if widens else (0,)
    hands = [asked] if means.room.most > 1 else [(pairs,) for pairs in asked]
    asked_at, found = time.time(), list[Probe]()
    try:
        for hand in hands:  # no more at once than trials would be
            found += means.get([probe.remote(rows, problem, seconds=seconds, pairs=p) for p in hand])
    except RayError:
        return None
    pace = pace_of(found[0], found[-1], rows=len(data.rest), probed=len(index))
    return dataclasses.replace(pace, start_s=found[0].begun - asked_at)


def _with_affordable_folds(
    data: SearchData,
    pace: Pace | None,
    settings: SearchSettings,
    plan: SearchPlan,
    means: Means,
    *,
    metric: Metric,
) -> SearchData:
    """Return the data with as many folds as time allows and its rows bear; it has one or two already.

    Without a pace there is one: a refit needs it for the calibration and for when to stop. A search that was
    interrupted keeps its number.
    """
    begun = kept_folds(means.budget.ledger)
    if begun is not None:
        count = begun
    elif pace is None:
        count = 1
    elif settings.folds is not None:
        return data
    else:
        trials = plan.trials(settings, data, pace)
        ordered, core_s = data.times is not None, means.slot_seconds
        count = choose_folds(pace, trials, core_s, rows=len(data.rest), ordered=ordered)
        least = 1 if plan.effort == "warm" else 2  # what was chosen before is no guess
        count = min(max(count, least), _ORDERED_FOLDS) if ordered else count
    try:
        more = with_folds(data, settings, count, metric=metric)
    except SearchError:
        return data
    return more if more.folds else data


def _queue(
    data: SearchData,
    pace: Pace | None,
    settings: SearchSettings,
    plan: SearchPlan,
    means: Means,
    *,
    trial_plan: TrialPlan,
) -> QueuePlan:
    """Order the trials; learning rates rise where the budget would fit but few of them.

    All slots that may come are handed trials; the last fits are foreseen on those that are there.
    """
    budget, former = means.budget, plan.weights()
    foreseen = LastFits(
        data=data,
        ledger=trial_plan.ledger,
        metric=trial_plan.metric,
        closing=budget.closing,
        bounds=Bounds(
            row_ms=settings.row_ms, left_s=budget.allowed_s, slots=means.slots, bag=trial_plan.keep_models
        ),
        former=former,
        start_s=_start_seconds(pace),
        may_be_here=may_fit_here(settings.models, trial_plan.families, trial_plan.nodes, trial_plan.threads),
    )
    ordered = data.times is not None
    room = _ORDERED_ROOM if ordered else _ROOM

    trials = plan.trials(settings, data, pace)
    if pace is not None:
        needed = len(data.folds) * sum(fit_seconds(pace, t.family, t.params) for t in trials)
        speed = float(np.clip(needed / means.slot_seconds, 1.0, _MAX_SPEED))
        trials = plan.trials(settings, data, pace, speed=speed)
    planned = {trial.id for trial in trials}
    drawn_before = tuple(trial for trial in budget.ledger.begun() if trial.id not in planned)
    return QueuePlan(
        trials=(*drawn_before, *trials),
        fold_rows=tuple(len(f.score) for f in data.folds),
        most=plan.most_trials(settings),
        sure=frozenset(planned & former.weights.keys() if former else ()),
        deadline=budget.instant(_REFIT_SHARE if ordered or former else _MOST_SHARE),
        latest=trial_plan.deadline,
        until=lambda done: budget.closing - room * foreseen.seconds(done),
        seed=plan.seed(settings),
        slots=means.room.most,
        grows=plan.grows,
        drawn=read_spaces(settings) if plan.searches else Spaces(),
        more=plan.searches,
        pace=pace,
        ended=budget.ledger.whole_trials(),
    )
