"""Which trials become the ensemble's members, with which weights, and how each is made."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np

from raywf.core.errors import SearchError
from raywf.core.metrics import Metric
from raywf.core.records import Member, Trial
from raywf.models.calibration import Calibration
from raywf.models.families import is_family, traits
from raywf.search.calibrate import fit_calibration
from raywf.search.data import SearchData
from raywf.search.ensemble import Candidates, keep_largest, most_candidates, select_ensemble
from raywf.search.ledger import FoldResult, Ledger

_ORDERED_SLACK = 1.2  # a fit on more rows beside what their number says
_HELD_GROWTH = 1.3  # the same beside one on four fifths of them
_AROUND_US, _COLUMN_US = 20.0, 0.5  # what a row takes beside the members, and its encoder for a column
_PAIRS_US = 15.0  # what making the pairs of numbers takes, once for all members
_TOGETHER = 1.25  # what models take one after the other, beside what each takes asked again and again
_LEAST_ROOM_US = 20.0
_LEAST_BAG = 2
_LIKELY = 3  # the best trials that are likely to become members


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The members, heaviest first, the calibration and the out-of-fold score of the whole.

    `threshold` is the probability from which on the second of two classes is the prediction; `passed_over`
    are trials that by themselves take too long for a row.
    """

    members: tuple[Member, ...]
    calibration: Calibration | None
    score: float
    threshold: float = 0.5
    passed_over: tuple[str, ...] = ()

    @property
    def is_divisible(self) -> bool:
        """Whether less of it is an ensemble too."""
        return len(self.members) > 1 or any(m.folds > 1 for m in self.members)


@dataclass(frozen=True, slots=True)
class Former:
    """The former members' weights by trial id: a choice begins from them, or keeps them if they `stay`."""

    weights: Mapping[str, float]
    stay: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What the ensemble may take: milliseconds a row when served, seconds for fits, `slots` at a time.

    `alone_ms` is what a member may take by itself, where `row_ms` is less for what members take together;
    None: `row_ms`. `bag` allows folds' models; `made` are trials whose proof's fit is done already, `cut`
    those whose last fit was cut short. Fits that take `here_s` one after the other need no worker, for which
    `left_s` has room, if none of them is of the families `away`.
    """

    row_ms: float
    left_s: float
    slots: int
    bag: bool
    alone_ms: float | None = None
    made: frozenset[str] = frozenset()
    cut: frozenset[str] = frozenset()
    here_s: float = 0.0
    away: frozenset[str] = frozenset()

    def in_time(self, fits: Sequence[tuple[Trial, list[float]]]) -> bool:
        """Whether trials' configurations can be fitted again that take so many seconds each time."""
        fits_s = [s for _, needed in fits for s in needed]
        is_here = sum(fits_s) <= self.here_s and self.away.isdisjoint(t.family for t, _ in fits)
        return is_here or _span_s(fits_s, self.slots) <= self.left_s


def _row_room_us(row_ms: float, data: SearchData, trials: Iterable[Trial]) -> float:
    """Return the microseconds that the members' answers to a row may take."""
    around_us = _AROUND_US + _COLUMN_US * float(data.rows.X.shape[1])
    around_us += _PAIRS_US if any(t.params.get("pairs") for t in trials) else 0.0
    return max(_LEAST_ROOM_US, (1000.0 * row_ms - around_us) / _TOGETHER)


def fits_to_come_s(done: Sequence[Trial], data: SearchData, *, row_ms: float, slots: int, bag: bool) -> float:
    """Return about how long the members' fits will take if the trials end now; merging folds' models is free.

    The best trials stand for the members, as many as fit the time for a row.
    """
    alone_us = _alone_us(done, data, row_ms)
    whole = [t for t in done if len(t.fold_losses) == len(data.folds) and not _is_slow(t, alone_us)]
    best = {t.id: t for t in heapq.nsmallest(_LIKELY, whole, key=lambda t: fmean(t.fold_losses))}
    if not best:
        return 0.0
    room = _row_room_us(row_ms, data, best.values())
    weights = _within({name: 1 / (1 + at) for at, name in enumerate(best)}, best, room)
    count = _bag_size(weights, best, room, len(data.folds)) if bag else 0
    again = [best[name] for name in weights if not _is_merged(best[name], count)]
    return _span_s([s for trial in again for s in _fits_s(trial, data)], slots)


def chosen_fits_s(chosen: Chosen, done: Sequence[Trial], data: SearchData, *, slots: int) -> float:
    """Return about how long the fits of a choice will take."""
    by_id = {t.id: t for t in done}
    again = [by_id[m.trial_id] for m in chosen.members if not m.folds]
    return _span_s([s for trial in again for s in _fits_s(trial, data)], slots)


def in_turn_s(members: Sequence[Member], trials: Sequence[Trial], data: SearchData, *, slots: int) -> float:
    """Return about how long the fits will take where the final ones begin when the proof's have ended."""
    by_id = {t.id: t for t in trials}
    fits = [_fits_s(by_id[m.trial_id], data) for m in members if not m.folds]
    return sum(_span_s(stage, slots) for stage in itertools.zip_longest(*fits, fillvalue=0.0))


def alone_s(members: Sequence[Member], trials: Sequence[Trial], data: SearchData) -> float:
    """Return about how long one process needs for all the fits."""
    by_id = {t.id: t for t in trials}
    return sum(sum(_fits_s(by_id[m.trial_id], data)) for m in members if not m.folds)


def _span_s(fits_s: Sequence[float], slots: int) -> float:
    """Return how long fits take side by side, none of which can be split."""
    return max(max(fits_s, default=0.0), sum(fits_s) / slots)


def _fits_s(trial: Trial, data: SearchData) -> list[float]:
    """Return the seconds of each last fit of a trial's configuration, on more rows than a fold had."""
    count = len(data.folds)
    if data.times is not None:  # the proof and the final one, each beside an ordered fold's
        row_s = _ORDERED_SLACK * trial.seconds / sum(len(f.fit) for f in data.folds)
        return [row_s * len(data.rest), *([row_s * len(data.rows.y)] if len(data.gate) else [])]
    growth = count / (count - 1) if count > 1 else _HELD_GROWTH
    return [growth * trial.seconds / count]


def choose(
    data: SearchData,
    trials: list[Trial],
    ledger: Ledger,
    *,
    metric: Metric,
    bounds: Bounds,
    former: Former | None = None,
) -> Chosen:
    """Weigh the finished trials by their out-of-fold scores and `former` weights, within the bounds.

    Raises:
        SearchError: if no trial finished its folds.
    """
    stays = former is not None and former.stay
    alone_us = math.inf if stays else _alone_us(trials, data, bounds.alone_ms or bounds.row_ms)
    prior = former.weights if former else {}
    found = _finished(data, trials, ledger, alone_us=alone_us, always=prior)
    order = np.concatenate([f.score for f in data.folds])
    labels = data.rows.y[order]
    groups = None if data.rows.groups is None else data.rows.groups[order]
    room = _row_room_us(bounds.row_ms, data, (t for t, _ in found))
    scores = {t.id: np.concatenate([r.scores for r in results]) for t, results in found}
    by_id = {t.id: t for t, _ in found}
    candidates = Candidates(
        labels=labels,
        scores=scores,
        blocks=_blocks(data),
        groups=groups,
        costs={t.id: t.row_us / room for t, _ in found},
        times={} if bounds.bag else _time_shares(data, by_id.values(), bounds),
    )
    kept = {i: w for i, w in prior.items() if i in by_id}
    if stays and kept:
        weights = keep_largest(kept, len(kept))
    else:
        weights = select_ensemble(candidates, metric, prior=kept)
    weights = _within(weights, by_id, room)
    weights, bag = _makeable(weights, by_id, data, bounds, room)
    members = _members(weights, by_id, data, bounds, bag=bag)
    weights = {m.trial_id: m.weight for m in members}
    mix = np.asarray(sum(scores[i].astype(np.float64) * w for i, w in weights.items()))
    calibration = None
    if data.task != "regression":
        counted = None if data.rows.weights is None else data.rows.weights[order]
        calibration = fit_calibration(labels, mix, rows=order, weights=counted)
    final = mix if calibration is None else calibration.apply(mix)
    threshold = metric.best_threshold(labels, final)
    found_scores = [
        metric.score(part, final[b], groups=g, threshold=threshold) for b, part, g in candidates.parts()
    ]
    score = float(np.mean(found_scores))
    return Chosen(
        members=members,
        calibration=calibration,
        score=score,
        threshold=threshold,
        passed_over=tuple(t.id for t in trials if _is_done(t) and _is_slow(t, alone_us)),
    )


def _finished(
    data: SearchData, trials: list[Trial], ledger: Ledger, *, alone_us: float, always: Container[str]
) -> list[tuple[Trial, tuple[FoldResult, ...]]]:
    """Return the best finished trials with their folds, as many as the rows can tell apart.

    Those in `always` are among them in any case, for what chose them was other rows. Those that take longer
    than `alone_us` for a row are passed over.
    """
    done = [t for t in trials if _is_done(t) and not _is_slow(t, alone_us)]
    ranked = sorted(done, key=lambda t: float(np.mean(t.fold_losses)))
    most = most_candidates(len(np.unique(np.concatenate([f.score for f in data.folds]))))
    ranked = [t for place, t in enumerate(ranked) if place < most or t.id in always]
    found = [(t, ledger.folds(t.id, len(data.folds))) for t in ranked]
    found = [(t, results) for t, results in found if len(results) == len(data.folds)]
    if not found:
        reason = (
            _reasons(trials) or "none finished its folds in time: raise search.budget_s or lower search.folds"
        )
        raise SearchError(f"no trial of {len(trials)} gave a model: {reason}")
    return found


def _alone_us(trials: Iterable[Trial], data: SearchData, row_ms: float) -> float:
    """Return the microseconds for a row that one of raywf's families may take by itself.

    Without bound where none is as quick, or where a row's many columns leave next to nothing for models.
    """
    done = [t for t in trials if _is_done(t)]
    room = _row_room_us(row_ms, data, done)
    is_met = any(t.row_us <= room for t in done if is_family(t.family))
    return room if is_met and room > _LEAST_ROOM_US else math.inf


def _is_slow(trial: Trial, alone_us: float) -> bool:
    """Whether a row takes a trial's model too long; a user's own may take what it takes."""
    return trial.row_us > alone_us and is_family(trial.family)


def _is_done(trial: Trial) -> bool:
    return trial.status == "done" and trial.score is not None


def _reasons(trials: list[Trial]) -> str:
    """Return why trials failed, each reason once."""
    failed: dict[str, list[str]] = {}
    for trial in trials:
        if trial.error:
            failed.setdefault(f"{trial.family} {trial.error}", []).append(trial.id)
    first = {t.id: t.error for t in trials}
    others = {ids[0]: f" and {len(ids) - 1} more" if len(ids) > 1 else "" for ids in failed.values()}
    return "; ".join(f"{name}{others[name]}: {first[name]}" for name in others)


def _blocks(data: SearchData) -> list[slice]:
    sizes = [len(f.score) for f in data.folds]
    ends = np.cumsum(sizes)
    return [slice(int(end - size), int(end)) for end, size in zip(ends, sizes, strict=True)]


def _time_shares(data: SearchData, trials: Iterable[Trial], bounds: Bounds) -> dict[str, float]:
    """Return the shares of the slots' time left that the last fits take which are still to come.

    A proof that is made already serves where there is no time for the final fit.
    """
    found = {}
    for trial in trials:
        needed, room_s = _needed_s(trial, data, bounds), max(1e-9, bounds.slots * bounds.left_s)
        if trial.id in bounds.cut:
            found[trial.id] = math.inf
        elif _span_s(needed, bounds.slots) > bounds.left_s:
            found[trial.id] = 0.0 if trial.id in bounds.made else math.inf
        else:
            found[trial.id] = sum(needed) / room_s
    return found


def _needed_s(trial: Trial, data: SearchData, bounds: Bounds) -> list[float]:
    """Return the seconds of the last fits that are still to come: of one made already the final one."""
    return _fits_s(trial, data)[1 if trial.id in bounds.made else 0 :]


def _within(weights: dict[str, float], trials: dict[str, Trial], room_us: float) -> dict[str, float]:
    """Drop the lightest members until one model of each fits the time for a row."""
    for most in range(len(weights), 1, -1):
        kept = keep_largest(weights, most)
        if sum(trials[i].row_us for i in kept) <= room_us:
            return kept
    return keep_largest(weights, 1)


def _bag_size(weights: dict[str, float], trials: dict[str, Trial], room_us: float, folds: int) -> int:
    """Return how many folds' models of each member fit the time for a row; 0 for fitting again instead."""
    for count in range(folds, _LEAST_BAG - 1, -1):
        spent = sum(trials[i].row_us * _growth(trials[i], count) for i in weights)
        if spent <= room_us:
            return count
    return 0


def _makeable(
    weights: dict[str, float], trials: dict[str, Trial], data: SearchData, bounds: Bounds, room_us: float
) -> tuple[dict[str, float], int]:
    """Return the members that can be made of folds' models or fitted again in time, and how many the former.

    Those that cannot are given up, the lightest first; and others where fewer members can all be made of
    several folds' models, which is better than more of a single fold's. Where neither way is open to any of
    them, all stay.
    """
    if not bounds.bag or len(data.folds) < _LEAST_BAG:
        return weights, 0
    kept = weights
    while kept:
        bag = _bag_size(kept, trials, room_us, len(data.folds))
        again = [i for i in kept if i not in bounds.made and not _is_merged(trials[i], bag)]
        if bounds.in_time([(trials[i], _fits_s(trials[i], data)) for i in again]):
            return keep_largest(kept, len(kept)), bag
        given_up = min(again if bag else kept, key=lambda i: (kept[i], i))
        kept = {name: weight for name, weight in kept.items() if name != given_up}
    return weights, _bag_size(weights, trials, room_us, len(data.folds))


def _is_merged(trial: Trial, bag: int) -> bool:
    """Whether a member is made of `bag` folds' models, and so not fitted again."""
    return bag >= _LEAST_BAG and traits(trial.family).merges


def _growth(trial: Trial, count: int) -> float:
    known = traits(trial.family)
    return 1 + known.bag * (count - 1) if known.merges else 1.0


def _members(
    weights: dict[str, float], trials: dict[str, Trial], data: SearchData, bounds: Bounds, *, bag: int
) -> tuple[Member, ...]:
    """Return the members, heaviest first, with how each is made: of folds' models, or fitted again.

    With two folds' models or more it is made of them. Otherwise it is fitted again on all rows as long as
    nine tenths of the time left allow; then a fold's model stands in, or, where none is kept, it is dropped.
    One whose last fit was cut short is only taken as it is where there is no other.
    """
    fits: list[tuple[Trial, list[float]]] = []
    found: list[Member] = []
    for name in sorted(weights, key=lambda i: (i in bounds.cut, -weights[i])):
        trial, folds = trials[name], 0
        if _is_merged(trial, bag):
            folds = bag
        else:
            stands_in = bounds.bag and traits(trial.family).merges
            needed = (trial, _needed_s(trial, data, bounds))
            in_time = bounds.in_time([*fits, needed])
            made = name in bounds.made
            if (in_time and name not in bounds.cut) or made or not (stands_in or found):
                fits.append(needed)
            elif stands_in:
                folds = 1
            else:
                continue
        found.append(_member(trial, weights[name], folds))
    total = sum(m.weight for m in found)
    found.sort(key=lambda m: -m.weight)
    return tuple(replace(m, weight=m.weight / total) for m in found)


def _member(trial: Trial, weight: float, folds: int) -> Member:
    return Member(
        trial_id=trial.id,
        family=trial.family,
        params=trial.params,
        rounds=trial.rounds,
        weight=weight,
        folds=folds,
    )
