"""From finished trials to two bundles: members are chosen, made, held to their time for a row, written."""

from __future__ import annotations

import dataclasses
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from raywf.core.records import Bundle, Trial
from raywf.models.families import traits
from raywf.search.budget import WORKER_S, Budget
from raywf.search.choose import Bounds, Chosen, choose
from raywf.search.data import SearchData, newest_instant
from raywf.search.folds import TrialPlan
from raywf.search.refit import Fits, Made, Recipe, await_fits, finish_bundle, measure_row_ms, start_fits
from raywf.search.rescue import rescue

_LEAST_REFIT_S = 2.0  # for the members' fits, however late it is
_REFIT_GRACE_S = 5.0  # beyond the budget, before a member's fit that goes on and on is ended
_TIGHTER, _MOST_TIGHTENED = 0.95, 4
_MOST_OF_IT = 0.7  # of a member's rounds
_LATE_SHARE = 0.03  # of the budget: so late an ensemble is still chosen again to answer in time


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What the end of a search works with: the data, here and as an object reference, and its bounds.

    `weights` are the former members' by trial id, where they are to stay.
    """

    data: SearchData
    shared: Any
    table: pa.Table
    recipe: Recipe
    trial_plan: TrialPlan
    budget: Budget
    folder: Path
    row_ms: float
    slots: int
    weights: dict[str, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The choice and its two bundles; `trials` tell which of them could not be made again."""

    chosen: Chosen
    trials: list[Trial]
    proof: Bundle
    final: Bundle


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attempt:
    """Bundles, or why there are none: members not made or only in part, by trial id; or too slow a row."""

    bundles: tuple[Bundle, Bundle] | None = None
    lost: dict[str, str] = field(default_factory=dict)
    cut: frozenset[str] = frozenset()
    row_ms: float = 0.0


def finish(ending: Ending, trials: list[Trial]) -> Finished:
    """Choose the members and make them.

    A member that cannot be made counts as failed, and others are chosen; for one that the deadline cut short
    a fold's model stands in. Where the whole answers a row more slowly than it should, it is chosen again
    within less.

    Raises:
        SearchError: if no trial can become a member.
    """
    fits: tuple[Fits, Fits] = {}, {}
    data, row_ms, tightened = ending.data, ending.row_ms, 0
    cut: frozenset[str] = frozenset()
    while True:
        data, trials = rescue(data, trials, ending.trial_plan)
        bounds = Bounds(
            row_ms=row_ms,
            left_s=_left_s(ending, cut),
            slots=ending.slots,
            bag=ending.trial_plan.keep_models,
            made=frozenset(name for name, folds in fits[0] if not folds and name not in cut),
            cut=cut,
        )
        metric, ledger = ending.trial_plan.metric, ending.recipe.ledger
        chosen = choose(data, trials, ledger, metric=metric, bounds=bounds, weights=ending.weights)
        in_time = ending.budget.left_s > -_LATE_SHARE * ending.budget.allowed_s
        may_tighten = ending.weights is None and chosen.is_divisible and in_time
        may_tighten = may_tighten and tightened < _MOST_TIGHTENED
        most_ms = ending.row_ms if may_tighten else None
        made = _attempt(ending, data, chosen, fits, most_ms=most_ms, cut=cut)
        if made.bundles is not None:
            proof, final = made.bundles
            return Finished(chosen=chosen, trials=trials, proof=proof, final=final)
        if made.row_ms:
            row_ms, tightened = row_ms * _TIGHTER * ending.row_ms / made.row_ms, tightened + 1
        cut |= made.cut
        trials = [
            dataclasses.replace(t, status="failed", error=made.lost[t.id]) if t.id in made.lost else t
            for t in trials
        ]


def _left_s(ending: Ending, cut: frozenset[str]) -> float:
    """Return the seconds for the members' fits; where folds' models stand in, no more than there are."""
    left_s = ending.budget.closing - time.time()
    if ending.trial_plan.keep_models:
        return max(0.0, left_s - WORKER_S)
    return max(0.0 if cut else _LEAST_REFIT_S, left_s)


def _attempt(
    ending: Ending,
    data: SearchData,
    chosen: Chosen,
    fits: tuple[Fits, Fits],
    *,
    most_ms: float | None,
    cut: frozenset[str],
) -> _Attempt:
    """Make the chosen members; of those in `cut` there is nothing else than a part."""
    soon = time.time() + _LEAST_REFIT_S
    recipe = dataclasses.replace(
        ending.recipe,
        members=chosen.members,
        calibration=chosen.calibration,
        threshold=chosen.threshold,
        deadline=max(ending.budget.closing, soon),
    )
    until = max(ending.budget.instant(1.0), soon) + _REFIT_GRACE_S
    ordered, problem = data.times is not None and len(data.gate) > 0, data.problem()
    proof_fits = start_fits(recipe, ending.shared, data.rest, problem=problem, known=fits[0])
    final_fits = (
        start_fits(recipe, ending.shared, None, problem=problem, known=fits[1], beside=proof_fits)
        if ordered
        else []
    )
    proof_made = await_fits(proof_fits, until=until)
    lost = {m.trial_id: r.error for m, r in zip(recipe.members, proof_made, strict=True) if r.model is None}
    if lost:
        return _Attempt(lost=lost)
    part = _parts(ending, recipe, proof_made)
    if part - cut:
        return _Attempt(cut=part)
    seen = ending.table.take(pa.array(data.rest))
    row_ms = 0.0 if most_ms is None else measure_row_ms(recipe, proof_made, seen)
    if most_ms is not None and row_ms > most_ms:
        return _Attempt(row_ms=row_ms)
    shutil.rmtree(ending.folder, ignore_errors=True)
    proof = finish_bundle(
        recipe, proof_made, seen, folder=ending.folder / "proof", fitted_until=newest_instant(seen)
    )
    final_made = await_fits(final_fits, until=until) if ordered else []
    if not ordered or not all(made.whole for made in final_made):
        # a final fit that the deadline cut short is not the model that the gate saw
        return _Attempt(bundles=(proof, proof))
    final = finish_bundle(
        recipe,
        final_made,
        ending.table,
        folder=ending.folder / "final",
        fitted_until=newest_instant(ending.table),
    )
    return _Attempt(bundles=(proof, final))


def _parts(ending: Ending, recipe: Recipe, made: list[Made]) -> frozenset[str]:
    """Return the members that the deadline cut short and that are not served as they are.

    A fold's model stands in where one is kept; where none is, most of a model is taken for the whole.
    """
    found = set()
    for member, each in zip(recipe.members, made, strict=True):
        stands_in = ending.trial_plan.keep_models and traits(member.family).merges
        drops = ending.weights is None and each.share < _MOST_OF_IT
        if not each.whole and (stands_in or drops):
            found.add(member.trial_id)
    return frozenset(found)
