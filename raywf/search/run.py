"""One search: trials, ensemble, calibration and refits within a hard wall-clock budget."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray

from raywf.core.errors import SearchError
from raywf.core.metrics import METRICS
from raywf.core.records import Bundle, Member, Snapshot, Sweep, Trial
from raywf.core.settings import Workflow
from raywf.models.calibration import Calibration, fit_calibration
from raywf.search.data import SearchData, newest_instant, prepare_data
from raywf.search.ensemble import keep_largest, select_ensemble
from raywf.search.ledger import Ledger
from raywf.search.portfolio import plan_trials
from raywf.search.refit import Recipe, finish_bundle, is_whole, loss_scale, start_fits
from raywf.search.trial import TrialPlan
from raywf.search.tuning import Progress, run_trials

_TRIAL_SHARE = 0.6
_LAST_SHARE = 0.85
_REFIT_GROWTH = 2.2


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchPlan:
    """Which search: its id (the same id resumes), what it starts from, where bundles are written."""

    sweep_id: str
    folder: Path
    warm: Sweep | None = None
    progress: Progress = field(default=lambda _trial: None)


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """The sweep and its two bundles.

    `proof` was fitted without the gate's rows and is what the gate scores; `final` is the same recipe on all
    rows. It is `proof` itself where there is no time, so that the gate's rows stay unseen for good, and where
    the budget ended before all rows were fitted.
    `gate_rows` are indices into the snapshot's table.
    """

    sweep: Sweep
    proof: Bundle
    final: Bundle
    gate_rows: NDArray[np.int64]
    nodes: dict[str, str]


def run_search(workflow: Workflow, snapshot: Snapshot, table: pa.Table, *, plan: SearchPlan) -> SearchResult:
    """Search for the best ensemble; Ray must be initialised.

    Raises:
        SearchError: if no trial finished within the budget.
    """
    start = time.time()
    settings = workflow.search
    data, encoder = prepare_data(snapshot, table, search=settings, gate=workflow.gate)
    shared = ray.put(data)
    ledger = Ledger(workflow.stores.root, plan.sweep_id)
    trial_plan = TrialPlan(
        metric=workflow.metric,
        threads=settings.trial_cpus,
        deadline=start + _TRIAL_SHARE * settings.budget_s,
        last_moment=start + _LAST_SHARE * settings.budget_s,
        seed=settings.seed,
        ledger=ledger,
    )
    wanted = plan_trials(settings, rows=len(data.rest), warm=plan.warm)
    trials, nodes = run_trials(shared, wanted, trial_plan, settings=settings, progress=plan.progress)
    chosen = _choose(workflow, data, trials, ledger, left_s=start + settings.budget_s - time.time())
    recipe = Recipe(
        snapshot=snapshot,
        members=chosen.members,
        calibration=chosen.calibration,
        encoder=encoder,
        loss_scale=loss_scale(data.rows.y) if snapshot.task == "regression" else None,
        threads=settings.trial_cpus,
        deadline=start + 0.95 * settings.budget_s,
        seed=settings.seed,
    )
    proof, final = _refit(recipe, shared, data, table, folder=plan.folder)
    sweep = Sweep(
        id=plan.sweep_id,
        snapshot_id=snapshot.id,
        metric=workflow.metric,
        greater_is_better=METRICS[workflow.metric].greater_is_better,
        trials=tuple(trials),
        members=chosen.members,
        score=chosen.score,
        calibrated=chosen.calibration is not None,
        budget_s=settings.budget_s,
        spent_s=time.time() - start,
        cpu_s=sum(t.seconds for t in trials) * settings.trial_cpus,
        warm_from=plan.warm.id if plan.warm else None,
    )
    ledger.write_sweep(sweep)
    return SearchResult(sweep=sweep, proof=proof, final=final, gate_rows=data.gate, nodes=nodes)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chosen:
    members: tuple[Member, ...]
    calibration: Calibration | None
    score: float


def _choose(
    workflow: Workflow, data: SearchData, trials: list[Trial], ledger: Ledger, *, left_s: float
) -> _Chosen:
    """Weigh the finished trials' out-of-fold scores; drop the lightest members that time cannot refit."""
    found = {t.id: kept for t in trials if t.status == "done" and (kept := ledger.find(t.id))}
    if not found:
        failed = [f"{t.id}: {t.error}" for t in trials if t.error]
        reason = (
            "; ".join(failed)
            or "none finished its folds in time: raise search.budget_s or lower search.folds"
        )
        raise SearchError(f"no trial of {len(trials)} gave a model: {reason}")
    metric = METRICS[workflow.metric]
    labels = np.concatenate([data.rows.y[f.score] for f in data.folds])
    scores = {i: np.concatenate(folds) for i, (_, folds) in found.items()}
    ends = np.cumsum([len(f.score) for f in data.folds])
    blocks = [slice(int(end - len(f.score)), int(end)) for end, f in zip(ends, data.folds, strict=True)]
    weights = select_ensemble(labels, scores, metric, blocks=blocks)
    by_id = {i: trial for i, (trial, _) in found.items()}
    weights = keep_largest(weights, _affordable(weights, by_id, data, left_s))
    mix = np.asarray(sum(scores[i].astype(np.float64) * w for i, w in weights.items()))
    calibration = fit_calibration(labels, mix) if workflow.task != "regression" else None
    final = mix if calibration is None else calibration.apply(mix)
    members = tuple(
        Member(
            trial_id=i,
            family=by_id[i].family,
            params=by_id[i].params,
            rounds=by_id[i].rounds,
            weight=w,
        )
        for i, w in weights.items()
    )
    score = float(np.mean([metric.score(labels[b], final[b]) for b in blocks]))
    return _Chosen(members=members, calibration=calibration, score=score)


def _affordable(weights: dict[str, float], trials: dict[str, Trial], data: SearchData, left_s: float) -> int:
    """Return how many of the heaviest members can be refitted in nine tenths of the time left."""
    cpus = max(1.0, float(ray.cluster_resources().get("CPU", 1)))
    growth = 2 * _REFIT_GROWTH if data.times is not None else _REFIT_GROWTH
    spent = 0.0
    ranked = sorted(weights, key=lambda i: -weights[i])
    for count, name in enumerate(ranked):
        spent += trials[name].seconds / len(data.folds) * growth / cpus
        if count and spent > 0.9 * left_s:
            return count
    return len(ranked)


def _refit(
    recipe: Recipe, shared: Any, data: SearchData, table: pa.Table, *, folder: Path
) -> tuple[Bundle, Bundle]:
    shutil.rmtree(folder, ignore_errors=True)
    ordered = data.times is not None
    proof_fits = start_fits(recipe, shared, data.rest)
    final_fits = start_fits(recipe, shared, None) if ordered else []
    seen = table.take(pa.array(data.rest))
    proof = finish_bundle(
        recipe, ray.get(proof_fits), seen, folder=folder / "proof", fitted_until=newest_instant(seen)
    )
    final_models = ray.get(final_fits)
    if not ordered or not is_whole(recipe, final_models):
        return proof, proof  # a final fit that the deadline cut short is not the model that the gate saw
    final = finish_bundle(
        recipe, final_models, table, folder=folder / "final", fitted_until=newest_instant(table)
    )
    return proof, final
