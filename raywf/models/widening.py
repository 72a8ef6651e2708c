"""Finds the pairs of numbers that help, and lets any family of trees read them."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from raywf.models.encoding import Matrix
from raywf.models.family import Family, Model, Problem, Rows
from raywf.models.lightgbm import objective
from raywf.models.pairs import KINDS, Pair, Pairs, WideModel, load_wide, make_pairs, widest
from raywf.models.scale import label_scale

_NUMBERS = 10  # of which all pairs are tried
_SAMPLE = 8_000  # rows that tell
_TREES = 40
_FEWEST_VALUES = 5  # of a column that is a number and not a flag
_MOST_KNOWN = 64

# in a worker the same rows are asked about for every configuration
_known: dict[tuple[int, ...], list[Pair]] = {}


class WideningFamily:
    """A family of trees with the parameter ``pairs``: how many columns made of pairs it reads besides."""

    def __init__(self, inner: Family) -> None:
        self._inner = inner

    @property
    def name(self) -> str:
        return self._inner.name

    def fit(
        self, problem: Problem, rows: Rows, params: dict[str, Any], *, valid: Rows | None, rounds: int
    ) -> Model:
        own = {name: value for name, value in params.items() if name != "pairs"}
        pairs = find_pairs(problem, rows, int(params.get("pairs", 0)))
        if not len(pairs):
            return self._inner.fit(problem, rows, own, valid=valid, rounds=rounds)
        wide = replace(problem, sizes=problem.sizes + (0,) * len(pairs))
        held = valid and replace(valid, X=pairs.widen(valid.X))
        model = self._inner.fit(wide, replace(rows, X=pairs.widen(rows.X)), own, valid=held, rounds=rounds)
        return WideModel(model, pairs, len(problem.sizes))

    def load(self, problem: Problem, folder: Path) -> Model:
        return load_wide(self._inner.load(problem, folder), folder)

    def merge(self, models: Sequence[Any]) -> Model:
        found = widest(models)
        if found is None:
            return self._inner.merge(models)
        inner, pairs, columns = found
        return WideModel(self._inner.merge(inner), pairs, columns)


def find_pairs(problem: Problem, rows: Rows, count: int) -> Pairs:
    """Return the pairs that lower the loss most, at most `count`, of the numbers that do.

    Both by the gain of short boosting on a sample of the rows: of all numbers first, then of these and all
    pairs of the best of them.
    """
    if count <= 0:
        return Pairs()
    key = (problem.seed, len(rows.y), *(zlib.crc32(np.ascontiguousarray(a).data) for a in (rows.y, rows.X)))
    if key not in _known:
        while len(_known) >= _MOST_KNOWN:
            _known.pop(next(iter(_known)))
        _known[key] = _ranked(problem, rows)
    return make_pairs(_known[key][:count])


def _ranked(problem: Problem, rows: Rows) -> list[Pair]:
    """Return the pairs that lower the loss, the best first."""
    if len(rows.y) > _SAMPLE:
        draw = np.random.default_rng(problem.seed)
        rows = rows.take(draw.choice(len(rows.y), _SAMPLE, replace=False))
    numbers = [i for i, size in enumerate(problem.sizes) if size == 0 and _is_number(rows.X[:, i])]
    gains = _gains(problem, rows, rows.X)
    best = sorted(numbers, key=lambda i: -gains[i])[:_NUMBERS]
    asked = itertools.product(range(len(KINDS)), itertools.combinations(sorted(best), 2))
    pairs = make_pairs((kind, left, right) for kind, (left, right) in asked)
    if not len(pairs):
        return []
    gains = _gains(problem, rows, pairs.widen(rows.X))[len(problem.sizes) :]
    return [pairs.made[i] for i in np.argsort(-gains, kind="stable").tolist() if gains[i] > 0]


def _is_number(column: Matrix) -> bool:
    return len(np.unique(column[~np.isnan(column)])) >= _FEWEST_VALUES


def _gains(problem: Problem, rows: Rows, X: Matrix) -> NDArray[np.float64]:
    settings = {
        **objective(problem),
        "num_threads": problem.threads,
        "seed": problem.seed,
        "verbosity": -1,
        "learning_rate": 0.2,
        "num_leaves": 31,
        "min_data_in_leaf": int(np.clip(len(X) // 100, 5, 20)),
        "feature_fraction": 0.7,
        "max_bin": 63,
    }
    categories = [i for i, size in enumerate(problem.sizes) if size > 0]
    data = lgb.Dataset(
        X,
        label_scale(problem, rows.y).scaled(rows.y),
        weight=rows.weights,
        categorical_feature=categories,
        params=settings,
    )
    rounds = max(10, round(2.5 * _TREES / problem.width)) if problem.width > 1 else _TREES
    booster = lgb.train(settings, data, rounds)
    return np.asarray(booster.feature_importance("gain"), dtype=np.float64)
