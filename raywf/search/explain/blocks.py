"""Rows to measure importance on, each block with the model that answers it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from raywf.core.records import Member, Sweep
from raywf.models.encoding import Matrix
from raywf.models.families import family, traits
from raywf.models.family import Model, Problem, Rows, Scores
from raywf.search.data import REPEATED, SearchData
from raywf.search.explain.heldout import fold_count
from raywf.search.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Block:
    """Encoded rows and what answers them."""

    predict: Callable[[Matrix], Scores]
    rows: Rows


def sample_block(
    predict: Callable[[Matrix], Scores], rows: Rows, index: NDArray[np.int64], *, most: int, seed: int
) -> Block:
    """Return a block of at most so many of the rows at `index`."""
    if len(index) > most:
        index = np.sort(np.random.default_rng(seed).choice(index, most, replace=False))
    return Block(predict, rows.take(index))


def fold_blocks(
    data: SearchData, sweep: Sweep, ledger: Ledger, *, most: int, seed: int
) -> tuple[list[Block], float]:
    """Return a block a fold, answered by the models that were fitted without it, before calibration; and the
    share of the ensemble's weight that these have, since not every family's folds are kept.
    """
    count = min(fold_count(sweep), REPEATED)
    problem = data.problem()
    kept: list[tuple[float, list[Model]]] = []
    for member in sweep.members:
        models = _fold_models(ledger, member, problem, count)
        if models:
            kept.append((member.weight, models))
    share = sum(weight for weight, _ in kept)
    if not kept:
        return [], 0.0
    blocks = [
        sample_block(
            _mixed([(w / share, models[number]) for w, models in kept]),
            data.rows,
            fold.score,
            most=max(1, most // count),
            seed=seed + number,
        )
        for number, fold in enumerate(data.folds[:count])
    ]
    return blocks, share


def _fold_models(ledger: Ledger, member: Member, problem: Problem, count: int) -> list[Model]:
    """Return a member's models by fold, or none if one was not kept."""
    if not traits(member.family).merges:
        return []
    made, models = family(member.family), []
    for number in range(count):
        with tempfile.TemporaryDirectory(prefix="raywf-") as folder:
            try:
                ledger.write_model(member.trial_id, number, Path(folder))
            except FileNotFoundError:
                return []
            models.append(made.load(problem, Path(folder)))
    return models


def _mixed(members: Sequence[tuple[float, Model]]) -> Callable[[Matrix], Scores]:
    def predict(X: Matrix) -> Scores:
        return np.asarray(sum((model.predict(X) * weight for weight, model in members), np.float64(0)))

    return predict
