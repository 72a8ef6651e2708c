"""Curves: what a search had after so many trials, and what a member learns from so many rows."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from raywf.core.explanation import LearningPoint, SearchProgress
from raywf.core.metrics import Groups, Metric
from raywf.core.records import Member, Sweep
from raywf.models.family import Family, Labels, answer, rows_for
from raywf.search.data import SearchData
from raywf.search.ensemble import Candidates, most_candidates, select_ensemble
from raywf.search.explain.heldout import fold_count, member_scores
from raywf.search.ledger import Ledger

_MOST_ROWS, _MOST_POINTS, _STEPS = 4_000, 12, 12
_SHARES = (8, 4, 2, 1)


def search_progress(
    data: SearchData, sweep: Sweep, ledger: Ledger, *, metric: Metric
) -> tuple[SearchProgress, ...]:
    """Return the best trial's and the ensemble's score after 1, 2, ... finished trials.

    On at most some thousand rows; the ensemble is chosen and scored on the same ones, as in the search.

    Raises:
        SearchError: if a trial's folds are gone.
    """
    count = fold_count(sweep)
    done = [t for t in sweep.trials if t.status == "done"]
    kept, blocks = _sample(data, count)
    index = np.concatenate([f.score for f in data.folds[:count]])[kept]
    labels = data.rows.y[index]
    groups = None if data.rows.groups is None else data.rows.groups[index]
    parts = [(b, labels[b], None if groups is None else groups[b]) for b in blocks]
    scores = {t.id: member_scores(ledger, t.id, count)[kept] for t in done}
    losses = {t.id: _loss(metric, scores[t.id], parts) for t in done}
    points, most = [], most_candidates(len(np.unique(index)))
    for number in _points(len(done)):
        begun = done[:number]
        ranked = sorted((t.id for t in begun), key=lambda i: losses[i])[:most]
        mixed = Candidates(
            labels=labels,
            scores={i: scores[i].astype(np.float32) for i in sorted(ranked)},
            blocks=blocks,
            costs={},
            groups=groups,
        )
        weights = select_ensemble(mixed, metric, steps=_STEPS)
        mix = np.asarray(sum(scores[i] * w for i, w in weights.items()))
        sign = -1 if metric.greater_is_better else 1
        points.append(
            SearchProgress(
                trials=number,
                seconds=sum(t.seconds for t in begun),
                best=sign * losses[ranked[0]],
                ensemble=sign * _loss(metric, mix, parts),
            )
        )
    return tuple(points)


def learning_curve(
    data: SearchData, member: Member, family: Family, *, metric: Metric, seed: int, threads: int
) -> tuple[LearningPoint, ...]:
    """Fit a member on an eighth, a quarter, half and all of the first fold's rows, and score its held rows.

    Each share holds the one before, and classes in equal shares.
    """
    fold, points = data.folds[0], []
    rows = rows_for(family, data.rows)
    held = rows.take(fold.score)
    problem = data.problem(threads=threads, seed=seed)
    order = np.random.default_rng(seed).permutation(fold.fit)
    order = order[np.argsort(data.rows.y[order], kind="stable")]
    for share in _SHARES:
        index = np.sort(order[::share])
        start = time.perf_counter()
        fitted = family.fit(problem, rows.take(index), dict(member.params), valid=held, rounds=0)
        seconds = time.perf_counter() - start
        loss = metric.best_loss(held.y, answer(fitted, held), groups=held.groups)
        score = -loss if metric.greater_is_better else loss
        if np.isfinite(score):
            points.append(LearningPoint(rows=len(index), score=score, seconds=seconds))
    return tuple(points)


def _sample(data: SearchData, count: int) -> tuple[NDArray[np.int64], list[slice]]:
    """Return places in the folds' joined rows, every n-th by label in each fold, and the folds' blocks."""
    sizes = [len(f.score) for f in data.folds[:count]]
    step = max(1, -(-sum(sizes) // _MOST_ROWS))
    places, blocks, start, at = [], [], 0, 0
    for fold, size in zip(data.folds, sizes, strict=False):
        taken = np.sort(np.argsort(data.rows.y[fold.score], kind="stable")[::step])
        places.append(start + taken)
        blocks.append(slice(at, at + len(taken)))
        start, at = start + size, at + len(taken)
    return np.concatenate(places), blocks


def _points(count: int) -> list[int]:
    """Return at most a dozen counts up to all, closer together at the beginning."""
    return sorted({round(x) for x in np.geomspace(1, count, min(count, _MOST_POINTS))}) if count else []


def _loss(
    metric: Metric, scores: NDArray[np.float64], parts: Sequence[tuple[slice, Labels, Groups]]
) -> float:
    return float(np.mean([metric.best_loss(labels, scores[b], groups=groups) for b, labels, groups in parts]))
