"""What answers earn where the workflow says what each pair of an answer and a label is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from raywf.core.metrics import Array

Values = Mapping[str, Mapping[str, float]]


def earned(
    labels: Array, scores: Array, *, classes: Sequence[str], threshold: float, values: Values
) -> Array:
    """Return what each answer earned, shape ``(n_rows,)``; 0 for a pair that `values` does not name.

    `labels` are class indices ``(n_rows,)``, `scores` have shape ``(n_rows, k)``; `values` are by the class
    that was answered, then by the one that it was.

    >>> worth = {"yes": {"yes": 5.0, "no": -1.0}}
    >>> scores = np.array([[0.9], [0.9], [0.1]])
    >>> earned(np.array([1.0, 0.0, 1.0]), scores, classes=("no", "yes"), threshold=0.5, values=worth).tolist()
    [5.0, -1.0, 0.0]
    """
    table = np.array([[values.get(said, {}).get(was, 0.0) for was in classes] for said in classes])
    binary = len(classes) == 2
    said = (scores[:, -1] >= threshold).astype(np.int64) if binary else scores.argmax(axis=1)
    found: Array = table[said, labels.astype(np.int64)]
    return found
