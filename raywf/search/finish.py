"""From finished trials to two bundles: members are chosen, made, held to their time for a row, written."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from raywf.core.records import Bundle, Trial
from raywf.models.families import traits
from raywf.search.budget import WORKER_S, Budget
from raywf.search.choose import Bounds, Chosen, Former, alone_s, choose, in_turn_s
from raywf.search.data import SearchData, newest_instant
from raywf.search.folds import TrialPlan
from raywf.search.here import fitted_away, may_fit_here
from raywf.search.refit import Fits, Made, Recipe, await_fits, finish_bundle, measure_row_ms, start_fits
from raywf.search.rescue import rescue

_LEAST_REFIT_S = 2.0  # for the members' fits, however late it is
# beyond the budget, before a member's fit that goes on and on is ended: so much of it, within these seconds
_GRACE_SHARE, _GRACE_BOUNDS_S = 0.03, (1.0, 5.0)
_TIGHTER, _MOST_TIGHTENED = 0.95, 4
_GATE_S = 1.0  # that whoever judges a proof may take
_MOST_OF_IT = 0.7  # of a member's rounds
_LATE_SHARE = 0.03  # of the budget: so late an ensemble is still chosen again to answer in time


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What the end of a search works with: the data, here and as an object reference, and its bounds.

    `former` are the former members' weights, where the choice minds them. `passes` says of the proof whether
    a final model is wanted; `say` hears of what stands in. New workers take `start_s` until they begin a fit.
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
    former: Former | None = None
    passes: Callable[[Bundle], bool] = field(default=lambda _proof: True)
    say: Callable[[str], None] = field(default=lambda _text: None)
    start_s: float = WORKER_S

    @property
    def has_final(self) -> bool:
        """Whether there are rows that the proof must not have seen and a final model is to know."""
        return self.data.times is not None and len(self.data.gate) > 0

    @property
    def stays(self) -> bool:
        """Whether the members are the former ones, whatever they take."""
        return self.former is not None and self.former.stay


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The choice and its two bundles; `trials` tell which of them could not be made again.

    `proved_cpu_s` is what was charged until there was a proof.
    """

    chosen: Chosen
    trials: list[Trial]
    proof: Bundle
    final: Bundle
    proved_cpu_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attempt:
    """A proof, or why there is none: members not made or only in part, by trial id; or too slow a row.

    With it comes the recipe, and until when final fits may go on.
    """

    proof: Bundle | None = None
    recipe: Recipe | None = None
    until: float = 0.0
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
    here = ending.recipe.here
    while True:
        data, trials, rescued = rescue(data, trials, ending.trial_plan)
        if rescued:
            ending.say(f"no trial had the time for a fold: {', '.join(sorted(rescued))} stands in")
        here |= rescued
        whole = frozenset(name for name, folds in fits[0] if not folds and name not in cut)
        bounds = _bounds(ending, row_ms=row_ms, made=whole, cut=cut)
        metric, ledger = ending.trial_plan.metric, ending.recipe.ledger
        chosen = choose(data, trials, ledger, metric=metric, bounds=bounds, former=ending.former)
        in_time = ending.budget.left_s > -_LATE_SHARE * ending.budget.allowed_s
        may_tighten = not ending.stays and chosen.is_divisible and in_time
        may_tighten = may_tighten and tightened < _MOST_TIGHTENED
        most_ms = ending.row_ms if may_tighten else None
        here |= _quick_members(ending, data, chosen, trials)
        recipe = dataclasses.replace(
            ending.recipe,
            members=chosen.members,
            calibration=chosen.calibration,
            threshold=chosen.threshold,
            seconds={t.id: t.seconds for t in trials},
            here=here,
        )
        beside = ending.has_final and _go_on_beside(ending, data, recipe, trials)
        made = _attempt(ending, data, recipe, fits, most_ms=most_ms, cut=cut, beside=beside)
        if made.proof is not None:
            ending.budget.note(at_once=True)
            proved_cpu_s = ending.budget.cpu_s
            final = _final(ending, made, fits[1])
            return Finished(
                chosen=chosen, trials=trials, proof=made.proof, final=final, proved_cpu_s=proved_cpu_s
            )
        if made.row_ms:
            row_ms, tightened = row_ms * _TIGHTER * ending.row_ms / made.row_ms, tightened + 1
        cut |= made.cut
        trials = [
            dataclasses.replace(t, status="failed", error=made.lost[t.id]) if t.id in made.lost else t
            for t in trials
        ]


def _bounds(ending: Ending, *, row_ms: float, made: frozenset[str], cut: frozenset[str]) -> Bounds:
    return Bounds(
        row_ms=row_ms,
        left_s=_left_s(ending, cut),
        slots=ending.slots,
        bag=ending.trial_plan.keep_models,
        alone_ms=ending.row_ms,
        made=made,
        cut=cut,
        here_s=_here_s(ending),
        away=fitted_away(ending.recipe.families),
    )


def _grace_s(budget: Budget) -> float:
    least_s, most_s = _GRACE_BOUNDS_S
    return min(most_s, max(least_s, _GRACE_SHARE * budget.allowed_s))


def _left_s(ending: Ending, cut: frozenset[str]) -> float:
    """Return the seconds for the members' fits; where folds' models stand in, no more than there are."""
    left_s = ending.budget.closing - time.time()
    if ending.trial_plan.keep_models:
        return max(0.0, left_s - ending.start_s)
    return max(0.0 if cut else _LEAST_REFIT_S, left_s)


def _here_s(ending: Ending) -> float:
    """Return the seconds that last fits may take of this process: no more than a worker would start in."""
    left_s = max(0.0, ending.budget.closing - time.time())
    return min(ending.start_s, left_s) if _may_fit_here(ending, ()) else 0.0


def _may_fit_here(ending: Ending, names: Collection[str]) -> bool:
    """Whether fits of these families may be this process's: not after one that may have ended a process."""
    recipe, went_on = ending.recipe, ending.budget.before.wall_s > 0
    return not went_on and may_fit_here(names, recipe.families, recipe.nodes, recipe.threads)


def _attempt(
    ending: Ending,
    data: SearchData,
    recipe: Recipe,
    fits: tuple[Fits, Fits],
    *,
    most_ms: float | None,
    cut: frozenset[str],
    beside: bool,
) -> _Attempt:
    """Make the recipe's members as proof; of those in `cut` there is nothing else than a part.

    The final fits, of all rows, may go on `beside` them.
    """
    soon = time.time() + _LEAST_REFIT_S
    recipe = dataclasses.replace(recipe, deadline=max(ending.budget.closing, soon))
    until = max(ending.budget.instant(1.0) + _grace_s(ending.budget), soon + _GRACE_BOUNDS_S[0])
    proof_fits = start_fits(
        recipe, ending.shared, data.rest, problem=data.problem(), known=fits[0], tick=ending.budget.note
    )
    if beside:
        _start_final(ending, recipe, fits[1], beside=proof_fits)
    proof_made = await_fits(proof_fits, until=until, tick=ending.budget.note)
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
    return _Attempt(proof=proof, recipe=recipe, until=until)


def _quick_members(ending: Ending, data: SearchData, chosen: Chosen, trials: list[Trial]) -> frozenset[str]:
    """Return the members' trials where this process has made them before others have begun; else none."""
    is_quick = alone_s(chosen.members, trials, data) <= ending.start_s
    may = is_quick and _may_fit_here(ending, {m.family for m in chosen.members if not m.folds})
    return frozenset(m.trial_id for m in chosen.members if may)


def _go_on_beside(ending: Ending, data: SearchData, recipe: Recipe, trials: list[Trial]) -> bool:
    """Whether final fits begin with the proof's: slots would stand idle, or there is no time to wait."""
    members = recipe.members
    left_s = ending.budget.closing - time.time() - ending.start_s - _GATE_S
    needed_s = in_turn_s(members, trials, data, slots=ending.slots)
    idle = 2 * len(members) <= ending.slots and not recipe.here.issuperset(m.trial_id for m in members)
    return idle or needed_s > left_s


def _start_final(ending: Ending, recipe: Recipe, known: Fits, *, beside: Sequence[Any] = ()) -> list[Any]:
    problem = ending.data.problem()
    tick = ending.budget.note
    return start_fits(recipe, ending.shared, None, problem=problem, known=known, beside=beside, tick=tick)


def _final(ending: Ending, attempt: _Attempt, known: Fits) -> Bundle:
    """Return the same recipe on all rows; the proof, where none is wanted or there was no time for it.

    A final fit that the deadline cut short is not the model that the gate saw.
    """
    proof, recipe = attempt.proof, attempt.recipe
    assert proof is not None
    assert recipe is not None
    if not ending.passes(proof) or not ending.has_final:
        await_fits(list(known.values()), until=0.0)
        return proof
    soon = time.time() + _LEAST_REFIT_S
    recipe = dataclasses.replace(recipe, deadline=max(recipe.deadline, soon))
    fits, until = _start_final(ending, recipe, known), max(attempt.until, soon + _GRACE_BOUNDS_S[0])
    made = await_fits(fits, until=until, tick=ending.budget.note)
    if not all(each.whole for each in made):
        return proof
    newest = newest_instant(ending.table)
    return finish_bundle(recipe, made, ending.table, folder=ending.folder / "final", fitted_until=newest)


def _parts(ending: Ending, recipe: Recipe, made: list[Made]) -> frozenset[str]:
    """Return the members that the deadline cut short and that are not served as they are.

    A fold's model stands in where one is kept; where none is, most of a model is taken for the whole.
    """
    found = set()
    for member, each in zip(recipe.members, made, strict=True):
        stands_in = ending.trial_plan.keep_models and traits(member.family).merges
        drops = not ending.stays and each.share < _MOST_OF_IT
        if not each.whole and (stands_in or drops):
            found.add(member.trial_id)
    return frozenset(found)
