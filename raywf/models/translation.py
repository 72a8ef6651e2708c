"""Whether trees that were taken over from the library that fitted them answer as they do there."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from raywf.models.encoding import Matrix
from raywf.models.family import Model, Problem, Scores

_ROWS = 64
_TOLERANCE = 1e-5


def check_translation(
    model: Model, X: Matrix, answers: Callable[[Matrix], Scores], *, problem: Problem
) -> None:
    """Compare a model's scores with the library's, which `answers` gives, on rows spread over the fit's.

    Raises:
        ValueError: if one differs by more than 1e-5, of a regression times its largest answer.
    """
    some = X[:: max(1, len(X) // _ROWS)][:_ROWS]
    expected = answers(some)
    gap = float(np.abs(model.predict(some) - expected).max(initial=0.0))
    size = float(np.abs(expected).max(initial=0.0)) if problem.task == "regression" else 1.0
    if not gap <= _TOLERANCE * size:
        raise ValueError(
            f"the model that would be served answers otherwise than the fitted one, by {gap:.3g}"
        )
