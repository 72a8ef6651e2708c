"""The seam between search and model libraries: a family fits, its model predicts, saves and loads."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raywf.models.encoding import Matrix

Labels = NDArray[np.float64]
Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What a fit is told besides its data.

    `sizes` are the encoder's category counts, shape ``(n_features,)``; `deadline` is a `time.time()` after
    which a fit stops early with what it has; `threads` is exact. A regression predicts the mean, or the
    `quantile`.
    """

    task: str
    n_classes: int
    sizes: tuple[int, ...]
    threads: int = 1
    deadline: float = float("inf")
    seed: int = 0
    quantile: float | None = None

    @property
    def width(self) -> int:
        """Number of score columns: one for binary and regression, the classes for multiclass."""
        return self.n_classes if self.task == "multiclass" else 1

    def is_over(self) -> bool:
        """Whether the deadline has passed."""
        return time.time() > self.deadline


@dataclass(frozen=True, slots=True)
class Rows:
    """Encoded features ``(n_rows, n_features)`` and labels ``(n_rows,)``.

    `weights` say how much each row counts in a fit; `groups` are the rows' groups, as numbers; `table` has
    the snapshot's feature columns as they are, where a model reads them.
    """

    X: Matrix
    y: Labels
    weights: Labels | None = None
    groups: NDArray[np.int64] | None = None
    table: pa.Table | None = None

    def take(self, index: NDArray[np.int64]) -> Rows:
        """Return the rows at `index`."""
        table = None if self.table is None else self.table.take(pa.array(index))
        return Rows(self.X[index], self.y[index], _at(self.weights, index), _at(self.groups, index), table)


def _at(values: NDArray[Any] | None, index: NDArray[np.int64]) -> Any:
    return None if values is None else values[index]


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What a search has to know of a family before it imports its library.

    Costs are beside LightGBM with 50 leaves on the same rows and columns: `per_round` is the price of a
    boosting round in its rounds, `whole` that of a fit whose length is fixed, in fits of at most 200 rounds
    at a learning rate of 0.1. `merges` says that folds' models become one, and `bag` which share of the time
    for one row each further model then adds. `widens` says that a fit takes ``pairs``.
    """

    per_round: float = 0.0
    whole: float = 0.0
    merges: bool = False
    bag: float = 0.85
    widens: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Contributions:
    """A member's raw answers as sums over its columns: ``base + added.sum(axis=1)``.

    `base` has shape ``(k,)``, `added` ``(n_rows, n_columns, k)``; `link` is the task whose link makes scores
    of raw answers ("regression" for none), `method` how the sums were found. A model whose answers can be
    taken apart so has ``contributions(X)`` beside `Model`'s methods, which returns None where it cannot.
    """

    method: Literal["trees", "linear", "sampled"]
    link: str
    base: NDArray[np.float64]
    added: NDArray[np.float64]


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


def reads_table(model: Model) -> bool:
    """Return whether a model answers a table of columns as they are, and not a matrix."""
    return bool(getattr(model, "reads_table", False))


def rows_for(family: Family, rows: Rows) -> Rows:
    """Return the rows without what the family's fits do not read."""
    return rows if getattr(family, "reads_table", False) else replace(rows, table=None)


def answer(model: Model, rows: Rows) -> Scores:
    """Return a model's scores of rows, shape ``(n_rows, width)``, from what it reads."""
    given: Any = rows.table if reads_table(model) else rows.X
    return model.predict(given)


class Family(Protocol):
    """One model library's way to fit and load."""

    @property
    def name(self) -> str:
        """What settings and trials call it."""
        ...

    def fit(
        self, problem: Problem, rows: Rows, params: dict[str, Any], *, valid: Rows | None, rounds: int
    ) -> Model:
        """Fit on `rows`; with `valid` stop early by it, else train exactly `rounds` (0: the default)."""
        ...

    def load(self, problem: Problem, folder: Path) -> Model:
        """Load what `Model.save` wrote."""
        ...

    def merge(self, models: Sequence[Any]) -> Model:
        """Return one model that answers as the models' mean: of raw scores, or of shares (forests, nets).

        Raises:
            ValueError: if they do not merge.
        """
        ...
