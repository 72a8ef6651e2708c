"""The seam between search and model libraries: a family fits, its model predicts, saves and loads."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from raywf.models.encoding import Matrix

Labels = NDArray[np.float64]
Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What a fit is told besides its data.

    `sizes` are the encoder's category counts, shape ``(n_features,)``; `deadline` is a `time.time()` after
    which a fit stops early with what it has; `threads` is exact.
    """

    task: str
    n_classes: int
    sizes: tuple[int, ...]
    threads: int = 1
    deadline: float = float("inf")
    seed: int = 0

    @property
    def width(self) -> int:
        """Number of score columns: one for binary and regression, the classes for multiclass."""
        return self.n_classes if self.task == "multiclass" else 1

    def is_over(self) -> bool:
        """Whether the deadline has passed."""
        return time.time() > self.deadline


@dataclass(frozen=True, slots=True)
class Rows:
    """Encoded features ``(n_rows, n_features)`` and labels ``(n_rows,)``."""

    X: Matrix
    y: Labels

    def take(self, index: NDArray[np.int64]) -> Rows:
        """Return the rows at `index`."""
        return Rows(self.X[index], self.y[index])


class Model(Protocol):
    """A fitted or loaded member; `predict` is safe to call from threads."""

    @property
    def rounds(self) -> int:
        """Boosting rounds, trees or epochs that it took; 0 where there is no such thing."""
        ...

    def predict(self, X: Matrix) -> Scores:
        """Return scores, shape ``(n_rows, width)``."""
        ...

    def save(self, folder: Path) -> None:
        """Write the member's files into an existing folder; no pickle."""
        ...


class Family(Protocol):
    """One model library's way to fit and load."""

    name: str

    def fit(
        self, problem: Problem, rows: Rows, params: dict[str, Any], *, valid: Rows | None, rounds: int
    ) -> Model:
        """Fit on `rows`; with `valid` stop early by it, else train exactly `rounds` (0: the default)."""
        ...

    def load(self, problem: Problem, folder: Path) -> Model:
        """Load what `Model.save` wrote."""
        ...
