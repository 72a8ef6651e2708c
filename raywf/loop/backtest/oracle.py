"""The best that refits could have done: which of their moments, had one known what was to come."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from raywf.core.errors import SearchError, ValidationError
from raywf.loop.backtest.course import Course, Event, Step
from raywf.loop.backtest.past import Past
from raywf.loop.backtest.trainings import Training, Trainings
from raywf.models.bundle import load_bundle

Matrix = NDArray[np.float64]
_MISSING = float("nan")


def refits(trainings: Trainings, chances: Sequence[datetime]) -> tuple[Training, ...]:
    """Return the first model and, of each later chance but the last, a refit of its configuration.

    Of a chance whose rows are refused it is the one before it.
    """
    found = [trainings.train(chances[0], effort="full")]
    for chance in chances[1:-1]:
        try:
            found.append(trainings.train(chance, effort="refit", former=(found[0].sweep,)))
        except (ValidationError, SearchError):
            found.append(found[-1])
    return tuple(found)


def losses(past: Past, models: Sequence[Training], chances: Sequence[datetime]) -> tuple[Matrix, Matrix]:
    """Return the loss of the model of chance i in the step from chance k, shape ``(n, n)``; nan for i > k.

    Steps without rows, and those where the metric is not defined, are nan. Second comes what an answer earned
    there, nan where nothing says what it is worth.
    """
    trust = past.workflow.trusts_own_code
    found, earned = (np.full((len(models), len(models)), _MISSING) for _ in range(2))
    for i, made in enumerate(models):
        predictor = load_bundle(made.final.uri, digest=made.final.digest, trust=trust)
        for k in range(i, len(models)):
            table = past.table[past.between(chances[k], chances[k + 1])]
            if not table.num_rows:
                continue
            scores = past.spell(predictor, predictor.predict_table(table))
            for matrix, score in ((found, past.metric), (earned, past.value)):
                told = score(table, scores, threshold=predictor.bundle.threshold)
                matrix[i, k] = _MISSING if told is None else told
    return found, earned


def best_moments(matrix: Matrix, *, changes: int) -> tuple[int, ...]:
    """Return the chances, at most `changes`, whose models serve from then on with the least sum of losses.

    `matrix` has a step's loss, times its length.

    >>> best_moments(np.array([[1.0, 3.0, 3.0], [np.nan, 2.0, 2.0], [np.nan, np.nan, 1.9]]), changes=1)
    (1,)
    """
    n = len(matrix)
    filled = np.nan_to_num(matrix)
    total = np.concatenate([np.zeros((n, 1)), np.cumsum(filled, axis=1)], axis=1)
    best: dict[tuple[int, int], tuple[float, tuple[int, ...]]] = {}

    def cost(model: int, left: int) -> tuple[float, tuple[int, ...]]:
        """Return the least sum from the chance of `model` on, with `left` changes to come."""
        if (model, left) not in best:
            options: list[tuple[float, tuple[int, ...]]] = []
            options.append((float(total[model, n] - total[model, model]), ()))
            if left:
                for k in range(model + 1, n):
                    later, moments = cost(k, left - 1)
                    options.append((float(total[model, k] - total[model, model]) + later, (k, *moments)))
            best[model, left] = min(options, key=lambda option: option[0])
        return best[model, left]

    return cost(0, changes)[1]


def course_of(
    name: str,
    past: Past,
    models: Sequence[Training],
    chances: Sequence[datetime],
    *,
    changes: int,
) -> Course:
    """Return the course of the policy that puts the best of these models into production, so many at most."""
    matrix, values = losses(past, models, chances)
    lengths = np.asarray([(end - start).total_seconds() for start, end in itertools.pairwise(chances)])
    moments = best_moments(matrix * lengths, changes=changes)
    serving = 0
    steps, events = [], []
    for k in range(len(models)):
        if k in moments:
            helped = bool(matrix[k, k] < matrix[serving, k])
            serving = k
            events.append(_event(name, models[k], version=str(k + 1), helped=helped))
        loss, value = float(matrix[serving, k]), float(values[serving, k])
        rows = past.between(chances[k], chances[k + 1])
        steps.append(
            Step(
                start=chances[k],
                end=chances[k + 1],
                version=str(serving + 1),
                rows=rows.stop - rows.start,
                loss=None if math.isnan(loss) else loss,
                value=None if math.isnan(value) else value,
            )
        )
    return Course(policy=name, steps=tuple(steps), events=tuple(events))


def _event(name: str, made: Training, *, version: str, helped: bool) -> Event:
    return Event(
        time=made.as_of,
        settled=made.as_of,
        kind="retrain",
        cause=name,
        effort=made.sweep.effort,
        stage="promoted",
        reason="",
        cpu_s=made.sweep.cpu_s,
        cost_usd=made.sweep.cost_usd,
        version=version,
        helped=helped,
    )
